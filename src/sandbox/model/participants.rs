//! Operations on participants: adding, changing (the hand-over of a line among it), removing.

use jiff::Timestamp;

use crate::ids::{ConversationSid, ParticipantSid, RoleSid, ServiceSid};

use super::address::{Binding, Shape, check_identity, projected_number, proxy_number};
use super::conversation::{Conversation, Founder, Participant};
use super::event;
use super::group::{self, Member};
use super::refusal::{
    ALREADY_BOUND, IDENTITY_IN_CONVERSATION, IDENTITY_NOT_ADDABLE, INVALID_PARAMETER, NO_PROJECTED_ADDRESS,
    NO_PROJECTED_TO_REMOVE, NO_PROXY_TO_REMOVE, NOT_FOUND, PARTICIPANT_EXISTS, PROJECTED_NOT_OURS,
    PROXY_WITHOUT_ADDRESS, READ_INDEX, Refusal, SERVER_ERROR,
};
use super::service::Service;
use super::webhook::{Event, EventName};
use super::{Account, Cause, Dates, IdentityReplacement, checked_attributes, new_sid, time};

const ATTRIBUTES_LIMIT: usize = 4 * 1024;

/// The parameters of a participant to be created.
#[derive(Clone, Default)]
pub(crate) struct NewParticipant {
    pub(crate) shape: Shape,
    pub(crate) attributes: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) dates: Dates,
}

/// The parameters of an update; absent ones leave the value as it is. For proxy and projected address the text
/// `null` removes it.
#[derive(Clone, Default)]
pub(crate) struct ParticipantChange {
    pub(crate) identity: Option<String>,
    pub(crate) proxy_address: Option<String>,
    pub(crate) projected_address: Option<String>,
    pub(crate) attributes: Option<String>,
    pub(crate) role: Option<String>,
    pub(crate) last_read_index: Option<String>,
    pub(crate) last_read_at: Option<String>,
    pub(crate) dates: Dates,
}

impl Account {
    /// What a request describes, if one participant alone may look like that. An identity has a role at any rate.
    pub(super) fn draft_founder(
        &self,
        service: &ServiceSid,
        new: &NewParticipant,
    ) -> Result<Founder, Refusal> {
        let (identity, binding) = new.shape.resolve(&self.numbers)?;
        let service = self.service(service)?;
        let role = match (&new.role, &identity) {
            (Some(text), _) => Some(checked_role(service, text)?),
            (None, Some(_)) => Some(service.default_role.clone()),
            (None, None) => None,
        };
        Ok(Founder {
            member: Member { identity, binding },
            attributes: checked_attributes(new.attributes.as_deref(), ATTRIBUTES_LIMIT)?,
            role,
        })
    }

    fn participant_of(&self, founder: Founder) -> Participant {
        let now = self.now();
        Participant {
            serial: 0,
            sid: new_sid(ParticipantSid::PREFIX),
            identity: founder.member.identity,
            binding: founder.member.binding,
            attributes: founder.attributes.unwrap_or_else(|| "{}".to_owned()),
            role: founder.role,
            created: now,
            updated: now,
            last_read_index: None,
            last_read_at: None,
        }
    }

    /// The participant that a request would add, if Twilio would add it.
    fn draft_new(
        &self,
        service: &ServiceSid,
        key: &str,
        new: &NewParticipant,
    ) -> Result<Participant, Refusal> {
        let conversation = self.conversation(service, key)?;
        conversation.head.check_open()?;
        let founder = self.draft_founder(service, new)?;
        let mut all = conversation.members();
        group::check_joining(&all, &founder.member)?;
        all.push(founder.member.clone());
        self.check_claims(&all, Some(&conversation.head.sid))?;
        let participant = self.participant_of(founder);
        let created = new.dates.created()?.unwrap_or(participant.created);
        let updated = new.dates.updated()?.unwrap_or(created);
        Ok(Participant {
            created,
            updated,
            ..participant
        })
    }

