//! `/v1/conversations/{conversation_sid}/timeline`: one ordered list of all that matters to an auditor, from the
//! mirror, the ledger and the log.
//!
//! Messages and entries of the log may be many and are read page by page; members and tenures are few, and are read whole.
//! All is laid side by side and cut to the page.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::as_of::{Dated, moment};
use crate::api::auth::{Caller, Scope, scope};
use crate::api::messages::{FoundMessage, MessageBody, Surroundings, sid_of, time_of};
use crate::api::participants::ParticipantBody;
use crate::api::{Api, conversations, raw};
use crate::events::{self, EventRow, Kind};
use crate::ids::ConversationSid;
use crate::ledger::{Cause, Tenure};
use crate::mirror::as_of::{self, Moment};
use crate::mirror::read::{self, MessageRow};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Instant};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// The kinds of log entries that the timeline shows; the others it knows better from mirror and ledger.
const LOGGED: &[Kind] = &[
    Kind::ConversationStateChanged,
    Kind::ConversationRemoved,
    Kind::TransferOffered,
    Kind::TransferAccepted,
    Kind::TransferStarted,
    Kind::TransferCompleted,
    Kind::TransferDeclined,
    Kind::TransferCancelled,
    Kind::TransferExpired,
    Kind::TransferSuperseded,
    Kind::TransferExhausted,
    Kind::TransferSkipped,
    Kind::TransferThreadRead,
    Kind::TransferWaiting,
    Kind::TransferIntroduced,
    Kind::TransferIntroductionFailed,
    Kind::TransferFailed,
    Kind::TransferNeedsAttention,
    Kind::LineAssigned,
    Kind::LineQueued,
    Kind::LineTaken,
    Kind::LineDequeued,
    Kind::EscalationStarted,
    Kind::EscalationStepTaken,
    Kind::EscalationStepSkipped,
    Kind::EscalationStepRefused,
    Kind::EscalationStopped,
    Kind::EscalationEnded,
    Kind::EscalationNeedsPerson,
    Kind::OptOutRecorded,
    Kind::OptOutCleared,
    Kind::OptOutWarned,
    Kind::OptOutHeld,
    Kind::OptOutAllowed,
    Kind::OptOutStopped,
    Kind::OptOutClosing,
    Kind::OptOutClosed,
    Kind::OptOutCloseFailed,
];

/// One thing that happened in a conversation.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct TimelineEntry {
    /// The source's own time: Twilio's for what happened there, ours for what we did.
    at: Timestamp,
    #[serde(flatten)]
    what: Happening,
}

/// What happened.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub(super) enum Happening {
    /// A message was written, with who was behind the lines then.
    Message {
        message: Box<MessageBody>,
    },
    MemberJoined {
        participant: Box<ParticipantBody>,
    },
    MemberLeft {
        participant: Box<ParticipantBody>,
    },
    /// A line came to be, changed hands, or was taken out (`cause` is `removed`).
    HolderChanged {
        line: String,
        /// Null: nobody held it, or the line is new.
        from: Option<String>,
        /// Null: nobody holds it.
        to: Option<String>,
        #[schema(inline)]
        cause: Cause,
        /// The transfer of ours that brought it about.
        transfer_id: Option<Uuid>,
        /// Since when the ledger says so.
        recorded_at: Timestamp,
    },
    /// A transfer was offered, answered, started, or came to its end.
    Transfer {
        /// `transfer.offered`, `transfer.completed`, …
        event: String,
        /// The identity that did it, where one did.
        actor: Option<String>,
        via: String,
        #[schema(value_type = Object)]
        data: Option<Box<RawValue>>,
    },
    /// It was decided who gets a line that nobody held, or that it waits; or it was taken.
    Assignment {
        /// `line.assigned`, `line.queued`, `line.taken`, `line.dequeued`.
        event: String,
        /// The identity that took it; `hookswitch` where a rule decided.
        actor: Option<String>,
        via: String,
        #[schema(value_type = Object)]
        data: Option<Box<RawValue>>,
    },
    /// An escalation began, took a step, or came to its end.
    Escalation {
        /// `escalation.started`, `escalation.step_taken`, …
        event: String,
        /// The identity that did it, where one did.
        actor: Option<String>,
        via: String,
        #[schema(value_type = Object)]
        data: Option<Box<RawValue>>,
    },
    /// A member opted out or in again, or something was done about it here.
    OptOut {
        /// `opt_out.recorded`, `opt_out.held`, …
        event: String,
        /// Who did it, where somebody did.
        actor: Option<String>,
        via: String,
        #[schema(value_type = Object)]
        data: Option<Box<RawValue>>,
    },
    /// The conversation's state changed at Twilio; `to` is `removed` where the conversation was.
    StateChanged {
        from: Option<String>,
        to: Option<String>,
        /// Twilio's `API`, `TIMER` or `EVENT`.
        reason: Option<String>,
    },
}

