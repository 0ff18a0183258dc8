//! Which webhooks are one and the same, however often and through whatever scope they come.
//!
//! The key is made of signed, decoded content alone. Headers are not signed, so Twilio's idempotency token takes no
//! part; `RetryCount` does not either, because it differs between the tries of one webhook. An exact repeat of a field
//! counts once, since Twilio's signature does not cover it.

use std::fmt::Write as _;

use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::ids::{AccountSid, ConversationSid, MessageSid, ParticipantSid, ReceiptSid, UserSid};
use crate::twilio::form::Form;
use crate::twilio::model::SourceTime;

/// The identity of a webhook: two forms with the same key say the same thing.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct DedupeKey {
    /// The first 16 bytes of a SHA-256, marked as UUID v8.
    pub id: Uuid,
    /// The parts of the key for people, without personal data. Not unambiguous; `id` is.
    pub text: String,
}

/// The key of a webhook's decoded form. Never fails: what is not understood is its own key by its whole content, and so
/// is what lacks something that the event cannot be placed without: a better one may come yet.
pub fn dedupe_key(content: &Form) -> DedupeKey {
    let event_type = single(content, "EventType").unwrap_or_default();
    let account_sid = single(content, "AccountSid").filter(|sid| AccountSid::try_from(*sid).is_ok());
    let subject = account_sid
        .and_then(|_| subject(content, event_type))
        .filter(|_| can_be_placed(content, event_type));
    let mut parts = vec![account_sid.unwrap_or_default().to_owned(), event_type.to_owned()];
    parts.extend(subject.unwrap_or_else(|| vec![content_hash(content)]));
    DedupeKey {
        id: id_of(&parts),
        text: parts.join("/"),
    }
}

/// What tells one event of a type from another; `None` where only the whole content does.
fn subject(content: &Form, event_type: &str) -> Option<Vec<String>> {
    let part = |key| single(content, key).map(str::to_owned);
    let with_hash = |sid: String, at: String| Some(vec![sid, at, content_hash(content)]);
    match event_type {
        "onMessageAdded" | "onMessageRemoved" => Some(vec![sid::<MessageSid>(content, "MessageSid")?]),
        "onMessageUpdated" => with_hash(sid::<MessageSid>(content, "MessageSid")?, part("DateUpdated")?),
        "onConversationAdded" | "onConversationRemoved" => {
            Some(vec![sid::<ConversationSid>(content, "ConversationSid")?])
        }
        "onConversationUpdated" => with_hash(
            sid::<ConversationSid>(content, "ConversationSid")?,
            part("DateUpdated")?,
        ),
        "onConversationStateUpdated" => Some(vec![
            sid::<ConversationSid>(content, "ConversationSid")?,
            part("StateUpdated")?,
            part("StateTo")?,
        ]),
        "onParticipantAdded" | "onParticipantRemoved" => {
            Some(vec![sid::<ParticipantSid>(content, "ParticipantSid")?])
        }
        "onParticipantUpdated" => with_hash(
            sid::<ParticipantSid>(content, "ParticipantSid")?,
            part("DateUpdated")?,
        ),
        "onDeliveryUpdated" => Some(vec![
            sid::<ReceiptSid>(content, "DeliveryReceiptSid")?,
            part("Status")?.to_ascii_lowercase(),
        ]),
        "onUserAdded" => Some(vec![sid::<UserSid>(content, "UserSid")?]),
        // Coming online is not an update of the user, so the time alone would hide it.
        "onUserUpdated" => with_hash(sid::<UserSid>(content, "UserSid")?, part("DateUpdated")?),
        _ => None,
    }
}

