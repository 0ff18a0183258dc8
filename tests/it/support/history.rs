//! Random histories of group texts, as Twilio would tell them: every change as the form of its webhook, with the fields
//! that "Conversations Webhooks" lists for it, and the state after it as REST shows it.

use hookswitch::mirror::{Change, project};
use hookswitch::twilio::model;
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::json;

use super::app::{ACCOUNT, LINE, OTHER_LINE};

const SERVICE: &str = "IS00000000000000000000000000000001";
const MESSAGING_SERVICE: &str = "MG00000000000000000000000000000001";
const STATUSES: [&str; 5] = ["sent", "delivered", "read", "undelivered", "failed"];

/// One thing that happens; what is not possible is skipped.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Op {
    pub(crate) what: u8,
    pub(crate) which: u8,
    pub(crate) detail: u8,
    pub(crate) pause_ms: i64,
}

/// `pauses` are the times between two changes, in milliseconds; 0 makes ties.
pub(crate) fn ops(
    pauses: &'static [i64],
    size: impl Into<proptest::collection::SizeRange>,
) -> impl Strategy<Value = Vec<Op>> {
    let op = (0u8..20, any::<u8>(), any::<u8>(), prop::sample::select(pauses)).prop_map(
        |(what, which, detail, pause_ms)| Op {
            what,
            which,
            detail,
            pause_ms,
        },
    );
    prop::collection::vec(op, size)
}

/// A webhook's form.
pub(crate) type Form = Vec<(String, String)>;

/// What was told, and what was so after it.
pub(crate) struct Told {
    pub(crate) form: Form,
    /// The conversation is gone, or one of its participants is: no list of what is there tells that again.
    pub(crate) is_removal: bool,
    pub(crate) after: Twilio,
}

