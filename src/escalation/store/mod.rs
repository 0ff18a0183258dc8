//! Rows: policies, escalations with their steps, and lines that are to be looked at.

mod policy;
mod run;
pub(super) mod watch;

pub(super) use policy::{
    Live, delete_policy, enabled, insert_version, live_versions, lock_policies, upsert_policy,
};
pub use policy::{document_of, find_policy, policies};
pub(super) use run::{
    Begun, Changed, Settled, StepRow, find_all, insert, insert_one, insert_steps, known, lock, lock_open,
    settle_steps, steps_of, update,
};
pub use run::{Filter, find, page, steps};
pub use watch::count_lines;

/// What a column should not hold.
fn unreadable(what: &str, error: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(format!("{what}: {error}").into())
}
