//! What does not verify, or is no webhook at all: refused, counted, and nothing of it kept.

use std::time::Duration;

use hookswitch::inbox::receive::BODY_LIMIT;
use hookswitch::twilio::signature;
use reqwest::RequestBuilder;
use reqwest::header::{ALLOW, CONTENT_TYPE, HOST};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::support::app::{BUYER, TOKEN, TestApp, http};
use crate::support::sql::count;
use crate::support::webhook::{FORM, PATH, SIGNATURE, Webhook, answer};

async fn nothing_is_kept(app: &TestApp) {
    for table in ["webhook", "quarantined_webhook", "message"] {
        assert_eq!(count(app.pool(), table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn what_the_account_did_not_sign_is_refused_and_the_answer_does_not_tell_why() {
    let app = TestApp::start().await;
    let good = Webhook::message(1, 0);
    let url = format!("{}{PATH}", app.url);
    let signed_as = |signature: String| good.unsigned(&app.url).header(SIGNATURE, signature);
    let right = good.signature(&url);
    let elsewhere = |base: &str| good.signature(&format!("{base}{PATH}"));
    let with_query = |query: &str| {
        http()
            .post(format!("{url}{query}"))
            .header(CONTENT_TYPE, FORM)
            .header(SIGNATURE, right.clone())
            .body(good.encoded())
    };
    let other_account = good
        .clone()
        .with("AccountSid", "AC00000000000000000000000000000099");
    let two_accounts = {
        let mut two = other_account.clone();
        two.0.extend(good.0.clone());
        two
    };

    let cases: Vec<(&str, RequestBuilder)> = vec![
        ("no signature", good.unsigned(&app.url)),
        ("a blank signature", signed_as(String::new())),
        ("no base64", signed_as("not base64!".to_owned())),
        ("a prefix of the signature", signed_as(right[..16].to_owned())),
        ("more than the signature", signed_as(format!("{right}{right}"))),
        (
            "another token",
            signed_as(signature::sign("another-token", &url, &good.0)),
        ),
        ("no token", signed_as(signature::sign("", &url, &good.0))),
        ("the URL alone", signed_as(signature::sign(TOKEN, &url, &[]))),
        (
            "two signatures, both right",
            signed_as(right.clone()).header(SIGNATURE, right.clone()),
        ),
        (
            "two signatures, the first right",
            signed_as(right.clone()).header(SIGNATURE, "AAAA"),
        ),
        ("an unknown account", other_account.request(&app.url)),
        ("two accounts", two_accounts.request(&app.url)),
        ("no account", good.clone().without("AccountSid").request(&app.url)),
        (
            "an account that is none",
            good.clone().with("AccountSid", "AC1").request(&app.url),
        ),
        (
            "another path",
            signed_as(good.signature(&format!("{}/webhooks/twilio", app.url))),
        ),
        (
            "a path with a slash more",
            signed_as(good.signature(&format!("{url}/"))),
        ),
        ("another host", signed_as(elsewhere("http://attacker.example"))),
        (
            "another scheme",
            signed_as(elsewhere(&app.url.replace("http:", "https:"))),
        ),
        (
            "another host that the request names",
            signed_as(elsewhere("http://attacker.example"))
                .header(HOST, "attacker.example")
                .header("x-forwarded-host", "attacker.example")
                .header("forwarded", "host=attacker.example"),
        ),
        (
            "another scheme that the request names",
            signed_as(elsewhere(&app.url.replace("http:", "https:"))).header("x-forwarded-proto", "https"),
        ),
        ("a query that was not signed", with_query("?source=twilio")),
        (
            "a field more",
            signed_as(right.clone()).body(good.clone().with("Body", "Sell everything").encoded()),
        ),
        (
            "a repeated field",
            signed_as(right.clone()).body(format!("{}&Author=maya", good.encoded())),
        ),
        (
            "a POST's signature on a GET",
            http()
                .get(format!("{url}?{}", good.encoded()))
                .header(SIGNATURE, right.clone()),
        ),
        ("an empty body", signed_as(right.clone()).body("")),
    ];
    let mut bodies = Vec::new();
    for (what, request) in cases {
        let refused = answer(request).await;
        assert_eq!(refused.status, 403, "{what}");
        assert_eq!(refused.problem(), "signature_refused", "{what}");
        bodies.push(refused.body);
    }
    bodies.dedup();
    assert_eq!(bodies.len(), 1, "the answers differ: {bodies:?}");
    nothing_is_kept(&app).await;

    // Nothing of that stands in the way of the good one.
    assert_eq!(good.send(&app.url).await.status, 200);
}

#[tokio::test]
async fn what_is_no_webhook_is_refused_by_what_is_wrong_with_it() {
    let app = TestApp::start().await;
    let good = Webhook::message(1, 0);
    let url = format!("{}{PATH}", app.url);
    let with_body = |content_type: &str, body: Vec<u8>| {
        http()
            .post(&url)
            .header(SIGNATURE, good.signature(&url))
            .header(CONTENT_TYPE, content_type)
            .body(body)
    };
    let json = serde_json::json!({ "EventType": "onMessageAdded" }).to_string();
    let cases: Vec<(&str, u16, &str, RequestBuilder)> = vec![
        (
            "JSON",
            415,
            "unsupported_media_type",
            with_body("application/json", json.into_bytes()),
        ),
        (
            "a media type that only begins like the right one",
            415,
            "unsupported_media_type",
            with_body(
                "application/x-www-form-urlencoded-not",
                good.encoded().into_bytes(),
            ),
        ),
        (
            "no media type",
            415,
            "unsupported_media_type",
            http()
                .post(&url)
                .header(SIGNATURE, good.signature(&url))
                .body(good.encoded()),
        ),
        (
            "a byte too many",
            413,
            "too_large",
            with_body(FORM, vec![b'a'; BODY_LIMIT + 1]),
        ),
        (
            "bytes that are not UTF-8",
            400,
            "malformed",
            with_body(FORM, b"Body=%ff%fe".to_vec()),
        ),
        (
            "a field too many",
            400,
            "malformed",
            with_body(FORM, "a=1&".repeat(1001).into_bytes()),
        ),
        (
            "a GET with a body",
            400,
            "malformed",
            good.get(&app.url).body("Body=more"),
        ),
        (
            "PUT",
            405,
            "method_not_allowed",
            http().put(&url).body(good.encoded()),
        ),
        ("DELETE", 405, "method_not_allowed", http().delete(&url)),
    ];
    for (what, status, problem, request) in cases {
        let refused = answer(request).await;
        assert_eq!(refused.status, status, "{what}: {}", refused.body);
        assert_eq!(refused.problem(), problem, "{what}");
        assert_eq!(
            refused.headers.get(ALLOW).map(|allow| allow.to_str().unwrap()),
            (status == 405).then_some("GET, POST"),
            "{what}"
        );
    }
    nothing_is_kept(&app).await;

    // The limit itself is allowed, and so is a character set.
    let fill = BODY_LIMIT - good.clone().with("Attributes", "").encoded().len();
    let largest = good.with("Attributes", &"a".repeat(fill));
    assert_eq!(largest.encoded().len(), BODY_LIMIT);
    let request = largest
        .request(&app.url)
        .header("content-type", format!("{FORM}; charset=utf-8"));
    // `header` appends; the first one counts.
    assert_eq!(answer(request).await.status, 200);
}

#[tokio::test]
async fn a_body_that_does_not_end_is_refused_while_it_is_read() {
    let app = TestApp::start().await;
    let address = app.url.strip_prefix("http://").unwrap();
    let half_a_mebibyte = vec![b'a'; 512 * 1024];
    for length in ["content-length: 1000000000", "transfer-encoding: chunked"] {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let head = format!("POST {PATH} HTTP/1.1\r\nhost: h\r\ncontent-type: {FORM}\r\n{length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        if length.ends_with("chunked") {
            stream.write_all(b"80000\r\n").await.unwrap();
        }
        // The server may have answered, and closed, before it has taken everything.
        stream.write_all(&half_a_mebibyte).await.ok();
        let mut begin = [0; 12];
        timeout(Duration::from_secs(5), stream.read_exact(&mut begin))
            .await
            .expect("an answer while the body is still coming")
            .unwrap();
        assert_eq!(&begin, b"HTTP/1.1 413", "{length}");
    }
    nothing_is_kept(&app).await;
}

#[tokio::test]
async fn refusals_are_counted_by_reason_and_nothing_personal_is_in_the_metrics() {
    let app = TestApp::start().await;
    let webhook = Webhook::message(1, 0);
    assert_eq!(answer(webhook.unsigned(&app.url)).await.status, 403);
    assert_eq!(
        answer(webhook.unsigned(&app.url).header(SIGNATURE, "AAAA"))
            .await
            .status,
        403
    );
    assert_eq!(webhook.send(&app.url).await.status, 200);
    app.app.projector.run_until_idle().await.unwrap();

    let metrics = answer(http().get(format!("{}/metrics", app.url))).await.body;
    for line in [
        "hookswitch_webhooks_refused_total{reason=\"signature_missing\"}",
        "hookswitch_webhooks_refused_total{reason=\"signature_malformed\"}",
        "hookswitch_webhooks_total{outcome=\"new\"}",
        "hookswitch_webhooks_projected_total",
        "hookswitch_database_up 1",
    ] {
        assert!(metrics.contains(line), "{line} is not in {metrics}");
    }
    for secret in [BUYER, &BUYER[1..], "garden", TOKEN] {
        assert!(!metrics.contains(secret), "{secret} is in {metrics}");
    }
}
