//! From what a customer wrote to whoever has the line in the end.

use hookswitch::people::{NewAvailability, Status, set_availability};
use hookswitch::transfer;
use jiff::SignedDuration;
use serde_json::json;

use super::{
    agent, answer, ask, by, escalations, later, policy, set, slow_answer, staffed, step, told, transfers,
};
use crate::support::app::{BUYER, LINE, PARTNER, TestApp};
use crate::support::tables;

#[tokio::test]
async fn who_does_not_answer_is_told_and_then_their_backup_is_offered_the_line_and_takes_it() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Is anybody there?").await;
    later(&app, 14).await;
    assert_eq!(told(&app).await, Vec::<String>::new());
    later(&app, 1).await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge maya"]);
    later(&app, 5).await;
    assert_eq!(told(&app).await[2..], ["step_taken offer jonas"]);
    let open = escalations(&app).await.remove(0);
    assert_eq!(
        (open.state.as_str(), open.cause.as_str(), open.policy_version),
        ("open", "no_answer", 1)
    );

    let filter = transfer::Filter {
        open: true,
        ..transfer::Filter::default()
    };
    let offered = transfer::page(&mut *app.conn().await, &filter, None, 10)
        .await
        .unwrap();
    let [offered] = offered.as_slice() else {
        panic!("{offered:?}")
    };
    assert_eq!(offered.kind, transfer::Kind::Escalation);
    assert_eq!(offered.requested_by, format!("escalation:{}", open.escalation_id));
    let in_time = offered.offer_expires_at.unwrap().duration_since(app.clock.now());
    assert!(
        in_time <= SignedDuration::from_mins(10) && in_time > SignedDuration::from_mins(9),
        "{in_time:?}"
    );
    app.app
        .api
        .transfers
        .accept(offered.transfer_id, "jonas")
        .await
        .unwrap();
    app.settle_for(SignedDuration::from_secs(10)).await;
    assert_eq!(app.holders(&sid).await.last().unwrap().as_deref(), Some("jonas"));
    assert_eq!(told(&app).await[3..], ["stopped handed_over"]);

    // The new holder has as much time as the one before, and then it begins anew.
    later(&app, 14).await;
    assert_eq!(told(&app).await.len(), 4);
    later(&app, 2).await;
    assert_eq!(told(&app).await[4..], ["started", "step_taken nudge jonas"]);
    answer(&app, &sid).await;
    assert_eq!(told(&app).await[6..], ["stopped answered"]);
    later(&app, 60).await;
    assert_eq!(told(&app).await.len(), 7);
    assert_eq!(
        tables::count(&app, "escalation_watch").await,
        0,
        "nothing is to come"
    );
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn an_offer_that_is_declined_or_runs_out_is_followed_by_the_next_step() {
    let (app, sid) = staffed().await;
    let rule = json!({
        "when": { "no_answer": "1m" },
        "steps": [step("offer", &json!("backup"), "10m"), step("offer", &json!("supervisor"), "10m"),
                  step("force", &json!({ "person": "jonas" }), "10m")],
    });
    set(&app, "all", &policy(&rule)).await;
    ask(&app, "Hello?").await;
    later(&app, 1).await;
    assert_eq!(told(&app).await, ["started", "step_taken offer jonas"]);
    let filter = transfer::Filter {
        open: true,
        ..transfer::Filter::default()
    };
    let offered = transfer::page(&mut *app.conn().await, &filter, None, 10)
        .await
        .unwrap();
    app.app
        .api
        .transfers
        .decline(offered[0].transfer_id, "jonas")
        .await
        .unwrap();
    app.settle().await;
    assert_eq!(told(&app).await[2..], ["step_taken offer noor"], "at once");
    later(&app, 10).await;
    app.settle_for(SignedDuration::from_secs(10)).await;
    assert_eq!(
        told(&app).await[3..],
        ["step_taken force jonas", "stopped handed_over"]
    );
    assert_eq!(app.holders(&sid).await.last().unwrap().as_deref(), Some("jonas"));
    let told = transfers(&app).await;
    assert!(told.contains(&"expired noor".to_owned()), "{told:?}");
}

