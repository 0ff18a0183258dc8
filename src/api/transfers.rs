//! `/v1/transfers`: giving a line to another holder.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Post};
use crate::api::{Api, conflict};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::transfer::{
    self, DecideError, Kind, NewTransfer, StartTransferError, State as Stage, Step, Transfer,
};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Flag, Span, Text};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A note may have so many bytes.
const NOTE_MAX: usize = 4096;
/// An offer may stand so long: a week.
const OFFER_SECONDS_MAX: i64 = 7 * 24 * 3600;

/// A transfer to be started.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "conversation_sid": "CH00000000000000000000000000000001",
    "kind": "warm",
    "to": "noor",
    "requested_by": "maya",
    "reason": "mortgage question",
    "offer_timeout": "5m",
}))]
pub(super) struct StartTransfer {
    #[serde(default)]
    #[schema(value_type = ConversationSid, required = true)]
    conversation_sid: Field<ConversationSid>,
    /// Which line; needed only where the conversation has several.
    #[serde(default)]
    #[schema(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    #[serde(default)]
    #[schema(value_type = Kind, required = true, inline)]
    kind: Field<Kind>,
    /// Who gets the line.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    to: Field<Identity>,
    /// Who asks for it.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    requested_by: Field<Identity>,
    /// In a few words, for lists.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    reason: Field<Text<1, 200>>,
    /// What the next holder should know; at most 4 KiB. Customers never see it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    note: Field<Text<1, NOTE_MAX>>,
    /// How long an offer stands, like `5m`; only for `warm` and `escalation`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "5m")]
    offer_timeout: Field<Span<OFFER_SECONDS_MAX>>,
}

impl StartTransfer {
    fn read(self) -> Result<NewTransfer, Problem> {
        let mut errors = Errors::of_body();
        let conversation_sid = errors.required("conversation_sid", self.conversation_sid);
        let line = errors.optional("line", self.line);
        let kind = errors.required("kind", self.kind);
        let to = errors.required("to", self.to);
        let requested_by = errors.required("requested_by", self.requested_by);
        let reason = errors.optional("reason", self.reason).map(Text::into_string);
        let note = errors.optional("note", self.note).map(Text::into_string);
        let offer_timeout = errors.optional("offer_timeout", self.offer_timeout);
        if note.as_ref().is_some_and(|note| note.len() > NOTE_MAX) {
            errors.add("note", "malformed", format!("expected at most {NOTE_MAX} bytes"));
        }
        if offer_timeout.is_some() && kind.is_some_and(|kind| !kind.is_offered()) {
            let message = "expected only for `warm` and `escalation`: the others are not offered";
            errors.add("offer_timeout", "not_offered", message);
        }
        let new = match (conversation_sid, kind, to, requested_by) {
            (Some(conversation_sid), Some(kind), Some(to), Some(requested_by)) => Some(NewTransfer {
                conversation_sid,
                line,
                kind,
                to,
                requested_by: requested_by.into_string(),
                reason,
                note,
                offer_timeout: offer_timeout.map(|timeout| timeout.0),
            }),
            _ => None,
        };
        errors.finish(new)
    }
}

/// A transfer and where it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Transfer)]
pub(super) struct TransferBody {
    transfer_id: Uuid,
    conversation_sid: ConversationSid,
    line: PhoneNumber,
    #[schema(inline)]
    kind: Kind,
    #[schema(inline)]
    state: Stage,
    /// Who held the line when it began; null: nobody.
    from: Option<String>,
    to: Identity,
    requested_by: String,
    /// Who accepted, declined or cancelled.
    decided_by: Option<String>,
    reason: Option<String>,
    note: Option<String>,
    offer_expires_at: Option<Timestamp>,
    /// How the identity was replaced at Twilio: `update`, `add_remove`, or `none` where it was so already.
    method: Option<String>,
    /// Why it ended without success: a stable code.
    outcome_code: Option<String>,
    outcome_detail: Option<String>,
    /// Messages written from here to `contested_to` are contested: it is not certain who had the line.
    contested_from: Option<Timestamp>,
    contested_to: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    finished_at: Option<Timestamp>,
}

/// A transfer with all that was tried.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TransferDetail)]
pub(super) struct TransferDetail {
    #[serde(flatten)]
    transfer: TransferBody,
    steps: Vec<StepBody>,
}

/// One thing that was tried.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TransferStep)]
pub(super) struct StepBody {
    step_number: i32,
    action: String,
    started_at: Timestamp,
    /// Null: it is at work, or was cut short and is tried again.
    finished_at: Option<Timestamp>,
    outcome: Option<String>,
    detail: Option<String>,
}

