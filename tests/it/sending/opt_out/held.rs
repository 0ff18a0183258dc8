//! What waits for a supervisor, and what ends the waiting.

use hookswitch::app::App;
use hookswitch::config::OptOutPolicy;
use hookswitch::ids::{ConversationSid, ParticipantSid};
use hookswitch::opt_out;
use hookswitch::queue::{self, NewTask};
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::transfer::Kind;
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::{ConversationUpdate, Member};
use jiff::{SignedDuration, Timestamp};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Crm, bodies, closing_fails, crm, decide, knowing, open, states, text, types, words};
use crate::support::app::{BUYER, LINE, OTHER_LINE, PARTNER, sid_of};
use crate::support::tables;
use crate::support::webhook::Webhook;

/// A group of which the buyer has opted out, and a message to it that waits for a supervisor.
async fn waiting(crm: &Crm) -> (ConversationSid, Value) {
    let sid = crm.group().await;
    crm.app.text(BUYER, &[LINE, PARTNER], "stop").await;
    crm.app.sandbox.settled().await;
    // It is asked for before we hear of the word.
    let asked = crm.message(&sid, &words("one")).await.expect(202);
    crm.settle().await;
    assert!(crm.send(&asked).await["held_since"].is_string());
    (sid, asked)
}

fn participant(crm: &Crm, sid: &ConversationSid, handset: &str) -> ParticipantSid {
    let members = crm.app.at_twilio(sid).participants;
    let found = members.into_iter().find(|one| {
        one.address
            .as_ref()
            .is_some_and(|address| address.as_str() == handset)
    });
    found.unwrap().sid
}

pub(super) async fn close(crm: &Crm, sid: &ConversationSid) {
    let update = ConversationUpdate {
        state: Some(ConversationState::Closed),
        ..ConversationUpdate::default()
    };
    let client = &crm.app.account().client;
    client.update_conversation(sid, &update).await.unwrap();
    // Our own calls are told by webhooks only if asked to: the state is read.
    crm.app.deliver(&closed(sid, crm.app.clock.now())).await;
    crm.settle().await;
}

/// As Twilio tells of it, where it is asked to.
fn closed(sid: &ConversationSid, at: Timestamp) -> Vec<(String, String)> {
    let told = Webhook::new(
        "onConversationStateUpdated",
        &[
            ("ConversationSid", sid.as_str()),
            ("StateUpdated", &format!("{at:.3}")),
            ("StateFrom", "active"),
            ("StateTo", "closed"),
            ("Reason", "API"),
        ],
    );
    told.0
}

/// The process as it is started with another policy in its settings.
async fn started_with(crm: &Crm, policy: OptOutPolicy) -> App {
    let mut config = crm.app.config.clone();
    config.twilio.accounts[0].opt_out = policy;
    let app = App::new(config, crm.app.database.options.clone(), crm.app.clock.clone()).unwrap();
    let mut conn = crm.app.conn().await;
    opt_out::put_review(&mut conn, None, crm.app.clock.now())
        .await
        .unwrap();
    crm.app.settle_with(&app).await;
    app
}

#[tokio::test]
async fn a_supervisor_is_asked_and_what_was_queued_waits_for_the_answer() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let sid = crm.group().await;
    crm.app.text(BUYER, &[LINE, PARTNER], "stop").await;
    crm.app.sandbox.settled().await;
    // It is asked for before we hear of the word, and is to be sent after.
    let queued = crm.message(&sid, &words("one")).await.expect(202);
    crm.app.app.projector.run_until_idle().await.unwrap();
    crm.settle().await;
    let held = crm.send(&queued).await;
    assert_eq!(held["state"], "queued");
    assert!(held["held_since"].is_string(), "{held}");
    assert_eq!(states(&crm, &sid).await, ["held"]);
    assert_eq!(bodies(&crm, &sid), Vec::<String>::new());
    let refused = crm.message(&sid, &knowing("two")).await;
    assert_eq!(refused.problem(409), "opt_out_held");

    // What is held does not hold up a transfer.
    crm.app.start_transfer(&sid, Kind::Cold, "noor").await;
    crm.settle().await;
    assert_eq!(
        crm.app.holders(&sid).await.last().unwrap().as_deref(),
        Some("noor")
    );
    crm.app.start_transfer(&sid, Kind::Cold, "maya").await;
    crm.settle().await;

    let decided = decide(&crm, &sid, "allow").await.expect(200);
    assert_eq!(decided["items"][0]["state"], "allowed");
    assert_eq!(crm.send(&queued).await["state"], "sent");
    crm.message(&sid, &words("two")).await.expect(202);
    crm.settle().await;
    assert_eq!(bodies(&crm, &sid), ["one", "two"]);
    assert_eq!(
        types(&crm, "opt_out.").await,
        ["opt_out.recorded", "opt_out.held", "opt_out.allowed"]
    );
    // A second member asks anew.
    text(&crm, PARTNER, "STOP").await;
    assert_eq!(states(&crm, &sid).await, ["held", "allowed"]);
    assert_eq!(
        crm.message(&sid, &words("three")).await.problem(409),
        "opt_out_held"
    );
}

