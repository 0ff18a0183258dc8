//! `/v1/conversations`: conversations as the mirror has them, with their lines.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::as_of::moment_of_one;
use crate::api::auth::{Caller, scope};
use crate::api::transfers::TransferBody;
use crate::api::{Api, raw};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::ledger::Cause;
use crate::mirror::as_of::{self, Moment};
use crate::mirror::read::{self, ConversationFilter, ConversationRow};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Instant};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;
use crate::{group_text, ledger, transfer};

/// A conversation as the mirror has it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Conversation)]
pub(super) struct ConversationBody {
    conversation_sid: ConversationSid,
    #[schema(value_type = String)]
    account_sid: crate::ids::AccountSid,
    /// Twilio's word: `initializing`, `active`, `inactive`, `closed`. Null while only parts of the conversation have come.
    state: Option<String>,
    friendly_name: Option<String>,
    unique_name: Option<String>,
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
    /// An inbound group message made it.
    autocreated: bool,
    /// Our numbers in it, and who is behind them. None once the conversation is over.
    lines: Vec<LineNow>,
    created_at: Option<Timestamp>,
    last_message_at: Option<Timestamp>,
    closed_at: Option<Timestamp>,
    removed_at: Option<Timestamp>,
    /// When all of it was last compared with Twilio.
    verified_at: Option<Timestamp>,
    /// Set while what is here is in doubt and being read anew.
    unverified_since: Option<Timestamp>,
    /// When something of it was erased here: what is missing then is not known any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    erased_at: Option<Timestamp>,
}

/// One of our numbers in a conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Line)]
pub(super) struct LineNow {
    line: String,
    /// Null: the line is unstaffed.
    holder: Option<String>,
}

/// A conversation with what belongs to it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConversationDetail)]
pub(super) struct ConversationDetail {
    #[serde(flatten)]
    conversation: ConversationBody,
    /// The group text that it is; null for a conversation that is none, or not seen as one yet.
    group_text_id: Option<Uuid>,
    /// Transfers of its lines that are not finished.
    open_transfers: Vec<TransferBody>,
}

impl ConversationBody {
    fn new(row: ConversationRow, lines: Vec<LineNow>) -> Self {
        Self {
            conversation_sid: row.conversation_sid,
            account_sid: row.account_sid,
            state: row.state,
            friendly_name: row.friendly_name,
            unique_name: row.unique_name,
            attributes: raw(row.attributes),
            autocreated: row.autocreated,
            lines,
            created_at: row.created_at,
            last_message_at: row.last_message_at,
            closed_at: row.closed_at,
            removed_at: row.removed_at,
            verified_at: row.verified_at,
            unverified_since: row.unverified_since,
            erased_at: row.erased_at,
        }
    }
}

/// The problem that there is none, or that there was none then, as far as was known.
pub(super) async fn expect_then(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    moment: Option<Moment>,
) -> Result<(), Problem> {
    match moment {
        None => expect(conn, sid).await.map(|_| ()),
        Some(moment) if as_of::was_there(conn, sid, moment).await? => Ok(()),
        Some(_) => Err(Problem::NotFound { what: "conversation" }),
    }
}

/// The conversation, or the problem that there is none.
pub(super) async fn expect(
    conn: &mut PgConnection,
    sid: &ConversationSid,
) -> Result<ConversationRow, Problem> {
    read::conversation(conn, sid.as_str())
        .await?
        .ok_or(Problem::NotFound { what: "conversation" })
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, ConversationSid);

impl Key for Place {
    const LIST: &'static str = "conversations";
}

/// Twilio's states of a conversation.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum TwilioState {
    Initializing,
    Active,
    Inactive,
    Closed,
}

