//! A text from a handset: which conversation it belongs to, and the conversation that it makes where there is none.
//!
//! Twilio: "Inbound Message Handling & Autocreation".

use std::collections::{BTreeSet, VecDeque};

use crate::ids::{ConversationSid, MediaSid, MessageSid, PhoneNumber, ServiceSid};

use super::address::{Binding, is_long_code};
use super::conversation::{Founder, Inbound, Media, Setup, State};
use super::event::{self, Origin};
use super::group::{Claim, GROUP_LIMIT, Member};
use super::handset::Text;
use super::messages::CHAT_LIMIT;
use super::refusal::{ADDRESS_INVALID, BODY_MISSING, BODY_TOO_LONG, INVALID_PARAMETER, Refusal};
use super::webhook::{Event, EventName};
use super::{Account, Cause, new_sid};

/// A text as its sender wrote it.
#[derive(Clone)]
pub(crate) struct Outgoing {
    pub(crate) from: PhoneNumber,
    /// In the order written; the carrier keeps it.
    pub(crate) to: Vec<PhoneNumber>,
    pub(crate) body: Option<String>,
    /// Content type and size of each attachment.
    pub(crate) media: Vec<(String, u64)>,
}

/// Where an inbound text belongs.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// It goes to an open conversation, or to one that is being set up.
    Known(ConversationSid),
    /// It makes a conversation of this service.
    New(ServiceSid),
    /// One of our numbers has received it, but makes no conversation of it: no address configuration is enabled.
    Dropped,
    /// None of our numbers is among the recipients.
    Elsewhere,
}

/// What became of an inbound text at Twilio.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// `message` is none while the conversation is still being set up.
    Delivered {
        conversation: ConversationSid,
        created: bool,
        message: Option<MessageSid>,
    },
    Dropped,
    Elsewhere,
}

impl Account {
    /// What a carrier would not even transport.
    pub(crate) fn check_outgoing(&self, text: &Outgoing) -> Result<(), Refusal> {
        if self.numbers.contains(&text.from) {
            return Err(ADDRESS_INVALID.saying("a number of the account is no handset"));
        }
        let distinct: BTreeSet<&PhoneNumber> = text.to.iter().collect();
        if distinct.is_empty() || distinct.len() != text.to.len() || distinct.contains(&text.from) {
            return Err(INVALID_PARAMETER.saying("to must name other numbers, each once"));
        }
        if distinct.len() >= GROUP_LIMIT {
            return Err(INVALID_PARAMETER.saying("to must not name more than 9 numbers"));
        }
        if distinct.len() > 1 && !text.to.iter().chain([&text.from]).all(is_long_code) {
            return Err(ADDRESS_INVALID.saying("a group text is between +1 long codes only"));
        }
        if text.body.as_deref().is_none_or(str::is_empty) && text.media.is_empty() {
            return Err(BODY_MISSING.refuse());
        }
        if text.body.as_deref().is_some_and(|body| body.len() > CHAT_LIMIT) {
            return Err(BODY_TOO_LONG.refuse());
        }
        if text.media.len() > 10 {
            return Err(INVALID_PARAMETER.saying("a message has at most 10 attachments"));
        }
        Ok(())
    }

    pub(crate) fn route(&self, text: &Outgoing) -> Route {
        if self.our_number(text).is_none() {
            return Route::Elsewhere;
        }
        if let Some(sid) = claims_of(text)
            .iter()
            .find_map(|claim| self.register.claimant(claim))
        {
            return Route::Known(sid.clone());
        }
        let Some(address) = text.to.iter().find_map(|number| self.autocreation(number)) else {
            return Route::Dropped;
        };
        let service = address.service.as_ref().unwrap_or(&self.configuration.service);
        // A configuration that points to a removed service silently breaks inbound.
        if self.service(service).is_ok() {
            Route::New(service.clone())
        } else {
            Route::Dropped
        }
    }

