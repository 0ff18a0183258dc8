//! Faults on demand: each does what it says, and only that.

use std::time::{Duration, Instant};

use axum::http::Method;
use hookswitch::sandbox::Outcome;
use serde_json::json;

use super::{Receiver, Twin, answer};

async fn put(twin: &Twin, faults: serde_json::Value) {
    answer(twin.request(Method::PUT, "/sandbox/v1/faults").json(&faults))
        .await
        .expect_ok(200);
}

#[tokio::test]
async fn the_next_requests_that_match_are_answered_with_the_fault() {
    let twin = Twin::start().await;
    let fault = json!({"method": "POST", "path": "/v1/Services/*/Conversations", "status": 429, "times": 2});
    put(&twin, json!({"rest": [fault]})).await;
    twin.get("/Conversations").await;
    assert_eq!(twin.post("/Conversations", &[]).await.code(), 20429);
    assert_eq!(twin.post("/Conversations", &[]).await.code(), 20429);
    twin.post("/Conversations", &[]).await.expect_ok(201);
    assert_eq!(twin.sandbox.conversations().len(), 1);
    assert_eq!(twin.get("/sandbox/v1/faults").await["rest"][0]["times"], 0);
    assert_eq!(twin.delete("/sandbox/v1/faults").await.status, 204);
    assert_eq!(twin.get("/sandbox/v1/faults").await["rest"], json!([]));
}

#[tokio::test]
async fn a_connection_is_cut_before_the_effect_or_after_it() {
    let twin = Twin::start().await;
    let create = |fault: &str| {
        twin.request(Method::POST, "/Conversations")
            .header("X-Sandbox-Fault", fault)
    };
    let begun = Instant::now();
    assert!(create("timeout, hold=100").send().await.is_err());
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!(twin.sandbox.conversations().len(), 0);
    assert!(create("timeout, after").send().await.is_err());
    assert_eq!(twin.sandbox.conversations().len(), 1);
    let failed = answer(create("503, after")).await;
    assert_eq!((failed.code(), twin.sandbox.conversations().len()), (20503, 2));
    assert_eq!(answer(create("explode")).await.code(), 20001);
}

#[tokio::test]
async fn webhooks_are_lost_and_doubled_as_told() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    twin.tell(&receiver, &["onConversationAdded"]).await;
    put(
        &twin,
        json!({"webhooks": [{"action": "lose", "times": 1}, {"action": "double", "times": 1}]}),
    )
    .await;
    for name in ["lost", "doubled", "plain"] {
        twin.post_told("/Conversations", &[("FriendlyName", name)])
            .await
            .expect_ok(201);
        twin.sandbox.settled().await;
    }
    let told = receiver.take();
    let names: Vec<_> = told.iter().filter_map(|hook| hook.get("FriendlyName")).collect();
    assert_eq!(names, ["doubled", "doubled", "plain"]);
    assert_ne!(told[0].idempotency_token, told[1].idempotency_token);
    assert_eq!(twin.sandbox.attempts()[0].outcome, Outcome::Lost);
}

#[tokio::test]
async fn a_webhook_is_overtaken_by_the_next_one_of_its_conversation() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    let conversation = twin.group("agent-7").await;
    twin.tell(&receiver, &["onMessageAdded"]).await;
    put(
        &twin,
        json!({"webhooks": [{"action": "reorder", "ms": 5000, "times": 1}]}),
    )
    .await;
    for body in ["first", "second", "third"] {
        let form = [("Author", "agent-7"), ("Body", body)];
        twin.post_told(&format!("/Conversations/{conversation}/Messages"), &form)
            .await
            .expect_ok(201);
    }
    let begun = Instant::now();
    twin.sandbox.settled().await;
    let told = receiver.take();
    let bodies: Vec<_> = told.iter().filter_map(|hook| hook.get("Body")).collect();
    assert_eq!(bodies, ["second", "first", "third"]);
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn a_delayed_webhook_comes_late_and_in_order() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    twin.tell(&receiver, &["onConversationAdded"]).await;
    let begun = Instant::now();
    let request = twin
        .request(Method::POST, "/Conversations")
        .header("X-Twilio-Webhook-Enabled", "true");
    answer(request.header("X-Sandbox-Fault", "delay-webhooks=1500"))
        .await
        .expect_ok(201);
    assert!(begun.elapsed() < Duration::from_millis(1500));
    twin.sandbox.settled().await;
    assert!(begun.elapsed() >= Duration::from_millis(1500));
    assert_eq!(receiver.take().len(), 1);
}

#[tokio::test]
async fn faults_that_cannot_be_leave_those_in_force() {
    let twin = Twin::start().await;
    put(&twin, json!({"failing_setups": 3})).await;
    for wrong in [
        json!({"rest": [{"status": 404}]}),
        json!({"webhooks": [{"action": "explode"}]}),
        json!({"unknown": 1}),
    ] {
        let refused = answer(twin.request(Method::PUT, "/sandbox/v1/faults").json(&wrong)).await;
        assert_eq!(refused.code(), 20001, "{wrong}");
    }
    assert_eq!(twin.sandbox.faults().failing_setups, 3);
}

#[tokio::test]
async fn numbers_can_be_given_back_and_taken() {
    let twin = Twin::start().await;
    twin.configure_address(super::LINE).await;
    let path = "/sandbox/v1/numbers/%2B15017122661";
    assert_eq!(twin.delete(path).await.status, 204);
    assert_eq!(twin.delete(path).await.code(), 20404);
    assert_eq!(
        twin.found(&[super::ANN, super::BOB], "agent-7").await.code(),
        50439
    );
    let addresses = twin.get("/v1/Configuration/Addresses").await;
    assert_eq!(addresses["address_configurations"], json!([]));
    let owned = answer(twin.request(Method::PUT, path)).await.expect_ok(200);
    assert_eq!(owned["numbers"], json!(["+15017122661", "+15017122662"]));
    twin.found(&[super::ANN, super::BOB], "agent-7")
        .await
        .expect_ok(202);
}
