use super::*;
use crate::twilio::model::{ConversationState, DeliveryStatus, Precision, Shape, StateReason};

const ACCOUNT: &str = "AC00000000000000000000000000000001";
const CONVERSATION: &str = "CH00000000000000000000000000000001";
const MESSAGE: &str = "IM00000000000000000000000000000001";
const PARTICIPANT: &str = "MB00000000000000000000000000000001";

/// The wire text of a webhook as in Twilio's pages and in captures, without what is common to all.
fn body(event_type: &str, fields: &str) -> String {
    format!(
        "AccountSid={ACCOUNT}&ChatServiceSid=IS00000000000000000000000000000001&EventType={event_type}&RetryCount=0&{fields}"
    )
}

fn parse(event_type: &str, fields: &str) -> Result<Webhook, ParseError> {
    Webhook::parse(&Form::parse(body(event_type, fields).as_bytes()).unwrap())
}

fn read(event_type: &str, fields: &str) -> Webhook {
    let webhook = parse(event_type, fields).unwrap();
    assert_eq!(webhook.unread, Vec::<&str>::new());
    assert_eq!(webhook.extra, Form::default());
    webhook
}

fn texts(values: &[Hidden]) -> Vec<&str> {
    values.iter().map(Hidden::as_str).collect()
}

/// Every event of the catalogue with the fields that it needs, and whether it comes before the change.
fn catalogue() -> Vec<(&'static str, String, bool)> {
    let conversation = format!("ConversationSid={CONVERSATION}");
    let message = format!("{conversation}&MessageSid={MESSAGE}&Index=1");
    let participant = format!("{conversation}&ParticipantSid={PARTICIPANT}");
    let user = "UserSid=US00000000000000000000000000000001".to_owned();
    let state = format!("{conversation}&StateUpdated=2026-01-02T03:04:05.678Z&StateTo=closed");
    let delivery = format!(
        "{conversation}&MessageSid={MESSAGE}&DeliveryReceiptSid=DY00000000000000000000000000000001&Status=sent"
    );
    vec![
        ("onConversationAdd", String::new(), true),
        ("onConversationUpdate", conversation.clone(), true),
        ("onConversationRemove", conversation.clone(), true),
        ("onMessageAdd", conversation.clone(), true),
        ("onMessageUpdate", message.clone(), true),
        ("onMessageRemove", message.clone(), true),
        ("onParticipantAdd", conversation.clone(), true),
        ("onParticipantUpdate", participant.clone(), true),
        ("onParticipantRemove", participant.clone(), true),
        ("onUserUpdate", user.clone(), true),
        ("onConversationAdded", conversation.clone(), false),
        ("onConversationUpdated", conversation.clone(), false),
        ("onConversationRemoved", conversation, false),
        ("onConversationStateUpdated", state, false),
        ("onMessageAdded", message.clone(), false),
        ("onMessageUpdated", message.clone(), false),
        ("onMessageRemoved", message, false),
        ("onParticipantAdded", participant.clone(), false),
        ("onParticipantUpdated", participant.clone(), false),
        ("onParticipantRemoved", participant, false),
        ("onUserAdded", user.clone(), false),
        ("onUserUpdated", user, false),
        ("onDeliveryUpdated", delivery, false),
    ]
}

#[test]
fn every_event_of_the_catalogue_is_known_and_named_by_its_own_variant() {
    for (event_type, fields, before) in catalogue() {
        let webhook = read(event_type, &fields);
        let variant = format!("on{:?}", webhook.event);
        assert_eq!(variant.split('(').next(), Some(event_type));
        assert_eq!(webhook.event.is_before_the_change(), before, "{event_type}");
        let has_conversation = fields.contains("ConversationSid");
        assert_eq!(
            webhook.conversation_sid().is_some(),
            has_conversation,
            "{event_type}"
        );
    }
}

