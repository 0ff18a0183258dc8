//! Where each class of data lies. A new place is a variant here, with two functions of the module that owns the table:
//! one looks for what is due, one erases it.
//!
//! There are two kinds. Some are in the order of their age, and what was looked at once is done with. The others are
//! looked through in the order of their keys, again and again, since what comes late may be old.

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::escalation::erase as escalation;
use crate::events::{self, Position};
use crate::handover::erase as handover;
use crate::inbox::erase as inbox;
use crate::mirror::erase::{self as mirror, Keys, Looked, MessageField, Window};
use crate::outbox::erase::{self as outbox, SendField};
use crate::outbox::media;
use crate::projection::answers;
use crate::retention::Class;
use crate::retention::store::Progress;
use crate::transfer::erase as transfer;

/// One table's part of a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    Webhooks,
    Answers,
    Log,
    MessageBodies,
    SendBodies,
    TransferWords,
    EscalationWords,
    HandoverWords,
    SendMedia,
    ConversationAttributes,
    ParticipantAttributes,
    MessageAttributes,
    SendAttributes,
    UserAttributes,
    MessageVersions,
    ParticipantVersions,
    ConversationVersions,
    Quarantine,
}

impl Class {
    pub(super) fn places(self) -> &'static [Place] {
        match self {
            Self::Webhooks => &[Place::Webhooks, Place::Answers],
            Self::Log => &[Place::Log],
            Self::MessageBodies => &[
                Place::MessageBodies,
                Place::SendBodies,
                Place::SendMedia,
                Place::TransferWords,
                Place::EscalationWords,
                Place::HandoverWords,
            ],
            Self::Attributes => &[
                Place::ConversationAttributes,
                Place::ParticipantAttributes,
                Place::MessageAttributes,
                Place::SendAttributes,
                Place::UserAttributes,
            ],
            Self::Versions => &[
                Place::MessageVersions,
                Place::ParticipantVersions,
                Place::ConversationVersions,
            ],
            Self::Quarantine => &[Place::Quarantine],
        }
    }
}

impl Place {
    /// Those that are in the order of their age, and belong to conversations: what was passed by is not come to again.
    pub(super) const IN_ORDER: [Self; 3] = [Self::Webhooks, Self::Answers, Self::Log];

    /// Under which its progress is kept.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Webhooks => "webhooks",
            Self::Answers => "answers",
            Self::Log => "log",
            Self::MessageBodies => "messages.body",
            Self::SendBodies => "sends.body",
            Self::TransferWords => "transfers.words",
            Self::EscalationWords => "escalations.words",
            Self::HandoverWords => "handovers.words",
            Self::SendMedia => "sends.media",
            Self::ConversationAttributes => "conversations.attributes",
            Self::ParticipantAttributes => "participants.attributes",
            Self::MessageAttributes => "messages.attributes",
            Self::SendAttributes => "sends.attributes",
            Self::UserAttributes => "users.attributes",
            Self::MessageVersions => "message_versions",
            Self::ParticipantVersions => "participant_versions",
            Self::ConversationVersions => "conversation_versions",
            Self::Quarantine => "quarantine",
        }
    }

    /// It is looked through in rounds.
    pub(super) fn is_in_rounds(self) -> bool {
        !matches!(
            self,
            Self::Webhooks | Self::Answers | Self::Log | Self::Quarantine
        )
    }
}

/// Something that is due, or was erased before.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) at: Progress,
    pub(super) conversation_sid: Option<String>,
    /// Not due, or not any more.
    pub(super) is_left: bool,
}

impl Due {
    fn number(number: i64, conversation_sid: Option<String>, is_left: bool) -> Self {
        let at = Progress {
            number,
            ..Progress::default()
        };
        Self {
            at,
            conversation_sid,
            is_left,
        }
    }
}

impl From<Looked> for Due {
    fn from(looked: Looked) -> Self {
        Self {
            at: Progress {
                row_key: format!("{}/{}", looked.parent, looked.key),
                ..Progress::default()
            },
            conversation_sid: looked.conversation_sid,
            is_left: !looked.is_due,
        }
    }
}

