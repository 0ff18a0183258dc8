//! What is refused, what is decided by hand, and what changes between deciding and giving.

use hookswitch::handover::{LineState, Otherwise, Rule, Spread, State, Verb};
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::transfer::Kind;
use jiff::SignedDuration;
use serde_json::json;

use super::{Desk, SAM, count, kind, over_the_team, to_ada, told};
use crate::support::app::Wanted;
use crate::support::tables;

#[tokio::test]
async fn everything_wrong_with_a_plan_is_refused_with_its_place() {
    let desk = Desk::open().await;
    let good = json!({ "leaver": "maya", "rules": [{ "rule": "people", "people": ["ada"] }], "requested_by": "sam" });
    let mut cases = vec![
        (json!({ "rules": [] }), "/rules", "malformed"),
        (
            json!({ "rules": [{ "rule": "people", "people": ["maya"] }] }),
            "/rules",
            "is_the_leaver",
        ),
        (
            json!({ "rules": [{ "rule": "team" }] }),
            "/rules/0/team",
            "missing",
        ),
        (
            json!({ "rules": [{ "rule": "supervisor", "team": "sales" }] }),
            "/rules/0/team",
            "not_of_this_rule",
        ),
        (
            json!({ "rules": [{ "rule": "people", "people": ["ada", "ada"] }] }),
            "/rules/0/people/1",
            "duplicate",
        ),
        (json!({ "lines_per_minute": 0 }), "/lines_per_minute", "malformed"),
        (
            json!({ "return_at": "2020-01-01T00:00:00Z" }),
            "/return_at",
            "passed",
        ),
    ];
    cases.push((
        json!({ "leaver_becomes": "gone" }),
        "/leaver_becomes",
        "malformed",
    ));
    for (change, field, code) in cases {
        let mut body = good.clone();
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (status, problem) = desk.post("/v1/handovers", &body).await;
        assert_eq!(status, 400, "{body}: {problem}");
        let error = &problem["errors"][0];
        assert_eq!(
            (&error["field"], &error["code"]),
            (&field.into(), &code.into()),
            "{problem}"
        );
    }
    for (change, conflict) in [
        (json!({ "leaver": "nobody" }), "leaver_unknown"),
        (
            json!({ "rules": [{ "rule": "people", "people": ["ada", "jonsa"] }] }),
            "person_unknown",
        ),
        (
            json!({ "rules": [{ "rule": "team", "team": "nobody" }] }),
            "team_unknown",
        ),
    ] {
        let mut body = good.clone();
        for (name, value) in change.as_object().unwrap() {
            body[name] = value.clone();
        }
        let (status, problem) = desk.post("/v1/handovers", &body).await;
        assert_eq!((status, kind(&problem)), (409, conflict), "{problem}");
    }
    let refused =
        "select concat_ws(' ', subject, actor, data::jsonb ->> 'verb', data::jsonb ->> 'code') from event
         where type = 'handover.refused' order by commit_xid, event_id";
    assert_eq!(
        tables::rows(&desk.app, refused).await,
        [
            "nobody sam plan leaver_unknown",
            "maya sam plan person_unknown",
            "maya sam plan team_unknown"
        ],
        "what the state of things does not allow is on record"
    );
    let (status, _) = desk.post("/v1/handovers", &good).await;
    assert_eq!(status, 202);
}

