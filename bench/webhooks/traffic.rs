//! The webhooks of a busy account as whole HTTP requests, signed ahead so that signing is not measured: 60 % messages,
//! 15 % deliveries, 15 % participants, 10 % conversations, each one different.

use std::ops::Range;

use hookswitch::twilio::signature;
use jiff::Timestamp;

pub(crate) const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub(crate) const SERVICE: &str = "IS00000000000000000000000000000001";
pub(crate) const MESSAGING_SERVICE: &str = "MG00000000000000000000000000000001";
pub(crate) const TOKEN: &str = "bench-token";
/// What Twilio calls, and signs. Without a port, as it is in life: Twilio's library for Node computes two signatures where
/// there is one.
pub(crate) const HOST: &str = "hooks.example.com";
const PATH: &str = "/webhooks/twilio/conversations";
/// 2026-01-02T03:04:05Z; the webhooks lie a millisecond apart.
const BEGIN_MS: i64 = 1_767_323_045_000;

type Fields = Vec<(String, String)>;

/// Every conversation as it is added, so that what follows finds its parent.
pub(crate) fn opening(conversations: u64) -> Vec<Vec<u8>> {
    (0..conversations)
        .map(|number| request(&conversation_event("onConversationAdded", number, 0)))
        .collect()
}

/// The webhooks of these numbers, spread evenly over the conversations. A number is never used twice on a database.
pub(crate) fn mixed(conversations: u64, numbers: Range<u64>) -> Vec<Vec<u8>> {
    numbers
        .map(|number| request(&event(conversations, number)))
        .collect()
}

/// The conversation and the message that this webhook adds, if it does.
pub(crate) fn added_message(conversations: u64, number: u64) -> Option<(String, String)> {
    let fields = event(conversations, number);
    let value = |key| {
        fields
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.clone())
    };
    (value("EventType")? == "onMessageAdded")
        .then(|| Some((value("ConversationSid")?, value("MessageSid")?)))?
}

pub(crate) fn conversation_sid(conversation: u64) -> String {
    sid("CH", conversation)
}

/// The form of a message, for what inserts one without us.
pub(crate) fn sample_form() -> String {
    encoded(&message(1, 1))
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Message,
    Delivery,
    Participant,
    Conversation,
}

/// Of twenty in a row, twelve, three, three and two, and for each conversation in another order.
fn kind(conversations: u64, number: u64) -> Kind {
    match (number * 7 + number / conversations * 3) % 20 {
        0..12 => Kind::Message,
        12..15 => Kind::Delivery,
        15..18 => Kind::Participant,
        _ => Kind::Conversation,
    }
}

fn event(conversations: u64, number: u64) -> Fields {
    let conversation = number % conversations;
    match kind(conversations, number) {
        Kind::Message => message(conversation, number),
        Kind::Delivery => match earlier_message(conversations, number) {
            Some(of) => delivery(conversation, of, number),
            None => message(conversation, number),
        },
        Kind::Participant => participant(conversation, number),
        Kind::Conversation => conversation_event("onConversationUpdated", conversation, number),
    }
}

/// The last message in the same conversation before this webhook.
fn earlier_message(conversations: u64, number: u64) -> Option<u64> {
    (1..=20)
        .filter_map(|rounds| number.checked_sub(rounds * conversations))
        .find(|earlier| *earlier > 0 && kind(conversations, *earlier) == Kind::Message)
}

fn message(conversation: u64, number: u64) -> Fields {
    fields(
        "onMessageAdded",
        conversation,
        &[
            ("MessageSid", sid("IM", number)),
            ("Index", number.to_string()),
            ("Author", "+15555550101".to_owned()),
            (
                "Body",
                format!("The inspection went well, can we move the closing to the {number}th?"),
            ),
            ("ParticipantSid", sid("MB", conversation * 4)),
            ("Attributes", "{}".to_owned()),
            ("Source", "SMS".to_owned()),
            ("DateCreated", time(number)),
        ],
    )
}

fn delivery(conversation: u64, of: u64, number: u64) -> Fields {
    fields(
        "onDeliveryUpdated",
        conversation,
        &[
            ("MessageSid", sid("IM", of)),
            ("DeliveryReceiptSid", sid("DY", number)),
            ("ChannelMessageSid", sid("SM", number)),
            ("ParticipantSid", sid("MB", conversation * 4)),
            ("Status", "delivered".to_owned()),
            ("ErrorCode", "0".to_owned()),
            ("DateCreated", time(of)),
            ("DateUpdated", time(number)),
        ],
    )
}

fn participant(conversation: u64, number: u64) -> Fields {
    fields(
        "onParticipantUpdated",
        conversation,
        &[
            ("ParticipantSid", sid("MB", conversation * 4 + number % 4)),
            ("Attributes", format!("{{\"seen\":{number}}}")),
            ("MessagingBinding.Type", "sms".to_owned()),
            (
                "MessagingBinding.Address",
                format!("+1555555{:04}", conversation % 10_000),
            ),
            ("DateCreated", time(0)),
            ("DateUpdated", time(number)),
        ],
    )
}

fn conversation_event(event_type: &str, conversation: u64, number: u64) -> Fields {
    fields(
        event_type,
        conversation,
        &[
            ("FriendlyName", format!("Home-buying journey {number}")),
            ("Attributes", "{}".to_owned()),
            ("State", "active".to_owned()),
            ("Source", "API".to_owned()),
            ("DateCreated", time(0)),
            ("DateUpdated", time(number)),
        ],
    )
}

fn fields(event_type: &str, conversation: u64, own: &[(&str, String)]) -> Fields {
    let common = [
        ("AccountSid", ACCOUNT.to_owned()),
        ("ChatServiceSid", SERVICE.to_owned()),
        ("EventType", event_type.to_owned()),
        ("RetryCount", "0".to_owned()),
        ("ConversationSid", sid("CH", conversation)),
    ];
    let all = common.iter().chain(own);
    all.map(|(key, value)| ((*key).to_owned(), value.clone()))
        .collect()
}

fn sid(prefix: &str, number: u64) -> String {
    format!("{prefix}{number:032x}")
}

fn time(number: u64) -> String {
    let at_ms = BEGIN_MS + i64::try_from(number).expect("far fewer webhooks than milliseconds");
    Timestamp::from_millisecond(at_ms)
        .expect("in this century")
        .to_string()
}

fn encoded(fields: &Fields) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(fields)
        .finish()
}

fn request(fields: &Fields) -> Vec<u8> {
    let signature = signature::sign(TOKEN, &format!("https://{HOST}{PATH}"), fields);
    let body = encoded(fields);
    format!(
        "POST {PATH} HTTP/1.1\r\nhost: {HOST}\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         x-twilio-signature: {signature}\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}