/// What stands first of the things of one instant: causes before what they bring about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Rank {
    State,
    Joined,
    Holder,
    Transfer,
    Message,
    Consequence,
    Left,
}

/// The place of an entry in the timeline. Compares as the entries stand.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    at: At,
    rank: Rank,
    /// A message's index; 0 for anything else.
    index: i64,
    id: String,
}

impl Place {
    fn new(at: Timestamp, rank: Rank, id: impl Into<String>) -> Self {
        let (at, index, id) = (At(at), 0, id.into());
        Self { at, rank, index, id }
    }

    fn of_message(row: &MessageRow, at: Timestamp, index: Option<i64>) -> Self {
        Self {
            index: index.unwrap_or(-1),
            ..Self::new(at, Rank::Message, sid_of(row).into_string())
        }
    }

    fn order(&self) -> (Timestamp, Rank, i64, &str) {
        (self.at.0, self.rank, self.index, &self.id)
    }

    /// From where messages have to be read to have all those after this place.
    fn in_messages(&self) -> (Timestamp, i64, &str) {
        match self.rank {
            Rank::State | Rank::Joined | Rank::Holder | Rank::Transfer => (self.at.0, i64::MIN, ""),
            Rank::Message => (self.at.0, self.index, &self.id),
            Rank::Consequence | Rank::Left => (self.at.0, i64::MAX, ""),
        }
    }
}

impl Key for Place {
    const LIST: &'static str = "timeline";
}

