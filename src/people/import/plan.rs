//! What files would change. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::Value;

use crate::ids::Identity;
use crate::people::import::document::TeamEntry;
use crate::people::import::table::{Row, Said};
use crate::people::import::{Absent, File, Wanted, Wrong};
use crate::people::operations::{planned, replaced};
use crate::people::{Agent, Profile, Slug, Team, change, judge};

/// An agent that is not as the file wants them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStep {
    pub before: Option<Agent>,
    pub after: Agent,
    /// The file does not name them, and who is absent has left.
    pub is_absent: bool,
}

impl AgentStep {
    /// The members that change, each with what it was and what it will be.
    pub fn differences(&self) -> Value {
        change::differences(
            self.before.as_ref().map(|agent| &agent.profile),
            &self.after.profile,
        )
    }
}

/// A team that is not as the file wants it.
#[derive(Debug, Clone, PartialEq)]
pub struct TeamStep {
    pub before: Option<Team>,
    pub after: Team,
}

impl TeamStep {
    /// The members that change, each with what it was and what it will be.
    pub fn differences(&self) -> Value {
        change::differences(self.before.as_ref().map(|team| &team.plan), &self.after.plan)
    }
}

/// All that would change.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    pub teams: Vec<TeamStep>,
    pub agents: Vec<AgentStep>,
    /// Agents that the file names, and who are so already.
    pub unchanged: usize,
    pub teams_unchanged: usize,
}

/// How much of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct Totals {
    pub added: usize,
    pub changed: usize,
    pub deactivated: usize,
    pub unchanged: usize,
    pub teams_added: usize,
    pub teams_changed: usize,
    pub teams_unchanged: usize,
}

impl Plan {
    pub fn is_empty(&self) -> bool {
        self.teams.is_empty() && self.agents.is_empty()
    }

    pub fn totals(&self) -> Totals {
        let agents = |is: fn(&AgentStep) -> bool| self.agents.iter().filter(|step| is(step)).count();
        let teams_added = self.teams.iter().filter(|step| step.before.is_none()).count();
        Totals {
            added: agents(|step| step.before.is_none()),
            changed: agents(|step| step.before.is_some() && !step.is_absent),
            deactivated: agents(|step| step.is_absent),
            unchanged: self.unchanged,
            teams_added,
            teams_changed: self.teams.len() - teams_added,
            teams_unchanged: self.teams_unchanged,
        }
    }
}

/// Compares what stands with what files say, or says of every place why it cannot be so.
pub fn plan(agents: &[Agent], teams: &[Team], wanted: &Wanted, now: Timestamp) -> Result<Plan, Vec<Wrong>> {
    let rows = wanted.agents.as_deref().unwrap_or_default();
    let entries = wanted.teams.as_deref().unwrap_or_default();
    let stands: BTreeMap<&Identity, &Agent> = agents.iter().map(|agent| (&agent.identity, agent)).collect();
    let mut found = check_rows(rows, entries, agents, teams);
    found.extend(check_on_call(rows, entries, &stands));
    let is_anybody_here = agents.iter().any(|agent| !agent.has_left(now));
    if wanted.agents.is_some() && rows.is_empty() && wanted.absent == Absent::Deactivate && is_anybody_here {
        let problem = "names nobody, and whoever is absent from it would have left: that is everybody";
        found.push(Wrong {
            file: File::Agents,
            line: None,
            place: String::new(),
            problem: problem.to_owned(),
        });
    }
    if !found.is_empty() {
        return Err(found);
    }
    let mut plan = Plan::default();
    for entry in entries {
        let before = teams.iter().find(|team| team.team_id == entry.team_id);
        if before.is_some_and(|team| team.plan == entry.plan) {
            plan.teams_unchanged += 1;
        } else {
            plan.teams.push(TeamStep {
                before: before.cloned(),
                after: planned(&entry.team_id, entry.plan.clone(), before, now),
            });
        }
    }
    for row in rows {
        let before = stands.get(&row.identity).copied();
        let profile = profile(row, before);
        if before.is_some_and(|agent| agent.profile == profile) {
            plan.unchanged += 1;
        } else {
            plan.agents.push(step(&row.identity, profile, before, now, false));
        }
    }
    if wanted.agents.is_some() && wanted.absent == Absent::Deactivate {
        let named: BTreeSet<&Identity> = rows.iter().map(|row| &row.identity).collect();
        let absent = agents.iter().filter(|agent| !named.contains(&agent.identity));
        for agent in absent.filter(|agent| !agent.has_left(now)) {
            let profile = Profile {
                left_at: Some(now),
                ..agent.profile.clone()
            };
            plan.agents
                .push(step(&agent.identity, profile, Some(agent), now, true));
        }
    }
    Ok(plan)
}

fn step(
    identity: &Identity,
    profile: Profile,
    before: Option<&Agent>,
    now: Timestamp,
    is_absent: bool,
) -> AgentStep {
    AgentStep {
        before: before.cloned(),
        after: replaced(identity, profile, before, now),
        is_absent,
    }
}