#[tokio::test]
async fn a_supervisor_may_decide_against_it() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let sid = crm.group().await;
    assert_eq!(decide(&crm, &sid, "allow").await.problem(409), "opt_out_not_open");
    crm.app.text(BUYER, &[LINE, PARTNER], "stop").await;
    crm.app.sandbox.settled().await;
    let queued = crm.message(&sid, &words("one")).await.expect(202);
    crm.settle().await;
    decide(&crm, &sid, "stop").await.expect(200);
    let failed = crm.send(&queued).await;
    assert_eq!(
        (&failed["state"], &failed["outcome_code"]),
        (&json!("failed"), &json!("opt_out_stopped"))
    );
    assert_eq!(
        crm.message(&sid, &knowing("two")).await.problem(409),
        "opt_out_stopped"
    );
    // The member decides otherwise.
    text(&crm, BUYER, "START").await;
    crm.message(&sid, &words("three")).await.expect(202);
    crm.settle().await;
    assert_eq!(bodies(&crm, &sid), ["three"]);
}

#[tokio::test]
async fn what_is_held_goes_on_when_the_member_opts_in_again_or_the_policy_changes() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let sid = crm.group().await;
    crm.app.text(BUYER, &[LINE, PARTNER], "stop").await;
    crm.app.sandbox.settled().await;
    let first = crm.message(&sid, &words("one")).await.expect(202);
    crm.settle().await;
    assert!(crm.send(&first).await["held_since"].is_string());
    text(&crm, BUYER, "start").await;
    assert_eq!(crm.send(&first).await["state"], "sent");

    crm.app.text(BUYER, &[LINE, PARTNER], "stop").await;
    crm.app.sandbox.settled().await;
    let second = crm.message(&sid, &words("two")).await.expect(202);
    crm.settle().await;
    assert!(crm.send(&second).await["held_since"].is_string());
    let path = format!("/v1/lines/{}/opt-out-policy", LINE.replace('+', "%2B"));
    let before = crm.get(&path).await;
    assert_eq!(
        (&before["policy"], &before["is_own"]),
        (&json!("ask_supervisor"), &json!(false))
    );
    let put = crm
        .request(Method::PUT, &path)
        .json(&json!({ "policy": "carry_on", "by": "sam" }));
    let after = crm.ask(put).await.expect(200);
    assert_eq!(
        (&after["policy"], &after["is_own"]),
        (&json!("carry_on"), &json!(true))
    );
    crm.settle().await;
    assert_eq!(crm.send(&second).await["state"], "sent");
    assert_eq!(states(&crm, &sid).await, ["warned", "over"]);
    let dropped = crm.ask(crm.request(Method::DELETE, &path)).await.expect(200);
    assert_eq!(dropped["policy"], "ask_supervisor");
    crm.settle().await;
    assert_eq!(states(&crm, &sid).await, ["held", "over"]);
    let changed = crm.told("opt_out.policy_changed").await;
    assert_eq!(changed.len(), 2);
    assert_eq!(
        (&changed[0]["data"]["from"], &changed[0]["data"]["to"]),
        (&json!("ask_supervisor"), &json!("carry_on"))
    );
}

#[tokio::test]
async fn what_is_done_about_it_may_be_done_twice() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let sid = crm.group().await;
    text(&crm, BUYER, "stop").await;
    let before = types(&crm, "opt_out.").await;
    // As a worker that died after its commit leaves it.
    let ids = tables::rows(&crm.app, "select opt_out_id::text from opt_out").await;
    let task = NewTask {
        kind: opt_out::APPLY_TASK,
        order_key: "again".to_owned(),
        unique_key: None,
        payload: json!({ "opt_out_id": ids[0] }),
        run_at: crm.app.clock.now(),
        attempts_max: 3,
    };
    queue::put(&mut *crm.app.conn().await, &task, crm.app.clock.now())
        .await
        .unwrap();
    crm.settle().await;
    assert_eq!(types(&crm, "opt_out.").await, before);
    assert_eq!(states(&crm, &sid).await, ["held"]);
}

