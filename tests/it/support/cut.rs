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
    // A connection on which the one before died in the middle of something may fail, and then this is a death as well.
    matches!(ended, Some(Ok(runs)) if runs > 0)
}

/// More than the work takes: one that was just let go is not there again at once, and then another one is taken.
const CONNECTIONS: usize = 6;

/// Connects beforehand: to log in takes hundreds of stops, and none of them is a step of the work.
pub(crate) async fn connect(process: &App) {
    // They are given back behind our back, and one that died in the middle of an answer may not be.
    for _ in 0..500 {
        if process.pool.num_idle() >= CONNECTIONS {
            return;
        }
        drop(futures_util::future::join_all((0..CONNECTIONS).map(|_| process.pool.acquire())).await);
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("a process cannot connect");
}

/// Counts the points of death, and says when there are no more: when several processes in a row have come to the end. Where
/// a process stops depends on how fast the database answers, so that one alone proves little.
#[derive(Default)]
pub(crate) struct Points {
    deaths: usize,
    alive_in_a_row: usize,
}

impl Points {
    /// Notes one point. True: it is enough.
    pub(crate) fn note(&mut self, what: &str, alive: bool) -> bool {
        self.deaths += usize::from(!alive);
        self.alive_in_a_row = if alive { self.alive_in_a_row + 1 } else { 0 };
        let enough = self.alive_in_a_row == 4;
        if enough {
            assert!(
                self.deaths > 3,
                "{what}: only {} deaths prove nothing",
                self.deaths
            );
            tracing::info!(deaths = self.deaths, "{what}");
        }
        enough
    }
}

/// Waits until the connections of a dead process have ended their transactions.
pub(crate) async fn nothing_is_open(app: &TestApp) {
    // As the login: the service's role does not see what other sessions do.
    let open = "set local role none; select (count(*))::text from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()
        and backend_type = 'client backend' and state <> 'idle'";
    for _ in 0..5_000 {
        if tables::rows(app, open).await == ["0"] {
            return;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("a dead process holds on to its transaction");
}
