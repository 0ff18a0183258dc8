//! Webhooks: which are sent, to whom, what is in them, and what an answer does.

use std::time::Duration;

use axum::http::Method;
use hookswitch::sandbox::Outcome;

use super::{ANN, BOB, LINE, Receiver, Twin, sid};

#[tokio::test]
async fn a_webhook_is_a_signed_form_with_the_fields_of_its_event() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    let conversation = twin.group("agent-7").await;
    twin.tell(&receiver, &["onMessageAdded"]).await;
    let body = "caf\u{e9} & \u{1f44d}  ";
    let form = [
        ("Author", "agent-7"),
        ("Body", body),
        ("Attributes", r#"{"cid":"1"}"#),
    ];
    let message = twin
        .post_told(&format!("/Conversations/{conversation}/Messages"), &form)
        .await
        .expect_ok(201);
    twin.sandbox.settled().await;

    let told = receiver.take();
    let [hook] = told.as_slice() else {
        panic!("one webhook, not {}", told.len())
    };
    assert!(hook.signed);
    assert_eq!(
        hook.content_type,
        "application/x-www-form-urlencoded; charset=UTF-8"
    );
    assert_eq!(hook.idempotency_token.len(), 36);
    assert_eq!(
        hook.keys(),
        [
            "AccountSid",
            "Attributes",
            "Author",
            "Body",
            "ChatServiceSid",
            "ConversationSid",
            "DateCreated",
            "EventType",
            "Index",
            "MessageSid",
            "MessagingServiceSid",
            "ParticipantSid",
            "RetryCount",
            "Source",
        ]
    );
    assert_eq!(hook.get("Body"), Some(body));
    assert_eq!(hook.get("MessageSid"), message["sid"].as_str());
    assert_eq!(hook.get("DateCreated"), Some("2026-01-02T03:04:05.678Z"));
    assert_eq!(
        (hook.get("Index"), hook.get("RetryCount"), hook.get("Source")),
        (Some("0"), Some("0"), Some("API"))
    );
    assert_eq!(message["date_created"], "2026-01-02T03:04:05Z");
}

#[tokio::test]
async fn rest_writes_are_silent_unless_the_header_says_otherwise() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    twin.tell(
        &receiver,
        &[
            "onConversationAdded",
            "onConversationUpdated",
            "onConversationStateUpdated",
        ],
    )
    .await;
    twin.post("/Conversations", &[]).await.expect_ok(201);
    twin.sandbox.settled().await;
    assert!(receiver.take().is_empty());

    let told = sid(&twin
        .post_told("/Conversations", &[("FriendlyName", "a")])
        .await
        .expect_ok(201));
    let path = format!("/Conversations/{told}");
    twin.post_told(&path, &[("FriendlyName", "b"), ("State", "inactive")])
        .await
        .expect_ok(200);
    twin.sandbox.settled().await;
    assert_eq!(
        receiver.take_events(),
        [
            "onConversationAdded",
            "onConversationUpdated",
            "onConversationStateUpdated"
        ]
    );
}

#[tokio::test]
async fn the_webhook_of_a_service_silences_the_accounts() {
    let twin = Twin::start().await;
    let (global, service) = (Receiver::start().await, Receiver::start().await);
    let form = [
        ("PostWebhookUrl", global.url.as_str()),
        ("Filters", "onConversationAdded"),
    ];
    twin.post("/v1/Configuration/Webhooks", &form)
        .await
        .expect_ok(200);
    twin.post_told("/Conversations", &[]).await.expect_ok(201);
    twin.sandbox.settled().await;
    assert_eq!(global.take_events(), ["onConversationAdded"]);

    twin.tell(&service, &["onConversationAdded"]).await;
    twin.post_told("/Conversations", &[]).await.expect_ok(201);
    twin.sandbox.settled().await;
    assert!(global.take().is_empty());
    assert_eq!(service.take_events(), ["onConversationAdded"]);
}