/// Whether the fields are there that `Webhook::parse` requires, and a time. Cheaper than to parse, since every webhook
/// is asked; a test holds both together.
fn can_be_placed(content: &Form, event_type: &str) -> bool {
    let in_a_conversation = || first::<ConversationSid>(content, "ConversationSid");
    let has_time = || {
        ["DateRemoved", "DateUpdated", "DateCreated"]
            .iter()
            .any(|key| first::<SourceTime>(content, key))
    };
    match event_type {
        "onMessageAdded" | "onMessageUpdated" | "onMessageRemoved" => {
            let index = content
                .get("Index")
                .is_some_and(|text| text.parse::<i64>().is_ok());
            in_a_conversation() && index && has_time()
        }
        "onConversationStateUpdated" => first::<SourceTime>(content, "StateUpdated"),
        "onParticipantAdded" | "onParticipantUpdated" | "onParticipantRemoved" => {
            in_a_conversation() && has_time()
        }
        "onDeliveryUpdated" => {
            in_a_conversation() && first::<MessageSid>(content, "MessageSid") && has_time()
        }
        _ => has_time(),
    }
}

/// Whether the first value of a key, which is the one that is read, is such a value.
fn first<T: for<'a> TryFrom<&'a str>>(content: &Form, key: &str) -> bool {
    content.get(key).is_some_and(|text| T::try_from(text).is_ok())
}

fn sid<S: for<'a> TryFrom<&'a str>>(content: &Form, key: &str) -> Option<String> {
    let text = single(content, key)?;
    S::try_from(text).ok().map(|_| text.to_owned())
}

/// The value of a key that is there once, or as exact repeats of itself, and is not blank.
fn single<'a>(content: &'a Form, key: &str) -> Option<&'a str> {
    let mut values = content.get_all(key);
    let value = values.next().filter(|value| !value.is_empty())?;
    values.all(|other| other == value).then_some(value)
}

fn content_hash(content: &Form) -> String {
    let mut fields: Vec<&(String, String)> = content
        .fields()
        .iter()
        .filter(|(key, _)| key != "RetryCount")
        .collect();
    fields.sort_unstable();
    fields.dedup();
    let parts = fields.into_iter().flat_map(|(key, value)| [key, value]);
    let mut text = String::new();
    for byte in digest(parts).iter().take(16) {
        write!(text, "{byte:02x}").expect("a string takes what is written to it");
    }
    text
}

fn id_of(parts: &[String]) -> Uuid {
    let digest = digest(parts);
    let bytes = digest.first_chunk::<16>().expect("a SHA-256 has 32 bytes");
    uuid::Builder::from_custom_bytes(*bytes).into_uuid()
}

