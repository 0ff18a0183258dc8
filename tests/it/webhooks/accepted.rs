//! What verifies is kept: once, byte for byte, however it is spelled and however often it comes.

use futures_util::future::join_all;
use hookswitch::config::PublicBaseUrl;
use hookswitch::twilio::signature;
use percent_encoding::{AsciiSet, percent_encode};
use reqwest::header::HOST;
use secrecy::SecretString;

use super::beside;
use crate::support::app::{TOKEN, TestApp};
use crate::support::sql::{count, value, values};
use crate::support::webhook::{PATH, SIGNATURE, Webhook, answer, sid};

const PUBLIC: &str = "https://hooks.example.com";

#[tokio::test]
async fn a_post_is_kept_byte_for_byte_and_projected() {
    let app = TestApp::start().await;
    let webhook = Webhook::message(1, 0);
    let given = answer(
        webhook
            .request(&app.url)
            .header("i-twilio-idempotency-token", "4b1f"),
    )
    .await;
    assert_eq!((given.status, given.body.as_str()), (200, ""));

    let kept = "select convert_from(form, 'utf8') from webhook";
    assert_eq!(value(app.pool(), kept).await, Some(webhook.encoded()));
    let judged =
        "select concat_ws(' ', method, event_type, conversation_sid, token_index, idempotency_token, state)
        from webhook join webhook_state using (webhook_id)";
    let expected = format!("POST onMessageAdded {} 0 4b1f pending", sid("CH", 1));
    assert_eq!(value(app.pool(), judged).await, Some(expected));

    assert_eq!(app.app.projector.run_until_idle().await.unwrap(), 1);
    let message = format!(
        "message where message_sid = '{}' and body like 'Is the%'",
        sid("IM", 100_000)
    );
    assert_eq!(count(app.pool(), &message).await, 1);
    assert_eq!(
        count(app.pool(), "webhook_state where state = 'projected'").await,
        1
    );
}

#[tokio::test]
async fn a_get_has_its_fields_in_the_query() {
    let app = TestApp::start().await;
    let webhook = Webhook::message(1, 0);
    assert_eq!(answer(webhook.get(&app.url)).await.status, 200);
    let kept = "select method || ' ' || convert_from(form, 'utf8') from webhook";
    assert_eq!(
        value(app.pool(), kept).await,
        Some(format!("GET {}", webhook.encoded()))
    );
    assert_eq!(app.app.projector.run_until_idle().await.unwrap(), 1);
    assert_eq!(count(app.pool(), "message").await, 1);

    // The same one by POST, as after a change of Twilio's settings in the middle of a retry.
    assert_eq!(webhook.send(&app.url).await.status, 200);
    assert_eq!(count(app.pool(), "webhook").await, 1);
}

#[tokio::test]
async fn twenty_copies_at_once_are_one_webhook_and_all_are_answered_200() {
    let app = TestApp::start().await;
    let webhook = Webhook::message(1, 0);
    let answers = join_all((0..20).map(|_| webhook.send(&app.url))).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
    assert_eq!(count(app.pool(), "webhook").await, 1);
    app.app.projector.run_until_idle().await.unwrap();
    assert_eq!(webhook.send(&app.url).await.status, 200);
    assert_eq!(
        count(app.pool(), "webhook_state where state = 'projected'").await,
        1
    );
}

#[tokio::test]
async fn a_copy_that_is_spelled_otherwise_is_the_same_webhook() {
    let app = TestApp::start().await;
    let webhook = Webhook::message(1, 0);
    assert_eq!(webhook.send(&app.url).await.status, 200);

    let retried = webhook.clone().with("RetryCount", "3");
    let mut reversed = webhook.clone();
    reversed.0.reverse();
    let mut doubled = webhook.clone();
    doubled.0.extend(webhook.0.clone());
    for copy in [&retried, &reversed, &doubled] {
        assert_eq!(copy.send(&app.url).await.status, 200);
    }
    let spelled_out = answer(webhook.request(&app.url).body(percent_encoded(&webhook))).await;
    assert_eq!(spelled_out.status, 200);
    assert_eq!(count(app.pool(), "webhook").await, 1);

    // One that says something else is another one.
    let other = Webhook::message(1, 1);
    assert_eq!(other.send(&app.url).await.status, 200);
    assert_eq!(count(app.pool(), "webhook").await, 2);
}