    fn our_number<'a>(&self, text: &'a Outgoing) -> Option<&'a PhoneNumber> {
        text.to.iter().find(|number| self.numbers.contains(*number))
    }

    /// The pre-action event of a text that goes `route`: `onMessageAdd` into an open conversation,
    /// `onConversationAdd` alone where one is made. None while a conversation is being set up.
    pub(crate) fn ask_arrival(&self, text: &Outgoing, route: &Route) -> Option<Event> {
        let media = attachments(text);
        match route {
            Route::Known(sid) => {
                let conversation = self.register.get(sid)?;
                let inbound = Inbound {
                    from: text.from.clone(),
                    body: text.body.clone(),
                    media,
                };
                (conversation.head.state != State::Initializing)
                    .then(|| self.ask_inbound(conversation, &inbound))
            }
            Route::New(service) => {
                let head = self.inbound_head(service.clone(), State::Initializing, text.from.to_string());
                let first = Some((text.body.as_deref(), media.as_slice()));
                let name = EventName::ConversationAdd;
                Some(event::conversation_added(
                    &self.sid,
                    name,
                    &head,
                    &origin(text),
                    first,
                    Cause::INBOUND,
                ))
            }
            Route::Dropped | Route::Elsewhere => None,
        }
    }

    /// The carriers bring the text to the other phones, whatever Twilio makes of it.
    pub(crate) fn carry_to_phones(&mut self, text: &Outgoing) {
        let group = text.to.len() > 1;
        let mut members: Vec<PhoneNumber> = if group {
            text.to.iter().chain([&text.from]).cloned().collect()
        } else {
            Vec::new()
        };
        members.sort();
        let shown = Text {
            from: text.from.clone(),
            members,
            body: text.body.clone(),
            media: attachments(text),
            at: self.now(),
        };
        for number in text.to.iter().filter(|number| !self.numbers.contains(*number)) {
            self.handsets
                .entry(number.clone())
                .or_default()
                .push(shown.clone());
        }
    }

    /// Twilio takes the text in. `friendly_name` is what a pre-action webhook has named a new conversation.
    pub(crate) fn take_in(&mut self, text: &Outgoing, friendly_name: Option<String>) -> Arrival {
        if let Some(ours) = self.our_number(text).cloned() {
            self.heed_keyword(&text.from, &ours, text.body.as_deref());
        }
        let inbound = Inbound {
            from: text.from.clone(),
            body: text.body.clone(),
            media: attachments(text),
        };
        match self.route(text) {
            Route::Elsewhere => Arrival::Elsewhere,
            Route::Dropped => Arrival::Dropped,
            Route::Known(sid) => {
                let initializing = self
                    .register
                    .get(&sid)
                    .is_some_and(|found| found.head.state == State::Initializing);
                let message = if initializing {
                    self.queue_inbound(&sid, inbound);
                    None
                } else {
                    Some(self.post_inbound(&sid, &inbound))
                };
                Arrival::Delivered {
                    conversation: sid,
                    created: false,
                    message,
                }
            }
            Route::New(service) if text.to.len() > 1 => {
                let sid = self.autocreate_group(service, text, inbound, friendly_name);
                Arrival::Delivered {
                    conversation: sid,
                    created: true,
                    message: None,
                }
            }
            Route::New(service) => {
                let (sid, message) = self.autocreate_single(service, text, &inbound, friendly_name);
                Arrival::Delivered {
                    conversation: sid,
                    created: true,
                    message: Some(message),
                }
            }
        }
    }

    /// A group: one native participant for each outsider, one gateway for each of our numbers; then the message.
    fn autocreate_group(
        &mut self,
        service: ServiceSid,
        text: &Outgoing,
        inbound: Inbound,
        friendly_name: Option<String>,
    ) -> ConversationSid {
        let mut head = self.inbound_head(service, State::Initializing, text.from.to_string());
        head.friendly_name = friendly_name;
        let founders: VecDeque<Founder> = [&text.from]
            .into_iter()
            .chain(&text.to)
            .map(|number| {
                let binding = if self.numbers.contains(number) {
                    Binding::Projected(number.clone())
                } else {
                    Binding::Native(number.clone())
                };
                Founder {
                    member: Member {
                        identity: None,
                        binding,
                    },
                    attributes: None,
                    role: None,
                }
            })
            .collect();
        let setup = Setup {
            cause: Cause::INBOUND,
            founders,
            ends_in: State::Active,
            inbound: VecDeque::from([inbound]),
        };
        let webhooks = self.autocreation_webhooks(text);
        self.open_conversation(head, Some(setup), webhooks, &origin(text), Cause::INBOUND)
    }

    /// One handset and one of our numbers: address and proxy, active at once.
    fn autocreate_single(
        &mut self,
        service: ServiceSid,
        text: &Outgoing,
        inbound: &Inbound,
        friendly_name: Option<String>,
    ) -> (ConversationSid, MessageSid) {
        let mut head = self.inbound_head(service, State::Active, text.from.to_string());
        head.friendly_name = friendly_name;
        let webhooks = self.autocreation_webhooks(text);
        let sid = self.open_conversation(head, None, webhooks, &origin(text), Cause::INBOUND);
        let binding = Binding::Proxied {
            address: text.from.clone(),
            proxy: text.to[0].clone(),
        };
        let participant = self.plain_participant(binding);
        self.join(&sid, participant, Cause::INBOUND);
        let message = self.post_inbound(&sid, inbound);
        (sid, message)
    }
}

/// What a conversation that the text belongs to would claim.
fn claims_of(text: &Outgoing) -> Vec<Claim> {
    let roster = Claim::Roster(text.to.iter().chain([&text.from]).cloned().collect());
    match text.to.as_slice() {
        [proxy] => vec![
            Claim::Pair {
                address: text.from.clone(),
                proxy: proxy.clone(),
            },
            roster,
        ],
        _ => vec![roster],
    }
}

fn origin(text: &Outgoing) -> Origin<'_> {
    match text.to.as_slice() {
        [proxy] => Origin::Single {
            address: &text.from,
            proxy,
        },
        receivers => Origin::Group {
            author: &text.from,
            receivers,
        },
    }
}

fn attachments(text: &Outgoing) -> Vec<Media> {
    let media = text.media.iter().map(|(content_type, size)| Media {
        sid: new_sid(MediaSid::PREFIX),
        filename: None,
        content_type: content_type.clone(),
        size: *size,
    });
    media.collect()
}
