//! Media: uploaded here, then at Twilio, then named by a message that is sent once.

use hookswitch::ids::ConversationSid;
use hookswitch::outbox::media;
use hookswitch::retention::{Class, Retention};
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::twilio::requests::NewMessage;
use jiff::SignedDuration;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Crm, words};
use crate::support::app::{BUYER, PARTNER};
use crate::support::tables;

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n and the rest of a picture";

fn failing(path: &str, effect: Effect, times: u32) -> Faults {
    Faults {
        rest: vec![RestFault {
            method: Some("POST".to_owned()),
            path: Some(path.to_owned()),
            status: Some(503),
            effect,
            hold_ms: 0,
            probability: 1.0,
            times: Some(times),
        }],
        ..Faults::default()
    }
}

async fn picture(crm: &Crm, sid: &ConversationSid) -> Value {
    crm.upload(sid, "image/png", PNG).await.expect(201)["media_id"].clone()
}

/// Asks for a message with a new picture, and with words or without.
async fn ask_with_picture(crm: &Crm, sid: &ConversationSid, body: Option<&str>) -> Value {
    let media_id = picture(crm, sid).await;
    let asked = match body {
        Some(body) => json!({ "body": body, "media": [media_id] }),
        None => json!({ "media": [media_id] }),
    };
    crm.message(sid, &asked).await.expect(202)
}

fn upload_named(crm: &Crm, sid: &ConversationSid, name: &str) -> reqwest::RequestBuilder {
    crm.request(Method::POST, &format!("/v1/conversations/{sid}/media"))
        .header("Idempotency-Key", hookswitch::ids::new_id().to_string())
        .header("Content-Type", "image/png")
        .header("Content-Disposition", format!("attachment; filename=\"{name}\""))
        .body(PNG.to_vec())
}

fn of_buyer() -> Value {
    json!({ "number": BUYER, "upstream": "none", "asked_by": "the client", "reason": "asked for" })
}

/// Rules by which words are kept for a day.
fn kept_a_day(crm: &Crm) -> Retention {
    let day = std::time::Duration::from_hours(24);
    Retention {
        pool: crm.app.pool().clone(),
        clock: crm.app.clock.clone(),
        settings: hookswitch::config::Retention {
            webhooks: Some(day),
            message_bodies: Some(day),
            ..crm.app.config.retention
        },
    }
}

const MESSAGES: &str = "/v1/Services/*/Conversations/*/Messages";

/// The messages at Twilio: their words, and how many media each has.
fn at_twilio(crm: &Crm, sid: &ConversationSid) -> Vec<(Option<String>, usize)> {
    let messages = crm.app.at_twilio(sid).messages;
    messages
        .into_iter()
        .map(|message| (message.body, message.media.len()))
        .collect()
}

async fn kept(crm: &Crm) -> i64 {
    tables::count(&crm.app, "outbound_media where content is not null").await
}

#[tokio::test]
async fn a_picture_reaches_every_handset_once_and_its_bytes_are_gone_after() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let uploaded = crm.upload(&sid, "image/png", PNG).await.expect(201);
    assert_eq!(uploaded["size"], PNG.len());
    assert_eq!(uploaded["filename"], "kitchen.png");
    let media_id = &uploaded["media_id"];
    let asked = crm
        .message(&sid, &json!({ "body": "The kitchen", "media": [media_id] }))
        .await
        .expect(202);
    assert_eq!(asked["media"][0]["media_id"], *media_id);
    assert_eq!(kept(&crm).await, 1);
    crm.settle().await;

    let sent = crm.send(&asked).await;
    assert_eq!(sent["state"], "sent", "{sent}");
    assert_eq!(at_twilio(&crm, &sid), [(Some("The kitchen".to_owned()), 1)]);
    for handset in [BUYER, PARTNER] {
        let texts = crm.app.sandbox.texts(&handset.parse().unwrap());
        assert_eq!(texts.len(), 1);
        assert_eq!(texts[0].media[0].content_type, "image/png");
        assert_eq!(texts[0].media[0].size, PNG.len() as u64);
    }
    assert_eq!(kept(&crm).await, 0);
    // What the mirror has of it is what the send says that it is.
    let read = crm.get(&format!("/v1/conversations/{sid}/messages")).await;
    assert_eq!(read["items"][0]["media"][0]["sid"], sent["media"][0]["media_sid"]);
    assert_eq!(read["items"][0]["media"][0]["filename"], "kitchen.png");
}