#[tokio::test]
async fn a_conversations_own_webhook_fires_besides_and_can_replay() {
    let twin = Twin::start().await;
    let (service, own) = (Receiver::start().await, Receiver::start().await);
    let conversation = twin.group("agent-7").await;
    twin.tell(&service, &["onMessageAdded"]).await;
    let messages = format!("/Conversations/{conversation}/Messages");
    for body in ["zero", "one", "two"] {
        twin.post(&messages, &[("Author", "agent-7"), ("Body", body)])
            .await
            .expect_ok(201);
    }
    let form = [
        ("Target", "webhook"),
        ("Configuration.Url", own.url.as_str()),
        ("Configuration.Method", "get"),
        ("Configuration.Filters", "onMessageAdded"),
        ("Configuration.ReplayAfter", "0"),
    ];
    let path = format!("/Conversations/{conversation}/Webhooks");
    let webhook = twin.post(&path, &form).await.expect_ok(201);
    assert_eq!(webhook["configuration"]["method"], "get");
    twin.post_told(&messages, &[("Author", "agent-7"), ("Body", "three")])
        .await
        .expect_ok(201);
    twin.sandbox.settled().await;

    let told = own.take();
    let bodies: Vec<_> = told.iter().filter_map(|hook| hook.get("Body")).collect();
    assert_eq!(bodies, ["one", "two", "three"]);
    assert!(told.iter().all(|hook| hook.method == Method::GET && hook.signed));
    assert_eq!(service.take_events(), ["onMessageAdded"]);

    for _ in 1..5 {
        twin.post(&path, &form[..4]).await.expect_ok(201);
    }
    assert_eq!(twin.post(&path, &form[..4]).await.code(), 50361);
    let wrong = [
        ("Target", "webhook"),
        form[1],
        ("Configuration.Filters", "onMessageAdd"),
    ];
    twin.delete(&format!("{path}/{}", sid(&webhook))).await;
    assert_eq!(twin.post(&path, &wrong).await.code(), 50365);
}

#[tokio::test]
async fn a_pre_action_webhook_may_change_reject_or_say_nothing() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    let conversation = twin.group("agent-7").await;
    twin.ask(&receiver, &["onMessageAdd"]).await;
    let path = format!("/Conversations/{conversation}/Messages");
    let message = [("Author", "agent-7"), ("Body", "rude words")];

    receiver.reply(200, r#"{"body": "kind words"}"#);
    assert_eq!(
        twin.post_told(&path, &message).await.expect_ok(201)["body"],
        "kind words"
    );
    receiver.reply(403, "");
    assert_eq!(twin.post_told(&path, &message).await.code(), 50056);
    receiver.reply(200, r#"{"author": "stranger"}"#);
    assert_eq!(twin.post_told(&path, &message).await.code(), 50513);
    // Fail open: five seconds without an answer, and the change is made.
    receiver.reply_after(403, "", Duration::from_secs(6));
    assert_eq!(
        twin.post_told(&path, &message).await.expect_ok(201)["body"],
        "rude words"
    );
    // Without the header nobody is asked.
    receiver.take();
    twin.post(&path, &message).await.expect_ok(201);
    assert!(receiver.take().is_empty());
    // A request that would be refused anyway is not asked about.
    assert_eq!(
        twin.post_told(&path, &[("Body", "from system")]).await.code(),
        50513
    );
    assert!(receiver.take().is_empty());
}

#[tokio::test]
async fn a_pre_action_webhook_that_rejects_destroys_an_inbound_text() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    twin.configure_address(LINE).await;
    twin.ask(
        &receiver,
        &["onConversationAdd", "onMessageAdd", "onParticipantAdd"],
    )
    .await;
    receiver.reply(500, "");
    assert_eq!(
        twin.text(ANN, &[BOB, LINE], "lost").await["outcome"],
        "rejected_by_webhook"
    );
    assert!(twin.sandbox.conversations().is_empty());
    let asked = receiver.take();
    assert_eq!(asked[0].all("MessagingBinding.Address"), [BOB, LINE]);
    assert_eq!(
        (asked[0].get("MessageBody"), asked[0].get("ConversationSid")),
        (Some("lost"), None)
    );

    receiver.reply(200, r#"{"friendly_name": "Named by the hook"}"#);
    twin.text(ANN, &[BOB, LINE], "kept").await;
    twin.sandbox.settled().await;
    assert_eq!(
        twin.sandbox.conversations()[0].friendly_name.as_deref(),
        Some("Named by the hook")
    );
    // During autocreation nothing but the conversation is asked about.
    assert_eq!(receiver.take_events(), ["onConversationAdd"]);
    twin.text(BOB, &[ANN, LINE], "next").await;
    assert_eq!(receiver.take_events(), ["onMessageAdd"]);
}

#[tokio::test]
async fn a_failed_webhook_is_gone_unless_its_url_asks_for_another_try() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    twin.tell(&receiver, &["onConversationAdded"]).await;
    receiver.reply(500, "");
    twin.post_told("/Conversations", &[]).await.expect_ok(201);
    twin.sandbox.settled().await;
    assert_eq!(receiver.take().len(), 1);

    let url = format!("{}#rc=2&rp=5xx", receiver.url);
    twin.post("/Configuration/Webhooks", &[("PostWebhookUrl", &url)])
        .await
        .expect_ok(200);
    receiver.reply(503, "");
    twin.post_told("/Conversations", &[]).await.expect_ok(201);
    twin.sandbox.settled().await;
    let tries = receiver.take();
    assert_eq!(tries.len(), 2);
    assert!(tries.iter().all(|hook| hook.signed));
    assert_eq!(tries[0].idempotency_token, tries[1].idempotency_token);
    assert_eq!(
        (tries[0].get("RetryCount"), tries[1].get("RetryCount")),
        (Some("0"), Some("1"))
    );
    let outcomes: Vec<Outcome> = twin
        .sandbox
        .attempts()
        .iter()
        .map(|attempt| attempt.outcome)
        .collect();
    assert_eq!(outcomes, [Outcome::Refused, Outcome::Refused, Outcome::Delivered]);
}

