//! `/v1/events`: the feed, one ordered list of everything that happened.
//!
//! The log holds no words of customers: what a message says is added when it is read, from the mirror, where retention
//! and erasure reach it.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use utoipa::{IntoParams, ToSchema};

use crate::api::auth::{Caller, scope};
use crate::api::{Api, raw};
use crate::events::{self, EventRow, Kind, Position};
use crate::mirror::read::{self, MessageRow};
use crate::web::extract::Query;
use crate::web::field::{Errors, Field, Number};
use crate::web::page::{LIMIT_DEFAULT, Limit};
use crate::web::problem::Problem;

const WAIT_SECONDS_MAX: u32 = 25;

/// The longest time that a reader can wait for an entry.
pub(super) const WAIT_MAX: Duration = Duration::from_secs(WAIT_SECONDS_MAX as u64);

/// How often a waiting reader looks without being woken: an entry may become readable without a notice, when an older
/// transaction ends that had held it back.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// One entry of the feed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventBody {
    /// Unique and constant, for telling entries that you have seen; usable as `after`.
    id: String,
    /// `message.added`, `transfer.completed`, …
    #[serde(rename = "type")]
    kind: String,
    account_sid: Option<String>,
    conversation_sid: Option<String>,
    /// The SID or id of what it happened to.
    subject: String,
    /// The identity or API key that did it, where one did.
    actor: Option<String>,
    /// Through what it happened, or we learnt of it: `webhook`, `rest`, `api`, `timer`, `sweep`, `cli`, `worker`.
    via: String,
    /// What brought it about, like `transfer:…`.
    cause: Option<String>,
    /// The source's own time.
    occurred_at: Timestamp,
    /// When we wrote it down.
    recorded_at: Timestamp,
    /// What there is to say about it, by type.
    #[schema(value_type = Object)]
    data: Option<Box<RawValue>>,
    /// For `message.*`: the message as it is now.
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<EventMessage>,
}

/// What a message says, as it is when the feed is read.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventMessage {
    index: Option<i64>,
    author: Option<String>,
    /// Null where it was removed, or has media only.
    body: Option<String>,
    /// A list of `{"sid", "filename", "content_type", "size"}`.
    #[schema(value_type = Option<Vec<Object>>)]
    media: Option<Box<RawValue>>,
    removed_at: Option<Timestamp>,
    /// When something of it was erased here: what is missing then is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Timestamp>,
}

/// A part of the feed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventPage {
    items: Vec<EventBody>,
    /// What to send as `after` next time; always there, since the feed has no end. Null only while the log is empty.
    next: Option<String>,
}

impl EventBody {
    fn new(row: EventRow, message: Option<EventMessage>) -> Self {
        Self {
            id: row.position.to_string(),
            kind: row.kind,
            account_sid: row.account_sid,
            conversation_sid: row.conversation_sid,
            subject: row.subject,
            actor: row.actor,
            via: row.via,
            cause: row.cause,
            occurred_at: row.occurred_at,
            recorded_at: row.recorded_at,
            data: raw(Some(row.data)),
            message,
        }
    }
}

impl From<&MessageRow> for EventMessage {
    fn from(row: &MessageRow) -> Self {
        let said = row.removed_at.is_none();
        Self {
            index: row.index,
            author: row.author.clone(),
            body: row.body.clone().filter(|_| said),
            media: raw(row.media.clone().filter(|_| said)),
            removed_at: row.removed_at,
            erased_at: row.erased_at,
        }
    }
}

/// A place in the feed, as its reader holds it.
#[derive(Debug)]
pub(super) struct After(Position);

impl<'de> Deserialize<'de> for After {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(Self)
            .map_err(|_| D::Error::custom("expected `next`, or the `id` of an entry, of an earlier answer"))
    }
}

/// Kinds of entries, with commas between.
#[derive(Debug)]
pub(super) struct Kinds(Vec<Kind>);

impl<'de> Deserialize<'de> for Kinds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .split(',')
            .map(Kind::parse)
            .collect::<Option<_>>()
            .map(Self)
            .ok_or_else(|| {
                let known: Vec<&str> = Kind::ALL.iter().copied().map(Kind::as_str).collect();
                D::Error::custom(format!(
                    "expected types with commas between, of: {}",
                    known.join(" ")
                ))
            })
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ReadEvents {
    /// `next` of the answer before. Without it, the feed is read from its beginning.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    after: Field<After>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// Only entries of these types, with commas between, like `message.added,transfer.completed`.
    #[serde(default)]
    #[param(value_type = Option<String>, example = "message.added,transfer.completed")]
    types: Field<Kinds>,
    /// Where there is nothing yet: wait so many seconds for it, 0 to 25.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 0, maximum = 25)]
    wait: Field<Number<0, WAIT_SECONDS_MAX>>,
}

