//! Lines that nobody holds find somebody: who had them last, whom the rule says, or who takes them from the queue.

mod http;
mod last_holder;
mod members;
mod queue;
mod races;
mod rules;

use hookswitch::events::Via;
use hookswitch::ids::ConversationSid;
use hookswitch::numbers::form::Wanted;
use hookswitch::numbers::{self, NumberKind, Rule};
use hookswitch::people::form::{AgentForm, TeamForm};
use hookswitch::people::{self, Actor, NewAvailability, Status};
use hookswitch::web::field::Errors;
use jiff::SignedDuration;
use serde_json::{Value, json};

use crate::support::app::{BUYER, LINE, PARTNER, TestApp};
use crate::support::tables;

fn actor() -> Actor {
    Actor {
        name: "crm".to_owned(),
        via: Via::Api,
        cause: None,
    }
}

/// An agent of the team `sales`, with more members where some are given.
pub(crate) async fn agent(app: &TestApp, identity: &str, more: Value) {
    let mut profile = json!({ "name": identity, "team": "sales" });
    profile
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let form: AgentForm = serde_json::from_value(profile).unwrap();
    let mut errors = Errors::of_body();
    let (profile, _) = form.read(&mut errors).unwrap();
    let identity = identity.parse().unwrap();
    let now = app.clock.now();
    people::put_agent(&mut *app.conn().await, &identity, profile, None, &actor(), now)
        .await
        .unwrap();
}

pub(crate) async fn team(app: &TestApp, more: Value) {
    team_of("sales", app, more).await;
}

async fn team_of(team: &str, app: &TestApp, more: Value) {
    let mut plan = json!({ "name": "Sales", "time_zone": "Europe/London" });
    plan.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let form: TeamForm = serde_json::from_value(plan).unwrap();
    let mut errors = Errors::of_body();
    let (plan, _) = form.read(&mut errors).unwrap();
    let (team, now) = (team.parse().unwrap(), app.clock.now());
    people::put_team(&mut *app.conn().await, &team, plan, None, &actor(), now)
        .await
        .unwrap();
}

/// A team with these people, and a number of theirs with this rule.
pub(crate) async fn sales(app: &TestApp, identities: &[&str], rule: Option<Rule>) {
    team(app, json!({})).await;
    for identity in identities {
        agent(app, identity, json!({})).await;
    }
    number(app, LINE, rule).await;
}

pub(crate) async fn number(app: &TestApp, number: &str, rule: Option<Rule>) {
    put_number(app, number, wanted(rule)).await;
}

pub(crate) fn wanted(rule: Option<Rule>) -> Wanted {
    Wanted {
        account_sid: None,
        label: None,
        kind: NumberKind::LongCode,
        mms_capable: true,
        messaging_service_sid: None,
        team: Some("sales".parse().unwrap()),
        rule,
        person: None,
        enabled: true,
        replaces: None,
    }
}

pub(crate) async fn put_number(app: &TestApp, number: &str, wanted: Wanted) {
    let (number, now) = (number.parse().unwrap(), app.clock.now());
    numbers::put_number(
        &mut *app.conn().await,
        &app.app.accounts,
        &number,
        wanted,
        &actor(),
        now,
    )
    .await
    .unwrap();
}

pub(crate) async fn set_away(app: &TestApp, identity: &str, is_away: bool) {
    let new = NewAvailability {
        status: if is_away { Status::Away } else { Status::Available },
        reason: None,
        until: None,
        by: None,
    };
    let (identity, now) = (identity.parse().unwrap(), app.clock.now());
    people::set_availability(&mut *app.conn().await, &identity, new, &actor(), now)
        .await
        .unwrap();
}

/// A customer starts a group by texting, and all that follows happens.
async fn texted(app: &TestApp, from: &str, other: &str) -> ConversationSid {
    let before = app.sandbox.conversations().len();
    app.text(from, &[LINE, other], "Is the house still there?").await;
    app.settle_for(SignedDuration::from_secs(3)).await;
    let all = app.sandbox.conversations();
    assert_eq!(all.len(), before + 1, "a group is made");
    all.last().unwrap().sid.as_str().parse().unwrap()
}

/// The group of the buyer and the partner.
async fn started(app: &TestApp) -> ConversationSid {
    texted(app, BUYER, PARTNER).await
}

async fn holder(app: &TestApp, sid: &ConversationSid) -> Option<String> {
    app.holders(sid).await.pop().unwrap()
}

/// What the log tells of a conversation's lines: the type, then these facts of it.
async fn told(app: &TestApp, sid: &ConversationSid) -> Vec<String> {
    let sql = format!(
        "select concat_ws(' ', type, data::jsonb->>'to', data::jsonb->>'by', data::jsonb->>'reason', data::jsonb->>'holder') from event
        where conversation_sid = '{sid}' and type in ('line.assigned', 'line.queued', 'line.taken', 'line.dequeued')
        order by commit_xid, event_id"
    );
    tables::rows(app, &sql).await
}

/// Lines that wait, each with why.
async fn queue(app: &TestApp) -> Vec<String> {
    queue_of("sales", app)
        .await
        .into_iter()
        .map(|row| row.reason)
        .collect()
}

async fn queue_of(team: &str, app: &TestApp) -> Vec<hookswitch::assignment::Waiting> {
    let mut conn = app.conn().await;
    hookswitch::assignment::page(&mut conn, Some(team), None, 100)
        .await
        .unwrap()
}

/// The conversation ends at Twilio, and its numbers are free.
pub(crate) async fn close(app: &TestApp, sid: &ConversationSid) {
    let update = hookswitch::twilio::requests::ConversationUpdate {
        state: Some(hookswitch::twilio::model::ConversationState::Closed),
        ..Default::default()
    };
    let account = app.app.accounts.iter().next().unwrap().clone();
    account.client.update_conversation(sid, &update).await.unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
}