#[tokio::test]
async fn there_is_never_an_offer_beside_one_of_somebody_else() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    later(&app, 16).await;
    app.start_transfer(&sid, transfer::Kind::Warm, "noor").await;
    later(&app, 5).await;
    assert_eq!(
        told(&app).await[1..],
        ["step_taken nudge maya", "step_refused offer jonas already_open"]
    );
    assert_eq!(tables::count(&app, "transfer where finished_at is null").await, 1);
    // It has the time of the step; there is no further one.
    later(&app, 10).await;
    assert_eq!(told(&app).await[3..], ["needs_person needs_person"]);
}

#[tokio::test]
async fn nobody_is_passed_over_silently() {
    let (app, _) = staffed().await;
    agent(&app, "maya", None, None).await;
    let rule = json!({
        "when": { "no_answer": "1m" },
        "steps": [step("offer", &json!("backup"), "10m"), step("nudge", &json!("supervisor"), "10m"),
                  step("force", &json!({ "person": "jonas" }), "10m"), step("nudge", &json!("holder"), "10m")],
        "then": "stop",
    });
    set(&app, "all", &policy(&rule)).await;
    let away = NewAvailability {
        status: Status::Away,
        reason: None,
        until: None,
        by: None,
    };
    let now = app.clock.now();
    set_availability(
        &mut *app.conn().await,
        &"jonas".parse().unwrap(),
        away,
        &by(),
        now,
    )
    .await
    .unwrap();
    ask(&app, "Hello?").await;
    later(&app, 1).await;
    assert_eq!(
        told(&app).await,
        [
            "started",
            "step_skipped offer no_backup",
            "step_skipped nudge no_supervisor",
            "step_skipped force away",
            "step_taken nudge maya"
        ]
    );
    later(&app, 10).await;
    assert_eq!(told(&app).await[5..], ["ended steps_taken"]);
}

#[tokio::test]
async fn the_last_step_is_repeated_until_somebody_answers() {
    let (app, sid) = staffed().await;
    let rule = json!({
        "when": { "no_answer": "1m" }, "then": "repeat_last",
        "steps": [step("nudge", &json!("holder"), "5m")],
    });
    set(&app, "all", &policy(&rule)).await;
    ask(&app, "Hello?").await;
    later(&app, 1).await;
    for _ in 0..3 {
        later(&app, 5).await;
    }
    answer(&app, &sid).await;
    later(&app, 20).await;
    assert_eq!(
        told(&app).await,
        [
            "started",
            "step_taken nudge maya",
            "step_taken nudge maya",
            "step_taken nudge maya",
            "step_taken nudge maya",
            "stopped answered"
        ]
    );
}

#[tokio::test]
async fn words_are_found_whole_and_not_told() {
    let (app, _) = staffed().await;
    let rule = json!({
        "when": { "words": ["lawyer", "speak to a manager"] },
        "steps": [step("nudge", &json!("supervisor"), "5m")],
    });
    set(&app, "all", &policy(&rule)).await;
    ask(&app, "There are lawyers everywhere").await;
    assert_eq!(told(&app).await, Vec::<String>::new());
    ask(&app, "I want to SPEAK to a manager!").await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge noor"]);
    let leaks = "event where type like 'escalation%' and data ilike '%manager%'";
    assert_eq!(tables::count(&app, leaks).await, 0);
    // While it is open, what else is said is left to it.
    ask(&app, "My lawyer will hear of it").await;
    assert_eq!(told(&app).await.len(), 2);
    later(&app, 6).await;
    ask(&app, "Lawyer!").await;
    assert_eq!(
        told(&app).await[2..],
        ["ended steps_taken", "started", "step_taken nudge noor"]
    );
}