/// What is asked for, checked.
struct Wanted {
    after: Option<Position>,
    limit: usize,
    kinds: Option<Vec<&'static str>>,
    wait: Duration,
}

impl ReadEvents {
    fn read(self) -> Result<Wanted, Problem> {
        let mut errors = Errors::of_query();
        let after = errors.optional("after", self.after);
        let limit = errors.optional("limit", self.limit);
        let types = errors.optional("types", self.types);
        let wait = errors.optional("wait", self.wait);
        errors.finish(Some(Wanted {
            after: after.map(|after| after.0),
            limit: limit.map_or(LIMIT_DEFAULT, |limit| limit.0) as usize,
            kinds: types.map(|kinds| kinds.0.into_iter().map(Kind::as_str).collect()),
            wait: Duration::from_secs(wait.map_or(0, |wait| u64::from(wait.0))),
        }))
    }
}

/// Read the feed
///
/// Entries in one order that never changes: whoever goes on from `next` misses none and gets none twice. An entry whose
/// transaction is late is waited for, so that it is never skipped.
#[utoipa::path(
    get,
    path = "/v1/events",
    operation_id = "read_events",
    tag = "Feed",
    params(ReadEvents),
    responses((status = 200, description = "What came after, oldest first; none where nothing did.", body = EventPage)),
    security(("api_key" = ["events:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::EventsRead>,
    Query(query): Query<ReadEvents>,
) -> Result<Json<EventPage>, Problem> {
    let wanted = query.read()?;
    let deadline = Instant::now() + wanted.wait;
    let mut notices = api.notices.events.subscribe();
    loop {
        // Before looking, so that what comes while we look wakes us.
        notices.mark_unchanged();
        let page = look(&api, &wanted).await?;
        let is_due = Instant::now() >= deadline || api.shutdown.is_cancelled();
        if !page.items.is_empty() || is_due {
            return Ok(Json(page));
        }
        wait_for_entries(&api, &mut notices, deadline).await;
    }
}

/// Holds no connection, so that many can wait.
async fn wait_for_entries(api: &Api, notices: &mut watch::Receiver<u64>, deadline: Instant) {
    let next_look = deadline.min(Instant::now() + LOOK_EVERY);
    tokio::select! {
        () = api.shutdown.cancelled() => {}
        // Woken, or it is time to look again; which of them does not matter.
        _ = timeout_at(next_look, notices.changed()) => {}
    }
}

async fn look(api: &Api, wanted: &Wanted) -> Result<EventPage, Problem> {
    let mut conn = api.pool.acquire().await?;
    // Before the page: what the page leaves out up to here is of other types.
    let end = match &wanted.kinds {
        Some(_) => events::end(&mut conn).await?,
        None => None,
    };
    let after = wanted.after.unwrap_or_default();
    let limit = i64::try_from(wanted.limit).expect("a limit is small");
    let rows = events::page(&mut conn, after, wanted.kinds.as_deref(), limit).await?;
    let last = rows.last().map(|row| row.position);
    let next = if rows.len() < wanted.limit {
        [wanted.after, last, end].into_iter().flatten().max()
    } else {
        last
    };
    let messages = messages_of(&mut conn, &rows).await?;
    Ok(EventPage {
        items: rows.into_iter().map(|row| shape(row, &messages)).collect(),
        next: next.map(|next| next.to_string()),
    })
}

type Messages = BTreeMap<(String, String), MessageRow>;

async fn messages_of(conn: &mut PgConnection, rows: &[EventRow]) -> Result<Messages, sqlx::Error> {
    let keys: Vec<(String, String)> = rows.iter().filter_map(message_key).collect();
    let messages = read::messages_by_sid(conn, &keys).await?;
    Ok(messages
        .into_iter()
        .map(|row| ((row.conversation_sid.clone(), row.message_sid.clone()), row))
        .collect())
}

fn message_key(row: &EventRow) -> Option<(String, String)> {
    let is_message = row.kind.starts_with("message.");
    let conversation_sid = row.conversation_sid.clone().filter(|_| is_message)?;
    Some((conversation_sid, row.subject.clone()))
}

fn shape(row: EventRow, messages: &Messages) -> EventBody {
    let message = message_key(&row)
        .and_then(|key| messages.get(&key))
        .map(EventMessage::from);
    EventBody::new(row, message)
}
