//! The death of a process, at a chosen point: work that is dropped where it stands.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use hookswitch::app::App;

use super::app::TestApp;
use super::tables;

/// Runs work up to its `polls`-th stop and drops it there: what it has asked of the database or of Twilio is under way,
/// and its answer will never be read. `None` if it was dropped.
///
/// Half of the times it is dropped only a moment later, when what it had asked for has been done.
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
    if ended.is_none() && (polls / 3).is_multiple_of(2) {
        tokio::time::sleep(Duration::from_millis(8)).await;
    }
    ended
}

/// A process that works through the queue and dies at its `polls`-th stop. Answers whether it came to the end of it before.
///
/// Nothing of it is left but what it has committed: what it held open at the database is rolled back before this
/// answers. (Its pool is used again, since to connect costs more than all the rest.)
pub(crate) async fn work_and_die(app: &TestApp, process: &App, polls: usize) -> bool {
    connect(process).await;
    let ended = cut(process.worker.run_until_idle(), polls).await;
    nothing_is_open(app).await;
    match ended {
        Some(Ok(runs)) => runs > 0,
        Some(Err(error)) => {
            eprintln!("DEBUG {polls} {error:?}");
            false
        }
        None => false,
    }
}

/// More than the work takes: one that was just let go is not there again at once, and then another one is taken.
const CONNECTIONS: usize = 6;

/// Connects beforehand: to log in takes hundreds of stops, and none of them is a step of the work.
pub(crate) async fn connect(process: &App) {
    // They are given back behind our back, and one that died in the middle of an answer is not given back at all.
    while process.pool.num_idle() < CONNECTIONS {
        let connections =
            futures_util::future::join_all((0..CONNECTIONS).map(|_| process.pool.acquire())).await;
        assert!(connections.iter().all(Result::is_ok));
        drop(connections);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

/// Waits until the connections of a dead process have ended their transactions.
pub(crate) async fn nothing_is_open(app: &TestApp) {
    let open = "pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
        and backend_type = 'client backend' and state <> 'idle'";
    for _ in 0..5_000 {
        if tables::count(app, open).await == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("a dead process holds on to its transaction");
}
