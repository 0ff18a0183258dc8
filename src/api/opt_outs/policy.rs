//! `/v1/lines/{number}/opt-out-policy`: what happens when a member opts out of a number.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::auth::{Caller, scope};
use crate::ids::{Identity, PhoneNumber};
use crate::opt_out::Policy;
use crate::web::extract::{Json as Body, Path};
use crate::web::field::{Errors, Field};
use crate::web::problem::Problem;

/// The policy of a number.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "policy": "ask_supervisor", "by": "sam" }))]
pub(in crate::api) struct SetPolicy {
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
pub(in crate::api) struct PolicyBody {
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
pub(in crate::api) async fn show(
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
pub(in crate::api) async fn set(
    State(api): State<Api>,
    _: Caller<scope::TransfersSupervise>,
    Path(line): Path<PhoneNumber>,
    body: Body<SetPolicy>,
) -> Result<Json<PolicyBody>, Problem> {
    let mut errors = Errors::of_body();
    let policy = errors.required("policy", body.value.policy);
    let by = errors.required("by", body.value.by);
    let (policy, by) = errors.finish(policy.zip(by))?;
    change(&api, line, Some(policy), by.as_str()).await
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
pub(in crate::api) async fn drop_own(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(line): Path<PhoneNumber>,
) -> Result<Json<PolicyBody>, Problem> {
    change(&api, line, None, &caller.name()).await
}

async fn change(
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
