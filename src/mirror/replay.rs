//! Statements made once more, as they were made at first: for a mirror that is made anew beside the old one.
//!
//! The caller's session has tables of its own under the mirror's names ([`crate::rebuild`]): nothing here asks for reads
//! at Twilio, and nobody is told of anything.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;

use super::{Observed, affected_by, fold, store};
use crate::events::{self, Via};
use crate::ledger::{self, Leases};

/// A statement as it is recorded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stated {
    #[serde(flatten)]
    pub observed: Observed,
    /// It came after what it speaks of, and so settled what was in doubt.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
}

impl Stated {
    /// What a webhook says: it settles nothing.
    pub fn by_webhook(observed: Observed) -> Self {
        Self {
            observed,
            settled: false,
        }
    }
}

/// Statements that entered together.
#[derive(Debug, Clone)]
pub struct Entry {
    pub statements: Vec<Stated>,
    pub via: Via,
    pub then: Timestamp,
}

/// Applies entries one after the other, within the caller's transaction: mirror, ledger and log, into the tables that the
/// session sees. What they touch is loaded once and written once; only the ledger has to see every step.
pub async fn replay(conn: &mut PgConnection, entries: &[Entry]) -> Result<(), sqlx::Error> {
    let all: Vec<Observed> = entries
        .iter()
        .flat_map(|entry| entry.statements.iter().map(|one| one.observed.clone()))
        .collect();
    let Some(last) = entries.last().filter(|_| !all.is_empty()) else {
        return Ok(());
    };
    let first_named = entries
        .iter()
        .flat_map(|entry| entry.statements.iter().map(|one| (&one.observed, entry.then)));
    store::ensure_each(conn, &all, first_named).await?;
    let mut state = store::load(conn, &all, last.then).await?;
    let (mut versions, mut log) = (fold::Versions::default(), Vec::new());
    for entry in entries {
        let mut outcome = fold::Outcome::default();
        for one in &entry.statements {
            let seen = one
                .settled
                .then(|| fold::revisions_that_settle(&state, &one.observed.change));
            let context = fold::Context {
                via: entry.via,
                now: entry.then,
                settles: seen.as_ref(),
            };
            fold::apply(&mut state, &mut outcome, context, &one.observed);
        }
        log.append(&mut outcome.events);
        let affected = affected_by(&state, &outcome);
        if !affected.is_empty() {
            let recorded = ledger::record(
                conn,
                &outcome.facts,
                &affected,
                Leases::Then,
                entry.via,
                entry.then,
            )
            .await?;
            log.extend(recorded.log);
        }
        versions.append(&mut outcome.versions);
        state.forget_what_is_not_stored();
    }
    store::save(conn, &state, last.then).await?;
    store::keep_versions(conn, &versions).await?;
    events::append_unannounced(conn, &log).await
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mirror::Version;
    use crate::mirror::change::{
        Change, ConversationChange, ConversationFields, MessageChange, MessageFields, ParticipantChange,
        ParticipantFields, ReceiptChange, StateChange, UserChange, UserFields,
    };

    /// One of each, with everything in it. A new kind asks here to be added.
    fn changes() -> Vec<Change> {
        let conversation_sid: crate::ids::ConversationSid =
            "CH00000000000000000000000000000001".parse().unwrap();
        let at: Timestamp = "2026-01-02T03:04:05.678901Z".parse().unwrap();
        let (exact, cut) = (
            Version::exact(at),
            Version::to_the_second("2026-01-02T03:04:05Z".parse().unwrap()),
        );
        let all = vec![
            Change::Conversation(ConversationChange {
                conversation_sid: conversation_sid.clone(),
                version: cut,
                fields: ConversationFields {
                    service_sid: Some("IS1".into()),
                    messaging_service_sid: Some("MG1".into()),
                    friendly_name: Some("\u{1f3e0} \"home\"\n".into()),
                    unique_name: None,
                    attributes: Some(r#"{"b": 1,"a":2}"#.into()),
                },
                state: Some("active".into()),
                created_at: Some(at),
                autocreated: true,
            }),
            Change::ConversationState(StateChange {
                conversation_sid: conversation_sid.clone(),
                version: exact,
                state: "closed".to_owned(),
                reason: Some("API".into()),
            }),
            Change::ConversationRemoved {
                conversation_sid: conversation_sid.clone(),
                version: exact,
            },
            Change::Participant(ParticipantChange {
                conversation_sid: conversation_sid.clone(),
                participant_sid: "MB00000000000000000000000000000001".parse().unwrap(),
                version: exact,
                removed: true,
                fields: Some(ParticipantFields {
                    identity: Some("maya".into()),
                    address: Some("+15555550101".into()),
                    proxy_address: Some("+15555550102".into()),
                    projected_address: Some("+15555550103".into()),
                    binding_type: Some("sms".into()),
                    role_sid: Some("RL1".into()),
                    attributes: Some("{}".into()),
                    last_read_message_index: Some(i64::MAX),
                }),
                created_at: None,
            }),
            Change::Message(MessageChange {
                conversation_sid: conversation_sid.clone(),
                message_sid: "IM00000000000000000000000000000001".parse().unwrap(),
                version: exact,
                removed: false,
                fields: Some(MessageFields {
                    index: Some(7),
                    author: Some("maya".into()),
                    participant_sid: Some("MB1".into()),
                    body: Some("Hello?".into()),
                    media: Some("[]".into()),
                    attributes: Some("{}".into()),
                }),
                created_at: Some(at),
            }),
            Change::Receipt(ReceiptChange {
                conversation_sid: conversation_sid.clone(),
                message_sid: "IM00000000000000000000000000000001".parse().unwrap(),
                receipt_sid: "DY00000000000000000000000000000001".parse().unwrap(),
                participant_sid: Some("MB1".into()),
                channel_message_sid: Some("SM1".into()),
                status: "failed".to_owned(),
                error_code: Some("30006".into()),
                created_at: Some(at),
                version: exact,
            }),
            Change::User(UserChange {
                user_sid: "US00000000000000000000000000000001".parse().unwrap(),
                version: exact,
                fields: UserFields {
                    service_sid: Some("IS1".into()),
                    identity: Some("maya".into()),
                    friendly_name: Some("Maya".into()),
                    role_sid: Some("RL1".into()),
                    attributes: Some("{}".into()),
                    is_online: Some(true),
                    is_notifiable: Some(false),
                },
                created_at: Some(at),
            }),
            Change::Unread {
                conversation_sid,
                message_sid: Some("IM00000000000000000000000000000001".parse().unwrap()),
            },
        ];
        for one in &all {
            match one {
                Change::Conversation(_)
                | Change::ConversationState(_)
                | Change::ConversationRemoved { .. }
                | Change::Participant(_)
                | Change::Message(_)
                | Change::Receipt(_)
                | Change::User(_)
                | Change::Unread { .. } => {}
            }
        }
        all
    }

    #[test]
    fn a_recorded_statement_says_what_it_said() {
        for change in changes() {
            for settled in [false, true] {
                let stated = Stated {
                    observed: Observed {
                        account_sid: "AC00000000000000000000000000000001".parse().unwrap(),
                        change: change.clone(),
                        cause: "read:7".to_owned(),
                        source: Some("SMS".into()),
                    },
                    settled,
                };
                let recorded = serde_json::to_value(&stated).unwrap();
                assert_eq!(serde_json::from_value::<Stated>(recorded).unwrap(), stated);
            }
        }
    }

    /// As long as there are databases in which it stands so.
    #[test]
    fn what_was_recorded_once_can_be_read() {
        let recorded = json!({
            "account_sid": "AC00000000000000000000000000000001",
            "cause": "sweep:1",
            "source": null,
            "settled": true,
            "change": { "message": {
                "conversation_sid": "CH00000000000000000000000000000001",
                "message_sid": "IM00000000000000000000000000000001",
                "version": { "at": "2026-01-02T03:04:05Z", "exact": false },
                "removed": false,
                "fields": { "index": 3, "author": "maya", "body": "Hello?", "attributes": "{}" },
                "created_at": "2026-01-02T03:04:05Z",
            } },
        });
        let stated: Stated = serde_json::from_value(recorded).unwrap();
        assert!(stated.settled);
        let Change::Message(message) = stated.observed.change else {
            panic!("expected a message");
        };
        assert_eq!(
            message.fields.unwrap().media,
            None,
            "what is not there is not known"
        );
    }
}
