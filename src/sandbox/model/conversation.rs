//! What a conversation is: its head, its participants, its messages and their receipts. Data and reads only; the
//! operations that change them are the account's.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};

use crate::ids::{
    ConversationSid, MediaSid, MessageSid, MessagingServiceSid, ParticipantSid, PhoneNumber, ReceiptSid,
    RoleSid, ServiceSid,
};

use super::Cause;
use super::address::Binding;
use super::group::{self, Claim, Member};
use super::refusal::{CLOSED, NOT_MODIFIABLE, Refusal};
use super::webhook::ConversationWebhook;

/// Twilio: "States and Timers in Conversations".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Initializing,
    Active,
    Inactive,
    Closed,
}

impl State {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Initializing => "initializing",
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Closed => "closed",
        }
    }
}

pub(crate) struct Conversation {
    pub(crate) head: Head,
    pub(crate) participants: Vec<Participant>,
    pub(crate) messages: Vec<Message>,
    pub(crate) webhooks: Vec<ConversationWebhook>,
    /// While the conversation is initializing: what is still to happen.
    pub(crate) setup: Option<Setup>,
    pub(crate) next_index: u64,
}

/// The conversation without what it contains; cheap to copy, so that a change is made on a copy and then put back.
#[derive(Clone)]
pub(crate) struct Head {
    pub(crate) serial: u64,
    pub(crate) sid: ConversationSid,
    pub(crate) service: ServiceSid,
    pub(crate) messaging_service: MessagingServiceSid,
    pub(crate) friendly_name: Option<String>,
    pub(crate) unique_name: Option<String>,
    pub(crate) attributes: String,
    pub(crate) state: State,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    /// The timers count from here.
    pub(crate) last_activity: Timestamp,
    pub(crate) inactive_after: Option<SignedDuration>,
    pub(crate) closed_after: Option<SignedDuration>,
    /// `system` for REST; the sender's number where an inbound message made the conversation.
    pub(crate) created_by: String,
}

#[derive(Clone)]
pub(crate) struct Participant {
    pub(crate) serial: u64,
    pub(crate) sid: ParticipantSid,
    pub(crate) identity: Option<String>,
    pub(crate) binding: Binding,
    pub(crate) attributes: String,
    /// Twilio gives roles to identities only.
    pub(crate) role: Option<RoleSid>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) last_read_index: Option<u64>,
    pub(crate) last_read_at: Option<Timestamp>,
}

#[derive(Clone)]
pub(crate) struct Message {
    pub(crate) sid: MessageSid,
    /// Unique and increasing within the conversation; the index of a deleted message is not used again.
    pub(crate) index: u64,
    pub(crate) author: String,
    pub(crate) body: Option<String>,
    pub(crate) media: Vec<Media>,
    pub(crate) attributes: String,
    pub(crate) participant: Option<ParticipantSid>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    /// Those whom Twilio sends the message to.
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) receipts: Vec<Receipt>,
}

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Media {
    pub(crate) sid: MediaSid,
    pub(crate) filename: Option<String>,
    pub(crate) content_type: String,
    pub(crate) size: u64,
}

/// One handset that a message goes to.
#[derive(Clone)]
pub(crate) struct Recipient {
    pub(crate) participant: ParticipantSid,
    pub(crate) handset: PhoneNumber,
    /// The number that the handset shows.
    pub(crate) from: PhoneNumber,
    /// Everyone in the thread, for a group; empty for 1:1.
    pub(crate) members: Vec<PhoneNumber>,
    pub(crate) opted_out: bool,
}

#[derive(Clone)]
pub(crate) struct Receipt {
    pub(crate) serial: u64,
    pub(crate) sid: ReceiptSid,
    /// `SM…` or `MM…`, the carrier's side of it.
    pub(crate) channel_message_sid: String,
    pub(crate) participant: ParticipantSid,
    pub(crate) status: ReceiptStatus,
    pub(crate) error_code: u32,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReceiptStatus {
    Sent,
    Delivered,
    Undelivered,
}

impl ReceiptStatus {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Delivered => "delivered",
            Self::Undelivered => "undelivered",
        }
    }
}

