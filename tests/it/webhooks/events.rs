//! Event Streams through real HTTP: verified by the hash of the body, kept event by event, and projected as webhooks are.

use hookswitch::config::SignatureMode;
use hookswitch::inbox::receive::BODY_LIMIT;
use hookswitch::twilio::event_stream::MAX_EVENTS;
use hookswitch::twilio::signature;
use reqwest::header::{ALLOW, CONTENT_TYPE, HeaderMap};
use serde_json::{Value, json};

use crate::support::app::{ACCOUNT, BUYER, TOKEN, TestApp, Wanted};
use crate::support::event::{self, PATH};
use crate::support::sql::{count, value, values};
use crate::support::webhook::{Answer, SIGNATURE, Webhook, answer, client, sid};

fn message(conversation: usize, index: usize) -> Value {
    event::of(&Webhook::message(conversation, index).0).unwrap()
}

async fn send(app: &TestApp, body: &str) -> Answer {
    answer(event::request(&client(), &app.url, body)).await
}

async fn states(app: &TestApp) -> Vec<String> {
    let sql = "select concat_ws(': ', state, reason) from webhook_state order by webhook_id";
    values(app.pool(), sql).await
}

#[tokio::test]
async fn the_events_of_a_body_are_kept_one_by_one_and_mirrored() {
    let app = TestApp::start().await;
    let body = json!([message(1, 1), message(1, 2), message(2, 1)]).to_string();
    assert_eq!(send(&app, &body).await.status, 200);
    assert_eq!(count(app.pool(), "webhook where format = 'cloud_event'").await, 3);
    assert_eq!(app.app.projector.run_until_idle().await.unwrap(), 3);
    assert_eq!(count(app.pool(), "message").await, 3);
    let body = format!(
        "select body from message where message_sid = '{}'",
        sid("IM", 100_002)
    );
    assert_eq!(
        value(app.pool(), &body).await.as_deref(),
        Some("Is the garden south-facing? (2)")
    );

    // One alone, too.
    assert_eq!(send(&app, &message(2, 2).to_string()).await.status, 200);
    app.app.projector.run_until_idle().await.unwrap();
    assert_eq!(count(app.pool(), "message").await, 4);
}

#[tokio::test]
async fn an_event_counts_once_by_its_id_however_often_and_beside_whatever_it_comes() {
    let app = TestApp::start().await;
    let one = message(1, 1);
    send(&app, &json!([one, one]).to_string()).await;
    send(&app, &json!([one, message(1, 2)]).to_string()).await;
    send(&app, &one.to_string()).await;
    assert_eq!(count(app.pool(), "webhook").await, 2);
}

#[tokio::test]
async fn what_a_webhook_and_an_event_both_say_changes_the_mirror_once() {
    let app = TestApp::start().await;
    let webhook = Webhook::message(1, 1).with("Attributes", "{ \"crm\":\n[1, 2] }");
    let event = event::of(&webhook.0).unwrap().to_string();
    for webhook_first in [true, false] {
        if webhook_first {
            webhook.send(&app.url).await;
        }
        send(&app, &event).await;
        app.app.projector.run_until_idle().await.unwrap();
        webhook.send(&app.url).await;
        app.app.projector.run_until_idle().await.unwrap();
        assert_eq!(states(&app).await, ["projected", "projected"]);
        assert_eq!(count(app.pool(), "event where type like 'message.%'").await, 1);
        // Neither is in doubt; only the conversation, which nobody told of, is read.
        assert_eq!(count(app.pool(), "task").await, 1);
        let attributes = value(app.pool(), "select attributes from message").await;
        assert_eq!(attributes.as_deref(), Some("{ \"crm\":\n[1, 2] }"));
        crate::support::tables::empty(&app).await;
    }
}

#[tokio::test]
async fn one_event_that_says_nothing_sensible_takes_no_other_with_it() {
    let app = TestApp::start().await;
    let mut without_index = message(1, 2);
    without_index["data"].as_object_mut().unwrap().remove("Index");
    let mut unknown = message(1, 3);
    unknown["type"] = "com.twilio.conversations.typing.started".into();
    let body = json!([message(1, 1), 7, without_index, {}, unknown, message(1, 4)]).to_string();
    assert_eq!(send(&app, &body).await.status, 200);
    app.app.projector.run_until_idle().await.unwrap();
    let mut states = states(&app).await;
    states.sort();
    assert_eq!(
        states,
        [
            "projected",
            "projected",
            "projected",
            "set_aside: `AccountSid` is missing or not an account's SID",
            "set_aside: `Index` is missing or not a whole number",
            "set_aside: the event is not a JSON object",
        ]
    );
    assert_eq!(count(app.pool(), "message").await, 2);

    // Complete after all, under the same id.
    assert_eq!(send(&app, &message(1, 2).to_string()).await.status, 200);
    app.app.projector.run_until_idle().await.unwrap();
    assert_eq!(count(app.pool(), "message").await, 3);
}

