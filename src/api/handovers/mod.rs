//! `/v1/handovers`: giving all lines of one person to others by a plan, and back. What plans look like, and reading them; a
//! file for each thing that is done with them.

mod decide;
mod start;
mod verbs;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::Api;
use crate::api::auth::{Caller, scope};
use crate::handover::{
    self, Action, BackState, Because, Becomes, Counts, Direction, Filter, Finding, Handover, Line, LineState,
    Otherwise, Passed, Phase, Rule, Spread, State as Stage,
};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::people::judge::{Needs, Unavailable};
use crate::people::{Slug, questions};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Flag};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

pub(super) use decide::{__path_decide, decide};
pub(super) use start::{__path_start, start};
pub(super) use verbs::{
    __path_cancel, __path_pause, __path_resume, __path_roll_back, __path_run, cancel, pause, resume,
    roll_back, run,
};

/// A plan, and how far it has come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Handover)]
pub(in crate::api) struct HandoverBody {
    handover_id: Uuid,
    /// Whose lines are given.
    leaver: Identity,
    #[schema(inline)]
    state: Stage,
    #[schema(inline)]
    direction: Direction,
    #[schema(inline)]
    phase: Phase,
    #[schema(inline)]
    otherwise: Otherwise,
    lines_per_minute: u32,
    /// What was handed over goes back then.
    return_at: Option<Timestamp>,
    #[schema(inline)]
    back_because: Option<Because>,
    #[schema(inline)]
    leaver_becomes: Option<Becomes>,
    reason: Option<String>,
    requested_by: String,
    started_by: Option<String>,
    /// Who rolled it back; null, where it was the day of the return.
    turned_by: Option<String>,
    /// Who did something about it last, and when; `hookswitch`, where it came to its state by itself.
    changed_by: String,
    changed_at: Timestamp,
    /// The class of Twilio's last error, while it keeps the work from going on, or its transfers: `unavailable`,
    /// `throttled_20429`; or `conversations_unread`, while what is in doubt is not read.
    waiting_error: Option<String>,
    waiting_since: Option<Timestamp>,
    /// When Twilio was last asked which lines there are.
    listed_at: Option<Timestamp>,
    /// No line begins before.
    next_due_at: Option<Timestamp>,
    created_at: Timestamp,
    updated_at: Timestamp,
    started_at: Option<Timestamp>,
    finished_at: Option<Timestamp>,
}

impl From<Handover> for HandoverBody {
    fn from(plan: Handover) -> Self {
        Self {
            handover_id: plan.handover_id,
            leaver: plan.leaver,
            state: plan.state,
            direction: plan.direction,
            phase: plan.phase,
            otherwise: plan.otherwise,
            lines_per_minute: plan.lines_per_minute,
            return_at: plan.return_at,
            back_because: plan.back_because,
            leaver_becomes: plan.leaver_becomes,
            reason: plan.reason,
            requested_by: plan.requested_by,
            started_by: plan.started_by,
            turned_by: plan.turned_by,
            changed_by: plan.changed_by,
            changed_at: plan.changed_at,
            waiting_error: plan.waiting_error,
            waiting_since: plan.waiting_since,
            listed_at: plan.listed_at,
            next_due_at: plan.next_due_at,
            created_at: plan.created_at,
            updated_at: plan.updated_at,
            started_at: plan.started_at,
            finished_at: plan.finished_at,
        }
    }
}

/// A plan with its rules, its counts, and what it comes to for whom.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HandoverDetail)]
pub(in crate::api) struct HandoverDetail {
    #[serde(flatten)]
    plan: HandoverBody,
    rules: Vec<RuleBody>,
    /// What every transfer of it carries.
    note: Option<String>,
    /// What each new holder says to the group once the line is theirs.
    introduction: Option<String>,
    #[schema(inline)]
    counts: Counts,
    /// How many lines were found how: where the ledger and Twilio do not agree, see `lines?differing=true`.
    findings: FindingsBody,
    /// To whom how many lines go, or went.
    to: Vec<GivenBody>,
    /// When the last line begins at the earliest, while it runs.
    expected_end_at: Option<Timestamp>,
}

/// A rule: the first that yields somebody decides.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HandoverRule)]
pub(in crate::api) struct RuleBody {
    /// `people`, `team`, `last_holder` or `supervisor`.
    rule: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    people: Vec<Identity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    team: Option<Slug>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(inline)]
    spread: Option<Spread>,
}

