//! `/v1/teams`: teams, their calendars, who is on call, who may be given a line.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};

use crate::api::agents::{AskedAt, UnavailableBody, actor};
use crate::api::auth::{Caller, scope};
use crate::api::{Api, conflict};
use crate::assignment;
use crate::ids::Identity;
use crate::people::form::TeamForm;
use crate::people::hours::{Holidays, Week, Zone};
use crate::people::judge::{Candidate, Needs, least_loaded};
use crate::people::rotation::Rotation;
use crate::people::{self, PutTeamError, RemoveTeamError, Slug, Team, questions};
use crate::web::extract::{Json as Body, Path, Query};
use crate::web::field::{Errors, Field, Flag, Instant};
use crate::web::page::{Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A team.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Team)]
pub(super) struct TeamBody {
    team_id: Slug,
    name: String,
    #[schema(value_type = String)]
    time_zone: Zone,
    /// The hours of each day that has some, in wall-clock time; none at all: always open.
    #[schema(value_type = Object)]
    hours: Week,
    #[schema(value_type = Vec<Object>)]
    holidays: Holidays,
    on_call: Vec<Identity>,
    #[schema(value_type = Option<Object>)]
    rotation: Option<Rotation>,
    version: i64,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl From<Team> for TeamBody {
    fn from(team: Team) -> Self {
        Self {
            team_id: team.team_id,
            name: team.plan.name,
            time_zone: team.plan.time_zone,
            hours: team.plan.hours,
            holidays: team.plan.holidays,
            on_call: team.plan.on_call,
            rotation: team.plan.rotation,
            version: team.version,
            created_at: team.created_at,
            updated_at: team.updated_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(String);

impl Key for Place {
    const LIST: &'static str = "teams";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListTeams {
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List teams
///
/// In the order of their ids. Their members are `GET /v1/agents?team=…`.
#[utoipa::path(
    get,
    path = "/v1/teams",
    operation_id = "list_teams",
    tag = "People",
    params(ListTeams),
    responses((status = 200, description = "A page of them.", body = Page<TeamBody>)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Query(query): Query<ListTeams>,
) -> Result<Json<Page<TeamBody>>, Problem> {
    let mut errors = Errors::of_query();
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let after = wanted.after.as_ref().map(|place: &Place| place.0.as_str());
    let rows = people::page_of_teams(&mut conn, after, wanted.rows()).await?;
    let page = wanted.page(rows, |team| Place(team.team_id.to_string()));
    Ok(Json(page.map(TeamBody::from)))
}

/// Show a team
#[utoipa::path(
    get,
    path = "/v1/teams/{team_id}",
    operation_id = "show_team",
    tag = "People",
    params(("team_id" = Slug, Path)),
    responses((status = 200, description = "The team.", body = TeamBody)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Path(team_id): Path<Slug>,
) -> Result<Json<TeamBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    Ok(Json(expect(&mut conn, &team_id).await?.into()))
}

pub(super) async fn expect(conn: &mut PgConnection, team_id: &Slug) -> Result<Team, Problem> {
    let team = people::find_team(conn, team_id.as_str()).await?;
    team.ok_or(Problem::NotFound { what: "team" })
}

/// Add a team, or replace what is decided about it
///
/// What is left out is none: this replaces, it does not merge. May be repeated; a team that is so already is left alone.
#[utoipa::path(
    put,
    path = "/v1/teams/{team_id}",
    operation_id = "put_team",
    tag = "People",
    params(("team_id" = Slug, Path, description = "A name of your own, like `sales`.")),
    request_body = TeamForm,
    responses(
        (status = 200, description = "The team as it is now.", body = TeamBody),
        (status = 409, description = "`version_conflict`, `on_call_unknown`.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["people:write"])),
)]
pub(super) async fn put(
    State(api): State<Api>,
    caller: Caller<scope::PeopleWrite>,
    Path(team_id): Path<Slug>,
    form: Body<TeamForm>,
) -> Result<Json<TeamBody>, Problem> {
    let (plan, replaces) = Errors::read_body(|errors| form.value.read(errors))?;
    let mut conn = api.pool.acquire().await?;
    let now = api.clock.now();
    let team = people::put_team(&mut conn, &team_id, plan, replaces, &actor(&caller), now).await?;
    assignment::look_soon(&mut conn, now).await?;
    Ok(Json(team.into()))
}

/// Remove a team that has neither members nor numbers
#[utoipa::path(
    delete,
    path = "/v1/teams/{team_id}",
    operation_id = "remove_team",
    tag = "People",
    params(("team_id" = Slug, Path)),
    responses(
        (status = 204, description = "It is removed; 404 where there was none."),
        (status = 409, description = "`team_in_use`: it has members, or numbers.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["people:write"])),
)]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller<scope::PeopleWrite>,
    Path(team_id): Path<Slug>,
) -> Result<StatusCode, Problem> {
    let mut conn = api.pool.acquire().await?;
    people::remove_team(&mut conn, &team_id, &actor(&caller), api.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Somebody who was looked at.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Candidate)]
pub(super) struct CandidateBody {
    identity: String,
    name: Option<String>,
    /// Lines held now.
    load: u32,
    capacity: Option<u32>,
    /// Why they are passed over; null: they are not.
    skipped: Option<UnavailableBody>,
}

impl From<Candidate> for CandidateBody {
    fn from(candidate: Candidate) -> Self {
        let (load, profile) = match candidate.person {
            Some(person) => (person.load, Some(person.agent.profile)),
            None => (0, None),
        };
        Self {
            identity: candidate.identity,
            capacity: profile.as_ref().and_then(|profile| profile.capacity),
            name: profile.map(|profile| profile.name),
            load,
            skipped: candidate.skipped.map(UnavailableBody::from),
        }
    }
}

/// Who is on call in a team.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = OnCall)]
pub(super) struct OnCallBody {
    team_id: Slug,
    at: Timestamp,
    /// Null: nobody is named, or all who are have left or are away.
    on_call: Option<String>,
    /// The order at that time, whose turn it is first.
    order: Vec<CandidateBody>,
    /// When the order moves on; null: it stands.
    turn_ends_at: Option<Timestamp>,
}

/// Show who is on call
///
/// The first in the order who has not left and is not away. Hours and capacity do not count.
#[utoipa::path(
    get,
    path = "/v1/teams/{team_id}/on-call",
    operation_id = "show_on_call",
    tag = "People",
    params(("team_id" = Slug, Path), AskedAt),
    responses((status = 200, description = "Who is on call.", body = OnCallBody)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn on_call(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Path(team_id): Path<Slug>,
    Query(query): Query<AskedAt>,
) -> Result<Json<OnCallBody>, Problem> {
    let at = query.read(api.clock.now())?;
    let mut conn = api.pool.acquire().await?;
    let found = questions::on_call(&mut conn, &team_id, at).await?;
    let found = found.ok_or(Problem::NotFound { what: "team" })?;
    Ok(Json(OnCallBody {
        team_id,
        at,
        on_call: found.person().map(|candidate| candidate.identity.clone()),
        order: found.order.into_iter().map(CandidateBody::from).collect(),
        turn_ends_at: found.turn_ends_at,
    }))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedCandidates {
    /// At this time; now, if not given. How many lines somebody holds is always that of now.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    at: Field<Instant>,
    /// Only somebody with this skill.
    #[serde(default)]
    #[param(value_type = Option<Slug>)]
    skill: Field<Slug>,
    /// `true`: whether the team is open does not count.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    any_hour: Field<Flag>,
}

/// Who of a team may be given a line.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Candidates)]
pub(super) struct CandidatesBody {
    team_id: Slug,
    at: Timestamp,
    /// Of those who may be given a line, the one that holds fewest; null: nobody may.
    least_loaded: Option<String>,
    candidates: Vec<CandidateBody>,
}

/// List who of a team may be given a line, and why the others may not
#[utoipa::path(
    get,
    path = "/v1/teams/{team_id}/candidates",
    operation_id = "list_candidates",
    tag = "People",
    params(("team_id" = Slug, Path), AskedCandidates),
    responses((status = 200, description = "All members.", body = CandidatesBody)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn candidates(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Path(team_id): Path<Slug>,
    Query(query): Query<AskedCandidates>,
) -> Result<Json<CandidatesBody>, Problem> {
    let mut errors = Errors::of_query();
    let at = errors
        .optional("at", query.at)
        .map_or_else(|| api.clock.now(), |at| at.0);
    let any_hour = errors
        .optional("any_hour", query.any_hour)
        .is_some_and(|flag| flag.0);
    let skill = errors.optional("skill", query.skill);
    errors.finish(Some(()))?;
    let needs = Needs {
        hours: !any_hour,
        skills: skill.into_iter().collect(),
        ..Needs::a_line()
    };
    let mut conn = api.pool.acquire().await?;
    expect(&mut conn, &team_id).await?;
    let found = questions::candidates_of_team(&mut conn, &team_id, at, &needs).await?;
    Ok(Json(CandidatesBody {
        team_id,
        at,
        least_loaded: least_loaded(&found).map(|candidate| candidate.identity.clone()),
        candidates: found.into_iter().map(CandidateBody::from).collect(),
    }))
}

impl From<PutTeamError> for Problem {
    fn from(error: PutTeamError) -> Self {
        match error {
            PutTeamError::VersionConflict(conflict) => conflict.into(),
            PutTeamError::OnCallUnknown { identities } => conflict(
                "on_call_unknown",
                "some in `on_call` are none of our agents: add them first",
                json!({ "identities": identities }),
            ),
            PutTeamError::Database(error) => error.into(),
        }
    }
}

impl From<RemoveTeamError> for Problem {
    fn from(error: RemoveTeamError) -> Self {
        match error {
            RemoveTeamError::NotFound => Self::NotFound { what: "team" },
            RemoveTeamError::InUse { members, numbers } => conflict(
                "team_in_use",
                "it has members or numbers: give them to another team first",
                json!({ "members": members, "numbers": numbers }),
            ),
            RemoveTeamError::Database(error) => error.into(),
        }
    }
}
