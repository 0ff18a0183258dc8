//! Who gets which line, and why. Pure.
//!
//! The lines are gone through in their order, and each is counted at once for whoever gets it, so that nobody is given
//! more than they can hold and a team is spread over by what its people will have, not by what they have.

use std::collections::BTreeMap;

use crate::handover::{Otherwise, Passed, Spread};

/// A line to be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub conversation_sid: String,
    pub line: String,
    /// Who held it last, besides the leaver.
    pub last_holder: Option<String>,
    /// Who is in its conversation on another line, or on none: Twilio takes a person once.
    pub elsewhere: Vec<String>,
    /// What somebody decided about it by hand.
    pub fixed: Option<Fixed>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fixed {
    Give(String),
    Release,
    Stay,
}

/// Somebody who may be given lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taker {
    /// Lines held, and on their way to them.
    pub load: u32,
    /// None: as many as come.
    pub capacity: Option<u32>,
    /// Why they cannot be given any line: `left`, `away`.
    pub unfit: Option<&'static str>,
}

impl Taker {
    /// Nothing is known that stands against it.
    pub fn unknown(load: u32) -> Self {
        Self {
            load,
            capacity: None,
            unfit: None,
        }
    }

    /// Why they cannot be given one more.
    pub fn unavailable(&self) -> Option<&'static str> {
        let is_full = self.capacity.is_some_and(|capacity| self.load >= capacity);
        self.unfit.or(is_full.then_some("at_capacity"))
    }
}

/// A rule, with the people that it stands for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// The first of them who can.
    People(Vec<String>),
    Team {
        members: Vec<String>,
        spread: Spread,
        /// Who of them had the last turn, of what has begun.
        last_turn: Option<String>,
    },
    LastHolder,
    /// The people above the leaver, the nearest first.
    Supervisor(Vec<String>),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    Give { to: String },
    Release,
    Stay,
}

/// What is decided about a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decided {
    pub choice: Choice,
    /// By which rule: a stable code.
    pub why: &'static str,
    /// Who was passed over on the way; not those of a team who only hold more.
    pub passed: Vec<Passed>,
}

/// So many are named as passed over at most.
const PASSED_MAX: usize = 20;

/// Decides about each line, in their order. Who is not among `takers` is taken as somebody of whom nothing is known.
pub fn assign(
    lines: &[Line],
    rules: &[Rule],
    otherwise: Otherwise,
    mut takers: BTreeMap<String, Taker>,
) -> Vec<Decided> {
    // What is decided by hand is counted first, whichever line it is of.
    for line in lines {
        if let Some(Fixed::Give(to)) = &line.fixed {
            count(&mut takers, to);
        }
    }
    let mut last_turns: Vec<Option<String>> = rules
        .iter()
        .map(|rule| match rule {
            Rule::Team { last_turn, .. } => last_turn.clone(),
            Rule::People(_) | Rule::LastHolder | Rule::Supervisor(_) => None,
        })
        .collect();
    lines
        .iter()
        .map(|line| match &line.fixed {
            Some(fixed) => by_hand(fixed),
            None => decide(line, rules, otherwise, &mut takers, &mut last_turns),
        })
        .collect()
}

fn by_hand(fixed: &Fixed) -> Decided {
    Decided {
        choice: match fixed {
            Fixed::Give(to) => Choice::Give { to: to.clone() },
            Fixed::Release => Choice::Release,
            Fixed::Stay => Choice::Stay,
        },
        why: "by_hand",
        passed: Vec::new(),
    }
}

fn decide(
    line: &Line,
    rules: &[Rule],
    otherwise: Otherwise,
    takers: &mut BTreeMap<String, Taker>,
    last_turns: &mut [Option<String>],
) -> Decided {
    let mut passed = Vec::new();
    for (rule, last_turn) in rules.iter().zip(last_turns) {
        let found = match rule {
            Rule::People(people) => first(line, people, takers, &mut passed).map(|to| (to, "people")),
            Rule::Supervisor(chain) => first(line, chain, takers, &mut passed).map(|to| (to, "supervisor")),
            Rule::LastHolder => {
                let last = line.last_holder.as_slice();
                first(line, last, takers, &mut passed).map(|to| (to, "last_holder"))
            }
            Rule::Team { members, spread, .. } => {
                let fit = fit(line, members, takers, &mut passed);
                match spread {
                    Spread::LeastLoaded => fit
                        .into_iter()
                        .min_by_key(|to| takers.get(*to).map_or(0, |taker| taker.load))
                        .map(|to| (to.to_owned(), "least_loaded")),
                    Spread::RoundRobin => next(&fit, last_turn.as_deref()).map(|to| {
                        *last_turn = Some(to.to_owned());
                        (to.to_owned(), "round_robin")
                    }),
                }
            }
        };
        if let Some((to, why)) = found {
            count(takers, &to);
            return Decided {
                choice: Choice::Give { to },
                why,
                passed,
            };
        }
    }
    Decided {
        choice: match otherwise {
            Otherwise::Stay => Choice::Stay,
            Otherwise::Release => Choice::Release,
        },
        why: "nobody_can_take_it",
        passed,
    }
}

fn first(
    line: &Line,
    people: &[String],
    takers: &BTreeMap<String, Taker>,
    passed: &mut Vec<Passed>,
) -> Option<String> {
    for person in people {
        match stands_against(line, person, takers) {
            None => return Some(person.clone()),
            Some(why) => pass(passed, person, why),
        }
    }
    None
}

fn fit<'a>(
    line: &Line,
    people: &'a [String],
    takers: &BTreeMap<String, Taker>,
    passed: &mut Vec<Passed>,
) -> Vec<&'a str> {
    let mut fit = Vec::new();
    for person in people {
        match stands_against(line, person, takers) {
            None => fit.push(person.as_str()),
            Some(why) => pass(passed, person, why),
        }
    }
    fit
}

/// The first after the one that had the last turn, all the way round; they are in the order of their identities.
fn next<'a>(fit: &[&'a str], last: Option<&str>) -> Option<&'a str> {
    let after = fit.iter().find(|one| last.is_none_or(|last| **one > last));
    after.or_else(|| fit.first()).copied()
}

fn stands_against(line: &Line, person: &str, takers: &BTreeMap<String, Taker>) -> Option<&'static str> {
    if line.elsewhere.iter().any(|other| other == person) {
        return Some("target_in_group");
    }
    takers.get(person).and_then(Taker::unavailable)
}

fn pass(passed: &mut Vec<Passed>, person: &str, why: &str) {
    let is_named = passed.iter().any(|one| one.to == person);
    if !is_named && passed.len() < PASSED_MAX {
        passed.push(Passed {
            to: person.to_owned(),
            why: why.to_owned(),
        });
    }
}

fn count(takers: &mut BTreeMap<String, Taker>, to: &str) {
    let taker = takers.entry(to.to_owned()).or_insert_with(|| Taker::unknown(0));
    taker.load = taker.load.saturating_add(1);
}

#[cfg(test)]
mod tests;
