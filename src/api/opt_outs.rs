//! `/v1/opt-outs`, and what becomes of them in a conversation: members who want no more messages from a number of ours.

use std::collections::HashMap;

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
use crate::api::{Api, conflict, conversations};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::opt_out::{
    self, ClearError, Concern, ConcernState, DecideError, Decision, Filter, OptOut, Policy, SetError, Source,
};
use crate::web::extract::{Json as Body, Path, Query};
use crate::web::field::{Errors, Field, Flag};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A stretch of time in which a member had opted out of a number.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OptOut)]
pub(super) struct OptOutBody {
    opt_out_id: Uuid,
    /// The number of ours.
    line: String,
    /// The member's number.
    address: String,
    since: Timestamp,
    /// They wrote it, Twilio refused to deliver to them (21610), or somebody set it.
    #[schema(inline)]
    source: Source,
    /// The SID of the message or receipt that told it, and where that was.
    evidence: Option<String>,
    conversation_sid: Option<String>,
    set_by: Option<String>,
    /// Null: it lasts.
    cleared_at: Option<Timestamp>,
    #[schema(inline)]
    cleared_source: Option<Source>,
    cleared_evidence: Option<String>,
    cleared_by: Option<String>,
    /// When we learnt of it.
    recorded_at: Timestamp,
}

