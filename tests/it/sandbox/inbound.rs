//! Texts from handsets: matched, autocreated, dropped; and what handsets get to see.

use super::{ANN, BOB, CYD, LINE, Receiver, Twin, sid};

const ALL: &[&str] = &[
    "onConversationAdded",
    "onConversationStateUpdated",
    "onParticipantAdded",
    "onMessageAdded",
    "onDeliveryUpdated",
];

#[tokio::test]
async fn a_group_text_to_a_configured_number_makes_a_conversation_and_tells_it_in_order() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    twin.tell(&receiver, ALL).await;
    twin.configure_address(LINE).await;
    let made = twin.text(ANN, &[CYD, LINE, BOB], "hello all").await;
    assert_eq!(made["outcome"], "conversation_created");
    twin.sandbox.settled().await;

    let told = receiver.take();
    let events: Vec<&str> = told.iter().map(super::Hook::event).collect();
    let joined = "onParticipantAdded";
    assert_eq!(
        events,
        [
            "onConversationAdded",
            joined,
            joined,
            joined,
            joined,
            "onMessageAdded",
            "onConversationStateUpdated"
        ]
    );
    let added = &told[0];
    assert_eq!(added.all("MessagingBinding.Address"), [CYD, LINE, BOB]);
    assert_eq!(added.get("MessagingBinding.AuthorAddress"), Some(ANN));
    assert_eq!(
        (added.get("State"), added.get("Source")),
        (Some("initializing"), Some("SMS"))
    );
    assert_eq!(added.get("MessageBody"), None);
    let message = &told[5];
    assert_eq!(
        (message.get("Author"), message.get("Body")),
        (Some(ANN), Some("hello all"))
    );
    let updated = &told[6];
    assert_eq!(
        (
            updated.get("StateFrom"),
            updated.get("StateTo"),
            updated.get("Reason")
        ),
        (Some("initializing"), Some("active"), Some("EVENT"))
    );
    assert!(told.iter().all(|hook| hook.signed));

    // The next text of the same people, whoever writes it, lands in the same conversation.
    let next = twin.text(BOB, &[ANN, CYD, LINE], "hi").await;
    assert_eq!(next["outcome"], "delivered");
    assert_eq!(next["conversation_sid"], made["conversation_sid"]);
    // One person more is another group.
    let other = twin.text(ANN, &[BOB, LINE], "only us").await;
    assert_eq!(other["outcome"], "conversation_created");
}

#[tokio::test]
async fn texts_that_come_while_a_group_is_being_set_up_follow_the_first_one() {
    let twin = Twin::start_slow().await;
    twin.configure_address(LINE).await;
    let made = twin.text(ANN, &[BOB, LINE], "one").await;
    let second = twin.text(BOB, &[ANN, LINE], "two").await;
    assert_eq!(second["outcome"], "delivered");
    assert!(second["message_sid"].is_null());
    twin.sandbox.settled().await;
    let path = format!(
        "/Conversations/{}/Messages",
        made["conversation_sid"].as_str().unwrap()
    );
    let messages = twin.get(&path).await;
    let bodies: Vec<&str> = messages["messages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["body"].as_str().unwrap())
        .collect();
    assert_eq!(bodies, ["one", "two"]);
}

#[tokio::test]
async fn without_an_address_configuration_a_text_is_dropped_but_other_phones_get_it() {
    let twin = Twin::start().await;
    assert_eq!(
        twin.text(ANN, &[BOB, LINE], "hello").await["outcome"],
        "dropped_no_autocreation"
    );
    assert_eq!(
        twin.text(ANN, &[LINE], "hello").await["outcome"],
        "dropped_no_autocreation"
    );
    assert_eq!(
        twin.text(ANN, &[BOB, CYD], "hello").await["outcome"],
        "no_number_of_the_account"
    );
    assert!(twin.sandbox.conversations().is_empty());
    let bob = twin.received(BOB).await;
    assert_eq!(bob.len(), 2);
    assert_eq!(bob[0]["from"], ANN);
    assert_eq!(bob[0]["members"], serde_json::json!([LINE, ANN, BOB]));
}

#[tokio::test]
async fn a_handset_sees_numbers_and_never_identities() {
    let twin = Twin::start().await;
    let conversation = twin.group("agent-7").await;
    let messages = format!("/Conversations/{conversation}/Messages");
    twin.post(&messages, &[("Author", "agent-7"), ("Body", "welcome")])
        .await
        .expect_ok(201);
    twin.text(ANN, &[BOB, LINE], "thanks").await;
    twin.sandbox.settled().await;

    let bob = twin.received(BOB).await;
    let seen: Vec<(&str, &str)> = bob
        .iter()
        .map(|text| (text["from"].as_str().unwrap(), text["body"].as_str().unwrap()))
        .collect();
    assert_eq!(seen, [(LINE, "welcome"), (ANN, "thanks")]);
    assert_eq!(bob[0]["members"], serde_json::json!([LINE, ANN, BOB]));
    // The writer's own phone is not sent what it wrote.
    assert_eq!(twin.received(ANN).await.len(), 1);
}

#[tokio::test]
async fn a_single_text_makes_a_conversation_of_address_and_proxy() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    twin.tell(&receiver, ALL).await;
    twin.configure_address(LINE).await;
    let made = twin.text(ANN, &[LINE], "just me").await;
    assert_eq!(made["outcome"], "conversation_created");
    twin.sandbox.settled().await;
    assert_eq!(
        receiver.take_events(),
        ["onConversationAdded", "onParticipantAdded", "onMessageAdded"]
    );

    let conversation = made["conversation_sid"].as_str().unwrap();
    let path = format!("/Conversations/{conversation}");
    let participants = twin.get(&format!("{path}/Participants")).await;
    let binding = serde_json::json!({"type": "sms", "address": ANN, "proxy_address": LINE});
    assert_eq!(participants["participants"][0]["messaging_binding"], binding);
    twin.post(&format!("{path}/Messages"), &[("Body", "hello Ann")])
        .await
        .expect_ok(201);
    twin.sandbox.settled().await;
    let ann = twin.received(ANN).await;
    assert_eq!(
        (&ann[0]["from"], &ann[0]["members"]),
        (&serde_json::json!(LINE), &serde_json::json!([]))
    );

    let other = sid(&twin.post("/Conversations", &[]).await.expect_ok(201));
    let pair = [
        ("MessagingBinding.Address", ANN),
        ("MessagingBinding.ProxyAddress", LINE),
    ];
    let refused = twin
        .post(&format!("/Conversations/{other}/Participants"), &pair)
        .await;
    assert_eq!(refused.code(), 50416);
}