/// What the row makes of an agent: what it has no column for stays as it is.
fn profile(row: &Row, before: Option<&Agent>) -> Profile {
    let before = before.map(|agent| &agent.profile);
    Profile {
        name: row.name.clone(),
        team: or_stays(
            row.team.as_ref().map(|said| &said.0),
            before.map(|profile| &profile.team),
        ),
        supervisor: or_stays(
            row.supervisor.as_ref().map(|said| &said.0),
            before.map(|profile| &profile.supervisor),
        ),
        skills: or_stays(row.skills.as_ref(), before.map(|profile| &profile.skills)),
        capacity: or_stays(
            row.capacity.as_ref().map(|said| &said.0),
            before.map(|profile| &profile.capacity),
        ),
        left_at: or_stays(
            row.left_at.as_ref().map(|said| &said.0),
            before.map(|profile| &profile.left_at),
        ),
        backup: or_stays(
            row.backup.as_ref().map(|said| &said.0),
            before.map(|profile| &profile.backup),
        ),
    }
}

fn or_stays<T: Clone + Default>(said: Option<&T>, stands: Option<&T>) -> T {
    said.or(stands).cloned().unwrap_or_default()
}

fn check_rows(rows: &[Row], entries: &[TeamEntry], agents: &[Agent], teams: &[Team]) -> Vec<Wrong> {
    let known_teams: BTreeSet<&Slug> = teams
        .iter()
        .map(|team| &team.team_id)
        .chain(entries.iter().map(|entry| &entry.team_id))
        .collect();
    let known: BTreeSet<&Identity> = agents
        .iter()
        .map(|agent| &agent.identity)
        .chain(rows.iter().map(|row| &row.identity))
        .collect();
    let supervisors = supervisors_after(rows, agents);
    let rings = judge::rings(&supervisors);
    let mut found = Vec::new();
    for row in rows {
        let mut complain = |column: &str, problem: String| {
            found.push(Wrong {
                file: File::Agents,
                line: Some(row.line),
                place: column.to_owned(),
                problem,
            });
        };
        if let Some(Said(Some(team))) = &row.team
            && !known_teams.contains(team)
        {
            let problem = "there is no such team: add it first, or bring it in with the same import";
            complain("team", problem.to_owned());
        }
        if let Some(Said(Some(backup))) = &row.backup {
            if *backup == row.identity {
                complain("backup", "is the agent: name somebody else, or nobody".to_owned());
            } else if !known.contains(backup) {
                let problem = "nobody of ours has this identity: add a row for them, or correct it";
                complain("backup", problem.to_owned());
            }
        }
        let Some(Said(Some(supervisor))) = &row.supervisor else {
            continue;
        };
        if !known.contains(supervisor) {
            let problem = "nobody of ours has this identity: add a row for them, or correct it";
            complain("supervisor", problem.to_owned());
        } else if let Some(ring) = rings.get(&row.identity) {
            let problem = format!(
                "they would be their own supervisor ({}): change one of these",
                way_round(ring, &row.identity)
            );
            complain("supervisor", problem);
        }
    }
    found
}

/// The way round from somebody to themselves, of which a long one is cut short.
fn way_round(ring: &[&Identity], from: &Identity) -> String {
    const NAMED_MAX: usize = 10;
    let place = ring.iter().position(|one| *one == from).unwrap_or(0);
    let (before, after) = ring.split_at(place);
    let all = after.iter().chain(before).map(|one| one.as_str());
    let mut way: Vec<&str> = all.take(NAMED_MAX).collect();
    if ring.len() > NAMED_MAX {
        way.push("…");
    }
    way.push(from.as_str());
    way.join(" > ")
}

/// Who is whose supervisor when the rows have had their way.
fn supervisors_after(rows: &[Row], agents: &[Agent]) -> BTreeMap<Identity, Identity> {
    let stands = agents.iter().filter_map(|agent| {
        let supervisor = agent.profile.supervisor.clone()?;
        Some((agent.identity.clone(), supervisor))
    });
    let mut supervisors: BTreeMap<Identity, Identity> = stands.collect();
    for row in rows {
        match &row.supervisor {
            Some(Said(Some(supervisor))) => {
                supervisors.insert(row.identity.clone(), supervisor.clone());
            }
            Some(Said(None)) => {
                supervisors.remove(&row.identity);
            }
            None => {}
        }
    }
    supervisors
}

fn check_on_call(rows: &[Row], entries: &[TeamEntry], stands: &BTreeMap<&Identity, &Agent>) -> Vec<Wrong> {
    let rows: BTreeSet<&Identity> = rows.iter().map(|row| &row.identity).collect();
    let mut found = Vec::new();
    for entry in entries {
        for (place, identity) in entry.plan.on_call.iter().enumerate() {
            if !rows.contains(identity) && !stands.contains_key(identity) {
                found.push(Wrong {
                    file: File::Teams,
                    line: None,
                    place: format!("/teams/{}/on_call/{place}", entry.team_id),
                    problem: "nobody of ours has this identity: add them first, or bring them in with the same import"
                        .to_owned(),
                });
            }
        }
    }
    found
}

#[cfg(test)]
mod tests;
