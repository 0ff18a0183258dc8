//! `/v1/erasures`: erasing a person on request, with a report that does not say who it was.

use std::collections::BTreeMap;

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
use crate::erasure::{self, Erasure, Left, NewErasure, StartError, State as Stage, Step, Upstream};
use crate::events::Via;
use crate::ids::{Identity, PhoneNumber};
use crate::person::Subject;
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Text};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A person to be erased: either a number or an identity.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "number": "+15555550101",
    "upstream": "messages",
    "asked_by": "the customer, by letter of 2026-03-01",
    "reason": "right to erasure",
}))]
pub(super) struct StartErasure {
    /// The number of a customer's handset.
    #[serde(default)]
    #[schema(value_type = Option<PhoneNumber>)]
    number: Field<PhoneNumber>,
    /// The identity of one of ours.
    #[serde(default)]
    #[schema(value_type = Option<Identity>)]
    identity: Field<Identity>,
    /// What is deleted at Twilio; `messages` where it is not given.
    #[serde(default)]
    #[schema(value_type = Option<Upstream>, inline)]
    upstream: Field<Upstream>,
    /// Who asked for it. It is kept, and must not name the person.
    #[serde(default)]
    #[schema(value_type = String, required = true, min_length = 1, max_length = 200)]
    asked_by: Field<Text<1, 200>>,
    /// Why. It is kept, and must not name the person.
    #[serde(default)]
    #[schema(value_type = String, required = true, min_length = 1, max_length = 500)]
    reason: Field<Text<1, 500>>,
}

impl StartErasure {
    fn read(self, requested_by: String) -> Result<NewErasure, Problem> {
        let mut errors = Errors::of_body();
        let number = errors.optional("number", self.number);
        let identity = errors.optional("identity", self.identity);
        let upstream = errors.optional("upstream", self.upstream);
        let asked_by = errors.required("asked_by", self.asked_by);
        let reason = errors.required("reason", self.reason);
        let subject = match (number, identity) {
            (Some(number), None) => Some(Subject::Number(number)),
            (None, Some(identity)) => Some(Subject::Identity(identity)),
            (Some(_), Some(_)) => {
                errors.add("identity", "ambiguous", "expected either `number` or `identity`");
                None
            }
            (None, None) => {
                errors.add("number", "required", "expected either `number` or `identity`");
                None
            }
        };
        let new = match (subject, asked_by, reason) {
            (Some(subject), Some(asked_by), Some(reason)) => Some(NewErasure {
                subject,
                upstream: upstream.unwrap_or(Upstream::Messages),
                asked_by: asked_by.into_string(),
                reason: reason.into_string(),
                requested_by,
                via: Via::Api,
            }),
            _ => None,
        };
        errors.finish(new)
    }
}

/// An erasure, and what came of it. Who it is about is not said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Erasure)]
pub(super) struct ErasureBody {
    erasure_id: Uuid,
    /// `number` or `identity`.
    subject_kind: String,
    #[schema(inline)]
    upstream: Upstream,
    #[schema(inline)]
    state: Stage,
    #[schema(inline)]
    step: Step,
    asked_by: String,
    reason: String,
    /// The API key, or `cli`.
    requested_by: String,
    /// Those in which the person was found.
    conversations: Vec<String>,
    /// Those of them that were left alone, because of a legal hold.
    held: Vec<String>,
    /// How much of what was erased here and, with `twilio_` before it, deleted at Twilio.
    counts: BTreeMap<String, i64>,
    /// What could not be done.
    failures: Vec<Left>,
    created_at: Timestamp,
    updated_at: Timestamp,
    finished_at: Option<Timestamp>,
    /// Set where it was given up until a person tries again.
    stalled_at: Option<Timestamp>,
}

