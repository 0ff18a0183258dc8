//! Who gets a line that nobody holds. Pure.

use std::borrow::Cow;

use crate::assignment::Passed;
use crate::numbers::Rule;
use crate::people::judge::{Candidate, first, least_loaded, next_after};

/// Of those who were passed over, so many are told.
const PASSED_MAX: usize = 50;
/// In the group on another line.
const IN_GROUP: &str = "target_in_group";

/// What is chosen from.
#[derive(Debug)]
pub struct Asked<'a> {
    pub rule: Rule,
    /// Who held this number with these people last, judged.
    pub last_holder: Option<&'a Candidate>,
    /// Whom the rule chooses from, judged, in its order.
    pub candidates: &'a [Candidate],
    /// Whose turn it was last.
    pub last_turn: Option<&'a str>,
    /// Who is in the group on another line.
    pub elsewhere: &'a [String],
    /// Why it is not decided yet.
    pub not_yet: Option<Why>,
}

/// How somebody was chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    LastHolder,
    Rule(Rule),
}

impl By {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LastHolder => "last_holder",
            Self::Rule(rule) => rule.as_str(),
        }
    }
}

/// Why a line waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The rule chooses nobody.
    Queue,
    /// There is nobody to choose from.
    NobodyInTeam,
    /// Something stands against everybody.
    NobodyFree,
    /// Members of the group may be on their way to us, and who held the number with all of them last is to have it.
    MembersComing,
    /// A transfer that somebody asked for is open, and may give it to somebody. No more than a note: nobody is told of it.
    TransferOpen,
}

impl Why {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::NobodyInTeam => "nobody_in_team",
            Self::NobodyFree => "nobody_free",
            Self::MembersComing => "members_coming",
            Self::TransferOpen => "transfer_open",
        }
    }
}

/// What becomes of the line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    Give { to: String, by: By, passed: Vec<Passed> },
    Wait { why: Why, passed: Vec<Passed> },
}

/// Decides. Who is passed over is told with the reason, in the order in which they were looked at.
pub fn choose(asked: &Asked<'_>) -> Decision {
    if let Some(why) = asked.not_yet {
        return Decision::Wait {
            why,
            passed: Vec::new(),
        };
    }
    let is_elsewhere = |candidate: &Candidate| asked.elsewhere.contains(&candidate.identity);
    let why_not = |candidate: &Candidate| match &candidate.skipped {
        Some(reason) => Some(reason.code()),
        None if is_elsewhere(candidate) => Some(IN_GROUP),
        None => None,
    };
    let passed = |candidate: &Candidate| {
        why_not(candidate).map(|why| Passed {
            identity: candidate.identity.clone(),
            why: why.to_owned(),
        })
    };
    let mut all_passed = Vec::new();
    if let Some(last) = asked.last_holder {
        match passed(last) {
            None => {
                return Decision::Give {
                    to: last.identity.clone(),
                    by: By::LastHolder,
                    passed: all_passed,
                };
            }
            Some(one) => all_passed.push(one),
        }
    }
    for one in asked.candidates.iter().filter_map(passed) {
        if !all_passed.contains(&one) && all_passed.len() < PASSED_MAX {
            all_passed.push(one);
        }
    }
    // The order is by identity, so that the turn goes on from who is elsewhere although they are not in it.
    let mut open = Cow::Borrowed(asked.candidates);
    if asked.candidates.iter().any(is_elsewhere) {
        open.to_mut().retain(|candidate| !is_elsewhere(candidate));
    }
    let chosen = match asked.rule {
        Rule::Queue => None,
        Rule::RoundRobin => next_after(&open, asked.last_turn),
        Rule::LeastLoaded => least_loaded(&open),
        Rule::OnCall | Rule::Person => first(&open),
    };
    match chosen {
        Some(chosen) => Decision::Give {
            to: chosen.identity.clone(),
            by: By::Rule(asked.rule),
            passed: all_passed,
        },
        None => Decision::Wait {
            why: match asked.rule {
                Rule::Queue => Why::Queue,
                _ if asked.candidates.is_empty() => Why::NobodyInTeam,
                _ => Why::NobodyFree,
            },
            passed: all_passed,
        },
    }
}

#[cfg(test)]
mod tests;