#[test]
fn each_field_that_an_event_needs_is_named_when_it_is_missing_blank_or_wrong() {
    for (event_type, fields, _) in catalogue() {
        for needed in fields.split('&').filter(|field| !field.is_empty()) {
            let (name, _) = needed.split_once('=').unwrap();
            for replacement in [String::new(), format!("{name}="), format!("{name}=CH1")] {
                // A word may be any word.
                if replacement.ends_with("CH1") && ["Status", "StateTo"].contains(&name) {
                    continue;
                }
                let wrong = fields.replace(needed, &replacement);
                let error = parse(event_type, &wrong).unwrap_err();
                assert_eq!(error.field, name, "{event_type}: {wrong}");
                assert!(!error.to_string().contains("CH1"), "{error}");
            }
        }
    }
    let without_account = Form::from_iter([("EventType", "onMessageAdded")]);
    assert_eq!(Webhook::parse(&without_account).unwrap_err().field, "AccountSid");
    let without_type = Form::from_iter([("AccountSid", ACCOUNT)]);
    assert_eq!(Webhook::parse(&without_type).unwrap_err().field, "EventType");
}

#[test]
fn an_unknown_event_is_kept_with_its_fields() {
    let webhook = parse(
        "onTypingStarted",
        &format!("ConversationSid={CONVERSATION}&Who=x"),
    )
    .unwrap();
    assert_eq!(
        webhook.event,
        Event::Unknown {
            event_type: "onTypingStarted".to_owned(),
            conversation_sid: Some(CONVERSATION.parse().unwrap()),
        }
    );
    assert_eq!(webhook.extra.get("Who"), Some("x"));
}

#[test]
fn an_unknown_key_is_kept_and_harms_nothing() {
    let fields =
        format!("ConversationSid={CONVERSATION}&MessageSid={MESSAGE}&Index=1&ChannelMetadata=%7B%7D&New=");
    let webhook = parse("onMessageAdded", &fields).unwrap();
    assert_eq!(
        webhook.extra,
        Form::from_iter([("ChannelMetadata", "{}"), ("New", "")])
    );
}

#[test]
fn a_message_from_a_handset_is_read() {
    let webhook = read(
        "onMessageAdded",
        &format!(
            "Attributes=%7B%7D&Author=%2B15555550101&Body=+hi++there+%0A&ConversationSid={CONVERSATION}\
             &DateCreated=2026-01-02T03%3A04%3A05.678Z&Index=1&MessageSid={MESSAGE}\
             &MessagingServiceSid=MG00000000000000000000000000000001&ParticipantSid={PARTICIPANT}&Source=SMS"
        ),
    );
    assert_eq!(webhook.common.source, Some(Source::Sms));
    assert_eq!(webhook.common.retry_count, 0);
    let Event::MessageAdded(message) = webhook.event else {
        panic!("another event")
    };
    assert_eq!(message.body, Some(" hi  there \n".into()));
    assert_eq!(message.author, Some("+15555550101".into()));
    assert_eq!(message.index, 1);
    assert_eq!(message.participant_sid, Some(PARTICIPANT.parse().unwrap()));
    let created = message.dates.latest().unwrap();
    assert_eq!(created.to_string(), "2026-01-02T03:04:05.678Z");
    assert_eq!(created.precision, Precision::Millisecond);
}