#[tokio::test]
async fn who_has_opted_out_gets_no_message_and_the_receipt_says_so() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    let conversation = twin.group("agent-7").await;
    twin.tell(&receiver, &["onDeliveryUpdated"]).await;
    let path = format!("/Conversations/{conversation}/Messages");
    // The word is a message of the group like any other.
    assert_eq!(
        twin.text(ANN, &[BOB, LINE], " stop ").await["outcome"],
        "delivered"
    );
    let before = twin.received(ANN).await.len();
    let sent = twin
        .post(&path, &[("Author", "agent-7"), ("Body", "still there?")])
        .await
        .expect_ok(201);
    assert!(sent["delivery"].is_null());
    twin.sandbox.settled().await;

    let receipts = twin.get(&format!("{path}/{}/Receipts", sid(&sent))).await;
    let receipts = receipts["delivery_receipts"].as_array().unwrap();
    let of: Vec<(&str, u64)> = receipts
        .iter()
        .map(|receipt| {
            (
                receipt["status"].as_str().unwrap(),
                receipt["error_code"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(of, [("undelivered", 21610), ("delivered", 0)]);
    assert!(
        receipts[0]["channel_message_sid"]
            .as_str()
            .unwrap()
            .starts_with("MM")
    );
    let delivery = &twin.get(&format!("{path}/{}", sid(&sent))).await["delivery"];
    assert_eq!(
        delivery,
        &serde_json::json!({
            "total": 2, "sent": "some", "delivered": "some", "read": "none", "failed": "none", "undelivered": "some",
        })
    );
    // Receipts are told though the message was posted without the header.
    let told = receiver.take();
    let of: Vec<(Option<&str>, Option<&str>)> = told
        .iter()
        .map(|hook| (hook.get("Status"), hook.get("ErrorCode")))
        .collect();
    assert_eq!(
        of,
        [
            (Some("undelivered"), Some("21610")),
            (Some("sent"), None),
            (Some("delivered"), None)
        ]
    );
    assert_eq!(twin.received(ANN).await.len(), before);

    twin.text(ANN, &[BOB, LINE], "START").await;
    let sent = twin
        .post(&path, &[("Author", "agent-7"), ("Body", "welcome back")])
        .await
        .expect_ok(201);
    twin.sandbox.settled().await;
    assert_eq!(
        twin.get(&format!("{path}/{}", sid(&sent))).await["delivery"]["delivered"],
        "all"
    );
    assert_eq!(twin.received(ANN).await.last().unwrap()["body"], "welcome back");
}

#[tokio::test]
async fn a_handset_cannot_send_what_no_carrier_would_take() {
    let twin = Twin::start().await;
    let send = async |from: &str, body: &str| {
        let path = format!("/sandbox/v1/handsets/{}/messages", from.replace('+', "%2B"));
        let request = twin
            .request(axum::http::Method::POST, &path)
            .body(body.to_owned());
        super::answer(request).await.code()
    };
    assert_eq!(send(ANN, r#"{"to": []}"#).await, 20001);
    assert_eq!(send(ANN, r#"{"to": ["+15017122661"]}"#).await, 50503);
    assert_eq!(
        send(ANN, r#"{"to": ["+15017122661", "+15017122661"], "body": "x"}"#).await,
        20001
    );
    assert_eq!(send(ANN, r#"{"to": ["+15555550101"], "body": "x"}"#).await, 20001);
    assert_eq!(
        send(ANN, r#"{"to": ["+15017122661", "+447700900123"], "body": "x"}"#).await,
        50407
    );
    assert_eq!(
        send(LINE, r#"{"to": ["+15555550101"], "body": "x"}"#).await,
        50407
    );
    assert_eq!(
        send("Ann", r#"{"to": ["+15017122661"], "body": "x"}"#).await,
        50407
    );
    assert_eq!(send(ANN, r#"{"to": ["+15017122661"], "text": "x"}"#).await, 20001);
    assert_eq!(send(ANN, "+15017122661").await, 20001);
}
