//! `/v1/escalations` and `/v1/escalation-policies`: what happens to a line on which something is amiss.

mod look;
mod policies;

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
use crate::escalation::{self, Ask, AskError, Escalation, Step, Stop, StopError};
use crate::events::Via;
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::people::Slug;
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Text};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

// Including what the macro of each handler made beside it.
pub(super) use look::*;
pub(super) use policies::*;

/// Something is amiss with a line, and its policy says what is done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Escalation)]
pub(super) struct EscalationBody {
    escalation_id: Uuid,
    conversation_sid: ConversationSid,
    line: PhoneNumber,
    policy_id: Slug,
    /// It goes on under the version with which it began.
    policy_version: i64,
    rule: String,
    /// `no_answer`, `unavailable`, `words`, `delivery_failure`, `asked`.
    because: String,
    /// Since when it was so: when the customer wrote, the holder went away, …
    since: Timestamp,
    /// Who held the line; null: nobody.
    holder: Option<Identity>,
    asked_by: Option<String>,
    reason: Option<String>,
    /// `open`, `stopped`, `ended` or `needs_person`.
    state: String,
    /// Why it is over: `answered`, `handed_over`, `unstaffed`, `closed`, `line_gone`, `back`, `policy_off`,
    /// `stopped_by_hand`, `no_longer_so`, `steps_taken`, `needs_person`.
    why: Option<String>,
    stopped_by: Option<String>,
    /// When the next step is due, as things stand; null: it is over, or somebody has accepted.
    next_at: Option<Timestamp>,
    started_at: Timestamp,
    updated_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl From<Escalation> for EscalationBody {
    fn from(one: Escalation) -> Self {
        Self {
            escalation_id: one.escalation_id,
            conversation_sid: one.conversation_sid,
            line: one.line,
            policy_id: one.policy_id,
            policy_version: one.policy_version,
            rule: one.rule,
            because: one.cause,
            since: one.cause_at,
            holder: one.holder,
            asked_by: one.asked_by,
            reason: one.reason,
            state: one.state,
            why: one.why,
            stopped_by: one.stopped_by,
            next_at: one.next_at,
            started_at: one.started_at,
            updated_at: one.updated_at,
            finished_at: one.finished_at,
        }
    }
}

/// Something that was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EscalationStep)]
pub(super) struct StepBody {
    number: i32,
    /// Which step of the rule, from 1.
    step: i32,
    /// `nudge`, `offer`, `force`.
    how: String,
    /// `holder`, `backup`, `supervisor`, `on_call:` with a team, `person:` with an identity.
    whom: String,
    /// Who that was; null: nobody.
    to: Option<Identity>,
    taken_at: Timestamp,
    /// `told`, `skipped`, `asked` (the transfer is about to be started), `started`, `refused`, `dropped`.
    outcome: String,
    /// Why it was skipped or refused.
    code: Option<String>,
    /// Of what was offered or forced.
    transfer_id: Option<Uuid>,
    transfer_state: Option<String>,
}

impl From<Step> for StepBody {
    fn from(step: Step) -> Self {
        Self {
            number: step.number,
            step: step.step,
            how: step.how,
            whom: step.whom,
            to: step.to,
            taken_at: step.taken_at,
            outcome: step.outcome,
            code: step.code,
            transfer_id: step.transfer_id,
            transfer_state: step.transfer_state,
        }
    }
}

/// An escalation with all that was done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EscalationDetail)]
pub(super) struct EscalationDetail {
    #[serde(flatten)]
    escalation: EscalationBody,
    steps: Vec<StepBody>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "escalations";
}

/// Where an escalation stands.
#[derive(Debug, Clone, Copy, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum Standing {
    Open,
    Stopped,
    Ended,
    NeedsPerson,
}

