use std::collections::BTreeSet;

use jiff::Timestamp;
use proptest::prelude::*;

use super::*;
use crate::people::judge::{Needs, Person};
use crate::people::{Agent, Availability, Profile, Status};

fn at() -> Timestamp {
    "2026-03-01T14:00:00Z".parse().unwrap()
}

fn candidate(identity: &str, load: u32, status: Status) -> Candidate {
    let agent = Agent {
        identity: identity.parse().unwrap(),
        profile: Profile {
            name: identity.to_owned(),
            team: None,
            supervisor: None,
            backup: None,
            skills: BTreeSet::new(),
            capacity: Some(3),
            left_at: None,
        },
        availability: Availability {
            status,
            reason: None,
            until: None,
            since: at(),
            set_by: None,
        },
        version: 1,
        created_at: at(),
        updated_at: at(),
    };
    let person = Person {
        agent,
        load,
        calendar: None,
    };
    Candidate::new(identity, Some(person), at(), &Needs::a_line())
}

fn here(identity: &str, load: u32) -> Candidate {
    candidate(identity, load, Status::Available)
}

fn away(identity: &str) -> Candidate {
    candidate(identity, 0, Status::Away)
}

fn asked(rule: Rule, candidates: &[Candidate]) -> Asked<'_> {
    Asked {
        rule,
        last_holder: None,
        candidates,
        last_turn: None,
        elsewhere: &[],
        not_yet: None,
    }
}

fn to(decision: &Decision) -> Option<(&str, &'static str)> {
    match decision {
        Decision::Give { to, by, .. } => Some((to, by.as_str())),
        Decision::Wait { .. } => None,
    }
}

#[test]
fn who_held_it_last_has_it_before_any_rule() {
    let team = [here("ada", 0), here("ben", 2)];
    let last = here("zoe", 2);
    let decision = choose(&Asked {
        last_holder: Some(&last),
        ..asked(Rule::LeastLoaded, &team)
    });
    assert_eq!(to(&decision), Some(("zoe", "last_holder")));

    let last = away("zoe");
    let decision = choose(&Asked {
        last_holder: Some(&last),
        ..asked(Rule::LeastLoaded, &team)
    });
    assert_eq!(to(&decision), Some(("ada", "least_loaded")));
    let Decision::Give { passed, .. } = decision else {
        unreachable!("it is given");
    };
    assert_eq!(passed.len(), 1);
    assert_eq!(
        (passed[0].identity.as_str(), passed[0].why.as_str()),
        ("zoe", "away")
    );
}

#[test]
fn turns_go_round_and_pass_over_whoever_is_elsewhere_in_the_group() {
    let team = [here("ada", 0), away("ben"), here("cy", 0), here("dee", 0)];
    let elsewhere = ["cy".to_owned()];
    let turn = |last: Option<&str>, elsewhere: &[String]| {
        let decision = choose(&Asked {
            last_turn: last,
            elsewhere,
            ..asked(Rule::RoundRobin, &team)
        });
        to(&decision).map(|(to, _)| to.to_owned())
    };
    assert_eq!(turn(None, &[]).as_deref(), Some("ada"));
    assert_eq!(turn(Some("ada"), &[]).as_deref(), Some("cy"));
    assert_eq!(turn(Some("ada"), &elsewhere).as_deref(), Some("dee"));
    assert_eq!(turn(Some("cy"), &elsewhere).as_deref(), Some("dee"));
    assert_eq!(turn(Some("dee"), &[]).as_deref(), Some("ada"));
    assert_eq!(
        turn(Some("bob"), &[]).as_deref(),
        Some("cy"),
        "who is no longer there had the turn"
    );
}

#[test]
fn what_waits_says_why() {
    let why = |rule, candidates: &[Candidate]| match choose(&asked(rule, candidates)) {
        Decision::Wait { why, passed } => (why.as_str(), passed.len()),
        Decision::Give { .. } => panic!("it is given"),
    };
    assert_eq!(why(Rule::Queue, &[here("ada", 0)]), ("queue", 0));
    assert_eq!(why(Rule::OnCall, &[]), ("nobody_in_team", 0));
    assert_eq!(
        why(Rule::RoundRobin, &[here("ada", 3), away("ben")]),
        ("nobody_free", 2)
    );
    let unknown = Candidate::new("ghost", None, at(), &Needs::default());
    assert_eq!(why(Rule::Person, &[unknown]), ("nobody_free", 1));
}

#[test]
fn what_is_not_decided_yet_is_given_to_nobody() {
    let (team, last) = ([here("ada", 0)], here("zoe", 0));
    let decision = choose(&Asked {
        last_holder: Some(&last),
        not_yet: Some(Why::MembersComing),
        ..asked(Rule::RoundRobin, &team)
    });
    let (why, passed) = (Why::MembersComing, Vec::new());
    assert_eq!(decision, Decision::Wait { why, passed });
}

fn team() -> impl Strategy<Value = Vec<Candidate>> {
    prop::collection::vec((0_u32..4, any::<bool>()), 0..8).prop_map(|loads| {
        loads
            .into_iter()
            .enumerate()
            .map(|(place, (load, is_here))| {
                let status = if is_here { Status::Available } else { Status::Away };
                candidate(&format!("agent{place}"), load, status)
            })
            .collect()
    })
}

proptest! {
    /// Nobody is given a line whom something stands against, and a line waits only where something stands against all.
    #[test]
    fn only_who_is_free_is_chosen_and_somebody_is_where_one_is(
        team in team(),
        last in 0_usize..9,
        taken in prop::collection::vec(0_usize..8, 0..3),
        rule in prop::sample::select(vec![Rule::RoundRobin, Rule::LeastLoaded, Rule::OnCall, Rule::Person]),
    ) {
        let elsewhere: Vec<String> = taken.iter().map(|place| format!("agent{place}")).collect();
        let last = format!("agent{last}");
        let asked = Asked {
            rule,
            last_holder: None,
            candidates: &team,
            last_turn: Some(&last),
            elsewhere: &elsewhere,
            not_yet: None,
        };
        let free: Vec<&Candidate> = team
            .iter()
            .filter(|one| one.skipped.is_none() && !elsewhere.contains(&one.identity))
            .collect();
        match choose(&asked) {
            Decision::Give { to, passed, .. } => {
                let chosen = free.iter().find(|one| one.identity == to);
                prop_assert!(chosen.is_some());
                prop_assert_eq!(passed.len(), team.len() - free.len());
                if rule == Rule::LeastLoaded {
                    let load = |one: &Candidate| one.person.as_ref().unwrap().load;
                    prop_assert!(free.iter().all(|one| load(one) >= load(chosen.unwrap())));
                }
            }
            Decision::Wait { passed, .. } => {
                prop_assert!(free.is_empty());
                prop_assert_eq!(passed.len(), team.len());
            }
        }
    }

    /// Over as many turns as people are free, everybody has one.
    #[test]
    fn turns_are_fair(team in team()) {
        let free: BTreeSet<&str> = team
            .iter()
            .filter(|one| one.skipped.is_none())
            .map(|one| one.identity.as_str())
            .collect();
        let (mut last, mut had) = (None::<String>, BTreeSet::new());
        for _ in 0..free.len() {
            let decision = choose(&Asked {
                last_turn: last.as_deref(),
                ..asked(Rule::RoundRobin, &team)
            });
            let Decision::Give { to, .. } = decision else { panic!("somebody is free") };
            had.insert(to.clone());
            last = Some(to);
        }
        prop_assert_eq!(had.len(), free.len());
    }
}
