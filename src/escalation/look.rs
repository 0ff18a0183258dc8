//! Looking at lines: reading what is known of them, all at once, and asking the evaluator.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::escalation::evaluate::{
    self, Cause, Counts, End, Fact, Inputs, Outlook, Run, Taken, What, Why, evaluate,
};
use crate::escalation::history::{self, Conversation, Wants, Window};
use crate::escalation::policy::{How, Policy};
use crate::escalation::store::watch::Key;
use crate::escalation::store::{self, Live};
use crate::escalation::world::World;
use crate::escalation::{Escalation, Step};
use crate::ids::Identity;
use crate::people::{Slug, import};
use crate::transfer;

/// What is older counts no more, where no policy waits for longer than [`LONG`] before it does something.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(100 * 24);
/// And otherwise: business hours of 40 in a week are meant, of which 90 days are 54 weeks.
const LOOK_BACK_LONG: SignedDuration = SignedDuration::from_hours(400 * 24);
const LONG: SignedDuration = SignedDuration::from_hours(20 * 24);
/// Twilio's clock may be ahead of ours; no fact is lost for that.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);
/// Of a conversation, so many of the newest messages are read.
const MESSAGES_MAX: i64 = 500;

/// So many lines are judged before others who share the thread, as who answers webhooks, have their turn.
const UNTIL_YIELD: usize = 8;

/// What counts for all lines.
#[derive(Debug, Clone)]
pub struct Standing {
    pub(super) policies: Vec<Live>,
    pub world: World,
    /// What is recorded under other policies is left out: these are only thought of.
    pub(super) is_supposed: bool,
}

impl Standing {
    /// Reads who our people are and which policies begin something.
    pub async fn load(conn: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let policies = store::enabled(conn).await?;
        let (agents, teams) = import::everybody(conn).await?;
        let mut world = World::new(agents, teams);
        // Who is in which team matters only where a policy asks for it.
        if policies
            .iter()
            .any(|live| !live.policy.applies_to.teams.is_empty())
        {
            world = world.with_moves(history::moves(conn).await?);
        }
        Ok(Self {
            policies,
            world,
            is_supposed: false,
        })
    }

    fn live(&self, policy_id: &str) -> Option<&Live> {
        self.policies.iter().find(|live| live.policy_id == policy_id)
    }

    /// The policy that counts for a line as long as this one holds it.
    pub(super) fn in_force(&self, line: &str, holder: Option<&Identity>) -> Option<&Live> {
        let team = holder.and_then(|holder| self.world.team_of(holder));
        let policies = self.policies.iter().map(|live| &live.policy);
        in_force(policies, line, team).and_then(|place| self.policies.get(place))
    }
}

/// Which of some policies counts for a line, by its place: the one that is for the line before one that is for the team of
/// its holder, and that before one for all; of several, the first.
pub fn in_force<'a>(
    policies: impl Iterator<Item = &'a Policy>,
    line: &str,
    team: Option<&Slug>,
) -> Option<usize> {
    let mut found: Option<(usize, usize)> = None;
    for (place, policy) in policies.enumerate() {
        let scope = &policy.applies_to;
        let by_line = scope.lines.iter().any(|one| one.as_str() == line);
        let by_team = team.is_some_and(|team| scope.teams.contains(team));
        let fits = (scope.lines.is_empty() || by_line) && (scope.teams.is_empty() || by_team);
        let rank = usize::from(by_line) * 2 + usize::from(by_team);
        if fits && found.is_none_or(|(best, _)| rank > best) {
            found = Some((rank, place));
        }
    }
    found.map(|(_, place)| place)
}

fn look_back<'a>(mut policies: impl Iterator<Item = &'a Policy>) -> SignedDuration {
    let is_long = policies.any(|policy| policy.has(|when| when.after() > LONG));
    if is_long { LOOK_BACK_LONG } else { LOOK_BACK }
}

/// A line that was looked at.
pub(super) struct Seen {
    pub(super) key: Key,
    pub(super) account_sid: String,
    pub(super) known: Vec<(Escalation, Vec<Step>)>,
    pub(super) judged: Vec<Judged>,
}

/// What a version of a policy makes of it.
pub(super) struct Judged {
    pub(super) policy_id: String,
    pub(super) version: i64,
    pub(super) outlook: Outlook,
}

