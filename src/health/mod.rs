//! Whether groups can be written in: what is wrong with each line, since when, and the repair where one is safe. Owns
//! `line_send` and `line_finding`.
//!
//! A group may look healthy, with messages coming in every day, while every answer of ours is refused. So each group is
//! judged ([`judge`], pure) whenever a sweep has looked at it, Twilio has refused a message of ours, or a repair was
//! made; what is found stays until it is gone. A repair is a task in the conversation's order ([`work`]): it reads,
//! judges again, does one thing at Twilio, and believes what the next reading shows.

pub mod erase;
mod findings;
pub mod judge;
mod operations;
mod store;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::config;
use crate::ids::PhoneNumber;
use crate::queue::{Lane, TaskKind};
use crate::twilio::model::AddressConfiguration;

pub use findings::Send;
pub use operations::{NewRepair, StartRepairError};
pub use store::{Filter, LineSend, Refusal, count_open, findings_of_conversation, page, sends_of};
pub use work::Repairer;

/// The kind of task that makes one repair.
pub const REPAIR_TASK: TaskKind = TaskKind::new("health.repair", Lane::Foreground);

macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$item:meta])* $variant:ident = $text:literal,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
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

words! {
    /// What is wrong. Stable names.
    Code {
        /// No number of ours is in the group any more: nobody can answer.
        ProjectedParticipantMissing = "projected_participant_missing",
        /// The number is in the group, and nobody is behind it.
        LineUnstaffed = "line_unstaffed",
        /// Twilio refuses our messages with 50513: it does not have their author as a member. Messages still come in.
        AuthorNotInGroup = "author_not_in_group",
        /// Twilio refused the last message for another reason.
        SendRefused = "send_refused",
        /// The conversation has no messaging service.
        MessagingServiceMissing = "messaging_service_missing",
        /// The conversation's messaging service is not the account's configured one.
        MessagingServiceDiffers = "messaging_service_differs",
        /// The number is not among the account's configured ones.
        NumberNotConfigured = "number_not_configured",
        /// Twilio makes no conversations of ours from what customers write to the number first.
        NumberNotAutocreating = "number_not_autocreating",
        /// The conversation is known by webhooks alone.
        NeverVerified = "never_verified",
    }
}

impl Code {
    pub fn severity(self) -> Severity {
        match self {
            Self::ProjectedParticipantMissing
            | Self::AuthorNotInGroup
            | Self::SendRefused
            | Self::MessagingServiceMissing
            | Self::NumberNotConfigured => Severity::Bad,
            Self::LineUnstaffed
            | Self::MessagingServiceDiffers
            | Self::NumberNotAutocreating
            | Self::NeverVerified => Severity::Warning,
        }
    }

    /// What a person should do where no repair is offered, or where it did not help.
    pub fn advice(self) -> &'static str {
        match self {
            Self::ProjectedParticipantMissing => {
                "the members changed since our number left, so that adding it may make another thread on the handsets: look at the members at Twilio, and start a new group text if this one is over"
            }
            Self::LineUnstaffed => "give the line to somebody with a transfer of the kind `assign`",
            Self::AuthorNotInGroup => {
                "compare the members at Twilio with the holder here: `hookswitch sweep --conversation`, then a transfer or a repair of what that finds"
            }
            Self::SendRefused => "look `error_code` up in Twilio's error dictionary, and mend what it names",
            Self::MessagingServiceMissing | Self::MessagingServiceDiffers => {
                "set the conversation's MessagingServiceSid to that of the account, unless it was wanted so"
            }
            Self::NumberNotConfigured => {
                "add the number to the account's `numbers` if it is still ours; else tell the group another way, and close it"
            }
            Self::NumberNotAutocreating => {
                "run `hookswitch check`, which says what is missing, and `hookswitch check --fix`"
            }
            Self::NeverVerified => "run `hookswitch sweep`; its log says why the conversation cannot be read",
        }
    }
}

words! {
    /// How bad it is.
    Severity {
        /// The group cannot be answered, or soon cannot.
        Bad = "bad",
        Warning = "warning",
    }
}

