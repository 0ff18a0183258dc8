//! Where nobody can be given a line it waits, with its age and the reason, until somebody takes it or is there.

use hookswitch::assignment::{self, Take, TakeError};
use hookswitch::ids::ConversationSid;
use hookswitch::numbers::Rule;
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::transfer::{Kind, Transfer};
use jiff::SignedDuration;

use super::{close, holder, queue, sales, set_away, started, texted, told};
use crate::support::app::{BUYER, TestApp};
use crate::support::tables;

async fn take(app: &TestApp, sid: &ConversationSid, by: &str) -> Result<Transfer, TakeError> {
    let take = Take {
        conversation_sid: sid.clone(),
        line: None,
        by: by.parse().unwrap(),
    };
    let mut transaction = app.pool().begin().await.unwrap();
    let taken = assignment::take_in(&app.app.api.transfers, &mut transaction, take).await?;
    transaction.commit().await.unwrap();
    Ok(taken)
}

#[tokio::test]
async fn a_line_waits_and_one_of_two_who_take_it_gets_it() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben"], Some(Rule::Queue)).await;
    let sid = started(&app).await;
    assert_eq!(queue(&app).await, ["queue"]);
    let transfers = app.app.api.transfers.clone();
    assert_eq!(transfers.settings.hops_per_hour, 0);

    let (one, other) = tokio::join!(take(&app, &sid, "ada"), take(&app, &sid, "ben"));
    let ((Ok(transfer), Err(refused)) | (Err(refused), Ok(transfer))) = (one, other) else {
        panic!("one of two gets it");
    };
    let TakeError::AlreadyTaken { by, transfer_id, .. } = refused else {
        panic!("the other is told: {refused}");
    };
    assert_eq!(
        (by.as_deref(), transfer_id),
        (transfer.to(), Some(transfer.transfer_id))
    );
    assert_eq!(queue(&app).await, [""; 0]);
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(holder(&app, &sid).await.as_deref(), transfer.to());
    let taker = transfer.to().unwrap();
    assert_eq!(
        told(&app, &sid).await,
        ["line.queued queue".to_owned(), format!("line.taken {taker}")]
    );
    let Err(TakeError::AlreadyTaken { by, .. }) = take(&app, &sid, "cy").await else {
        panic!("it stays taken");
    };
    assert_eq!(by.as_deref(), Some(taker));
}

#[tokio::test]
async fn who_comes_back_is_given_what_waits_the_oldest_first() {
    let app = TestApp::start().await;
    sales(&app, &["ada"], Some(Rule::RoundRobin)).await;
    super::agent(&app, "ada", serde_json::json!({ "capacity": 1 })).await;
    set_away(&app, "ada", true).await;
    let first = texted(&app, BUYER, "+15555550111").await;
    app.advance(SignedDuration::from_mins(1));
    let second = texted(&app, BUYER, "+15555550112").await;
    assert_eq!(queue(&app).await, ["nobody_free", "nobody_free"]);

    set_away(&app, "ada", false).await;
    assignment::look_soon(&mut *app.conn().await, app.clock.now())
        .await
        .unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(holder(&app, &first).await.as_deref(), Some("ada"));
    assert_eq!(holder(&app, &second).await, None);
    assert_eq!(queue(&app).await, ["nobody_free"]);

    // Once there is room again, it is seen without anybody's doing.
    close(&app, &first).await;
    app.settle_for(SignedDuration::from_secs(16)).await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(holder(&app, &second).await.as_deref(), Some("ada"));
    assert_eq!(
        told(&app, &second).await,
        ["line.queued nobody_free", "line.assigned ada round_robin"]
    );
    app.settle_for(SignedDuration::from_secs(16)).await;
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn a_line_that_somebody_gets_otherwise_waits_no_longer() {
    let app = TestApp::start().await;
    sales(&app, &["ada"], Some(Rule::Queue)).await;
    let sid = started(&app).await;
    app.start_transfer(&sid, Kind::Assign, "ada").await;
    assert_eq!(queue(&app).await, [""; 0]);
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(
        told(&app, &sid).await,
        ["line.queued queue", "line.dequeued staffed ada"]
    );
    let over = texted(&app, BUYER, "+15555550111").await;
    close(&app, &over).await;
    assert_eq!(
        told(&app, &over).await,
        ["line.queued queue", "line.dequeued over"]
    );
    app.settle_for(SignedDuration::from_secs(16)).await;
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn what_was_given_in_vain_waits_with_its_code_and_is_left_to_people_in_the_end() {
    let app = TestApp::start().await;
    sales(&app, &["ada"], Some(Rule::RoundRobin)).await;
    let fault = RestFault {
        method: Some("POST".to_owned()),
        path: Some("/v1/Services/*/Conversations/*/Participants/*".to_owned()),
        status: Some(503),
        effect: Effect::default(),
        hold_ms: 0,
        probability: 1.0,
        times: None,
    };
    let faults = Faults {
        rest: vec![fault],
        ..Faults::default()
    };
    app.sandbox.set_faults(faults).unwrap();
    let sid = started(&app).await;
    for _ in 0..3 {
        app.settle_for(SignedDuration::from_mins(121)).await;
        app.settle_for(SignedDuration::from_secs(16)).await;
    }
    assert_eq!(queue(&app).await, ["given_in_vain"]);
    let waiting = assignment::page(&mut *app.conn().await, None, None, 10)
        .await
        .unwrap();
    let passed = &waiting[0].passed[0];
    assert_eq!(
        (passed.identity.as_str(), passed.why.as_str()),
        ("ada", "timed_out")
    );
    let given = "line.assigned ada round_robin";
    let again = "line.queued given_in_vain";
    assert_eq!(
        told(&app, &sid).await,
        [given, again, given, again, given, again],
        "three times, and not again"
    );
    // People may still take it.
    app.sandbox.set_faults(Faults::default()).unwrap();
    take(&app, &sid, "ben").await.unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ben"));
}
