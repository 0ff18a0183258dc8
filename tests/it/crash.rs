//! The process dies after every step, and a new one goes on: transfers, group texts, messages, projecting. And the same
//! where it is Twilio that fails, at each call and in each way.
//!
//! One service goes through all points of death one after the other, since setting one up costs more than a death.

use std::time::Duration;

use hookswitch::ids::ConversationSid;
use hookswitch::inbox::pace::Pace;
use hookswitch::inbox::process::Projector;
use hookswitch::outbox::{self, NewOutboundMessage, OutboundMessage};
use hookswitch::sandbox::{Effect, Faults, IdentityReplacement, RestFault};
use hookswitch::transfer::{Kind, State, Transfer};
use hookswitch::{group_text, queue};
use jiff::SignedDuration;

use crate::support::app::{BUYER, LINE, PARTNER, TestApp, Wanted, new_group, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::cut::{Points, connect, cut, nothing_is_open, work_and_die};
use crate::support::tables;

/// Beyond every lease that a dead process leaves behind.
const LEASES: SignedDuration = SignedDuration::from_mins(10);

/// A loop that comes to no end by then is not about crashes any more.
const POLLS_MAX: usize = 2_000;

async fn app() -> TestApp {
    let wanted = Wanted {
        call_timeout: Duration::from_millis(300),
        ..Wanted::default()
    };
    TestApp::start_with(wanted).await
}

/// A new process, which knows nothing but what is stored, comes up after the leases of the dead one have run out, and does
/// what there is to do.
async fn recover(app: &TestApp) {
    app.settle_for(LEASES).await;
    app.settle_for(SignedDuration::from_secs(5)).await;
}

/// The two agents between whom the line goes back and forth.
fn other_than(holder: &str) -> &'static str {
    if holder == "maya" { "jonas" } else { "maya" }
}

async fn holder(app: &TestApp, sid: &ConversationSid) -> String {
    let last = app.holders(sid).await.pop().unwrap();
    last.unwrap()
}

/// A transfer that is accepted, or needs not be, and has not been worked on.
async fn begun(app: &TestApp, sid: &ConversationSid, kind: Kind) -> Transfer {
    let to = other_than(&holder(app, sid).await);
    let transfer = app.start_transfer(sid, kind, to).await;
    if kind.is_offered() {
        app.app
            .api
            .transfers
            .accept(transfer.transfer_id, to)
            .await
            .unwrap();
    }
    transfer
}

/// The transfer has come to its good end, and nothing else has happened.
async fn assert_transferred(app: &TestApp, transfer: &Transfer, point: &str) {
    let id = transfer.transfer_id;
    let ended = app.transfer(id).await;
    assert_eq!(
        ended.state,
        State::Completed,
        "{point}: {:?}",
        ended.outcome_detail
    );
    let (from, to) = (ended.from_holder.unwrap(), ended.to_holder.unwrap().to_string());
    let sid = &ended.conversation_sid;
    assert_eq!(app.holders_at_twilio(sid), [Some(to.clone())], "{point}");
    let holders = app.holders(sid).await;
    assert_eq!(holders[holders.len() - 2..], [Some(from), Some(to)], "{point}");
    let tells = |kind: &str| format!("event where type = '{kind}' and subject = '{id}'");
    assert_eq!(
        tables::count(app, &tells("transfer.completed")).await,
        1,
        "{point}"
    );
    assert_eq!(
        tables::count(
            app,
            "event where type in ('transfer.failed', 'transfer.needs_attention')"
        )
        .await,
        0
    );
    let told = tables::rows(
        app,
        "select concat_ws(' ', commit_xid, occurred_at, via, cause, data::text) from event where type = 'line.holder_changed'
         order by commit_xid, event_id",
    )
    .await;
    let tenures = tables::rows(
        app,
        "select concat_ws(' ', holder, during, cause, recorded_at, superseded_at) from tenure order by recorded_at, during",
    )
    .await;
    assert_eq!(
        i64::try_from(told.len()).unwrap(),
        tables::count(app, "tenure where superseded_at is null").await,
        "{point}: one entry of the log for every tenure: {told:#?} {tenures:#?}"
    );
    assert_eq!(
        tables::count(app, "tenure where superseded_at is null and cause = 'upstream'").await,
        0,
        "{point}: {tenures:#?}"
    );
    assert_eq!(
        tables::count(app, "line_lease where transfer_id is not null").await,
        0,
        "{point}"
    );
    tables::assert_queue_is_empty(app).await;
    assert_mirror_equals_sandbox(app).await;
}

