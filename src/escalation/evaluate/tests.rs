use std::collections::BTreeSet;
use std::fmt::Write as _;

use proptest::prelude::*;
use serde_json::{Value, json};
use uuid::Uuid;

use super::*;
use crate::people::form::TeamForm;
use crate::people::{Agent, Availability, Profile, Status, Team};
use crate::web::field::Errors;

mod later;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn minute(minute: i64) -> Timestamp {
    at("2026-03-02T10:00:00Z") + SignedDuration::from_mins(minute)
}

fn who(identity: &str) -> Identity {
    identity.parse().unwrap()
}

fn agent(identity: &str, team: Option<&str>) -> Agent {
    Agent {
        identity: who(identity),
        profile: Profile {
            name: identity.to_owned(),
            team: team.map(|team| team.parse().unwrap()),
            supervisor: (identity != "noor").then(|| who("noor")),
            backup: (identity == "maya").then(|| who("jonas")),
            skills: BTreeSet::new(),
            capacity: None,
            left_at: None,
        },
        availability: Availability {
            status: Status::Available,
            reason: None,
            until: None,
            since: minute(-1_000),
            set_by: None,
        },
        version: 1,
        created_at: minute(-1_000),
        updated_at: minute(-1_000),
    }
}

/// New York, 9 to 5 on weekdays.
fn sales() -> Team {
    let day = json!(["09:00-17:00"]);
    let form = json!({
        "name": "Sales", "time_zone": "America/New_York", "on_call": ["jonas", "noor"],
        "hours": { "monday": day, "tuesday": day, "wednesday": day, "thursday": day, "friday": day },
    });
    let form: TeamForm = serde_json::from_value(form).unwrap();
    let mut errors = Errors::of_body();
    let (plan, _) = form.read(&mut errors).unwrap();
    Team {
        team_id: "sales".parse().unwrap(),
        plan,
        version: 1,
        created_at: minute(-1_000),
        updated_at: minute(-1_000),
    }
}

fn world(team: Option<&str>) -> World {
    let agents = ["maya", "jonas", "noor"].map(|identity| agent(identity, team));
    World::new(agents.to_vec(), vec![sales()])
}

fn policy(rules: &Value) -> Policy {
    Policy::read(&json!({ "name": "Test", "rules": rules }), None).unwrap()
}

fn slow() -> Value {
    json!([{
        "name": "slow", "when": { "no_answer": "15m" }, "then": "needs_person",
        "steps": [{ "how": "nudge", "to": "holder", "for": "5m" }, { "how": "offer", "to": "backup", "for": "10m" }],
    }])
}

fn held(when: Timestamp, holder: &str) -> Fact {
    let holder = (!holder.is_empty()).then(|| who(holder));
    Fact {
        at: when,
        what: What::Held(holder),
    }
}

fn inbound(when: Timestamp, message: &str) -> Fact {
    let what = What::Inbound {
        message: message.to_owned(),
        text: Some(message.to_owned()),
        opts_out: message == "STOP",
    };
    Fact { at: when, what }
}

fn fact(when: Timestamp, what: What) -> Fact {
    Fact { at: when, what }
}

fn ask(
    policy: &Policy,
    world: &World,
    facts: &[Fact],
    known: &[Run],
    now: Timestamp,
    horizon: Timestamp,
) -> Outlook {
    evaluate(&Inputs {
        policy,
        version: 1,
        facts,
        world,
        in_force: &|_| Some(Counts::ALWAYS),
        known,
        others: &[],
        since_of_rules: &BTreeMap::new(),
        since: minute(-1_000),
        complete_since: minute(-1_000),
        now,
        horizon,
    })
}

/// As of a time, with nothing recorded; and what would come up to another.
fn told(rules: &Value, facts: &[Fact], now: Timestamp, horizon: Timestamp) -> Vec<String> {
    let outlook = ask(&policy(rules), &world(None), facts, &[], now, horizon);
    outlook.runs.iter().map(shown).collect()
}

fn shown(run: &Run) -> String {
    let since = |at: Timestamp| minute(0).duration_until(at).as_mins();
    let mut text = format!("{} {}:", since(run.started_at), run.rule);
    for taken in &run.steps {
        let to = match &taken.to {
            Ok(to) => to.as_str(),
            Err(why) => why,
        };
        write!(text, " {} {to}@{}", taken.how.as_str(), since(taken.at)).unwrap();
    }
    match (run.end, run.next_at) {
        (Some(end), _) => write!(text, " {}@{}", end.why.as_str(), since(end.at)).unwrap(),
        (None, Some(next)) => write!(text, " next@{}", since(next)).unwrap(),
        (None, None) => {}
    }
    text
}

