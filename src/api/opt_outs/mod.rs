//! `/v1/opt-outs`: members who want no more messages from a number of ours. What becomes of it in a conversation is in
//! [`group`], what is to become of it in [`policy`].

pub(super) mod group;
pub(super) mod policy;

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
use crate::ids::{Identity, PhoneNumber};
use crate::opt_out::{self, ClearError, Filter, OptOut, SetError, Source};
use crate::web::extract::{Path, Query};
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
        // In a URL no member is named.
        address: None,
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
