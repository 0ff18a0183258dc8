use proptest::prelude::*;
use serde_json::json;

use super::*;

fn known() -> Known {
    Known {
        teams: ["sales".parse().unwrap()].into(),
        agents: ["noor".parse().unwrap()].into(),
    }
}

fn told(document: &Value) -> Vec<String> {
    let found = Policy::read(document, Some(&known())).unwrap_err();
    found
        .iter()
        .map(|error| format!("{} {}: {}", error.field, error.code, error.message))
        .collect()
}

#[test]
fn a_whole_policy_is_read() {
    let document = json!({
        "name": "Nobody waits",
        "applies_to": { "teams": ["sales"], "lines": ["+15017122661"] },
        "rules": [
            { "name": "slow", "when": { "no_answer": "15m" }, "hours": { "team": "sales" }, "then": "needs_person",
              "steps": [{ "how": "nudge", "to": "holder", "for": "5m" }, { "how": "offer", "to": "backup", "for": "PT10M" },
                        { "how": "force", "to": { "on_call": "sales" }, "for": "1h" }] },
            { "name": "away", "when": { "unavailable": "0s" }, "hours": "always", "answer_stops": false, "then": "repeat_last",
              "steps": [{ "how": "offer", "to": { "person": "noor" }, "for": "10m" }] },
            { "name": "words", "when": { "words": ["lawyer", "speak to a manager"] }, "then": "stop",
              "steps": [{ "how": "nudge", "to": "supervisor", "for": "1m" }] },
            { "name": "failed", "when": "delivery_failure", "steps": [{ "how": "nudge", "to": "holder", "for": "1m" }] },
            { "name": "asked", "when": "asked", "steps": [{ "how": "offer", "to": "supervisor", "for": "1m" }] },
        ],
    });
    let policy = Policy::read(&document, Some(&known())).unwrap();
    assert!(policy.enabled, "unless it says otherwise");
    assert_eq!(policy.rules.len(), 5);
    let slow = policy.rule("slow").unwrap();
    assert_eq!(slow.when, When::NoAnswer(SignedDuration::from_mins(15)));
    assert_eq!(slow.steps[1].lasts, SignedDuration::from_mins(10));
    assert_eq!(
        (&slow.hours, slow.then, slow.answer_stops),
        (&Hours::Team("sales".parse().unwrap()), Then::NeedsPerson, true)
    );
    assert_eq!(slow.steps[2].to.label(), "on_call:sales");
    assert_eq!(policy.rule("words").unwrap().hours, Hours::Holder);
}

#[test]
fn everything_wrong_is_told_at_once_with_its_place() {
    let document = json!({
        "name": " x",
        "enable": true,
        "applies_to": { "teams": ["Sales", "support"], "lines": ["5551234"], "groups": [] },
        "rules": [
            { "name": "slow", "when": { "no_answer": "0s" }, "hours": "nine to five", "then": "give up",
              "steps": [{ "how": "shout", "to": { "on_call": "nowhere" }, "for": "soon" },
                        { "how": "offer", "to": "holder", "for": "5m" },
                        { "to": { "person": "zoe" }, "wait": "5m" }] },
            { "name": "slow", "when": { "words": ["ok", "?!", 7] }, "answer_stops": "yes", "steps": [] },
            { "when": "raining" },
            "rule",
        ],
    });
    insta::assert_snapshot!(told(&document).join("\n"), @r#"
    /enable unknown: expected one of `name`, `enabled`, `applies_to`, `rules`
    /name malformed: expected 1 to 100 characters in one line, without space around them
    /applies_to/groups unknown: expected one of `teams`, `lines`
    /applies_to/teams/0 malformed: expected 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter or a digit
    /applies_to/teams/1 team_unknown: there is no such team: add it first, or correct it
    /applies_to/lines/0 malformed: expected a phone number in E.164 form, like +15555550101
    /rules/0/when/no_answer malformed: expected a duration like `90s`, `15m` or `2h`, of 1 s to 90 days
    /rules/0/hours malformed: expected "holder", "always" or {"team": "…"}
    /rules/0/steps/0/how malformed: expected `nudge`, `offer` or `force`
    /rules/0/steps/0/to/on_call team_unknown: there is no such team: add it first, or correct it
    /rules/0/steps/0/for malformed: expected a duration like `90s`, `15m` or `2h`, of 1 s to 90 days
    /rules/0/steps/1/to holder: the holder has the line already: `nudge` them, or name somebody else
    /rules/0/steps/2/wait unknown: expected one of `how`, `to`, `for`
    /rules/0/steps/2/how missing: expected a value
    /rules/0/steps/2/for missing: expected a value
    /rules/0/steps/2/to/person person_unknown: nobody of ours has this identity: add them first, or correct it
    /rules/0/then malformed: expected `stop`, `repeat_last` or `needs_person`
    /rules/1/name duplicate: expected a name that no other rule of the policy has
    /rules/1/when/words/1 malformed: expected a word or some words, of 100 characters at most
    /rules/1/when/words/2 malformed: expected a word or some words, of 100 characters at most
    /rules/1/answer_stops malformed: expected `true` or `false`
    /rules/1/steps malformed: expected 1 to 20 items
    /rules/2/name missing: expected a value
    /rules/2/steps missing: expected a value
    /rules/2/when malformed: expected {"no_answer": "15m"}, {"unavailable": "5m"}, {"words": ["…"]}, "delivery_failure" or "asked"
    /rules/3 malformed: expected an object with name, when, hours, answer_stops, steps, then
    "#);
}

#[test]
fn what_is_no_object_or_too_large_is_told() {
    assert_eq!(told(&json!([1])).len(), 1);
    assert_eq!(
        told(&json!({})),
        [
            "/name missing: expected a value",
            "/rules missing: expected a value"
        ]
    );
    let large = json!({ "name": "x".repeat(DOCUMENT_MAX), "rules": [] });
    assert!(told(&large)[0].contains("32768 bytes"));
    assert!(told(&json!({ "name": "a\u{0}" }))[0].contains("NUL"));
}

fn any_json() -> impl Strategy<Value = Value> {
    let names = prop_oneof![
        Just("name"),
        Just("rules"),
        Just("when"),
        Just("steps"),
        Just("to"),
        Just("for"),
        Just("words"),
        Just("applies_to"),
        Just("teams"),
        Just("no_answer"),
        Just("how"),
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[a-z0-9 ]{0,8}".prop_map(Value::from),
        Just(json!("5m")),
        Just(json!("asked")),
    ];
    leaf.prop_recursive(5, 64, 6, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::vec((names.clone(), inner), 0..6).prop_map(|members| {
                let members = members.into_iter();
                Value::Object(members.map(|(name, value)| (name.to_owned(), value)).collect())
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_json_is_read_or_refused_with_a_reason(document in any_json()) {
        if let Err(found) = Policy::read(&document, Some(&known())) {
            prop_assert!(!found.is_empty());
        }
    }
}
