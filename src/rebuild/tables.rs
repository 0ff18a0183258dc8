//! The tables that are made anew, and what of each column is compared. The one place that says so: a test holds it
//! against the schema, so that a new table or column has to be decided on here.

use crate::events::Kind;

/// What becomes of rows that differ, when the new ones are swapped in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sort {
    /// One row a resource of Twilio's: brought to what it should be in its place.
    Resource,
    /// What was said or derived: rows that should not be go, those that should be come.
    Derived,
    /// The log: nothing that is written is changed, and what is missing is added.
    Log,
}

/// The kinds of entries that the mirror and the ledger write.
pub const LOG_KINDS: &[Kind] = &[
    Kind::ConversationAdded,
    Kind::ConversationUpdated,
    Kind::ConversationStateChanged,
    Kind::ConversationRemoved,
    Kind::ParticipantAdded,
    Kind::ParticipantUpdated,
    Kind::ParticipantRemoved,
    Kind::MessageAdded,
    Kind::MessageUpdated,
    Kind::MessageRemoved,
    Kind::DeliveryUpdated,
    Kind::UserUpdated,
    Kind::HolderChanged,
];

/// What a column is to the comparison.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Tells rows apart, and is shown. Never null but for a conversation's SID in the log.
    Key,
    /// Tells rows apart, and is personal. May be null.
    HiddenKey,
    /// Has to be equal.
    Content,
    /// Of two entries of one key, whichever agree here belong together. Has to be equal.
    Subject,
    /// Set where something was erased of the row: what is not equal then has no source.
    Erased,
    /// Ours alone, not made of what Twilio says: never compared, for the reason given.
    Ours(&'static str),
}

/// One table.
#[derive(Debug)]
pub struct Table {
    pub name: &'static str,
    pub sort: Sort,
    /// What its rows belong to: a conversation, or where there is none, an account.
    pub scope: Scope,
    pub columns: &'static [(&'static str, Role)],
}

/// What rows belong to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Conversation,
    Account,
    /// A conversation, or where none is named, an account.
    Either,
}

impl Scope {
    /// In SQL.
    pub(super) fn of(self, row: &str) -> String {
        match self {
            Self::Conversation => format!("{row}.conversation_sid"),
            Self::Account => format!("{row}.account_sid"),
            Self::Either => format!("coalesce({row}.conversation_sid, {row}.account_sid)"),
        }
    }
}

use Role::{Content, Erased, HiddenKey, Key, Ours, Subject};

const REVISION: Role = Ours("counts our changes of the row");
const VERIFIED: Role = Ours("when a read confirmed it, which is no statement");
const ERASED_AT: Role = Ours("when it was erased, which no source tells");
const ID: Role = Ours("a number or id of ours");

