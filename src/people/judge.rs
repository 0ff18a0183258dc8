//! Whether somebody may be given a line, and if not, why. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use jiff::Timestamp;

use crate::ids::Identity;
use crate::people::calendar::Calendar;
use crate::people::{Agent, Slug, Status};

/// What is known of somebody when they are judged.
#[derive(Debug, Clone)]
pub struct Person {
    pub agent: Agent,
    /// Lines held now.
    pub load: u32,
    /// Of their team. None: they are in none, and have no hours.
    pub calendar: Option<Arc<Calendar>>,
}

/// What somebody has to be fit for.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// Within the hours of their team.
    pub hours: bool,
    /// With room for one more line.
    pub capacity: bool,
    /// With all of these skills.
    pub skills: Vec<Slug>,
}

impl Needs {
    /// What giving somebody a line asks of them.
    pub fn a_line() -> Self {
        Self {
            hours: true,
            capacity: true,
            skills: Vec::new(),
        }
    }
}

/// Why somebody cannot be given a line: the reason that stays longest, where there are several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unavailable {
    /// We do not know them.
    Unknown,
    Left {
        at: Timestamp,
    },
    LacksSkill {
        skill: Slug,
    },
    Away {
        until: Option<Timestamp>,
    },
    OutsideHours {
        opens_at: Option<Timestamp>,
    },
    AtCapacity {
        load: u32,
        capacity: u32,
    },
}

impl Unavailable {
    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Left { .. } => "left",
            Self::LacksSkill { .. } => "lacks_skill",
            Self::Away { .. } => "away",
            Self::OutsideHours { .. } => "outside_hours",
            Self::AtCapacity { .. } => "at_capacity",
        }
    }

    /// When it ends by itself, where that is known.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Self::Away { until } => *until,
            Self::OutsideHours { opens_at } => *opens_at,
            Self::Unknown | Self::Left { .. } | Self::LacksSkill { .. } | Self::AtCapacity { .. } => None,
        }
    }

    /// For people.
    pub fn detail(&self) -> String {
        match self {
            Self::Unknown => "nobody of ours has this identity".to_owned(),
            Self::Left { at } => format!("left at {at:.0}"),
            Self::LacksSkill { skill } => format!("lacks the skill {skill}"),
            Self::Away { until: Some(until) } => format!("away until {until:.0}"),
            Self::Away { until: None } => "away, nobody said until when".to_owned(),
            Self::OutsideHours { opens_at: Some(at) } => {
                format!("outside the hours of their team, until {at:.0}")
            }
            Self::OutsideHours { opens_at: None } => "outside the hours of their team".to_owned(),
            Self::AtCapacity { load, capacity } => format!("holds {load} of {capacity} lines"),
        }
    }
}

/// Judges one person. None: nothing stands against it.
pub fn judge(person: Option<&Person>, at: Timestamp, needs: &Needs) -> Option<Unavailable> {
    let Some(person) = person else {
        return Some(Unavailable::Unknown);
    };
    let profile = &person.agent.profile;
    if let Some(left_at) = profile.left_at.filter(|left_at| *left_at <= at) {
        return Some(Unavailable::Left { at: left_at });
    }
    if let Some(skill) = needs.skills.iter().find(|skill| !profile.skills.contains(skill)) {
        return Some(Unavailable::LacksSkill { skill: skill.clone() });
    }
    let availability = person.agent.availability.at(at);
    if availability.status == Status::Away {
        return Some(Unavailable::Away {
            until: availability.until,
        });
    }
    if let Some(calendar) = person.calendar.as_ref().filter(|_| needs.hours)
        && !calendar.is_open(at)
    {
        return Some(Unavailable::OutsideHours {
            opens_at: calendar.next_open(at),
        });
    }
    match profile.capacity.filter(|_| needs.capacity) {
        Some(capacity) if person.load >= capacity => Some(Unavailable::AtCapacity {
            load: person.load,
            capacity,
        }),
        _ => None,
    }
}