#[test]
fn steps_follow_each_other_in_their_time_and_then_a_person_is_needed() {
    let facts = [held(minute(-60), "maya"), inbound(minute(0), "a")];
    assert_eq!(
        told(&slow(), &facts, minute(-60), minute(90)),
        ["15 slow: nudge maya@15 offer jonas@20 needs_person@30"]
    );
    assert_eq!(
        told(&slow(), &facts, minute(-60), minute(22)),
        ["15 slow: nudge maya@15 offer jonas@20 next@30"]
    );
    let outlook = ask(&policy(&slow()), &world(None), &facts, &[], minute(3), minute(3));
    assert_eq!((outlook.runs.len(), outlook.look_at), (0, Some(minute(15))));
}

#[test]
fn the_first_message_counts_until_it_is_answered() {
    let facts = [
        held(minute(-60), "maya"),
        inbound(minute(0), "a"),
        inbound(minute(10), "b"),
        fact(minute(14), What::Answer),
        inbound(minute(20), "c"),
        fact(minute(37), What::Answer),
    ];
    assert_eq!(
        told(&slow(), &facts, minute(-60), minute(90)),
        ["35 slow: nudge maya@35 answered@37"]
    );
}

#[test]
fn what_a_clock_that_is_ahead_of_ours_says_is_looked_at_again() {
    let facts = [held(minute(-60), "maya"), inbound(minute(0), "a")];
    let outlook = ask(
        &policy(&slow()),
        &world(None),
        &facts,
        &[],
        minute(-1),
        minute(-1),
    );
    assert_eq!((outlook.runs.len(), outlook.look_at), (0, Some(minute(0))));
}

#[test]
fn an_answer_at_the_very_instant_is_in_time() {
    let facts = [
        held(minute(-60), "maya"),
        inbound(minute(0), "a"),
        fact(minute(15), What::Answer),
    ];
    assert_eq!(
        told(&slow(), &facts, minute(-60), minute(90)),
        Vec::<String>::new()
    );
    assert_eq!(
        told(&slow(), &facts, minute(15), minute(15)),
        Vec::<String>::new()
    );
}

#[test]
fn who_looks_late_does_one_step_and_gives_it_its_time() {
    let facts = [held(minute(-60), "maya"), inbound(minute(0), "a")];
    assert_eq!(
        told(&slow(), &facts, minute(100), minute(100)),
        ["100 slow: nudge maya@100 next@105"]
    );
    let answered = [&facts[..], &[fact(minute(99), What::Answer)]].concat();
    assert_eq!(
        told(&slow(), &answered, minute(100), minute(100)),
        Vec::<String>::new(),
        "and nothing, if it is no longer so"
    );
}

#[test]
fn a_hand_over_stops_it_and_the_new_holder_has_as_much_time() {
    let facts = [
        held(minute(-60), "maya"),
        inbound(minute(0), "a"),
        held(minute(17), "jonas"),
        fact(minute(50), What::Closed),
    ];
    assert_eq!(
        told(&slow(), &facts, minute(-60), minute(90)),
        [
            "15 slow: nudge maya@15 handed_over@17",
            "32 slow: nudge jonas@32 offer no_backup@37 needs_person@37"
        ]
    );
}

#[test]
fn an_unstaffed_line_is_offered_to_nobody_but_told_of() {
    let rules = json!([{
        "name": "slow", "when": { "no_answer": "5m" },
        "steps": [{ "how": "nudge", "to": "holder", "for": "5m" }, { "how": "offer", "to": { "on_call": "sales" }, "for": "5m" },
                  { "how": "nudge", "to": { "on_call": "sales" }, "for": "5m" }],
    }]);
    let facts = [held(minute(-60), ""), inbound(minute(0), "a")];
    assert_eq!(
        told(&rules, &facts, minute(-60), minute(90)),
        ["5 slow: nudge unstaffed@5 offer unstaffed@5 nudge jonas@5 steps_taken@10"]
    );
    let gone = [&facts[..], &[fact(minute(3), What::Gone)]].concat();
    assert_eq!(told(&rules, &gone, minute(-60), minute(90)), Vec::<String>::new());
}

