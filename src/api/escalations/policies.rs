//! `/v1/escalation-policies`: what is decided, in versions.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::api::Api;
use crate::api::agents::{actor, version_conflict};
use crate::api::auth::{Caller, scope};
use crate::escalation::{self, PutPolicyError, RemovePolicyError, StoredPolicy};
use crate::people::Slug;
use crate::web::extract::{Json as Body, Path, Query};
use crate::web::field::{Errors, Field, Flag, Number};
use crate::web::page::{Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// What happens to a line on which something is amiss; see docs/ESCALATION.md.
#[derive(ToSchema)]
#[schema(as = PutEscalationPolicy, example = json!({
    "name": "Nobody waits",
    "rules": [{
        "name": "slow-answer",
        "when": { "no_answer": "15m" },
        "steps": [
            { "how": "nudge", "to": "holder", "for": "5m" },
            { "how": "offer", "to": "backup", "for": "10m" },
            { "how": "force", "to": "supervisor", "for": "10m" },
        ],
        "then": "needs_person",
    }],
}))]
#[expect(dead_code, reason = "only for the document: it is read member by member")]
pub(in crate::api) struct PolicyForm {
    #[schema(min_length = 1, max_length = 100)]
    name: String,
    /// `true`, if not given. A policy that is off begins nothing; it can be tried.
    enabled: Option<bool>,
    /// `{"teams": ["sales"], "lines": ["+15017122661"]}`; every line, if not given. Of several policies that fit a line, the
    /// one for the line counts, then the one for the team of its holder, then the first by its id.
    #[schema(value_type = Option<Object>)]
    applies_to: Option<Value>,
    /// 1 to 20: each with `name`, `when`, `hours`, `answer_stops`, `steps` and `then`.
    #[schema(value_type = Vec<Object>, min_items = 1, max_items = 20)]
    rules: Vec<Value>,
}

