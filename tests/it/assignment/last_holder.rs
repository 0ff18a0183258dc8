//! Who held the number with these people last has it again, if they are still here.

use hookswitch::numbers::Rule;
use hookswitch::transfer::{GiveUp, IfOpen, Kind};
use jiff::SignedDuration;
use serde_json::json;

use super::{agent, close, holder, sales, set_away, started, texted, told};
use crate::support::app::{BUYER, LINE, PARTNER, TestApp, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;

/// Maya had the group of the buyer and the partner until it ended.
async fn had_by_maya(app: &TestApp) {
    let sid = sid_of(&app.group(Some("noor")).await);
    app.start_transfer(&sid, Kind::Cold, "maya").await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(holder(app, &sid).await.as_deref(), Some("maya"));
    close(app, &sid).await;
}

#[tokio::test]
async fn the_last_holder_of_an_earlier_group_of_the_same_people_has_it_again() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "maya", "noor"], Some(Rule::RoundRobin)).await;
    had_by_maya(&app).await;
    let sid = started(&app).await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("maya"));
    assert_eq!(told(&app, &sid).await, ["line.assigned maya last_holder"]);
    // Another group with the same buyer is another group.
    let other = texted(&app, BUYER, "+15555550111").await;
    assert_eq!(told(&app, &other).await, ["line.assigned ada round_robin"]);
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn one_who_has_left_or_is_away_does_not() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "maya"], Some(Rule::RoundRobin)).await;
    had_by_maya(&app).await;
    agent(
        &app,
        "maya",
        json!({ "left_at": app.clock.now() - SignedDuration::from_hours(1) }),
    )
    .await;
    let sid = started(&app).await;
    assert_eq!(told(&app, &sid).await, ["line.assigned ada round_robin"]);
    close(&app, &sid).await;

    set_away(&app, "ada", true).await;
    let sid = started(&app).await;
    assert_eq!(holder(&app, &sid).await, None);
    assert_eq!(told(&app, &sid).await, ["line.queued nobody_free"]);
}

#[tokio::test]
async fn a_line_that_was_released_finds_somebody_when_a_customer_writes() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "maya"], Some(Rule::RoundRobin)).await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let give_up = GiveUp {
        conversation_sid: sid.clone(),
        line: None,
        by: "maya".into(),
        reason: None,
        note: None,
        introduction: None,
        if_open: IfOpen::default(),
    };
    app.app.api.transfers.release(give_up).await.unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(holder(&app, &sid).await, None);
    assert_eq!(told(&app, &sid).await, [""; 0], "nobody has written");

    set_away(&app, "maya", true).await;
    app.text(PARTNER, &[LINE, BUYER], "One more thing").await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ada"));
    assert_eq!(told(&app, &sid).await, ["line.assigned ada round_robin"]);
    assert_mirror_equals_sandbox(&app).await;
}
