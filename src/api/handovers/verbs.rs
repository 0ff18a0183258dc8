//! What is done with a plan: run, pause, resume, cancel, roll back. Each answers with the plan as it is then.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::HandoverBody;
use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Call, Post};
use crate::api::{Api, conflict};
use crate::events::Via;
use crate::handover::{self, By, HandoverError, Verb};
use crate::ids::Identity;
use crate::web::extract::Path;
use crate::web::field::{Errors, Field};
use crate::web::problem::Problem;

/// Who does it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "by": "sam" }))]
pub(in crate::api) struct HandoverVerb {
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

impl From<HandoverError> for Problem {
    fn from(error: HandoverError) -> Self {
        let code = error.code();
        match error {
            HandoverError::NotFound => Self::NotFound { what: "handover" },
            HandoverError::WrongState {
                state,
                direction,
                by,
                since,
            } => conflict(
                code,
                "the plan is not in a state for that",
                json!({ "state": state, "direction": direction, "by": by, "since": since }),
            ),
            HandoverError::StillPlanning {
                in_doubt,
                waiting_error,
            } => conflict(
                code,
                "the lines are still being looked for: ask again when the plan is a `draft`",
                json!({ "in_doubt": in_doubt, "waiting_error": waiting_error }),
            ),
            HandoverError::AnotherAtWork { handover_id } => conflict(
                code,
                "another plan of the same person is running or paused: let it end, or cancel it",
                json!({ "handover_id": handover_id }),
            ),
            HandoverError::ReturnPassed { at } => conflict(
                code,
                "the day of the return has passed: make another plan",
                json!({ "return_at": at }),
            ),
            HandoverError::LeaverGone => Self::conflict(
                code,
                "the leaver was erased, or was removed from the people and cannot be set away or as having left: add them again, or make another plan",
            ),
            HandoverError::Database(error) => error.into(),
        }
    }
}

async fn act(
    api: &Api,
    caller: &Caller<scope::TransfersSupervise>,
    call: Call,
    handover_id: Uuid,
    verb: Verb,
    body: HandoverVerb,
) -> Result<Response, Problem> {
    let mut errors = Errors::of_body();
    let by = errors.required("by", body.by);
    let by = errors.finish(by)?;
    let mut first = match call.begin(api, caller).await? {
        Begun::Again(answer) => return Ok(answer),
        Begun::First(first) => first,
    };
    let by = by_api(&by);
    match api.handovers.act_in(first.conn(), handover_id, verb, by).await {
        Ok(plan) => {
            first
                .answer(StatusCode::OK, None, &HandoverBody::from(plan))
                .await
        }
        Err(error) => {
            drop(first);
            let subject = handover_id.to_string();
            Err(on_record(api, verb.as_str(), &subject, by, error.into()).await)
        }
    }
}

pub(super) fn by_api(by: &Identity) -> By<'_> {
    By {
        name: by.as_str(),
        via: Via::Api,
    }
}

/// Writes down that somebody was refused what they asked for, since the state of things does not allow it. That it cannot
/// be written down is no reason to answer otherwise.
pub(super) async fn on_record(
    api: &Api,
    verb: &'static str,
    subject: &str,
    by: By<'_>,
    problem: Problem,
) -> Problem {
    let Problem::Conflict { code, .. } = &problem else {
        return problem;
    };
    let written = match api.pool.acquire().await {
        Ok(mut conn) => {
            let now = api.clock.now();
            handover::tell_refused(&mut conn, verb, subject, by, code, now).await
        }
        Err(error) => Err(error),
    };
    if let Err(error) = written {
        tracing::warn!(
            error = &error as &dyn std::error::Error,
            "a refusal about a handover was not written down"
        );
    }
    problem
}

/// Run a draft: its lines are handed over from now on, at the rate of the plan
#[utoipa::path(
    post,
    path = "/v1/handovers/{handover_id}/run",
    operation_id = "run_handover",
    tag = "Handovers",
    params(("handover_id" = Uuid, Path)),
    request_body = HandoverVerb,
    responses((status = 200, description = "It runs.", body = HandoverBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn run(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(handover_id): Path<Uuid>,
    Post { call, body }: Post<HandoverVerb>,
) -> Result<Response, Problem> {
    act(&api, &caller, call, handover_id, Verb::Run, body).await
}

/// Pause a plan that runs, out or back: no further line begins; transfers that are under way come to their ends
#[utoipa::path(
    post,
    path = "/v1/handovers/{handover_id}/pause",
    operation_id = "pause_handover",
    tag = "Handovers",
    params(("handover_id" = Uuid, Path)),
    request_body = HandoverVerb,
    responses((status = 200, description = "It is paused.", body = HandoverBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn pause(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(handover_id): Path<Uuid>,
    Post { call, body }: Post<HandoverVerb>,
) -> Result<Response, Problem> {
    act(&api, &caller, call, handover_id, Verb::Pause, body).await
}

/// Resume a paused plan where it was; nothing comes in a burst
#[utoipa::path(
    post,
    path = "/v1/handovers/{handover_id}/resume",
    operation_id = "resume_handover",
    tag = "Handovers",
    params(("handover_id" = Uuid, Path)),
    request_body = HandoverVerb,
    responses((status = 200, description = "It runs.", body = HandoverBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn resume(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(handover_id): Path<Uuid>,
    Post { call, body }: Post<HandoverVerb>,
) -> Result<Response, Problem> {
    act(&api, &caller, call, handover_id, Verb::Resume, body).await
}

/// Cancel a plan, its return on the day included: what was handed over stays so
#[utoipa::path(
    post,
    path = "/v1/handovers/{handover_id}/cancel",
    operation_id = "cancel_handover",
    tag = "Handovers",
    params(("handover_id" = Uuid, Path)),
    request_body = HandoverVerb,
    responses((status = 200, description = "It is cancelled.", body = HandoverBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn cancel(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(handover_id): Path<Uuid>,
    Post { call, body }: Post<HandoverVerb>,
) -> Result<Response, Problem> {
    act(&api, &caller, call, handover_id, Verb::Cancel, body).await
}

/// Roll a plan back: what it handed over goes back by transfers, where it is still with whom it was given to
#[utoipa::path(
    post,
    path = "/v1/handovers/{handover_id}/roll-back",
    operation_id = "roll_back_handover",
    tag = "Handovers",
    params(("handover_id" = Uuid, Path)),
    request_body = HandoverVerb,
    responses((status = 200, description = "Lines go back from now on.", body = HandoverBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn roll_back(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(handover_id): Path<Uuid>,
    Post { call, body }: Post<HandoverVerb>,
) -> Result<Response, Problem> {
    act(&api, &caller, call, handover_id, Verb::RollBack, body).await
}