/// A policy.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EscalationPolicy)]
pub(in crate::api) struct PolicyBody {
    policy_id: Slug,
    version: i64,
    enabled: bool,
    /// What happened before is none of its business; null: it is off.
    enabled_since: Option<Timestamp>,
    /// As it was written.
    #[schema(value_type = Object)]
    document: Value,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<StoredPolicy> for PolicyBody {
    fn from(stored: StoredPolicy) -> Self {
        Self {
            policy_id: stored.policy_id,
            version: stored.version,
            enabled: stored.policy.enabled,
            enabled_since: stored.enabled_since,
            document: stored.document,
            created_at: stored.created_at,
            updated_at: stored.updated_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(in crate::api) struct PolicyPlace(String);

impl Key for PolicyPlace {
    const LIST: &'static str = "escalation_policies";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ListPolicies {
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<PolicyPlace>>,
}

/// List escalation policies
///
/// In the order of their ids.
#[utoipa::path(
    get,
    path = "/v1/escalation-policies",
    operation_id = "list_escalation_policies",
    tag = "Escalations",
    params(ListPolicies),
    responses((status = 200, description = "A page of them.", body = Page<PolicyBody>)),
    security(("api_key" = ["escalations:read"])),
)]
pub(in crate::api) async fn list_policies(
    State(api): State<Api>,
    _: Caller<scope::EscalationsRead>,
    Query(query): Query<ListPolicies>,
) -> Result<Json<Page<PolicyBody>>, Problem> {
    let mut errors = Errors::of_query();
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let after = wanted.after.as_ref().map(|place: &PolicyPlace| place.0.as_str());
    let rows = escalation::policies(&mut conn, after, wanted.rows()).await?;
    let page = wanted.page(rows, |one| PolicyPlace(one.policy_id.to_string()));
    Ok(Json(page.map(PolicyBody::from)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ShowPolicy {
    /// This version instead of the newest, also of a policy that was removed.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    version: Field<Number<1, { i32::MAX as u32 }>>,
}

/// A policy, or a version that it had.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EscalationPolicyVersion)]
#[serde(untagged)]
pub(in crate::api) enum ShownPolicy {
    Newest(PolicyBody),
    Version {
        policy_id: Slug,
        version: i64,
        #[schema(value_type = Object)]
        document: Value,
        /// The API key, or `cli`.
        created_by: String,
        created_at: Timestamp,
    },
}

/// Show an escalation policy, or one of its versions
#[utoipa::path(
    get,
    path = "/v1/escalation-policies/{policy_id}",
    operation_id = "show_escalation_policy",
    tag = "Escalations",
    params(("policy_id" = Slug, Path), ShowPolicy),
    responses((status = 200, description = "The policy.", body = ShownPolicy)),
    security(("api_key" = ["escalations:read"])),
)]
pub(in crate::api) async fn show_policy(
    State(api): State<Api>,
    _: Caller<scope::EscalationsRead>,
    Path(policy_id): Path<Slug>,
    Query(query): Query<ShowPolicy>,
) -> Result<Json<ShownPolicy>, Problem> {
    let mut errors = Errors::of_query();
    let version = errors.optional("version", query.version);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let missing = || Problem::NotFound {
        what: "escalation policy",
    };
    let Some(version) = version.map(|version| i64::from(version.0)) else {
        let found = escalation::find_policy(&mut conn, policy_id.as_str()).await?;
        return Ok(Json(ShownPolicy::Newest(found.ok_or_else(missing)?.into())));
    };
    let found = escalation::document_of(&mut conn, policy_id.as_str(), version).await?;
    let (document, created_by, created_at) = found.ok_or_else(missing)?;
    Ok(Json(ShownPolicy::Version {
        policy_id,
        version,
        document,
        created_by,
        created_at,
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct PutPolicy {
    /// The version that you have seen, 0 for none: if another one stands that differs, nothing is changed (409).
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    version: Field<Number<0, { i32::MAX as u32 }>>,
    /// `true`: only what is wrong with it is told, and nothing changed.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    dry_run: Field<Flag>,
}

/// Set an escalation policy: a new version of it
///
/// Everything that is wrong with it is told at once, each with its place. What is open goes on under the version with which
/// it began; a policy that is switched off stops what is open under it. May be repeated; a policy that is so already is left
/// alone.
#[utoipa::path(
    put,
    path = "/v1/escalation-policies/{policy_id}",
    operation_id = "put_escalation_policy",
    tag = "Escalations",
    params(("policy_id" = Slug, Path, description = "A name of your own, like `sales`."), PutPolicy),
    request_body = PolicyForm,
    responses(
        (status = 200, description = "The policy as it is now, or would be.", body = PolicyBody),
        (status = 409, description = "`version_conflict`.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["escalation_policies:write"])),
)]
pub(in crate::api) async fn put_policy(
    State(api): State<Api>,
    caller: Caller<scope::EscalationPoliciesWrite>,
    Path(policy_id): Path<Slug>,
    Query(query): Query<PutPolicy>,
    document: Body<Value>,
) -> Result<Json<PolicyBody>, Problem> {
    let mut errors = Errors::of_query();
    let replaces = errors.optional("version", query.version);
    let dry_run = errors
        .optional("dry_run", query.dry_run)
        .is_some_and(|flag| flag.0);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let stored = escalation::put_policy(
        &mut conn,
        &policy_id,
        &document.value,
        replaces.map(|version| i64::from(version.0)),
        dry_run,
        &actor(&caller),
        api.clock.now(),
    )
    .await?;
    Ok(Json(stored.into()))
}

/// Remove an escalation policy
///
/// What is open under it stops. Its versions can still be shown, for what came of them.
#[utoipa::path(
    delete,
    path = "/v1/escalation-policies/{policy_id}",
    operation_id = "remove_escalation_policy",
    tag = "Escalations",
    params(("policy_id" = Slug, Path)),
    responses((status = 204, description = "It is removed; 404 where there was none.")),
    security(("api_key" = ["escalation_policies:write"])),
)]
pub(in crate::api) async fn remove_policy(
    State(api): State<Api>,
    caller: Caller<scope::EscalationPoliciesWrite>,
    Path(policy_id): Path<Slug>,
) -> Result<StatusCode, Problem> {
    let mut conn = api.pool.acquire().await?;
    escalation::remove_policy(&mut conn, &policy_id, &actor(&caller), api.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<PutPolicyError> for Problem {
    fn from(error: PutPolicyError) -> Self {
        match error {
            PutPolicyError::Invalid(errors) => Self::Invalid { errors },
            PutPolicyError::VersionConflict { version, updated_at } => version_conflict(version, updated_at),
            PutPolicyError::Database(error) => error.into(),
        }
    }
}

impl From<RemovePolicyError> for Problem {
    fn from(error: RemovePolicyError) -> Self {
        match error {
            RemovePolicyError::NotFound => Self::NotFound {
                what: "escalation policy",
            },
            RemovePolicyError::Database(error) => error.into(),
        }
    }
}