    pub(crate) fn ask_add_participant(
        &self,
        service: &ServiceSid,
        key: &str,
        new: &NewParticipant,
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let participant = self.draft_new(service, key, new)?;
        let head = &self.conversation(service, key)?.head;
        Ok(event::participant(
            &self.sid,
            EventName::ParticipantAdd,
            head,
            &participant,
            None,
            cause,
        ))
    }

    pub(crate) fn add_participant(
        &mut self,
        service: &ServiceSid,
        key: &str,
        new: &NewParticipant,
        cause: Cause,
    ) -> Result<ParticipantSid, Refusal> {
        let participant = self.draft_new(service, key, new)?;
        let sid = self.conversation(service, key)?.head.sid.clone();
        let added = self.join(&sid, participant, cause);
        self.note_activity(&sid, cause);
        Ok(added)
    }

    /// One step of setting a conversation up. What was checked when it was asked for is checked again: a number may
    /// have been given away meanwhile.
    pub(super) fn add_founder(
        &mut self,
        sid: &ConversationSid,
        founder: Founder,
        cause: Cause,
    ) -> Result<(), Refusal> {
        if self.failing_setups > 0 {
            self.failing_setups -= 1;
            return Err(SERVER_ERROR.refuse());
        }
        if founder
            .member
            .binding
            .projected()
            .is_some_and(|number| !self.numbers.contains(number))
        {
            return Err(PROJECTED_NOT_OURS.refuse());
        }
        let conversation = self.register.get(sid).ok_or_else(|| NOT_FOUND.refuse())?;
        // The whole list was checked at the start. On the way there the numbers may look like another group's.
        let present = conversation.members();
        group::check_not_present(&present, &founder.member)?;
        let participant = self.participant_of(founder);
        self.join(sid, participant, cause);
        Ok(())
    }

    /// Puts a participant in its place and tells of it; an identity seen for the first time becomes a user.
    pub(super) fn join(
        &mut self,
        sid: &ConversationSid,
        mut participant: Participant,
        cause: Cause,
    ) -> ParticipantSid {
        participant.serial = self.next_serial();
        let head = self.change_conversation(sid, |conversation| {
            conversation.participants.push(participant.clone());
            conversation.head.clone()
        });
        if let Some(identity) = &participant.identity {
            self.ensure_user(&head.service, identity, cause);
        }
        let name = EventName::ParticipantAdded;
        let event = event::participant(&self.sid, name, &head, &participant, None, cause);
        self.tell(&event, cause);
        participant.sid
    }

    /// A participant that no request described.
    pub(super) fn plain_participant(&self, binding: Binding) -> Participant {
        let member = Member {
            identity: None,
            binding,
        };
        self.participant_of(Founder {
            member,
            attributes: None,
            role: None,
        })
    }

    /// The participant as an update would leave it, if Twilio would make the update.
    fn draft_change(
        &self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        change: &ParticipantChange,
    ) -> Result<Participant, Refusal> {
        let conversation = self.conversation(service, conversation)?;
        let mut participant = conversation
            .participant(key)
            .ok_or_else(|| NOT_FOUND.refuse())?
            .clone();
        conversation.head.check_open()?;
        let others: Vec<Member> = conversation
            .participants
            .iter()
            .filter(|other| other.sid != participant.sid)
            .map(Participant::member)
            .collect();
        if let Some(text) = &change.proxy_address {
            participant.binding = self.changed_proxy(&participant.binding, text)?;
        }
        if let Some(text) = &change.projected_address {
            participant.binding = self.changed_projected(&participant, text)?;
        }
        if let Some(identity) = &change.identity {
            self.hand_over(&mut participant, &others, identity)?;
        }
        if let Some(attributes) = checked_attributes(change.attributes.as_deref(), ATTRIBUTES_LIMIT)? {
            participant.attributes = attributes;
        }
        if let Some(text) = &change.role {
            participant.role = Some(checked_role(self.service(service)?, text)?);
        }
        read_horizon(&mut participant, change, conversation.next_index, self.now())?;
        if let Some(created) = change.dates.created()? {
            participant.created = created;
        }
        participant.updated = change.dates.updated()?.unwrap_or_else(|| self.now());

        let changed = participant.member();
        if changed.binding != conversation.participant(key).expect("found above").binding {
            let mut all = others;
            all.push(changed.clone());
            group::check_changed(&all, &changed)?;
            self.check_claims(&all, Some(&conversation.head.sid))?;
        }
        Ok(participant)
    }

