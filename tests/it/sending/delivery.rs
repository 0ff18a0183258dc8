//! What became of a message on each handset, whatever the order in which we hear of it.

use hookswitch::ids::ConversationSid;
use hookswitch::sandbox::{Faults, WebhookAction, WebhookFault};
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Crm, words};
use crate::support::app::{BUYER, LINE, PARTNER};
use crate::support::tables;
use crate::support::webhook::Webhook;

fn lost(events: &[&str]) -> Faults {
    Faults {
        webhooks: vec![WebhookFault {
            action: WebhookAction::Lose,
            events: events.iter().map(|event| (*event).to_owned()).collect(),
            ms: 0,
            probability: 1.0,
            times: None,
        }],
        ..Faults::default()
    }
}

async fn sent(crm: &Crm, sid: &ConversationSid) -> String {
    let asked = crm
        .message(sid, &words("How far does it come?"))
        .await
        .expect(202);
    crm.settle().await;
    crm.send(&asked).await["message_sid"].as_str().unwrap().to_owned()
}

async fn message(crm: &Crm, sid: &ConversationSid, message_sid: &str) -> Value {
    crm.get(&format!("/v1/conversations/{sid}/messages/{message_sid}"))
        .await
}

/// The state of each handset, by its number.
fn by_handset(message: &Value) -> Vec<(String, String)> {
    let delivery = message["delivery"].as_array().unwrap().iter();
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let mut all: Vec<(String, String)> = delivery
        .map(|one| (text(&one["address"]), text(&one["status"])))
        .collect();
    all.sort();
    all
}

fn states(buyer: &str, partner: &str) -> Vec<(String, String)> {
    vec![
        (BUYER.to_owned(), buyer.to_owned()),
        (PARTNER.to_owned(), partner.to_owned()),
    ]
}

/// One receipt as Twilio tells of it.
struct Told<'a> {
    sid: &'a ConversationSid,
    message_sid: &'a str,
    participant_sid: &'a str,
}

impl Told<'_> {
    async fn receipt(&self, crm: &Crm, number: u32, status: &str, code: Option<&str>, second: u32) {
        let receipt_sid = format!("DY{number:032x}");
        let at = format!("2026-12-01T10:00:{second:02}.000Z");
        let mut webhook = Webhook::new(
            "onDeliveryUpdated",
            &[
                ("ConversationSid", self.sid.as_str()),
                ("MessageSid", self.message_sid),
                ("DeliveryReceiptSid", &receipt_sid),
                ("ChannelMessageSid", "SM00000000000000000000000000000001"),
                ("ParticipantSid", self.participant_sid),
                ("Status", status),
                ("DateCreated", "2026-12-01T10:00:00.000Z"),
                ("DateUpdated", &at),
            ],
        );
        if let Some(code) = code {
            webhook = webhook.with("ErrorCode", code);
        }
        crm.app.deliver(&webhook.0).await;
        crm.app.app.projector.run_until_idle().await.unwrap();
    }
}

fn participant(crm: &Crm, sid: &ConversationSid, handset: &str) -> String {
    let members = crm.app.at_twilio(sid).participants;
    let found = members.into_iter().find(|one| {
        one.address
            .as_ref()
            .is_some_and(|address| address.as_str() == handset)
    });
    found.unwrap().sid.to_string()
}

#[tokio::test]
async fn every_handset_is_waited_for_and_then_told_of() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    crm.app.sandbox.set_faults(lost(&["onDeliveryUpdated"])).unwrap();
    let message_sid = sent(&crm, &sid).await;
    let waiting = message(&crm, &sid, &message_sid).await;
    assert_eq!(by_handset(&waiting), states("pending", "pending"));
    assert_eq!(waiting["delivery_summary"]["pending"], 2);
    assert_eq!(waiting["delivery"][0]["updated_at"], Value::Null);

    let buyer = participant(&crm, &sid, BUYER);
    let partner = participant(&crm, &sid, PARTNER);
    let told_of = |participant_sid| Told {
        sid: &sid,
        message_sid: &message_sid,
        participant_sid,
    };
    let (to_buyer, to_partner) = (told_of(buyer.as_str()), told_of(partner.as_str()));
    // The state never goes back, whatever comes when.
    to_buyer.receipt(&crm, 1, "delivered", None, 5).await;
    to_buyer.receipt(&crm, 1, "sent", None, 9).await;
    to_partner.receipt(&crm, 2, "failed", Some("30003"), 4).await;
    to_partner.receipt(&crm, 2, "sent", None, 2).await;
    let told = message(&crm, &sid, &message_sid).await;
    assert_eq!(by_handset(&told), states("delivered", "failed"));
    assert_eq!(
        told["delivery_summary"],
        json!({ "total": 2, "pending": 0, "sent": 0, "delivered": 1, "read": 0, "undelivered": 0, "failed": 1 })
    );
    let failed = told["delivery"].as_array().unwrap();
    let failed = failed.iter().find(|one| one["status"] == "failed").unwrap();
    assert_eq!(failed["error_code"], "30003");
    assert_eq!(failed["updated_at"], "2026-12-01T10:00:04Z");
    to_buyer.receipt(&crm, 1, "read", None, 30).await;
    let read = message(&crm, &sid, &message_sid).await;
    assert_eq!(by_handset(&read), states("read", "failed"));

    // The feed tells of every step forward, and of none back.
    let told = crm.told("delivery.updated").await;
    let steps: Vec<&str> = told
        .iter()
        .map(|one| one["data"]["status"].as_str().unwrap())
        .collect();
    assert_eq!(steps, ["delivered", "failed", "read"]);
    assert_eq!(told[1]["data"]["error_code"], "30003");
    assert_eq!(told[1]["data"]["participant_sid"], partner);
}

