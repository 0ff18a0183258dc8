//! Our people as the evaluator sees them: whose backup and supervisor is who, who is on call, who is away when, and whose
//! hours count. Pure; [`World::new`] is given what is stored.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::escalation::evaluate::{Fact, What};
use crate::escalation::policy::{Hours, Whom};
use crate::ids::Identity;
use crate::people::calendar::Calendar;
use crate::people::rotation::in_turn;
use crate::people::{Agent, Slug, Status, Team, TeamPlan, judge};

/// Our people, and when they were away.
#[derive(Debug, Clone, Default)]
pub struct World {
    members: BTreeMap<Identity, Member>,
    supervisors: BTreeMap<Identity, Identity>,
    teams: BTreeMap<Slug, (TeamPlan, Calendar)>,
    /// When people came to the team that they are in, or left the one that they were in.
    moves: BTreeMap<Identity, Timestamp>,
}

#[derive(Debug, Clone)]
struct Member {
    team: Option<Slug>,
    backup: Option<Identity>,
    left_at: Option<Timestamp>,
    away: Vec<Absence>,
    /// Since when they are available, as was last said.
    back_at: Option<Timestamp>,
}

/// A stretch of time in which somebody was away; without an end, it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Absence {
    pub from: Timestamp,
    pub to: Option<Timestamp>,
}

impl Absence {
    fn holds(self, at: Timestamp) -> bool {
        self.from <= at && self.to.is_none_or(|to| at < to)
    }
}

impl World {
    /// Everybody as they are. Of who was away before, only what lasts is known.
    pub fn new(agents: Vec<Agent>, teams: Vec<Team>) -> Self {
        let supervisors = agents.iter().filter_map(|agent| {
            let supervisor = agent.profile.supervisor.clone()?;
            Some((agent.identity.clone(), supervisor))
        });
        Self {
            supervisors: supervisors.collect(),
            members: agents
                .into_iter()
                .map(|agent| {
                    let said = agent.availability;
                    let away = (said.status == Status::Away).then_some(Absence {
                        from: said.since,
                        to: said.until,
                    });
                    let member = Member {
                        team: agent.profile.team,
                        backup: agent.profile.backup,
                        left_at: agent.profile.left_at,
                        back_at: away.is_none().then_some(said.since),
                        away: away.into_iter().collect(),
                    };
                    (agent.identity, member)
                })
                .collect(),
            teams: teams
                .into_iter()
                .map(|team| {
                    let calendar = team.plan.calendar();
                    (team.team_id, (team.plan, calendar))
                })
                .collect(),
            moves: BTreeMap::new(),
        }
    }

    /// With when people came to the team that they are in.
    #[must_use]
    pub fn with_moves(mut self, moves: BTreeMap<Identity, Timestamp>) -> Self {
        self.moves = moves;
        self
    }

    /// Since when somebody is in the team that they are in, or in none.
    pub fn in_team_since(&self, who: Option<&Identity>) -> Timestamp {
        let moved = who.and_then(|who| self.moves.get(who));
        moved.copied().unwrap_or(Timestamp::MIN)
    }

    /// With all the times at which people were away, as the log tells of them, in place of those that last.
    #[must_use]
    pub fn with_absences(mut self, mut absences: BTreeMap<Identity, Vec<Absence>>) -> Self {
        for (identity, member) in &mut self.members {
            if let Some(told) = absences.remove(identity) {
                member.away = told;
            }
        }
        self
    }

    pub fn team_of(&self, who: &Identity) -> Option<&Slug> {
        self.members.get(who)?.team.as_ref()
    }

    /// When these people went away, left and came back, in order.
    pub fn absences_of<'a>(&'a self, people: impl Iterator<Item = &'a Identity>) -> Vec<Fact> {
        let mut facts = Vec::new();
        for who in people {
            let Some(member) = self.members.get(who) else {
                continue;
            };
            let left_at = member.left_at.unwrap_or(Timestamp::MAX);
            // How long they were away before is not known; that they came back is.
            facts.extend(member.back_at.filter(|at| *at < left_at).map(|at| Fact {
                at,
                what: What::Back(who.clone()),
            }));
            for absence in member.away.iter().filter(|absence| absence.from < left_at) {
                facts.push(Fact {
                    at: absence.from,
                    what: What::Absent(who.clone()),
                });
                if let Some(to) = absence.to.filter(|to| *to < left_at) {
                    facts.push(Fact {
                        at: to,
                        what: What::Back(who.clone()),
                    });
                }
            }
            if let Some(left_at) = member.left_at {
                facts.push(Fact {
                    at: left_at,
                    what: What::Absent(who.clone()),
                });
            }
        }
        facts
    }

    /// So much later, counted by somebody's hours. None: never.
    pub fn after(
        &self,
        hours: &Hours,
        holder: Option<&Identity>,
        at: Timestamp,
        time: SignedDuration,
    ) -> Option<Timestamp> {
        let team = match hours {
            Hours::Always => None,
            Hours::Team(team) => Some(team),
            Hours::Holder => holder.and_then(|holder| self.team_of(holder)),
        };
        match team.and_then(|team| self.teams.get(team)) {
            Some((_, calendar)) => calendar.add_business_time(at, time),
            None => at.checked_add(time).ok(),
        }
    }

    /// Whom a step concerns, or why nobody.
    pub fn find(
        &self,
        whom: &Whom,
        holder: Option<&Identity>,
        at: Timestamp,
    ) -> Result<Identity, &'static str> {
        let found = match whom {
            Whom::Holder => holder.ok_or("unstaffed")?,
            Whom::Backup => {
                let member = self.members.get(holder.ok_or("unstaffed")?);
                member
                    .and_then(|member| member.backup.as_ref())
                    .ok_or("no_backup")?
            }
            Whom::Supervisor => {
                let chain = judge::chain(&self.supervisors, holder.ok_or("unstaffed")?);
                let mut able = chain.into_iter().filter(|one| self.absence(one, at).is_none());
                able.next().ok_or("no_supervisor")?
            }
            Whom::OnCall(team) => {
                let on_call = self.on_call(team, at).ok_or("nobody_on_call")?;
                return Ok(on_call);
            }
            Whom::Person(person) if !self.members.contains_key(person) => return Err("unknown"),
            Whom::Person(person) => person,
        };
        match self.absence(found, at) {
            Some(why) if *whom != Whom::Holder => Err(why),
            _ => Ok(found.clone()),
        }
    }

    fn on_call(&self, team: &Slug, at: Timestamp) -> Option<Identity> {
        let (plan, _) = self.teams.get(team)?;
        let turn = plan
            .rotation
            .map_or(0, |rotation| rotation.turn(plan.time_zone.time_zone(), at).number);
        let order = in_turn(&plan.on_call, turn);
        order.into_iter().find(|one| self.absence(one, at).is_none())
    }

    /// Why somebody is not there.
    fn absence(&self, who: &Identity, at: Timestamp) -> Option<&'static str> {
        let member = self.members.get(who)?;
        if member.left_at.is_some_and(|left_at| left_at <= at) {
            Some("left")
        } else if member.away.iter().any(|absence| absence.holds(at)) {
            Some("away")
        } else {
            None
        }
    }
}
