//! Members of a group that starts are told one by one, in any order: who had the number with all of them last still has it.

use hookswitch::ids::ConversationSid;
use hookswitch::numbers::Rule;
use jiff::SignedDuration;

use super::{close, holder, queue, sales, started, told};
use crate::support::app::{BUYER, LINE, PARTNER, TestApp, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::tables;

const THIRD: &str = "+15555550119";

/// Maya had the group of the buyer, the partner and a third one until it ended.
async fn had_by_maya(app: &TestApp) {
    sales(app, &["ada", "maya"], Some(Rule::RoundRobin)).await;
    let sid = sid_of(&app.group_of(&[BUYER, PARTNER, THIRD]).await);
    assert_eq!(holder(app, &sid).await.as_deref(), Some("maya"));
    close(app, &sid).await;
}

/// The three start a group again; that the third one was added has not come when all else has.
async fn started_without_the_third(app: &TestApp) -> ConversationSid {
    app.text(BUYER, &[LINE, PARTNER, THIRD], "Is it still there?")
        .await;
    app.sandbox.settled().await;
    let sid = latest(app);
    hold_back(app, &sid).await;
    app.settle().await;
    let members = format!("participant where conversation_sid = '{sid}'");
    assert_eq!(
        tables::count(app, &members).await,
        3,
        "two handsets, and our number"
    );
    sid
}

fn latest(app: &TestApp) -> ConversationSid {
    let all = app.sandbox.conversations();
    all.last().unwrap().sid.as_str().parse().unwrap()
}

/// That the third one was added has not come yet.
async fn hold_back(app: &TestApp, sid: &ConversationSid) {
    let of_third = of_third(sid);
    let sql = format!("delete from webhook_pending where webhook_id in (select webhook_id {of_third})");
    tables::execute(app, &sql).await;
}

async fn let_come(app: &TestApp, sid: &ConversationSid) {
    let of_third = of_third(sid);
    let sql = format!("insert into webhook_pending (lane, webhook_id) select lane, webhook_id {of_third}");
    tables::execute(app, &sql).await;
}

fn of_third(sid: &ConversationSid) -> String {
    format!(
        "from webhook where conversation_sid = '{sid}' and event_type = 'onParticipantAdded'
            and position('{}' in convert_from(form, 'UTF8')) > 0",
        &THIRD[1..]
    )
}

#[tokio::test]
async fn the_last_holder_is_waited_for_where_a_member_is_told_last() {
    let app = TestApp::start().await;
    had_by_maya(&app).await;
    let sid = started_without_the_third(&app).await;
    assert_eq!(holder(&app, &sid).await, None);
    assert_eq!(queue(&app).await, ["members_coming"]);

    let_come(&app, &sid).await;
    app.settle().await;
    assert_eq!(
        told(&app, &sid).await,
        ["line.queued members_coming", "line.assigned maya last_holder"]
    );
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("maya"));
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn a_group_whose_second_handset_is_told_last_is_decided_about_then() {
    let app = TestApp::start().await;
    sales(&app, &["ada"], Some(Rule::RoundRobin)).await;
    app.text(BUYER, &[LINE, THIRD], "Is it still there?").await;
    app.sandbox.settled().await;
    let sid = latest(&app);
    hold_back(&app, &sid).await;
    app.settle().await;
    assert_eq!(
        told(&app, &sid).await,
        [""; 0],
        "it may have one handset for all we know"
    );
    let_come(&app, &sid).await;
    app.settle().await;
    assert_eq!(told(&app, &sid).await, ["line.assigned ada round_robin"]);
}

#[tokio::test]
async fn a_member_who_does_not_come_is_not_waited_for_longer() {
    let app = TestApp::start().await;
    had_by_maya(&app).await;
    // A group of its own, of some of those.
    let sid = started(&app).await;
    assert_eq!(queue(&app).await, ["members_coming"]);
    app.settle_for(SignedDuration::from_secs(16)).await;
    app.settle().await;
    assert_eq!(
        told(&app, &sid).await,
        ["line.queued members_coming", "line.assigned ada round_robin"]
    );
    assert_eq!(holder(&app, &sid).await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn where_a_sweep_lists_all_members_nobody_is_waited_for() {
    let app = TestApp::start().await;
    had_by_maya(&app).await;
    app.text(BUYER, &[LINE, PARTNER], "Is it still there?").await;
    app.sandbox.settled().await;
    tables::execute(&app, "truncate webhook_pending").await;
    let sid = latest(&app);
    app.sweep().await;
    app.settle().await;
    assert_eq!(told(&app, &sid).await, ["line.assigned ada round_robin"]);
}