impl Seen {
    pub(super) fn look_at(&self) -> Option<Timestamp> {
        self.judged
            .iter()
            .filter_map(|judged| judged.outlook.look_at)
            .min()
    }

    /// What came of one that was recorded.
    pub(super) fn run(&self, escalation_id: Uuid) -> Option<&Run> {
        let mut runs = self.judged.iter().flat_map(|judged| &judged.outlook.runs);
        runs.find(|run| run.id == Some(escalation_id))
    }
}

/// Looks at lines as of `now`, and ahead up to `horizon`.
pub(super) async fn lines(
    conn: &mut PgConnection,
    standing: &Standing,
    keys: &[Key],
    now: Timestamp,
    horizon: Timestamp,
) -> Result<Vec<Seen>, sqlx::Error> {
    let after = now - look_back(standing.policies.iter().map(|live| &live.policy));
    let mut known = store::known(conn, keys, after).await?;
    let open = || {
        known
            .values()
            .flatten()
            .map(|(one, _)| one)
            .filter(|one| is_open(one))
    };
    let older: BTreeSet<(String, i64)> = open()
        .filter(|one| {
            let live = standing.live(one.policy_id.as_str());
            live.is_some_and(|live| live.version != one.policy_version)
        })
        .map(|one| (one.policy_id.as_str().to_owned(), one.policy_version))
        .collect();
    let older = store::live_versions(conn, &older.into_iter().collect::<Vec<_>>()).await?;
    let wants = Wants::of(standing.policies.iter().chain(&older).map(|live| &live.policy));
    let sids: BTreeSet<&str> = keys.iter().map(|key| key.conversation_sid.as_str()).collect();
    let sids: Vec<&str> = sids.into_iter().collect();
    let window = Window {
        from: after,
        to: now + AHEAD,
        messages_max: MESSAGES_MAX,
        is_past: false,
    };
    let found = history::load(conn, &sids, window, wants).await?;
    let nothing = Conversation::default();
    let mut seen = Vec::with_capacity(keys.len());
    for (number, key) in keys.iter().enumerate() {
        if number % UNTIL_YIELD == UNTIL_YIELD - 1 {
            tokio::task::yield_now().await;
        }
        let conversation = found.get(&key.conversation_sid).unwrap_or(&nothing);
        let known = known.remove(key).unwrap_or_default();
        let judged = judge(standing, &older, key, conversation, &known, (after, now, horizon));
        seen.push(Seen {
            key: key.clone(),
            account_sid: conversation.account_sid.clone(),
            known,
            judged,
        });
    }
    Ok(seen)
}

fn is_open(one: &Escalation) -> bool {
    one.finished_at.is_none()
}

fn judge(
    standing: &Standing,
    older: &[Live],
    key: &Key,
    conversation: &Conversation,
    known: &[(Escalation, Vec<Step>)],
    (oldest, now, horizon): (Timestamp, Timestamp, Timestamp),
) -> Vec<Judged> {
    let asks: Vec<(Uuid, Timestamp)> = known
        .iter()
        .filter(|(one, _)| one.cause == "asked")
        .filter_map(|(one, _)| Some((one.cause_key.parse().ok()?, one.cause_at)))
        .collect();
    let facts = conversation.facts(&key.line, &standing.world, &asks);
    let complete_since = conversation.complete_since.unwrap_or(now).max(oldest);
    let mut judged = Vec::new();
    for live in standing.policies.iter().chain(older) {
        let runs = |is_wanted: &dyn Fn(&Escalation) -> bool| -> Vec<Run> {
            let wanted = known.iter().filter(|(one, _)| is_wanted(one));
            wanted.map(|(one, steps)| run_of(one, steps)).collect()
        };
        let is_its_own = |one: &Escalation| one.policy_id.as_str() == live.policy_id;
        let of_policy = runs(&is_its_own);
        // What a policy that is off left is anybody's.
        let is_left = |one: &Escalation| {
            let is_off = is_open(one) && standing.live(one.policy_id.as_str()).is_none();
            is_off || one.why.as_deref() == Some(Why::PolicyOff.as_str())
        };
        let of_others = if standing.is_supposed {
            Vec::new()
        } else {
            runs(&|one| !is_its_own(one) && !is_left(one))
        };
        let in_force = |holder: Option<&Identity>| {
            let one = standing.in_force(&key.line, holder).filter(|_| live.begins)?;
            let team = holder.and_then(|holder| standing.world.team_of(holder));
            (one.policy_id == live.policy_id).then(|| Counts {
                since: live.since_of.of(&live.policy.applies_to, &key.line, team),
                due_since: standing.world.in_team_since(holder),
            })
        };
        // Of many policies, few have to do with one line.
        let counts = |fact: &Fact| match &fact.what {
            What::Held(holder) => in_force(holder.as_ref()).is_some(),
            _ => false,
        };
        if of_policy.is_empty() && !facts.iter().any(counts) {
            continue;
        }
        let outlook = evaluate(&Inputs {
            policy: &live.policy,
            version: live.version,
            facts: &facts,
            world: &standing.world,
            in_force: &in_force,
            known: &of_policy,
            others: &of_others,
            since: live.since.max(oldest),
            since_of_rules: &live.since_of.rules,
            complete_since,
            now,
            horizon,
        });
        judged.push(Judged {
            policy_id: live.policy_id.clone(),
            version: live.version,
            outlook,
        });
    }
    // What goes on under a policy that is off ends.
    for (one, steps) in known.iter().filter(|(one, _)| is_open(one)) {
        if standing.live(one.policy_id.as_str()).is_none() {
            let run = Run {
                next_at: None,
                end: Some(End {
                    at: now,
                    why: Why::PolicyOff,
                }),
                ..run_of(one, steps)
            };
            judged.push(Judged {
                policy_id: one.policy_id.as_str().to_owned(),
                version: one.policy_version,
                outlook: Outlook {
                    runs: vec![run],
                    look_at: None,
                },
            });
        }
    }
    judged
}