impl TwilioState {
    fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Closed => "closed",
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListConversations {
    /// Only those in this state at Twilio.
    #[serde(default)]
    #[param(value_type = Option<TwilioState>, inline)]
    state: Field<TwilioState>,
    /// Only those that have this number as a line; its `+` is written `%2B`.
    #[serde(default)]
    #[param(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// Only those of which this identity holds a line, or held it when the conversation ended.
    #[serde(default)]
    #[param(value_type = Option<Identity>)]
    holder: Field<Identity>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List conversations, the one first seen last first
#[utoipa::path(
    get,
    path = "/v1/conversations",
    operation_id = "list_conversations",
    tag = "Conversations",
    params(ListConversations),
    responses((status = 200, description = "A page of them.", body = Page<ConversationBody>)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Query(query): Query<ListConversations>,
) -> Result<Json<Page<ConversationBody>>, Problem> {
    let mut errors = Errors::of_query();
    let filter = ConversationFilter {
        state: errors
            .optional("state", query.state)
            .map(|state| state.as_str().to_owned()),
        line: errors.optional("line", query.line).map(PhoneNumber::into_string),
        holder: errors.optional("holder", query.holder).map(Identity::into_string),
    };
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let before = wanted
        .after
        .as_ref()
        .map(|Place(at, sid)| (at.0, sid.as_str().to_owned()));
    let rows = read::conversations(&mut conn, &filter, before, wanted.rows()).await?;
    let page = wanted.page(rows, |row| {
        Place(At(row.first_seen_at), row.conversation_sid.clone())
    });
    let mut lines = lines_of(&mut conn, &page.items).await?;
    Ok(Json(page.map(|row| {
        let lines = lines.remove(row.conversation_sid.as_str()).unwrap_or_default();
        ConversationBody::new(row, lines)
    })))
}

async fn lines_of(
    conn: &mut PgConnection,
    conversations: &[ConversationRow],
) -> Result<BTreeMap<String, Vec<LineNow>>, sqlx::Error> {
    let sids: Vec<&str> = conversations
        .iter()
        .map(|conversation| conversation.conversation_sid.as_str())
        .collect();
    let mut lines: BTreeMap<String, Vec<LineNow>> = BTreeMap::new();
    for (sid, line, holder) in ledger::lines_of_many(conn, &sids).await? {
        lines.entry(sid).or_default().push(LineNow { line, holder });
    }
    Ok(lines)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ShowConversation {
    /// As it was at this time at Twilio, which has passed.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    as_of: Field<Instant>,
    /// As far as we had been told by this time, which has passed. Alone, or with `as_of`.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    known_at: Field<Instant>,
}

/// Show a conversation, with its lines, their holders and its open transfers
///
/// With `as_of` or `known_at` as it was: then without transfers, which the timeline has, and without `verified_at` and
/// `unverified_since`, which are of the present.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}",
    operation_id = "show_conversation",
    tag = "Conversations",
    params(("conversation_sid" = ConversationSid, Path), ShowConversation),
    responses((status = 200, description = "The conversation.", body = ConversationDetail)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    caller: Caller<scope::ConversationsRead>,
    Path(sid): Path<ConversationSid>,
    Query(query): Query<ShowConversation>,
) -> Result<Json<ConversationDetail>, Problem> {
    let mut errors = Errors::of_query();
    let moment = moment_of_one(&mut errors, query.as_of, query.known_at, api.clock.now());
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    if let Some(moment) = moment {
        return Ok(Json(then(&mut conn, &sid, moment).await?));
    }
    let row = expect(&mut conn, &sid).await?;
    let mut lines = lines_of(&mut conn, std::slice::from_ref(&row)).await?;
    let group = group_text::find_by_conversation(&mut conn, sid.as_str()).await?;
    let open = transfer::Filter {
        conversation_sid: Some(sid.as_str().to_owned()),
        open: true,
        ..transfer::Filter::default()
    };
    // One for each line at most, and a group has at most ten members.
    let open = transfer::page(&mut conn, &open, None, 10).await?;
    let shape = |transfer| TransferBody::for_caller(transfer, &caller);
    Ok(Json(ConversationDetail {
        conversation: ConversationBody::new(row, lines.remove(sid.as_str()).unwrap_or_default()),
        group_text_id: group.map(|group| group.group_text_id),
        open_transfers: open.into_iter().map(shape).collect(),
    }))
}

async fn then(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    moment: Moment,
) -> Result<ConversationDetail, Problem> {
    let row = as_of::conversation(conn, sid, moment)
        .await?
        .ok_or(Problem::NotFound { what: "conversation" })?;
    let tenures = ledger::tenures_of_conversation_as_of(conn, sid, moment).await?;
    let lasting = tenures
        .into_iter()
        .filter(|tenure| tenure.to.is_none() && tenure.cause != Cause::Removed);
    let mut lines: Vec<LineNow> = lasting
        .map(|tenure| LineNow {
            line: tenure.line,
            holder: tenure.holder,
        })
        .collect();
    lines.sort_by(|one, other| one.line.cmp(&other.line));
    let group = group_text::find_by_conversation(conn, sid.as_str()).await?;
    Ok(ConversationDetail {
        conversation: ConversationBody::new(row, lines),
        group_text_id: group.map(|group| group.group_text_id),
        open_transfers: Vec::new(),
    })
}
