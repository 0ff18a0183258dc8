//! `/v1/queue`: lines that nobody holds and that wait for somebody.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Post};
use crate::api::transfers::TransferBody;
use crate::api::{Api, conflict};
use crate::assignment::{self, Passed, Take, TakeError, Waiting};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::people::Slug;
use crate::web::extract::Query;
use crate::web::field::{Errors, Field};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A line that nobody holds and that waits for somebody.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QueuedLine)]
pub(super) struct QueuedBody {
    conversation_sid: ConversationSid,
    line: String,
    /// In whose queue it waits; null: the number has no team.
    team: Option<String>,
    /// Why it waits: `queue`, the number's rule chooses nobody; `nobody_in_team`; `nobody_free`; `members_coming`, for a few
    /// seconds; `given_in_vain`, the transfer to somebody did not succeed.
    reason: String,
    since: Timestamp,
    /// How long it has waited, in whole seconds.
    age_seconds: i64,
    /// Who held this number with these people last.
    last_holder: Option<String>,
    /// Who was not given it, and why.
    passed: Vec<Passed>,
    last_message_at: Option<Timestamp>,
}

impl QueuedBody {
    fn new(waiting: Waiting, now: Timestamp) -> Self {
        Self {
            conversation_sid: waiting.conversation_sid,
            line: waiting.line.into_string(),
            team: waiting.team_id,
            reason: waiting.reason,
            since: waiting.since,
            age_seconds: now.duration_since(waiting.since).as_secs().max(0),
            last_holder: waiting.last_holder,
            passed: waiting.passed,
            last_message_at: waiting.last_message_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, String, String);

impl Key for Place {
    const LIST: &'static str = "queue";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQueue {
    /// Only the queue of this team.
    #[serde(default)]
    #[param(value_type = Option<Slug>)]
    team: Field<Slug>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List lines that wait for somebody, the oldest first
#[utoipa::path(
    get,
    path = "/v1/queue",
    operation_id = "list_queue",
    tag = "Queue",
    params(ListQueue),
    responses((status = 200, description = "A page of them.", body = Page<QueuedBody>)),
    security(("api_key" = ["transfers:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::TransfersRead>,
    Query(query): Query<ListQueue>,
) -> Result<Json<Page<QueuedBody>>, Problem> {
    let mut errors = Errors::of_query();
    let team = errors.optional("team", query.team);
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let after = wanted
        .after
        .as_ref()
        .map(|Place(at, sid, line)| (at.0, sid.as_str(), line.as_str()));
    let team = team.as_ref().map(Slug::as_str);
    let rows = assignment::page(&mut conn, team, after, wanted.rows()).await?;
    let page = wanted.page(rows, |waiting| {
        Place(
            At(waiting.since),
            waiting.conversation_sid.to_string(),
            waiting.line.as_str().to_owned(),
        )
    });
    let now = api.clock.now();
    Ok(Json(page.map(|waiting| QueuedBody::new(waiting, now))))
}

/// A line that somebody takes.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "conversation_sid": "CH00000000000000000000000000000001", "by": "noor" }))]
pub(super) struct TakeLine {
    #[serde(default)]
    #[schema(value_type = ConversationSid, required = true)]
    conversation_sid: Field<ConversationSid>,
    /// Which line; needed only where several of the conversation wait.
    #[serde(default)]
    #[schema(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// Who takes it.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

/// Take a line that waits
///
/// It is given to whoever takes it, by a transfer of the kind `assign`. Of two at once, one gets it; the other is told who, and
/// when.
#[utoipa::path(
    post,
    path = "/v1/queue/take",
    operation_id = "take_line",
    tag = "Queue",
    request_body = TakeLine,
    responses(
        (status = 202, description = "Taken; `Location` names the transfer.", body = TransferBody),
        (status = 409, description = "`already_taken`, with `by` and `at`; `not_queued`; or why a transfer cannot begin.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["transfers:write"])),
)]
pub(super) async fn take(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Post { call, body }: Post<TakeLine>,
) -> Result<Response, Problem> {
    let mut errors = Errors::of_body();
    let conversation_sid = errors.required("conversation_sid", body.conversation_sid);
    let line = errors.optional("line", body.line);
    let by = errors.required("by", body.by);
    let (conversation_sid, by) = errors.finish(conversation_sid.zip(by))?;
    let take = Take {
        conversation_sid,
        line,
        by,
    };
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let transfer = assignment::take_in(&api.transfers, first.conn(), take).await?;
            let location = format!("/v1/transfers/{}", transfer.transfer_id);
            let body = TransferBody::from(transfer);
            first.answer(StatusCode::ACCEPTED, Some(location), &body).await
        }
    }
}

impl From<TakeError> for Problem {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::AlreadyTaken { by, at, transfer_id } => conflict(
                "already_taken",
                "somebody else has the line, or is about to",
                json!({ "by": by, "at": at, "transfer_id": transfer_id }),
            ),
            TakeError::NotQueued => Self::conflict(
                "not_queued",
                "the line does not wait in a queue: see GET /v1/queue, or use a transfer of the kind `assign`",
            ),
            TakeError::Start(error) => error.into(),
            TakeError::Database(error) => error.into(),
        }
    }
}