/// Lets a process die at every `step`-th of its stops within a transfer, until one comes to the end alive.
async fn transfer_survives_deaths(
    app: &TestApp,
    sid: &ConversationSid,
    kind: Kind,
    first: usize,
    step: usize,
) {
    let mut points = Points::default();
    let process = app.restarted();
    for polls in (first..POLLS_MAX).step_by(step) {
        tables::execute(app, "delete from transfer_method").await;
        let transfer = begun(app, sid, kind).await;
        let alive = work_and_die(app, &process, polls).await;
        recover(app).await;
        if kind.is_offered() {
            // The end of the offer, which was answered, comes and does nothing.
            app.settle_for(SignedDuration::from_mins(20)).await;
        }
        assert_transferred(app, &transfer, &format!("{kind:?}, death at {polls}")).await;
        if points.note(kind.as_str(), alive) {
            return;
        }
    }
    panic!("no process came to the end alive");
}

#[tokio::test]
async fn a_transfer_by_update_survives_a_death_at_every_step() {
    let app = app().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    transfer_survives_deaths(&app, &sid, Kind::Cold, 1, 1).await;
    transfer_survives_deaths(&app, &sid, Kind::Warm, 2, 5).await;
}

#[tokio::test]
async fn a_transfer_by_adding_and_removing_survives_a_death_at_every_step() {
    let app = app().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.sandbox.set_identity_replacement(IdentityReplacement::Refuse);
    transfer_survives_deaths(&app, &sid, Kind::Cold, 1, 1).await;
    transfer_survives_deaths(&app, &sid, Kind::Warm, 3, 7).await;
}

#[tokio::test]
async fn a_transfer_survives_the_death_of_the_process_that_came_after_a_death() {
    let app = app().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.sandbox.set_identity_replacement(IdentityReplacement::Refuse);
    let process = app.restarted();
    for first in [12, 25, 38] {
        for second in [5, 14, 23, 31] {
            tables::execute(&app, "delete from transfer_method").await;
            let transfer = begun(&app, &sid, Kind::Cold).await;
            work_and_die(&app, &process, first).await;
            app.clock.advance(LEASES);
            work_and_die(&app, &process, second).await;
            recover(&app).await;
            assert_transferred(&app, &transfer, &format!("deaths at {first} and {second}")).await;
        }
    }
}

#[tokio::test]
async fn a_group_text_is_made_once_whenever_the_process_dies() {
    let app = app().await;
    let process = app.restarted();
    let mut points = Points::default();
    for polls in 1..POLLS_MAX {
        let buyer = format!("+1555555{:04}", 2000 + polls);
        let new = new_group(&[&buyer, PARTNER], Some("maya"));
        let group = app.app.api.group_texts.start(new).await.unwrap();
        let alive = work_and_die(&app, &process, polls).await;
        recover(&app).await;
        let group = app.group_text(group.group_text_id).await;
        assert_eq!(group.state, group_text::State::Active, "death at {polls}");
        assert!(
            !group.adopted,
            "death at {polls}: it is our own, and not found there"
        );
        let of_the_buyer = app
            .sandbox
            .conversations()
            .into_iter()
            .filter(|one| {
                one.participants.iter().any(|member| {
                    member
                        .address
                        .as_ref()
                        .is_some_and(|number| number.as_str() == buyer)
                })
            })
            .count();
        assert_eq!(of_the_buyer, 1, "death at {polls}");
        let told = format!(
            "event where type = 'group_text.active' and subject = '{}'",
            group.group_text_id
        );
        assert_eq!(tables::count(&app, &told).await, 1, "death at {polls}");
        tables::assert_queue_is_empty(&app).await;
        if points.note("group text", alive) {
            assert_mirror_equals_sandbox(&app).await;
            return;
        }
    }
    panic!("no process came to the end alive");
}