/// Takes the buyer out of the group.
async fn leave(crm: &Crm, sid: &ConversationSid) {
    let buyer = participant(crm, sid, BUYER);
    let client = &crm.app.account().client;
    client.delete_participant(sid, &buyer).await.unwrap();
    let now = format!("{:.3}", crm.app.clock.now());
    let gone = Webhook::new(
        "onParticipantRemoved",
        &[
            ("ConversationSid", sid.as_str()),
            ("ParticipantSid", buyer.as_str()),
            ("MessagingBinding.Type", "sms"),
            ("MessagingBinding.Address", BUYER),
            ("DateCreated", &now),
            ("DateUpdated", &now),
            ("DateRemoved", &now),
        ],
    );
    crm.app.deliver(&gone.0).await;
    crm.settle().await;
}

#[tokio::test]
async fn what_is_held_is_sent_once_the_member_has_left() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let (sid, asked) = waiting(&crm).await;
    leave(&crm, &sid).await;
    assert_eq!(crm.send(&asked).await["state"], "sent");
    assert_eq!(bodies(&crm, &sid), ["one"]);
}

#[tokio::test]
async fn a_group_that_the_member_leaves_before_it_is_closed_stays_open() {
    let crm = crm(OptOutPolicy::Close).await;
    let sid = crm.group().await;
    let away = RestFault {
        effect: Effect::Before,
        ..closing_fails(u32::MAX).rest[0].clone()
    };
    crm.app
        .sandbox
        .set_faults(Faults {
            rest: vec![away],
            ..Faults::default()
        })
        .unwrap();
    text(&crm, BUYER, "stop").await;
    assert_eq!(states(&crm, &sid).await, ["closing"]);
    leave(&crm, &sid).await;
    crm.app.sandbox.set_faults(Faults::default()).unwrap();
    for _ in 0..4 {
        crm.app.settle_for(SignedDuration::from_mins(10)).await;
    }
    assert_eq!(crm.app.at_twilio(&sid).state, "active");
    crm.message(&sid, &words("and on we go")).await.expect(202);
    crm.settle().await;
    assert_eq!(bodies(&crm, &sid), ["and on we go"]);
    assert_eq!(tables::count(&crm.app, "opt_out_concern").await, 0);
}

#[tokio::test]
async fn what_is_held_fails_when_the_conversation_ends_and_keeps_nobody_from_being_forgotten() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let sid = crm.group().await;
    crm.app.text(BUYER, &[LINE, PARTNER], "stop").await;
    crm.app.sandbox.settled().await;
    let named = format!("a message for {BUYER}");
    let asked = crm.message(&sid, &words(&named)).await.expect(202);
    crm.settle().await;
    assert!(crm.send(&asked).await["held_since"].is_string());
    let erasure =
        json!({ "number": BUYER, "upstream": "none", "asked_by": "the client", "reason": "asked for" });
    assert_eq!(crm.post("/v1/erasures", &erasure).await.problem(409), "at_work");
    close(&crm, &sid).await;
    let ended = crm.send(&asked).await;
    assert_eq!(
        (&ended["state"], &ended["outcome_code"], &ended["held_since"]),
        (&json!("failed"), &json!("line_gone"), &Value::Null)
    );
    crm.post("/v1/erasures", &erasure).await.expect(202);
    crm.settle().await;
    assert_eq!(crm.send(&asked).await["body"], "");
}

#[tokio::test]
async fn whatever_is_held_is_looked_at_again_now_and_then() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let (sid, asked) = waiting(&crm).await;
    // As if what ended it had been missed.
    tables::execute(
        &crm.app,
        &format!("update opt_out set cleared_at = since + interval '1 hour', cleared_source = 'api' where address = '{BUYER}'"),
    )
    .await;
    crm.settle().await;
    assert_eq!(bodies(&crm, &sid), Vec::<String>::new());
    hookswitch::outbox::look_at_held(&mut *crm.app.conn().await, crm.app.clock.now())
        .await
        .unwrap();
    crm.settle().await;
    assert_eq!(crm.send(&asked).await["state"], "sent");
}

