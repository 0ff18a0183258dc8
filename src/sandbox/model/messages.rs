//! Operations on messages: posting, changing, removing, and how the carrier reports on them.

use crate::ids::{ConversationSid, MediaSid, MessageSid, ServiceSid};

use super::address::Binding;
use super::conversation::{Conversation, Inbound, Media, Message, Participant};
use super::event;
use super::refusal::{
    AUTHOR_NOT_IN_GROUP, AUTHOR_TOO_LONG, BODY_MISSING, BODY_TOO_LONG, CONTENT_UNKNOWN, MEDIA_NOT_FOUND,
    MEDIA_REUSED, MEDIA_SID, NOT_FOUND, Refusal,
};
use super::webhook::{Event, EventName};
use super::{Account, Cause, Dates, Effect, checked_attributes, new_sid};

const ATTRIBUTES_LIMIT: usize = 4 * 1024;
/// Twilio: "Conversations Limits". Characters to handsets, bytes among chat participants and inbound.
const SMS_LIMIT: usize = 1600;
pub(super) const CHAT_LIMIT: usize = 32 * 1024;

/// The parameters of a message, as they came.
#[derive(Clone, Default)]
pub(crate) struct MessageFields {
    pub(crate) author: Option<String>,
    pub(crate) body: Option<String>,
    pub(crate) media_sid: Option<String>,
    pub(crate) content_sid: Option<String>,
    pub(crate) attributes: Option<String>,
    pub(crate) dates: Dates,
}

impl Account {
    /// The message that a request would post, if Twilio would take it.
    fn draft_message(
        &self,
        service: &ServiceSid,
        key: &str,
        fields: &MessageFields,
    ) -> Result<Message, Refusal> {
        let conversation = self.conversation(service, key)?;
        conversation.head.check_open()?;
        let author = fields.author.as_deref().unwrap_or("system");
        let writer = checked_author(conversation, author)?;
        if fields.content_sid.is_some() {
            return Err(CONTENT_UNKNOWN.saying("Content templates are not emulated"));
        }
        let media = fields
            .media_sid
            .as_deref()
            .map(|sid| self.uploaded(sid))
            .transpose()?;
        let body = fields.body.clone().filter(|body| !body.is_empty());
        if body.is_none() && media.is_none() {
            return Err(BODY_MISSING.refuse());
        }
        let recipients = self.recipients(conversation, writer, author);
        check_length(body.as_deref(), !recipients.is_empty())?;
        let attributes = checked_attributes(fields.attributes.as_deref(), ATTRIBUTES_LIMIT)?;
        let created = fields.dates.created()?.unwrap_or_else(|| self.now());
        Ok(Message {
            sid: new_sid(MessageSid::PREFIX),
            index: 0,
            author: author.to_owned(),
            body,
            media: media.into_iter().collect(),
            attributes: attributes.unwrap_or_else(|| "{}".to_owned()),
            participant: writer.map(|writer| writer.sid.clone()),
            created,
            updated: fields.dates.updated()?.unwrap_or(created),
            recipients,
            receipts: Vec::new(),
        })
    }

    /// Media that a new message may take.
    fn uploaded(&self, text: &str) -> Result<Media, Refusal> {
        let sid = MediaSid::try_from(text).map_err(|_| MEDIA_SID.refuse())?;
        if let Some(waiting) = self.uploads.waiting(&sid, self.now()) {
            return Ok(waiting.clone());
        }
        let is_taken = self.media(&sid).is_some();
        Err(if is_taken { MEDIA_REUSED } else { MEDIA_NOT_FOUND }.refuse())
    }

    pub(crate) fn ask_post(
        &self,
        service: &ServiceSid,
        key: &str,
        fields: &MessageFields,
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let draft = self.draft_message(service, key, fields)?;
        let head = &self.conversation(service, key)?.head;
        Ok(event::message(
            &self.sid,
            EventName::MessageAdd,
            head,
            &draft,
            None,
            cause,
        ))
    }

    pub(crate) fn post_message(
        &mut self,
        service: &ServiceSid,
        key: &str,
        fields: &MessageFields,
        cause: Cause,
    ) -> Result<MessageSid, Refusal> {
        let draft = self.draft_message(service, key, fields)?;
        let sid = self.conversation(service, key)?.head.sid.clone();
        self.uploads.take(&draft.media);
        Ok(self.place(&sid, draft, cause))
    }

    /// The message that an inbound text makes in `conversation`.
    fn inbound_message(&self, conversation: &Conversation, inbound: &Inbound) -> Message {
        let author = inbound.from.as_str();
        let writer = conversation
            .participants
            .iter()
            .find(|participant| participant.writes_as(author));
        let mut recipients = self.recipients(conversation, writer, author);
        if writer.is_some_and(|writer| matches!(writer.binding, Binding::Native(_))) {
            recipients.retain(|recipient| {
                let participant = conversation.participant(recipient.participant.as_str());
                participant.is_some_and(|participant| matches!(participant.binding, Binding::Proxied { .. }))
            });
        }
        let now = self.now();
        Message {
            sid: new_sid(MessageSid::PREFIX),
            index: 0,
            author: author.to_owned(),
            body: inbound.body.clone(),
            media: inbound.media.clone(),
            attributes: "{}".to_owned(),
            participant: writer.map(|writer| writer.sid.clone()),
            created: now,
            updated: now,
            recipients,
            receipts: Vec::new(),
        }
    }

    /// `onMessageAdd` for an inbound text to an open conversation.
    pub(super) fn ask_inbound(&self, conversation: &Conversation, inbound: &Inbound) -> Event {
        let message = self.inbound_message(conversation, inbound);
        event::message(
            &self.sid,
            EventName::MessageAdd,
            &conversation.head,
            &message,
            None,
            Cause::INBOUND,
        )
    }