/// Somebody who was asked about, in the order asked.
#[derive(Debug, Clone)]
pub struct Candidate {
    pub identity: String,
    /// None: unknown here.
    pub person: Option<Person>,
    /// None: may be given a line.
    pub skipped: Option<Unavailable>,
}

impl Candidate {
    pub fn new(identity: &str, person: Option<Person>, at: Timestamp, needs: &Needs) -> Self {
        let skipped = judge(person.as_ref(), at, needs);
        Self {
            identity: identity.to_owned(),
            person,
            skipped,
        }
    }

    fn load(&self) -> u32 {
        self.person.as_ref().map_or(0, |person| person.load)
    }
}

/// The first that nothing stands against.
pub fn first(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().find(|candidate| candidate.skipped.is_none())
}

/// The one that holds fewest lines; the first of those that hold the same.
pub fn least_loaded(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates
        .iter()
        .filter(|candidate| candidate.skipped.is_none())
        .min_by_key(|candidate| candidate.load())
}

/// Round robin: the first after the one that had the last turn, all the way round. The order is that of the list, or by
/// identity where the last one is no longer in it.
pub fn next_after<'a>(candidates: &'a [Candidate], last: Option<&str>) -> Option<&'a Candidate> {
    let begin = last.map_or(0, |last| {
        let found = candidates.iter().position(|candidate| candidate.identity == last);
        match found {
            Some(place) => place + 1,
            None => candidates
                .iter()
                .position(|candidate| candidate.identity.as_str() > last)
                .unwrap_or(0),
        }
    });
    let begin = begin.min(candidates.len());
    let (before, after) = candidates.split_at(begin);
    after
        .iter()
        .chain(before)
        .find(|candidate| candidate.skipped.is_none())
}

/// The people above somebody, the nearest first. Ends where somebody would come twice.
pub fn chain<'a>(supervisors: &'a BTreeMap<Identity, Identity>, of: &Identity) -> Vec<&'a Identity> {
    let mut chain: Vec<&Identity> = Vec::new();
    let mut seen = BTreeSet::from([of]);
    let mut next = supervisors.get(of);
    while let Some(one) = next.filter(|one| seen.insert(one)) {
        chain.push(one);
        next = supervisors.get(one);
    }
    chain
}

/// Whether somebody is their own supervisor, over however many others: then the way round, beginning and ending with them.
pub fn cycle(supervisors: &BTreeMap<Identity, Identity>, of: &Identity) -> Option<Vec<Identity>> {
    let chain = chain(supervisors, of);
    let last = chain.last().copied().unwrap_or(of);
    (supervisors.get(last) == Some(of)).then(|| {
        let mut way = vec![of.clone()];
        way.extend(chain.into_iter().cloned());
        way.push(of.clone());
        way
    })
}

/// Everybody who is their own supervisor, each with all who are on the way round with them, in its order. In one go over all.
pub fn rings(supervisors: &BTreeMap<Identity, Identity>) -> BTreeMap<&Identity, Rc<[&Identity]>> {
    let mut done: BTreeSet<&Identity> = BTreeSet::new();
    let mut rings = BTreeMap::new();
    for start in supervisors.keys() {
        let (mut path, mut places) = (Vec::new(), BTreeMap::new());
        let mut next = Some(start);
        while let Some(one) = next.filter(|one| !done.contains(one) && !places.contains_key(one)) {
            places.insert(one, path.len());
            path.push(one);
            next = supervisors.get(one);
        }
        if let Some(place) = next.and_then(|one| places.get(one)) {
            let ring: Rc<[&Identity]> = path[*place..].into();
            rings.extend(ring.iter().map(|one| (*one, Rc::clone(&ring))));
        }
        done.extend(path);
    }
    rings
}

#[cfg(test)]
mod tests;