#[test]
fn business_time_goes_on_through_the_change_of_clocks() {
    // New York's clocks go forward on Sunday, 8 March 2026, and back on Sunday, 1 November.
    for (wrote, due) in [
        ("2026-03-06T21:50:00Z", "2026-03-09T13:05:00Z"),
        ("2026-10-30T20:50:00Z", "2026-11-02T14:05:00Z"),
    ] {
        let facts = [held(at("2026-03-02T12:00:00Z"), "maya"), inbound(at(wrote), "a")];
        let outlook = ask(
            &policy(&slow()),
            &world(Some("sales")),
            &facts,
            &[],
            at(wrote),
            at(wrote) + SignedDuration::from_hours(24 * 4),
        );
        let [run] = outlook.runs.as_slice() else {
            panic!("{wrote}")
        };
        assert_eq!(run.started_at, at(due), "10 minutes on Friday, 5 on Monday");
        let steps: Vec<Timestamp> = run.steps.iter().map(|taken| taken.at).collect();
        assert_eq!(steps[1], at(due) + SignedDuration::from_mins(5));
    }
    // All time counts where the rule says so, also the hour that is not there or comes twice.
    let mut always = slow();
    always[0]["hours"] = json!("always");
    always[0]["when"] = json!({ "no_answer": "2h" });
    let wrote = at("2026-03-08T06:30:00Z");
    let facts = [held(minute(0), "maya"), inbound(wrote, "a")];
    let outlook = ask(&policy(&always), &world(Some("sales")), &facts, &[], wrote, wrote);
    assert_eq!(outlook.look_at, Some(wrote + SignedDuration::from_hours(2)));
}

#[test]
fn the_hours_of_a_team_that_the_rule_names_count_instead_of_the_holders() {
    let mut named = slow();
    named[0]["hours"] = json!({ "team": "sales" });
    // Saturday: the minutes begin on Monday.
    let wrote = at("2026-03-07T15:00:00Z");
    let facts = [held(minute(0), "maya"), inbound(wrote, "a")];
    let outlook = ask(&policy(&named), &world(None), &facts, &[], wrote, wrote);
    assert_eq!(outlook.look_at, Some(at("2026-03-09T13:15:00Z")));
}

#[test]
fn an_absence_counts_while_holding_and_ends_by_coming_back() {
    let rules = json!([{
        "name": "away", "when": { "unavailable": "10m" },
        "steps": [{ "how": "nudge", "to": "backup", "for": "5m" }, { "how": "nudge", "to": "supervisor", "for": "50m" }],
    }]);
    let facts = [
        held(minute(-60), "maya"),
        fact(minute(0), What::Absent(who("maya"))),
        fact(minute(8), What::Back(who("maya"))),
        fact(minute(20), What::Absent(who("maya"))),
        fact(minute(36), What::Back(who("maya"))),
        fact(minute(40), What::Absent(who("jonas"))),
        held(minute(50), "jonas"),
    ];
    assert_eq!(
        told(&rules, &facts, minute(-60), minute(120)),
        [
            "30 away: nudge jonas@30 nudge noor@35 back@36",
            "60 away: nudge no_backup@60 nudge noor@60 steps_taken@110"
        ]
    );
    // What is known to come is looked at when it comes.
    let ahead = ask(&policy(&rules), &world(None), &facts, &[], minute(31), minute(31));
    assert_eq!(ahead.look_at, Some(minute(36)));
}

#[test]
fn words_and_failures_begin_at_once_and_one_at_a_time() {
    let rules = json!([
        { "name": "words", "when": { "words": ["lawyer"] }, "steps": [{ "how": "nudge", "to": "supervisor", "for": "5m" }] },
        { "name": "failed", "when": "delivery_failure", "answer_stops": false,
          "steps": [{ "how": "nudge", "to": "holder", "for": "5m" }] },
    ]);
    let failed = |message: &str| What::Failed {
        message: message.to_owned(),
    };
    let facts = [
        held(minute(-60), "maya"),
        inbound(minute(0), "a lawyer"),
        inbound(minute(2), "my lawyer"),
        fact(minute(3), What::Answer),
        inbound(minute(4), "the Lawyer"),
        fact(minute(6), failed("x")),
        fact(minute(7), failed("y")),
        fact(minute(8), What::Answer),
    ];
    assert_eq!(
        told(&rules, &facts, minute(-60), minute(60)),
        [
            "0 words: nudge noor@0 answered@3",
            "4 words: nudge noor@4 answered@8",
            "6 failed: nudge maya@6 steps_taken@11"
        ]
    );
}

#[test]
fn a_force_that_is_only_thought_of_ends_it() {
    let rules = json!([{
        "name": "slow", "when": { "no_answer": "5m" },
        "steps": [{ "how": "force", "to": "supervisor", "for": "5m" }, { "how": "nudge", "to": "holder", "for": "5m" }],
    }]);
    let facts = [held(minute(-60), "maya"), inbound(minute(0), "a")];
    assert_eq!(
        told(&rules, &facts, minute(1), minute(60)),
        ["5 slow: force noor@5 handed_over@5"]
    );
}