#[tokio::test]
async fn receipts_that_come_before_their_message_wait_for_it() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    // Another program writes: we hear of it by its receipts alone.
    crm.app.sandbox.set_faults(lost(&["onMessageAdded"])).unwrap();
    let new = hookswitch::twilio::requests::NewMessage {
        author: Some("maya".into()),
        body: Some("from elsewhere".into()),
        ..Default::default()
    };
    let written = crm.app.account().client.create_message(&sid, &new).await.unwrap();
    crm.app.sandbox.settled().await;
    crm.app.app.projector.run_until_idle().await.unwrap();
    let message_sid = written.sid.as_str();
    assert_eq!(tables::count(&crm.app, "message").await, 0);
    assert_eq!(tables::count(&crm.app, "delivery_receipt").await, 2);
    let path = format!("/v1/conversations/{sid}/messages/{message_sid}");
    let early = crm.ask(crm.request(Method::GET, &path)).await;
    assert_eq!(early.problem(404), "not_found");
    // The read that they ask for brings the message.
    crm.settle().await;
    let shown = message(&crm, &sid, message_sid).await;
    assert_eq!(shown["body"], "from elsewhere");
    assert_eq!(by_handset(&shown), states("delivered", "delivered"));
}

#[tokio::test]
async fn what_a_member_writes_is_not_ours_to_deliver() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    crm.app.text(BUYER, &[LINE, PARTNER], "hello").await;
    crm.settle().await;
    let all = crm.get(&format!("/v1/conversations/{sid}/messages")).await;
    assert_eq!(all["items"][0]["delivery"], json!([]));
    assert_eq!(all["items"][0]["delivery_summary"], Value::Null);
}

#[tokio::test]
async fn media_of_a_message_is_fetched_by_a_link_of_twilio_s() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let bytes = b"\x89PNG\r\n\x1a\n and the rest of a picture";
    let uploaded = crm.upload(&sid, "image/png", bytes).await.expect(201)["media_id"].clone();
    let asked = crm
        .message(&sid, &json!({ "media": [uploaded] }))
        .await
        .expect(202);
    crm.settle().await;
    let sent = crm.send(&asked).await;
    let message_sid = sent["message_sid"].as_str().unwrap();
    let media_sid = sent["media"][0]["media_sid"].as_str().unwrap();
    let path = format!("/v1/conversations/{sid}/messages/{message_sid}/media");
    // The client follows, as a browser does.
    let fetched = crm
        .request(Method::GET, &format!("{path}/{media_sid}"))
        .send()
        .await
        .unwrap();
    assert_eq!(fetched.status(), 200);
    assert_eq!(fetched.headers()["content-type"], "image/png");
    assert_eq!(fetched.bytes().await.unwrap().as_ref(), bytes);
    let other = format!("{path}/ME00000000000000000000000000000099");
    assert_eq!(
        crm.ask(crm.request(Method::GET, &other)).await.problem(404),
        "not_found"
    );
    // A link does not work for long.
    let client = &crm.app.account().client;
    let stored = client.fetch_media(&media_sid.parse().unwrap()).await.unwrap();
    crm.app.advance(SignedDuration::from_mins(6));
    let link = stored.links.content_direct_temporary.unwrap();
    assert_eq!(crm.http.get(link).send().await.unwrap().status(), 403);
}