words! {
    /// The one safe repair: it changes neither the set of numbers in the group nor anybody's thread.
    Repair {
        /// Adds our number again, with whoever was behind it last.
        ReaddParticipant = "readd_participant",
        /// Puts the last holder behind the line again.
        ReattachHolder = "reattach_holder",
        /// Sets the conversation's messaging service to the account's.
        PinMessagingService = "pin_messaging_service",
        /// Reads the conversation and its members again; what that shows is judged.
        ReadAgain = "read_again",
    }
}

words! {
    /// By what a finding was seen last.
    SeenBy {
        Sweep = "sweep",
        /// Twilio's answer to a message of ours.
        Answer = "answer",
        Repair = "repair",
    }
}

words! {
    /// What became of a repair.
    RepairState {
        Queued = "queued",
        Done = "done",
        Failed = "failed",
    }
}

/// Something that is wrong with a line, or was.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    pub line_finding_id: Uuid,
    pub conversation_sid: String,
    pub account_sid: String,
    /// None: it is about the conversation as such.
    pub line: Option<String>,
    pub code: Code,
    pub severity: Severity,
    pub since: Timestamp,
    pub seen_by: SeenBy,
    pub seen_at: Timestamp,
    /// SIDs, codes, times and counts.
    pub evidence: serde_json::Value,
    pub resolved_at: Option<Timestamp>,
    /// None: no repair is safe.
    pub repair: Option<Repair>,
    pub repair_state: Option<RepairState>,
    pub repair_requested_by: Option<String>,
    pub repair_requested_at: Option<Timestamp>,
    pub repair_finished_at: Option<Timestamp>,
    pub repair_outcome: Option<String>,
}

/// Judges groups and repairs them. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Health {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
    policy: Arc<Policy>,
}

impl Health {
    pub fn new(
        pool: PgPool,
        clock: Clock,
        accounts: Accounts,
        settings: &config::Health,
    ) -> Result<Self, UnknownCode> {
        let policy = Policy {
            repair: settings.repair,
            of: settings
                .repair_of
                .iter()
                .map(|(code, policy)| Ok((Code::parse(code).ok_or(UnknownCode)?, *policy)))
                .collect::<Result<_, UnknownCode>>()?,
        };
        Ok(Self {
            pool,
            clock,
            accounts,
            policy: Arc::new(policy),
        })
    }
}

/// A finding that the settings name and that there is not.
#[derive(Debug, thiserror::Error)]
#[error("setting health.repair_of: expected codes of findings: {}", Code::ALL.iter().map(|code| code.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownCode;

/// Which repairs start by themselves.
#[derive(Debug)]
struct Policy {
    repair: config::RepairPolicy,
    of: BTreeMap<Code, config::RepairPolicy>,
}

impl Policy {
    fn starts(&self, code: Code) -> bool {
        self.of.get(&code).copied().unwrap_or(self.repair) == config::RepairPolicy::Start
    }
}

/// Of which numbers Twilio makes conversations in our service when a customer writes first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Autocreating(BTreeSet<String>);

impl Autocreating {
    pub fn new(account: &Account, configured: &[AddressConfiguration]) -> Self {
        let service = &account.client.settings().service_sid;
        let ours = configured.iter().filter(|one| {
            one.auto_creation.enabled && one.auto_creation.conversation_service_sid.as_ref() == Some(service)
        });
        let numbers = ours.filter_map(|one| one.address.as_ref());
        Self(numbers.map(|number| number.as_str().to_owned()).collect())
    }

    fn has(&self, number: &str) -> bool {
        self.0.contains(number)
    }
}

/// What an account says of its conversations.
#[derive(Debug, Clone, Copy)]
pub struct Ours<'a> {
    pub numbers: &'a [PhoneNumber],
    pub messaging_service_sid: &'a str,
}

impl<'a> Ours<'a> {
    fn of(account: &'a Account) -> Self {
        Self {
            numbers: &account.numbers,
            messaging_service_sid: account.messaging_service_sid.as_str(),
        }
    }

    fn has(self, number: &str) -> bool {
        self.numbers.iter().any(|one| one.as_str() == number)
    }
}