impl Standing {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Stopped => "stopped",
            Self::Ended => "ended",
            Self::NeedsPerson => "needs_person",
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListEscalations {
    /// Only those of this conversation.
    #[serde(default)]
    #[param(value_type = Option<ConversationSid>)]
    conversation_sid: Field<ConversationSid>,
    /// Only those of this number; its `+` is written `%2B`.
    #[serde(default)]
    #[param(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// Only those under this policy.
    #[serde(default)]
    #[param(value_type = Option<Slug>)]
    policy_id: Field<Slug>,
    /// Only those that stand so.
    #[serde(default)]
    #[param(value_type = Option<Standing>, inline)]
    state: Field<Standing>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List escalations, newest first
///
/// Those of a conversation with `conversation_sid`; what is to be done now with `state=open`, and what waits for a person with
/// `state=needs_person`.
#[utoipa::path(
    get,
    path = "/v1/escalations",
    operation_id = "list_escalations",
    tag = "Escalations",
    params(ListEscalations),
    responses((status = 200, description = "A page of them.", body = Page<EscalationBody>)),
    security(("api_key" = ["escalations:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::EscalationsRead>,
    Query(query): Query<ListEscalations>,
) -> Result<Json<Page<EscalationBody>>, Problem> {
    let mut errors = Errors::of_query();
    let filter = escalation::Filter {
        conversation_sid: errors
            .optional("conversation_sid", query.conversation_sid)
            .map(ConversationSid::into_string),
        line: errors.optional("line", query.line).map(PhoneNumber::into_string),
        policy_id: errors
            .optional("policy_id", query.policy_id)
            .map(|policy_id| policy_id.to_string()),
        state: errors
            .optional("state", query.state)
            .map(|state| state.as_str().to_owned()),
    };
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let before = wanted.after.as_ref().map(|Place(at, id)| (at.0, *id));
    let rows = escalation::page(&mut conn, &filter, before, wanted.rows()).await?;
    let page = wanted.page(rows, |one| Place(At(one.started_at), one.escalation_id));
    Ok(Json(page.map(EscalationBody::from)))
}

/// Show an escalation, with all that was done
#[utoipa::path(
    get,
    path = "/v1/escalations/{escalation_id}",
    operation_id = "show_escalation",
    tag = "Escalations",
    params(("escalation_id" = Uuid, Path)),
    responses((status = 200, description = "The escalation.", body = EscalationDetail)),
    security(("api_key" = ["escalations:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::EscalationsRead>,
    Path(escalation_id): Path<Uuid>,
) -> Result<Json<EscalationDetail>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let found = escalation::find(&mut conn, escalation_id).await?;
    let found = found.ok_or(Problem::NotFound { what: "escalation" })?;
    let steps = escalation::steps(&mut conn, &found.conversation_sid, escalation_id).await?;
    Ok(Json(EscalationDetail {
        escalation: found.into(),
        steps: steps.into_iter().map(StepBody::from).collect(),
    }))
}

/// An escalation that somebody asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "by": "maya", "reason": "asks for a manager" }))]
pub(super) struct AskForEscalation {
    /// Who asks for it.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
    /// In a few words, for whoever it goes to. It is not sent, nor told in the feed.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    reason: Field<Text<1, 200>>,
    /// Which rule of the policy; the first one that says `asked`, if not given.
    #[serde(default)]
    #[schema(value_type = Option<Slug>)]
    rule: Field<Slug>,
}

/// Ask for an escalation by hand
///
/// What is done is said by the policy that counts for the line, in its rule with `"when": "asked"`. Its first step is taken
/// at once, or within a second or so.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_sid}/lines/{line}/escalations",
    operation_id = "ask_for_escalation",
    tag = "Escalations",
    params(
        ("conversation_sid" = ConversationSid, Path),
        ("line" = PhoneNumber, Path, description = "In E.164 form; its `+` may be written `%2B`."),
    ),
    request_body = AskForEscalation,
    responses(
        (status = 202, description = "It begins; `Location` names it.", body = EscalationBody),
        (status = 409, description = "`no_policy`, `already_open`, `conversation_closed`.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["escalations:write"])),
)]
pub(super) async fn ask(
    State(api): State<Api>,
    caller: Caller<scope::EscalationsWrite>,
    Path((conversation_sid, line)): Path<(ConversationSid, PhoneNumber)>,
    Post { call, body }: Post<AskForEscalation>,
) -> Result<Response, Problem> {
    let mut errors = Errors::of_body();
    let by = errors.required("by", body.by);
    let reason = errors.optional("reason", body.reason).map(Text::into_string);
    let rule = errors.optional("rule", body.rule);
    let by = errors.finish(by)?;
    let mut first = match call.begin(&api, &caller).await? {
        Begun::Again(answer) => return Ok(answer),
        Begun::First(first) => first,
    };
    let wanted = Ask {
        conversation_sid,
        line,
        by,
        reason,
        rule,
    };
    let begun = escalation::ask(first.conn(), wanted, Via::Api, api.clock.now()).await?;
    let location = format!("/v1/escalations/{}", begun.escalation_id);
    first
        .answer(StatusCode::ACCEPTED, Some(location), &EscalationBody::from(begun))
        .await
}

/// Who stops an escalation.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "by": "noor" }))]
pub(super) struct StopEscalation {
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

/// Stop an escalation by hand
///
/// An offer of it that nobody has answered is withdrawn. A transfer that was accepted goes on.
#[utoipa::path(
    post,
    path = "/v1/escalations/{escalation_id}/stop",
    operation_id = "stop_escalation",
    tag = "Escalations",
    params(("escalation_id" = Uuid, Path)),
    request_body = StopEscalation,
    responses((status = 200, description = "It is over.", body = EscalationBody)),
    security(("api_key" = ["escalations:write"])),
)]
pub(super) async fn stop(
    State(api): State<Api>,
    caller: Caller<scope::EscalationsWrite>,
    Path(escalation_id): Path<Uuid>,
    Post { call, body }: Post<StopEscalation>,
) -> Result<Response, Problem> {
    let mut errors = Errors::of_body();
    let by = errors.required("by", body.by);
    let by = errors.finish(by)?;
    let mut first = match call.begin(&api, &caller).await? {
        Begun::Again(answer) => return Ok(answer),
        Begun::First(first) => first,
    };
    let wanted = Stop { escalation_id, by };
    let stopped = escalation::stop(first.conn(), wanted, Via::Api, api.clock.now()).await?;
    first
        .answer(StatusCode::OK, None, &EscalationBody::from(stopped))
        .await
}

impl From<AskError> for Problem {
    fn from(error: AskError) -> Self {
        match error {
            AskError::ConversationNotFound => Self::NotFound { what: "conversation" },
            AskError::LineNotFound => Self::NotFound { what: "line" },
            AskError::ConversationClosed => {
                Self::conflict("conversation_closed", "the conversation is closed, for good")
            }
            AskError::NoPolicy { policy_id: None } => {
                Self::conflict("no_policy", "no policy counts for this line: set one that does")
            }
            AskError::NoPolicy { policy_id } => conflict(
                "no_policy",
                "the policy that counts for this line has no such rule with \"when\": \"asked\": add one",
                json!({ "policy_id": policy_id }),
            ),
            AskError::AlreadyOpen {
                escalation_id,
                by,
                since,
            } => conflict(
                "already_open",
                "an escalation of this line by the same rule is open",
                json!({ "escalation_id": escalation_id, "by": by, "since": since }),
            ),
            AskError::Database(error) => error.into(),
        }
    }
}

impl From<StopError> for Problem {
    fn from(error: StopError) -> Self {
        match error {
            StopError::NotFound => Self::NotFound { what: "escalation" },
            StopError::NotOpen { state, why, at } => conflict(
                "not_open",
                "the escalation is over",
                json!({ "state": state, "why": why, "at": at }),
            ),
            StopError::Database(error) => error.into(),
        }
    }
}