impl From<Rule> for RuleBody {
    fn from(rule: Rule) -> Self {
        let named = |rule| Self {
            rule,
            people: Vec::new(),
            team: None,
            spread: None,
        };
        match rule {
            Rule::People(people) => Self {
                people,
                ..named("people")
            },
            Rule::Team { team, spread } => Self {
                team: Some(team),
                spread: Some(spread),
                ..named("team")
            },
            Rule::LastHolder => named("last_holder"),
            Rule::Supervisor => named("supervisor"),
        }
    }
}

#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(as = HandoverFindings)]
pub(in crate::api) struct FindingsBody {
    agrees: i64,
    only_here: i64,
    only_at_twilio: i64,
    closed: i64,
}

/// What a plan comes to for one person.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HandoverGiven)]
pub(in crate::api) struct GivenBody {
    to: String,
    /// Of this plan, that go to them or went.
    lines: i64,
    /// Lines held now.
    load: u32,
    capacity: Option<u32>,
    /// Why they could not be given a line now: `left`, `away` or `unknown`.
    unavailable: Option<&'static str>,
}

/// One line of a plan.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HandoverLine)]
pub(in crate::api) struct LineBody {
    conversation_sid: ConversationSid,
    line: PhoneNumber,
    #[schema(inline)]
    finding: Finding,
    /// Its conversation is being read, since the ledger and Twilio do not agree.
    in_doubt: bool,
    /// Found when the run looked again at its end.
    found_later: bool,
    #[schema(inline)]
    state: LineState,
    #[schema(inline)]
    action: Option<Action>,
    to: Option<Identity>,
    /// By which rule: `people`, `least_loaded`, `round_robin`, `last_holder`, `supervisor`, `by_hand`, or
    /// `nobody_can_take_it`.
    why: Option<String>,
    passed: Vec<Passed>,
    by_hand: bool,
    /// Why it was skipped, failed or stays.
    outcome: Option<String>,
    transfer_id: Option<Uuid>,
    /// Its place in the rate.
    due_at: Option<Timestamp>,
    /// Something stands against it until then: it changed hands too often.
    not_before: Option<Timestamp>,
    finished_at: Option<Timestamp>,
    #[schema(inline)]
    back_state: Option<BackState>,
    back_outcome: Option<String>,
    back_transfer_id: Option<Uuid>,
    back_due_at: Option<Timestamp>,
}