/// A recorded escalation as the evaluator knows it.
pub(super) fn run_of(one: &Escalation, steps: &[Step]) -> Run {
    let why = one.why.as_deref().and_then(Why::parse).unwrap_or(Why::NoLongerSo);
    Run {
        id: Some(one.escalation_id),
        version: one.policy_version,
        rule: one.rule.clone(),
        cause: Cause {
            kind: kind(&one.cause),
            key: one.cause_key.clone(),
            at: one.cause_at,
        },
        holder: one.holder.clone(),
        started_at: one.started_at,
        steps: steps.iter().map(taken).collect(),
        next_at: one.next_at,
        end: one.finished_at.map(|at| End { at, why }),
    }
}

fn kind(cause: &str) -> &'static str {
    ["no_answer", "unavailable", "words", "delivery_failure"]
        .into_iter()
        .find(|kind| *kind == cause)
        .unwrap_or("asked")
}

fn taken(step: &Step) -> Taken {
    let settled = step.settled_at.unwrap_or(step.taken_at);
    let state = match (step.outcome.as_str(), step.transfer_state.as_deref()) {
        ("skipped", _) => evaluate::Standing::Over(step.taken_at),
        // What somebody else began has its time.
        ("refused", _) if step.code.as_deref() == Some(ALREADY_OPEN) => evaluate::Standing::Runs,
        ("refused" | "dropped", _) => evaluate::Standing::Over(settled),
        ("started", Some("swapping" | "completed")) => evaluate::Standing::Accepted,
        ("started", Some(state)) if state != transfer::State::Offered.as_str() => {
            evaluate::Standing::Over(step.transfer_finished_at.unwrap_or(settled))
        }
        _ => evaluate::Standing::Runs,
    };
    Taken {
        step: usize::try_from(step.step - 1).unwrap_or(0),
        how: How::parse(&step.how).unwrap_or(How::Nudge),
        whom: step.whom.clone(),
        at: step.taken_at,
        to: step.to.clone().ok_or("nobody"),
        state,
    }
}

/// Another transfer of the line is open.
pub(super) const ALREADY_OPEN: &str = "already_open";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_looked_back_for_as_long_as_a_policy_may_wait() {
        let of = |time: &str| {
            let rule = json!({ "name": "slow", "when": { "no_answer": time },
                "steps": [{ "how": "nudge", "to": "holder", "for": "5m" }] });
            let document = json!({ "name": "x", "rules": [rule] });
            Policy::read(&document, None).unwrap()
        };
        let (short, long) = (of("15m"), of("2160h"));
        assert_eq!(look_back([&short].into_iter()), LOOK_BACK);
        assert_eq!(look_back([&short, &long].into_iter()), LOOK_BACK_LONG);
    }
}
