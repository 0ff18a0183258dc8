//! Policies and people that change: what was before is no business of what comes after.

use hookswitch::events::Via;
use hookswitch::people::hours::{Holidays, Week};
use hookswitch::people::{self, NewAvailability, Profile, Status, TeamPlan};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{answer, ask, by, escalations, later, policy, set, slow_answer, staffed, step, told};
use crate::support::app::TestApp;
use crate::support::tables;

/// Each with a name of its own.
fn rules(rules: &[(&str, Value)]) -> Value {
    let rules: Vec<Value> = rules
        .iter()
        .map(|(name, rule)| {
            let mut rule = rule.clone();
            rule["name"] = json!(name);
            rule
        })
        .collect();
    json!({ "name": "Nobody waits", "rules": rules })
}

fn on_words(word: &str, to: &Value) -> Value {
    json!({ "when": { "words": [word] }, "answer_stops": false, "steps": [step("nudge", to, "5m")] })
}

async fn team(app: &TestApp, team: &str) {
    let plan = TeamPlan {
        name: team.to_owned(),
        time_zone: "UTC".parse().unwrap(),
        hours: Week::default(),
        holidays: Holidays::default(),
        on_call: Vec::new(),
        rotation: None,
    };
    let (mut conn, now) = (app.conn().await, app.clock.now());
    people::put_team(&mut conn, &team.parse().unwrap(), plan, None, &by(), now)
        .await
        .unwrap();
}

async fn in_team(app: &TestApp, who: &str, team: &str) {
    let profile = Profile {
        name: who.to_owned(),
        team: Some(team.parse().unwrap()),
        supervisor: None,
        backup: None,
        skills: std::collections::BTreeSet::new(),
        capacity: None,
        left_at: None,
    };
    let (mut conn, now) = (app.conn().await, app.clock.now());
    people::put_agent(&mut conn, &who.parse().unwrap(), profile, None, &by(), now)
        .await
        .unwrap();
}