fn new_message(sid: &ConversationSid, body: &str) -> NewOutboundMessage {
    NewOutboundMessage {
        conversation_sid: sid.clone(),
        line: None,
        as_holder: None,
        body: body.to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    }
}

async fn asked_to_send(app: &TestApp, sid: &ConversationSid, body: &str) -> OutboundMessage {
    app.app.api.outbox.send(new_message(sid, body)).await.unwrap()
}

/// Every handset has it once, Twilio has it once, and we know.
async fn assert_sent_once(app: &TestApp, message: &OutboundMessage, point: &str) {
    let stored = outbox::find(&mut *app.conn().await, message.outbound_message_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        stored.state,
        outbox::State::Sent,
        "{point}: {:?}",
        stored.outcome_detail
    );
    let sid: ConversationSid = message.conversation_sid.parse().unwrap();
    let with_the_text: Vec<String> = app
        .at_twilio(&sid)
        .messages
        .into_iter()
        .filter(|one| one.body.as_ref() == Some(&message.body))
        .map(|one| one.sid.to_string())
        .collect();
    assert_eq!(with_the_text, [stored.message_sid.unwrap()], "{point}");
    for handset in [BUYER, PARTNER] {
        let copies = app
            .received(handset)
            .iter()
            .filter(|(from, body)| from == LINE && *body == message.body)
            .count();
        assert_eq!(copies, 1, "{point}: on {handset}");
    }
    let told = format!(
        "event where type = 'send.sent' and subject = '{}'",
        message.outbound_message_id
    );
    assert_eq!(tables::count(app, &told).await, 1, "{point}");
    tables::assert_queue_is_empty(app).await;
}

#[tokio::test]
async fn a_message_reaches_the_group_once_whenever_the_process_dies() {
    let app = app().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let process = app.restarted();
    let mut points = Points::default();
    for polls in 1..POLLS_MAX {
        let message = asked_to_send(&app, &sid, &format!("text {polls}")).await;
        let alive = work_and_die(&app, &process, polls).await;
        recover(&app).await;
        assert_sent_once(&app, &message, &format!("death at {polls}")).await;
        if points.note("message", alive) {
            assert_mirror_equals_sandbox(&app).await;
            return;
        }
    }
    panic!("no process came to the end alive");
}

#[tokio::test]
async fn projecting_is_done_once_whenever_the_process_dies() {
    let app = app().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    asked_to_send(&app, &sid, "Welcome").await;
    app.settle().await;
    app.text(BUYER, &[LINE, PARTNER], "Hello").await;
    app.text(PARTNER, &[LINE, BUYER], "Hello from me, too").await;
    begun(&app, &sid, Kind::Cold).await;
    app.text(BUYER, &[LINE, PARTNER, "+15555550103"], "And us three")
        .await;
    app.settle().await;
    let webhooks = tables::count(&app, "webhook").await;
    assert!(webhooks > 15, "{webhooks} webhooks are a history");

    let projector = |pool| Projector {
        pool,
        clock: app.clock.clone(),
        batch: 6,
        notices: app.app.notices.clone(),
        pace: Pace::default(),
    };
    tables::unproject(&app).await;
    projector(app.pool().clone()).run_until_idle().await.unwrap();
    let (rows, log) = (tables::mirror_and_ledger(&app).await, tables::log(&app).await);
    assert!(!log.is_empty());
    let mut points = Points::default();
    let process = app.restarted();
    for polls in 1..POLLS_MAX {
        tables::unproject(&app).await;
        connect(&process).await;
        let ended = cut(projector(process.pool.clone()).run_until_idle(), polls).await;
        let alive = matches!(ended, Some(Ok(settled)) if settled > 0);
        nothing_is_open(&app).await;
        projector(app.pool().clone()).run_until_idle().await.unwrap();
        assert_eq!(tables::mirror_and_ledger(&app).await, rows, "death at {polls}");
        assert_eq!(tables::log(&app).await, log, "death at {polls}");
        assert_eq!(
            tables::count(&app, "webhook_state where state <> 'projected'").await,
            0
        );
        if points.note("projecting", alive) {
            return;
        }
    }
    panic!("no process came to the end alive");
}

