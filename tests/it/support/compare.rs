//! The mirror against what the emulated account holds, resource by resource.

use hookswitch::sandbox::snapshot;

use super::app::TestApp;
use super::tables;

/// Every conversation, participant, message and receipt that Twilio holds is in the mirror as it is there, and nothing
/// else is, unless as a tombstone. The ledger names the holder of every line.
pub(crate) async fn assert_mirror_equals_sandbox(app: &TestApp) {
    let (mut conversations, mut participants, mut messages, mut receipts, mut lines) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for one in app.sandbox.conversations() {
        conversations.push(conversation(&one));
        participants.extend(one.participants.iter().map(|member| participant(&one, member)));
        messages.extend(one.messages.iter().map(|written| message(&one, written)));
        receipts.extend(
            one.messages
                .iter()
                .flat_map(|written| written.receipts.iter().map(|told| receipt(written, told))),
        );
        if one.state != "closed" {
            lines.extend(one.participants.iter().filter_map(|member| line(&one, member)));
        }
    }
    for (what, mut expected, sql) in [
        ("conversations", conversations, CONVERSATIONS),
        ("participants", participants, PARTICIPANTS),
        ("messages", messages, MESSAGES),
        ("receipts", receipts, RECEIPTS),
        ("lines", lines, LINES),
    ] {
        let mut found = tables::rows(app, sql).await;
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "{what}: the mirror, and what Twilio has");
    }
    tables::assert_ledger_is_whole(app).await;
}

const CONVERSATIONS: &str = "select concat_ws('|', conversation_sid, service_sid, messaging_service_sid,
    coalesce(friendly_name, '-'), coalesce(unique_name, '-'), attributes, state) from conversation where removed_at is null";
const PARTICIPANTS: &str = "select concat_ws('|', conversation_sid, participant_sid, coalesce(identity, '-'),
    coalesce(address, '-'), coalesce(proxy_address, '-'), coalesce(projected_address, '-'), participant.attributes,
    coalesce(role_sid, '-'), coalesce(last_read_message_index::text, '-')) from participant
    join conversation using (conversation_sid)
    where participant.removed_at is null and conversation.removed_at is null";
const MESSAGES: &str = "select concat_ws('|', conversation_sid, message_sid, message_index, author,
    coalesce(participant_sid, '-'), coalesce(body, '-'), message.attributes,
    (select coalesce(string_agg(item ->> 'sid', ','), '') from jsonb_array_elements(media::jsonb) as item)) from message
    join conversation using (conversation_sid)
    where message.removed_at is null and conversation.removed_at is null";
const RECEIPTS: &str = "select concat_ws('|', message_sid, delivery_receipt_sid, delivery_receipt.participant_sid, channel_message_sid,
    status, coalesce(error_code, '0')) from delivery_receipt join message using (conversation_sid, message_sid)
    join conversation using (conversation_sid)
    where message.removed_at is null and conversation.removed_at is null";
// A line whose last participant left is a range that lasts, too; Twilio has nothing to compare it with.
const LINES: &str = "select concat_ws('|', conversation_sid, line, coalesce(holder, '-')) from tenure
    where superseded_at is null and upper_inf(during) and cause <> 'removed'";

fn conversation(one: &snapshot::Conversation) -> String {
    let name = |name: &Option<String>| name.clone().unwrap_or_else(|| "-".to_owned());
    format!(
        "{}|{}|{}|{}|{}|{}|{}",
        one.sid,
        one.service_sid,
        one.messaging_service_sid,
        name(&one.friendly_name),
        name(&one.unique_name),
        one.attributes,
        one.state
    )
}

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn participant(of: &snapshot::Conversation, one: &snapshot::Participant) -> String {
    format!(
        "{}|{}|{}|{}|{}|{}|{}|{}|{}",
        of.sid,
        one.sid,
        or_dash(one.identity.as_ref()),
        or_dash(one.address.as_ref()),
        or_dash(one.proxy_address.as_ref()),
        or_dash(one.projected_address.as_ref()),
        one.attributes,
        or_dash(one.role_sid.as_ref()),
        or_dash(one.last_read_message_index)
    )
}

fn message(of: &snapshot::Conversation, one: &snapshot::Message) -> String {
    let media: Vec<String> = one.media.iter().map(|item| item.sid.to_string()).collect();
    format!(
        "{}|{}|{}|{}|{}|{}|{}|{}",
        of.sid,
        one.sid,
        one.index,
        one.author,
        or_dash(one.participant_sid.as_ref()),
        or_dash(one.body.as_ref().filter(|body| !body.is_empty())),
        one.attributes,
        media.join(",")
    )
}

fn receipt(message: &snapshot::Message, one: &snapshot::Receipt) -> String {
    format!(
        "{}|{}|{}|{}|{}|{}",
        message.sid, one.sid, one.participant_sid, one.channel_message_sid, one.status, one.error_code
    )
}

fn line(of: &snapshot::Conversation, one: &snapshot::Participant) -> Option<String> {
    let line = one.projected_address.as_ref()?;
    Some(format!("{}|{line}|{}", of.sid, or_dash(one.identity.as_ref())))
}