    pub(super) fn post_inbound(&mut self, sid: &ConversationSid, inbound: &Inbound) -> MessageSid {
        let conversation = self.register.get(sid).expect("found under the same lock");
        let message = self.inbound_message(conversation, inbound);
        self.place(sid, message, Cause::INBOUND)
    }

    /// Puts a message in its place, tells of it and hands it to the carrier.
    fn place(&mut self, sid: &ConversationSid, message: Message, cause: Cause) -> MessageSid {
        let (head, message) = self.change_conversation(sid, |conversation| {
            let message = Message {
                index: conversation.next_index,
                ..message
            };
            conversation.next_index += 1;
            conversation.messages.push(message.clone());
            (conversation.head.clone(), message)
        });
        self.hand_to_phones(&message);
        let event = event::message(&self.sid, EventName::MessageAdded, &head, &message, None, cause);
        self.tell(&event, cause);
        self.note_activity(sid, cause);
        if !message.recipients.is_empty() {
            self.effects.push(Effect::Carry {
                conversation: sid.clone(),
                message: message.sid.clone(),
            });
        }
        message.sid
    }

    /// The message as an update would leave it, if Twilio would make the update.
    fn draft_message_update(
        &self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        fields: &MessageFields,
    ) -> Result<Message, Refusal> {
        let conversation = self.conversation(service, conversation)?;
        let mut message = conversation
            .message(key)
            .ok_or_else(|| NOT_FOUND.refuse())?
            .clone();
        conversation.head.check_open()?;
        if let Some(author) = &fields.author {
            checked_author(conversation, author)?;
            message.author.clone_from(author);
        }
        if let Some(body) = &fields.body {
            check_length(Some(body), !message.recipients.is_empty())?;
            message.body = Some(body.clone());
        }
        if let Some(attributes) = checked_attributes(fields.attributes.as_deref(), ATTRIBUTES_LIMIT)? {
            message.attributes = attributes;
        }
        if let Some(created) = fields.dates.created()? {
            message.created = created;
        }
        message.updated = fields.dates.updated()?.unwrap_or_else(|| self.now());
        Ok(message)
    }

    pub(crate) fn ask_update_message(
        &self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        fields: &MessageFields,
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let message = self.draft_message_update(service, conversation, key, fields)?;
        let head = &self.conversation(service, conversation)?.head;
        Ok(event::message(
            &self.sid,
            EventName::MessageUpdate,
            head,
            &message,
            None,
            cause,
        ))
    }

    /// Changes the stored message; nothing changes on a handset.
    pub(crate) fn update_message(
        &mut self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        fields: &MessageFields,
        cause: Cause,
    ) -> Result<MessageSid, Refusal> {
        let message = self.draft_message_update(service, conversation, key, fields)?;
        let head = self.conversation(service, conversation)?.head.clone();
        let event = event::message(&self.sid, EventName::MessageUpdated, &head, &message, None, cause);
        let sid = message.sid.clone();
        self.change_conversation(&head.sid, |conversation| {
            if let Some(place) = conversation
                .messages
                .iter_mut()
                .find(|other| other.sid == message.sid)
            {
                *place = message;
            }
        });
        self.tell(&event, cause);
        Ok(sid)
    }

    fn removable_message(
        &self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
    ) -> Result<(&Conversation, &Message), Refusal> {
        let conversation = self.conversation(service, conversation)?;
        let message = conversation.message(key).ok_or_else(|| NOT_FOUND.refuse())?;
        Ok((conversation, message))
    }

    pub(crate) fn ask_remove_message(
        &self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let (conversation, message) = self.removable_message(service, conversation, key)?;
        Ok(event::message(
            &self.sid,
            EventName::MessageRemove,
            &conversation.head,
            message,
            None,
            cause,
        ))
    }

    /// Removes the record of a message, also from a closed conversation; its index is not used again.
    pub(crate) fn remove_message(
        &mut self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        cause: Cause,
    ) -> Result<(), Refusal> {
        let (conversation, message) = self.removable_message(service, conversation, key)?;
        let head = conversation.head.clone();
        let now = self.now();
        let message = Message {
            updated: now,
            ..message.clone()
        };
        let event = event::message(
            &self.sid,
            EventName::MessageRemoved,
            &head,
            &message,
            Some(now),
            cause,
        );
        self.change_conversation(&head.sid, |conversation| {
            conversation.messages.retain(|other| other.sid != message.sid);
        });
        self.tell(&event, cause);
        Ok(())
    }
}

/// In a group text the author is one of its members: an identity, a handset, or a projected address that nobody
/// stands behind. Elsewhere anybody may be named.
fn checked_author<'a>(
    conversation: &'a Conversation,
    author: &str,
) -> Result<Option<&'a Participant>, Refusal> {
    if author.chars().count() > 256 {
        return Err(AUTHOR_TOO_LONG.refuse());
    }
    let writer = conversation
        .participants
        .iter()
        .find(|participant| participant.writes_as(author));
    if writer.is_none() && conversation.is_group_text() {
        return Err(AUTHOR_NOT_IN_GROUP.refuse());
    }
    Ok(writer)
}

fn check_length(body: Option<&str>, to_handsets: bool) -> Result<(), Refusal> {
    let body = body.unwrap_or_default();
    let too_long = if to_handsets {
        body.chars().count() > SMS_LIMIT
    } else {
        body.len() > CHAT_LIMIT
    };
    if too_long {
        Err(BODY_TOO_LONG.refuse())
    } else {
        Ok(())
    }
}