/// What an initializing conversation still waits for.
pub(crate) struct Setup {
    pub(crate) cause: Cause,
    pub(crate) founders: VecDeque<Founder>,
    /// The state at the end.
    pub(crate) ends_in: State,
    /// Messages that came in meanwhile; the first one is what made an autocreated conversation.
    pub(crate) inbound: VecDeque<Inbound>,
}

/// A participant that is created together with its conversation.
#[derive(Clone)]
pub(crate) struct Founder {
    pub(crate) member: Member,
    pub(crate) attributes: Option<String>,
    pub(crate) role: Option<RoleSid>,
}

/// A message from a handset.
#[derive(Clone)]
pub(crate) struct Inbound {
    pub(crate) from: PhoneNumber,
    pub(crate) body: Option<String>,
    pub(crate) media: Vec<Media>,
}

impl Head {
    pub(crate) fn date_inactive(&self) -> Option<Timestamp> {
        self.inactive_after
            .filter(|_| self.state == State::Active)
            .map(|after| later(self.last_activity, after))
    }

    pub(crate) fn date_closed(&self) -> Option<Timestamp> {
        self.closed_after
            .filter(|_| matches!(self.state, State::Active | State::Inactive))
            .map(|after| later(self.last_activity, after))
    }

    /// When a timer next changes the state.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.date_inactive().into_iter().chain(self.date_closed()).min()
    }

    /// A closed conversation never changes again, and one in the making not yet.
    pub(crate) fn check_open(&self) -> Result<(), Refusal> {
        match self.state {
            State::Closed => Err(CLOSED.refuse()),
            State::Initializing => Err(NOT_MODIFIABLE.refuse()),
            State::Active | State::Inactive => Ok(()),
        }
    }
}

fn later(at: Timestamp, by: SignedDuration) -> Timestamp {
    at.checked_add(by).unwrap_or(Timestamp::MAX)
}

impl Participant {
    pub(crate) fn member(&self) -> Member {
        Member {
            identity: self.identity.clone(),
            binding: self.binding.clone(),
        }
    }

    /// Whether a message by `author` is this participant's. A projected address writes for itself only where no
    /// identity stands behind it.
    pub(crate) fn writes_as(&self, author: &str) -> bool {
        match (&self.identity, &self.binding) {
            (Some(identity), _) => identity == author,
            (
                None,
                Binding::Native(address) | Binding::Proxied { address, .. } | Binding::Projected(address),
            ) => address.as_str() == author,
            (None, Binding::Chat) => false,
        }
    }
}

impl Conversation {
    pub(crate) fn members(&self) -> Vec<Member> {
        self.participants.iter().map(Participant::member).collect()
    }

    /// What this conversation holds for itself: while it is being set up, for those too who are still to come.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        if self.head.state == State::Closed {
            return Vec::new();
        }
        let founders = self.setup.iter().flat_map(|setup| &setup.founders);
        let all: Vec<Member> = self
            .members()
            .into_iter()
            .chain(founders.map(|founder| founder.member.clone()))
            .collect();
        group::claims(&all)
    }

    /// Whether anyone here is a member of a group text, so that the rules of group MMS hold.
    pub(crate) fn is_group_text(&self) -> bool {
        self.participants
            .iter()
            .any(|participant| participant.binding.is_group())
    }

    /// By `MB…` or by identity.
    pub(crate) fn participant(&self, key: &str) -> Option<&Participant> {
        self.participants.iter().find(|participant| {
            participant.sid.as_str() == key || participant.identity.as_deref() == Some(key)
        })
    }

    pub(crate) fn message(&self, key: &str) -> Option<&Message> {
        self.messages
            .iter()
            .rev()
            .find(|message| message.sid.as_str() == key)
    }
}