#[tokio::test]
async fn a_verb_that_does_not_fit_is_a_conflict_and_on_record() {
    let desk = Desk::open().await;
    desk.groups(1_000, 3, "maya").await;
    let mut slow = to_ada();
    slow.lines_per_minute = 1;
    let plan = desk.ask(slow).await;
    let id = plan.handover_id;
    let (status, problem) = desk.verb(id, "run").await;
    assert_eq!((status, kind(&problem)), (409, "handover_planning"), "{problem}");
    let other = desk.draft(to_ada()).await;
    desk.until(id, |plan| plan.state == State::Draft).await;
    for verb in ["pause", "resume", "roll-back"] {
        let (status, problem) = desk.verb(id, verb).await;
        assert_eq!(
            (status, kind(&problem)),
            (409, "handover_state"),
            "{verb}: {problem}"
        );
        assert_eq!(problem["state"], "draft");
        assert_eq!(problem["by"], "hookswitch", "it came to be one by itself");
    }
    let refused = format!("event where type = 'handover.refused' and subject = '{id}' and actor = 'sam'");
    assert_eq!(tables::count(&desk.app, &refused).await, 4);
    assert_eq!(desk.verb(id, "run").await.0, 200);
    let (status, problem) = desk.verb(other.handover_id, "run").await;
    assert_eq!(
        (status, kind(&problem)),
        (409, "another_handover_at_work"),
        "{problem}"
    );
    // Lines begin meanwhile, and that is nobody's doing.
    let running = desk.plan(id).await;
    desk.app.settle_for(SignedDuration::from_secs(61)).await;
    assert!(desk.plan(id).await.updated_at > running.changed_at);
    let (_, problem) = desk.verb(id, "run").await;
    assert_eq!(
        (&problem["by"], &problem["since"]),
        (&"sam".into(), &json!(running.changed_at)),
        "{problem}"
    );
    let (status, _) = desk.verb(hookswitch::ids::new_id(), "run").await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn lines_of_a_draft_are_decided_about_by_hand_and_the_rest_anew() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 4, "maya").await;
    let id = desk.draft(over_the_team()).await.handover_id;
    let decide = json!({ "by": "sam", "lines": [
        { "conversation_sid": sids[0], "action": "give", "to": "cyd" },
        { "conversation_sid": sids[1], "action": "stay" },
    ] });
    let (status, body) = desk.post(&format!("/v1/handovers/{id}/lines"), &decide).await;
    assert_eq!(status, 200, "{body}");
    let wrong = json!({ "by": "sam", "lines": [
        { "conversation_sid": "CH00000000000000000000000000000099", "action": "stay" },
    ] });
    let (status, problem) = desk.post(&format!("/v1/handovers/{id}/lines"), &wrong).await;
    assert_eq!(
        (status, &problem["errors"][0]["code"]),
        (400, &"no_such_line".into()),
        "{problem}"
    );
    desk.run(id).await;
    desk.ended(id).await;
    // Also to somebody who is away: whoever named them knows why.
    assert_eq!(desk.holders(&sids).await, ["cyd", "maya", "ada", "ben"]);
    assert_eq!(
        told(&desk, id).await,
        ["requested", "planned", "changed", "started", "completed"]
    );
}

#[tokio::test]
async fn who_cannot_take_lines_any_more_when_their_turn_comes_is_passed_over() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 4, "maya").await;
    let id = desk.draft(over_the_team()).await.handover_id;
    desk.put("/v1/agents/ada/availability", &json!({ "status": "away" }))
        .await;
    desk.run(id).await;
    desk.ended(id).await;
    assert_eq!(count(desk.holders(&sids).await), [("ben".to_owned(), 4)].into());
    let lines = desk.lines(id).await;
    assert!(
        lines[0]
            .passed
            .iter()
            .any(|one| one.to == "ada" && one.why == "away"),
        "{:?}",
        lines[0]
    );
}

#[tokio::test]
async fn a_line_in_a_transfer_is_skipped_and_one_for_nobody_is_released_where_the_plan_says_so() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 3, "maya").await;
    let mut new = to_ada();
    new.rules = vec![Rule::People(vec!["cyd".parse().unwrap()])];
    new.otherwise = Otherwise::Release;
    let id = desk.draft(new).await.handover_id;
    desk.app.start_transfer(&sids[1], Kind::Warm, "ben").await;
    desk.run(id).await;
    let plan = desk.ended(id).await;
    assert_eq!(plan.state, State::Completed);
    let lines = desk.lines(id).await;
    assert_eq!(
        (lines[1].state, lines[1].outcome.as_deref()),
        (LineState::Skipped, Some("in_transfer"))
    );
    assert_eq!(desk.app.holders_at_twilio(&sids[0]), [None]);
    assert_eq!(desk.holders(&sids).await, ["", "maya", ""]);
    // And back: to the leaver, where still nobody has them.
    assert_eq!(desk.verb(id, "roll-back").await.0, 200);
    desk.ended(id).await;
    assert_eq!(desk.holders(&sids).await, ["maya", "maya", "maya"]);
}

#[tokio::test]
async fn while_twilio_does_not_answer_the_plan_waits_and_says_why() {
    let desk = Desk::open().await;
    desk.groups(1_000, 2, "maya").await;
    let down = RestFault {
        method: None,
        path: Some("/v1/Services/*/ParticipantConversations".to_owned()),
        status: Some(503),
        effect: Effect::Before,
        hold_ms: 0,
        probability: 1.0,
        times: None,
    };
    let faults = Faults {
        rest: vec![down],
        ..Faults::default()
    };
    desk.app.sandbox.set_faults(faults).unwrap();
    let id = desk.ask(to_ada()).await.handover_id;
    desk.app.settle().await;
    let shown = desk.get(&format!("/v1/handovers/{id}")).await;
    assert_eq!(shown["state"], "planning");
    assert_eq!(shown["waiting_error"], "unavailable_20503", "{shown}");
    desk.app.sandbox.set_faults(Faults::default()).unwrap();
    desk.app.advance(SignedDuration::from_mins(11));
    let plan = desk.until(id, |plan| plan.state == State::Draft).await;
    assert_eq!(plan.waiting_error, None);
}

