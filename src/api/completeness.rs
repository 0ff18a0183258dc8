//! `/v1/mirror/completeness` and `/v1/conversations/{conversation_sid}/completeness`: how far the mirror is verified.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::Api;
use crate::api::auth::{Caller, scope};
use crate::ids::ConversationSid;
use crate::sweep::completeness::{self, OfConversation, Total};
use crate::web::extract::{Path, Query};
use crate::web::problem::Problem;

/// How far the mirror is verified in all.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MirrorCompleteness)]
pub(super) struct TotalBody {
    /// As of when this was counted: a few seconds ago at most.
    as_of: Timestamp,
    #[serde(flatten)]
    total: Total,
}

/// Neither takes a parameter.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

/// Show how complete the mirror is
///
/// Conversations that Twilio no longer has are left out of the counts: nothing can be missing of them. `unverified_since`
/// is where the oldest unverified span begins. Counted anew every few seconds at most, however often it is asked for.
#[utoipa::path(
    get,
    path = "/v1/mirror/completeness",
    operation_id = "show_mirror_completeness",
    tag = "Health",
    responses((status = 200, description = "All conversations together, and the sweeps of each account.", body = TotalBody)),
    security(("api_key" = ["health:read"])),
)]
pub(super) async fn total(
    State(api): State<Api>,
    _: Caller<scope::HealthRead>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<TotalBody>, Problem> {
    let reading = api.completeness.read().await?;
    Ok(Json(TotalBody {
        as_of: reading.read_at,
        total: Total::clone(&reading.total),
    }))
}

/// Show how far a conversation is verified
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/completeness",
    operation_id = "show_conversation_completeness",
    tag = "Health",
    params(("conversation_sid" = ConversationSid, Path)),
    responses((status = 200, description = "When it was last compared with Twilio, by what, and what that found.", body = OfConversation)),
    security(("api_key" = ["health:read"])),
)]
pub(super) async fn of_conversation(
    State(api): State<Api>,
    _: Caller<scope::HealthRead>,
    Path(sid): Path<ConversationSid>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<OfConversation>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let known = completeness::of_conversation(&mut conn, &sid).await?;
    known.map(Json).ok_or(Problem::NotFound { what: "conversation" })
}