#[tokio::test]
async fn a_picture_needs_no_words() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let asked = ask_with_picture(&crm, &sid, None).await;
    crm.settle().await;
    assert_eq!(crm.send(&asked).await["state"], "sent");
    assert_eq!(at_twilio(&crm, &sid), [(None, 1)]);
}

#[tokio::test]
async fn what_cannot_be_sent_is_refused_before_with_its_reason() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let gif = crm.upload(&sid, "image/gif", b"GIF89a").await;
    assert_eq!(gif.problem(415), "unsupported_media_type");
    assert!(gif.body["detail"].as_str().unwrap().contains("image/png"));
    let empty = crm.upload(&sid, "image/png", b"").await;
    assert_eq!(empty.wrong(), ("body", "empty"));
    let page = crm.upload(&sid, "image/png", b"<!doctype html>").await;
    assert_eq!(page.wrong(), ("Content-Type", "content_differs"));
    let mut large = PNG.to_vec();
    large.resize(5_000_000, 0);
    let large = crm.upload(&sid, "image/png", &large).await;
    assert_eq!(large.problem(413), "too_large");
    let elsewhere = "CH00000000000000000000000000000099".parse().unwrap();
    assert_eq!(
        crm.upload(&elsewhere, "image/png", PNG).await.problem(404),
        "not_found"
    );

    let (one, two) = (picture(&crm, &sid).await, picture(&crm, &sid).await);
    let many = crm
        .message(&sid, &json!({ "body": "x", "media": [one, two] }))
        .await;
    assert_eq!(many.wrong(), ("/media", "too_many"));
    let nothing = crm.message(&sid, &json!({ "media": [] })).await;
    assert_eq!(nothing.wrong(), ("/body", "missing"));
    let unknown = crm
        .message(
            &sid,
            &json!({ "media": ["0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01"] }),
        )
        .await;
    assert_eq!(unknown.problem(409), "media_unknown");
    let first = crm.message(&sid, &json!({ "media": [one] })).await.expect(202);
    let again = crm.message(&sid, &json!({ "media": [one] })).await;
    assert_eq!(again.problem(409), "media_used");
    assert_eq!(again.body["send_id"], first["send_id"]);
    crm.settle().await;
    assert_eq!(at_twilio(&crm, &sid), [(None, 1)]);
}

#[tokio::test]
async fn an_upload_that_is_repeated_is_one() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let first = crm.upload_as("kitchen", &sid, "image/png", PNG).await.expect(201);
    let again = crm.upload_as("kitchen", &sid, "image/png", PNG).await.expect(201);
    assert_eq!(first, again);
    assert_eq!(kept(&crm).await, 1);
    let mut other = PNG.to_vec();
    other.push(b'!');
    let other = crm.upload_as("kitchen", &sid, "image/png", &other).await;
    assert_eq!(other.problem(409), "idempotency_key_reused");
}

