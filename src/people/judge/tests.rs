use serde_json::json;

use super::*;
use crate::people::{Availability, Profile};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// Somebody who may be given a line at any time.
fn person(identity: &str, load: u32) -> Person {
    let begin = at("2026-03-01T00:00:00Z");
    Person {
        agent: Agent {
            identity: identity.parse().unwrap(),
            profile: Profile {
                name: identity.to_owned(),
                team: None,
                supervisor: None,
                backup: None,
                skills: ["spanish".parse().unwrap()].into(),
                capacity: None,
                left_at: None,
            },
            availability: Availability {
                status: Status::Available,
                reason: None,
                until: None,
                since: begin,
                set_by: None,
            },
            version: 1,
            created_at: begin,
            updated_at: begin,
        },
        load,
        calendar: None,
    }
}

fn office_hours() -> Arc<Calendar> {
    let week = serde_json::from_value(json!({ "monday": ["09:00-17:00"] })).unwrap();
    let zone = "Europe/London".parse().unwrap();
    Arc::new(Calendar::new(
        &zone,
        &week,
        &crate::people::hours::Holidays::default(),
    ))
}

#[test]
fn the_reason_that_stays_longest_is_told() {
    // A Sunday.
    let now = at("2026-03-01T14:00:00Z");
    let needs = Needs {
        skills: vec!["welsh".parse().unwrap()],
        ..Needs::a_line()
    };
    let mut one = person("maya", 3);
    one.agent.profile.capacity = Some(3);
    one.agent.profile.left_at = Some(at("2026-03-01T13:00:00Z"));
    one.agent.availability.status = Status::Away;
    one.calendar = Some(office_hours());
    let code = |one: &Person, needs: &Needs| judge(Some(one), now, needs).map(|reason| reason.code());

    assert_eq!(judge(None, now, &needs), Some(Unavailable::Unknown));
    assert_eq!(code(&one, &needs), Some("left"));
    one.agent.profile.left_at = Some(at("2026-03-01T14:00:01Z"));
    assert_eq!(code(&one, &needs), Some("lacks_skill"));
    one.agent.profile.skills.insert("welsh".parse().unwrap());
    assert_eq!(code(&one, &needs), Some("away"));
    one.agent.availability.until = Some(now);
    let closed = judge(Some(&one), now, &needs).unwrap();
    assert_eq!(
        (closed.code(), closed.until()),
        ("outside_hours", Some(at("2026-03-02T09:00:00Z")))
    );
    one.calendar = None;
    let full = judge(Some(&one), now, &needs).unwrap();
    assert_eq!(
        (full.code(), full.detail().as_str()),
        ("at_capacity", "holds 3 of 3 lines")
    );
    one.load = 2;
    assert_eq!(code(&one, &needs), None);
}

#[test]
fn only_what_is_needed_is_asked() {
    let now = at("2026-03-01T14:00:00Z");
    let mut one = person("maya", 3);
    one.agent.profile.capacity = Some(0);
    one.calendar = Some(office_hours());
    assert_eq!(judge(Some(&one), now, &Needs::default()), None);
    let hours = Needs {
        hours: true,
        ..Needs::default()
    };
    assert!(judge(Some(&one), now, &hours).is_some());
    let capacity = Needs {
        capacity: true,
        ..Needs::default()
    };
    assert!(judge(Some(&one), now, &capacity).is_some());
}

fn candidates(loads: &[(&str, Option<u32>)]) -> Vec<Candidate> {
    let now = at("2026-03-01T14:00:00Z");
    loads
        .iter()
        .map(|(identity, load)| {
            Candidate::new(
                identity,
                load.map(|load| person(identity, load)),
                now,
                &Needs::default(),
            )
        })
        .collect()
}

fn name(found: Option<&Candidate>) -> Option<&str> {
    found.map(|candidate| candidate.identity.as_str())
}

#[test]
fn the_least_loaded_is_the_first_of_those_with_fewest_lines() {
    let some = candidates(&[
        ("ana", None),
        ("ben", Some(4)),
        ("cleo", Some(2)),
        ("dora", Some(2)),
    ]);
    assert_eq!(name(first(&some)), Some("ben"));
    assert_eq!(name(least_loaded(&some)), Some("cleo"));
    assert_eq!(name(least_loaded(&candidates(&[("ana", None)]))), None);
}

#[test]
fn turns_go_round_past_those_who_are_skipped() {
    let some = candidates(&[
        ("ana", Some(0)),
        ("ben", None),
        ("cleo", Some(0)),
        ("eva", Some(9)),
    ]);
    for (last, next) in [
        (None, "ana"),
        (Some("ana"), "cleo"),
        (Some("cleo"), "eva"),
        (Some("eva"), "ana"),
        // Who had the last turn is gone: whoever would have come after.
        (Some("dora"), "eva"),
        (Some("zoe"), "ana"),
    ] {
        assert_eq!(name(next_after(&some, last)), Some(next), "after {last:?}");
    }
    assert_eq!(
        name(next_after(&candidates(&[("ana", Some(1))]), Some("ana"))),
        Some("ana")
    );
    assert_eq!(name(next_after(&[], Some("ana"))), None);
}

#[test]
fn a_cycle_is_named_all_the_way_round() {
    let of = |pairs: &[(&str, &str)]| -> BTreeMap<Identity, Identity> {
        pairs
            .iter()
            .map(|(one, other)| (one.parse().unwrap(), other.parse().unwrap()))
            .collect()
    };
    let way = |pairs: &[(&str, &str)], of_whom: &str| {
        cycle(&of(pairs), &of_whom.parse().unwrap())
            .map(|way| way.iter().map(Identity::as_str).collect::<Vec<_>>().join(" > "))
    };
    let fine = [("ana", "ben"), ("ben", "cleo"), ("dora", "cleo")];
    assert_eq!(way(&fine, "ana"), None);
    assert_eq!(way(&[("ana", "ana")], "ana").as_deref(), Some("ana > ana"));
    let round = [("ana", "ben"), ("ben", "cleo"), ("cleo", "ana"), ("dora", "ana")];
    assert_eq!(way(&round, "ana").as_deref(), Some("ana > ben > cleo > ana"));
    assert_eq!(way(&round, "dora"), None, "somebody else's cycle");
    let above = of(&round);
    assert_eq!(chain(&above, &"dora".parse().unwrap()).len(), 3, "and it ends");
}

#[test]
fn rings_are_found_in_one_go_however_many_there_are() {
    let name = |number: usize| -> Identity { format!("agent-{number}").parse().unwrap() };
    let people = 20_000;
    let mut chain: BTreeMap<Identity, Identity> = (1..people).map(|n| (name(n), name(n - 1))).collect();
    assert!(rings(&chain).is_empty());
    chain.insert(name(0), name(people - 1));
    let found = rings(&chain);
    assert_eq!(found.len(), people);
    assert_eq!(found[&name(7)].len(), people);
    // A tail that leads to a ring is not on it.
    let tail = BTreeMap::from([(name(1), name(2)), (name(2), name(3)), (name(3), name(2))]);
    let on: Vec<&str> = rings(&tail).into_keys().map(Identity::as_str).collect();
    assert_eq!(on, ["agent-2", "agent-3"]);
}
