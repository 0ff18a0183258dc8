//! Escalation policies: what is due on a line, who is told, offered or given it, and what ends it.

mod api;
mod changes;
mod commands;
mod erasing;
mod flow;
mod stops;
mod workers;

use hookswitch::escalation::{self, Escalation, Filter, StoredPolicy};
use hookswitch::events::Via;
use hookswitch::ids::ConversationSid;
use hookswitch::outbox::NewOutboundMessage;
use hookswitch::people::{self, Actor, Profile};
use hookswitch::twilio::requests::ConversationUpdate;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::app::{ACCOUNT, BUYER, LINE, PARTNER, TestApp, Wanted, sid_of};
use crate::support::tables;

fn by() -> Actor {
    Actor {
        name: "crm".to_owned(),
        via: Via::Api,
        cause: None,
    }
}

/// Maya holds the line; Jonas is her backup, Noor supervises both.
async fn staffed() -> (TestApp, ConversationSid) {
    let app = TestApp::start_with(Wanted::default()).await;
    agent(&app, "noor", None, None).await;
    agent(&app, "jonas", Some("noor"), None).await;
    agent(&app, "maya", Some("noor"), Some("jonas")).await;
    let sid = sid_of(&app.group(Some("maya")).await);
    (app, sid)
}

async fn agent(app: &TestApp, who: &str, supervisor: Option<&str>, backup: Option<&str>) {
    let profile = Profile {
        name: who.to_owned(),
        team: None,
        supervisor: supervisor.map(|one| one.parse().unwrap()),
        backup: backup.map(|one| one.parse().unwrap()),
        skills: std::collections::BTreeSet::new(),
        capacity: None,
        left_at: None,
    };
    let (mut conn, now) = (app.conn().await, app.clock.now());
    people::put_agent(&mut conn, &who.parse().unwrap(), profile, None, &by(), now)
        .await
        .unwrap();
}

/// One rule, under the name `rule`.
fn policy(rule: &Value) -> Value {
    let mut rule = rule.clone();
    rule["name"] = json!("rule");
    json!({ "name": "Nobody waits", "rules": [rule] })
}

fn step(how: &str, to: &Value, time: &str) -> Value {
    json!({ "how": how, "to": to, "for": time })
}

/// Fifteen minutes; then Maya is told, and five minutes later Jonas is offered the line.
fn slow_answer() -> Value {
    policy(&json!({
        "when": { "no_answer": "15m" },
        "steps": [step("nudge", &json!("holder"), "5m"), step("offer", &json!("backup"), "10m")],
        "then": "needs_person",
    }))
}

async fn set(app: &TestApp, policy_id: &str, document: &Value) -> StoredPolicy {
    let (mut conn, now) = (app.conn().await, app.clock.now());
    let id = policy_id.parse().unwrap();
    escalation::put_policy(&mut conn, &id, document, None, false, &by(), now)
        .await
        .unwrap()
}

/// The buyer writes to the group.
async fn ask(app: &TestApp, words: &str) {
    app.text(BUYER, &[LINE, PARTNER], words).await;
    app.settle().await;
}

/// Whoever holds the line answers.
async fn answer(app: &TestApp, sid: &ConversationSid) {
    let new = NewOutboundMessage {
        conversation_sid: sid.clone(),
        line: None,
        as_holder: None,
        body: "On my way".to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    };
    app.app.api.outbox.send(new).await.unwrap();
    app.settle().await;
}

async fn close(app: &TestApp, sid: &ConversationSid) {
    let account = app.app.accounts.get(ACCOUNT).unwrap().clone();
    let close = ConversationUpdate {
        state: Some(hookswitch::twilio::model::ConversationState::Closed),
        ..ConversationUpdate::default()
    };
    account.client.update_conversation(sid, &close).await.unwrap();
    app.settle().await;
}

async fn later(app: &TestApp, minutes: i64) {
    app.settle_for(SignedDuration::from_mins(minutes)).await;
}

async fn escalations(app: &TestApp) -> Vec<Escalation> {
    let mut found = escalation::page(&mut *app.conn().await, &Filter::default(), None, 100)
        .await
        .unwrap();
    found.reverse();
    found
}

/// What the log tells of escalations, in order: what, of a step how and to whom, and why.
async fn told(app: &TestApp) -> Vec<String> {
    tables::rows(
        app,
        "select concat_ws(' ', replace(type, 'escalation.', ''), data::jsonb ->> 'how', data::jsonb ->> 'to',
            data::jsonb ->> 'code', data::jsonb ->> 'why')
        from event where type like 'escalation.%' order by commit_xid, event_id",
    )
    .await
}

/// What the log tells of transfers.
async fn transfers(app: &TestApp) -> Vec<String> {
    tables::rows(
        app,
        "select concat_ws(' ', replace(type, 'transfer.', ''), data::jsonb ->> 'to')
        from event where type like 'transfer.%' order by commit_xid, event_id",
    )
    .await
}