#[tokio::test]
async fn who_goes_away_while_holding_a_line_is_looked_after() {
    let (app, _) = staffed().await;
    let rule = json!({
        "when": { "unavailable": "10m" },
        "steps": [step("nudge", &json!("backup"), "5m"), step("nudge", &json!("supervisor"), "5m")],
    });
    set(&app, "all", &policy(&rule)).await;
    let maya = "maya".parse().unwrap();
    let say = async |status, until: Option<i64>| {
        let now = app.clock.now();
        let new = NewAvailability {
            status,
            reason: None,
            until: until.map(|minutes| now + SignedDuration::from_mins(minutes)),
            by: None,
        };
        set_availability(&mut *app.conn().await, &maya, new, &by(), now)
            .await
            .unwrap();
        app.settle().await;
    };
    say(Status::Away, Some(5)).await;
    later(&app, 20).await;
    assert_eq!(told(&app).await, Vec::<String>::new(), "back in time");

    say(Status::Away, Some(12)).await;
    later(&app, 10).await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge jonas"]);
    later(&app, 2).await;
    assert_eq!(told(&app).await[2..], ["stopped back"], "by the clock alone");

    say(Status::Away, None).await;
    later(&app, 10).await;
    later(&app, 5).await;
    assert_eq!(
        told(&app).await[3..],
        ["started", "step_taken nudge jonas", "step_taken nudge noor"]
    );
    say(Status::Available, None).await;
    assert_eq!(told(&app).await[6..], ["stopped back"]);
}

#[tokio::test]
async fn what_a_customer_writes_after_all_was_done_begins_anew() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Thanks!").await;
    later(&app, 15).await;
    later(&app, 5).await;
    later(&app, 10).await;
    app.settle_for(SignedDuration::from_secs(10)).await;
    assert_eq!(
        told(&app).await,
        [
            "started",
            "step_taken nudge maya",
            "step_taken offer jonas",
            "needs_person needs_person"
        ]
    );
    // Nobody has answered, and three days later there is something else.
    app.settle_for(SignedDuration::from_hours(72)).await;
    assert_eq!(told(&app).await.len(), 4);
    ask(&app, "The closing is today, where do I have to be?").await;
    later(&app, 14).await;
    assert_eq!(told(&app).await.len(), 4, "with all its time");
    later(&app, 1).await;
    assert_eq!(told(&app).await[4..], ["started", "step_taken nudge maya"]);
    answer(&app, &sid).await;
    assert_eq!(told(&app).await[6..], ["stopped answered"]);
}

#[tokio::test]
async fn a_message_that_does_not_arrive_is_looked_after() {
    let (app, sid) = staffed().await;
    let rule = json!({
        "when": "delivery_failure",
        "steps": [step("nudge", &json!("holder"), "5m"), step("nudge", &json!("supervisor"), "5m")],
    });
    set(&app, "all", &policy(&rule)).await;
    answer(&app, &sid).await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(told(&app).await, Vec::<String>::new(), "that one arrived");
    // From then on nothing reaches the partner: the carrier says so of what we write (21610).
    app.text(PARTNER, &[LINE, BUYER], "STOP").await;
    app.settle().await;
    answer(&app, &sid).await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge maya"]);
    let one = escalations(&app).await.remove(0);
    assert_eq!(one.cause, "delivery_failure");
    let failed = "select message_sid from delivery_receipt where status = 'undelivered'";
    assert_eq!(tables::rows(&app, failed).await, [one.cause_key]);
    // A second receipt of the same message changes nothing; nobody writes again, and it goes on.
    later(&app, 5).await;
    assert_eq!(told(&app).await[2..], ["step_taken nudge noor"]);
    later(&app, 5).await;
    assert_eq!(told(&app).await[3..], ["ended steps_taken"]);
}

#[tokio::test]
async fn who_introduces_themselves_has_not_answered_yet() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "When do we close?").await;
    let new = transfer::NewTransfer {
        introduction: Some("Jonas here, for Maya.".to_owned()),
        ..TestApp::new_transfer(&sid, transfer::Kind::Cold, "jonas")
    };
    app.app.api.transfers.start(new).await.unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(
        tables::count(&app, "outbound_message where state = 'sent'").await,
        1
    );
    later(&app, 14).await;
    assert_eq!(told(&app).await, Vec::<String>::new());
    later(&app, 1).await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge jonas"]);
    answer(&app, &sid).await;
    later(&app, 1).await;
    assert_eq!(told(&app).await[2..], ["stopped answered"]);
}
