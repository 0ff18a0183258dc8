//! The log: what happened, to what, by whom, through what, because of what. Owns `event` and `log_origin`.
//!
//! There is one log. The CRM's feed, the timeline and the audit are readers of it. An entry is written in the
//! transaction of what it tells, and never changed.

mod erase;
mod store;

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::ids::{AccountSid, ConversationSid};

pub use erase::{
    ErasedEntries, due as due_for_erasure, erase, erase_person,
    of_conversation as of_conversation_for_erasure,
};
pub use store::{
    EventRow, append, append_unannounced, end, last_via, lift_above_restored_log, of_timeline, page,
    page_of_conversation,
};

/// The channel on which PostgreSQL tells listeners that entries were committed.
pub const CHANNEL: &str = "hookswitch_event";

/// An entry about to be written.
#[derive(Debug, Clone)]
pub struct NewEvent {
    pub kind: Kind,
    pub account_sid: Option<AccountSid>,
    pub conversation_sid: Option<ConversationSid>,
    /// The SID or id of what it happened to.
    pub subject: String,
    /// The identity or API key that did it, where one did.
    pub actor: Option<String>,
    pub via: Via,
    /// What brought it about, like `webhook:17` or `transfer:0192…`.
    pub cause: Option<String>,
    /// The source's own time.
    pub occurred_at: Timestamp,
    /// Our time.
    pub recorded_at: Timestamp,
    pub data: serde_json::Value,
}

macro_rules! texts {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, utoipa::ToSchema)]
        pub enum $name {
            $($(#[$item])* #[serde(rename = $text)] $variant,)*
        }

        impl $name {
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }

            pub fn parse(text: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|one| one.as_str() == text)
            }
        }
    };
}