/// What comes after a place: of what is in the order of its age only what is older than `before`.
pub(super) async fn look(
    conn: &mut PgConnection,
    place: Place,
    after: &Progress,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<Due>, sqlx::Error> {
    let window = Window {
        after: after.row_key.split_once('/').unwrap_or_default(),
        before,
        limit,
    };
    let looked = match place {
        Place::Webhooks => {
            let rows = inbox::due(conn, after.number, before, limit).await?;
            return Ok(rows
                .into_iter()
                .map(|(number, conversation_sid, is_erased)| Due::number(number, conversation_sid, is_erased))
                .collect());
        }
        Place::Answers => {
            let rows = answers::due_for_erasure(conn, after.number, before, limit).await?;
            return Ok(rows
                .into_iter()
                .map(|(number, conversation_sid, is_erased)| Due::number(number, conversation_sid, is_erased))
                .collect());
        }
        Place::Quarantine => {
            let rows = inbox::due_in_quarantine(conn, after.number, before, limit).await?;
            return Ok(rows
                .into_iter()
                .map(|number| Due::number(number, None, false))
                .collect());
        }
        Place::Log => return look_in_log(conn, after, before, limit).await,
        Place::MessageBodies => mirror::messages_due(conn, window, MessageField::Body).await?,
        Place::MessageAttributes => mirror::messages_due(conn, window, MessageField::Attributes).await?,
        Place::SendBodies => outbox::due(conn, window, SendField::Body).await?,
        Place::TransferWords => transfer::words_due(conn, window).await?,
        Place::EscalationWords => escalation::words_due(conn, window).await?,
        Place::HandoverWords => handover::words_due(conn, window).await?,
        Place::SendAttributes => outbox::due(conn, window, SendField::Attributes).await?,
        Place::SendMedia => media::due(conn, window).await?,
        Place::ConversationAttributes => mirror::conversations_due(conn, window).await?,
        Place::ParticipantAttributes => mirror::participants_due(conn, window).await?,
        Place::UserAttributes => mirror::users_due(conn, window).await?,
        Place::MessageVersions => mirror::message_versions_due(conn, window).await?,
        Place::ParticipantVersions => mirror::participant_versions_due(conn, window).await?,
        Place::ConversationVersions => mirror::conversation_versions_due(conn, window).await?,
    };
    Ok(looked.into_iter().map(Due::from).collect())
}

/// What of a released conversation comes after a place, as far as the rule has come with all: of a place that is
/// [`Place::IN_ORDER`].
pub(super) async fn look_at_released(
    conn: &mut PgConnection,
    place: Place,
    sid: &str,
    after: &Progress,
    until: &Progress,
    limit: i64,
) -> Result<Vec<Due>, sqlx::Error> {
    let numbered = match place {
        Place::Webhooks => inbox::of_conversation(conn, sid, after.number, until.number, limit).await?,
        Place::Answers => answers::of_conversation(conn, sid, after.number, until.number, limit).await?,
        Place::Log => {
            let (after, until) = (position(after), position(until));
            let rows = events::of_conversation_for_erasure(conn, sid, after, until, limit).await?;
            return Ok(rows
                .into_iter()
                .map(|(position, is_erased)| Due {
                    at: Progress {
                        commit_xid: position.commit_xid,
                        number: position.event_id,
                        row_key: String::new(),
                    },
                    conversation_sid: Some(sid.to_owned()),
                    is_left: is_erased,
                })
                .collect());
        }
        _ => Vec::new(),
    };
    Ok(numbered
        .into_iter()
        .map(|(number, is_erased)| Due::number(number, Some(sid.to_owned()), is_erased))
        .collect())
}

fn position(progress: &Progress) -> Position {
    Position {
        commit_xid: progress.commit_xid,
        event_id: progress.number,
    }
}

async fn look_in_log(
    conn: &mut PgConnection,
    after: &Progress,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<Due>, sqlx::Error> {
    let rows = events::due_for_erasure(conn, position(after), before, limit).await?;
    Ok(rows
        .into_iter()
        .map(|(position, conversation_sid, is_erased)| Due {
            at: Progress {
                commit_xid: position.commit_xid,
                number: position.event_id,
                row_key: String::new(),
            },
            conversation_sid,
            is_left: is_erased,
        })
        .collect())
}

/// Erases what is due. Answers of how much.
pub(super) async fn erase(
    conn: &mut PgConnection,
    place: Place,
    due: &[Due],
    before: Timestamp,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let numbers: Vec<i64> = due.iter().map(|one| one.at.number).collect();
    let (parents, keys): (Vec<&str>, Vec<&str>) = due
        .iter()
        .filter_map(|one| one.at.row_key.split_once('/'))
        .unzip();
    let keys = Keys {
        parents: &parents,
        keys: &keys,
    };
    if place.is_in_rounds() && !matches!(place, Place::UserAttributes | Place::HandoverWords) {
        mirror::lock(conn, &parents).await?;
    }
    match place {
        Place::Webhooks => inbox::erase(conn, &numbers, now).await,
        Place::Answers => answers::erase(conn, &numbers, now).await,
        Place::Quarantine => inbox::clear_quarantine(conn, &numbers).await,
        Place::Log => {
            let xids: Vec<i64> = due.iter().map(|one| one.at.commit_xid).collect();
            events::erase(conn, &xids, &numbers).await
        }
        Place::MessageBodies => mirror::erase_messages(conn, keys, MessageField::Body, now).await,
        Place::MessageAttributes => mirror::erase_messages(conn, keys, MessageField::Attributes, now).await,
        Place::SendBodies => outbox::erase(conn, keys, SendField::Body, now).await,
        Place::TransferWords => transfer::erase_words(conn, keys, before).await,
        Place::EscalationWords => escalation::erase_words(conn, keys, before).await,
        Place::HandoverWords => handover::erase_words(conn, keys, before).await,
        Place::SendAttributes => outbox::erase(conn, keys, SendField::Attributes, now).await,
        Place::SendMedia => media::erase(conn, keys, now).await,
        Place::ConversationAttributes => mirror::erase_conversations(conn, keys, now).await,
        Place::ParticipantAttributes => mirror::erase_participants(conn, keys, now).await,
        Place::UserAttributes => mirror::erase_users(conn, keys, now).await,
        // What is counted is what has old versions, as it was looked at.
        Place::MessageVersions => {
            mirror::erase_message_versions(conn, keys, before, now).await?;
            Ok(length(due))
        }
        Place::ParticipantVersions => {
            mirror::erase_participant_versions(conn, keys, before, now).await?;
            Ok(length(due))
        }
        Place::ConversationVersions => {
            mirror::erase_conversation_versions(conn, keys, before, now).await?;
            Ok(length(due))
        }
    }
}

fn length(due: &[Due]) -> i64 {
    i64::try_from(due.len()).unwrap_or(i64::MAX)
}
