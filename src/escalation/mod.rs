//! Escalation policies: what happens to a line on which something is amiss. Owns `escalation_policy`,
//! `escalation_policy_version`, `escalation`, `escalation_step` and `escalation_watch`.
//!
//! [`policy`] is what somebody decides, and [`evaluate`] what follows from it for one line: both pure. [`history`] reads the
//! facts, [`world`] is our people. [`work`] does what is due, in sets; [`act`] starts the transfers of steps that offer or
//! force; [`dry_run`] and [`backtest`] ask the same evaluator what would happen, and what would have happened.
//!
//! Deadlines are derived and kept nowhere but as the time at which to look again (`escalation_watch`): whatever changes a
//! line marks it ([`mod@follow`]), and each look begins anew with what is known.
//!
//! Locks are taken in one order: the conversation, the transfer, the line's watch, the escalation.

pub mod act;
pub mod backtest;
pub mod dry_run;
pub mod erase;
pub mod evaluate;
mod follow;
pub mod history;
mod look;
mod operations;
pub mod policy;
pub mod since;
mod store;
mod tell;
pub mod words;
pub mod work;
pub mod world;

use jiff::Timestamp;
use uuid::Uuid;

use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::people::Slug;
use crate::queue::{Lane, TaskKind};

use self::policy::Policy;
use self::since::Since;

pub use act::Acting;
pub use follow::follow;
pub use look::{Standing, in_force};
pub use operations::{
    Ask, AskError, PutPolicyError, RemovePolicyError, Stop, StopError, ask, known, put_policy, remove_policy,
    stop,
};
pub use store::{Filter, count_lines, document_of, find, find_policy, page, policies, steps};
pub use work::Escalator;

/// The kind of task that starts or withdraws the transfer of a step.
pub const ACT_TASK: TaskKind = TaskKind::new("escalation.act", Lane::Local);

/// A policy as stored, in its newest version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredPolicy {
    pub policy_id: Slug,
    /// Grows by one with each change.
    pub version: i64,
    pub policy: Policy,
    /// As it was written.
    pub document: serde_json::Value,
    /// None: it is disabled.
    pub enabled_since: Option<Timestamp>,
    /// Of what came later than that.
    pub since: Since,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

/// An escalation as stored. Does not print whom it is about, nor why somebody asked for it.
#[derive(Clone, PartialEq, Eq)]
pub struct Escalation {
    pub escalation_id: Uuid,
    pub account_sid: String,
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub policy_id: Slug,
    pub policy_version: i64,
    pub rule: String,
    /// `no_answer`, `unavailable`, `words`, `delivery_failure` or `asked`.
    pub cause: String,
    pub cause_key: String,
    pub cause_at: Timestamp,
    pub holder: Option<Identity>,
    pub asked_by: Option<String>,
    pub reason: Option<String>,
    /// `open`, `stopped`, `ended` or `needs_person`.
    pub state: String,
    pub why: Option<String>,
    pub stopped_by: Option<String>,
    pub next_at: Option<Timestamp>,
    pub started_at: Timestamp,
    pub updated_at: Timestamp,
    pub finished_at: Option<Timestamp>,
}

impl std::fmt::Debug for Escalation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Escalation")
            .field("escalation_id", &self.escalation_id)
            .field("conversation_sid", &self.conversation_sid)
            .field("rule", &self.rule)
            .field("cause", &self.cause)
            .field("state", &self.state)
            .field("why", &self.why)
            .finish_non_exhaustive()
    }
}

/// A step of an escalation as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    pub escalation_id: Uuid,
    /// From 1.
    pub number: i32,
    /// Of the rule, from 1.
    pub step: i32,
    pub how: String,
    pub whom: String,
    pub to: Option<Identity>,
    pub taken_at: Timestamp,
    /// `told`, `skipped`, `asked`, `started`, `refused` or `dropped`.
    pub outcome: String,
    pub code: Option<String>,
    pub transfer_id: Option<Uuid>,
    pub settled_at: Option<Timestamp>,
    /// Of its transfer, where it has one, and when that came to its end.
    pub transfer_state: Option<String>,
    pub transfer_finished_at: Option<Timestamp>,
}
