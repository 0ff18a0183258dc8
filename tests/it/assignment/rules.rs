//! A customer starts a group, and the number's rule says who gets it.

use hookswitch::numbers::Rule;
use hookswitch::transfer::{Kind, StartTransferError};
use jiff::SignedDuration;
use serde_json::json;

use super::{agent, holder, put_number, queue, sales, set_away, started, team, texted, told, wanted};
use crate::support::app::{BUYER, LINE, OTHER_LINE, PARTNER, TestApp, Wanted};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::tables;

#[tokio::test]
async fn turns_go_round_through_the_team() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben"], Some(Rule::RoundRobin)).await;
    let mut had = Vec::new();
    for other in ["+15555550111", "+15555550112", "+15555550113"] {
        let sid = texted(&app, BUYER, other).await;
        had.push(holder(&app, &sid).await.unwrap());
        assert_eq!(app.holders_at_twilio(&sid).len(), 1);
    }
    assert_eq!(had, ["ada", "ben", "ada"]);
    assert_mirror_equals_sandbox(&app).await;
    assert_eq!(
        tables::count(&app, "line_assignment").await,
        0,
        "somebody has each"
    );
}

#[tokio::test]
async fn lines_on_their_way_count_for_who_has_fewest() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben", "cy"], Some(Rule::LeastLoaded)).await;
    // All at once, so that no line is anybody's when the next is decided about.
    for other in ["+15555550111", "+15555550112", "+15555550113"] {
        app.text(BUYER, &[LINE, other], "Hello?").await;
    }
    app.settle_for(SignedDuration::from_secs(3)).await;
    let mut had: Vec<_> = Vec::new();
    for conversation in app.sandbox.conversations() {
        had.extend(holder(&app, &conversation.sid.as_str().parse().unwrap()).await);
    }
    had.sort();
    assert_eq!(had, ["ada", "ben", "cy"]);
}

#[tokio::test]
async fn who_is_on_call_gets_it_or_the_one_after_them() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben"], Some(Rule::OnCall)).await;
    team(&app, json!({ "on_call": ["ben", "ada"] })).await;
    let sid = started(&app).await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ben"));
    set_away(&app, "ben", true).await;
    let sid = texted(&app, BUYER, "+15555550111").await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ada"));
    let passed = format!(
        "select (data::jsonb->'passed')::text from event where type = 'line.assigned' and conversation_sid = '{sid}'"
    );
    assert_eq!(
        tables::rows(&app, &passed).await,
        [r#"[{"why": "away", "identity": "ben"}]"#]
    );
}

#[tokio::test]
async fn a_person_gets_it_where_the_rule_names_one() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben"], None).await;
    let mut of_ben = wanted(Some(Rule::Person));
    of_ben.person = Some("ben".parse().unwrap());
    put_number(&app, LINE, of_ben).await;
    let sid = started(&app).await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ben"));
    assert_eq!(told(&app, &sid).await, ["line.assigned ben person"]);
}

#[tokio::test]
async fn without_a_rule_everything_is_as_it_was() {
    let app = TestApp::start().await;
    let sid = started(&app).await;
    sales(&app, &["ada"], None).await;
    app.text(PARTNER, &[LINE, BUYER], "Anybody?").await;
    app.settle_for(SignedDuration::from_secs(3)).await;
    assert_eq!(app.holders(&sid).await, [None]);
    assert_eq!(told(&app, &sid).await, [""; 0]);
    assert_eq!(queue(&app).await, [""; 0]);
}

#[tokio::test]
async fn outside_hours_and_at_capacity_it_waits_and_the_answer_says_why() {
    let app = TestApp::start().await;
    sales(&app, &[], Some(Rule::RoundRobin)).await;
    agent(&app, "ada", json!({ "capacity": 1 })).await;
    let first = texted(&app, BUYER, "+15555550111").await;
    assert_eq!(holder(&app, &first).await.as_deref(), Some("ada"));
    let second = texted(&app, BUYER, "+15555550112").await;
    assert_eq!(holder(&app, &second).await, None);
    assert_eq!(told(&app, &second).await, ["line.queued nobody_free"]);
    let waiting = hookswitch::assignment::page(&mut *app.conn().await, None, None, 10)
        .await
        .unwrap();
    assert_eq!(waiting[0].passed[0].why, "at_capacity");
    assert_eq!(waiting[0].conversation_sid, second);
}

#[tokio::test]
async fn of_two_lines_of_one_group_nobody_gets_both() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben"], Some(Rule::OnCall)).await;
    put_number(&app, OTHER_LINE, wanted(Some(Rule::OnCall))).await;
    team(&app, json!({ "on_call": ["ada", "ben"] })).await;
    app.text(BUYER, &[LINE, OTHER_LINE, PARTNER], "Hello, both").await;
    app.settle_for(SignedDuration::from_secs(3)).await;
    let conversation = app.sandbox.conversations().pop().unwrap();
    let mut people: Vec<_> = conversation
        .participants
        .into_iter()
        .filter_map(|one| one.identity)
        .collect();
    people.sort();
    assert_eq!(people, ["ada", "ben"]);
    let failed = "transfer where state <> 'completed'";
    assert_eq!(tables::count(&app, failed).await, 0);
}

#[tokio::test]
async fn what_a_rule_gives_counts_among_the_hops_of_an_hour() {
    let app = TestApp::start_with(Wanted {
        hops_per_hour: 1,
        ..Wanted::default()
    })
    .await;
    sales(&app, &["ada", "ben"], Some(Rule::RoundRobin)).await;
    let sid = started(&app).await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ada"));
    let to_ben = TestApp::new_transfer(&sid, Kind::Cold, "ben");
    let refused = app.app.api.transfers.start(to_ben).await.unwrap_err();
    assert!(
        matches!(refused, StartTransferError::TooManyHops { limit: 1, .. }),
        "{refused}"
    );
}
