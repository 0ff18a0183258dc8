//! `/v1/transfers`: giving a line to another holder. What transfers look like, and reading them; a file for each thing
//! that is done with them.

mod answer;
mod begin;
mod problem;
mod start;
mod take;
mod thread;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::Api;
use crate::api::auth::{Caller, Scope, scope};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::outbox::{self, State as SendState};
use crate::transfer::{self, Actor, Candidate, Kind, State as Stage, Step, Transfer};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Flag};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

pub(super) use answer::{__path_accept, __path_cancel, __path_decline, accept, cancel, decline};
pub(super) use start::{__path_start, start};
pub(super) use take::{__path_force, __path_hand_back, __path_release, force, hand_back, release};
pub(super) use thread::{__path_thread, thread};

/// Who acts, and for whom. In somebody else's place only with a key that may.
fn actor<S>(caller: &Caller<S>, by: Identity, stands_in_for: Option<Identity>) -> Result<Actor, Problem> {
    let is_supervisor = caller.may(Scope::TransfersSupervise);
    let stands_in = stands_in_for.as_ref().is_some_and(|person| *person != by);
    if stands_in && !is_supervisor {
        return Err(Problem::MissingScope {
            scope: Scope::TransfersSupervise.as_str(),
        });
    }
    Ok(Actor {
        by: by.into_string(),
        stands_in_for: stands_in_for.map(Identity::into_string),
        is_supervisor,
    })
}

/// A transfer and where it stands.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Transfer)]
pub(in crate::api) struct TransferBody {
    transfer_id: Uuid,
    conversation_sid: ConversationSid,
    line: PhoneNumber,
    #[schema(inline)]
    kind: Kind,
    #[schema(inline)]
    state: Stage,
    /// Who held the line when it began; null: nobody.
    from: Option<String>,
    /// Who gets it: of a list, whose turn it is or was. Null: the line is left to nobody.
    to: Option<Identity>,
    requested_by: String,
    /// Who accepted, declined or cancelled.
    decided_by: Option<String>,
    /// In whose place: a supervisor overrode this person.
    decided_as: Option<String>,
    /// The open transfer of the line that this one ended.
    supersedes: Option<Uuid>,
    superseded_by: Option<Uuid>,
    /// Null for a key without the scope `transfers:read`, like `note` and `introduction`.
    reason: Option<String>,
    note: Option<String>,
    /// What the new holder says to the group once the line is theirs.
    introduction: Option<String>,
    /// What it waits for: `answer`, `twilio`, `activation` of the conversation, another transfer of the `line`, or the
    /// `account`, which is not configured.
    waiting_for: Option<String>,
    /// The class of the last error at Twilio, with its code where there was one: `unavailable`, `throttled_20429`.
    waiting_error: Option<String>,
    waiting_since: Option<Timestamp>,
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
pub(in crate::api) struct TransferDetail {
    #[serde(flatten)]
    transfer: TransferBody,
    /// Who was asked, or is to be, in this order; empty where nobody is asked.
    candidates: Vec<CandidateBody>,
    /// What became of the introduction; null where there is none, or the line is not given yet.
    introduction_send: Option<IntroductionBody>,
    steps: Vec<StepBody>,
}

/// One person on the list of those who are offered a line.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TransferCandidate)]
pub(in crate::api) struct CandidateBody {
    to: Identity,
    /// `waiting`, `offered`, `accepted`, `declined`, `expired`, `skipped`, or `withdrawn` where the transfer ended otherwise.
    state: String,
    /// Why they were skipped.
    reason: Option<String>,
    offer_seconds: i64,
    offered_at: Option<Timestamp>,
    answered_at: Option<Timestamp>,
    answered_by: Option<String>,
    /// When they first read the thread, before answering.
    briefed_at: Option<Timestamp>,
}

/// The message that introduces the new holder.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TransferIntroduction)]
pub(in crate::api) struct IntroductionBody {
    send_id: Uuid,
    #[schema(inline)]
    state: SendState,
    outcome_code: Option<String>,
}

/// One thing that was tried.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TransferStep)]
pub(in crate::api) struct StepBody {
    step_number: i32,
    action: String,
    started_at: Timestamp,
    /// Null: it is at work, or was cut short and is tried again.
    finished_at: Option<Timestamp>,
    outcome: Option<String>,
    detail: Option<String>,
}

impl TransferBody {
    /// As the caller may see it: what people write to each other is for keys that read transfers.
    pub(in crate::api) fn for_caller<S>(transfer: Transfer, caller: &Caller<S>) -> Self {
        let body = Self::from(transfer);
        if caller.may(Scope::TransfersRead) {
            return body;
        }
        Self {
            reason: None,
            note: None,
            introduction: None,
            ..body
        }
    }
}

impl From<Transfer> for TransferBody {
    fn from(transfer: Transfer) -> Self {
        let is_offered = transfer.state == Stage::Offered;
        let waiting = transfer.waiting;
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
            decided_as: transfer.decided_as,
            supersedes: transfer.supersedes,
            superseded_by: transfer.superseded_by,
            reason: transfer.reason,
            note: transfer.note,
            introduction: transfer.introduction,
            waiting_for: match &waiting {
                Some(waiting) => Some(waiting.what.clone()),
                None => is_offered.then(|| "answer".to_owned()),
            },
            waiting_since: match &waiting {
                Some(waiting) => Some(waiting.since),
                None => is_offered.then_some(transfer.updated_at),
            },
            waiting_error: waiting.and_then(|waiting| waiting.error),
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

impl From<Candidate> for CandidateBody {
    fn from(candidate: Candidate) -> Self {
        Self {
            to: candidate.identity,
            state: candidate.state,
            reason: candidate.reason,
            offer_seconds: candidate.offer_seconds,
            offered_at: candidate.offered_at,
            answered_at: candidate.answered_at,
            answered_by: candidate.answered_by,
            briefed_at: candidate.briefed_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(in crate::api) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "transfers";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ListTransfers {
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
    params(ListTransfers),
    responses((status = 200, description = "A page of them.", body = Page<TransferBody>)),
    security(("api_key" = ["transfers:read"])),
)]
pub(in crate::api) async fn list(
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

/// Show a transfer, with everybody who was asked and all that was tried
#[utoipa::path(
    get,
    path = "/v1/transfers/{transfer_id}",
    operation_id = "show_transfer",
    tag = "Transfers",
    params(("transfer_id" = Uuid, Path)),
    responses((status = 200, description = "The transfer.", body = TransferDetail)),
    security(("api_key" = ["transfers:read"])),
)]
pub(in crate::api) async fn show(
    State(api): State<Api>,
    _: Caller<scope::TransfersRead>,
    Path(transfer_id): Path<Uuid>,
) -> Result<Json<TransferDetail>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let transfer = transfer::find(&mut conn, transfer_id).await?;
    let transfer = transfer.ok_or(Problem::NotFound { what: "transfer" })?;
    let sid = transfer.conversation_sid.as_str();
    let steps = transfer::steps(&mut conn, sid, transfer_id).await?;
    let candidates = transfer::candidates(&mut conn, sid, transfer_id).await?;
    let introduction = match transfer.introduction_send_id {
        Some(id) => outbox::find(&mut conn, id).await?,
        None => None,
    };
    Ok(Json(TransferDetail {
        transfer: transfer.into(),
        candidates: candidates.into_iter().map(CandidateBody::from).collect(),
        introduction_send: introduction.map(|message| IntroductionBody {
            send_id: message.outbound_message_id,
            state: message.state,
            outcome_code: message.outcome_code,
        }),
        steps: steps.into_iter().map(StepBody::from).collect(),
    }))
}