    fn changed_proxy(&self, binding: &Binding, text: &str) -> Result<Binding, Refusal> {
        match (binding, text) {
            (Binding::Proxied { address, .. }, "null") => Ok(Binding::Native(address.clone())),
            (_, "null") => Err(NO_PROXY_TO_REMOVE.refuse()),
            (Binding::Proxied { address, .. } | Binding::Native(address), _) => {
                let proxy = proxy_number(text, address, &self.numbers)?;
                Ok(Binding::Proxied {
                    address: address.clone(),
                    proxy,
                })
            }
            (Binding::Chat | Binding::Projected(_), _) => Err(PROXY_WITHOUT_ADDRESS.refuse()),
        }
    }

    fn changed_projected(&self, participant: &Participant, text: &str) -> Result<Binding, Refusal> {
        match (&participant.binding, text) {
            (Binding::Projected(_), "null") if participant.identity.is_some() => Ok(Binding::Chat),
            // Nothing would be left of a gateway.
            (Binding::Projected(_), "null") => Err(NO_PROJECTED_ADDRESS.refuse()),
            (_, "null") => Err(NO_PROJECTED_TO_REMOVE.refuse()),
            (Binding::Chat, _) => Ok(Binding::Projected(projected_number(text, &self.numbers)?)),
            (_, _) => Err(ALREADY_BOUND.refuse()),
        }
    }

    /// `Identity=B` on a projected address: the line gets another person behind it.
    fn hand_over(
        &self,
        participant: &mut Participant,
        others: &[Member],
        identity: &str,
    ) -> Result<(), Refusal> {
        if participant.identity.as_deref() == Some(identity) {
            return Ok(());
        }
        if participant.binding.projected().is_none() {
            return Err(IDENTITY_NOT_ADDABLE.refuse());
        }
        // Detaching by an empty text or by `null` is documented for addresses only.
        if identity.is_empty() {
            return Err(INVALID_PARAMETER.saying("Identity may not be empty"));
        }
        check_identity(identity)?;
        if others
            .iter()
            .any(|other| other.identity.as_deref() == Some(identity))
        {
            let twice = others.iter().any(|other| {
                other.identity.as_deref() == Some(identity) && other.binding == participant.binding
            });
            return Err(if twice {
                PARTICIPANT_EXISTS.refuse()
            } else {
                IDENTITY_IN_CONVERSATION.refuse()
            });
        }
        if participant.identity.is_some() && self.replacement == IdentityReplacement::Refuse {
            return Err(IDENTITY_NOT_ADDABLE.refuse());
        }
        participant.identity = Some(identity.to_owned());
        Ok(())
    }

    pub(crate) fn ask_update_participant(
        &self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        change: &ParticipantChange,
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let participant = self.draft_change(service, conversation, key, change)?;
        let head = &self.conversation(service, conversation)?.head;
        Ok(event::participant(
            &self.sid,
            EventName::ParticipantUpdate,
            head,
            &participant,
            None,
            cause,
        ))
    }