#[tokio::test]
async fn a_line_that_changed_hands_too_often_waits_while_others_go_on() {
    let desk = Desk::open_with(Wanted {
        hops_per_hour: 1,
        ..Wanted::default()
    })
    .await;
    let sids = desk.groups(1_000, 3, "maya").await;
    desk.change_silently(&sids[0], "zoe").await;
    desk.app.sweep().await;
    desk.app.start_transfer(&sids[0], Kind::Cold, "maya").await;
    desk.app.settle_for(SignedDuration::from_secs(5)).await;
    let id = desk.draft(to_ada()).await.handover_id;
    desk.run(id).await;
    for _ in 0..5 {
        desk.app.settle_for(SignedDuration::from_secs(2)).await;
    }
    let counts = desk.counts(id).await;
    assert_eq!((counts.handed_over, counts.waiting), (2, 1), "{counts:?}");
    let line = &desk.lines(id).await[0];
    assert!(line.not_before.is_some(), "{line:?}");
    desk.app.advance(SignedDuration::from_hours(1));
    assert_eq!(desk.ended(id).await.state, State::Completed);
    assert_eq!(count(desk.holders(&sids).await), [("ada".to_owned(), 3)].into());
}

#[tokio::test]
async fn a_release_that_is_refused_does_not_hold_up_the_lines_after_it() {
    // What is released goes to her, who is to give everything away.
    let desk = Desk::open_with(Wanted {
        release_to: Some("maya".parse().unwrap()),
        ..Wanted::default()
    })
    .await;
    let sids = desk.groups(1_000, 3, "maya").await;
    let mut new = to_ada();
    new.rules = vec![Rule::People(vec!["cyd".parse().unwrap()])];
    new.otherwise = Otherwise::Release;
    let id = desk.draft(new).await.handover_id;
    let give = json!({ "by": "sam", "lines": [
        { "conversation_sid": sids[1], "action": "give", "to": "ada" },
        { "conversation_sid": sids[2], "action": "give", "to": "ada" },
    ] });
    let (status, body) = desk.post(&format!("/v1/handovers/{id}/lines"), &give).await;
    assert_eq!(status, 200, "{body}");
    desk.run(id).await;
    assert_eq!(desk.ended(id).await.state, State::Completed);
    assert_eq!(desk.holders(&sids).await, ["maya", "ada", "ada"]);
    let line = &desk.lines(id).await[0];
    assert_eq!(
        (line.state, line.outcome.as_deref()),
        (LineState::Skipped, Some("already_holder"))
    );
}

#[tokio::test]
async fn of_two_plans_of_one_person_that_are_run_at_once_one_is_a_conflict() {
    let desk = Desk::open().await;
    desk.groups(1_000, 1, "maya").await;
    let (one, other) = (desk.draft(to_ada()).await, desk.draft(to_ada()).await);
    let mut transaction = desk.app.pool().begin().await.unwrap();
    let handovers = &desk.app.app.api.handovers;
    handovers
        .act_in(&mut transaction, one.handover_id, Verb::Run, SAM)
        .await
        .unwrap();
    let second = desk.verb(other.handover_id, "run");
    let first = async {
        // Not before the second waits for it.
        let waiting =
            "pg_locks join pg_stat_activity using (pid) where datname = current_database() and not granted";
        while tables::count(&desk.app, waiting).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        transaction.commit().await.unwrap();
    };
    let ((status, problem), ()) = tokio::join!(second, first);
    assert_eq!(
        (status, kind(&problem)),
        (409, "another_handover_at_work"),
        "{problem}"
    );
    assert_eq!(problem["handover_id"], one.handover_id.to_string());
}

#[tokio::test]
async fn decided_anew_it_is_the_next_ones_turn_and_not_the_first_ones() {
    let desk = Desk::open().await;
    desk.put("/v1/agents/cyd/availability", &json!({ "status": "available" }))
        .await;
    let sids = desk.groups(1_000, 4, "maya").await;
    let mut new = over_the_team();
    new.lines_per_minute = 1;
    new.rules = vec![Rule::Team {
        team: "sales".parse().unwrap(),
        spread: Spread::RoundRobin,
    }];
    let id = desk.draft(new).await.handover_id;
    let to = async || -> Vec<String> {
        let lines = desk.lines(id).await;
        lines
            .iter()
            .map(|line| line.to.clone().unwrap().into_string())
            .collect()
    };
    assert_eq!(to().await, ["ada", "ben", "cyd", "ada"]);
    desk.run(id).await;
    desk.app.settle().await;
    desk.put("/v1/agents/ben/availability", &json!({ "status": "away" }))
        .await;
    for _ in 0..3 {
        desk.app.settle_for(SignedDuration::from_secs(61)).await;
    }
    assert_eq!(to().await, ["ada", "cyd", "ada", "cyd"]);
    desk.ended(id).await;
    assert_eq!(desk.holders(&sids).await, ["ada", "cyd", "ada", "cyd"]);
}
