//! Messages of which nobody knows whether they were sent: the mirror tells in time, or a person does.

use hookswitch::api::auth::Scope;
use hookswitch::ids::ConversationSid;
use hookswitch::sandbox::{Effect, Faults, RestFault, WebhookAction, WebhookFault};
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Answer, Crm, key, words};
use crate::support::app::{BUYER, LINE, PARTNER};
use crate::support::tables;

/// Twilio takes messages, and neither its answers, nor its lists, nor its webhooks come through.
fn nothing_comes_back() -> Faults {
    let rest = |method: &str, effect| RestFault {
        method: Some(method.to_owned()),
        path: Some("/v1/Services/*/Conversations/*/Messages".to_owned()),
        status: Some(503),
        effect,
        hold_ms: 0,
        probability: 1.0,
        times: None,
    };
    Faults {
        rest: vec![rest("POST", Effect::After), rest("GET", Effect::Before)],
        webhooks: vec![WebhookFault {
            action: WebhookAction::Lose,
            events: Vec::new(),
            ms: 0,
            probability: 1.0,
            times: None,
        }],
        ..Faults::default()
    }
}

/// A message that was given up, though Twilio has it.
async fn given_up(crm: &Crm, sid: &ConversationSid, body: &str) -> Value {
    crm.app.sandbox.set_faults(nothing_comes_back()).unwrap();
    let asked = crm.message(sid, &words(body)).await.expect(202);
    for _ in 0..40 {
        crm.app.settle_for(SignedDuration::from_mins(10)).await;
    }
    let shown = crm.send(&asked).await;
    assert_eq!(
        (&shown["state"], &shown["outcome_code"]),
        (&json!("needs_attention"), &json!("given_up"))
    );
    asked
}

/// Of a message of which it is not known, though nothing has failed.
async fn unknown(crm: &Crm, sid: &ConversationSid) -> (Value, String) {
    let asked = crm
        .message(sid, &words("The inspection went well"))
        .await
        .expect(202);
    crm.settle().await;
    let sent = crm.send(&asked).await["message_sid"].as_str().unwrap().to_owned();
    let id = asked["send_id"].as_str().unwrap();
    tables::execute(
        &crm.app,
        &format!(
            "update outbound_message set state = 'needs_attention', message_sid = null, outcome_code = 'given_up'
            where outbound_message_id = '{id}'"
        ),
    )
    .await;
    (asked, sent)
}

async fn resolve(crm: &Crm, asked: &Value, body: &Value) -> Answer {
    let id = asked["send_id"].as_str().unwrap();
    crm.post(&format!("/v1/sends/{id}/resolve"), body).await
}

fn received(crm: &Crm, handset: &str, body: &str) -> usize {
    let all = crm.app.received(handset);
    all.iter().filter(|(_, said)| said == body).count()
}

#[tokio::test]
async fn what_was_given_up_and_is_found_in_the_group_later_counts_as_sent() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let asked = given_up(&crm, &sid, "once").await;
    let open = crm.get("/v1/sends?state=needs_attention").await;
    assert_eq!(open["items"][0]["send_id"], asked["send_id"]);
    let count = hookswitch::outbox::count_unknown(&mut *crm.app.conn().await).await;
    assert_eq!(count.unwrap(), 1);

    crm.app.sandbox.set_faults(Faults::default()).unwrap();
    crm.app.sweep().await;
    crm.settle().await;
    let shown = crm.send(&asked).await;
    assert_eq!(shown["state"], "sent", "{shown}");
    assert_eq!(shown["outcome_code"], Value::Null);
    let thread = crm.get(&format!("/v1/conversations/{sid}/messages")).await;
    assert_eq!(thread["items"][0]["message_sid"], shown["message_sid"]);
    assert_eq!(crm.told("send.sent").await.len(), 1);
    assert_eq!(crm.get("/v1/sends").await["items"], json!([]));
    for handset in [BUYER, PARTNER] {
        assert_eq!(received(&crm, handset, "once"), 1);
    }
}

#[tokio::test]
async fn what_is_given_up_while_the_mirror_shows_it_counts_as_sent() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let faults = Faults {
        webhooks: Vec::new(),
        ..nothing_comes_back()
    };
    crm.app.sandbox.set_faults(faults).unwrap();
    let asked = crm.message(&sid, &words("once")).await.expect(202);
    for _ in 0..40 {
        crm.app.settle_for(SignedDuration::from_mins(10)).await;
    }
    assert_eq!(crm.send(&asked).await["state"], "sent");
    assert_eq!(received(&crm, BUYER, "once"), 1);
}