impl From<Transfer> for TransferBody {
    fn from(transfer: Transfer) -> Self {
        Self {
            transfer_id: transfer.transfer_id,
            conversation_sid: transfer.conversation_sid,
            line: transfer.line,
            kind: transfer.kind,
            state: transfer.state,
            from: transfer.from_holder,
            to: transfer.to_holder,
            requested_by: transfer.requested_by,
            decided_by: transfer.decided_by,
            reason: transfer.reason,
            note: transfer.note,
            offer_expires_at: transfer.offer_expires_at,
            method: transfer.method,
            outcome_code: transfer.outcome_code,
            outcome_detail: transfer.outcome_detail,
            contested_from: transfer.contested_from,
            contested_to: transfer.contested_to,
            created_at: transfer.created_at,
            updated_at: transfer.updated_at,
            finished_at: transfer.finished_at,
        }
    }
}

impl From<Step> for StepBody {
    fn from(step: Step) -> Self {
        Self {
            step_number: step.step_number,
            action: step.action,
            started_at: step.started_at,
            finished_at: step.finished_at,
            outcome: step.outcome,
            detail: step.detail,
        }
    }
}

/// Start a transfer
///
/// `assign` gives an unstaffed line, `cold` a staffed one, at once; `warm` and `escalation` offer it first. It always
/// ends: `completed`, `declined`, `cancelled`, `expired`, `failed`, or `needs_attention`, each told in the feed. Until
/// the new holder is confirmed at Twilio, the old one keeps the line.
#[utoipa::path(
    post,
    path = "/v1/transfers",
    operation_id = "start_transfer",
    tag = "Transfers",
    request_body = StartTransfer,
    responses((status = 202, description = "Taken; `Location` names it.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(super) async fn start(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Post { call, body }: Post<StartTransfer>,
) -> Result<Response, Problem> {
    let new = body.read()?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let transfer = api.transfers.start_in(first.conn(), new).await?;
            let location = format!("/v1/transfers/{}", transfer.transfer_id);
            first
                .answer(
                    StatusCode::ACCEPTED,
                    Some(location),
                    &TransferBody::from(transfer),
                )
                .await
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "transfers";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListTransfers {
    /// Only those of this conversation.
    #[serde(default)]
    #[param(value_type = Option<ConversationSid>)]
    conversation_sid: Field<ConversationSid>,
    /// Only those of this number; its `+` is written `%2B`.
    #[serde(default)]
    #[param(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// Only those to this identity: with `open`, what somebody has to answer.
    #[serde(default)]
    #[param(value_type = Option<Identity>)]
    to: Field<Identity>,
    /// `true`: only those that are not finished.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    open: Field<Flag>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List transfers, newest first
#[utoipa::path(
    get,
    path = "/v1/transfers",
    operation_id = "list_transfers",
    tag = "Transfers",
    responses((status = 200, description = "A page of them.", body = Page<TransferBody>)),
    security(("api_key" = ["transfers:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::TransfersRead>,
    Query(query): Query<ListTransfers>,
) -> Result<Json<Page<TransferBody>>, Problem> {
    let mut errors = Errors::of_query();
    let filter = transfer::Filter {
        conversation_sid: errors
            .optional("conversation_sid", query.conversation_sid)
            .map(ConversationSid::into_string),
        line: errors.optional("line", query.line).map(PhoneNumber::into_string),
        to: errors.optional("to", query.to).map(Identity::into_string),
        open: errors.optional("open", query.open).is_some_and(|open| open.0),
    };
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let before = wanted.after.as_ref().map(|Place(at, id)| (at.0, *id));
    let rows = transfer::page(&mut conn, &filter, before, wanted.rows()).await?;
    let page = wanted.page(rows, |transfer| {
        Place(At(transfer.created_at), transfer.transfer_id)
    });
    Ok(Json(page.map(TransferBody::from)))
}

/// Show a transfer, with all that was tried
#[utoipa::path(
    get,
    path = "/v1/transfers/{transfer_id}",
    operation_id = "show_transfer",
    tag = "Transfers",
    params(("transfer_id" = Uuid, Path)),
    responses((status = 200, description = "The transfer.", body = TransferDetail)),
    security(("api_key" = ["transfers:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::TransfersRead>,
    Path(transfer_id): Path<Uuid>,
) -> Result<Json<TransferDetail>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let transfer = transfer::find(&mut conn, transfer_id).await?;
    let transfer = transfer.ok_or(Problem::NotFound { what: "transfer" })?;
    let steps = transfer::steps(&mut conn, transfer.conversation_sid.as_str(), transfer_id).await?;
    Ok(Json(TransferDetail {
        transfer: transfer.into(),
        steps: steps.into_iter().map(StepBody::from).collect(),
    }))
}

/// Who decides about a transfer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "by": "noor" }))]
pub(super) struct Decision {
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

impl Decision {
    fn read(self) -> Result<Identity, Problem> {
        let mut errors = Errors::of_body();
        let by = errors.required("by", self.by);
        errors.finish(by)
    }
}

/// Accept an offered transfer; only its target can
#[utoipa::path(
    post,
    path = "/v1/transfers/{transfer_id}/accept",
    operation_id = "accept_transfer",
    tag = "Transfers",
    params(("transfer_id" = Uuid, Path)),
    request_body = Decision,
    responses((status = 200, description = "Accepted; the swap begins.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(super) async fn accept(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Path(transfer_id): Path<Uuid>,
    Post { call, body }: Post<Decision>,
) -> Result<Response, Problem> {
    let by = body.read()?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let transfer = api
                .transfers
                .accept_in(first.conn(), transfer_id, by.as_str())
                .await?;
            first
                .answer(StatusCode::OK, None, &TransferBody::from(transfer))
                .await
        }
    }
}

/// Decline an offered transfer; only its target can
#[utoipa::path(
    post,
    path = "/v1/transfers/{transfer_id}/decline",
    operation_id = "decline_transfer",
    tag = "Transfers",
    params(("transfer_id" = Uuid, Path)),
    request_body = Decision,
    responses((status = 200, description = "Declined; the line stays as it is.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(super) async fn decline(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Path(transfer_id): Path<Uuid>,
    Post { call, body }: Post<Decision>,
) -> Result<Response, Problem> {
    let by = body.read()?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let transfer = api
                .transfers
                .decline_in(first.conn(), transfer_id, by.as_str())
                .await?;
            first
                .answer(StatusCode::OK, None, &TransferBody::from(transfer))
                .await
        }
    }
}

/// Cancel an offered transfer
#[utoipa::path(
    post,
    path = "/v1/transfers/{transfer_id}/cancel",
    operation_id = "cancel_transfer",
    tag = "Transfers",
    params(("transfer_id" = Uuid, Path)),
    request_body = Decision,
    responses((status = 200, description = "Cancelled; the line stays as it is.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(super) async fn cancel(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Path(transfer_id): Path<Uuid>,
    Post { call, body }: Post<Decision>,
) -> Result<Response, Problem> {
    let by = body.read()?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let transfer = api
                .transfers
                .cancel_in(first.conn(), transfer_id, by.as_str())
                .await?;
            first
                .answer(StatusCode::OK, None, &TransferBody::from(transfer))
                .await
        }
    }
}

impl From<StartTransferError> for Problem {
    fn from(error: StartTransferError) -> Self {
        match error {
            StartTransferError::ConversationNotFound => Self::NotFound { what: "conversation" },
            StartTransferError::ConversationClosed => Self::conflict(
                "conversation_closed",
                "the conversation is over, which is final at Twilio",
            ),
            StartTransferError::LineNotFound => {
                Self::conflict("line_not_found", "the conversation has no such line")
            }
            StartTransferError::LineAmbiguous { lines } => conflict(
                "line_ambiguous",
                "the conversation has several lines: say which in `line`",
                json!({ "lines": lines.len() }),
            ),
            StartTransferError::Unstaffed => {
                Self::conflict("line_unstaffed", "nobody holds the line: use `assign`")
            }
            StartTransferError::Staffed { holder } => conflict(
                "line_staffed",
                "somebody holds the line: use `cold`, `warm` or `escalation`",
                json!({ "holder": holder }),
            ),
            StartTransferError::AlreadyHolder => {
                Self::conflict("already_holder", "the target holds the line already")
            }
            StartTransferError::TargetInGroup => Self::conflict(
                "target_in_group",
                "the target is in the conversation already, and Twilio takes a person once",
            ),
            StartTransferError::AlreadyOpen {
                transfer_id,
                to,
                since,
            } => conflict(
                "transfer_already_open",
                "another transfer of this line is open",
                json!({ "transfer_id": transfer_id, "to": to, "since": since }),
            ),
            StartTransferError::Database(error) => error.into(),
        }
    }
}

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::NotFound => Self::NotFound { what: "transfer" },
            DecideError::NotTheTarget { to } => conflict(
                "not_the_target",
                "the transfer is offered to somebody else",
                json!({ "to": to }),
            ),
            DecideError::NotOpen { state, by, at } => conflict(
                "transfer_not_open",
                "the transfer no longer waits for an answer",
                json!({ "state": state, "by": by, "at": at }),
            ),
            DecideError::Database(error) => error.into(),
        }
    }
}