/// All of them, parents first.
pub const TABLES: &[Table] = &[
    Table {
        name: "conversation",
        sort: Sort::Resource,
        scope: Scope::Conversation,
        columns: &[
            ("conversation_sid", Key),
            ("account_sid", Content),
            ("service_sid", Content),
            ("messaging_service_sid", Content),
            ("friendly_name", Content),
            ("unique_name", Content),
            ("attributes", Content),
            ("state", Content),
            ("state_at", Content),
            ("state_exact", Content),
            ("created_at", Content),
            ("closed_at", Content),
            ("autocreated", Content),
            ("version_at", Content),
            ("version_exact", Content),
            ("removed_at", Content),
            ("revision", REVISION),
            ("unverified_since", VERIFIED),
            ("verified_at", VERIFIED),
            ("first_seen_at", Content),
            ("last_message_at", Content),
            ("learnt_at", Content),
            ("stated_at", Content),
            ("state_learnt_at", Content),
            ("state_stated_at", Content),
            ("removal_learnt_at", Content),
            ("erased", Erased),
            ("erased_at", ERASED_AT),
        ],
    },
    Table {
        name: "participant",
        sort: Sort::Resource,
        scope: Scope::Conversation,
        columns: &[
            ("conversation_sid", Key),
            ("participant_sid", Key),
            ("account_sid", Content),
            ("identity", Content),
            ("address", Content),
            ("proxy_address", Content),
            ("projected_address", Content),
            ("binding_type", Content),
            ("role_sid", Content),
            ("attributes", Content),
            ("last_read_message_index", Content),
            ("created_at", Content),
            ("version_at", Content),
            ("version_exact", Content),
            ("removed_at", Content),
            ("revision", REVISION),
            ("learnt_at", Content),
            ("stated_at", Content),
            ("removal_learnt_at", Content),
            ("erased", Erased),
            ("erased_at", ERASED_AT),
        ],
    },
    Table {
        name: "message",
        sort: Sort::Resource,
        scope: Scope::Conversation,
        columns: &[
            ("conversation_sid", Key),
            ("message_sid", Key),
            ("account_sid", Content),
            ("message_index", Content),
            ("author", Content),
            ("participant_sid", Content),
            ("body", Content),
            ("media", Content),
            ("attributes", Content),
            ("source", Content),
            ("created_at", Content),
            ("version_at", Content),
            ("version_exact", Content),
            ("removed_at", Content),
            ("revision", REVISION),
            ("learnt_at", Content),
            ("stated_at", Content),
            ("removal_learnt_at", Content),
            ("erased", Erased),
            ("erased_at", ERASED_AT),
        ],
    },
    Table {
        name: "delivery_receipt",
        sort: Sort::Resource,
        scope: Scope::Conversation,
        columns: &[
            ("conversation_sid", Key),
            ("message_sid", Key),
            ("delivery_receipt_sid", Key),
            ("account_sid", Content),
            ("participant_sid", Content),
            ("channel_message_sid", Content),
            ("status", Content),
            ("error_code", Content),
            ("created_at", Content),
            ("version_at", Content),
            ("learnt_at", Content),
        ],
    },
    Table {
        name: "chat_user",
        sort: Sort::Resource,
        scope: Scope::Account,
        columns: &[
            ("account_sid", Key),
            ("user_sid", Key),
            ("service_sid", Content),
            ("identity", Content),
            ("friendly_name", Content),
            ("role_sid", Content),
            ("attributes", Content),
            ("is_online", Content),
            ("is_notifiable", Content),
            ("created_at", Content),
            ("version_at", Content),
            ("erased", Erased),
            ("erased_at", ERASED_AT),
        ],
    },
    Table {
        name: "conversation_version",
        sort: Sort::Derived,
        scope: Scope::Conversation,
        columns: &[
            ("conversation_sid", Key),
            ("aspect", Key),
            ("version_at", Key),
            ("digest", Key),
            ("stated_at", Content),
            ("learnt_at", Content),
            ("messaging_service_sid", Content),
            ("friendly_name", Content),
            ("unique_name", Content),
            ("attributes", Content),
            ("state", Content),
            ("erased", Erased),
            ("erased_at", ERASED_AT),
        ],
    },
    Table {
        name: "participant_version",
        sort: Sort::Derived,
        scope: Scope::Conversation,
        columns: &[
            ("conversation_sid", Key),
            ("participant_sid", Key),
            ("aspect", Key),
            ("version_at", Key),
            ("digest", Key),
            ("stated_at", Content),
            ("learnt_at", Content),
            ("identity", Content),
            ("address", Content),
            ("proxy_address", Content),
            ("projected_address", Content),
            ("binding_type", Content),
            ("role_sid", Content),
            ("attributes", Content),
            ("last_read_message_index", Content),
            ("erased", Erased),
            ("erased_at", ERASED_AT),
        ],
    },
    Table {
        name: "message_version",
        sort: Sort::Derived,
        scope: Scope::Conversation,
        columns: &[
            ("conversation_sid", Key),
            ("message_sid", Key),
            ("aspect", Key),
            ("version_at", Key),
            ("digest", Key),
            ("stated_at", Content),
            ("learnt_at", Content),
            ("message_index", Content),
            ("author", Content),
            ("participant_sid", Content),
            ("body", Content),
            ("media", Content),
            ("attributes", Content),
            ("erased", Erased),
            ("erased_at", ERASED_AT),
        ],
    },
    Table {
        name: "receipt_version",
        sort: Sort::Derived,
        scope: Scope::Conversation,
        columns: &[
            ("conversation_sid", Key),
            ("message_sid", Key),
            ("delivery_receipt_sid", Key),
            ("version_at", Key),
            ("status", Key),
            ("error_code", Content),
            ("learnt_at", Content),
        ],
    },
    Table {
        name: "holding",
        sort: Sort::Derived,
        scope: Scope::Conversation,
        columns: &[
            ("conversation_sid", Key),
            ("participant_sid", Key),
            ("at", Key),
            ("exact", Key),
            ("line", HiddenKey),
            ("identity", HiddenKey),
            ("removed", Key),
            ("via", Content),
            ("recorded_at", Content),
        ],
    },
    Table {
        name: "tenure",
        sort: Sort::Derived,
        scope: Scope::Conversation,
        columns: &[
            ("tenure_id", ID),
            ("conversation_sid", Key),
            ("line", HiddenKey),
            ("during", Key),
            ("recorded_at", Key),
            ("holder", Content),
            ("cause", Content),
            ("transfer_id", Content),
            ("via", Content),
            ("superseded_at", Content),
        ],
    },
    Table {
        name: "event",
        sort: Sort::Log,
        scope: Scope::Either,
        columns: &[
            ("commit_xid", ID),
            ("event_id", ID),
            ("conversation_sid", Key),
            ("type", Key),
            ("via", Key),
            ("occurred_at", Key),
            ("recorded_at", Key),
            ("subject", Subject),
            ("account_sid", Content),
            ("actor", Content),
            ("cause", Content),
            ("data", Content),
            ("salt", Ours("random")),
            ("erased", Erased),
        ],
    },
];