/// Each part is led by its length, so that no other parts give the same bytes.
fn digest<'a>(parts: impl IntoIterator<Item = &'a String>) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::twilio::webhook::Webhook;

    const ACCOUNT: &str = "AC00000000000000000000000000000001";

    /// With what a webhook of that type has besides, where it is not given.
    fn form(event_type: &str, fields: &[(&str, &str)]) -> Form {
        let common = [
            ("AccountSid", ACCOUNT),
            ("EventType", event_type),
            ("RetryCount", "0"),
            CONVERSATION,
            MESSAGE,
            ("Index", "7"),
            ("DateCreated", "2026-01-02T03:04:05.678Z"),
        ];
        let given = |key| fields.iter().any(|(name, _)| *name == key);
        common
            .into_iter()
            .filter(|(key, _)| !given(*key))
            .chain(fields.iter().copied())
            .collect()
    }

    fn key(event_type: &str, fields: &[(&str, &str)]) -> DedupeKey {
        dedupe_key(&form(event_type, fields))
    }

    const MESSAGE: (&str, &str) = ("MessageSid", "IM00000000000000000000000000000001");
    const CONVERSATION: (&str, &str) = ("ConversationSid", "CH00000000000000000000000000000001");
    const PARTICIPANT: (&str, &str) = ("ParticipantSid", "MB00000000000000000000000000000001");
    const RECEIPT: (&str, &str) = ("DeliveryReceiptSid", "DY00000000000000000000000000000001");
    const USER: (&str, &str) = ("UserSid", "US00000000000000000000000000000001");
    const UPDATED: (&str, &str) = ("DateUpdated", "2026-01-02T03:04:05.678Z");

    #[test]
    fn a_message_is_added_once_whatever_else_the_webhook_says() {
        let first = key("onMessageAdded", &[MESSAGE, ("Body", "hello")]);
        assert_eq!(first.text, format!("{ACCOUNT}/onMessageAdded/{}", MESSAGE.1));
        assert_eq!(first, key("onMessageAdded", &[("Source", "SMS"), MESSAGE]));
        assert_ne!(first, key("onMessageRemoved", &[MESSAGE]));
    }

    #[test]
    fn each_event_is_keyed_by_what_it_is_about() {
        let text = |event_type: &str, fields: &[(&str, &str)]| {
            key(event_type, fields).text.split_off(ACCOUNT.len() + 1)
        };
        assert_eq!(
            text(
                "onConversationStateUpdated",
                &[
                    CONVERSATION,
                    ("StateUpdated", "2026-01-02T03:04:05.678Z"),
                    ("StateTo", "closed")
                ]
            ),
            format!(
                "onConversationStateUpdated/{}/2026-01-02T03:04:05.678Z/closed",
                CONVERSATION.1
            )
        );
        assert_eq!(
            text("onDeliveryUpdated", &[RECEIPT, ("Status", "DELIVERED"), MESSAGE]),
            format!("onDeliveryUpdated/{}/delivered", RECEIPT.1)
        );
        assert_eq!(
            text("onParticipantRemoved", &[CONVERSATION, PARTICIPANT]),
            format!("onParticipantRemoved/{}", PARTICIPANT.1)
        );
        assert_eq!(
            text("onConversationAdded", &[CONVERSATION, PARTICIPANT]),
            format!("onConversationAdded/{}", CONVERSATION.1)
        );
    }

    #[test]
    fn two_updates_differ_by_time_or_by_content() {
        for (event_type, subject) in [
            ("onMessageUpdated", MESSAGE),
            ("onConversationUpdated", CONVERSATION),
            ("onParticipantUpdated", PARTICIPANT),
            ("onUserUpdated", USER),
        ] {
            let one = key(event_type, &[subject, UPDATED, ("Attributes", "{}")]);
            let later = ("DateUpdated", "2026-01-02T03:04:05.679Z");
            assert_ne!(one, key(event_type, &[subject, later, ("Attributes", "{}")]));
            assert_ne!(one, key(event_type, &[subject, UPDATED, ("Attributes", "[]")]));
            assert_eq!(one, key(event_type, &[("Attributes", "{}"), UPDATED, subject]));
            assert!(
                one.text.contains(subject.1) && one.text.contains(UPDATED.1),
                "{}",
                one.text
            );
        }
    }

    #[test]
    fn steps_of_one_receipt_are_different_webhooks() {
        let step = |status| key("onDeliveryUpdated", &[RECEIPT, ("Status", status)]);
        assert_ne!(step("sent"), step("delivered"));
        assert_eq!(step("sent"), step("sent"));
    }

    #[test]
    fn what_is_not_understood_is_keyed_by_its_content() {
        for (event_type, fields) in [
            (
                "onConversationAdd",
                vec![("MessagingBinding.Address", "+15555550101")],
            ),
            ("onSomethingNew", vec![CONVERSATION]),
            ("onMessageAdded", vec![("MessageSid", "nonsense")]),
            ("onMessageAdded", vec![("MessageSid", "")]),
            ("onMessageUpdated", vec![MESSAGE]),
            (
                "onMessageAdded",
                vec![MESSAGE, ("MessageSid", "IM00000000000000000000000000000002")],
            ),
        ] {
            let one = key(event_type, &fields);
            assert_eq!(one, key(event_type, &fields));
            let mut more = fields.clone();
            more.push(("Body", "x"));
            assert_ne!(one, key(event_type, &more), "{}", one.text);
        }
    }

    #[test]
    fn what_cannot_be_read_or_placed_does_not_own_the_key_of_a_better_one() {
        let whole = [
            CONVERSATION,
            MESSAGE,
            PARTICIPANT,
            RECEIPT,
            USER,
            ("Index", "7"),
            ("Status", "sent"),
            ("StateTo", "closed"),
            ("StateUpdated", "2026-01-02T03:04:05.678Z"),
            ("DateCreated", "2026-01-02T03:04:05.678Z"),
        ];
        for event_type in [
            "onConversationAdded",
            "onConversationRemoved",
            "onConversationStateUpdated",
            "onMessageAdded",
            "onMessageRemoved",
            "onParticipantAdded",
            "onParticipantRemoved",
            "onDeliveryUpdated",
            "onUserAdded",
        ] {
            let good = key(event_type, &whole);
            for (place, (broken, _)) in whole.iter().enumerate() {
                for wrong in ["", "nonsense"] {
                    let mut fields = whole;
                    fields[place].1 = wrong;
                    let is_time = *broken == "DateCreated" && event_type != "onConversationStateUpdated";
                    if is_time || Webhook::parse(&form(event_type, &fields)).is_err() {
                        let ill_formed = key(event_type, &fields);
                        assert_ne!(good, ill_formed, "{event_type} {broken}={wrong}");
                        let mut more = fields.to_vec();
                        more.push(("Body", "x"));
                        assert_ne!(
                            ill_formed,
                            key(event_type, &more),
                            "{event_type} {broken}={wrong}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_account_takes_part() {
        let other = Form::from_iter([
            ("AccountSid", "AC00000000000000000000000000000002"),
            ("EventType", "onMessageAdded"),
            MESSAGE,
        ]);
        assert_ne!(dedupe_key(&other), key("onMessageAdded", &[MESSAGE]));
    }

    #[test]
    fn an_exact_repeat_of_a_field_changes_nothing_since_it_is_not_signed() {
        let address = ("MessagingBinding.Address", "+15555550101");
        assert_eq!(
            key("onConversationAdd", &[address]),
            key("onConversationAdd", &[address, address])
        );
        assert_eq!(
            key("onMessageAdded", &[MESSAGE]),
            key("onMessageAdded", &[MESSAGE, MESSAGE])
        );
    }

    #[test]
    fn fields_that_read_alike_when_joined_are_told_apart() {
        assert_ne!(
            key("onSomethingNew", &[("ab", "c"), ("d", "")]),
            key("onSomethingNew", &[("a", "bc"), ("d", "")])
        );
        assert_ne!(
            key(
                "onConversationStateUpdated",
                &[CONVERSATION, ("StateUpdated", "a/b"), ("StateTo", "c")]
            )
            .id,
            key(
                "onConversationStateUpdated",
                &[CONVERSATION, ("StateUpdated", "a"), ("StateTo", "b/c")]
            )
            .id
        );
    }

    #[test]
    fn the_text_repeats_no_number_and_no_words() {
        let text = key(
            "onConversationAdd",
            &[
                ("MessageBody", "secret"),
                ("MessagingBinding.AuthorAddress", "+15555550101"),
            ],
        )
        .text;
        assert!(!text.contains("secret") && !text.contains("5555550101"), "{text}");
    }

    proptest! {
        #[test]
        fn neither_the_order_nor_the_try_takes_part(
            mut fields in prop::collection::vec(("[A-Za-z]{1,4}", ".{0,4}"), 0..8),
            retry in 0_u8..9,
            event_type in prop::sample::select(vec!["onConversationAdd", "onMessageUpdated", "onNew"]),
        ) {
            fields.push(("EventType".to_owned(), event_type.to_owned()));
            fields.push(("AccountSid".to_owned(), ACCOUNT.to_owned()));
            let one = dedupe_key(&Form::from(fields.clone()));
            fields.reverse();
            fields.push(("RetryCount".to_owned(), retry.to_string()));
            prop_assert_eq!(one, dedupe_key(&Form::from(fields)));
        }
    }
}
