//! `/v1/agents/{identity}/availability`: who takes lines.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::api::Api;
use crate::api::agents::{AgentBody, actor, body};
use crate::api::auth::{Caller, scope};
use crate::assignment;
use crate::ids::Identity;
use crate::people::{self, NewAvailability, SetAvailabilityError, Status};
use crate::web::extract::{Json as Body, Path};
use crate::web::field::{Errors, Field, Instant, Text};
use crate::web::problem::{FieldError, Problem};

/// Whether somebody takes lines, as they or somebody else say.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutAvailability, example = json!({ "status": "away", "reason": "dentist", "by": "maya" }))]
pub(super) struct PutAvailability {
    #[serde(default)]
    #[schema(value_type = Status, required = true, inline)]
    status: Field<Status>,
    /// In a few words, for colleagues; it stays out of the log. Only with `away`.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    reason: Field<Text<1, 200>>,
    /// Available again from then on, by itself. Only with `away`; null: until somebody says otherwise.
    #[serde(default)]
    #[schema(value_type = Option<Timestamp>)]
    until: Field<Instant>,
    /// Who says so.
    #[serde(default)]
    #[schema(value_type = Option<Identity>)]
    by: Field<Identity>,
}

impl PutAvailability {
    fn read(self) -> Result<NewAvailability, Problem> {
        let mut errors = Errors::of_body();
        let status = errors.required("status", self.status);
        let reason = errors.optional("reason", self.reason).map(Text::into_string);
        let until = errors.optional("until", self.until).map(|at| at.0);
        let by = errors.optional("by", self.by);
        if status == Some(Status::Available) {
            let message = "expected only with `away`";
            if reason.is_some() {
                errors.add("reason", "not_away", message);
            }
            if until.is_some() {
                errors.add("until", "not_away", message);
            }
        }
        let new = status.map(|status| NewAvailability {
            status,
            reason,
            until: until.and_then(|at| Timestamp::from_microsecond(at.as_microsecond()).ok()),
            by,
        });
        errors.finish(new)
    }
}

/// Say whether an agent takes lines
///
/// May be repeated; what is so already is left alone.
#[utoipa::path(
    put,
    path = "/v1/agents/{identity}/availability",
    operation_id = "put_availability",
    tag = "People",
    params(("identity" = Identity, Path)),
    request_body = PutAvailability,
    responses((status = 200, description = "The agent as they are now.", body = AgentBody)),
    security(("api_key" = ["people:write"])),
)]
pub(super) async fn put(
    State(api): State<Api>,
    caller: Caller<scope::PeopleWrite>,
    Path(identity): Path<Identity>,
    form: Body<PutAvailability>,
) -> Result<Json<AgentBody>, Problem> {
    let new = form.value.read()?;
    let now = api.clock.now();
    let mut conn = api.pool.acquire().await?;
    let agent = people::set_availability(&mut conn, &identity, new, &actor(&caller), now).await?;
    assignment::look_soon(&mut conn, now).await?;
    Ok(Json(body(&mut conn, agent, now).await?))
}

impl From<SetAvailabilityError> for Problem {
    fn from(error: SetAvailabilityError) -> Self {
        match error {
            SetAvailabilityError::NotFound => Self::NotFound { what: "agent" },
            SetAvailabilityError::EndPassed => {
                let message = "expected a time that has not passed";
                Self::Invalid {
                    errors: vec![FieldError::new("/until", "passed", message)],
                }
            }
            SetAvailabilityError::Database(error) => error.into(),
        }
    }
}