#[tokio::test]
async fn what_waits_has_a_limit_and_an_end() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let mut large = PNG.to_vec();
    large.resize(4_999_999, 0);
    let mut conn = crm.app.conn().await;
    let new = |content: Vec<u8>| media::NewMedia {
        conversation_sid: sid.clone(),
        media_type: media::kinds::MediaType::Png,
        filename: None,
        content,
        requested_by: "crm".to_owned(),
    };
    let now = crm.app.clock.now();
    media::keep_in(&mut conn, new(large), 5_000_000, now)
        .await
        .unwrap();
    let full = media::keep_in(&mut conn, new(PNG.to_vec()), 5_000_000, now).await;
    assert!(matches!(
        full,
        Err(media::UploadError::Full {
            kept_bytes: 4_999_999
        })
    ));
    let purge = async |conn: &mut sqlx::PgConnection, after: i64| {
        let before = now + SignedDuration::from_secs(after);
        media::purge_unused(conn, before).await.unwrap()
    };
    assert_eq!(purge(&mut conn, 0).await, 0);
    assert_eq!(purge(&mut conn, 1).await, 1);
    media::keep_in(&mut conn, new(PNG.to_vec()), 5_000_000, now)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_crash_between_upload_and_message_costs_an_upload_and_no_message() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let asked = ask_with_picture(&crm, &sid, Some("once")).await;
    // The upload succeeds, and then Twilio is away for longer than it keeps what no message took.
    crm.app
        .sandbox
        .set_faults(failing(MESSAGES, Effect::Before, 2))
        .unwrap();
    crm.app.app.worker.run_until_idle().await.unwrap();
    let first = crm.send(&asked).await["media"][0]["media_sid"].clone();
    assert!(first.is_string());
    crm.app.advance(SignedDuration::from_mins(10));
    // Another process goes on, with nothing but what is stored.
    let restarted = crm.app.restarted();
    for _ in 0..4 {
        crm.app.settle_with(&restarted).await;
        crm.app.advance(SignedDuration::from_mins(2));
    }
    let sent = crm.send(&asked).await;
    assert_eq!(sent["state"], "sent", "{sent}");
    assert_ne!(sent["media"][0]["media_sid"], first, "it was uploaded again");
    assert_eq!(at_twilio(&crm, &sid), [(Some("once".to_owned()), 1)]);
    assert_eq!(kept(&crm).await, 0);
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_found_and_not_sent_again() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let asked = ask_with_picture(&crm, &sid, Some("once")).await;
    crm.app
        .sandbox
        .set_faults(failing(MESSAGES, Effect::After, 1))
        .unwrap();
    crm.settle().await;
    assert_eq!(crm.send(&asked).await["state"], "sent");
    assert_eq!(at_twilio(&crm, &sid), [(Some("once".to_owned()), 1)]);
}

/// Twilio says that the media is taken: so there is a message with it, though none that carries our id.
#[tokio::test]
async fn media_that_is_at_twilio_in_a_message_already_is_not_sent_again() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let asked = ask_with_picture(&crm, &sid, Some("once")).await;
    crm.app
        .sandbox
        .set_faults(failing(MESSAGES, Effect::Before, 1))
        .unwrap();
    crm.app.app.worker.run_until_idle().await.unwrap();
    let shown = crm.send(&asked).await;
    assert_eq!(shown["state"], "sending");
    // As where somebody has changed the attributes of ours.
    let ours = NewMessage {
        author: Some("maya".into()),
        body: Some("once".into()),
        media_sid: Some(shown["media"][0]["media_sid"].as_str().unwrap().parse().unwrap()),
        ..NewMessage::default()
    };
    let client = &crm.app.account().client;
    client.create_message(&sid, &ours).await.unwrap();
    let after = crm.message(&sid, &words("and on we go")).await.expect(202);
    for _ in 0..20 {
        crm.app.settle_for(SignedDuration::from_secs(60)).await;
    }
    let ended = crm.send(&asked).await;
    assert_eq!(
        (&ended["state"], &ended["outcome_code"]),
        (&json!("needs_attention"), &json!("given_up"))
    );
    assert_eq!(crm.send(&after).await["state"], "sent");
    for handset in [BUYER, PARTNER] {
        let bodies: Vec<String> = crm
            .app
            .received(handset)
            .into_iter()
            .map(|(_, body)| body)
            .collect();
        assert_eq!(bodies, ["once", "and on we go"]);
    }
    assert_eq!(kept(&crm).await, 0);
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_made_again() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let asked = ask_with_picture(&crm, &sid, None).await;
    crm.app
        .sandbox
        .set_faults(failing("/v1/Services/*/Media", Effect::After, 3))
        .unwrap();
    crm.settle().await;
    assert_eq!(crm.send(&asked).await["state"], "sent");
    assert_eq!(at_twilio(&crm, &sid), [(None, 1)]);
}

#[tokio::test]
async fn media_that_was_erased_before_it_was_sent_fails_its_message() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let asked = ask_with_picture(&crm, &sid, None).await;
    tables::execute(&crm.app, "update outbound_media set content = null").await;
    let after = crm.message(&sid, &words("and on we go")).await.expect(202);
    crm.settle().await;
    let failed = crm.send(&asked).await;
    assert_eq!(
        (&failed["state"], &failed["outcome_code"]),
        (&json!("failed"), &json!("media_gone"))
    );
    assert_eq!(crm.send(&after).await["state"], "sent");
}

