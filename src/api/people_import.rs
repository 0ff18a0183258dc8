//! `/v1/people`: bringing agents in from a CSV file, and writing them out.

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::api::Api;
use crate::api::agents::actor;
use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, PostCsv};
use crate::assignment;
use crate::ids::Identity;
use crate::people::import::plan::{Plan, Totals};
use crate::people::import::{self, Absent, ImportError, Wanted, Wrong, table};
use crate::web::extract::Query;
use crate::web::field::{Errors, Field, Flag};
use crate::web::problem::{FieldError, Problem};

/// An answer names so many wrong places; a file that has more is wrong in all of it.
const ERRORS_MAX: usize = 500;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ImportAgents {
    /// `true`: only say what would change.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    dry_run: Field<Flag>,
    /// What becomes of agents that the file does not name: `leave` them as they are (if not given), or `deactivate`: they have
    /// left, as of now.
    #[serde(default)]
    #[param(value_type = Option<Absent>, inline)]
    absent: Field<Absent>,
}

/// What an import did, or would do.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Import)]
pub(super) struct ImportBody {
    dry_run: bool,
    totals: Totals,
    /// In the order of the file; then those who are absent from it.
    changes: Vec<ImportChange>,
}

/// An agent who was not as the file has them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ImportChange)]
pub(super) struct ImportChange {
    identity: Identity,
    /// `added`, `changed` or `deactivated`.
    change: &'static str,
    /// Each member that differs, with what it was (`from`) and is (`to`).
    #[schema(value_type = Object)]
    changes: Value,
}

impl ImportBody {
    fn new(plan: Plan, dry_run: bool) -> Self {
        let totals = plan.totals();
        let changes = plan.agents.into_iter().map(|step| ImportChange {
            changes: step.differences(),
            change: match (&step.before, step.is_absent) {
                (_, true) => "deactivated",
                (Some(_), false) => "changed",
                (None, false) => "added",
            },
            identity: step.after.identity,
        });
        Self {
            dry_run,
            totals,
            changes: changes.collect(),
        }
    }
}

/// Bring agents in from a CSV file
///
/// Its first line names the columns, see docs/PEOPLE.md. One wrong place, and nothing is changed: every one is named, with its line and
/// column. What a column that is left out says of agents stays as it is.
#[utoipa::path(
    post,
    path = "/v1/people/import",
    operation_id = "import_people",
    tag = "People",
    params(ImportAgents),
    request_body(content = String, content_type = "text/csv", example = "identity,name,capacity\nmaya,Maya Lopez,20\n"),
    responses(
        (status = 200, description = "What was done.", body = ImportBody),
        (status = 413, description = "The file is larger than 1 MiB.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 415, description = "The body is not `text/csv`.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["people:write"])),
)]
pub(super) async fn import(
    State(api): State<Api>,
    caller: Caller<scope::PeopleWrite>,
    Query(query): Query<ImportAgents>,
    PostCsv { call, csv }: PostCsv,
) -> Result<Response, Problem> {
    let mut errors = Errors::of_query();
    let dry_run = errors
        .optional("dry_run", query.dry_run)
        .is_some_and(|flag| flag.0);
    let absent = errors.optional("absent", query.absent).unwrap_or_default();
    errors.finish(Some(()))?;
    let wanted = Wanted {
        agents: Some(table::read(&csv).map_err(refused)?),
        teams: None,
        absent,
    };
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let now = api.clock.now();
            let plan = import::import(first.conn(), &wanted, dry_run, &actor(&caller), now).await?;
            if !dry_run {
                assignment::look_soon(first.conn(), now).await?;
            }
            first
                .answer(StatusCode::OK, None, &ImportBody::new(plan, dry_run))
                .await
        }
    }
}

/// Write all agents as a CSV file
///
/// In the form that the import takes: to bring it in again changes nothing. Availability is not in it.
#[utoipa::path(
    get,
    path = "/v1/people/export",
    operation_id = "export_people",
    tag = "People",
    responses((status = 200, description = "The file.", body = String, content_type = "text/csv")),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn export(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
) -> Result<Response, Problem> {
    let mut conn = api.pool.acquire().await?;
    let (agents, _) = import::everybody(&mut conn).await?;
    let file = table::write(&agents).map_err(|_| Problem::Internal)?;
    let mut response = Response::new(Body::from(file));
    let media_type = HeaderValue::from_static("text/csv; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    Ok(response)
}

impl From<ImportError> for Problem {
    fn from(error: ImportError) -> Self {
        match error {
            ImportError::Refused(found) => refused(found),
            ImportError::Database(error) => error.into(),
        }
    }
}

fn refused(found: Vec<Wrong>) -> Problem {
    let more = found.len().saturating_sub(ERRORS_MAX);
    let mut errors: Vec<FieldError> = found
        .into_iter()
        .take(ERRORS_MAX)
        .map(|wrong| {
            let line = wrong.line.map(|line| format!("line {line}")).unwrap_or_default();
            let comma = if line.is_empty() || wrong.place.is_empty() {
                ""
            } else {
                ", "
            };
            FieldError::new(format!("{line}{comma}{}", wrong.place), "wrong", wrong.problem)
        })
        .collect();
    if more > 0 {
        errors.push(FieldError::new("", "more", format!("and {more} more places")));
    }
    Problem::Invalid { errors }
}