texts! {
    /// What happened.
    Kind {
        ConversationAdded = "conversation.added",
        ConversationUpdated = "conversation.updated",
        ConversationStateChanged = "conversation.state_changed",
        ConversationRemoved = "conversation.removed",
        ParticipantAdded = "participant.added",
        ParticipantUpdated = "participant.updated",
        ParticipantRemoved = "participant.removed",
        MessageAdded = "message.added",
        MessageUpdated = "message.updated",
        MessageRemoved = "message.removed",
        DeliveryUpdated = "delivery.updated",
        UserUpdated = "user.updated",
        /// A line has come to be, or changed hands, or ended: `from`, `to` and `cause` say which.
        HolderChanged = "line.holder_changed",
        GroupTextRequested = "group_text.requested",
        /// A number of a team was chosen for it: `line`, `team` and `open_groups` say which.
        GroupTextNumberChosen = "group_text.number_chosen",
        GroupTextInitializing = "group_text.initializing",
        GroupTextActive = "group_text.active",
        GroupTextAdopted = "group_text.adopted",
        GroupTextFailed = "group_text.failed",
        GroupTextClosed = "group_text.closed",
        TransferOffered = "transfer.offered",
        TransferAccepted = "transfer.accepted",
        TransferStarted = "transfer.started",
        TransferCompleted = "transfer.completed",
        TransferDeclined = "transfer.declined",
        TransferCancelled = "transfer.cancelled",
        TransferExpired = "transfer.expired",
        TransferFailed = "transfer.failed",
        TransferNeedsAttention = "transfer.needs_attention",
        /// Another transfer of the line took its place: `superseded_by` says which.
        TransferSuperseded = "transfer.superseded",
        /// Nobody on its list took it.
        TransferExhausted = "transfer.exhausted",
        /// A candidate was passed over: `skipped` and `why` say who.
        TransferSkipped = "transfer.skipped",
        /// The one who is offered the line read the thread.
        TransferThreadRead = "transfer.thread_read",
        /// The swap cannot go on for now: `waiting_for` and `waiting_error` say why.
        TransferWaiting = "transfer.waiting",
        /// Somebody asked for something that was refused: `verb`, `by` and `code` say what.
        TransferRefused = "transfer.refused",
        TransferIntroduced = "transfer.introduced",
        /// The line was given, and the new holder's introduction was not posted: `code` says why.
        TransferIntroductionFailed = "transfer.introduction_failed",
        /// A line that nobody held is given to somebody: `to`, `by` and `passed` say whom, how they were chosen, and who was not.
        LineAssigned = "line.assigned",
        /// A line that nobody holds waits in a queue: `team`, `reason` and `passed` say where and why.
        LineQueued = "line.queued",
        /// Somebody took a line from the queue.
        LineTaken = "line.taken",
        /// A line waits no longer: somebody got it otherwise, or it is over.
        LineDequeued = "line.dequeued",
        SendQueued = "send.queued",
        SendSent = "send.sent",
        SendFailed = "send.failed",
        SendNeedsAttention = "send.needs_attention",
        /// It waits until a supervisor has decided, since a member has opted out.
        SendHeld = "send.held",
        SendWaiting = "send.waiting",
        /// A member wants no more messages from a number: `source` and `evidence` say how we know.
        OptOutRecorded = "opt_out.recorded",
        /// The member wants messages again.
        OptOutCleared = "opt_out.cleared",
        /// A group goes on without the member: `holder` has the line.
        OptOutWarned = "opt_out.warned",
        /// Nothing is posted to a group until a supervisor decides: `holder` and `supervisor` say whom it concerns.
        OptOutHeld = "opt_out.held",
        OptOutAllowed = "opt_out.allowed",
        OptOutStopped = "opt_out.stopped",
        OptOutClosing = "opt_out.closing",
        OptOutClosed = "opt_out.closed",
        OptOutCloseFailed = "opt_out.close_failed",
        /// A number has another policy: `from` and `to`.
        OptOutPolicyChanged = "opt_out.policy_changed",
        /// Something is wrong with a line: `code` says what.
        LineFindingOpened = "line.finding_opened",
        LineFindingResolved = "line.finding_resolved",
        LineRepairQueued = "line.repair_queued",
        LineRepairDone = "line.repair_done",
        LineRepairFailed = "line.repair_failed",
        WebhookSetAside = "webhook.set_aside",
        WebhookReplayed = "webhook.replayed",
        /// Somebody looked at what a webhook says.
        WebhookRevealed = "webhook.revealed",
        TaskBuried = "task.buried",
        ApiKeyCreated = "api_key.created",
        ApiKeyRevoked = "api_key.revoked",
        /// The rules of retention erased what was due: `class`, `before`, `erased` and `held` say what.
        RetentionErased = "retention.erased",
        /// A person is to be erased, by the id of the request; and was: `counts` say what.
        ErasureRequested = "erasure.requested",
        ErasureFinished = "erasure.finished",
        LegalHoldSet = "legal_hold.set",
        LegalHoldReleased = "legal_hold.released",
        /// An agent was added or their profile changed: `changes` says what.
        AgentChanged = "agent.changed",
        AgentAvailabilityChanged = "agent.availability_changed",
        AgentRemoved = "agent.removed",
        TeamChanged = "team.changed",
        TeamRemoved = "team.removed",
        /// A file of people was brought in; each change has its own entry, with this one's subject as its cause.
        PeopleImported = "people.imported",
        /// Somebody asked for a plan that hands over all lines of a person.
        HandoverRequested = "handover.requested",
        /// Its lines are found, and it is decided to whom each goes: `counts` say how many.
        HandoverPlanned = "handover.planned",
        /// Lines of the draft were decided about by hand.
        HandoverChanged = "handover.changed",
        HandoverStarted = "handover.started",
        HandoverPaused = "handover.paused",
        HandoverResumed = "handover.resumed",
        HandoverCancelled = "handover.cancelled",
        /// What was handed over goes back: `back_because` says why.
        HandoverTurnedRound = "handover.turned_round",
        HandoverCompleted = "handover.completed",
        HandoverReturned = "handover.returned",
        /// A line of a plan came to its end, on its way out or back: `state` or `back_state`, and the outcome, say which.
        HandoverLineEnded = "handover.line_ended",
        /// Somebody asked for something that the plan's state did not allow: `verb`, `by` and `code` say what.
        HandoverRefused = "handover.refused",
        /// A number was added to the pool or changed: `changes` says what.
        NumberChanged = "number.changed",
        NumberRemoved = "number.removed",
        /// Something is amiss with a line, and its policy says what to do: `rule` and `because` say what.
        EscalationStarted = "escalation.started",
        /// Somebody was told, is offered the line, or gets it: `how`, `whom` and `to` say who.
        EscalationStepTaken = "escalation.step_taken",
        /// There was nobody for a step: `code` says why.
        EscalationStepSkipped = "escalation.step_skipped",
        /// The transfer of a step could not be started: `code` says why.
        EscalationStepRefused = "escalation.step_refused",
        /// A step was given up before it had an effect: the escalation had come to its end.
        EscalationStepDropped = "escalation.step_dropped",
        /// It is over, since something happened: `why` says what.
        EscalationStopped = "escalation.stopped",
        /// It is over: all its steps were taken.
        EscalationEnded = "escalation.ended",
        /// It is over, all its steps were taken, and a person has to look.
        EscalationNeedsPerson = "escalation.needs_person",
        EscalationPolicyChanged = "escalation_policy.changed",
        EscalationPolicyRemoved = "escalation_policy.removed",
        /// The mirror was made anew, and what differed was written: `tables` says how much.
        MirrorRebuilt = "mirror.rebuilt",
    }
}