/// The ways in which one call fails.
fn failures(method: &str, path: &str) -> Vec<(&'static str, RestFault)> {
    let fault = |status, effect, hold_ms| RestFault {
        method: Some(method.to_owned()),
        path: Some(path.to_owned()),
        status,
        effect,
        hold_ms,
        probability: 1.0,
        times: Some(1),
    };
    vec![
        ("time-out before the effect", fault(None, Effect::Before, 400)),
        ("time-out after the effect", fault(None, Effect::After, 400)),
        ("reset", fault(None, Effect::Before, 0)),
        ("reset after the effect", fault(None, Effect::After, 0)),
        ("500 after the effect", fault(Some(500), Effect::After, 0)),
        ("429", fault(Some(429), Effect::Before, 0)),
    ]
}

fn one_fault(fault: RestFault) -> Faults {
    Faults {
        rest: vec![fault],
        ..Faults::default()
    }
}

/// Runs what is due, and what is put off by little, until nothing is left.
async fn let_it_pass(app: &TestApp) {
    for _ in 0..8 {
        app.settle_for(SignedDuration::from_secs(5)).await;
    }
}

/// The fault has struck: a test in which nothing failed proves nothing.
fn assert_struck(app: &TestApp, point: &str) {
    assert_eq!(
        app.sandbox.faults().rest[0].times,
        Some(0),
        "{point}: the call was made"
    );
}

#[tokio::test]
async fn a_transfer_survives_every_failure_of_every_call() {
    let app = app().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let calls = [
        (
            IdentityReplacement::Update,
            "GET",
            "/v1/Services/*/Conversations/*/Participants",
        ),
        (
            IdentityReplacement::Update,
            "POST",
            "/v1/Services/*/Conversations/*/Participants/*",
        ),
        (
            IdentityReplacement::Refuse,
            "POST",
            "/v1/Services/*/Conversations/*/Participants",
        ),
        (
            IdentityReplacement::Refuse,
            "DELETE",
            "/v1/Services/*/Conversations/*/Participants/*",
        ),
    ];
    for (replacement, method, path) in calls {
        app.sandbox.set_identity_replacement(replacement);
        for (failure, fault) in failures(method, path) {
            let point = format!("{method} {path}: {failure}");
            app.sandbox.set_faults(one_fault(fault)).unwrap();
            let transfer = begun(&app, &sid, Kind::Cold).await;
            let_it_pass(&app).await;
            assert_struck(&app, &point);
            assert_transferred(&app, &transfer, &point).await;
        }
    }
}

#[tokio::test]
async fn a_message_reaches_the_group_once_whatever_its_call_comes_to() {
    let app = app().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    for (failure, fault) in failures("POST", "/v1/Services/*/Conversations/*/Messages") {
        app.sandbox.set_faults(one_fault(fault)).unwrap();
        let message = asked_to_send(&app, &sid, failure).await;
        let_it_pass(&app).await;
        assert_struck(&app, failure);
        assert_sent_once(&app, &message, failure).await;
    }
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn a_group_text_is_made_once_whatever_its_call_comes_to() {
    let app = app().await;
    let mut number = 3000;
    for (failure, fault) in failures("POST", "/v1/Services/*/ConversationWithParticipants") {
        number += 1;
        let before = app.sandbox.conversations().len();
        app.sandbox.set_faults(one_fault(fault)).unwrap();
        let buyer = format!("+1555555{number}");
        let group = app
            .app
            .api
            .group_texts
            .start(new_group(&[&buyer, PARTNER], None))
            .await
            .unwrap();
        let_it_pass(&app).await;
        assert_struck(&app, failure);
        let group = app.group_text(group.group_text_id).await;
        assert_eq!(
            (group.state, group.adopted),
            (group_text::State::Active, false),
            "{failure}"
        );
        assert_eq!(app.sandbox.conversations().len(), before + 1, "{failure}");
        tables::assert_queue_is_empty(&app).await;
    }
    assert_eq!(queue::counts(&mut *app.conn().await).await.unwrap().dead, 0);
    assert_mirror_equals_sandbox(&app).await;
}
