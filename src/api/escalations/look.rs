//! What would happen on a line, and what would have happened on all: by the evaluator that does it live.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::auth::{Caller, scope};
use crate::api::{Api, conversations};
use crate::escalation::backtest::{AS_NOW, AS_THEN, Backtest, SPAN_MAX, Totals, Would};
use crate::escalation::dry_run::{self, Forecast};
use crate::escalation::evaluate::{Run, Taken};
use crate::escalation::policy::Policy;
use crate::escalation::{self, StoredPolicy};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::people::Slug;
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Instant, Number};
use crate::web::page::{Cursor, Key};
use crate::web::problem::Problem;

/// Conversations that one call looks back at.
const CONVERSATIONS_DEFAULT: u32 = 500;
const CONVERSATIONS_MAX: u32 = 2_000;

/// An escalation as it would be, or would have been.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WouldBeEscalation)]
pub(in crate::api) struct RunBody {
    /// Of one that is open; null: it would begin.
    escalation_id: Option<Uuid>,
    rule: String,
    /// `no_answer`, `unavailable`, `words`, `delivery_failure`, `asked`.
    because: &'static str,
    /// Since when it is so.
    since: Timestamp,
    holder: Option<Identity>,
    started_at: Timestamp,
    steps: Vec<TakenBody>,
    /// When it would be over; null: it would not, in that time.
    ends_at: Option<Timestamp>,
    /// Why, as of an escalation.
    why: Option<&'static str>,
}

/// A step that was or would be taken.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = WouldBeStep)]
pub(in crate::api) struct TakenBody {
    at: Timestamp,
    /// Of the rule, from 1.
    step: usize,
    how: &'static str,
    whom: String,
    /// Null: nobody.
    to: Option<Identity>,
    /// Why nobody.
    code: Option<&'static str>,
}

impl From<Taken> for TakenBody {
    fn from(taken: Taken) -> Self {
        let code = taken.to.as_ref().err().copied();
        Self {
            at: taken.at,
            step: taken.step + 1,
            how: taken.how.as_str(),
            whom: taken.whom,
            to: taken.to.ok(),
            code,
        }
    }
}

impl From<Run> for RunBody {
    fn from(run: Run) -> Self {
        Self {
            escalation_id: run.id,
            rule: run.rule,
            because: run.cause.kind,
            since: run.cause.at,
            holder: run.holder,
            started_at: run.started_at,
            steps: run.steps.into_iter().map(TakenBody::from).collect(),
            ends_at: run.end.map(|end| end.at),
            why: run.end.map(|end| end.why.as_str()),
        }
    }
}

/// What would happen on one line.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EscalationForecast)]
pub(in crate::api) struct ForecastBody {
    line: PhoneNumber,
    holder: Option<String>,
    /// The policy that counts for the line; null: none does.
    policy_id: Option<String>,
    policy_version: Option<i64>,
    escalations: Vec<RunBody>,
}

/// What would happen on the lines of a conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EscalationDryRun)]
pub(in crate::api) struct DryRunBody {
    conversation_sid: ConversationSid,
    at: Timestamp,
    /// It is not looked further ahead.
    until: Timestamp,
    lines: Vec<ForecastBody>,
}

