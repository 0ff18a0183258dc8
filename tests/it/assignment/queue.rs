//! Where nobody can be given a line it waits, with its age and the reason, until somebody takes it or is there.

use hookswitch::assignment::{self, Take, TakeError};
use hookswitch::ids::ConversationSid;
use hookswitch::numbers::Rule;
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::transfer::{Kind, Transfer};
use jiff::SignedDuration;

use super::{
    close, holder, number, put_number, queue, queue_of, sales, set_away, started, team_of, texted, told,
    wanted,
};
use crate::support::app::{BUYER, LINE, OTHER_LINE, PARTNER, TestApp, sid_of};
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

/// Twilio does not put anybody on a line.
fn nobody_is_seated(app: &TestApp) {
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
}

#[tokio::test]
async fn what_was_given_in_vain_waits_with_its_code_and_is_left_to_people_in_the_end() {
    let app = TestApp::start().await;
    sales(&app, &["ada"], Some(Rule::RoundRobin)).await;
    nobody_is_seated(&app);
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

#[tokio::test]
async fn what_waits_says_why_it_does_now_and_in_whose_queue() {
    let app = TestApp::start().await;
    sales(&app, &["ada"], Some(Rule::RoundRobin)).await;
    set_away(&app, "ada", true).await;
    let sid = started(&app).await;
    let passed = async |team: &str| -> Vec<String> {
        let waiting = queue_of(team, &app).await;
        let passed = waiting.into_iter().flat_map(|line| line.passed);
        passed
            .map(|one| format!("{} {}", one.identity, one.why))
            .collect()
    };
    assert_eq!(passed("sales").await, ["ada away"]);
    super::agent(&app, "ada", serde_json::json!({ "capacity": 0 })).await;
    set_away(&app, "ada", false).await;
    app.settle_for(SignedDuration::from_secs(16)).await;
    assert_eq!(passed("sales").await, ["ada at_capacity"]);

    team_of("night", &app, serde_json::json!({})).await;
    let mut of_night = wanted(Some(Rule::RoundRobin));
    of_night.team = Some("night".parse().unwrap());
    put_number(&app, LINE, of_night).await;
    assert_eq!(queue(&app).await, [""; 0]);
    assert_eq!(passed("night").await, ["ada at_capacity"], "at once");
    app.settle_for(SignedDuration::from_secs(16)).await;
    let reasons = queue_of("night", &app).await.into_iter().map(|line| line.reason);
    assert_eq!(reasons.collect::<Vec<_>>(), ["nobody_in_team"]);
    assert_eq!(
        told(&app, &sid).await,
        ["line.queued nobody_free"],
        "that it waits is told once"
    );
}

#[tokio::test]
async fn many_that_nobody_can_be_given_are_in_no_other_lines_way() {
    let app = TestApp::start().await;
    sales(&app, &["ada"], Some(Rule::RoundRobin)).await;
    number(&app, OTHER_LINE, Some(Rule::Queue)).await;
    set_away(&app, "ada", true).await;
    let sid = started(&app).await;
    let account = app.account().account_sid.as_str();
    let since = app.clock.now() - SignedDuration::from_hours(1);
    tables::execute(
        &app,
        &format!(
            "create temporary table older as select 'CH' || lpad(to_hex(n), 32, '0') as sid, '{OTHER_LINE}' as line,
                 '{account}' as account, timestamptz '{since}' as at from generate_series(1, 2001) as n;
             insert into conversation (conversation_sid, account_sid, state, first_seen_at)
                 select sid, account, 'active', at from older;
             insert into tenure (tenure_id, conversation_sid, line, during, cause, via, recorded_at)
                 select gen_random_uuid(), sid, line, tstzrange(at, null), 'created', 'webhook', at from older;
             insert into line_assignment (conversation_sid, line, account_sid, team_id, state, reason, since, passed, updated_at)
                 select sid, line, account, 'sales', 'waiting', 'queue', at, '[]', at from older"
        ),
    )
    .await;
    set_away(&app, "ada", false).await;
    app.settle_for(SignedDuration::from_secs(16)).await;
    app.settle().await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ada"));
    assert_eq!(tables::count(&app, "line_assignment").await, 2_001);
}

#[tokio::test]
async fn who_writes_while_somebody_is_given_the_line_in_vain_is_not_forgotten() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben"], Some(Rule::RoundRobin)).await;
    let sid = sid_of(&app.group(None).await);
    nobody_is_seated(&app);
    let transfer = app.start_transfer(&sid, Kind::Assign, "ben").await;
    app.text(PARTNER, &[LINE, BUYER], "Anybody?").await;
    app.settle_for(SignedDuration::from_mins(121)).await;
    assert!(app.transfer(transfer.transfer_id).await.finished_at.is_some());
    app.sandbox.set_faults(Faults::default()).unwrap();
    app.settle_for(SignedDuration::from_secs(16)).await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ada"));
    assert_eq!(told(&app, &sid).await, ["line.assigned ada round_robin"]);
}

#[tokio::test]
async fn who_writes_while_somebody_is_given_the_line_has_them_and_nothing_is_told() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben"], Some(Rule::RoundRobin)).await;
    let sid = sid_of(&app.group(None).await);
    nobody_is_seated(&app);
    app.start_transfer(&sid, Kind::Assign, "ben").await;
    app.text(PARTNER, &[LINE, BUYER], "Anybody?").await;
    app.settle().await;
    assert_eq!(tables::count(&app, "line_assignment").await, 1, "it is noted");
    assert_eq!(queue(&app).await, [""; 0]);
    app.sandbox.set_faults(Faults::default()).unwrap();
    for _ in 0..8 {
        app.settle_for(SignedDuration::from_secs(15)).await;
    }
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ben"));
    assert_eq!(told(&app, &sid).await, [""; 0]);
    assert_eq!(tables::count(&app, "line_assignment").await, 0);
    tables::assert_queue_is_empty(&app).await;
}