#[tokio::test]
async fn no_text_keeps_an_event_out_of_the_mirror() {
    let app = TestApp::start().await;
    let text = message(1, 1).to_string();
    for (number, odd) in ["\\u0000", "\\ud800", "\\udc00\\ud83d", "\\u202e \\u000b"]
        .iter()
        .enumerate()
    {
        let text = text
            .replace("south-facing", odd)
            .replace(&sid("IM", 100_001), &sid("IM", 200_000 + number))
            .replace("\"id\":\"EZ", &format!("\"id\":\"{number}"));
        let text = text.replace(BUYER, odd).replace(
            "\"Attributes\":{}",
            &format!("\"Attributes\":{{\"a\":\"{odd}\"}}"),
        );
        assert_eq!(send(&app, &text).await.status, 200, "{odd}");
        app.app.projector.run_until_idle().await.unwrap();
        assert_eq!(count(app.pool(), "message").await, number + 1, "{odd}");
    }
    assert_eq!(
        count(app.pool(), "webhook_state where state <> 'projected'").await,
        0
    );
}

#[tokio::test]
async fn what_does_not_verify_is_refused_alike_and_not_kept() {
    let app = TestApp::start().await;
    let body = message(1, 1).to_string();
    let url = format!("{}{PATH}", app.url);
    let hashed = signature::url_with_body_hash(&url, body.as_bytes());
    let post = |url: &str, token: &str, body: &str| {
        client()
            .post(url)
            .header(CONTENT_TYPE, "application/json")
            .header(SIGNATURE, signature::sign(token, url, &[]))
            .body(body.to_owned())
    };
    let stranger = body.replace(ACCOUNT, "AC00000000000000000000000000000099");
    let mixed = format!("[{body},{stranger}]");
    let nobody = r#"[{"specversion":"1.0","type":"com.twilio.conversations.message.added","id":"EZ1"}]"#;
    let requests = [
        client()
            .post(&hashed)
            .header(CONTENT_TYPE, "application/json")
            .body(body.clone()),
        post(&hashed, "another-token", &body),
        post(&hashed, TOKEN, &body.replace("south", "north")),
        post(&url, TOKEN, &body),
        event::request(&client(), &app.url, &stranger),
        event::request(&client(), &app.url, &mixed),
        event::request(&client(), &app.url, nobody),
        event::request(&client(), &app.url, "[]"),
        event::request(&client(), &app.url, &body).header(SIGNATURE, "AAAA"),
    ];
    let mut answers = Vec::new();
    for request in requests {
        let refused = answer(request).await;
        assert_eq!(refused.status, 403);
        assert_eq!(refused.problem(), "signature_refused");
        answers.push(refused.body);
    }
    answers.dedup();
    assert_eq!(answers.len(), 1);
    assert_eq!(count(app.pool(), "webhook").await, 0);
}

#[tokio::test]
async fn what_is_no_body_of_events_is_refused_with_what_is_wrong() {
    let app = TestApp::start().await;
    for body in ["", "EventType=onMessageAdded", "7", "[{}"] {
        let refused = send(&app, body).await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (400, "malformed"),
            "{body}"
        );
    }
    let many = format!("[{}]", vec!["{}"; MAX_EVENTS + 1].join(","));
    assert_eq!(send(&app, &many).await.status, 400);
    let large = json!([message(1, 1), "x".repeat(BODY_LIMIT)]).to_string();
    assert_eq!(send(&app, &large).await.status, 413);

    let body = message(1, 1).to_string();
    for media_type in ["application/x-www-form-urlencoded", "text/json", ""] {
        let given = HeaderMap::from_iter([(CONTENT_TYPE, media_type.parse().unwrap())]);
        let refused = answer(event::request(&client(), &app.url, &body).headers(given)).await;
        assert_eq!(
            (refused.status, refused.problem().as_str()),
            (415, "unsupported_media_type")
        );
    }
    let get = answer(client().get(format!("{}{PATH}", app.url))).await;
    assert_eq!(get.status, 405);
    assert_eq!(get.headers[ALLOW], "POST");
    assert_eq!(count(app.pool(), "webhook").await, 0);
}

#[tokio::test]
async fn an_observed_accounts_unverified_events_go_into_quarantine() {
    let app = TestApp::start_with(Wanted {
        signatures: SignatureMode::Observe,
        ..Wanted::default()
    })
    .await;
    let forged = client()
        .post(format!("{}{PATH}", app.url))
        .header(CONTENT_TYPE, "application/json")
        .body(message(1, 1).to_string());
    assert_eq!(answer(forged).await.status, 200);
    assert_eq!(count(app.pool(), "webhook").await, 0);
    let kept = value(app.pool(), "select refusal from quarantined_webhook").await;
    assert_eq!(kept.as_deref(), Some("signature_missing"));
}

#[tokio::test]
async fn a_well_formed_webhook_is_no_duplicate_of_an_ill_formed_one() {
    let app = TestApp::start().await;
    Webhook::message(1, 1).with("Index", "first").send(&app.url).await;
    Webhook::message(1, 1).send(&app.url).await;
    app.app.projector.run_until_idle().await.unwrap();
    let mut states = states(&app).await;
    states.sort();
    assert_eq!(
        states,
        ["projected", "set_aside: `Index` is missing or not a whole number"]
    );
    assert_eq!(count(app.pool(), "message").await, 1);
}

#[tokio::test]
async fn a_value_that_cannot_be_read_is_read_at_twilio() {
    let app = TestApp::start().await;
    Webhook::message(1, 1)
        .with("Media", "no JSON")
        .send(&app.url)
        .await;
    app.app.projector.run_until_idle().await.unwrap();
    let keys = "select string_agg(unique_key, ' ' order by unique_key) from task where kind = 'mirror.read'";
    let wanted = format!("{} {}", sid("CH", 1), sid("IM", 100_001));
    assert_eq!(value(app.pool(), keys).await, Some(wanted));
}
