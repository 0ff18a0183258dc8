//! Members who opt out of our number: seen in what they write and in receipts, and what each policy makes of it.

mod command;
mod held;
mod orders;

use hookswitch::config::OptOutPolicy;
use hookswitch::ids::ConversationSid;
use hookswitch::sandbox::{Effect, Faults, RestFault, WebhookAction, WebhookFault};
use serde_json::{Value, json};

use super::{Answer, Crm, words};
use crate::support::app::{BUYER, LINE, PARTNER, Wanted, sid_of};
use crate::support::tables;

async fn crm(policy: OptOutPolicy) -> Crm {
    Crm::start_with(Wanted {
        opt_out: policy,
        ..Wanted::default()
    })
    .await
}

async fn text(crm: &Crm, from: &str, body: &str) {
    let others: Vec<&str> = [LINE, BUYER, PARTNER]
        .into_iter()
        .filter(|one| *one != from)
        .collect();
    crm.app.text(from, &others, body).await;
    crm.settle().await;
}

async fn open(crm: &Crm) -> Vec<Value> {
    let all = crm.get("/v1/opt-outs?open=true").await;
    all["items"].as_array().unwrap().clone()
}

/// What became of each opt-out in the conversation, the newest first.
async fn states(crm: &Crm, sid: &ConversationSid) -> Vec<String> {
    let here = crm.get(&format!("/v1/conversations/{sid}/opt-outs")).await;
    let items = here["items"].as_array().unwrap().iter();
    items
        .map(|one| one["state"].as_str().unwrap_or("none").to_owned())
        .collect()
}

async fn types(crm: &Crm, begin: &str) -> Vec<String> {
    let told = crm.told(begin).await;
    told.iter()
        .map(|one| one["type"].as_str().unwrap().to_owned())
        .collect()
}

async fn decide(crm: &Crm, sid: &ConversationSid, decision: &str) -> Answer {
    let path = format!("/v1/conversations/{sid}/opt-outs/decision");
    let answer = crm
        .post(&path, &json!({ "decision": decision, "by": "sam" }))
        .await;
    crm.settle().await;
    answer
}

fn knowing(body: &str) -> Value {
    json!({ "body": body, "acknowledge_opt_out": true })
}

fn bodies(crm: &Crm, sid: &ConversationSid) -> Vec<String> {
    let messages = crm.app.at_twilio(sid).messages;
    messages
        .into_iter()
        .filter(|one| one.author == "maya")
        .map(|one| one.body.unwrap_or_default())
        .collect()
}

#[tokio::test]
async fn whoever_posts_to_a_member_who_opted_out_is_warned_and_may_go_on() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let sid = crm.group().await;
    let queued = crm.message(&sid, &words("before it was known")).await.expect(202);
    crm.settle().await;
    text(&crm, BUYER, " Stop ").await;

    let known = open(&crm).await;
    assert_eq!(known.len(), 1, "{known:?}");
    assert_eq!(known[0]["address"], BUYER);
    assert_eq!(known[0]["line"], LINE);
    assert_eq!(known[0]["source"], "keyword");
    assert!(known[0]["evidence"].as_str().unwrap().starts_with("IM"));
    assert_eq!(states(&crm, &sid).await, ["warned"]);
    let warned = &crm.told("opt_out.warned").await[0];
    assert_eq!(warned["data"]["holder"], "maya");
    assert!(
        warned["data"]["participant_sid"]
            .as_str()
            .unwrap()
            .starts_with("MB")
    );

    let refused = crm.message(&sid, &words("the offer")).await;
    assert_eq!(refused.problem(409), "member_opted_out");
    assert_eq!(refused.body["members"], 1);
    assert!(!refused.body.to_string().contains("555555"), "{}", refused.body);
    let sent = crm.message(&sid, &knowing("the offer")).await.expect(202);
    crm.settle().await;
    let sent = crm.send(&sent).await;
    assert_eq!(
        (&sent["state"], &sent["acknowledged_opt_out"]),
        (&json!("sent"), &json!(true))
    );
    assert_eq!(crm.send(&queued).await["state"], "sent");
    // Twilio does not deliver it to them; nobody was removed.
    assert_eq!(
        crm.app
            .received(PARTNER)
            .iter()
            .filter(|(_, body)| body == "the offer")
            .count(),
        1
    );
    assert_eq!(
        crm.app
            .received(BUYER)
            .iter()
            .filter(|(_, body)| body == "the offer")
            .count(),
        0
    );
    assert_eq!(crm.app.at_twilio(&sid).participants.len(), 3);
    assert_eq!(
        open(&crm).await.len(),
        1,
        "the receipt with 21610 says nothing new"
    );
}