#[test]
fn what_was_recorded_goes_on_by_its_own_times_and_its_effects() {
    let facts = [held(minute(-60), "maya"), inbound(minute(0), "a")];
    let (policy, world) = (policy(&slow()), world(None));
    let mut outlook = ask(&policy, &world, &facts, &[], minute(40), minute(40));
    let mut run = outlook.runs.remove(0);
    run.id = Some(Uuid::from_u128(1));
    let known = |run: &Run, now| {
        let outlook = ask(
            &policy,
            &world,
            &facts,
            std::slice::from_ref(run),
            minute(now),
            minute(now),
        );
        outlook.runs.iter().map(shown).collect::<Vec<_>>()
    };
    assert_eq!(known(&run, 44), ["40 slow: nudge maya@40 next@45"]);
    assert_eq!(known(&run, 45), ["40 slow: nudge maya@40 offer jonas@45 next@55"]);
    let mut offered = ask(
        &policy,
        &world,
        &facts,
        std::slice::from_ref(&run),
        minute(45),
        minute(45),
    )
    .runs
    .remove(0);
    offered.steps[1].state = Standing::Over(minute(47));
    assert_eq!(
        known(&offered, 47),
        ["40 slow: nudge maya@40 offer jonas@45 needs_person@47"],
        "declined: at once"
    );
    offered.steps[1].state = Standing::Accepted;
    assert_eq!(
        known(&offered, 80),
        ["40 slow: nudge maya@40 offer jonas@45"],
        "it waits for the line to be theirs"
    );
}

#[test]
fn what_is_no_longer_derived_ends_by_what_came_late() {
    let facts = [held(minute(-60), "maya"), inbound(minute(0), "a")];
    let (policy, world) = (policy(&slow()), world(None));
    let mut run = ask(&policy, &world, &facts, &[], minute(15), minute(15))
        .runs
        .remove(0);
    run.id = Some(Uuid::from_u128(1));
    let late = [&facts[..], &[fact(minute(5), What::Answer)]].concat();
    let outlook = ask(
        &policy,
        &world,
        &late,
        std::slice::from_ref(&run),
        minute(17),
        minute(17),
    );
    assert_eq!(
        outlook.runs.iter().map(shown).collect::<Vec<_>>(),
        ["15 slow: nudge maya@15 answered@15"]
    );
    let unsaid = ask(
        &policy,
        &world,
        &facts[..1],
        std::slice::from_ref(&run),
        minute(17),
        minute(17),
    );
    assert_eq!(unsaid.runs[0].end.map(|end| end.why), Some(Why::NoLongerSo));
}

#[test]
fn a_repeated_step_has_its_full_time_and_an_end() {
    let rules = json!([{
        "name": "slow", "when": { "no_answer": "5m" }, "then": "repeat_last",
        "steps": [{ "how": "nudge", "to": "backup", "for": "5m" }],
    }]);
    let facts = [held(minute(-60), "jonas"), inbound(minute(0), "a")];
    let outlook = ask(
        &policy(&rules),
        &world(None),
        &facts,
        &[],
        minute(-60),
        minute(10_000),
    );
    let run = &outlook.runs[0];
    assert_eq!(run.steps.len(), REPEATS_MAX + 1);
    assert!(run.steps.iter().all(|taken| taken.to == Err("no_backup")));
    assert_eq!(run.end.map(|end| end.why), Some(Why::NeedsPerson));
}

