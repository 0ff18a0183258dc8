use proptest::prelude::*;

use super::*;

fn line(number: u32) -> Line {
    Line {
        conversation_sid: format!("CH{number:032}"),
        line: "+15017122661".to_owned(),
        last_holder: None,
        elsewhere: Vec::new(),
        fixed: None,
    }
}

fn taker(load: u32, capacity: Option<u32>, unfit: Option<&'static str>) -> Taker {
    Taker {
        load,
        capacity,
        unfit,
    }
}

fn people(people: &[(&str, Taker)]) -> BTreeMap<String, Taker> {
    let named = people
        .iter()
        .map(|(name, taker)| ((*name).to_owned(), taker.clone()));
    named.collect()
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn team(members: &[&str], spread: Spread) -> Rule {
    Rule::Team {
        members: names(members),
        spread,
        last_turn: None,
    }
}

fn to(decided: &[Decided]) -> Vec<&str> {
    decided
        .iter()
        .map(|one| match &one.choice {
            Choice::Give { to } => to.as_str(),
            Choice::Release => "(released)",
            Choice::Stay => "(stays)",
        })
        .collect()
}

#[test]
fn a_team_is_spread_over_by_what_its_people_will_hold() {
    let lines: Vec<Line> = (0..6).map(line).collect();
    let takers = people(&[
        ("ada", taker(3, None, None)),
        ("ben", taker(0, Some(2), None)),
        ("cyd", taker(0, None, Some("away"))),
        ("dan", taker(1, None, None)),
    ]);
    let rules = [team(&["ada", "ben", "cyd", "dan"], Spread::LeastLoaded)];
    let decided = assign(&lines, &rules, Otherwise::Stay, takers);
    assert_eq!(to(&decided), ["ben", "ben", "dan", "dan", "ada", "dan"]);
    assert_eq!(decided[0].why, "least_loaded");
    let passed: Vec<_> = decided[5]
        .passed
        .iter()
        .map(|one| (one.to.as_str(), one.why.as_str()))
        .collect();
    assert_eq!(passed, [("ben", "at_capacity"), ("cyd", "away")]);
}

#[test]
fn turns_go_round_and_pass_over_who_is_full() {
    let lines: Vec<Line> = (0..5).map(line).collect();
    let takers = people(&[("ben", taker(0, Some(1), None))]);
    let rules = [team(&["ada", "ben", "cyd"], Spread::RoundRobin)];
    let decided = assign(&lines, &rules, Otherwise::Stay, takers);
    assert_eq!(to(&decided), ["ada", "ben", "cyd", "ada", "cyd"]);
}

#[test]
fn the_first_rule_that_finds_somebody_decides() {
    let mut lines: Vec<Line> = (0..4).map(line).collect();
    lines[0].last_holder = Some("ada".to_owned());
    lines[1].last_holder = Some("gone".to_owned());
    lines[2].last_holder = Some("ada".to_owned());
    lines[2].elsewhere = names(&["ada"]);
    let takers = people(&[
        ("gone", taker(0, None, Some("left"))),
        ("ben", taker(0, Some(1), None)),
    ]);
    let rules = [
        Rule::LastHolder,
        Rule::People(names(&["ben"])),
        Rule::Supervisor(names(&["sam"])),
    ];
    let decided = assign(&lines, &rules, Otherwise::Stay, takers);
    assert_eq!(to(&decided), ["ada", "ben", "sam", "sam"]);
    let whys: Vec<_> = decided.iter().map(|one| one.why).collect();
    assert_eq!(whys, ["last_holder", "people", "supervisor", "supervisor"]);
    let passed: Vec<_> = decided[2]
        .passed
        .iter()
        .map(|one| (one.to.as_str(), one.why.as_str()))
        .collect();
    assert_eq!(passed, [("ada", "target_in_group"), ("ben", "at_capacity")]);
}

#[test]
fn what_nobody_can_take_stays_or_is_released_as_the_plan_says() {
    let lines = [line(0)];
    let nobody = || people(&[("ben", taker(2, Some(2), None))]);
    let rules = [Rule::People(names(&["ben"]))];
    let stays = assign(&lines, &rules, Otherwise::Stay, nobody());
    assert_eq!(
        (to(&stays), stays[0].why),
        (vec!["(stays)"], "nobody_can_take_it")
    );
    assert_eq!(stays[0].passed.len(), 1);
    assert_eq!(
        to(&assign(&lines, &rules, Otherwise::Release, nobody())),
        ["(released)"]
    );
}

#[test]
fn what_is_decided_by_hand_stands_and_is_counted_first() {
    let mut lines: Vec<Line> = (0..3).map(line).collect();
    lines[2].fixed = Some(Fixed::Give("ben".to_owned()));
    let takers = people(&[("ben", taker(0, Some(2), None))]);
    let decided = assign(&lines, &[Rule::People(names(&["ben"]))], Otherwise::Stay, takers);
    assert_eq!(to(&decided), ["ben", "(stays)", "ben"]);
    assert_eq!(decided[2].why, "by_hand");
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let some = || proptest::sample::subsequence(vec!["a", "b", "c", "d", "e"], 0..=5);
    let rule = prop_oneof![
        some().prop_map(|people| Rule::People(names(&people))),
        some().prop_map(|members| team(&members, Spread::LeastLoaded)),
        some().prop_map(|members| team(&members, Spread::RoundRobin)),
        some().prop_map(|chain| Rule::Supervisor(names(&chain))),
        Just(Rule::LastHolder),
    ];
    proptest::collection::vec(rule, 0..4)
}

proptest! {
    #[test]
    fn every_line_has_one_outcome_and_nobody_gets_what_they_cannot_take(
        count in 0_u32..60,
        rules in rules(),
        loads in proptest::collection::vec((0_u32..4, proptest::option::of(0_u32..12), 0_u8..4), 5),
        seeds in proptest::collection::vec((0_usize..7, 0_usize..7), 60),
    ) {
        let all = ["a", "b", "c", "d", "e"];
        let takers: BTreeMap<String, Taker> = all.iter().zip(&loads).map(|(name, (load, capacity, fate))| {
            let unfit = match fate { 0 => Some("away"), _ => None };
            ((*name).to_owned(), taker(*load, *capacity, unfit))
        }).collect();
        let lines: Vec<Line> = (0..count).map(|number| {
            let (last, other) = seeds[number as usize];
            Line {
                last_holder: all.get(last).map(|name| (*name).to_owned()),
                elsewhere: all.get(other).map(|name| (*name).to_owned()).into_iter().collect(),
                ..line(number)
            }
        }).collect();
        let decided = assign(&lines, &rules, Otherwise::Stay, takers.clone());
        prop_assert_eq!(decided.len(), lines.len());
        let mut held: BTreeMap<String, u32> = takers.iter().map(|(name, taker)| (name.clone(), taker.load)).collect();
        for (line, one) in lines.iter().zip(&decided) {
            let Choice::Give { to } = &one.choice else {
                prop_assert_eq!(one.why, "nobody_can_take_it");
                continue;
            };
            prop_assert!(!line.elsewhere.contains(to));
            prop_assert!(takers[to].unfit.is_none());
            prop_assert!(one.passed.iter().all(|passed| passed.to != *to));
            *held.entry(to.clone()).or_default() += 1;
        }
        for (name, taker) in &takers {
            if let Some(capacity) = taker.capacity {
                prop_assert!(held[name] <= capacity.max(taker.load), "{} holds too much", name);
            }
        }
        // The same question has the same answer.
        prop_assert_eq!(assign(&lines, &rules, Otherwise::Stay, takers), decided);
    }
}
