use serde_json::json;

use super::*;

const CONVERSATION: &str = "CH00000000000000000000000000000001";
const PARTICIPANT: &str = "MB00000000000000000000000000000001";

fn participant(identity: Option<&str>, binding: &serde_json::Value) -> Participant {
    serde_json::from_value(json!({
        "sid": PARTICIPANT, "conversation_sid": CONVERSATION, "identity": identity, "messaging_binding": binding,
    }))
    .unwrap()
}

fn number(text: &str) -> PhoneNumber {
    text.parse().unwrap()
}

#[test]
fn a_conversation_is_read_as_twilio_sends_it() {
    let conversation: Conversation = serde_json::from_value(json!({
        "sid": CONVERSATION, "account_sid": "AC00000000000000000000000000000001",
        "chat_service_sid": "IS00000000000000000000000000000001",
        "messaging_service_sid": "MG00000000000000000000000000000001",
        "friendly_name": "Home-buying journey", "unique_name": null, "attributes": "{\"crm\":1}", "state": "active",
        "date_created": "2026-01-02T03:04:05Z", "date_updated": "2026-01-02T03:04:06Z",
        "timers": {"date_inactive": "2026-01-03T03:04:05Z"}, "bindings": {}, "url": "x", "links": {},
    }))
    .unwrap();
    assert_eq!(conversation.state, ConversationState::Active);
    assert_eq!(conversation.attributes, "{\"crm\":1}");
    assert_eq!(
        conversation.date_updated.unwrap().to_string(),
        "2026-01-02T03:04:06Z"
    );
    assert_eq!(
        conversation.timers.date_inactive.unwrap().to_string(),
        "2026-01-03T03:04:05Z"
    );
    assert_eq!(conversation.unique_name, None);
}

#[test]
fn a_conversation_with_nothing_but_its_sid_is_read() {
    let bare: Conversation = serde_json::from_value(json!({"sid": CONVERSATION})).unwrap();
    assert_eq!(bare.state, ConversationState::Other(String::new()));
    assert_eq!(bare.attributes, "{}");
    let nulls: Conversation = serde_json::from_value(json!({
        "sid": CONVERSATION, "account_sid": null, "attributes": null, "state": null, "timers": null,
        "messaging_service_sid": "", "date_updated": null,
    }))
    .unwrap();
    assert_eq!(nulls, bare);
}

#[test]
fn a_resource_without_its_sid_is_refused() {
    assert!(serde_json::from_value::<Conversation>(json!({"state": "active"})).is_err());
    assert!(serde_json::from_value::<Conversation>(json!({"sid": PARTICIPANT})).is_err());
}

#[test]
fn the_five_shapes_are_told_by_their_addresses() {
    let (handset, ours) = ("+15555550101", "+15555550100");
    assert_eq!(
        participant(None, &json!({"type": "sms", "address": handset})).shape(),
        Shape::Native {
            address: number(handset)
        }
    );
    assert_eq!(
        participant(
            Some("agent-7"),
            &json!({"type": "sms", "projected_address": ours})
        )
        .shape(),
        Shape::Projected {
            identity: "agent-7".into(),
            projected_address: number(ours)
        }
    );
    assert_eq!(
        participant(None, &json!({"projected_address": ours, "address": null})).shape(),
        Shape::Gateway {
            projected_address: number(ours)
        }
    );
    assert_eq!(
        participant(None, &json!({"address": handset, "proxy_address": ours})).shape(),
        Shape::Proxied {
            address: number(handset),
            proxy_address: number(ours)
        }
    );
    assert_eq!(
        participant(Some("agent-7"), &json!(null)).shape(),
        Shape::Chat {
            identity: "agent-7".into()
        }
    );
}

#[test]
fn everything_else_is_of_no_known_shape() {
    let (handset, ours) = ("+15555550101", "+15555550100");
    for (identity, binding) in [
        (None, json!(null)),
        (None, json!({"address": handset, "projected_address": ours})),
        (Some("agent-7"), json!({"address": handset})),
        (
            None,
            json!({"type": "whatsapp", "address": "whatsapp:+15555550101"}),
        ),
    ] {
        assert_eq!(participant(identity, &binding).shape(), Shape::Other, "{binding}");
    }
}

#[test]
fn media_is_read_in_the_three_spellings() {
    let sid = "ME00000000000000000000000000000001";
    let read = |value: serde_json::Value| serde_json::from_value::<Media>(value).unwrap();
    let rest = read(json!({"sid": sid, "filename": null, "content_type": "image/jpeg", "size": 42056}));
    assert_eq!(
        rest,
        read(json!({"Sid": sid, "Filename": null, "ContentType": "image/jpeg", "Size": 42056}))
    );
    assert_eq!(
        rest,
        read(json!({"MediaSid": sid, "Filename": "", "ContentType": "image/jpeg", "Size": 42056}))
    );
    assert_eq!(rest.size, Some(42056));
}

#[test]
fn a_message_without_media_and_with_a_blank_body_is_read() {
    let message: Message = serde_json::from_value(json!({
        "sid": "IM00000000000000000000000000000001", "conversation_sid": CONVERSATION, "index": 3,
        "author": "agent-7", "body": "", "media": null, "delivery": {"total": 2, "sent": "all", "read": "none"},
    }))
    .unwrap();
    assert_eq!(message.body, Some("".into()));
    assert_eq!(message.media, []);
    let delivery = message.delivery.unwrap();
    assert_eq!(delivery.sent, Some(DeliveryAmount::All));
    assert_eq!(delivery.failed, None);
}

#[test]
fn error_code_zero_is_no_error_and_text_is_a_number_too() {
    let code = |value: serde_json::Value| {
        serde_json::from_value::<Receipt>(json!({
            "sid": "DY00000000000000000000000000000001", "conversation_sid": CONVERSATION,
            "message_sid": "IM00000000000000000000000000000001", "status": "undelivered", "error_code": value,
        }))
        .unwrap()
        .error_code
    };
    assert_eq!(code(json!(0)), None);
    assert_eq!(code(json!(null)), None);
    assert_eq!(code(json!(21610)), Some(21610));
    assert_eq!(code(json!("21610")), Some(21610));
}

#[test]
fn a_webhook_configuration_that_was_never_set_is_empty() {
    let nulls: WebhookConfiguration = serde_json::from_value(json!({
        "account_sid": "AC00000000000000000000000000000001", "method": null, "filters": null,
        "pre_webhook_url": null, "post_webhook_url": "",
    }))
    .unwrap();
    assert_eq!(nulls, WebhookConfiguration::default());
}

#[test]
fn no_resource_prints_numbers_names_or_words() {
    let participant = participant(Some("jane@example.com"), &json!({"address": "+15555550101"}));
    let message: Message = serde_json::from_value(json!({
        "sid": "IM00000000000000000000000000000001", "conversation_sid": CONVERSATION,
        "author": "+15555550101", "body": "secret", "attributes": "{\"secret\":1}",
    }))
    .unwrap();
    let printed = format!("{participant:?} {:?} {message:?}", participant.shape());
    for personal in ["55555501", "jane", "secret"] {
        assert!(!printed.contains(personal), "{printed}");
    }
}