impl From<Erasure> for ErasureBody {
    fn from(erasure: Erasure) -> Self {
        Self {
            erasure_id: erasure.erasure_id,
            subject_kind: erasure.subject_kind,
            upstream: erasure.upstream,
            state: erasure.state,
            step: erasure.step,
            asked_by: erasure.asked_by,
            reason: erasure.reason,
            requested_by: erasure.requested_by,
            conversations: erasure.conversations,
            held: erasure.held,
            counts: erasure.counts,
            failures: erasure.failures,
            created_at: erasure.created_at,
            updated_at: erasure.updated_at,
            finished_at: erasure.finished_at,
            stalled_at: erasure.stalled_at,
        }
    }
}

impl From<StartError> for Problem {
    fn from(error: StartError) -> Self {
        let detail = error.to_string();
        match error {
            StartError::OurNumber => conflict("our_number", &detail, json!({})),
            StartError::AlreadyRunning(id) => {
                conflict("erasure_running", &detail, json!({ "erasure_id": id }))
            }
            StartError::HoldsLines(conversations) => {
                conflict("holds_lines", &detail, json!({ "conversations": conversations }))
            }
            StartError::AtWork => conflict("at_work", &detail, json!({})),
            StartError::Named(member) => {
                let mut errors = Errors::of_body();
                errors.add(member, "names_the_person", detail);
                match errors.finish::<()>(None) {
                    Err(problem) => problem,
                    Ok(()) => Self::Internal,
                }
            }
            StartError::Database(error) => error.into(),
        }
    }
}

/// Erase a person
///
/// By the number of a handset, or by the identity of one of ours. It is durable work: what they wrote is deleted at Twilio
/// first, then everything that names them is erased here; a pseudonym stands in their place. Conversations under legal
/// hold are left alone. What comes of the same person later is new.
#[utoipa::path(
    post,
    path = "/v1/erasures",
    operation_id = "erase_person",
    tag = "Erasures",
    request_body = StartErasure,
    responses((status = 202, description = "Taken; `Location` names it.", body = ErasureBody)),
    security(("api_key" = ["erasures:write"])),
)]
pub(super) async fn start(
    State(api): State<Api>,
    caller: Caller<scope::ErasuresWrite>,
    Post { call, body }: Post<StartErasure>,
) -> Result<Response, Problem> {
    let new = body.read(caller.name())?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let erasure = api.erasures.start_in(first.conn(), new).await?;
            let location = format!("/v1/erasures/{}", erasure.erasure_id);
            let body = ErasureBody::from(erasure);
            first.answer(StatusCode::ACCEPTED, Some(location), &body).await
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "erasures";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListErasures {
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List erasures, newest first
#[utoipa::path(
    get,
    path = "/v1/erasures",
    operation_id = "list_erasures",
    tag = "Erasures",
    params(ListErasures),
    responses((status = 200, description = "A page of them.", body = Page<ErasureBody>)),
    security(("api_key" = ["erasures:write"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::ErasuresWrite>,
    Query(query): Query<ListErasures>,
) -> Result<Json<Page<ErasureBody>>, Problem> {
    let mut errors = Errors::of_query();
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let before = wanted.after.as_ref().map(|Place(at, id)| (at.0, *id));
    let rows = erasure::page(&mut conn, before, wanted.rows()).await?;
    let page = wanted.page(rows, |erasure| Place(At(erasure.created_at), erasure.erasure_id));
    Ok(Json(page.map(ErasureBody::from)))
}

/// Show an erasure, and what came of it
#[utoipa::path(
    get,
    path = "/v1/erasures/{erasure_id}",
    operation_id = "show_erasure",
    tag = "Erasures",
    params(("erasure_id" = Uuid, Path)),
    responses((status = 200, description = "The erasure.", body = ErasureBody)),
    security(("api_key" = ["erasures:write"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::ErasuresWrite>,
    Path(erasure_id): Path<Uuid>,
) -> Result<Json<ErasureBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let erasure = erasure::find(&mut conn, erasure_id).await?;
    let erasure = erasure.ok_or(Problem::NotFound { what: "erasure" })?;
    Ok(Json(ErasureBody::from(erasure)))
}