texts! {
    /// Through what it happened, or through what we learnt of it.
    Via {
        Webhook = "webhook",
        /// The answer of a call of ours to Twilio.
        Rest = "rest",
        Api = "api",
        Timer = "timer",
        Sweep = "sweep",
        Cli = "cli",
        Worker = "worker",
    }
}

/// A place in the log: everything at or before it has been read.
///
/// Its text form is opaque to readers; it sorts as the log does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position {
    pub commit_xid: i64,
    pub event_id: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a cursor that an earlier answer gave")]
pub struct InvalidPosition;

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:016x}", self.commit_xid, self.event_id)
    }
}

impl std::str::FromStr for Position {
    type Err = InvalidPosition;

    fn from_str(text: &str) -> Result<Self, InvalidPosition> {
        let number = |text: &str| match text.len() {
            16 => i64::from_str_radix(text, 16).map_err(|_| InvalidPosition),
            _ => Err(InvalidPosition),
        };
        let (commit_xid, event_id) = text.split_once('-').ok_or(InvalidPosition)?;
        Ok(Self {
            commit_xid: number(commit_xid)?,
            event_id: number(event_id)?,
        })
    }
}

/// The cause of what a transfer does.
pub fn transfer_cause(transfer_id: Uuid) -> String {
    format!("transfer:{transfer_id}")
}

/// The transfer that a cause names, if it names one.
pub fn transfer_of_cause(cause: &str) -> Option<Uuid> {
    cause.strip_prefix("transfer:")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_survives_its_text_form() {
        let position = Position {
            commit_xid: 7301,
            event_id: 42,
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        for wrong in ["", "1-2", "0000000000001c85", "0000000000001c85-000000000000002g"] {
            assert_eq!(wrong.parse::<Position>(), Err(InvalidPosition), "{wrong}");
        }
    }

    #[test]
    fn the_transfer_of_a_cause_is_found_again() {
        let id = Uuid::from_u128(7);
        assert_eq!(transfer_of_cause(&transfer_cause(id)), Some(id));
        for other in [
            "webhook:17",
            "transfer:",
            "transfer:x",
            "api_key:0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01",
        ] {
            assert_eq!(transfer_of_cause(other), None, "{other}");
        }
    }

    #[test]
    fn kinds_parse_back() {
        for kind in Kind::ALL {
            assert_eq!(Kind::parse(kind.as_str()), Some(*kind));
        }
    }
}
