//! Deciding to whom the lines of a plan go: reads what is known of lines and people, and leaves it to the pure
//! [`plan`].

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::accounts::Accounts;
use crate::handover::plan::{self, Choice, Decided, Fixed, Taker};
use crate::handover::{Action, Handover, Line, LineState, Rule, store, tell};
use crate::ids::Identity;
use crate::people::judge::{Needs, Unavailable};
use crate::people::questions;
use crate::person::is_pseudonym;
use crate::{events, ledger, people};

/// Decides anew about every line that has not begun, within the caller's transaction, which has locked the plan. What is no
/// longer the leaver's is skipped.
pub(super) async fn assign(
    conn: &mut PgConnection,
    plan: &Handover,
    accounts: &Accounts,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut lines = store::lines_to_assign(conn, plan.handover_id).await?;
    skip_what_is_not_theirs(conn, plan, &mut lines, now).await?;
    let (known, strange): (Vec<Line>, Vec<Line>) = lines
        .into_iter()
        .partition(|line| line.state == LineState::Skipped || accounts.get(&line.account_sid).is_some());
    let (skipped, open): (Vec<Line>, Vec<Line>) = known
        .into_iter()
        .partition(|line| line.state == LineState::Skipped);
    let decided = decide(conn, plan, &open, now).await?;
    let mut written: Vec<Line> = open
        .into_iter()
        .zip(decided)
        .map(|(line, decided)| with_decision(line, decided))
        .collect();
    written.extend(strange.into_iter().map(|line| Line {
        state: LineState::Stays,
        action: Some(Action::Stay),
        to: None,
        why: Some("account_not_configured".to_owned()),
        passed: Vec::new(),
        outcome: Some("account_not_configured".to_owned()),
        ..line
    }));
    let told: Vec<_> = skipped
        .iter()
        .map(|line| tell::line_ended(plan, line, now))
        .collect();
    written.extend(skipped);
    store::write_decided(conn, plan.handover_id, &written).await?;
    events::append(conn, &told).await
}

async fn skip_what_is_not_theirs(
    conn: &mut PgConnection,
    plan: &Handover,
    lines: &mut [Line],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let sids: Vec<String> = lines
        .iter()
        .map(|line| line.conversation_sid.to_string())
        .collect();
    let sids: Vec<&str> = sids.iter().map(String::as_str).collect();
    let over = store::conversation_states(conn, &sids).await?;
    let holders: HashMap<(String, String), Option<String>> = ledger::lines_of_many(conn, &sids)
        .await?
        .into_iter()
        .map(|(sid, line, holder)| ((sid, line), holder))
        .collect();
    for line in lines {
        let key = (line.conversation_sid.to_string(), line.line.as_str().to_owned());
        let is_over = over.get(&key.0).copied().unwrap_or(true);
        if let Some(why) = not_theirs(&plan.leaver, is_over, holders.get(&key)) {
            line.state = LineState::Skipped;
            line.outcome = Some(why.to_owned());
            line.finished_at = Some(now);
        }
    }
    Ok(())
}

/// Why a line is not the leaver's to be handed over, if it is not. The outer `None` of the holder: there is no such line.
pub(super) fn not_theirs(
    leaver: &Identity,
    is_over: bool,
    holder: Option<&Option<String>>,
) -> Option<&'static str> {
    match holder {
        _ if is_over => Some("conversation_closed"),
        None => Some("line_gone"),
        Some(holder) if holder.as_deref() == Some(leaver.as_str()) => None,
        Some(_) => Some("not_the_leavers"),
    }
}

async fn decide(
    conn: &mut PgConnection,
    plan: &Handover,
    lines: &[Line],
    now: Timestamp,
) -> Result<Vec<Decided>, sqlx::Error> {
    let sids: Vec<&str> = lines.iter().map(|line| line.conversation_sid.as_str()).collect();
    let members = store::members(conn, &sids).await?;
    let mut elsewhere: HashMap<&str, Vec<(&str, Option<&str>)>> = HashMap::new();
    for (sid, identity, number) in &members {
        let of_conversation = elsewhere.entry(sid).or_default();
        of_conversation.push((identity, number.as_deref()));
    }
    let last = ledger::last_holders_besides(conn, &sids, plan.leaver.as_str()).await?;
    let wanted: Vec<plan::Line> = lines
        .iter()
        .map(|line| {
            let sid = line.conversation_sid.as_str();
            let others = elsewhere.get(sid).into_iter().flatten();
            plan::Line {
                conversation_sid: sid.to_owned(),
                line: line.line.as_str().to_owned(),
                last_holder: last
                    .get(&(sid.to_owned(), line.line.as_str().to_owned()))
                    .filter(|holder| !is_pseudonym(holder))
                    .cloned(),
                elsewhere: others
                    .filter(|(_, number)| *number != Some(line.line.as_str()))
                    .map(|(identity, _)| (*identity).to_owned())
                    .collect(),
                fixed: fixed(line),
            }
        })
        .collect();
    let rules = resolve(conn, plan, now).await?;
    let takers = takers(conn, plan, &wanted, &rules, now).await?;
    Ok(plan::assign(&wanted, &rules, plan.otherwise, takers))
}