/// An entry before it is shaped: a message's receipts are read only if it is on the page.
enum Found {
    Message(FoundMessage),
    Other(Timestamp, Happening),
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListTimeline {
    /// As it was at this time at Twilio, which has passed.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    as_of: Field<Instant>,
    /// As far as we had been told by this time, which has passed. Alone, or with `as_of`.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    known_at: Field<Instant>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Dated<Place>>>,
}

/// Show what happened in a conversation, in order, and who was behind the lines at each message
///
/// Messages (the removed ones too, without what they said), members coming and going, lines changing hands, transfers,
/// and changes of state, each at its source's own time. What comes late is put where it belongs, so it may come to
/// stand before a cursor that you hold; the feed (`/v1/events`) tells of it. With `as_of` or `known_at` as it was then,
/// which does not change any more: what was edited or removed since is `withheld` from a key without the scope
/// `audit:read`.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/timeline",
    operation_id = "show_timeline",
    tag = "Ledger",
    params(("conversation_sid" = ConversationSid, Path), ListTimeline),
    responses((status = 200, description = "A page of it, oldest first.", body = Page<TimelineEntry>)),
    security(("api_key" = ["ledger:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller<scope::LedgerRead>,
    Path(sid): Path<ConversationSid>,
    Query(query): Query<ListTimeline>,
) -> Result<Json<Page<TimelineEntry>>, Problem> {
    let mut errors = Errors::of_query();
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    let after = wanted.after.as_ref();
    let moment = moment(&mut errors, query.as_of, query.known_at, after, api.clock.now());
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    conversations::expect_then(&mut conn, &sid, moment).await?;
    let surroundings = Surroundings::load(&mut conn, &sid, moment).await?;
    let may_audit = caller.may(Scope::AuditRead);
    let found = find(&mut conn, &sid, &surroundings, &wanted, may_audit).await?;
    let page = wanted.page(found, |(place, _)| Dated::new(place.clone(), moment));
    Ok(Json(Page {
        items: shape(&mut conn, &sid, &surroundings, page.items).await?,
        next: page.next,
    }))
}

async fn find(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    surroundings: &Surroundings,
    wanted: &Wanted<Dated<Place>>,
    may_audit: bool,
) -> Result<Vec<(Place, Found)>, sqlx::Error> {
    let after = wanted.after.as_ref().map(Dated::key);
    let messages = messages(conn, sid, surroundings.moment, after, wanted.rows(), may_audit).await?;
    let kinds: Vec<&str> = LOGGED.iter().copied().map(Kind::as_str).collect();
    let moment = surroundings.moment;
    let logged = events::of_timeline(
        conn,
        sid.as_str(),
        &kinds,
        after.map(|after| after.at.0),
        moment.map(|moment| moment.as_of),
        // The log says when it learnt of a thing, as everything else does.
        moment.map(|moment| moment.known_at),
        wanted.rows(),
    )
    .await?;

    let mut found: Vec<(Place, Found)> = members(surroundings)
        .chain(holders(surroundings.ledger.tenures()))
        .chain(logged.into_iter().filter_map(logged_entry))
        .map(|(place, what)| {
            let at = place.at.0;
            (place, Found::Other(at, what))
        })
        .filter(|(place, _)| after.is_none_or(|after| place.order() > after.order()))
        .collect();
    found.extend(
        messages
            .into_iter()
            .map(|(place, message)| (place, Found::Message(message))),
    );
    found.sort_by(|(one, _), (other, _)| one.order().cmp(&other.order()));
    Ok(found)
}

async fn messages(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    moment: Option<Moment>,
    after: Option<&Place>,
    limit: i64,
    may_audit: bool,
) -> Result<Vec<(Place, FoundMessage)>, sqlx::Error> {
    let after = after.map(Place::in_messages);
    let Some(moment) = moment else {
        let rows = read::messages_by_time(conn, sid.as_str(), after, limit).await?;
        return Ok(rows
            .into_iter()
            .map(|row| {
                let place = Place::of_message(&row, time_of(&row), row.index);
                (place, FoundMessage::now(row))
            })
            .collect());
    };
    let rows = as_of::messages_by_time(conn, sid, moment, after, limit).await?;
    Ok(rows
        .into_iter()
        .map(|past| {
            let place = Place::of_message(&past.row, past.at, past.index);
            (place, FoundMessage::then(past, may_audit))
        })
        .collect())
}

fn members(surroundings: &Surroundings) -> impl Iterator<Item = (Place, Happening)> {
    surroundings.members.iter().flat_map(|row| {
        let sid = &row.participant_sid;
        let participant = || Box::new(ParticipantBody::from(row.clone()));
        let joined = row.created_at.map(|at| {
            let participant = participant();
            (
                Place::new(at, Rank::Joined, sid),
                Happening::MemberJoined { participant },
            )
        });
        let left = row.removed_at.map(|at| {
            let participant = participant();
            (
                Place::new(at, Rank::Left, sid),
                Happening::MemberLeft { participant },
            )
        });
        [joined, left].into_iter().flatten()
    })
}

/// Tenures come oldest first.
fn holders(tenures: &[Tenure]) -> impl Iterator<Item = (Place, Happening)> {
    tenures.iter().enumerate().map(|(place, tenure)| {
        let before = tenures[..place].iter().rfind(|before| before.line == tenure.line);
        let what = Happening::HolderChanged {
            line: tenure.line.clone(),
            from: before.and_then(|before| before.holder.clone()),
            to: tenure.holder.clone(),
            cause: tenure.cause,
            transfer_id: tenure.transfer_id,
            recorded_at: tenure.recorded_at,
        };
        // By line, since an id changes when the ledger learns better, and a cursor should not notice.
        (Place::new(tenure.from, Rank::Holder, &tenure.line), what)
    })
}

fn logged_entry(row: EventRow) -> Option<(Place, Happening)> {
    let kind = Kind::parse(&row.kind)?;
    let (at, id) = (row.occurred_at, row.position.to_string());
    let (rank, what) = match kind {
        Kind::ConversationStateChanged => (Rank::State, state_changed(&row.data)),
        Kind::ConversationRemoved => {
            let (from, to, reason) = (None, Some("removed".to_owned()), None);
            (Rank::State, Happening::StateChanged { from, to, reason })
        }
        _ => told(row.kind, row.actor, row.via, raw(Some(row.data))),
    };
    Some((Place::new(at, rank, id), what))
}

/// What we did, by the first word of its name.
fn told(event: String, actor: Option<String>, via: String, data: Option<Box<RawValue>>) -> (Rank, Happening) {
    let is_of = |family: &str| event.split('.').next() == Some(family);
    if is_of("line") {
        let what = Happening::Assignment {
            event,
            actor,
            via,
            data,
        };
        (Rank::Transfer, what)
    } else if is_of("escalation") {
        let what = Happening::Escalation {
            event,
            actor,
            via,
            data,
        };
        (Rank::Consequence, what)
    } else if is_of("opt_out") {
        let what = Happening::OptOut {
            event,
            actor,
            via,
            data,
        };
        (Rank::Consequence, what)
    } else {
        let what = Happening::Transfer {
            event,
            actor,
            via,
            data,
        };
        (Rank::Transfer, what)
    }
}

fn state_changed(data: &str) -> Happening {
    let data: Value = serde_json::from_str(data).unwrap_or_default();
    let text = |name: &str| data[name].as_str().map(str::to_owned);
    Happening::StateChanged {
        from: text("from"),
        to: text("to"),
        reason: text("reason"),
    }
}

async fn shape(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    surroundings: &Surroundings,
    found: Vec<(Place, Found)>,
) -> Result<Vec<TimelineEntry>, sqlx::Error> {
    let (mut entries, mut messages) = (Vec::with_capacity(found.len()), Vec::new());
    for (place, found) in found {
        match found {
            Found::Other(at, what) => entries.push((place, TimelineEntry { at, what })),
            Found::Message(message) => messages.push((place, message)),
        }
    }
    let (places, rows): (Vec<Place>, Vec<FoundMessage>) = messages.into_iter().unzip();
    let shaped = surroundings.shape(conn, sid, rows).await?;
    entries.extend(places.into_iter().zip(shaped).map(|(place, message)| {
        let (at, message) = (place.at.0, Box::new(message));
        let what = Happening::Message { message };
        (place, TimelineEntry { at, what })
    }));
    entries.sort_by(|(one, _), (other, _)| one.order().cmp(&other.order()));
    Ok(entries.into_iter().map(|(_, entry)| entry).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::page::Cursor;

    #[test]
    fn of_one_instant_causes_stand_before_what_they_bring_about() {
        let at: Timestamp = "2026-03-01T14:03:00Z".parse().unwrap();
        let later: Timestamp = "2026-03-01T14:03:00.1Z".parse().unwrap();
        let places = [
            Place::new(at, Rank::State, "z"),
            Place::new(at, Rank::Joined, "a"),
            Place::new(at, Rank::Joined, "b"),
            Place::new(at, Rank::Holder, "a"),
            Place::new(at, Rank::Transfer, "a"),
            Place {
                index: 2,
                ..Place::new(at, Rank::Message, "z")
            },
            Place {
                index: 10,
                ..Place::new(at, Rank::Message, "a")
            },
            Place::new(at, Rank::Left, "a"),
            Place::new(later, Rank::State, "a"),
        ];
        assert!(places.is_sorted_by(|one, other| one.order() < other.order()));
        for place in &places {
            let text = format!("\"{}\"", Cursor(place.clone()));
            let read: Cursor<Place> = serde_json::from_str(&text).unwrap();
            assert_eq!(&read.0, place, "a cursor keeps the whole place");
        }
    }
}
