//! `/v1/agents`: our people, and identities at Twilio that are none of ours.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::api::auth::{Caller, scope};
use crate::api::{Api, conflict};
use crate::assignment;
use crate::events::Via;
use crate::ids::Identity;
use crate::ledger;
use crate::people::form::AgentForm;
use crate::people::judge::{Needs, Person, Unavailable, judge};
use crate::people::{
    self, Actor, Filter, PutAgentError, RemoveAgentError, Slug, Status, VersionConflict, questions,
};
use crate::web::extract::{Json as Body, Path, Query};
use crate::web::field::{Errors, Field, Flag, Instant};
use crate::web::page::{Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// Somebody of ours, or an identity at Twilio that is unknown here.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Agent)]
pub(super) struct AgentBody {
    identity: String,
    /// False: the identity is in a conversation or holds a line, and nobody has said who it is. Then there is no more to tell
    /// than what it holds.
    known: bool,
    name: Option<String>,
    team: Option<Slug>,
    supervisor: Option<Identity>,
    /// Who looks after their lines when they do not answer.
    backup: Option<Identity>,
    skills: Vec<Slug>,
    /// Lines held at once; null: as many as come.
    capacity: Option<u32>,
    /// Lines held now.
    load: u32,
    left_at: Option<Timestamp>,
    availability: Option<AvailabilityBody>,
    /// Why they are given no line now; null: they may be.
    unavailable: Option<UnavailableBody>,
    /// Grows by one with each change, other than of the availability.
    version: Option<i64>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
}

/// Whether somebody takes lines.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Availability)]
pub(super) struct AvailabilityBody {
    #[schema(inline)]
    status: Status,
    reason: Option<String>,
    /// Away until then, and available again after it. Null: until somebody says otherwise.
    until: Option<Timestamp>,
    since: Timestamp,
    /// The identity or API key that said so; null: nobody did, or their time away has passed.
    set_by: Option<String>,
}

/// Why somebody cannot be given a line.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Unavailable)]
pub(super) struct UnavailableBody {
    /// `unknown`, `left`, `lacks_skill`, `away`, `outside_hours`, `at_capacity`: of several, the one that stays longest.
    code: &'static str,
    detail: String,
    /// When it ends by itself, where that is known.
    until: Option<Timestamp>,
}

impl From<Unavailable> for UnavailableBody {
    fn from(reason: Unavailable) -> Self {
        Self {
            code: reason.code(),
            detail: reason.detail(),
            until: reason.until(),
        }
    }
}

impl AgentBody {
    fn known(person: Person, at: Timestamp) -> Self {
        let unavailable = judge(Some(&person), at, &Needs::a_line());
        let availability = person.agent.availability.at(at);
        let agent = person.agent;
        Self {
            identity: agent.identity.into_string(),
            known: true,
            name: Some(agent.profile.name),
            team: agent.profile.team,
            supervisor: agent.profile.supervisor,
            backup: agent.profile.backup,
            skills: agent.profile.skills.into_iter().collect(),
            capacity: agent.profile.capacity,
            load: person.load,
            left_at: agent.profile.left_at,
            availability: Some(AvailabilityBody {
                status: availability.status,
                reason: availability.reason,
                until: availability.until,
                since: availability.since,
                set_by: availability.set_by,
            }),
            unavailable: unavailable.map(UnavailableBody::from),
            version: Some(agent.version),
            created_at: Some(agent.created_at),
            updated_at: Some(agent.updated_at),
        }
    }

    fn unknown(identity: String, load: u32) -> Self {
        Self {
            identity,
            known: false,
            name: None,
            team: None,
            supervisor: None,
            backup: None,
            skills: Vec::new(),
            capacity: None,
            load,
            left_at: None,
            availability: None,
            unavailable: Some(Unavailable::Unknown.into()),
            version: None,
            created_at: None,
            updated_at: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(String);

impl Key for Place {
    const LIST: &'static str = "agents";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListAgents {
    /// `false`: only identities that appear at Twilio and are unknown here; `true`: only agents. Left out: both.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    known: Field<Flag>,
    /// Only the members of this team.
    #[serde(default)]
    #[param(value_type = Option<Slug>)]
    team: Field<Slug>,
    /// Only those whose supervisor this is.
    #[serde(default)]
    #[param(value_type = Option<Identity>)]
    supervisor: Field<Identity>,
    /// Only those with this skill.
    #[serde(default)]
    #[param(value_type = Option<Slug>)]
    skill: Field<Slug>,
    /// `true`: only those who have left; `false`: only those who have not.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    left: Field<Flag>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List agents, and who is at Twilio without being one
///
/// In the order of their identities. An identity that is in a conversation or holds a line and is unknown here is listed with
/// `known: false`, unless the list is narrowed to a team, a supervisor, a skill or to who has left.
#[utoipa::path(
    get,
    path = "/v1/agents",
    operation_id = "list_agents",
    tag = "People",
    params(ListAgents),
    responses((status = 200, description = "A page of them.", body = Page<AgentBody>)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Query(query): Query<ListAgents>,
) -> Result<Json<Page<AgentBody>>, Problem> {
    let mut errors = Errors::of_query();
    let filter = Filter {
        known: errors.optional("known", query.known).map(|flag| flag.0),
        team: errors.optional("team", query.team),
        supervisor: errors.optional("supervisor", query.supervisor),
        skill: errors.optional("skill", query.skill),
        left: errors.optional("left", query.left).map(|flag| flag.0),
    };
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let now = api.clock.now();
    let mut conn = api.pool.acquire().await?;
    let after = wanted.after.as_ref().map(|place: &Place| place.0.as_str());
    let rows = people::page_of_agents(&mut conn, &filter, after, now, wanted.rows()).await?;
    let page = wanted.page(rows, |row| Place(row.identity.clone()));
    let unknown: Vec<&str> = page
        .items
        .iter()
        .filter(|row| row.agent.is_none())
        .map(|row| row.identity.as_str())
        .collect();
    let loads = ledger::loads(&mut conn, &unknown).await?;
    let agents = page.items.iter().filter_map(|row| row.agent.clone()).collect();
    let mut people = questions::people(&mut conn, agents).await?.into_iter();
    Ok(Json(page.map(|row| {
        if let Some(person) = row.agent.and_then(|_| people.next()) {
            AgentBody::known(person, now)
        } else {
            let load = loads.get(&row.identity).copied().unwrap_or(0);
            AgentBody::unknown(row.identity, load)
        }
    })))
}

/// Show an agent
///
/// Also an identity that appears at Twilio and is unknown here, with `known: false`.
#[utoipa::path(
    get,
    path = "/v1/agents/{identity}",
    operation_id = "show_agent",
    tag = "People",
    params(("identity" = Identity, Path)),
    responses((status = 200, description = "The agent.", body = AgentBody)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Path(identity): Path<Identity>,
) -> Result<Json<AgentBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let found = people::find_agent(&mut conn, identity.as_str()).await?;
    if let Some(agent) = found {
        return Ok(Json(body(&mut conn, agent, api.clock.now()).await?));
    }
    if !people::is_seen(&mut conn, identity.as_str()).await? {
        return Err(Problem::NotFound { what: "agent" });
    }
    let loads = ledger::loads(&mut conn, &[identity.as_str()]).await?;
    let load = loads.get(identity.as_str()).copied().unwrap_or(0);
    Ok(Json(AgentBody::unknown(identity.into_string(), load)))
}

pub(super) async fn body(
    conn: &mut sqlx::PgConnection,
    agent: people::Agent,
    now: Timestamp,
) -> Result<AgentBody, Problem> {
    let mut people = questions::people(conn, vec![agent]).await?;
    let person = people.pop().ok_or(Problem::Internal)?;
    Ok(AgentBody::known(person, now))
}

/// Add an agent, or replace what is decided about them
///
/// What is left out is none: this replaces, it does not merge. Their availability stays as it is; who is new is available. May
/// be repeated; an agent who is so already is left alone.
#[utoipa::path(
    put,
    path = "/v1/agents/{identity}",
    operation_id = "put_agent",
    tag = "People",
    params(("identity" = Identity, Path, description = "As Twilio knows them, in whichever account.")),
    request_body = AgentForm,
    responses(
        (status = 200, description = "The agent as they are now.", body = AgentBody),
        (status = 409, description = "`version_conflict`, `team_unknown`, `supervisor_unknown`, `supervisor_cycle`, `backup_unknown`, `own_backup`.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["people:write"])),
)]
pub(super) async fn put(
    State(api): State<Api>,
    caller: Caller<scope::PeopleWrite>,
    Path(identity): Path<Identity>,
    form: Body<AgentForm>,
) -> Result<Json<AgentBody>, Problem> {
    let (profile, replaces) = Errors::read_body(|errors| form.value.read(errors))?;
    let now = api.clock.now();
    let mut conn = api.pool.acquire().await?;
    let agent = people::put_agent(&mut conn, &identity, profile, replaces, &actor(&caller), now).await?;
    assignment::look_soon(&mut conn, now).await?;
    Ok(Json(body(&mut conn, agent, now).await?))
}

/// Remove an agent
///
/// For one who was added by mistake. Who leaves is given `left_at`, and stays. Lines that they hold, and the past, stay too: as
/// those of an identity that is unknown here.
#[utoipa::path(
    delete,
    path = "/v1/agents/{identity}",
    operation_id = "remove_agent",
    tag = "People",
    params(("identity" = Identity, Path)),
    responses(
        (status = 204, description = "They are removed; 404 where they were not there."),
        (status = 409, description = "`agent_in_use`: they supervise somebody, are somebody's backup, are in an on-call order, or the rule of a number names them.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["people:write"])),
)]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller<scope::PeopleWrite>,
    Path(identity): Path<Identity>,
) -> Result<StatusCode, Problem> {
    let mut conn = api.pool.acquire().await?;
    people::remove_agent(&mut conn, &identity, &actor(&caller), api.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedAt {
    /// At this time; now, if not given.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    at: Field<Instant>,
}

/// The people above an agent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Supervisors)]
pub(super) struct SupervisorsBody {
    identity: Identity,
    at: Timestamp,
    /// The nearest first, without those who have left.
    supervisors: Vec<AgentBody>,
}

/// List the people above an agent
///
/// Their supervisor, that one's, and so on; those who have left are passed over. None: nobody is above them, or they are
/// unknown.
#[utoipa::path(
    get,
    path = "/v1/agents/{identity}/supervisors",
    operation_id = "list_supervisors",
    tag = "People",
    params(("identity" = Identity, Path), AskedAt),
    responses((status = 200, description = "All of them.", body = SupervisorsBody)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn supervisors(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Path(identity): Path<Identity>,
    Query(query): Query<AskedAt>,
) -> Result<Json<SupervisorsBody>, Problem> {
    let at = query.read(api.clock.now())?;
    let mut conn = api.pool.acquire().await?;
    let chain = questions::supervisors_of(&mut conn, &identity, at).await?;
    let people = questions::people(&mut conn, chain).await?;
    Ok(Json(SupervisorsBody {
        identity,
        at,
        supervisors: people
            .into_iter()
            .map(|person| AgentBody::known(person, at))
            .collect(),
    }))
}

impl AskedAt {
    pub(super) fn read(self, now: Timestamp) -> Result<Timestamp, Problem> {
        let mut errors = Errors::of_query();
        let at = errors.optional("at", self.at).map_or(now, |at| at.0);
        errors.finish(Some(at))
    }
}

/// A program did it: the key's own name.
pub(super) fn actor<S>(caller: &Caller<S>) -> Actor {
    Actor {
        name: caller.name(),
        via: Via::Api,
        cause: None,
    }
}

impl From<PutAgentError> for Problem {
    fn from(error: PutAgentError) -> Self {
        match error {
            PutAgentError::VersionConflict(conflict) => conflict.into(),
            PutAgentError::TeamUnknown => {
                Self::conflict("team_unknown", "there is no such team: add it first")
            }
            PutAgentError::SupervisorUnknown => Self::conflict(
                "supervisor_unknown",
                "the supervisor is none of our agents: add them first",
            ),
            PutAgentError::BackupUnknown => Self::conflict(
                "backup_unknown",
                "the backup is none of our agents: add them first",
            ),
            PutAgentError::OwnBackup => {
                Self::conflict("own_backup", "nobody is their own backup: name somebody else")
            }
            PutAgentError::SupervisorCycle { chain } => conflict(
                "supervisor_cycle",
                "somebody would be their own supervisor, over those in `chain`",
                json!({ "chain": chain }),
            ),
            PutAgentError::Database(error) => error.into(),
        }
    }
}

impl From<VersionConflict> for Problem {
    fn from(conflict: VersionConflict) -> Self {
        version_conflict(conflict.version, conflict.updated_at)
    }
}

pub(super) fn version_conflict(version: i64, updated_at: Option<Timestamp>) -> Problem {
    let detail = if version == 0 {
        "there is none of which to replace a version"
    } else {
        "somebody else has changed it since: read it again, and decide anew"
    };
    conflict(
        "version_conflict",
        detail,
        json!({ "version": version, "updated_at": updated_at }),
    )
}

impl From<RemoveAgentError> for Problem {
    fn from(error: RemoveAgentError) -> Self {
        match error {
            RemoveAgentError::NotFound => Self::NotFound { what: "agent" },
            RemoveAgentError::InUse(of) => conflict(
                "agent_in_use",
                "others refer to them: change those first, or set `left_at`",
                json!({ "supervises": of.supervises, "on_call": of.on_call, "backs_up": of.backs_up, "numbers": of.numbers }),
            ),
            RemoveAgentError::Database(error) => error.into(),
        }
    }
}
