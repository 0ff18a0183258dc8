//! What is let in without proof: an observed account's webhooks, into quarantine; and the question before a change, which
//! is always answered yes.

use std::time::{Duration, Instant};

use hookswitch::config::SignatureMode;
use reqwest::header::CONTENT_TYPE;
use tokio::net::TcpListener;

use super::{beside, serve};
use crate::support::app::{TestApp, Wanted, http};
use crate::support::sql::{count, execute, value};
use crate::support::webhook::{FORM, SIGNATURE, Webhook, answer};

const PRE_ACTION: &str = "/webhooks/twilio/pre-action";

async fn observing() -> TestApp {
    TestApp::start_with(Wanted {
        signatures: SignatureMode::Observe,
        ..Wanted::default()
    })
    .await
}

#[tokio::test]
async fn an_observed_accounts_unverified_webhooks_go_into_quarantine_and_no_further() {
    let app = observing().await;
    let forged = Webhook::message(1, 0);
    assert_eq!(answer(forged.unsigned(&app.url)).await.status, 200);
    let wrong = forged.unsigned(&app.url).header(SIGNATURE, "AAAA");
    assert_eq!(answer(wrong).await.status, 200);

    app.settle().await;
    for table in ["webhook", "message", "conversation", "event"] {
        assert_eq!(count(app.pool(), table).await, 0, "{table}");
    }
    let kept = "select string_agg(refusal, ' ' order by quarantined_webhook_id) from quarantined_webhook";
    assert_eq!(
        value(app.pool(), kept).await.as_deref(),
        Some("signature_missing signature_malformed")
    );

    // What verifies is taken as ever, the very webhook that was quarantined too.
    assert_eq!(forged.send(&app.url).await.status, 200);
    app.app.projector.run_until_idle().await.unwrap();
    assert_eq!(count(app.pool(), "message").await, 1);
}

#[tokio::test]
async fn an_unknown_account_is_refused_where_others_are_observed() {
    let app = observing().await;
    let stranger = Webhook::message(1, 0).with("AccountSid", "AC00000000000000000000000000000099");
    assert_eq!(answer(stranger.unsigned(&app.url)).await.status, 403);
    assert_eq!(count(app.pool(), "quarantined_webhook").await, 0);
}

#[tokio::test]
async fn the_quarantine_does_not_grow_for_ever() {
    let app = observing().await;
    execute(
        app.pool(),
        "insert into quarantined_webhook (received_at, account_sid, method, form, refusal)
         select now(), 'AC', 'POST', '', 'signature_missing' from generate_series(1, 9999)",
    )
    .await;
    for number in 0..3 {
        let forged = Webhook::message(1, number).unsigned(&app.url);
        assert_eq!(answer(forged).await.status, 200);
    }
    assert_eq!(count(app.pool(), "quarantined_webhook").await, 10_000);
}

#[tokio::test]
async fn the_question_before_a_change_is_there_only_if_it_is_wanted() {
    let app = TestApp::start().await;
    let asked = answer(
        http()
            .post(format!("{}{PRE_ACTION}", app.url))
            .body("EventType=onMessageAdd"),
    )
    .await;
    assert_eq!(asked.status, 404);
    let wanted = beside(&app, |config| config.http.pre_action_hook = true).await;
    let asked = answer(
        http()
            .post(format!("{}{PRE_ACTION}", wanted.url))
            .body("EventType=onMessageAdd"),
    )
    .await;
    assert_eq!((asked.status, asked.body.as_str()), (200, ""));
}

#[tokio::test]
async fn a_change_proceeds_whatever_is_asked_and_whatever_the_database_does() {
    let app = TestApp::start().await;
    // It takes connections and never says a word, as a frozen one does.
    let frozen = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let options = app
        .database
        .options
        .clone()
        .host("127.0.0.1")
        .port(frozen.local_addr().unwrap().port());
    let mut config = app.config.clone();
    config.http.pre_action_hook = true;
    let service = serve(config, options, &app).await;

    let url = format!("{}{PRE_ACTION}", service.url);
    let post =
        |content_type: &str, body: Vec<u8>| http().post(&url).header(CONTENT_TYPE, content_type).body(body);
    let cases = [
        (
            "a question",
            post(FORM, Webhook::new("onMessageAdd", &[]).encoded().into_bytes()),
        ),
        ("no form", post("application/json", b"{".to_vec())),
        ("no text", post(FORM, vec![0xff; 100])),
        ("more than is read", post(FORM, vec![b'a'; 300 * 1024])),
        ("nothing", http().post(&url)),
        ("a GET", http().get(format!("{url}?EventType=onMessageAdd"))),
    ];
    for (what, request) in cases {
        let begun = Instant::now();
        let asked = answer(request).await;
        assert_eq!((asked.status, asked.body.as_str()), (200, ""), "{what}");
        assert!(
            begun.elapsed() < Duration::from_secs(1),
            "{what}: {:?}",
            begun.elapsed()
        );
    }
}
