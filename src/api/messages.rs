//! `/v1/conversations/{conversation_sid}/messages`: what was written, how far it came, and who was behind the lines.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

use crate::api::as_of::{Dated, moment};
use crate::api::auth::{Caller, Scope, scope};
use crate::api::delivery::{self, Delivery, DeliverySummary, Written};
use crate::api::ledger_then::{LedgerThen, LineThen};
use crate::api::{Api, conversations, participants, raw};
use crate::ids::{ConversationSid, MessageSid};
use crate::mirror::as_of::{self, Moment, PastMessage};
use crate::mirror::read::{self, MessageRow, ParticipantRow, ReceiptRow};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Instant};
use crate::web::page::{Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A message of a conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub(super) struct MessageBody {
    pub(super) message_sid: String,
    /// Its place in the conversation, from 0; numbers may be left out.
    index: Option<i64>,
    /// As Twilio has it: the identity, or the number, that wrote it.
    author: Option<String>,
    participant_sid: Option<String>,
    /// The line it was written through; null where a handset wrote it.
    sent_through: Option<String>,
    /// Who was behind each line of the conversation when it was written.
    lines: Vec<LineThen>,
    /// Null where it was removed, is withheld, or has media only.
    body: Option<String>,
    /// A list of `{"sid", "filename", "content_type", "size"}`.
    #[schema(value_type = Option<Vec<Object>>)]
    media: Option<Box<RawValue>>,
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
    /// Twilio's word for where it came from: `SMS`, `API`, `SDK`.
    source: Option<String>,
    /// How far it came, for each member with a handset; of what a handset wrote, for those that Twilio has told of.
    delivery: Vec<Delivery>,
    /// The sum of `delivery`; null where that is empty.
    delivery_summary: Option<DeliverySummary>,
    created_at: Option<Timestamp>,
    updated_at: Timestamp,
    /// When it was removed at Twilio; what it said is not given then.
    removed_at: Option<Timestamp>,
    /// When something of it was erased here: what is missing then is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Timestamp>,
    /// Only in a reading of the past: it was edited or removed since, and what it said before takes the scope `audit:read`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = bool, required = false)]
    withheld: Option<bool>,
}

/// What is known of a conversation besides its messages, to shape those.
pub(super) struct Surroundings {
    pub(super) ledger: LedgerThen,
    pub(super) members: Vec<ParticipantRow>,
    pub(super) moment: Option<Moment>,
}

/// A message that was found, and whether the caller may see what it said.
#[derive(Debug)]
pub(super) struct FoundMessage {
    pub(super) row: MessageRow,
    is_withheld: bool,
}

impl FoundMessage {
    pub(super) fn now(row: MessageRow) -> Self {
        Self {
            row,
            is_withheld: false,
        }
    }

    /// What was edited or removed since is for auditors.
    pub(super) fn then(past: PastMessage, may_audit: bool) -> Self {
        Self {
            is_withheld: !may_audit && !past.is_current && past.row.removed_at.is_none(),
            row: past.row,
        }
    }
}

impl Surroundings {
    pub(super) async fn load(
        conn: &mut PgConnection,
        sid: &ConversationSid,
        moment: Option<Moment>,
    ) -> Result<Self, sqlx::Error> {
        Ok(Self {
            ledger: LedgerThen::load(conn, sid, moment).await?,
            members: participants::members(conn, sid, moment).await?,
            moment,
        })
    }

    /// Shapes messages of the conversation, with their receipts.
    pub(super) async fn shape(
        &self,
        conn: &mut PgConnection,
        sid: &ConversationSid,
        found: Vec<FoundMessage>,
    ) -> Result<Vec<MessageBody>, sqlx::Error> {
        let sids: Vec<&str> = found.iter().map(|one| one.row.message_sid.as_str()).collect();
        let mut receipts: BTreeMap<String, Vec<ReceiptRow>> = BTreeMap::new();
        let rows = match self.moment {
            None => read::receipts(conn, sid.as_str(), &sids).await?,
            Some(moment) => as_of::receipts(conn, sid, &sids, moment).await?,
        };
        for receipt in rows {
            receipts
                .entry(receipt.message_sid.clone())
                .or_default()
                .push(receipt);
        }
        Ok(found
            .into_iter()
            .map(|one| {
                let receipts = receipts.remove(&one.row.message_sid).unwrap_or_default();
                self.message(one, receipts)
            })
            .collect())
    }

    fn message(&self, found: FoundMessage, receipts: Vec<ReceiptRow>) -> MessageBody {
        let FoundMessage { row, is_withheld } = found;
        let lines = self.ledger.at(time_of(&row));
        let said = row.removed_at.is_none() && !is_withheld;
        let sent_through = self.line_of(&row, &lines);
        let written = Written {
            at: time_of(&row),
            participant_sid: row.participant_sid.as_deref(),
            author: row.author.as_deref(),
            is_ours: sent_through.is_some(),
        };
        let delivery = delivery::of_members(&written, &self.members, receipts);
        MessageBody {
            sent_through,
            lines,
            message_sid: row.message_sid,
            index: row.index,
            author: row.author,
            participant_sid: row.participant_sid,
            body: row.body.filter(|_| said),
            media: raw(row.media.filter(|_| said)),
            attributes: raw(row.attributes.filter(|_| said)),
            source: row.source,
            delivery_summary: delivery::summary(&delivery),
            delivery,
            created_at: row.created_at,
            updated_at: row.updated_at,
            removed_at: row.removed_at,
            erased_at: row.erased_at,
            withheld: is_withheld.then_some(true),
        }
    }

    /// The author is the number itself, or the identity behind it; else the participant tells.
    fn line_of(&self, row: &MessageRow, lines: &[LineThen]) -> Option<String> {
        let member = self.member(row.participant_sid.as_deref());
        if let Some(line) = member.and_then(|member| member.projected_address.clone()) {
            return Some(line);
        }
        let author = row.author.as_deref()?;
        lines
            .iter()
            .find(|then| then.line == author || then.holder.as_deref() == Some(author))
            .map(|then| then.line.clone())
    }

    fn member(&self, participant_sid: Option<&str>) -> Option<&ParticipantRow> {
        let sid = participant_sid?;
        self.members.iter().find(|member| member.participant_sid == sid)
    }
}

/// When a message was written, as far as is known.
pub(super) fn time_of(row: &MessageRow) -> Timestamp {
    row.created_at.unwrap_or(row.updated_at)
}

pub(super) fn sid_of(row: &MessageRow) -> MessageSid {
    MessageSid::try_from(row.message_sid.as_str()).expect("the mirror takes only checked SIDs")
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(Option<i64>, MessageSid);

impl Key for Place {
    const LIST: &'static str = "messages";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListMessages {
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

/// List the messages of a conversation, in its order
///
/// Each with who was behind the lines when it was written, and how far it came to each handset. Removed ones are left
/// out; the timeline has them. With `as_of` or `known_at` as it was then: what was edited or removed since is `withheld`
/// from a key without the scope `audit:read`.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/messages",
    operation_id = "list_messages",
    tag = "Messages",
    params(("conversation_sid" = ConversationSid, Path), ListMessages),
    responses((status = 200, description = "A page of them.", body = Page<MessageBody>)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller<scope::ConversationsRead>,
    Path(sid): Path<ConversationSid>,
    Query(query): Query<ListMessages>,
) -> Result<Json<Page<MessageBody>>, Problem> {
    let mut errors = Errors::of_query();
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    let after = wanted.after.as_ref();
    let moment = moment(&mut errors, query.as_of, query.known_at, after, api.clock.now());
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    conversations::expect_then(&mut conn, &sid, moment).await?;
    let after = after.map(|place| (place.key().0, place.key().1.as_str()));
    let may_audit = caller.may(Scope::AuditRead);
    let found = find(&mut conn, &sid, moment, after, wanted.rows(), may_audit).await?;
    let page = wanted.page(found, |(index, found)| {
        Dated::new(Place(*index, sid_of(&found.row)), moment)
    });
    let page = page.map(|(_, found)| found);
    let surroundings = Surroundings::load(&mut conn, &sid, moment).await?;
    Ok(Json(Page {
        items: surroundings.shape(&mut conn, &sid, page.items).await?,
        next: page.next,
    }))
}

/// The parameters of a message's path.
#[derive(Debug, Deserialize)]
pub(super) struct OfMessage {
    conversation_sid: ConversationSid,
    message_sid: MessageSid,
}

/// Show a message, and how far it came to each member
///
/// One that was removed is shown too, without what it said.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/messages/{message_sid}",
    operation_id = "show_message",
    tag = "Messages",
    params(("conversation_sid" = ConversationSid, Path), ("message_sid" = MessageSid, Path)),
    responses((status = 200, description = "The message.", body = MessageBody)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Path(of): Path<OfMessage>,
) -> Result<Json<MessageBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let sid = of.conversation_sid;
    let row = read::message(&mut conn, sid.as_str(), of.message_sid.as_str()).await?;
    let row = row.ok_or(Problem::NotFound { what: "message" })?;
    let surroundings = Surroundings::load(&mut conn, &sid, None).await?;
    let mut shaped = surroundings
        .shape(&mut conn, &sid, vec![FoundMessage::now(row)])
        .await?;
    shaped.pop().map(Json).ok_or(Problem::Internal)
}

/// Where a page of the messages as they are now ends.
pub(super) type Latest = Place;

/// A page of the messages as they are now.
pub(super) async fn page_now(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    wanted: Wanted<Latest>,
) -> Result<Page<MessageBody>, Problem> {
    let after = wanted.after.as_ref().map(|place| (place.0, place.1.as_str()));
    let rows = read::messages(conn, sid.as_str(), after, wanted.rows()).await?;
    let page = wanted.page(rows, |row| Place(row.index, sid_of(row)));
    let surroundings = Surroundings::load(conn, sid, None).await?;
    let found = page.items.into_iter().map(FoundMessage::now).collect();
    Ok(Page {
        items: surroundings.shape(conn, sid, found).await?,
        next: page.next,
    })
}

/// The rows of a page, each with the index that it is ordered by.
async fn find(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    moment: Option<Moment>,
    after: Option<(Option<i64>, &str)>,
    limit: i64,
    may_audit: bool,
) -> Result<Vec<(Option<i64>, FoundMessage)>, sqlx::Error> {
    let Some(moment) = moment else {
        let rows = read::messages(conn, sid.as_str(), after, limit).await?;
        return Ok(rows
            .into_iter()
            .map(|row| (row.index, FoundMessage::now(row)))
            .collect());
    };
    let rows = as_of::messages(conn, sid, moment, after, limit).await?;
    Ok(rows
        .into_iter()
        .map(|past| (past.index, FoundMessage::then(past, may_audit)))
        .collect())
}
