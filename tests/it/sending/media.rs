//! Media: uploaded here, then at Twilio, then named by a message that is sent once.

use hookswitch::ids::ConversationSid;
use hookswitch::outbox::media;
use hookswitch::retention::{Class, Retention};
use hookswitch::sandbox::{Effect, Faults, RestFault};
use jiff::SignedDuration;
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
    let media_id = picture(&crm, &sid).await;
    let asked = crm
        .message(&sid, &json!({ "media": [media_id] }))
        .await
        .expect(202);
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
    let media_id = picture(&crm, &sid).await;
    let asked = crm
        .message(&sid, &json!({ "body": "once", "media": [media_id] }))
        .await
        .expect(202);
    // The upload succeeds, and then Twilio is away for longer than it keeps what no message took.
    crm.app
        .sandbox
        .set_faults(failing(
            "/v1/Services/*/Conversations/*/Messages",
            Effect::Before,
            2,
        ))
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
    let media_id = picture(&crm, &sid).await;
    let asked = crm
        .message(&sid, &json!({ "body": "once", "media": [media_id] }))
        .await
        .expect(202);
    crm.app
        .sandbox
        .set_faults(failing(
            "/v1/Services/*/Conversations/*/Messages",
            Effect::After,
            1,
        ))
        .unwrap();
    crm.settle().await;
    assert_eq!(crm.send(&asked).await["state"], "sent");
    assert_eq!(at_twilio(&crm, &sid), [(Some("once".to_owned()), 1)]);
}

#[tokio::test]
async fn an_upload_whose_answer_was_lost_is_made_again() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let media_id = picture(&crm, &sid).await;
    let asked = crm
        .message(&sid, &json!({ "media": [media_id] }))
        .await
        .expect(202);
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
    let media_id = picture(&crm, &sid).await;
    let asked = crm
        .message(&sid, &json!({ "media": [media_id] }))
        .await
        .expect(202);
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
    let upload = |name: &str| {
        crm.request(reqwest::Method::POST, &format!("/v1/conversations/{sid}/media"))
            .header("Idempotency-Key", hookswitch::ids::new_id().to_string())
            .header("Content-Type", "image/png")
            .header("Content-Disposition", format!("attachment; filename=\"{name}\""))
            .body(PNG.to_vec())
    };
    let of_buyer = crm.ask(upload(&format!("from {BUYER}.png"))).await.expect(201)["media_id"].clone();
    let other = crm.ask(upload("kitchen.png")).await.expect(201)["media_id"].clone();
    for media_id in [of_buyer, other] {
        crm.message(&sid, &json!({ "body": "look", "media": [media_id] }))
            .await
            .expect(202);
    }
    crm.settle().await;
    let named = |text: &str| format!("outbound_media where filename like '%{text}%'");
    assert_eq!(tables::count(&crm.app, &named("5550101")).await, 1);
    crm.post(
        "/v1/erasures",
        &json!({ "number": BUYER, "upstream": "none", "asked_by": "the client", "reason": "asked for" }),
    )
    .await
    .expect(202);
    crm.settle().await;
    assert_eq!(tables::count(&crm.app, &named("5550101")).await, 0);
    assert_eq!(tables::count(&crm.app, &named("kitchen")).await, 1);

    let day = std::time::Duration::from_hours(24);
    let rules = Retention {
        pool: crm.app.pool().clone(),
        clock: crm.app.clock.clone(),
        settings: hookswitch::config::Retention {
            webhooks: Some(day),
            message_bodies: Some(day),
            ..crm.app.config.retention
        },
    };
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
async fn an_upload_needs_a_key_of_its_own_and_the_scope() {
    let crm = Crm::start().await;
    let sid = crm.group().await;
    let path = format!("/v1/conversations/{sid}/media");
    let bare = crm
        .request(reqwest::Method::POST, &path)
        .header("Content-Type", "image/png")
        .body(PNG.to_vec());
    assert_eq!(crm.ask(bare).await.wrong(), ("Idempotency-Key", "missing"));
    let odd = crm
        .request(reqwest::Method::POST, &path)
        .header("Idempotency-Key", "odd")
        .header("Content-Type", "image/png")
        .header("Content-Disposition", "attachment; filename=\"../etc\"")
        .body(PNG.to_vec());
    assert_eq!(crm.ask(odd).await.wrong(), ("Content-Disposition", "malformed"));
    assert_eq!(kept(&crm).await, 0);
}