#[tokio::test]
async fn timers_take_effect_by_the_clock_and_are_told() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    twin.tell(&receiver, &["onConversationStateUpdated"]).await;
    let form = [
        ("State", "active"),
        ("Timers.Inactive", "PT5M"),
        ("Timers.Closed", "PT30M"),
    ];
    let path = format!(
        "/Conversations/{}",
        sid(&twin.post("/Conversations", &form).await.expect_ok(201))
    );
    let shown = twin.get(&path).await;
    assert_eq!(
        shown["timers"],
        serde_json::json!({"date_inactive": "2026-01-02T03:09:05Z", "date_closed": "2026-01-02T03:34:05Z"})
    );
    twin.clock.advance(jiff::SignedDuration::from_mins(5));
    assert_eq!(twin.get(&path).await["state"], "inactive");
    // A message wakes it, and its time begins anew.
    twin.post_told(&format!("{path}/Messages"), &[("Body", "still here")])
        .await
        .expect_ok(201);
    assert_eq!(twin.get(&path).await["state"], "active");
    twin.clock.advance(jiff::SignedDuration::from_mins(40));
    assert_eq!(twin.get(&path).await["state"], "closed");
    twin.sandbox.settled().await;
    let changes: Vec<String> = receiver
        .take()
        .iter()
        .map(|hook| {
            let value = |key| hook.get(key).unwrap_or_default().to_owned();
            format!("{}>{} {}", value("StateFrom"), value("StateTo"), value("Reason"))
        })
        .collect();
    assert_eq!(
        changes,
        [
            "active>inactive TIMER",
            "inactive>active EVENT",
            "active>inactive TIMER",
            "inactive>closed TIMER"
        ]
    );
}

#[tokio::test]
async fn webhooks_of_one_conversation_come_one_after_the_other() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    let conversation = twin.group("agent-7").await;
    twin.tell(&receiver, &["onMessageAdded"]).await;
    // The first answer is slow; the others must wait for it.
    receiver.reply_after(200, "", Duration::from_millis(200));
    for number in 0..20 {
        let body = number.to_string();
        let form = [("Author", "agent-7"), ("Body", body.as_str())];
        twin.post_told(&format!("/Conversations/{conversation}/Messages"), &form)
            .await
            .expect_ok(201);
    }
    twin.sandbox.settled().await;
    let told = receiver.take();
    let order: Vec<usize> = told
        .iter()
        .map(|hook| hook.get("Body").unwrap().parse().unwrap())
        .collect();
    assert_eq!(order, (0..20).collect::<Vec<_>>());
}
