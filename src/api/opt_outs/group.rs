//! `/v1/conversations/{conversation_sid}/opt-outs`: who of a group has opted out, and deciding whether it is written to.

use std::collections::HashMap;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;
use uuid::Uuid;

use super::OptOutBody;
use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Post};
use crate::api::{Api, conflict, conversations};
use crate::ids::{ConversationSid, Identity};
use crate::opt_out::{self, Concern, ConcernState, DecideError, Decision, OptOut, Policy};
use crate::web::extract::Path;
use crate::web::field::{Errors, Field};
use crate::web::problem::Problem;

/// The opt-outs of those who are in a conversation, from its numbers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConversationOptOuts)]
pub(in crate::api) struct ConversationOptOuts {
    /// Newest first, those that have ended too; 200 at most.
    items: Vec<OptOutHere>,
}

/// An opt-out, and what became of it in this conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OptOutHere)]
pub(in crate::api) struct OptOutHere {
    #[serde(flatten)]
    opt_out: OptOutBody,
    /// The policy by which something became of it; null: not yet.
    #[schema(inline)]
    policy: Option<Policy>,
    #[schema(inline)]
    state: Option<ConcernState>,
    /// The supervisor who decided.
    decided_by: Option<String>,
    decided_at: Option<Timestamp>,
}

impl OptOutHere {
    fn new(one: OptOut, concern: Option<Concern>) -> Self {
        Self {
            opt_out: one.into(),
            policy: concern.as_ref().map(|concern| concern.policy),
            state: concern.as_ref().map(|concern| concern.state),
            decided_at: concern.as_ref().and_then(|concern| concern.decided_at),
            decided_by: concern.and_then(|concern| concern.decided_by),
        }
    }
}

/// Show who of a conversation has opted out of its numbers
///
/// `state` says what became of it here: `warned`, `held` until a supervisor decides, `allowed`, `stopped`, `closing`, `closed`,
/// `close_failed`, `over`.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/opt-outs",
    operation_id = "show_opt_outs_of_conversation",
    tag = "Opt-outs",
    params(("conversation_sid" = ConversationSid, Path)),
    responses((status = 200, description = "All of them.", body = ConversationOptOuts)),
    security(("api_key" = ["conversations:read"])),
)]
pub(in crate::api) async fn of_conversation(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Path(sid): Path<ConversationSid>,
) -> Result<Json<ConversationOptOuts>, Problem> {
    let mut conn = api.pool.acquire().await?;
    conversations::expect(&mut conn, &sid).await?;
    let mut concerns: HashMap<Uuid, Concern> = opt_out::concerns_of(&mut conn, sid.as_str())
        .await?
        .into_iter()
        .map(|concern| (concern.opt_out_id, concern))
        .collect();
    let all = opt_out::of_conversation(&mut conn, sid.as_str()).await?;
    let items = all.into_iter().map(|one| {
        let concern = concerns.remove(&one.opt_out_id);
        OptOutHere::new(one, concern)
    });
    Ok(Json(ConversationOptOuts {
        items: items.collect(),
    }))
}

/// What a supervisor decides.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "decision": "allow", "by": "sam" }))]
pub(in crate::api) struct Decide {
    /// `allow`: the others are written to, and what was held is sent. `stop`: nothing is posted, and what was held fails.
    #[serde(default)]
    #[schema(value_type = Decision, inline, required = true)]
    decision: Field<Decision>,
    /// The supervisor.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

/// What was decided, of each member who has opted out.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OptOutDecisions)]
pub(in crate::api) struct Decided {
    items: Vec<DecidedOne>,
}

/// What was decided of one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OptOutDecision)]
pub(in crate::api) struct DecidedOne {
    opt_out_id: Uuid,
    #[schema(inline)]
    state: ConcernState,
    decided_by: Option<String>,
    decided_at: Option<Timestamp>,
}

impl From<Concern> for DecidedOne {
    fn from(concern: Concern) -> Self {
        Self {
            opt_out_id: concern.opt_out_id,
            state: concern.state,
            decided_by: concern.decided_by,
            decided_at: concern.decided_at,
        }
    }
}

/// Decide whether a group is written to of which a member has opted out
///
/// Where the policy is `ask_supervisor`. It holds for those who have opted out by now; another opt-out asks anew. May be decided
/// otherwise later.
#[utoipa::path(
    post,
    path = "/v1/conversations/{conversation_sid}/opt-outs/decision",
    operation_id = "decide_opt_outs",
    tag = "Opt-outs",
    params(("conversation_sid" = ConversationSid, Path)),
    request_body = Decide,
    responses((status = 200, description = "It is decided.", body = Decided)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn decide(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(sid): Path<ConversationSid>,
    Post { call, body }: Post<Decide>,
) -> Result<Response, Problem> {
    let mut errors = Errors::of_body();
    let decision = errors.required("decision", body.decision);
    let by = errors.required("by", body.by);
    let (decision, by) = errors.finish(decision.zip(by))?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let decided = api
                .opt_outs
                .decide_in(first.conn(), &sid, decision, by.as_str())
                .await?;
            let body = Decided {
                items: decided.into_iter().map(DecidedOne::from).collect(),
            };
            first.answer(StatusCode::OK, None, &body).await
        }
    }
}

impl From<DecideError> for Problem {
    fn from(error: DecideError) -> Self {
        match error {
            DecideError::ConversationNotFound => Self::NotFound { what: "conversation" },
            DecideError::NothingOpen => Self::conflict(
                "opt_out_not_open",
                "nobody in the conversation has opted out of its numbers",
            ),
            DecideError::NotAsked { policy } => conflict(
                "nothing_to_decide",
                "the policy of the number asks for no decision",
                json!({ "policy": policy }),
            ),
            DecideError::Database(error) => error.into(),
        }
    }
}
