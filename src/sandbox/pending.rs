//! Counts the work that is under way, so that a test can wait until there is none.

use tokio::sync::watch;

/// A counter whose clones count together.
#[derive(Clone)]
pub(crate) struct Pending(watch::Sender<usize>);

/// One piece of work, for as long as it lives.
pub(crate) struct Guard(watch::Sender<usize>);

impl Pending {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(0))
    }

    pub(crate) fn begin(&self) -> Guard {
        self.0.send_modify(|count| *count += 1);
        Guard(self.0.clone())
    }

    /// Waits until nothing is under way.
    pub(crate) async fn settled(&self) {
        let mut count = self.0.subscribe();
        count
            .wait_for(|count| *count == 0)
            .await
            .expect("the sender lives in self");
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count -= 1);
    }
}
