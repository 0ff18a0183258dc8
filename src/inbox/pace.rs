//! How often projectors look for webhooks while few come.
//!
//! A batch costs a transaction of a dozen statements, whether it has one webhook or a hundred. At a few hundred a second, and
//! with a batch for each, projecting would take most of a core, and acknowledgements would wait for it. So while batches are
//! small, one begins every [`GAP`] at most, and has what came meanwhile. The first one after a pause begins at once, and
//! under load nobody waits: then batches are large by themselves.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// Between the beginnings of two small batches.
const GAP: Duration = Duration::from_millis(10);

/// A batch of fewer webhooks is small.
const SMALL: usize = 16;

/// Shared by the projectors of a process.
#[derive(Debug, Clone, Default)]
pub struct Pace(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// The last batch that ended was large.
    is_busy: bool,
    /// When the next one may begin, unless it is busy.
    next: Option<Instant>,
}

impl Pace {
    /// Waits until a batch may begin.
    pub(super) async fn turn(&self) {
        while let Some(at) = self.take(Instant::now()) {
            sleep_until(at).await;
        }
    }

    /// Takes the turn, or says when to ask again.
    fn take(&self, now: Instant) -> Option<Instant> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wait = state.next.filter(|next| !state.is_busy && *next > now);
        if wait.is_none() {
            state.next = Some(now + GAP);
        }
        wait
    }

    /// A batch of so many webhooks has ended.
    pub(super) fn ended(&self, webhooks: usize) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.is_busy = webhooks >= SMALL;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_batches_keep_apart_and_large_ones_do_not() {
        let pace = Pace::default();
        let begin = Instant::now();
        assert_eq!(pace.take(begin), None, "the first begins at once");
        assert_eq!(pace.take(begin + GAP / 2), Some(begin + GAP), "whoever asks");
        pace.ended(1);
        assert_eq!(pace.take(begin + GAP / 2), Some(begin + GAP));
        assert_eq!(pace.take(begin + GAP), None);
        pace.ended(SMALL);
        assert_eq!(pace.take(begin + GAP), None, "more waits");
        assert_eq!(pace.take(begin + GAP), None, "for everybody");
        pace.ended(0);
        assert_eq!(pace.take(begin + GAP + GAP / 2), Some(begin + GAP + GAP));
        assert_eq!(pace.take(begin + GAP * 100), None, "after a pause at once");
    }
}