fn fixed(line: &Line) -> Option<Fixed> {
    if !line.by_hand {
        return None;
    }
    match (line.action?, &line.to) {
        (Action::Give, Some(to)) => Some(Fixed::Give(to.as_str().to_owned())),
        (Action::Release, _) => Some(Fixed::Release),
        (Action::Stay, _) | (Action::Give, None) => Some(Fixed::Stay),
    }
}

/// The plan's rules, with the people that they stand for now.
async fn resolve(
    conn: &mut PgConnection,
    plan: &Handover,
    now: Timestamp,
) -> Result<Vec<plan::Rule>, sqlx::Error> {
    let mut resolved = Vec::new();
    for rule in store::rules(conn, plan.handover_id).await? {
        resolved.push(match rule {
            Rule::People(people) => {
                plan::Rule::People(people.into_iter().map(Identity::into_string).collect())
            }
            Rule::Team { team, spread } => {
                let members = people::members(conn, team.as_str()).await?;
                plan::Rule::Team {
                    last_turn: store::last_turn(conn, plan.handover_id, &members).await?,
                    members,
                    spread,
                }
            }
            Rule::LastHolder => plan::Rule::LastHolder,
            Rule::Supervisor => {
                let chain = questions::supervisors_of(conn, &plan.leaver, now).await?;
                plan::Rule::Supervisor(
                    chain
                        .into_iter()
                        .map(|agent| agent.identity.into_string())
                        .collect(),
                )
            }
        });
    }
    Ok(resolved)
}

async fn takers(
    conn: &mut PgConnection,
    plan: &Handover,
    lines: &[plan::Line],
    rules: &[plan::Rule],
    now: Timestamp,
) -> Result<BTreeMap<String, Taker>, sqlx::Error> {
    let mut named: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.last_holder.as_deref())
        .collect();
    named.extend(lines.iter().filter_map(|line| match &line.fixed {
        Some(Fixed::Give(to)) => Some(to.as_str()),
        _ => None,
    }));
    for rule in rules {
        match rule {
            plan::Rule::People(people) | plan::Rule::Supervisor(people) => {
                named.extend(people.iter().map(String::as_str));
            }
            plan::Rule::Team { members, .. } => named.extend(members.iter().map(String::as_str)),
            plan::Rule::LastHolder => {}
        }
    }
    named.sort_unstable();
    named.dedup();
    let mut takers = judge(conn, plan, &named, now).await?;
    // Also where a rule names them, as the member of a team.
    let leaver = takers
        .entry(plan.leaver.as_str().to_owned())
        .or_insert_with(|| Taker::unknown(0));
    leaver.unfit = Some("is_the_leaver");
    Ok(takers)
}

/// What stands against these people being given a line: that they have left, are away, or hold as many as they may, with those
/// of this plan that are on their way to them. Nothing stands against somebody whom nobody has added to the people.
pub(super) async fn judge(
    conn: &mut PgConnection,
    plan: &Handover,
    identities: &[&str],
    now: Timestamp,
) -> Result<BTreeMap<String, Taker>, sqlx::Error> {
    let on_the_way = store::on_the_way(conn, plan.handover_id).await?;
    let loads = ledger::loads(conn, identities).await?;
    let candidates = questions::candidates(conn, identities, now, &Needs::default()).await?;
    Ok(candidates
        .into_iter()
        .map(|candidate| {
            let held = loads.get(&candidate.identity).copied().unwrap_or(0);
            let coming = on_the_way.get(&candidate.identity).copied().unwrap_or(0);
            let taker = Taker {
                load: held.saturating_add(coming),
                capacity: candidate
                    .person
                    .as_ref()
                    .and_then(|person| person.agent.profile.capacity),
                unfit: candidate.skipped.as_ref().and_then(|why| match why {
                    Unavailable::Left { .. } | Unavailable::Away { .. } => Some(why.code()),
                    _ => None,
                }),
            };
            (candidate.identity, taker)
        })
        .collect())
}

fn with_decision(line: Line, decided: Decided) -> Line {
    let (state, action, to) = match decided.choice {
        Choice::Give { to } => match Identity::try_from(to.as_str()) {
            Ok(to) => (LineState::Waiting, Action::Give, Some(to)),
            Err(_) => (LineState::Stays, Action::Stay, None),
        },
        Choice::Release => (LineState::Waiting, Action::Release, None),
        Choice::Stay => (LineState::Stays, Action::Stay, None),
    };
    Line {
        outcome: (state == LineState::Stays).then(|| decided.why.to_owned()),
        state,
        action: Some(action),
        to,
        why: Some(decided.why.to_owned()),
        passed: decided.passed,
        ..line
    }
}
