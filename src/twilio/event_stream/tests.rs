use serde_json::json;

use super::*;
use crate::twilio::model::{AddressKind, SourceTime};
use crate::twilio::webhook::Event;

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const CONVERSATION: &str = "CH00000000000000000000000000000001";

fn event(event_type: &str, data: &Value) -> Value {
    let mut data = data.clone();
    data["AccountSid"] = ACCOUNT.into();
    json!({
        "specversion": "1.0",
        "type": format!("com.twilio.conversations.{event_type}"),
        "source": "/v1/Conversations",
        "id": "EZ00000000000000000000000000000001",
        "datacontenttype": "application/json",
        "data": data,
    })
}

fn read(event: &Value) -> Webhook {
    CloudEvent::read(&event.to_string()).unwrap().webhook().unwrap()
}

fn message(data: &Value) -> Value {
    let mut all = json!({
        "ConversationSid": CONVERSATION,
        "MessageSid": "IM00000000000000000000000000000001",
        "Index": 7,
        "DateCreated": "2026-01-02T03:04:05.678Z",
    });
    for (key, value) in data.as_object().unwrap() {
        all[key] = value.clone();
    }
    event("message.added", &all)
}

fn message_of(event: &Value) -> crate::twilio::webhook::MessageEvent {
    match read(event).event {
        Event::MessageAdded(message) => *message,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_array_and_one_event_alone_are_split_into_the_texts_that_they_are_made_of() {
    assert_eq!(
        split(br#" [{"a": 1} ,2,"x"] "#).unwrap(),
        [r#"{"a": 1}"#, "2", r#""x""#]
    );
    assert_eq!(split(b" {\"a\": 1} ").unwrap(), ["{\"a\": 1}"]);
    assert_eq!(split(b"[]").unwrap(), Vec::<&str>::new());
}

#[test]
fn what_is_no_list_of_events_is_refused() {
    for (body, error) in [
        (b"".as_slice(), BodyError::NotJson),
        (b"[{}", BodyError::NotJson),
        (b"[{}]]", BodyError::NotJson),
        (b"7", BodyError::NotJson),
        (b"\"text\"", BodyError::NotJson),
        (b"EventType=onMessageAdded", BodyError::NotJson),
        (b"[\"\xFF\"]", BodyError::NotUtf8),
    ] {
        assert_eq!(split(body), Err(error));
    }
    let many = |count| format!("[{}]", vec!["{}"; count].join(","));
    assert_eq!(split(many(MAX_EVENTS).as_bytes()).unwrap().len(), MAX_EVENTS);
    assert_eq!(split(many(MAX_EVENTS + 1).as_bytes()), Err(BodyError::TooMany));
}

#[test]
fn a_message_is_read_in_the_spellings_of_event_streams() {
    let read = message_of(&message(&json!({
        "MessageBody": "hello",
        "Author": "+15555550101",
        "Attributes": { "crm": { "id": 5 } },
        "Media": [{ "MediaSid": "ME00000000000000000000000000000001", "Filename": null,
            "ContentType": "image/jpeg", "Size": 42 }],
    })));
    assert_eq!(read.index, 7);
    assert_eq!(read.body.unwrap(), "hello");
    assert_eq!(read.attributes, r#"{"crm":{"id":5}}"#);
    assert_eq!(read.media[0].sid.as_str(), "ME00000000000000000000000000000001");
    assert_eq!(
        read.dates.created.unwrap(),
        SourceTime::try_from("2026-01-02T03:04:05.678Z").unwrap()
    );
}

#[test]
fn the_spellings_of_webhooks_and_of_rest_are_read_too() {
    let read = message_of(&message(&json!({
        "Index": "8",
        "Body": "hello",
        "Attributes": "{ \"crm\": 5 }",
        "Media": "[{\"Sid\":\"ME00000000000000000000000000000001\"}]",
        "participant_sid": "MB00000000000000000000000000000001",
    })));
    assert_eq!(read.index, 8);
    assert_eq!(read.body.unwrap(), "hello");
    assert_eq!(read.attributes, r#"{ "crm": 5 }"#);
    assert_eq!(read.media.len(), 1);
    assert!(read.participant_sid.is_some());
    assert_eq!(message_of(&message(&json!({ "Index": 9.0 }))).index, 9);
}

#[test]
fn a_binding_is_read_nested_dotted_and_as_bracketed_text() {
    for binding in [
        json!({ "MessagingBinding": { "ProjectedAddress": "[+15017122661]", "Type": "SMS" } }),
        json!({ "MessagingBinding": { "ProjectedAddress": ["+15017122661"], "Type": "sms" } }),
        json!({ "MessagingBinding.ProjectedAddress": "+15017122661", "MessagingBinding.Type": "sms" }),
        json!({ "messaging_binding": { "projected_address": "+15017122661", "type": "sms" } }),
    ] {
        let mut data = json!({
            "ConversationSid": CONVERSATION,
            "ParticipantSid": "MB00000000000000000000000000000001",
            "Identity": "maria",
            "DateCreated": "2026-01-02T03:04:05.678Z",
        });
        for (key, value) in binding.as_object().unwrap() {
            data[key] = value.clone();
        }
        let Event::ParticipantAdded(read) = read(&event("participant.added", &data)).event else {
            panic!("a participant is added");
        };
        assert_eq!(read.binding.projected_address.unwrap(), "+15017122661");
        assert_eq!(read.binding.kind, Some(AddressKind::Sms));
    }
}

#[test]
fn every_type_of_the_catalogue_is_the_webhook_of_that_name_and_others_are_unknown() {
    let data = json!({
        "ConversationSid": CONVERSATION,
        "MessageSid": "IM00000000000000000000000000000001",
        "ParticipantSid": "MB00000000000000000000000000000001",
        "UserSid": "US00000000000000000000000000000001",
        "Index": 1,
        "StateTo": "closed",
        "StateUpdated": "2026-01-02T03:04:05.678Z",
    });
    for name in [
        "conversation.added",
        "conversation.updated",
        "conversation.removed",
        "conversation-state.updated",
        "message.added",
        "message.updated",
        "message.removed",
        "participant.added",
        "participant.updated",
        "participant.removed",
        "user.added",
        "user.updated",
    ] {
        let mut one = event(name, &data);
        one["time"] = "2026-01-02T03:04:06Z".into();
        let read = read(&one);
        assert!(!matches!(read.event, Event::Unknown { .. }), "{name}");
        assert_eq!(
            read.event.conversation_sid().is_some(),
            !name.starts_with("user"),
            "{name}"
        );
    }
    for name in ["delivery.updated", "typing.started", ""] {
        let read = read(&event(name, &data));
        assert!(matches!(read.event, Event::Unknown { .. }), "{name}");
    }
}

#[test]
fn of_a_change_without_a_time_the_envelope_gives_a_guess_and_a_read_is_asked_for() {
    let mut one = message(&json!({}));
    one["data"].as_object_mut().unwrap().remove("DateCreated");
    one["time"] = "2026-01-02T03:04:06.000Z".into();
    let webhook = read(&one);
    assert_eq!(
        (webhook.unread, webhook.time_is_guessed),
        (vec!["DateCreated"], true)
    );
    one["data"]["DateCreated"] = "2026-01-02T03:04:05.678Z".into();
    let told = read(&one);
    assert_eq!((told.unread, told.time_is_guessed), (Vec::new(), false));
}

#[test]
fn a_removal_without_a_time_is_not_placed_by_the_time_of_creation() {
    let data = json!({
        "ConversationSid": CONVERSATION,
        "MessageSid": "IM00000000000000000000000000000001",
        "Index": 1,
        "DateCreated": "2026-01-02T03:04:05.678Z",
    });
    let removed = CloudEvent::read(&event("message.removed", &data).to_string()).unwrap();
    assert!(matches!(
        removed.webhook(),
        Err(EventError::Field(ParseError {
            field: "DateRemoved",
            ..
        }))
    ));
}

#[test]
fn nul_and_half_characters_lose_nothing() {
    let text = message(&json!({ "MessageBody": "BODY" })).to_string();
    for (escaped, body) in [("a\\u0000b", "a\0b"), ("a\\ud800b", "a\u{fffd}b")] {
        let event = CloudEvent::read(&text.replace("BODY", escaped)).unwrap();
        let Event::MessageAdded(read) = event.webhook().unwrap().event else {
            panic!("a message is added");
        };
        assert_eq!(read.body.unwrap(), body);
    }
}

#[test]
fn what_is_no_object_is_named_so() {
    for text in ["7", "[]", "null", "\"a\"", &"[".repeat(10_000)] {
        assert_eq!(CloudEvent::read(text).unwrap_err(), EventError::NotAnObject);
    }
    assert!(CloudEvent::read("{}").unwrap().webhook().is_err());
}

#[test]
fn events_are_the_same_by_their_id_and_ill_formed_ones_by_their_content() {
    let account: AccountSid = ACCOUNT.parse().unwrap();
    let key = |event: &Value| {
        let text = event.to_string();
        dedupe_key(&account, &text, CloudEvent::read(&text).ok().as_ref())
    };
    let first = message(&json!({ "MessageBody": "hello" }));
    let mut later = first.clone();
    later["time"] = "2026-01-02T03:04:06Z".into();
    assert_eq!(key(&first), key(&later));
    let mut other = first.clone();
    other["id"] = "EZ00000000000000000000000000000002".into();
    assert_ne!(key(&first), key(&other));
    let ill_formed = message(&json!({ "Index": "first" }));
    assert_ne!(key(&first), key(&ill_formed));
    assert_ne!(key(&ill_formed), key(&message(&json!({ "Index": "second" }))));
}

#[test]
fn debug_prints_no_values() {
    let event = CloudEvent::read(&message(&json!({ "MessageBody": "secret" })).to_string()).unwrap();
    assert!(!format!("{event:?}").contains("secret"));
}