/// What Twilio holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Twilio {
    now_ms: i64,
    serial: u32,
    pub(crate) conversations: Vec<Conversation>,
    users: Vec<(String, String, i64)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Conversation {
    pub(crate) sid: String,
    pub(crate) state: &'static str,
    name: Option<String>,
    autocreated: bool,
    created: i64,
    updated: i64,
    pub(crate) removed: bool,
    pub(crate) participants: Vec<Participant>,
    pub(crate) messages: Vec<Message>,
    index: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Participant {
    pub(crate) sid: String,
    pub(crate) identity: Option<String>,
    address: Option<String>,
    proxy: Option<String>,
    pub(crate) projected: Option<String>,
    attributes: String,
    horizon: Option<u32>,
    created: i64,
    updated: i64,
}

#[derive(Debug, Clone)]
pub(crate) struct Message {
    pub(crate) sid: String,
    index: u32,
    author: String,
    participant: Option<String>,
    body: String,
    media: bool,
    created: i64,
    updated: i64,
    receipts: Vec<(String, String, usize, i64)>,
}

/// Plays the operations on one to three conversations, the first things of which are their creation.
pub(crate) fn play(ops: &[Op], conversations: u8) -> Vec<Told> {
    let mut twilio = Twilio {
        now_ms: 1_767_322_800_100,
        ..Twilio::default()
    };
    let mut told = Vec::new();
    for number in 0..conversations {
        let form = twilio.create(number);
        told.push(Told {
            form,
            is_removal: false,
            after: twilio.clone(),
        });
    }
    for op in ops {
        twilio.now_ms += op.pause_ms;
        if let Some((form, is_removal)) = twilio.apply(*op) {
            told.push(Told {
                form,
                is_removal,
                after: twilio.clone(),
            });
        }
    }
    told
}

fn millis(at: i64) -> String {
    let at = Timestamp::from_millisecond(at).unwrap();
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

fn seconds(at: i64) -> String {
    let at = Timestamp::from_millisecond(at).unwrap();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Collects the fields of a form.
struct Fields(Form);

impl Fields {
    fn new(event: &str, source: Option<&str>) -> Self {
        let mut fields = Self(Vec::new());
        fields.add("AccountSid", ACCOUNT).add("EventType", event);
        fields.add("RetryCount", "0").maybe("Source", source);
        fields
    }

    fn add(&mut self, key: &str, value: impl Into<String>) -> &mut Self {
        self.0.push((key.to_owned(), value.into()));
        self
    }

    fn maybe(&mut self, key: &str, value: Option<impl Into<String>>) -> &mut Self {
        if let Some(value) = value {
            self.add(key, value);
        }
        self
    }
}

impl Twilio {
    fn sid(&mut self, prefix: &str) -> String {
        self.serial += 1;
        format!("{prefix}{:032x}", self.serial)
    }

    fn create(&mut self, number: u8) -> Form {
        let conversation = Conversation {
            sid: self.sid("CH"),
            state: "initializing",
            name: (number != 1).then(|| format!("Group {number}")),
            autocreated: number == 1,
            created: self.now_ms,
            updated: self.now_ms,
            removed: false,
            participants: Vec::new(),
            messages: Vec::new(),
            index: 0,
        };
        let mut fields = conversation.fields("onConversationAdded", None);
        if conversation.autocreated {
            fields.0.retain(|(key, _)| key != "Source");
            fields.add("Source", "SMS");
            fields.add("MessagingBinding.Address", LINE);
            fields.add("MessagingBinding.Address", "+15555550101");
            fields.add("MessagingBinding.AuthorAddress", "+15555550102");
        }
        self.conversations.push(conversation);
        fields.0
    }

    fn apply(&mut self, op: Op) -> Option<(Form, bool)> {
        let place = usize::from(op.which) % self.conversations.len();
        if self.conversations[place].removed {
            return None;
        }
        let keep = |form| Some((form, false));
        match op.what {
            0 | 1 => keep(self.join(place, op.detail)),
            2..=5 => self.change_participant(place, op).and_then(keep),
            6 => self.leave(place, op.detail).map(|form| (form, true)),
            7 | 8 | 16 => keep(self.write(place, op.detail)),
            9 => self.edit(place, op.detail).and_then(keep),
            10 => self.erase(place, op.detail).map(|form| (form, true)),
            11 | 17 | 18 => self.carry(place, op.detail).and_then(keep),
            12 => keep(self.rename(place, op.detail)),
            13 | 19 => self.change_state(place, op.detail).and_then(keep),
            14 => keep(self.user(op.detail)),
            _ => self.end(place, op.detail),
        }
    }

    fn join(&mut self, place: usize, detail: u8) -> Form {
        let sid = self.sid("MB");
        let (now, handset) = (self.now_ms, format!("+155555501{:02}", detail % 100));
        let conversation = &mut self.conversations[place];
        let lines = [LINE, OTHER_LINE];
        let line = || Some(lines[usize::from(detail / 8) % 2].to_owned());
        let identity = || Some(format!("agent-{}", detail / 16 % 4));
        let (identity, address, proxy, projected) = match detail % 8 {
            0 | 1 => (None, Some(handset), None, None),
            2..=4 => (identity(), None, None, line()),
            5 => (None, None, None, line()),
            6 => (None, Some(handset), line(), None),
            _ => (identity(), None, None, None),
        };
        let participant = Participant {
            sid,
            identity,
            address,
            proxy,
            projected,
            attributes: "{}".to_owned(),
            horizon: None,
            created: now,
            updated: now,
        };
        let form = participant
            .fields("onParticipantAdded", &conversation.sid, None)
            .0;
        conversation.participants.push(participant);
        form
    }

    fn change_participant(&mut self, place: usize, op: Op) -> Option<Form> {
        let now = self.now_ms;
        let conversation = &mut self.conversations[place];
        let count = conversation.participants.len();
        let participant = conversation
            .participants
            .get_mut(usize::from(op.detail) % count.max(1))?;
        let sid = conversation.sid.clone();
        participant.updated = now;
        match (op.what, &participant.projected) {
            (2..=4, Some(_)) => participant.identity = Some(format!("agent-{}", op.detail / 16 % 4)),
            (_, Some(_)) if op.detail > 200 => participant.projected = Some(OTHER_LINE.to_owned()),
            _ => {
                participant.attributes = format!(r#"{{"note":{}}}"#, op.detail);
                participant.horizon = Some(u32::from(op.detail));
            }
        }
        Some(participant.fields("onParticipantUpdated", &sid, None).0)
    }

    fn leave(&mut self, place: usize, detail: u8) -> Option<Form> {
        let now = self.now_ms;
        let conversation = &mut self.conversations[place];
        if conversation.participants.is_empty() {
            return None;
        }
        let at = usize::from(detail) % conversation.participants.len();
        let participant = conversation.participants.remove(at);
        Some(
            participant
                .fields("onParticipantRemoved", &conversation.sid, Some(now))
                .0,
        )
    }

    fn write(&mut self, place: usize, detail: u8) -> Form {
        let sid = self.sid("IM");
        let now = self.now_ms;
        let conversation = &mut self.conversations[place];
        let writers = &conversation.participants;
        let writer = writers.get(usize::from(detail) % writers.len().max(1));
        let author = writer.and_then(|one| one.identity.clone().or(one.address.clone()));
        conversation.index += 1 + u32::from(detail % 3);
        let message = Message {
            sid,
            index: conversation.index,
            author: author.unwrap_or_else(|| "system".to_owned()),
            participant: writer.map(|one| one.sid.clone()),
            body: if detail.is_multiple_of(5) {
                String::new()
            } else {
                format!("text {detail}")
            },
            media: detail.is_multiple_of(5),
            created: now,
            updated: now,
            receipts: Vec::new(),
        };
        let form = message.fields("onMessageAdded", &conversation.sid, None).0;
        conversation.messages.push(message);
        form
    }

    fn edit(&mut self, place: usize, detail: u8) -> Option<Form> {
        let now = self.now_ms;
        let conversation = &mut self.conversations[place];
        let count = conversation.messages.len().max(1);
        let message = conversation.messages.get_mut(usize::from(detail) % count)?;
        message.body = format!("edited {detail}");
        message.updated = now;
        Some(message.fields("onMessageUpdated", &conversation.sid, None).0)
    }

    fn erase(&mut self, place: usize, detail: u8) -> Option<Form> {
        let now = self.now_ms;
        let conversation = &mut self.conversations[place];
        if conversation.messages.is_empty() {
            return None;
        }
        let at = usize::from(detail) % conversation.messages.len();
        let message = conversation.messages.remove(at);
        Some(message.fields("onMessageRemoved", &conversation.sid, Some(now)).0)
    }

    /// The next status of a message on its way to one of two recipients.
    fn carry(&mut self, place: usize, detail: u8) -> Option<Form> {
        let (receipt_sid, now) = (self.sid("DY"), self.now_ms);
        let conversation = &mut self.conversations[place];
        let count = conversation.messages.len().max(1);
        let message = conversation.messages.get_mut(usize::from(detail) % count)?;
        let recipient = format!("MB{:032x}", 0xf00 + u32::from(detail / 8 % 2));
        let known = message.receipts.iter_mut().find(|(_, to, _, _)| *to == recipient);
        let (sid, status, created) = match known {
            None => {
                message
                    .receipts
                    .push((receipt_sid.clone(), recipient.clone(), 0, now));
                (receipt_sid, 0, now)
            }
            Some((_, _, status, _)) if *status >= 2 => return None,
            Some((sid, _, status, created)) => {
                *status += if detail > 220 { 3 } else { 1 };
                (sid.clone(), *status, *created)
            }
        };
        let mut fields = Fields::new("onDeliveryUpdated", None);
        fields
            .add("ConversationSid", &conversation.sid)
            .add("ChatServiceSid", SERVICE)
            .add("MessageSid", &message.sid)
            .add("DeliveryReceiptSid", sid)
            .add("ChannelMessageSid", "SM00000000000000000000000000000001")
            .add("ParticipantSid", recipient)
            .add("Status", STATUSES[status])
            .maybe("ErrorCode", (status >= 3).then_some("30006"))
            .add("DateCreated", millis(created))
            .add("DateUpdated", millis(now));
        Some(fields.0)
    }

    fn rename(&mut self, place: usize, detail: u8) -> Form {
        let now = self.now_ms;
        let conversation = &mut self.conversations[place];
        conversation.name = (!detail.is_multiple_of(7)).then(|| format!("Name {detail}"));
        conversation.updated = now;
        conversation.fields("onConversationUpdated", None).0
    }

    fn change_state(&mut self, place: usize, detail: u8) -> Option<Form> {
        let to = match (self.conversations[place].state, detail % 2) {
            ("closed", _) => return None,
            ("active", 0) => "inactive",
            _ => "active",
        };
        self.state(place, to)
    }

    fn state(&mut self, place: usize, to: &'static str) -> Option<Form> {
        let now = self.now_ms;
        let conversation = &mut self.conversations[place];
        let from = std::mem::replace(&mut conversation.state, to);
        conversation.updated = now;
        if from == to {
            return None;
        }
        let mut fields = Fields::new("onConversationStateUpdated", Some("API"));
        fields
            .add("ConversationSid", &conversation.sid)
            .add("ChatServiceSid", SERVICE)
            .add("MessagingServiceSid", MESSAGING_SERVICE)
            .add("StateUpdated", millis(now))
            .add("StateFrom", from)
            .add("StateTo", to)
            .add("Reason", "EVENT");
        Some(fields.0)
    }

    fn user(&mut self, detail: u8) -> Form {
        let now = self.now_ms;
        let identity = format!("agent-{}", detail % 3);
        let known = self.users.iter().find(|(_, who, _)| *who == identity).cloned();
        let (sid, _, created) = known.clone().unwrap_or_else(|| {
            let user = (self.sid("US"), identity.clone(), now);
            self.users.push(user.clone());
            user
        });
        let event = if known.is_some() {
            "onUserUpdated"
        } else {
            "onUserAdded"
        };
        let mut fields = Fields::new(event, Some("API"));
        fields
            .add("ChatServiceSid", SERVICE)
            .add("UserSid", sid)
            .add("DateCreated", millis(created))
            .add("Identity", identity)
            .add("RoleSid", "RL00000000000000000000000000000001")
            .add("Attributes", "{}")
            .add("FriendlyName", format!("Agent {detail}"));
        if known.is_some() {
            fields.add("DateUpdated", millis(now));
            fields.add("isOnline", detail.is_multiple_of(2).to_string());
            fields.add("isNotifiable", "false");
        }
        fields.0
    }

    /// Rarely: the conversation is closed, or deleted.
    fn end(&mut self, place: usize, detail: u8) -> Option<(Form, bool)> {
        if detail < 80 && self.conversations[place].state != "closed" {
            return Some((self.state(place, "closed")?, false));
        }
        if detail < 230 {
            return Some((self.rename(place, detail), false));
        }
        let now = self.now_ms;
        let conversation = &mut self.conversations[place];
        conversation.removed = true;
        conversation.updated = now;
        Some((conversation.fields("onConversationRemoved", Some(now)).0, true))
    }
}

impl Conversation {
    fn fields(&self, event: &str, removed: Option<i64>) -> Fields {
        let mut fields = Fields::new(event, Some("API"));
        fields
            .add("ConversationSid", &self.sid)
            .add("DateCreated", millis(self.created))
            .add("DateUpdated", millis(self.updated))
            .maybe("DateRemoved", removed.map(millis))
            .maybe("FriendlyName", self.name.as_ref())
            .add("Attributes", "{}")
            .add("ChatServiceSid", SERVICE)
            .add("MessagingServiceSid", MESSAGING_SERVICE)
            .add("State", self.state);
        fields
    }

    /// What REST says of the conversation, its participants and its messages, to the second.
    pub(crate) fn as_read(&self) -> Vec<Change> {
        let conversation: model::Conversation = serde_json::from_value(json!({
            "sid": self.sid, "account_sid": ACCOUNT, "chat_service_sid": SERVICE,
            "messaging_service_sid": MESSAGING_SERVICE, "friendly_name": self.name, "unique_name": null,
            "attributes": "{}", "state": self.state, "date_created": seconds(self.created),
            "date_updated": seconds(self.updated),
        }))
        .unwrap();
        let mut changes = project::conversation(&conversation);
        for one in &self.participants {
            let kind = (one.address.is_some() || one.projected.is_some()).then_some("sms");
            let participant: model::Participant = serde_json::from_value(json!({
                "sid": one.sid, "account_sid": ACCOUNT, "conversation_sid": self.sid, "identity": one.identity,
                "attributes": one.attributes, "role_sid": null, "last_read_message_index": one.horizon,
                "messaging_binding": {
                    "type": kind, "address": one.address, "proxy_address": one.proxy,
                    "projected_address": one.projected,
                },
                "date_created": seconds(one.created), "date_updated": seconds(one.updated),
            }))
            .unwrap();
            changes.extend(project::participant(&participant));
        }
        for one in &self.messages {
            let media = one.media.then(|| {
                json!([{ "sid": "ME00000000000000000000000000000001", "filename": null,
                    "content_type": "image/jpeg", "size": 42 }])
            });
            let message: model::Message = serde_json::from_value(json!({
                "sid": one.sid, "account_sid": ACCOUNT, "conversation_sid": self.sid, "index": one.index,
                "author": one.author, "participant_sid": one.participant, "body": one.body, "media": media,
                "attributes": "{}", "date_created": seconds(one.created), "date_updated": seconds(one.updated),
            }))
            .unwrap();
            changes.extend(project::message(&message));
        }
        changes
    }
}

impl Participant {
    fn fields(&self, event: &str, conversation_sid: &str, removed: Option<i64>) -> Fields {
        let on_a_phone = self.address.is_some() || self.projected.is_some();
        let mut fields = Fields::new(event, Some("API"));
        fields
            .add("ConversationSid", conversation_sid)
            .add("ParticipantSid", &self.sid)
            .add("DateCreated", millis(self.created))
            .maybe("Identity", self.identity.as_ref())
            .add("RoleSid", "")
            .add("Attributes", &self.attributes)
            .maybe("MessagingBinding.ProxyAddress", self.proxy.as_ref())
            .maybe("MessagingBinding.Address", self.address.as_ref())
            .maybe("MessagingBinding.ProjectedAddress", self.projected.as_ref())
            .add("MessagingBinding.Type", if on_a_phone { "sms" } else { "chat" });
        if event != "onParticipantAdded" {
            fields.add("DateUpdated", millis(removed.unwrap_or(self.updated)));
        }
        if event == "onParticipantUpdated" {
            fields.maybe(
                "LastReadMessageIndex",
                self.horizon.map(|index| index.to_string()),
            );
        }
        fields.maybe("DateRemoved", removed.map(millis));
        fields
    }
}

impl Message {
    fn fields(&self, event: &str, conversation_sid: &str, removed: Option<i64>) -> Fields {
        let mut fields = Fields::new(event, Some("API"));
        fields
            .add("ConversationSid", conversation_sid)
            .add("MessageSid", &self.sid)
            .add("MessagingServiceSid", MESSAGING_SERVICE)
            .add("Index", self.index.to_string())
            .add("DateCreated", millis(self.created))
            .add("Body", &self.body)
            .add("Author", &self.author)
            .maybe("ParticipantSid", self.participant.as_ref())
            .add("Attributes", "{}");
        if self.media {
            fields.add(
                "Media",
                r#"[{"Sid":"ME00000000000000000000000000000001","Filename":null,"ContentType":"image/jpeg","Size":42}]"#,
            );
        }
        if event != "onMessageAdded" {
            fields.add("DateUpdated", millis(removed.unwrap_or(self.updated)));
        }
        fields.maybe("DateRemoved", removed.map(millis));
        fields
    }
}