#[tokio::test]
async fn the_name_of_a_file_is_erased_with_the_words_and_with_the_person() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    for name in [format!("from {BUYER}.png"), "kitchen.png".to_owned()] {
        let uploaded = crm.ask(upload_named(&crm, &sid, &name)).await.expect(201);
        crm.message(&sid, &json!({ "body": "look", "media": [uploaded["media_id"]] }))
            .await
            .expect(202);
    }
    crm.settle().await;
    let named = |text: &str| format!("outbound_media where filename like '%{text}%'");
    assert_eq!(tables::count(&crm.app, &named("5550101")).await, 1);
    crm.post("/v1/erasures", &of_buyer()).await.expect(202);
    crm.settle().await;
    assert_eq!(tables::count(&crm.app, &named("5550101")).await, 0);
    assert_eq!(tables::count(&crm.app, &named("kitchen")).await, 1);

    let rules = kept_a_day(&crm);
    rules.run_all(Class::MessageBodies, false).await.unwrap();
    assert_eq!(
        tables::count(&crm.app, &named("kitchen")).await,
        1,
        "it is not old enough"
    );
    crm.app.advance(SignedDuration::from_hours(25));
    rules.run_all(Class::MessageBodies, false).await.unwrap();
    assert_eq!(tables::count(&crm.app, &named("kitchen")).await, 0);
    assert_eq!(
        tables::count(&crm.app, "outbound_media where erased_at is not null").await,
        2
    );
}

#[tokio::test]
async fn what_is_still_to_be_sent_keeps_its_media_when_a_person_is_erased() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let uploaded = crm
        .ask(upload_named(&crm, &sid, &format!("for {BUYER}.png")))
        .await
        .expect(201);
    let asked = crm
        .message(&sid, &json!({ "media": [uploaded["media_id"]] }))
        .await
        .expect(202);
    assert_eq!(
        crm.post("/v1/erasures", &of_buyer()).await.problem(409),
        "at_work"
    );
    let person = hookswitch::person::Person::new(
        hookswitch::person::Subject::Number(BUYER.parse().unwrap()),
        "erased:someone".to_owned(),
    );
    let mut conn = crm.app.conn().await;
    let now = crm.app.clock.now();
    let erased = media::erase_person(&mut conn, &sid, &person, &[], now)
        .await
        .unwrap();
    assert_eq!((erased, kept(&crm).await), (0, 1));
    crm.settle().await;
    assert_eq!(crm.send(&asked).await["state"], "sent");
    let erased = media::erase_person(&mut conn, &sid, &person, &[], now)
        .await
        .unwrap();
    assert_eq!(erased, 1);
}

#[tokio::test]
async fn what_a_person_has_to_look_at_is_erased_by_its_age_too() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let asked = ask_with_picture(&crm, &sid, Some("nobody knows")).await;
    crm.settle().await;
    let unknown = "update outbound_message set state = 'needs_attention', message_sid = null, outcome_code = 'given_up'";
    tables::execute(&crm.app, unknown).await;
    let rules = kept_a_day(&crm);
    crm.app.advance(SignedDuration::from_hours(25));
    rules.run_all(Class::MessageBodies, false).await.unwrap();
    let shown = crm.send(&asked).await;
    assert_eq!(
        (&shown["state"], &shown["body"]),
        (&json!("needs_attention"), &json!(""))
    );
    assert_eq!(shown["media"][0]["filename"], Value::Null);
}

#[tokio::test]
async fn attributes_that_twilio_would_refuse_are_refused_before() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let with = |length: usize| json!({ "body": "x", "attributes": { "crm": "x".repeat(length) } });
    // {"crm":""} has ten bytes.
    let large = crm.message(&sid, &with(3_991)).await;
    assert_eq!(large.wrong().0, "/attributes");
    let asked = crm.message(&sid, &with(3_990)).await.expect(202);
    crm.settle().await;
    assert_eq!(crm.send(&asked).await["state"], "sent");
}

#[tokio::test]
async fn an_upload_needs_a_key_of_its_own_and_the_scope() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let bare = crm
        .request(Method::POST, &format!("/v1/conversations/{sid}/media"))
        .header("Content-Type", "image/png")
        .body(PNG.to_vec());
    assert_eq!(crm.ask(bare).await.wrong(), ("Idempotency-Key", "missing"));
    let odd = upload_named(&crm, &sid, "../etc");
    assert_eq!(crm.ask(odd).await.wrong(), ("Content-Disposition", "malformed"));
    assert_eq!(kept(&crm).await, 0);
}