#[tokio::test]
async fn start_ends_it_and_the_history_stays() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let sid = crm.group().await;
    text(&crm, BUYER, "YES").await;
    assert_eq!(
        tables::count(&crm.app, "opt_out").await,
        0,
        "who never opted out does not opt in"
    );
    text(&crm, BUYER, "STOP").await;
    text(&crm, PARTNER, "start").await;
    assert_eq!(open(&crm).await.len(), 1, "nobody opts in for another");
    text(&crm, BUYER, "start").await;
    assert_eq!(open(&crm).await.len(), 0);
    crm.message(&sid, &words("welcome back")).await.expect(202);
    crm.settle().await;
    text(&crm, BUYER, "unsubscribe").await;
    let all = crm.get("/v1/opt-outs").await;
    let ended: Vec<bool> = all["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["cleared_source"] == "keyword")
        .collect();
    assert_eq!(ended, [false, true]);
    assert_eq!(states(&crm, &sid).await, ["warned", "over"]);
    assert_eq!(
        types(&crm, "opt_out.").await,
        [
            "opt_out.recorded",
            "opt_out.warned",
            "opt_out.cleared",
            "opt_out.recorded",
            "opt_out.warned"
        ]
    );
    let log = tables::rows(
        &crm.app,
        "select data::text from event where type like 'opt_out.%'",
    )
    .await;
    assert!(log.iter().all(|data| !data.contains("555555")), "{log:?}");
}

#[tokio::test]
async fn a_receipt_tells_it_where_no_word_was_seen() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let sid = crm.group().await;
    let deaf = Faults {
        webhooks: vec![WebhookFault {
            action: WebhookAction::Lose,
            events: vec!["onMessageAdded".to_owned()],
            ms: 0,
            probability: 1.0,
            times: None,
        }],
        ..Faults::default()
    };
    crm.app.sandbox.set_faults(deaf).unwrap();
    crm.app.text(BUYER, &[LINE, PARTNER], "STOP").await;
    crm.settle().await;
    assert_eq!(open(&crm).await.len(), 0);
    crm.message(&sid, &words("hello?")).await.expect(202);
    crm.settle().await;
    let known = open(&crm).await;
    assert_eq!(known.len(), 1);
    assert_eq!(known[0]["source"], "receipt");
    assert!(known[0]["evidence"].as_str().unwrap().starts_with("DY"));
    assert_eq!(known[0]["address"], BUYER);
    let refused = crm.message(&sid, &words("hello?")).await;
    assert_eq!(refused.problem(409), "member_opted_out");
}

fn closing_fails(times: u32) -> Faults {
    Faults {
        rest: vec![RestFault {
            method: Some("POST".to_owned()),
            path: Some("/v1/Services/*/Conversations/*".to_owned()),
            status: Some(503),
            effect: Effect::After,
            hold_ms: 0,
            probability: 1.0,
            times: Some(times),
        }],
        ..Faults::default()
    }
}

#[tokio::test]
async fn every_group_of_the_member_and_the_number_is_closed_once() {
    let crm = crm(OptOutPolicy::Close).await;
    let sid = crm.group().await;
    let other = sid_of(&crm.app.group_of(&[BUYER, "+15555550103"]).await);
    let without = sid_of(&crm.app.group_of(&[PARTNER, "+15555550103"]).await);
    // The answer of the first close is lost, and Twilio refuses the second.
    crm.app.sandbox.set_faults(closing_fails(1)).unwrap();
    crm.app.text(BUYER, &[LINE, PARTNER], "Stop").await;
    crm.app.sandbox.settled().await;
    let queued = crm.message(&sid, &words("one")).await.expect(202);
    crm.settle().await;
    for closed in [&sid, &other] {
        assert_eq!(crm.app.at_twilio(closed).state, "closed", "{closed}");
        let shown = crm.get(&format!("/v1/conversations/{closed}")).await;
        assert_eq!(shown["state"], "closed");
    }
    assert_eq!(crm.app.at_twilio(&without).state, "active");
    assert_eq!(crm.send(&queued).await["state"], "failed");
    assert_eq!(bodies(&crm, &sid), Vec::<String>::new());
    assert_eq!(
        crm.message(&sid, &knowing("two")).await.problem(409),
        "conversation_closed"
    );
    let told = crm.told("opt_out.closed").await;
    assert_eq!(told.len(), 2, "{told:?}");
}