#[tokio::test]
async fn a_person_says_what_became_of_a_message() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let (asked, message_sid) = unknown(&crm, &sid).await;
    let other = crm.message(&sid, &words("Another one")).await.expect(202);
    crm.settle().await;
    let other = crm.send(&other).await;

    let sent = |message_sid: &str| json!({ "outcome": "sent", "message_sid": message_sid, "by": "sam" });
    let nowhere = format!("IM{}", "9".repeat(32));
    assert_eq!(
        resolve(&crm, &asked, &sent(&nowhere)).await.problem(409),
        "message_not_found"
    );
    let answer = resolve(&crm, &asked, &sent(other["message_sid"].as_str().unwrap())).await;
    assert_eq!(answer.problem(409), "message_is_another");
    assert_eq!(answer.body["send_id"], other["send_id"]);
    let shown = resolve(&crm, &asked, &sent(&message_sid)).await.expect(200);
    assert_eq!(
        (&shown["state"], &shown["message_sid"]),
        (&json!("sent"), &json!(message_sid))
    );
    let again = resolve(&crm, &asked, &sent(&message_sid)).await;
    assert_eq!(again.problem(409), "send_settled");
    assert_eq!(again.body["state"], "sent");

    let (asked, _) = unknown(&crm, &sid).await;
    let shown = resolve(&crm, &asked, &json!({ "outcome": "not_sent", "by": "sam" }))
        .await
        .expect(200);
    assert_eq!(
        (&shown["state"], &shown["outcome_code"]),
        (&json!("failed"), &json!("not_sent"))
    );
    let actors = "select actor from event where type in ('send.sent', 'send.failed') and via = 'api' order by event_id";
    assert_eq!(tables::rows(&crm.app, actors).await, ["sam", "sam"]);
}

#[tokio::test]
async fn what_is_wrong_with_a_verdict_is_told_all_at_once() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let (asked, message_sid) = unknown(&crm, &sid).await;
    let answer = resolve(&crm, &asked, &json!({ "outcome": "sent" })).await;
    assert_eq!(answer.problem(400), "invalid");
    let fields: Vec<_> = answer.body["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["field"].clone())
        .collect();
    assert_eq!(fields, ["/by", "/message_sid"]);
    let both = json!({ "outcome": "not_sent", "message_sid": message_sid, "by": "sam" });
    assert_eq!(
        resolve(&crm, &asked, &both).await.wrong(),
        ("/message_sid", "not_of_this_outcome")
    );
    let unknown = json!({ "send_id": hookswitch::ids::new_id() });
    let verdict = json!({ "outcome": "not_sent", "by": "sam" });
    assert_eq!(resolve(&crm, &unknown, &verdict).await.problem(404), "not_found");
    let listed = crm.ask(crm.request(Method::GET, "/v1/sends?state=sent")).await;
    assert_eq!(listed.wrong().0, "state");
    let reader = Crm {
        key: key(&crm.app, &[Scope::ConversationsRead]).await,
        ..crm
    };
    assert_eq!(
        resolve(&reader, &asked, &verdict).await.problem(403),
        "missing_scope"
    );
}

#[tokio::test]
async fn unsettled_messages_are_listed_and_resolved_on_the_command_line() {
    let crm = Crm::start().await;
    let conversation = crm.group().await;
    let (asked, message_sid) = unknown(&crm, &conversation).await;
    let id = asked["send_id"].as_str().unwrap();
    let command = async |args: &[&str]| crm.app.command(&[&["sends"], args].concat()).await;
    let (done, listed) = command(&["list", "--state", "needs-attention"]).await;
    assert!(
        done && listed.contains(id) && listed.contains("given_up"),
        "{listed}"
    );
    assert!(
        !listed.contains("inspection") && !listed.contains(LINE),
        "{listed}"
    );
    let (done, said) = command(&["resolve", id, "--by", "sam"]).await;
    assert!(!done && said.contains("--not-sent"), "{said}");
    let (done, said) = command(&["resolve", id, "--sent", &message_sid, "--by", "sam"]).await;
    assert!(done && said.contains(&message_sid), "{said}");
    let (done, said) = command(&["resolve", id, "--not-sent", "--by", "sam"]).await;
    assert!(
        !done && said.contains("it is known what became of the message"),
        "{said}"
    );
    assert_eq!(command(&["list"]).await, (true, String::new()));
}
