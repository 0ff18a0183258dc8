//! What stops an escalation, and what leaves it alone.

use hookswitch::escalation;
use hookswitch::transfer::Kind;
use jiff::SignedDuration;
use serde_json::json;

use super::{answer, ask, by, close, escalations, later, policy, set, slow_answer, staffed, step, told};
use crate::support::tables;

#[tokio::test]
async fn who_answers_just_before_it_is_due_is_left_alone() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    app.settle_for(SignedDuration::from_secs(14 * 60 + 58)).await;
    answer(&app, &sid).await;
    later(&app, 60).await;
    assert_eq!(told(&app).await, Vec::<String>::new());
    assert_eq!(tables::count(&app, "escalation").await, 0);
}

#[tokio::test]
async fn an_answer_that_we_hear_of_late_stops_what_it_came_before() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    later(&app, 16).await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge maya"]);
    // The answer is at Twilio before the message is due, and we are told of it when the first step has been taken.
    let author = "select conversation_sid from conversation";
    assert_eq!(tables::rows(&app, author).await, [sid.as_str()]);
    tables::execute(
        &app,
        "insert into message (conversation_sid, message_sid, account_sid, message_index, author, created_at, version_at,
            version_exact, learnt_at, stated_at)
        select conversation_sid, 'IM000000000000000000000000000000ff', account_sid, message_index + 1, 'maya',
            created_at + interval '5 minutes', created_at + interval '5 minutes', true, learnt_at, stated_at
        from message limit 1;
        update escalation_watch set look_at = 'epoch', lease_token = null, lease_expires_at = null",
    )
    .await;
    app.settle().await;
    assert_eq!(told(&app).await[2..], ["stopped answered"]);
    later(&app, 60).await;
    assert_eq!(told(&app).await.len(), 3);
}

#[tokio::test]
async fn closing_the_conversation_stops_it_and_withdraws_nothing_that_is_over() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    later(&app, 16).await;
    close(&app, &sid).await;
    assert_eq!(told(&app).await[2..], ["stopped closed"]);
    later(&app, 60).await;
    assert_eq!(told(&app).await.len(), 3);
    assert_eq!(tables::count(&app, "escalation_watch").await, 0);
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn a_hand_over_by_people_stops_it() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    later(&app, 16).await;
    app.start_transfer(&sid, Kind::Cold, "noor").await;
    app.settle_for(SignedDuration::from_secs(10)).await;
    assert_eq!(told(&app).await[2..], ["stopped handed_over"]);
    assert_eq!(
        escalations(&app).await[0].why.as_deref(),
        Some("handed_over"),
        "and so it is stored"
    );
}

#[tokio::test]
async fn an_answer_withdraws_the_offer_that_stands() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    later(&app, 15).await;
    later(&app, 5).await;
    assert_eq!(tables::count(&app, "transfer where state = 'offered'").await, 1);
    answer(&app, &sid).await;
    assert_eq!(told(&app).await[3..], ["stopped answered"]);
    assert_eq!(
        tables::rows(&app, "select state from transfer").await,
        ["cancelled"]
    );
}

#[tokio::test]
async fn an_answer_does_not_stop_what_says_so() {
    let (app, sid) = staffed().await;
    let rule = json!({
        "when": { "words": ["lawyer"] }, "answer_stops": false,
        "steps": [step("nudge", &json!("holder"), "5m"), step("nudge", &json!("supervisor"), "5m")],
    });
    set(&app, "all", &policy(&rule)).await;
    ask(&app, "lawyer").await;
    answer(&app, &sid).await;
    later(&app, 5).await;
    assert_eq!(
        told(&app).await,
        ["started", "step_taken nudge maya", "step_taken nudge noor"]
    );
}

#[tokio::test]
async fn what_is_open_goes_on_under_its_version_and_new_things_begin_under_the_new_one() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    later(&app, 15).await;
    let other = policy(&json!({
        "when": { "no_answer": "2m" },
        "steps": [step("nudge", &json!("supervisor"), "5m")],
    }));
    let second = set(&app, "all", &other).await;
    assert_eq!(second.version, 2);
    later(&app, 5).await;
    assert_eq!(
        told(&app).await,
        ["started", "step_taken nudge maya", "step_taken offer jonas"],
        "as it began"
    );
    answer(&app, &sid).await;
    ask(&app, "And now?").await;
    later(&app, 2).await;
    assert_eq!(
        told(&app).await[3..],
        ["stopped answered", "started", "step_taken nudge noor"]
    );
    let versions: Vec<i64> = escalations(&app)
        .await
        .iter()
        .map(|one| one.policy_version)
        .collect();
    assert_eq!(versions, [1, 2]);
}

#[tokio::test]
async fn a_policy_that_is_switched_off_stops_what_is_open_and_does_not_look_back_when_it_is_on_again() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    later(&app, 16).await;
    let mut off = slow_answer();
    off["enabled"] = json!(false);
    set(&app, "all", &off).await;
    app.settle().await;
    assert_eq!(told(&app).await[2..], ["stopped policy_off"]);
    answer(&app, &sid).await;
    ask(&app, "Hello again?").await;
    later(&app, 30).await;
    set(&app, "all", &slow_answer()).await;
    later(&app, 60).await;
    assert_eq!(told(&app).await.len(), 3, "what happened while it was off");

    ask(&app, "Nobody?").await;
    let (mut conn, now) = (app.conn().await, app.clock.now());
    escalation::remove_policy(&mut conn, &"all".parse().unwrap(), &by(), now)
        .await
        .unwrap();
    later(&app, 60).await;
    assert_eq!(told(&app).await.len(), 3);
    assert_eq!(tables::count(&app, "escalation_watch").await, 0);
}