impl Table {
    fn with(&self, wanted: impl Fn(Role) -> bool) -> impl Iterator<Item = &'static str> {
        self.columns
            .iter()
            .filter(move |(_, role)| wanted(*role))
            .map(|(name, _)| *name)
    }

    /// What tells its rows apart.
    pub fn key(&self) -> impl Iterator<Item = &'static str> {
        self.with(|role| matches!(role, Key | HiddenKey))
    }

    /// The part of the key that is nobody's name or number.
    pub fn shown_key(&self) -> impl Iterator<Item = &'static str> {
        self.with(|role| role == Key)
    }

    /// Everything that is compared, the key first.
    pub fn compared(&self) -> impl Iterator<Item = &'static str> {
        self.key().chain(self.content())
    }

    /// What has to be equal where the key is.
    pub fn content(&self) -> impl Iterator<Item = &'static str> {
        self.with(|role| matches!(role, Content | Subject))
    }

    /// The condition that something of a row was erased; none where nothing is.
    pub(super) fn is_erased(&self, row: &str) -> Option<String> {
        let column = self.with(|role| role == Erased).next()?;
        Some(format!("{row}.\"{column}\" is not null"))
    }

    pub fn all(&self) -> impl Iterator<Item = &'static str> {
        self.columns.iter().map(|(name, _)| *name)
    }

    pub(super) fn has(&self, column: &str) -> bool {
        self.all().any(|name| name == column)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_table_has_a_key_and_no_column_twice() {
        for table in TABLES {
            assert!(table.key().next().is_some(), "{}", table.name);
            let mut names: Vec<&str> = table.all().collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), table.columns.len(), "{}", table.name);
            let scope = table.scope.of("row");
            assert!(table.all().any(|name| scope.contains(name)), "{}", table.name);
        }
    }

    #[test]
    fn no_name_and_no_number_of_anybody_is_shown() {
        for table in TABLES {
            for column in [
                "line", "identity", "holder", "subject", "author", "body", "address",
            ] {
                assert!(table.shown_key().all(|shown| shown != column), "{}", table.name);
            }
        }
    }
}