impl From<OptOut> for OptOutBody {
    fn from(one: OptOut) -> Self {
        let cleared = one.cleared;
        Self {
            opt_out_id: one.opt_out_id,
            line: one.line,
            address: one.address,
            since: one.since,
            source: one.source,
            evidence: one.evidence,
            conversation_sid: one.conversation_sid,
            set_by: one.set_by,
            cleared_at: cleared.as_ref().map(|cleared| cleared.at),
            cleared_source: cleared.as_ref().map(|cleared| cleared.source),
            cleared_evidence: cleared.as_ref().and_then(|cleared| cleared.evidence.clone()),
            cleared_by: cleared.and_then(|cleared| cleared.by),
            recorded_at: one.recorded_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "opt_outs";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListOptOuts {
    /// Only those of this number of ours.
    #[serde(default)]
    #[param(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// `true`: only those that last; `false`: only those that have ended.
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

/// List opt-outs, newest first
///
/// Those that have ended too: they are the history of a member and a number.
#[utoipa::path(
    get,
    path = "/v1/opt-outs",
    operation_id = "list_opt_outs",
    tag = "Opt-outs",
    params(ListOptOuts),
    responses((status = 200, description = "A page of them.", body = Page<OptOutBody>)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Query(query): Query<ListOptOuts>,
) -> Result<Json<Page<OptOutBody>>, Problem> {
    let mut errors = Errors::of_query();
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    let filter = Filter {
        line: errors.optional("line", query.line).map(PhoneNumber::into_string),
        open: errors.optional("open", query.open).map(|flag| flag.0),
    };
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let before = wanted.after.as_ref().map(|Place(at, id)| (at.0, *id));
    let rows = opt_out::page(&mut conn, &filter, before, wanted.rows()).await?;
    let page = wanted.page(rows, |one| Place(At(one.recorded_at), one.opt_out_id));
    Ok(Json(page.map(OptOutBody::from)))
}

/// A member who is to be taken for opted out.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "line": "+15017122661", "address": "+15555550101", "by": "sam" }))]
pub(super) struct SetOptOut {
    /// The number of ours.
    #[serde(default)]
    #[schema(value_type = PhoneNumber, required = true)]
    line: Field<PhoneNumber>,
    /// The member's number.
    #[serde(default)]
    #[schema(value_type = PhoneNumber, required = true)]
    address: Field<PhoneNumber>,
    /// The person who says so.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

/// Record that a member wants no more messages from a number
///
/// As if they had written STOP, where they said it elsewhere. Twilio is not told, and delivers to them as before: what holds posts
/// back is the policy. One that lasts already is answered as it is.
#[utoipa::path(
    post,
    path = "/v1/opt-outs",
    operation_id = "set_opt_out",
    tag = "Opt-outs",
    request_body = SetOptOut,
    responses(
        (status = 200, description = "It lasts already.", body = OptOutBody),
        (status = 201, description = "It is recorded.", body = OptOutBody),
    ),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(super) async fn set(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Post { call, body }: Post<SetOptOut>,
) -> Result<Response, Problem> {
    let mut errors = Errors::of_body();
    let line = errors.required("line", body.line);
    let address = errors.required("address", body.address);
    let by = errors.required("by", body.by);
    let asked = line.zip(address).zip(by);
    let ((line, address), by) = errors.finish(asked)?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let (lasts, is_new) = api
                .opt_outs
                .set_in(first.conn(), &line, &address, by.as_str())
                .await?;
            let status = if is_new {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            first.answer(status, None, &OptOutBody::from(lasts)).await
        }
    }
}

/// Who does it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "by": "sam" }))]
pub(super) struct ClearOptOut {
    /// The person who says so.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

/// Record that a member wants messages again
///
/// Where they said so elsewhere. Twilio goes on refusing to deliver until they write START; the next refusal records it anew.
#[utoipa::path(
    post,
    path = "/v1/opt-outs/{opt_out_id}/clear",
    operation_id = "clear_opt_out",
    tag = "Opt-outs",
    params(("opt_out_id" = Uuid, Path)),
    request_body = ClearOptOut,
    responses((status = 200, description = "It has ended.", body = OptOutBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(super) async fn clear(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(opt_out_id): Path<Uuid>,
    Post { call, body }: Post<ClearOptOut>,
) -> Result<Response, Problem> {
    let mut errors = Errors::of_body();
    let by = errors.required("by", body.by);
    let by = errors.finish(by)?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let ended = api
                .opt_outs
                .clear_in(first.conn(), opt_out_id, by.as_str())
                .await?;
            first.answer(StatusCode::OK, None, &OptOutBody::from(ended)).await
        }
    }
}

/// The opt-outs of those who are in a conversation, from its numbers.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConversationOptOuts)]
pub(super) struct ConversationOptOuts {
    /// Newest first, those that have ended too; 200 at most.
    items: Vec<OptOutHere>,
}

/// An opt-out, and what became of it in this conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OptOutHere)]
pub(super) struct OptOutHere {
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
pub(super) async fn of_conversation(
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
pub(super) struct Decide {
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
pub(super) struct Decided {
    items: Vec<DecidedOne>,
}

/// What was decided of one.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OptOutDecision)]
pub(super) struct DecidedOne {
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
pub(super) async fn decide(
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

/// The policy of a number.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "policy": "ask_supervisor", "by": "sam" }))]
pub(super) struct SetPolicy {
    /// `carry_on`, `ask_supervisor` or `close`.
    #[serde(default)]
    #[schema(value_type = Policy, inline, required = true)]
    policy: Field<Policy>,
    /// The person who says so.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

/// What happens to groups of a number with a member who has opted out of it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OptOutPolicyOfLine)]
pub(super) struct PolicyBody {
    line: PhoneNumber,
    #[schema(inline)]
    policy: Policy,
    /// It is the number's own; else it is the one of its account, from the settings.
    is_own: bool,
}

/// Show what happens when a member opts out of a number
#[utoipa::path(
    get,
    path = "/v1/lines/{number}/opt-out-policy",
    operation_id = "show_opt_out_policy",
    tag = "Opt-outs",
    params(("number" = PhoneNumber, Path)),
    responses((status = 200, description = "The policy that holds.", body = PolicyBody)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn show_policy(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Path(line): Path<PhoneNumber>,
) -> Result<Json<PolicyBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let (policy, is_own) = api.opt_outs.policy(&mut conn, &line).await?;
    Ok(Json(PolicyBody { line, policy, is_own }))
}

/// Say what happens when a member opts out of a number
///
/// It holds at once, also for those who have opted out before: what is held under another policy goes on, or the groups are closed.
#[utoipa::path(
    put,
    path = "/v1/lines/{number}/opt-out-policy",
    operation_id = "set_opt_out_policy",
    tag = "Opt-outs",
    params(("number" = PhoneNumber, Path)),
    request_body = SetPolicy,
    responses((status = 200, description = "The policy that holds.", body = PolicyBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(super) async fn set_policy(
    State(api): State<Api>,
    _: Caller<scope::TransfersSupervise>,
    Path(line): Path<PhoneNumber>,
    body: Body<SetPolicy>,
) -> Result<Json<PolicyBody>, Problem> {
    let mut errors = Errors::of_body();
    let policy = errors.required("policy", body.value.policy);
    let by = errors.required("by", body.value.by);
    let (policy, by) = errors.finish(policy.zip(by))?;
    change_policy(&api, line, Some(policy), by.as_str()).await
}

/// Take the policy of a number away
///
/// Then the one of its account holds, from the settings.
#[utoipa::path(
    delete,
    path = "/v1/lines/{number}/opt-out-policy",
    operation_id = "drop_opt_out_policy",
    tag = "Opt-outs",
    params(("number" = PhoneNumber, Path)),
    responses((status = 200, description = "The policy that holds.", body = PolicyBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(super) async fn drop_policy(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(line): Path<PhoneNumber>,
) -> Result<Json<PolicyBody>, Problem> {
    change_policy(&api, line, None, &caller.name()).await
}

async fn change_policy(
    api: &Api,
    line: PhoneNumber,
    policy: Option<Policy>,
    by: &str,
) -> Result<Json<PolicyBody>, Problem> {
    let mut transaction = api.pool.begin().await?;
    let (policy, is_own) = api
        .opt_outs
        .set_policy_in(&mut transaction, &line, policy, by)
        .await?;
    transaction.commit().await?;
    Ok(Json(PolicyBody { line, policy, is_own }))
}

impl From<SetError> for Problem {
    fn from(error: SetError) -> Self {
        match error {
            SetError::LineUnknown => Self::NotFound {
                what: "number of ours",
            },
            SetError::OurNumber => Self::conflict("our_number", "the number in `address` is one of ours"),
            SetError::Database(error) => error.into(),
        }
    }
}

impl From<ClearError> for Problem {
    fn from(error: ClearError) -> Self {
        match error {
            ClearError::NotFound => Self::NotFound { what: "opt-out" },
            ClearError::Cleared { at } => conflict(
                "opt_out_not_open",
                "the member had opted in again before",
                json!({ "at": at }),
            ),
            ClearError::Database(error) => error.into(),
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