#[tokio::test]
async fn a_policy_that_is_changed_in_the_settings_holds_for_those_who_opted_out_before() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let (sid, asked) = waiting(&crm).await;
    let other = started_with(&crm, OptOutPolicy::CarryOn).await;
    assert_eq!(states(&crm, &sid).await, ["warned"]);
    assert_eq!(crm.send(&asked).await["state"], "sent");
    assert_eq!(bodies(&crm, &sid), ["one"]);
    // A second look finds nothing to do.
    let before = types(&crm, "opt_out.").await;
    let mut conn = crm.app.conn().await;
    opt_out::put_review(&mut conn, None, crm.app.clock.now())
        .await
        .unwrap();
    assert_eq!(
        tables::count(&crm.app, "task where kind = 'opt_out.review'").await,
        1
    );
    crm.app.settle_with(&other).await;
    assert_eq!(types(&crm, "opt_out.").await, before);

    started_with(&crm, OptOutPolicy::Close).await;
    assert_eq!(states(&crm, &sid).await, ["closed"]);
    assert_eq!(crm.app.at_twilio(&sid).state, "closed");
}

#[tokio::test]
async fn a_line_that_comes_after_the_member_is_known_for_the_opt_out() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let sid = crm.group().await;
    let set = json!({ "line": OTHER_LINE, "address": BUYER, "by": "sam" });
    crm.post("/v1/opt-outs", &set).await.expect(201);
    crm.settle().await;
    assert_eq!(states(&crm, &sid).await, Vec::<String>::new());
    let second = Member::Projected {
        identity: "noor".parse().unwrap(),
        projected_address: OTHER_LINE.parse().unwrap(),
    };
    let client = &crm.app.account().client;
    let added = client.create_participant(&sid, &second.into()).await.unwrap();
    let webhook = Webhook::new(
        "onParticipantAdded",
        &[
            ("ConversationSid", sid.as_str()),
            ("ParticipantSid", added.sid.as_str()),
            ("Identity", "noor"),
            ("MessagingBinding.ProjectedAddress", OTHER_LINE),
            ("DateCreated", &format!("{:.3}", crm.app.clock.now())),
        ],
    );
    crm.app.deliver(&webhook.0).await;
    crm.settle().await;
    assert_eq!(states(&crm, &sid).await, ["held"]);
    assert_eq!(types(&crm, "opt_out.held").await.len(), 1);
}

#[tokio::test]
async fn nobody_is_asked_about_a_group_that_is_over() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let sid = crm.group().await;
    text(&crm, BUYER, "stop").await;
    close(&crm, &sid).await;
    let path = format!("/v1/lines/{}/opt-out-policy", LINE.replace('+', "%2B"));
    let put = crm
        .request(Method::PUT, &path)
        .json(&json!({ "policy": "ask_supervisor", "by": "sam" }));
    crm.ask(put).await.expect(200);
    crm.settle().await;
    assert_eq!(states(&crm, &sid).await, ["warned"]);
    assert_eq!(types(&crm, "opt_out.held").await, Vec::<String>::new());
    // It holds for one that is open.
    let other = sid_of(&crm.app.group_of(&[BUYER, "+15555550103"]).await);
    crm.settle().await;
    assert_eq!(states(&crm, &other).await, ["held"]);
}

#[tokio::test]
async fn two_replicas_ask_once_and_send_what_was_held_once_in_its_order() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let other = crm.app.restarted();
    let both = async || {
        for _ in 0..4 {
            tokio::join!(Box::pin(crm.app.settle()), Box::pin(crm.app.settle_with(&other)));
        }
    };
    let mut groups = Vec::new();
    for last in 3..7 {
        let number = format!("+1555555010{last}");
        groups.push(sid_of(&crm.app.group_of(&[BUYER, &number]).await));
    }
    crm.app.text(BUYER, &[LINE, "+15555550103"], "stop").await;
    crm.app.sandbox.settled().await;
    let mut asked = Vec::new();
    for sid in &groups {
        for body in ["one", "two", "three"] {
            asked.push(crm.message(sid, &words(body)).await.expect(202));
        }
    }
    both().await;
    for sid in &groups {
        assert_eq!(states(&crm, sid).await, ["held"]);
    }
    assert_eq!(types(&crm, "opt_out.").await.len(), 1 + groups.len());
    crm.app.text(BUYER, &[LINE, "+15555550104"], "start").await;
    both().await;
    crm.settle().await;
    for one in &asked {
        assert_eq!(crm.send(one).await["state"], "sent");
    }
    for sid in &groups {
        assert_eq!(bodies(&crm, sid), ["one", "two", "three"]);
        assert_eq!(states(&crm, sid).await, ["over"]);
    }
    assert_eq!(open(&crm).await.len(), 0);
}