#[test]
fn a_blank_body_is_a_body_and_media_is_read_in_every_spelling() {
    let sid = "ME00000000000000000000000000000001";
    let lists = [
        format!(r#"[{{"Sid":"{sid}","Filename":null,"ContentType":"image/jpeg","Size":42056}}]"#),
        format!(r#"[{{"sid":"{sid}","filename":null,"content_type":"image/jpeg","size":42056}}]"#),
        format!(r#"[{{"MediaSid":"{sid}","Filename":null,"ContentType":"image/jpeg","Size":42056}}]"#),
    ];
    for list in lists {
        let form = Form::from_iter([
            ("AccountSid", ACCOUNT),
            ("EventType", "onMessageAdded"),
            ("ConversationSid", CONVERSATION),
            ("MessageSid", MESSAGE),
            ("Index", "0"),
            ("Body", ""),
            ("Media", &list),
        ]);
        let Event::MessageAdded(message) = Webhook::parse(&form).unwrap().event else {
            panic!("another event")
        };
        assert_eq!(message.body, Some("".into()));
        assert_eq!(message.media.len(), 1);
        assert_eq!(message.media[0].sid.as_str(), sid);
        assert_eq!(message.media[0].size, Some(42056));
    }
    let Event::MessageAdded(message) = read(
        "onMessageAdded",
        &format!("ConversationSid={CONVERSATION}&MessageSid={MESSAGE}&Index=0&Media=null"),
    )
    .event
    else {
        panic!("another event")
    };
    assert_eq!(message.body, None);
    assert_eq!(message.media, []);
}

#[test]
fn an_optional_value_that_cannot_be_read_is_reported_and_loses_nothing_else() {
    let webhook = parse(
        "onMessageAdded",
        &format!(
            "ConversationSid={CONVERSATION}&MessageSid={MESSAGE}&Index=1&Body=hello&Media=nonsense\
             &ParticipantSid=nonsense&DateCreated=yesterday"
        ),
    )
    .unwrap();
    assert_eq!(webhook.unread, ["ParticipantSid", "Media", "DateCreated"]);
    let Event::MessageAdded(message) = webhook.event else {
        panic!("another event")
    };
    assert_eq!(message.body, Some("hello".into()));
    assert_eq!(message.dates.latest(), None);
}

#[test]
fn the_members_of_a_new_group_are_read_in_every_encoding() {
    let encodings = [
        "MessagingBinding.Address=%2B15555550103&MessagingBinding.Address=%2B15555550102",
        "MessagingBinding.Address=%2B15555550103%2C%2B15555550102",
        "MessagingBinding.Address=%2B15555550103%2C+%2B15555550102",
        "MessagingBinding.Address=%5B%2B15555550103%2C+%2B15555550102%5D",
        "MessagingBinding.Address=%5B%22%2B15555550103%22%2C%22%2B15555550102%22%5D",
    ];
    for encoding in encodings {
        let fields = format!(
            "{encoding}&MessagingBinding.AuthorAddress=%2B15555550101&MessageBody=caf%C3%A9&State=initializing&Source=SMS"
        );
        let Event::ConversationAdd(add) = read("onConversationAdd", &fields).event else {
            panic!("another event")
        };
        assert_eq!(
            texts(&add.binding.addresses),
            ["+15555550103", "+15555550102"],
            "{encoding}"
        );
        assert_eq!(add.binding.author_address, Some("+15555550101".into()));
        assert_eq!(add.state, Some(ConversationState::Initializing));
        assert_eq!(add.message_body, Some("café".into()));

        let fields = format!("ConversationSid={CONVERSATION}&{encoding}");
        let Event::ConversationAdded(added) = read("onConversationAdded", &fields).event else {
            panic!("another event")
        };
        assert_eq!(added.binding.addresses.len(), 2);
    }
}

#[test]
fn participants_have_the_shape_that_their_addresses_tell() {
    let shape = |fields: &str| {
        let fields = format!("ConversationSid={CONVERSATION}&ParticipantSid={PARTICIPANT}&{fields}");
        let Event::ParticipantAdded(event) = read("onParticipantAdded", &fields).event else {
            panic!("another event")
        };
        event.shape()
    };
    let number = |text: &str| text.parse().unwrap();
    assert_eq!(
        shape("MessagingBinding.Type=sms&MessagingBinding.Address=%2B15555550101"),
        Shape::Native {
            address: number("+15555550101")
        }
    );
    assert_eq!(
        shape("MessagingBinding.Type=SMS&MessagingBinding.ProjectedAddress=%5B%2B15555550100%5D&Identity="),
        Shape::Gateway {
            projected_address: number("+15555550100")
        }
    );
    assert_eq!(
        shape("Identity=agent-7&MessagingBinding.ProjectedAddress=%2B15555550100&RoleSid="),
        Shape::Projected {
            identity: "agent-7".into(),
            projected_address: number("+15555550100")
        }
    );
    assert_eq!(
        shape("Identity=agent-7"),
        Shape::Chat {
            identity: "agent-7".into()
        }
    );
}

#[test]
fn several_addresses_of_one_participant_are_not_guessed_from() {
    let fields = format!(
        "ConversationSid={CONVERSATION}&ParticipantSid={PARTICIPANT}\
         &MessagingBinding.Address=%2B15555550101&MessagingBinding.Address=%2B15555550102"
    );
    let webhook = parse("onParticipantAdded", &fields).unwrap();
    assert_eq!(webhook.unread, ["MessagingBinding.Address"]);
}

#[test]
fn a_state_change_is_read() {
    let fields = format!(
        "ConversationSid={CONVERSATION}&StateUpdated=2026-01-02T03%3A04%3A05.678Z\
         &StateFrom=initializing&StateTo=active&Reason=EVENT"
    );
    let Event::ConversationStateUpdated(state) = read("onConversationStateUpdated", &fields).event else {
        panic!("another event")
    };
    assert_eq!(state.state_from, Some(ConversationState::Initializing));
    assert_eq!(state.state_to, ConversationState::Active);
    assert_eq!(state.reason, Some(StateReason::Event));
}

#[test]
fn a_receipt_is_read_and_error_zero_is_none() {
    let fields = |more: &str| {
        format!(
            "ConversationSid={CONVERSATION}&MessageSid={MESSAGE}&ParticipantSid={PARTICIPANT}\
             &DeliveryReceiptSid=DY00000000000000000000000000000001\
             &ChannelMessageSid=SM00000000000000000000000000000001&DateUpdated=2026-01-02T03:04:05Z&{more}"
        )
    };
    let delivery = |more: &str| {
        let Event::DeliveryUpdated(event) = read("onDeliveryUpdated", &fields(more)).event else {
            panic!("another event")
        };
        event
    };
    let failed = delivery("Status=undelivered&ErrorCode=21610");
    assert_eq!(failed.status, DeliveryStatus::Undelivered);
    assert_eq!(failed.error_code, Some(21610));
    assert_eq!(
        failed.dates.latest().map(|time| time.precision),
        Some(Precision::Second)
    );
    assert_eq!(delivery("Status=delivered&ErrorCode=0").error_code, None);
    assert_eq!(delivery("Status=delivered&ErrorCode=").error_code, None);
}

#[test]
fn a_user_coming_online_is_read_in_its_own_spelling() {
    let Event::UserUpdated(user) = read(
        "onUserUpdated",
        "UserSid=US00000000000000000000000000000001&Identity=agent-7&isOnline=true&isNotifiable=false",
    )
    .event
    else {
        panic!("another event")
    };
    assert_eq!(user.is_online, Some(true));
    assert_eq!(user.is_notifiable, Some(false));
}

#[test]
fn a_removal_is_dated_by_itself() {
    let fields = format!(
        "ConversationSid={CONVERSATION}&ParticipantSid={PARTICIPANT}&DateCreated=2026-01-02T03:04:05.000Z\
         &DateUpdated=2026-01-02T03:04:06.000Z&DateRemoved=2026-01-02T03:04:07.000Z"
    );
    let Event::ParticipantRemoved(event) = read("onParticipantRemoved", &fields).event else {
        panic!("another event")
    };
    assert_eq!(event.dates.latest(), event.dates.removed);
    assert_eq!(
        event.dates.removed.unwrap().to_string(),
        "2026-01-02T03:04:07.000Z"
    );
}

#[test]
fn debug_prints_no_number_and_no_words() {
    let webhook = parse(
        "onMessageAdded",
        &format!(
            "ConversationSid={CONVERSATION}&MessageSid={MESSAGE}&Index=1&Body=secret&Author=%2B15555550101\
             &Attributes=%7B%22secret%22%3A1%7D&Surprise=secret"
        ),
    )
    .unwrap();
    let printed = format!("{webhook:?}");
    assert!(
        !printed.contains("secret") && !printed.contains("5555550101"),
        "{printed}"
    );
    assert!(printed.contains(CONVERSATION));
}
