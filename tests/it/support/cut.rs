//! The death of a process, at a chosen point: work that is dropped where it stands.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use hookswitch::app::App;

/// Runs work up to its `polls`-th stop and drops it there: what it has asked of the database or of Twilio is under way,
/// and its answer will never be read. `None` if it was dropped.
///
/// Every second time it is dropped only a moment later, when what it had asked for has been done.
pub(crate) async fn cut<T>(work: impl Future<Output = T>, polls: usize) -> Option<T> {
    let mut work = Box::pin(work);
    let mut left = polls;
    let ended = poll_fn(|context| {
        left -= 1;
        match work.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await;
    if ended.is_none() && polls.is_multiple_of(2) {
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
    ended
}

/// A process that works through the queue and dies at its `polls`-th stop. Answers whether it came to the end before.
pub(crate) async fn work_and_die(process: App, polls: usize) -> bool {
    let ended = cut(process.worker.run_until_idle(), polls).await;
    // The connections of a dead process are closed, and what was not committed is rolled back.
    let t = std::time::Instant::now();
    process.pool.close().await;
    eprintln!("polls {polls} ended {} close {:?}", ended.is_some(), t.elapsed());
    ended.is_some()
}
