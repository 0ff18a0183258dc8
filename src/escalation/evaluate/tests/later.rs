//! What comes, or is known, later: a new matter, a better time, another rule or policy.

use super::*;

#[test]
fn what_comes_when_all_was_done_is_a_new_matter() {
    let facts = [
        held(minute(-60), "maya"),
        inbound(minute(0), "a"),
        inbound(minute(29), "b"),
        inbound(minute(100), "c"),
        inbound(minute(101), "d"),
    ];
    assert_eq!(
        told(&slow(), &facts, minute(-60), minute(117)),
        [
            "15 slow: nudge maya@15 offer jonas@20 needs_person@30",
            "115 slow: nudge maya@115 next@120"
        ]
    );
}

#[test]
fn who_opts_out_waits_for_no_answer() {
    let facts = [
        held(minute(-60), "maya"),
        inbound(minute(0), "STOP"),
        inbound(minute(10), "a"),
    ];
    assert_eq!(
        told(&slow(), &facts, minute(-60), minute(26)),
        ["25 slow: nudge maya@25 next@30"]
    );
}

#[test]
fn words_that_were_erased_since_were_found() {
    let rules = json!([{
        "name": "words", "when": { "words": ["lawyer"] }, "steps": [{ "how": "nudge", "to": "holder", "for": "50m" }],
    }]);
    let (policy, world) = (policy(&rules), world(None));
    let facts = |text: Option<&str>| {
        let what = What::Inbound {
            message: "IM1".to_owned(),
            text: text.map(str::to_owned),
            opts_out: false,
        };
        [held(minute(-60), "maya"), fact(minute(0), what)]
    };
    let mut runs = ask(&policy, &world, &facts(Some("lawyer")), &[], minute(1), minute(1)).runs;
    runs[0].id = Some(Uuid::from_u128(1));
    let erased = ask(&policy, &world, &facts(None), &runs, minute(9), minute(9)).runs;
    assert_eq!(erased, runs);
    let edited = ask(
        &policy,
        &world,
        &facts(Some("friend")),
        &runs,
        minute(9),
        minute(9),
    )
    .runs;
    assert_eq!(edited[0].end.map(|end| end.why), Some(Why::NoLongerSo));
    let unknown = ask(&policy, &world, &facts(None), &[], minute(9), minute(9)).runs;
    assert_eq!(unknown, []);
}

fn known(rule: &str, cause: &Cause, started: Timestamp) -> Run {
    Run {
        id: Some(Uuid::from_u128(1)),
        version: 1,
        rule: rule.to_owned(),
        cause: cause.clone(),
        holder: Some(who("maya")),
        started_at: started,
        steps: Vec::new(),
        next_at: Some(started),
        end: None,
    }
}

#[test]
fn a_time_that_is_known_better_later_is_of_the_same_cause() {
    let rules = json!([{
        "name": "away", "when": { "unavailable": "0s" }, "steps": [{ "how": "nudge", "to": "backup", "for": "5m" }],
    }]);
    let facts = |begins: Timestamp| vec![fact(minute(-9), What::Absent(who("maya"))), held(begins, "maya")];
    let (policy, world) = (policy(&rules), world(None));
    // A REST answer says it to the second, the webhook of it to the millisecond.
    let (cut, exact) = (minute(0), minute(0) + SignedDuration::from_millis(345));
    let mut runs = ask(&policy, &world, &facts(cut), &[], minute(1), minute(1)).runs;
    runs[0].id = Some(Uuid::from_u128(1));
    let later = ask(&policy, &world, &facts(exact), &runs, minute(2), minute(2)).runs;
    assert_eq!(later, runs);
    let next_second = cut + SignedDuration::from_secs(1);
    let another = ask(&policy, &world, &facts(next_second), &runs, minute(2), minute(2)).runs;
    assert_eq!(another.len(), 2);
}

#[test]
fn what_began_before_the_facts_do_is_not_ended_by_what_was_before_it() {
    let rules = json!([{
        "name": "legal", "when": { "words": ["lawyer"] }, "answer_stops": false, "then": "repeat_last",
        "steps": [{ "how": "nudge", "to": "holder", "for": "24h" }],
    }]);
    let cause = Cause {
        kind: "words",
        key: "IM1".to_owned(),
        at: minute(0),
    };
    let run = known("legal", &cause, minute(0));
    let facts = [
        held(minute(-60), "jonas"),
        held(minute(-50), "maya"),
        inbound(minute(200), "hello"),
    ];
    let (policy, world) = (policy(&rules), world(None));
    let inputs = |facts| Inputs {
        policy: &policy,
        version: 1,
        facts,
        world: &world,
        in_force: &|_| Some(Counts::ALWAYS),
        known: std::slice::from_ref(&run),
        others: &[],
        since_of_rules: &NEVER,
        since: minute(-1_000),
        // Of more messages than are read, those before are not there.
        complete_since: minute(200),
        now: minute(210),
        horizon: minute(210),
    };
    let outlook = evaluate(&inputs(&facts));
    assert_eq!((outlook.runs.len(), outlook.runs[0].end), (1, None));
    let handed = [&facts[..], &[held(minute(205), "jonas")]].concat();
    let end = evaluate(&inputs(&handed)).runs[0].end.unwrap();
    assert_eq!((end.at, end.why), (minute(205), Why::HandedOver));
}

#[test]
fn what_was_before_a_rule_came_or_of_another_policy_is_not_its_business() {
    let facts = [
        held(minute(-60), "maya"),
        inbound(minute(0), "a"),
        fact(minute(40), What::Answer),
        inbound(minute(60), "b"),
    ];
    let (policy, world) = (policy(&slow()), world(None));
    let ask = |since: i64, counts: Counts, others: &[Run]| {
        let since_of_rules = BTreeMap::from([("slow".to_owned(), minute(since))]);
        let outlook = evaluate(&Inputs {
            policy: &policy,
            version: 1,
            facts: &facts,
            world: &world,
            in_force: &|_| Some(counts),
            known: &[],
            others,
            since_of_rules: &since_of_rules,
            since: minute(-1_000),
            complete_since: minute(-1_000),
            now: minute(-60),
            horizon: minute(90),
        });
        let began = outlook.runs.iter();
        began
            .map(|run| minute(0).duration_until(run.started_at).as_mins())
            .collect::<Vec<_>>()
    };
    let always = Counts::ALWAYS;
    assert_eq!(ask(-99, always, &[]), [15, 75]);
    assert_eq!(ask(1, always, &[]), [75], "the rule came after the message");
    let scope = |since: i64| Counts {
        since: minute(since),
        ..always
    };
    assert_eq!(ask(-99, scope(1), &[]), [75], "the line did");
    let moved = |since: i64| Counts {
        due_since: minute(since),
        ..always
    };
    assert_eq!(ask(-99, moved(16), &[]), [75], "it was due under another one");
    assert_eq!(ask(-99, moved(14), &[]), [15, 75], "and was not");
    let cause = Cause {
        kind: "no_answer",
        key: waiting_key("a", minute(0)),
        at: minute(0),
    };
    let mut other = known("any", &cause, minute(3));
    assert_eq!(
        ask(-99, always, std::slice::from_ref(&other)),
        Vec::<i64>::new(),
        "it goes on there"
    );
    other.end = Some(End {
        at: minute(30),
        why: Why::StepsTaken,
    });
    assert_eq!(
        ask(-99, always, std::slice::from_ref(&other)),
        [75],
        "it was done there"
    );
}

static NEVER: BTreeMap<String, Timestamp> = BTreeMap::new();
