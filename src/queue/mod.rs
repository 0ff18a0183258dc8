//! The one durable work queue, in PostgreSQL. Owns `task`; knows no kinds of tasks.
//!
//! A task is put in the transaction of what it follows from. Tasks with the same order key run one after the other,
//! oldest first. A claim is a lease with a fresh token: what the holder writes names the token, so that a worker that
//! overslept changes nothing. A task that fails is tried again with growing delays up to its limit, then buried: it
//! stays, with its last error, until a person deals with it.
//!
//! Each kind of task has its [`Lane`], and a process runs so many tasks at once in each: what needs the database alone goes on
//! while Twilio hangs, and what somebody waits for does not stand behind what is read in the background.

mod lane;
mod retry;
mod store;
mod worker;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

pub use lane::{Concurrency, Lane, TaskKind, Wake};
pub use retry::backoff;
pub use store::{Counts, counts, finish, finish_along, is_held, put, put_all, requeue_dead, take_along};
pub use worker::{Settings, Worker};

/// The channel on which PostgreSQL tells workers that a task was put, and for which lane.
pub const CHANNEL: &str = "hookswitch_task";

/// A task about to be put.
#[derive(Debug, Clone)]
pub struct NewTask {
    pub kind: TaskKind,
    /// Tasks that have it run one after the other. All of them are of one lane.
    pub order_key: String,
    /// At most one waiting task of a kind has it; putting another takes its payload and the earlier of both times.
    pub unique_key: Option<String>,
    pub payload: serde_json::Value,
    pub run_at: Timestamp,
    /// How often it is tried before it is buried.
    pub attempts_max: i32,
}

/// A task that this worker holds.
#[derive(Debug, Clone)]
pub struct Task {
    pub lease: Lease,
    pub kind: String,
    pub payload: serde_json::Value,
    /// This one included, so at least 1.
    pub attempts: i32,
    pub attempts_max: i32,
    pub created_at: Timestamp,
}

/// A task that is done along with another one of its kind.
#[derive(Debug, Clone)]
pub struct Along {
    pub task_id: i64,
    pub payload: serde_json::Value,
}

/// The right to finish a task, until somebody else claims it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    pub task_id: i64,
    pub token: Uuid,
}

/// What became of one run of a task.
#[derive(Debug)]
pub enum Outcome {
    /// It is done; the worker takes it off the queue.
    Done,
    /// It is done, and was finished in the transaction of its effect.
    Finished,
    /// Not yet: it is waiting for something, which does not count as a failed attempt.
    Wait(SignedDuration),
    /// It failed in a way that may pass.
    Retry(anyhow::Error),
    /// It cannot succeed; a person has to look.
    Bury(anyhow::Error),
}

/// What runs the tasks of one kind.
pub trait Handler: Send + Sync {
    /// Runs the task. May be stopped at any point and run again.
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome>;

    /// Tells that the task was buried, in the transaction that buries it.
    fn buried<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        task: &'a Task,
        error: &'a str,
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        let _ = (conn, task, error);
        Box::pin(async { Ok(()) })
    }
}