/// Somebody who goes away and comes back has all their lines looked at.
async fn away_and_back(app: &TestApp, who: &str) {
    for status in [Status::Away, Status::Available] {
        let new = NewAvailability {
            status,
            reason: None,
            until: None,
            by: None,
        };
        let (mut conn, now) = (app.conn().await, app.clock.now());
        people::set_availability(&mut conn, &who.parse().unwrap(), new, &by(), now)
            .await
            .unwrap();
        app.settle_for(SignedDuration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn a_rule_or_word_that_a_new_version_adds_does_not_look_back() {
    let (app, sid) = staffed().await;
    let slow = slow_answer()["rules"][0].clone();
    set(&app, "all", &rules(&[("slow", slow.clone())])).await;
    ask(&app, "I want my lawyer in court").await;
    answer(&app, &sid).await;
    ask(&app, "My lawyer, in court!").await;
    later(&app, 5).await;
    let court = on_words("court", &json!("supervisor"));
    set(&app, "all", &rules(&[("slow", slow.clone()), ("legal", court)])).await;
    away_and_back(&app, "maya").await;
    assert_eq!(told(&app).await, Vec::<String>::new());
    let mut both = on_words("court", &json!("supervisor"));
    both["when"]["words"] = json!(["court", "lawyer"]);
    set(
        &app,
        "all",
        &rules(&[("slow", slow.clone()), ("legal", both.clone())]),
    )
    .await;
    away_and_back(&app, "maya").await;
    assert_eq!(told(&app).await, Vec::<String>::new());

    // What waits under a rule that stays, waits on; and the new one counts for what comes.
    let mut other = both;
    other["answer_stops"] = json!(true);
    set(&app, "all", &rules(&[("slow", slow), ("legal", other)])).await;
    later(&app, 10).await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge maya"]);
    ask(&app, "Lawyer!").await;
    assert_eq!(told(&app).await[2..], ["started", "step_taken nudge noor"]);
    let rules: Vec<String> = escalations(&app).await.into_iter().map(|one| one.rule).collect();
    assert_eq!(rules, ["slow", "legal"]);
}

#[tokio::test]
async fn who_comes_to_a_team_brings_nothing_of_before_to_its_policy() {
    let (app, _) = staffed().await;
    team(&app, "sales").await;
    team(&app, "support").await;
    in_team(&app, "maya", "sales").await;
    for (team, word) in [("sales", "court"), ("support", "lawyer")] {
        let mut document = rules(&[("legal", on_words(word, &json!("holder")))]);
        document["applies_to"] = json!({ "teams": [team] });
        set(&app, team, &document).await;
    }
    ask(&app, "I have a lawyer").await;
    assert_eq!(told(&app).await, Vec::<String>::new());
    app.advance(SignedDuration::from_mins(1));
    in_team(&app, "maya", "support").await;
    away_and_back(&app, "maya").await;
    assert_eq!(told(&app).await, Vec::<String>::new(), "it was of the other team");
    ask(&app, "Here is my lawyer").await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge maya"]);
    assert_eq!(escalations(&app).await[0].policy_id.as_str(), "support");
}

#[tokio::test]
async fn what_was_done_under_one_policy_is_not_done_again_under_another() {
    let (app, _) = staffed().await;
    let document = policy(&json!({
        "when": { "no_answer": "5m" }, "steps": [step("nudge", &json!("holder"), "5m")],
    }));
    set(&app, "b", &document).await;
    let mut of_line = document.clone();
    of_line["applies_to"] = json!({ "lines": [crate::support::app::LINE] });
    set(&app, "a", &of_line).await;
    ask(&app, "Hello?").await;
    later(&app, 5).await;
    later(&app, 5).await;
    assert_eq!(
        told(&app).await,
        ["started", "step_taken nudge maya", "ended steps_taken"]
    );
    let (mut conn, now) = (app.conn().await, app.clock.now());
    hookswitch::escalation::remove_policy(&mut conn, &"a".parse().unwrap(), &by(), now)
        .await
        .unwrap();
    away_and_back(&app, "maya").await;
    assert_eq!(told(&app).await.len(), 3);
    // What comes now is the other one's.
    ask(&app, "Still there?").await;
    later(&app, 5).await;
    assert_eq!(told(&app).await[3..], ["started", "step_taken nudge maya"]);
    assert_eq!(escalations(&app).await[1].policy_id.as_str(), "b");

    // And what a policy leaves that is removed, is somebody's: of the one that counts then.
    set(&app, "a", &of_line).await;
    ask(&app, "Nobody?").await;
    later(&app, 5).await;
    assert_eq!(told(&app).await[5..], ["ended steps_taken"]);
    ask(&app, "Hello!").await;
    later(&app, 5).await;
    assert_eq!(told(&app).await[6..], ["started", "step_taken nudge maya"]);
    assert_eq!(escalations(&app).await[2].policy_id.as_str(), "a");
    let (mut conn, now) = (app.conn().await, app.clock.now());
    hookswitch::escalation::remove_policy(&mut conn, &"a".parse().unwrap(), &by(), now)
        .await
        .unwrap();
    app.settle().await;
    let mut then = told(&app).await.split_off(8);
    then.sort();
    assert_eq!(then, ["started", "step_taken nudge maya", "stopped policy_off"]);
    assert_eq!(escalations(&app).await[3].policy_id.as_str(), "b");
}

#[tokio::test]
async fn who_is_added_to_the_people_has_their_lines_looked_at() {
    let app = TestApp::start().await;
    team(&app, "sales").await;
    app.group(Some("maya")).await;
    let mut document = policy(&json!({
        "when": { "no_answer": "5m" }, "steps": [step("nudge", &json!("holder"), "5m")],
    }));
    document["applies_to"] = json!({ "teams": ["sales"] });
    set(&app, "sales", &document).await;
    ask(&app, "Hello?").await;
    later(&app, 2).await;
    assert_eq!(tables::count(&app, "escalation_watch").await, 0, "of no team");
    in_team(&app, "maya", "sales").await;
    later(&app, 3).await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge maya"]);
}

#[tokio::test]
async fn nobody_is_given_a_line_whom_nobody_knows_any_more() {
    let (app, _) = staffed().await;
    super::agent(&app, "zoe", None, None).await;
    let rule = json!({
        "when": { "words": ["lawyer"] },
        "steps": [step("force", &json!({ "person": "zoe" }), "5m"), step("nudge", &json!("supervisor"), "5m")],
    });
    set(&app, "all", &policy(&rule)).await;
    let (mut conn, now) = (app.conn().await, app.clock.now());
    people::remove_agent(&mut conn, &"zoe".parse().unwrap(), &by(), now)
        .await
        .unwrap();
    ask(&app, "lawyer").await;
    assert_eq!(
        told(&app).await,
        ["started", "step_skipped force unknown", "step_taken nudge noor"]
    );
    assert_eq!(tables::count(&app, "transfer").await, 0);
}

#[tokio::test]
async fn of_several_rules_for_it_the_one_that_was_asked_for_begins() {
    let (app, sid) = staffed().await;
    let rule = |to: &str| json!({ "when": "asked", "steps": [step("nudge", &json!(to), "5m")] });
    let document = rules(&[("help", rule("backup")), ("manager", rule("supervisor"))]);
    set(&app, "all", &document).await;
    let wanted = hookswitch::escalation::Ask {
        conversation_sid: sid,
        line: crate::support::app::LINE.parse().unwrap(),
        by: "maya".parse().unwrap(),
        reason: None,
        rule: Some("manager".parse().unwrap()),
    };
    let (mut conn, now) = (app.conn().await, app.clock.now());
    hookswitch::escalation::ask(&mut conn, wanted, Via::Api, now)
        .await
        .unwrap();
    app.settle().await;
    later(&app, 1).await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge noor"]);
}