#[tokio::test]
async fn a_group_that_is_made_with_a_member_who_opted_out_before_is_known_for_it() {
    for (policy, state) in [
        (OptOutPolicy::CarryOn, "warned"),
        (OptOutPolicy::AskSupervisor, "held"),
        (OptOutPolicy::Close, "closed"),
    ] {
        let crm = crm(policy).await;
        let set = json!({ "line": LINE, "address": BUYER, "by": "sam" });
        crm.post("/v1/opt-outs", &set).await.expect(201);
        crm.settle().await;
        let sid = crm.group().await;
        crm.settle().await;
        assert_eq!(states(&crm, &sid).await, [state]);
        let refused = crm.message(&sid, &words("hello")).await;
        assert_eq!(refused.status, 409, "{}", refused.body);
    }
}

#[tokio::test]
async fn an_opt_out_is_set_and_cleared_by_hand() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let sid = crm.group().await;
    let set = json!({ "line": LINE, "address": BUYER, "by": "sam" });
    let first = crm.post("/v1/opt-outs", &set).await.expect(201);
    let again = crm.post("/v1/opt-outs", &set).await.expect(200);
    assert_eq!(first["opt_out_id"], again["opt_out_id"]);
    assert_eq!(
        (&first["source"], &first["set_by"]),
        (&json!("api"), &json!("sam"))
    );
    crm.settle().await;
    assert_eq!(states(&crm, &sid).await, ["warned"]);
    assert_eq!(
        crm.message(&sid, &words("x")).await.problem(409),
        "member_opted_out"
    );
    let clear = format!("/v1/opt-outs/{}/clear", first["opt_out_id"].as_str().unwrap());
    let by = json!({ "by": "sam" });
    let cleared = crm.post(&clear, &by).await.expect(200);
    assert_eq!(cleared["cleared_by"], "sam");
    assert_eq!(crm.post(&clear, &by).await.problem(409), "opt_out_not_open");
    crm.message(&sid, &words("x")).await.expect(202);
    crm.settle().await;
    for (wrong, problem) in [
        (
            json!({ "line": "+15555550100", "address": BUYER, "by": "sam" }),
            (404, "not_found"),
        ),
        (
            json!({ "line": LINE, "address": LINE, "by": "sam" }),
            (409, "our_number"),
        ),
    ] {
        assert_eq!(
            crm.post("/v1/opt-outs", &wrong).await.problem(problem.0),
            problem.1
        );
    }
    let gone = crm
        .post("/v1/opt-outs/0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01/clear", &by)
        .await;
    assert_eq!(gone.problem(404), "not_found");
}

#[tokio::test]
async fn an_opt_out_survives_the_erasure_of_the_member_under_a_pseudonym() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let sid = crm.group().await;
    text(&crm, BUYER, "stop").await;
    let asked = crm
        .post(
            "/v1/erasures",
            &json!({ "number": BUYER, "upstream": "none", "asked_by": "the client", "reason": "asked for" }),
        )
        .await
        .expect(202);
    crm.settle().await;
    let erasure = crm
        .get(&format!("/v1/erasures/{}", asked["erasure_id"].as_str().unwrap()))
        .await;
    assert_eq!(erasure["state"], "completed", "{erasure}");
    assert!(erasure["counts"]["opt_outs"].as_i64().unwrap() >= 1, "{erasure}");
    let known = open(&crm).await;
    assert!(
        known[0]["address"].as_str().unwrap().starts_with("erased:"),
        "{known:?}"
    );
    let named = tables::count(&crm.app, &format!("opt_out where address = '{BUYER}'")).await;
    assert_eq!(named, 0);
    // And it still warns in the group that they are in.
    assert_eq!(
        crm.message(&sid, &words("x")).await.problem(409),
        "member_opted_out"
    );
}