impl From<Line> for LineBody {
    fn from(line: Line) -> Self {
        Self {
            in_doubt: line.is_in_doubt(),
            conversation_sid: line.conversation_sid,
            line: line.line,
            finding: line.finding,
            found_later: line.found_later,
            state: line.state,
            action: line.action,
            to: line.to,
            why: line.why,
            passed: line.passed,
            by_hand: line.by_hand,
            outcome: line.outcome,
            transfer_id: line.transfer_id,
            due_at: line.due_at,
            not_before: line.not_before,
            finished_at: line.finished_at,
            back_state: line.back_state,
            back_outcome: line.back_outcome,
            back_transfer_id: line.back_transfer_id,
            back_due_at: line.back_due_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(in crate::api) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "handovers";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ListHandovers {
    /// Only those of this person.
    #[serde(default)]
    #[param(value_type = Option<Identity>)]
    leaver: Field<Identity>,
    #[serde(default)]
    #[param(value_type = Option<Stage>, inline)]
    state: Field<Stage>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List handover plans, newest first
#[utoipa::path(
    get,
    path = "/v1/handovers",
    operation_id = "list_handovers",
    tag = "Handovers",
    params(ListHandovers),
    responses((status = 200, description = "A page of them.", body = Page<HandoverBody>)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn list(
    State(api): State<Api>,
    _: Caller<scope::TransfersSupervise>,
    Query(query): Query<ListHandovers>,
) -> Result<Json<Page<HandoverBody>>, Problem> {
    let mut errors = Errors::of_query();
    let leaver = errors.optional("leaver", query.leaver);
    let state = errors.optional("state", query.state);
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let before = wanted.after.as_ref().map(|Place(at, id)| (at.0, *id));
    let leaver = leaver.as_ref().map(Identity::as_str);
    let rows = handover::page(&mut conn, leaver, state.map(Stage::as_str), before, wanted.rows()).await?;
    let page = wanted.page(rows, |plan| Place(At(plan.created_at), plan.handover_id));
    Ok(Json(page.map(HandoverBody::from)))
}

/// Show a handover plan: how far it has come, and what it comes to for whom
#[utoipa::path(
    get,
    path = "/v1/handovers/{handover_id}",
    operation_id = "show_handover",
    tag = "Handovers",
    params(("handover_id" = Uuid, Path)),
    responses((status = 200, description = "The plan.", body = HandoverDetail)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn show(
    State(api): State<Api>,
    _: Caller<scope::TransfersSupervise>,
    Path(handover_id): Path<Uuid>,
) -> Result<Json<HandoverDetail>, Problem> {
    let now = api.clock.now();
    let mut conn = api.pool.acquire().await?;
    let plan = handover::find(&mut conn, handover_id).await?;
    let plan = plan.ok_or(Problem::NotFound { what: "handover" })?;
    Ok(Json(detail(&mut conn, plan, now).await?))
}

async fn detail(
    conn: &mut PgConnection,
    plan: Handover,
    now: Timestamp,
) -> Result<HandoverDetail, sqlx::Error> {
    let id = plan.handover_id;
    let counts = handover::counts(conn, id).await?;
    let given = handover::given(conn, id).await?;
    let rules = handover::rules(conn, id).await?;
    let people: Vec<&str> = given.to.keys().map(String::as_str).collect();
    let judged = questions::candidates(conn, &people, now, &Needs::default()).await?;
    let loads = crate::ledger::loads(conn, &people).await?;
    let found = |finding| given.findings.get(&finding).copied().unwrap_or(0);
    let left = match plan.direction {
        Direction::Out => counts.waiting,
        Direction::Back => counts.to_go_back,
    };
    let is_running = plan.state == Stage::Running && left > 0;
    Ok(HandoverDetail {
        rules: rules.into_iter().map(RuleBody::from).collect(),
        note: plan.note.clone(),
        introduction: plan.introduction.clone(),
        expected_end_at: is_running.then(|| plan.pace().end_of(left, now)),
        counts,
        findings: FindingsBody {
            agrees: found(Finding::Agrees),
            only_here: found(Finding::OnlyHere),
            only_at_twilio: found(Finding::OnlyAtTwilio),
            closed: found(Finding::Closed),
        },
        to: judged
            .into_iter()
            .map(|one| GivenBody {
                lines: given.to.get(&one.identity).copied().unwrap_or(0),
                load: loads.get(&one.identity).copied().unwrap_or(0),
                capacity: one
                    .person
                    .as_ref()
                    .and_then(|person| person.agent.profile.capacity),
                unavailable: one.skipped.as_ref().map(Unavailable::code),
                to: one.identity,
            })
            .collect(),
        plan: plan.into(),
    })
}

#[derive(Serialize, Deserialize)]
pub(in crate::api) struct LinePlace(String, String);

impl Key for LinePlace {
    const LIST: &'static str = "handover_lines";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ListLines {
    /// Only those in this state.
    #[serde(default)]
    #[param(value_type = Option<LineState>, inline)]
    state: Field<LineState>,
    /// Only those that go to this person.
    #[serde(default)]
    #[param(value_type = Option<Identity>)]
    to: Field<Identity>,
    /// `true`: only those on which the ledger and Twilio did not agree.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    differing: Field<Flag>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<LinePlace>>,
}

/// List the lines of a handover plan: to whom each goes and why, its transfer and what came of it
#[utoipa::path(
    get,
    path = "/v1/handovers/{handover_id}/lines",
    operation_id = "list_handover_lines",
    tag = "Handovers",
    params(("handover_id" = Uuid, Path), ListLines),
    responses((status = 200, description = "A page of them, in the order of their conversations.", body = Page<LineBody>)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn lines(
    State(api): State<Api>,
    _: Caller<scope::TransfersSupervise>,
    Path(handover_id): Path<Uuid>,
    Query(query): Query<ListLines>,
) -> Result<Json<Page<LineBody>>, Problem> {
    let mut errors = Errors::of_query();
    let filter = Filter {
        states: errors
            .optional("state", query.state)
            .map(|state| vec![state.as_str().to_owned()]),
        to: errors.optional("to", query.to).map(Identity::into_string),
        differing: errors
            .optional("differing", query.differing)
            .is_some_and(|flag| flag.0),
    };
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    if handover::find(&mut conn, handover_id).await?.is_none() {
        return Err(Problem::NotFound { what: "handover" });
    }
    let after = wanted
        .after
        .as_ref()
        .map(|LinePlace(sid, line)| (sid.as_str(), line.as_str()));
    let rows = handover::page_of_lines(&mut conn, handover_id, &filter, after, wanted.rows()).await?;
    let page = wanted.page(rows, |line| {
        LinePlace(
            line.conversation_sid.as_str().to_owned(),
            line.line.as_str().to_owned(),
        )
    });
    Ok(Json(page.map(LineBody::from)))
}