impl From<Forecast> for ForecastBody {
    fn from(forecast: Forecast) -> Self {
        let (policy_id, policy_version) = forecast.in_force.unzip();
        Self {
            line: forecast.line,
            holder: forecast.holder,
            policy_id,
            policy_version,
            escalations: forecast
                .runs
                .into_iter()
                .map(|(_, _, run)| RunBody::from(run))
                .collect(),
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct AskedDryRun {
    /// Only this line; its `+` is written `%2B`.
    #[serde(default)]
    #[param(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// By this policy, whether it is on or off and whatever it is for; the one that counts, if not given.
    #[serde(default)]
    #[param(value_type = Option<Slug>)]
    policy_id: Field<Slug>,
}

/// Show what would happen in a conversation, when and why
///
/// If nothing else did from now on: what is open goes on, what is due is done, step by step, for 30 days ahead. By the same
/// evaluator that does it live. Nothing is changed.
#[utoipa::path(
    get,
    path = "/v1/conversations/{conversation_sid}/escalations/dry-run",
    operation_id = "dry_run_escalations",
    tag = "Escalations",
    params(("conversation_sid" = ConversationSid, Path), AskedDryRun),
    responses((status = 200, description = "What would happen on each of its lines.", body = DryRunBody)),
    security(("api_key" = ["escalations:read"])),
)]
pub(in crate::api) async fn dry_run(
    State(api): State<Api>,
    _: Caller<scope::EscalationsRead>,
    Path(sid): Path<ConversationSid>,
    Query(query): Query<AskedDryRun>,
) -> Result<Json<DryRunBody>, Problem> {
    let mut errors = Errors::of_query();
    let line = errors.optional("line", query.line);
    let policy_id = errors.optional("policy_id", query.policy_id);
    errors.finish(Some(()))?;
    let now = api.clock.now();
    let mut conn = api.pool.acquire().await?;
    conversations::expect_then(&mut conn, &sid, None).await?;
    let stored = match &policy_id {
        Some(policy_id) => Some(expect(&mut conn, policy_id).await?),
        None => None,
    };
    let instead = stored.as_ref().map(|stored| {
        let anywhere = Policy {
            applies_to: escalation::policy::Scope::default(),
            ..stored.policy.clone()
        };
        (stored.policy_id.as_str(), stored.version, anywhere)
    });
    let found = dry_run::dry_run(&mut conn, &sid, line.as_ref(), instead, now).await?;
    if line.is_some() && found.is_empty() {
        return Err(Problem::NotFound { what: "line" });
    }
    Ok(Json(DryRunBody {
        conversation_sid: sid,
        at: now,
        until: now + dry_run::AHEAD,
        lines: found.into_iter().map(ForecastBody::from).collect(),
    }))
}

async fn expect(conn: &mut sqlx::PgConnection, policy_id: &Slug) -> Result<StoredPolicy, Problem> {
    let found = escalation::find_policy(conn, policy_id.as_str()).await?;
    found.ok_or(Problem::NotFound {
        what: "escalation policy",
    })
}

/// Where a back-test goes on. What it is about is kept, so that all parts are of one.
#[derive(Serialize, Deserialize)]
pub(in crate::api) struct BacktestPlace {
    after: String,
}

impl Key for BacktestPlace {
    const LIST: &'static str = "escalation_backtest";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct AskedBacktest {
    /// From then on; 30 days before `to`, if not given.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    from: Field<Instant>,
    /// Up to then, which has passed; now, if not given.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    to: Field<Instant>,
    /// This version of the policy; the newest, if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    version: Field<Number<1, { i32::MAX as u32 }>>,
    /// How many conversations to look at: 1 to 2,000, 500 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 2000)]
    conversations: Field<Number<1, CONVERSATIONS_MAX>>,
    /// `next` of the part before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<BacktestPlace>>,
}

/// How many of what, in the conversations of this part.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BacktestTotals)]
pub(in crate::api) struct TotalsBody {
    conversations: usize,
    escalations: usize,
    by_rule: BTreeMap<String, usize>,
    /// By why they would have ended: `answered`, `handed_over`, `steps_taken`, …; `open`: not in that time.
    by_end: BTreeMap<&'static str, usize>,
    /// By how: `nudge`, `offer`, `force`; `skipped`, where there was nobody.
    steps: BTreeMap<&'static str, usize>,
}

/// An escalation that would have been.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BacktestEscalation)]
pub(in crate::api) struct WouldBody {
    conversation_sid: String,
    line: String,
    #[serde(flatten)]
    run: RunBody,
}

/// What a back-test goes by.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BacktestBasis)]
pub(in crate::api) struct BasisBody {
    /// As it was at the time: `holders`, `messages`, `absences` (from when the log begins).
    as_then: [&'static str; 3],
    /// As it is now, of which no history is kept: `teams`, `supervisors`, `backups`, `hours`, `on_call`, `departures`.
    as_now: [&'static str; 6],
}

/// What a policy would have done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EscalationBacktest)]
pub(in crate::api) struct BacktestBody {
    policy_id: Slug,
    policy_version: i64,
    from: Timestamp,
    to: Timestamp,
    basis: BasisBody,
    totals: TotalsBody,
    escalations: Vec<WouldBody>,
    /// What to send as `cursor` for the conversations after these; null: these were the last.
    next: Option<String>,
}

/// Show what a policy would have done over the mirror's history
///
/// Whether it is on or off: save it with `"enabled": false` to try it. By the same evaluator that does it live, over who held
/// which line, what was written and who was away; teams, supervisors, backups, hours and on-call orders are those of now
/// (`basis`). Nobody answers an offer that was not made. Add up the totals of all parts.
#[utoipa::path(
    get,
    path = "/v1/escalation-policies/{policy_id}/backtest",
    operation_id = "backtest_escalation_policy",
    tag = "Escalations",
    params(("policy_id" = Slug, Path), AskedBacktest),
    responses((status = 200, description = "A part of it.", body = BacktestBody)),
    security(("api_key" = ["escalations:read"])),
)]
pub(in crate::api) async fn backtest(
    State(api): State<Api>,
    _: Caller<scope::EscalationsRead>,
    Path(policy_id): Path<Slug>,
    Query(query): Query<AskedBacktest>,
) -> Result<Json<BacktestBody>, Problem> {
    let now = api.clock.now();
    let mut errors = Errors::of_query();
    let to = errors.optional("to", query.to).map_or(now, |at| at.0);
    let from = errors
        .optional("from", query.from)
        .map_or(to - SignedDuration::from_hours(30 * 24), |at| at.0);
    if to > now {
        errors.add("to", "in_the_future", "expected a time that has passed");
    }
    if from >= to {
        errors.add("from", "after_to", "expected a time before `to`");
    } else if from.duration_until(to) > SPAN_MAX {
        errors.add("from", "too_early", "expected at most 400 days before `to`");
    }
    let version = errors.optional("version", query.version);
    let conversations = errors
        .optional("conversations", query.conversations)
        .map_or(CONVERSATIONS_DEFAULT, |number| number.0);
    let after = errors
        .optional("cursor", query.cursor)
        .map_or_else(String::new, |cursor| cursor.0.after);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let (policy, version) = policy_of(&mut conn, &policy_id, version.map(|version| version.0)).await?;
    let backtest = Backtest { policy, from, to };
    let world = backtest.world(&mut conn).await?;
    let part = backtest
        .part(&mut conn, &world, &after, i64::from(conversations))
        .await?;
    let mut totals = Totals {
        conversations: part.conversations,
        ..Totals::default()
    };
    for would in &part.would {
        totals.add(&would.run);
    }
    Ok(Json(BacktestBody {
        policy_id,
        policy_version: version,
        from,
        to,
        basis: BasisBody {
            as_then: AS_THEN,
            as_now: AS_NOW,
        },
        totals: TotalsBody {
            conversations: totals.conversations,
            escalations: totals.escalations,
            by_rule: totals.by_rule,
            by_end: totals.by_end,
            steps: totals.steps,
        },
        escalations: part.would.into_iter().map(WouldBody::from).collect(),
        next: part.next.map(|after| Cursor(BacktestPlace { after }).to_string()),
    }))
}

impl From<Would> for WouldBody {
    fn from(would: Would) -> Self {
        Self {
            conversation_sid: would.conversation_sid,
            line: would.line,
            run: would.run.into(),
        }
    }
}

async fn policy_of(
    conn: &mut sqlx::PgConnection,
    policy_id: &Slug,
    version: Option<u32>,
) -> Result<(Policy, i64), Problem> {
    let Some(version) = version.map(i64::from) else {
        let stored = expect(conn, policy_id).await?;
        return Ok((stored.policy, stored.version));
    };
    let found = escalation::document_of(conn, policy_id.as_str(), version).await?;
    let (document, ..) = found.ok_or(Problem::NotFound {
        what: "escalation policy",
    })?;
    let policy = Policy::read(&document, None).map_err(|_| Problem::Internal)?;
    Ok((policy, version))
}