/// Every byte of every value as `%XX`.
fn percent_encoded(webhook: &Webhook) -> String {
    let fields: Vec<String> = webhook
        .0
        .iter()
        .map(|(key, value)| format!("{key}={}", percent_encode(value.as_bytes(), &EVERYTHING)))
        .collect();
    fields.join("&")
}

const EVERYTHING: AsciiSet = AsciiSet::EMPTY.complement();

#[tokio::test]
async fn headers_that_name_another_host_break_no_good_request() {
    let app = TestApp::start().await;
    for (number, (name, text)) in [
        ("host", "attacker.example"),
        ("x-forwarded-host", "attacker.example"),
        ("x-forwarded-proto", "https"),
        ("x-forwarded-port", "9999"),
        ("forwarded", "host=attacker.example;proto=https"),
        ("x-original-url", "/elsewhere"),
    ]
    .into_iter()
    .enumerate()
    {
        let request = Webhook::message(1, number).request(&app.url).header(name, text);
        assert_eq!(answer(request).await.status, 200, "{name}");
    }
}

#[tokio::test]
async fn the_public_address_is_what_is_signed_with_or_without_its_default_port() {
    let app = TestApp::start().await;
    let public = beside(&app, |config| {
        config.http.public_base_url = PublicBaseUrl::try_from(PUBLIC).unwrap();
    })
    .await;
    let signed_for = async |number: usize, base: &str| {
        let webhook = Webhook::message(1, number);
        let signature = webhook.signature(&format!("{base}{PATH}"));
        let request = webhook
            .unsigned(&public.url)
            .header(SIGNATURE, signature)
            .header(HOST, "hooks.example.com");
        answer(request).await.status
    };
    assert_eq!(signed_for(0, PUBLIC).await, 200);
    assert_eq!(signed_for(1, &format!("{PUBLIC}:443")).await, 200);
    assert_eq!(signed_for(2, &format!("{PUBLIC}:8443")).await, 403);
    assert_eq!(signed_for(3, "http://hooks.example.com").await, 403);
    assert_eq!(signed_for(4, &public.url).await, 403);
    // Which spelling it was is on record, for who wants to know what Twilio does.
    let candidates = values(
        app.pool(),
        "select url_candidate from webhook order by webhook_id",
    )
    .await;
    assert_eq!(candidates.len(), 2);
    assert_ne!(candidates[0], candidates[1]);
}

#[tokio::test]
async fn while_a_token_is_rotated_both_sign_and_which_one_is_recorded() {
    let app = TestApp::start().await;
    let rotating = beside(&app, |config| {
        let tokens = &mut config.twilio.accounts[0].auth_tokens;
        tokens.insert(0, SecretString::from("the-next-token"));
    })
    .await;
    let signed_by = async |number: usize, token: &str| {
        let webhook = Webhook::message(1, number);
        let signature = signature::sign(token, &format!("{}{PATH}", app.url), &webhook.0);
        let request = webhook.unsigned(&rotating.url).header(SIGNATURE, signature);
        answer(request).await.status
    };
    assert_eq!(signed_by(0, TOKEN).await, 200);
    assert_eq!(signed_by(1, "the-next-token").await, 200);
    assert_eq!(signed_by(2, "the-token-before").await, 403);
    let used = values(
        app.pool(),
        "select token_index::text from webhook order by webhook_id",
    )
    .await;
    assert_eq!(used, ["1", "0"]);
}