    pub(crate) fn update_participant(
        &mut self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        change: &ParticipantChange,
        cause: Cause,
    ) -> Result<ParticipantSid, Refusal> {
        let mut participant = self.draft_change(service, conversation, key, change)?;
        let head = self.conversation(service, conversation)?.head.clone();
        if let Some(identity) = participant.identity.clone() {
            self.ensure_user(service, &identity, cause);
            participant.role = participant
                .role
                .or_else(|| Some(self.service(service).ok()?.default_role.clone()));
        }
        let event = event::participant(
            &self.sid,
            EventName::ParticipantUpdated,
            &head,
            &participant,
            None,
            cause,
        );
        let sid = participant.sid.clone();
        self.change_conversation(&head.sid, |conversation| {
            if let Some(place) = conversation
                .participants
                .iter_mut()
                .find(|other| other.sid == participant.sid)
            {
                *place = participant;
            }
        });
        self.tell(&event, cause);
        Ok(sid)
    }

    /// The participant that a request would remove, if Twilio would remove it.
    fn leaving(&self, service: &ServiceSid, conversation: &str, key: &str) -> Result<&Participant, Refusal> {
        let conversation = self.conversation(service, conversation)?;
        let leaving = conversation.participant(key).ok_or_else(|| NOT_FOUND.refuse())?;
        conversation.head.check_open()?;
        self.check_without(conversation, leaving)?;
        Ok(leaving)
    }

    /// Without a member, too, there must be no other open group of the same numbers.
    pub(super) fn check_without(
        &self,
        conversation: &Conversation,
        leaving: &Participant,
    ) -> Result<(), Refusal> {
        let staying = conversation
            .participants
            .iter()
            .filter(|other| other.sid != leaving.sid);
        let staying: Vec<Member> = staying.map(Participant::member).collect();
        self.check_claims(&staying, Some(&conversation.head.sid))
    }

    pub(crate) fn ask_remove_participant(
        &self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let participant = self.leaving(service, conversation, key)?;
        let head = &self.conversation(service, conversation)?.head;
        Ok(event::participant(
            &self.sid,
            EventName::ParticipantRemove,
            head,
            participant,
            None,
            cause,
        ))
    }

    pub(crate) fn remove_participant(
        &mut self,
        service: &ServiceSid,
        conversation: &str,
        key: &str,
        cause: Cause,
    ) -> Result<(), Refusal> {
        let participant = self.leaving(service, conversation, key)?.clone();
        let sid = self.conversation(service, conversation)?.head.sid.clone();
        self.part(&sid, participant, cause);
        Ok(())
    }

    /// Takes a participant out and tells of it.
    pub(super) fn part(&mut self, sid: &ConversationSid, mut participant: Participant, cause: Cause) {
        let now = self.now();
        participant.updated = now;
        let head = self.change_conversation(sid, |conversation| {
            conversation
                .participants
                .retain(|other| other.sid != participant.sid);
            conversation.head.clone()
        });
        let name = EventName::ParticipantRemoved;
        let event = event::participant(&self.sid, name, &head, &participant, Some(now), cause);
        self.tell(&event, cause);
    }
}

fn checked_role(service: &Service, text: &str) -> Result<RoleSid, Refusal> {
    let sid = RoleSid::try_from(text).map_err(|_| INVALID_PARAMETER.saying("RoleSid is no role SID"))?;
    let role = service.role(sid.as_str());
    role.map(|role| role.sid.clone())
        .ok_or_else(|| NOT_FOUND.saying("Role not found"))
}

fn read_horizon(
    participant: &mut Participant,
    change: &ParticipantChange,
    next_index: u64,
    now: Timestamp,
) -> Result<(), Refusal> {
    if let Some(text) = change.last_read_index.as_deref() {
        participant.last_read_index = match text {
            "" | "null" => None,
            digits => {
                let index: u64 = digits.parse().map_err(|_| READ_INDEX.refuse())?;
                Some(index)
                    .filter(|&index| index < next_index)
                    .ok_or_else(|| READ_INDEX.refuse())
                    .map(Some)?
            }
        };
        participant.last_read_at = participant.last_read_index.map(|_| now);
    }
    if let Some(text) = change.last_read_at.as_deref().filter(|text| !text.is_empty()) {
        participant.last_read_at = Some(time::parse("LastReadTimestamp", text)?);
    }
    Ok(())
}