/// Something that happens, some minutes after the thing before.
#[derive(Debug, Clone)]
enum Event {
    Inbound(bool),
    Answer,
    Failed,
    Held(&'static str),
    Absent(&'static str),
    Back(&'static str),
    Gone,
    Closed,
}

fn events() -> impl Strategy<Value = Vec<(i64, Event)>> {
    let people = prop_oneof![Just("maya"), Just("jonas"), Just("noor")];
    let event = prop_oneof![
        6 => any::<bool>().prop_map(Event::Inbound),
        4 => Just(Event::Answer),
        1 => Just(Event::Failed),
        2 => prop_oneof![Just("maya"), Just("jonas"), Just("noor"), Just("")].prop_map(Event::Held),
        2 => people.clone().prop_map(Event::Absent),
        2 => people.prop_map(Event::Back),
        1 => Just(Event::Gone),
        1 => Just(Event::Closed),
    ];
    prop::collection::vec((0..20_i64, event), 0..40)
}

fn facts_of(events: &[(i64, Event)]) -> Vec<Fact> {
    let mut facts = vec![held(minute(0), "maya")];
    let mut now = 0;
    for (place, (pause, event)) in events.iter().enumerate() {
        now += pause;
        let what = match event {
            Event::Inbound(lawyer) => What::Inbound {
                message: format!("IM{place}"),
                text: Some(if *lawyer { "lawyer" } else { "hello" }.to_owned()),
                opts_out: false,
            },
            Event::Answer => What::Answer,
            Event::Failed => What::Failed {
                message: format!("IM{place}"),
            },
            Event::Held(holder) => held(minute(0), holder).what,
            Event::Absent(one) => What::Absent(who(one)),
            Event::Back(one) => What::Back(who(one)),
            Event::Gone => What::Gone,
            Event::Closed => What::Closed,
        };
        facts.push(fact(minute(now), what));
    }
    facts
}

fn rules(answer_stops: bool, then: &str, step: &str) -> Value {
    let steps = json!([{ "how": "nudge", "to": "holder", "for": "3m" }, { "how": "offer", "to": "backup", "for": step },
        { "how": "nudge", "to": "supervisor", "for": "4m" }]);
    let rule = |name: &str, when: Value| json!({ "name": name, "when": when, "steps": steps, "answer_stops": answer_stops, "then": then });
    json!([
        rule("slow", json!({ "no_answer": "7m" })),
        rule("away", json!({ "unavailable": "5m" })),
        rule("words", json!({ "words": ["lawyer"] })),
        rule("failed", json!("delivery_failure")),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Live, with what was recorded and looking whenever something happens or is due; and the back-test, all at once.
    #[test]
    fn live_work_and_back_test_agree(
        events in events(),
        answer_stops in any::<bool>(),
        then in prop_oneof![Just("stop"), Just("repeat_last"), Just("needs_person")],
        step in prop_oneof![Just("1m"), Just("9m"), Just("2h")],
        in_hours in any::<bool>(),
    ) {
        let policy = policy(&rules(answer_stops, then, step));
        let world = world(in_hours.then_some("sales"));
        let facts = facts_of(&events);
        let end = minute(3_000);
        let back = ask(&policy, &world, &facts, &[], minute(-1), end).runs;

        let mut known: Vec<Run> = Vec::new();
        let mut now = minute(0);
        let mut looks = 0;
        loop {
            let so_far: Vec<Fact> = facts.iter().filter(|fact| fact.at <= now).cloned().collect();
            let outlook = ask(&policy, &world, &so_far, &known, now, now);
            known = outlook.runs;
            for (place, run) in known.iter_mut().enumerate() {
                run.id.get_or_insert(Uuid::from_u128(place as u128 + 1_000 * looks));
            }
            looks += 1;
            prop_assert!(looks < 10_000);
            let next = facts.iter().map(|fact| fact.at).filter(|at| *at > now).min();
            match earlier(next, outlook.look_at).filter(|at| *at <= end) {
                Some(at) => now = at,
                None => break,
            }
        }
        for run in &mut known {
            run.id = None;
        }
        let (live, back): (Vec<_>, Vec<_>) =
            (known.iter().map(shown).collect(), back.iter().map(shown).collect());
        prop_assert_eq!(live, back);
    }

    /// However late it is looked: nothing is done twice, no two of a rule are open at once, and each step has its time.
    #[test]
    fn whenever_it_is_looked_one_of_a_rule_is_open_and_no_cause_counts_twice(
        events in events(),
        pauses in prop::collection::vec(1..40_i64, 1..40),
    ) {
        let policy = policy(&rules(true, "stop", "9m"));
        let world = world(None);
        let facts = facts_of(&events);
        let mut known: Vec<Run> = Vec::new();
        let mut now = 0;
        for pause in pauses {
            now += pause;
            let so_far: Vec<Fact> = facts.iter().filter(|fact| fact.at <= minute(now)).cloned().collect();
            let outlook = ask(&policy, &world, &so_far, &known, minute(now), minute(now));
            known = outlook.runs;
            for run in &mut known {
                run.id.get_or_insert_with(Uuid::new_v4);
            }
            let mut causes = BTreeSet::new();
            let mut open = BTreeSet::new();
            for run in &known {
                prop_assert!(causes.insert((&run.rule, &run.cause.key)), "{}", shown(run));
                prop_assert!(run.end.is_some() || open.insert(&run.rule), "{}", shown(run));
                prop_assert!(run.next_at.is_none_or(|next| next > minute(now)), "{}", shown(run));
            }
        }
    }
}
