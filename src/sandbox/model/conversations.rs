//! Operations on conversations: creating, with or without participants, changing, removing, and what their timers do.

use jiff::{SignedDuration, Timestamp};

use crate::ids::{ConversationSid, MessagingServiceSid, ServiceSid};

use super::conversation::{Conversation, Head, Setup, State};
use super::event::{self, Origin, Reason};
use super::group::{self, Claim, Member};
use super::refusal::{
    CREATED_CLOSED, GROUP_EXISTS, MESSAGING_SERVICE_INVALID, MESSAGING_SERVICE_NOT_OURS, NOT_MODIFIABLE,
    PAIR_BOUND, Refusal, STATE_EMPTY, STATE_INVALID, TIMER_CLOSED_FORMAT, TIMER_CLOSED_SHORT,
    TIMER_INACTIVE_FORMAT, TIMER_INACTIVE_SHORT, TIMER_WITHOUT_STATE, UNIQUE_NAME_IS_SID, UNIQUE_NAME_TAKEN,
};
use super::webhook::{ConversationWebhook, Event, EventName};
use super::{
    Account, CLOSED_TIMER_MIN, Cause, Dates, Effect, INACTIVE_TIMER_MIN, checked_attributes, checked_name,
    new_sid, time,
};

const ATTRIBUTES_LIMIT: usize = 16 * 1024;

/// The parameters of a conversation, as they came. What is absent stays as it is, or takes its default.
#[derive(Clone, Default)]
pub(crate) struct ConversationFields {
    pub(crate) friendly_name: Option<String>,
    pub(crate) unique_name: Option<String>,
    pub(crate) messaging_service: Option<String>,
    pub(crate) attributes: Option<String>,
    pub(crate) state: Option<String>,
    pub(crate) inactive_timer: Option<String>,
    pub(crate) closed_timer: Option<String>,
    pub(crate) dates: Dates,
}

impl Account {
    /// The head of a conversation to be created, if Twilio would create it.
    pub(super) fn draft_conversation(
        &self,
        service: &ServiceSid,
        fields: &ConversationFields,
    ) -> Result<Head, Refusal> {
        if fields.state.is_none() && (fields.inactive_timer.is_some() || fields.closed_timer.is_some()) {
            return Err(TIMER_WITHOUT_STATE.refuse());
        }
        if fields.state.as_deref() == Some("closed") {
            return Err(CREATED_CLOSED.refuse());
        }
        let mut head = self.blank_head(service.clone());
        self.apply_fields(&mut head, fields)?;
        head.updated = fields.dates.updated()?.unwrap_or(head.created);
        Ok(head)
    }

    /// A head with every default, not yet numbered.
    fn blank_head(&self, service: ServiceSid) -> Head {
        let now = self.now();
        let timer = |text: &Option<String>, least, format, short| {
            text.as_deref()
                .and_then(|text| time::timer(text, least, format, short).ok())
        };
        let defaults = &self.configuration;
        Head {
            serial: 0,
            sid: new_sid(ConversationSid::PREFIX),
            service,
            messaging_service: defaults.messaging_service.clone(),
            friendly_name: None,
            unique_name: None,
            attributes: "{}".to_owned(),
            state: State::Active,
            created: now,
            updated: now,
            last_activity: now,
            inactive_after: timer(
                &defaults.inactive_timer,
                INACTIVE_TIMER_MIN,
                TIMER_INACTIVE_FORMAT,
                TIMER_INACTIVE_SHORT,
            ),
            closed_after: timer(
                &defaults.closed_timer,
                CLOSED_TIMER_MIN,
                TIMER_CLOSED_FORMAT,
                TIMER_CLOSED_SHORT,
            ),
            created_by: "system".to_owned(),
        }
    }

    /// Puts `fields` into `head`, checking each.
    fn apply_fields(&self, head: &mut Head, fields: &ConversationFields) -> Result<(), Refusal> {
        if let Some(name) = &fields.friendly_name {
            head.friendly_name = checked_name("FriendlyName", name)?;
        }
        if let Some(name) = &fields.unique_name {
            head.unique_name = self.checked_unique_name(head, name)?;
        }
        if let Some(sid) = &fields.messaging_service {
            head.messaging_service = self.checked_messaging_service(sid)?;
        }
        if let Some(attributes) = checked_attributes(fields.attributes.as_deref(), ATTRIBUTES_LIMIT)? {
            head.attributes = attributes;
        }
        if let Some(state) = &fields.state {
            head.state = checked_state(state)?;
        }
        if let Some(timer) = &fields.inactive_timer {
            head.inactive_after = inactive_timer(timer)?;
        }
        if let Some(timer) = &fields.closed_timer {
            head.closed_after = closed_timer(timer)?;
        }
        if let Some(created) = fields.dates.created()? {
            head.created = created;
        }
        Ok(())
    }

    /// A closed conversation keeps holding its unique name; only removing it frees the name.
    fn checked_unique_name(&self, head: &Head, name: &str) -> Result<Option<String>, Refusal> {
        if ConversationSid::try_from(name).is_ok() {
            return Err(UNIQUE_NAME_IS_SID.refuse());
        }
        match self.register.unique_name_holder(&head.service, name) {
            Some(holder) if *holder != head.sid => Err(UNIQUE_NAME_TAKEN.refuse()),
            _ => checked_name("UniqueName", name),
        }
    }

    pub(crate) fn checked_messaging_service(&self, text: &str) -> Result<MessagingServiceSid, Refusal> {
        let sid = MessagingServiceSid::try_from(text).map_err(|_| MESSAGING_SERVICE_INVALID.refuse())?;
        if self.messaging_services.contains(&sid) {
            Ok(sid)
        } else {
            Err(MESSAGING_SERVICE_NOT_OURS.refuse())
        }
    }

    /// `onConversationAdd` for a REST request, if the request is one that would succeed.
    pub(crate) fn ask_create(
        &self,
        service: &ServiceSid,
        fields: &ConversationFields,
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let head = self.draft_conversation(service, fields)?;
        let name = EventName::ConversationAdd;
        Ok(event::conversation_added(
            &self.sid,
            name,
            &head,
            &Origin::Rest,
            None,
            cause,
        ))
    }

    pub(crate) fn create_conversation(
        &mut self,
        service: &ServiceSid,
        fields: &ConversationFields,
        cause: Cause,
    ) -> Result<ConversationSid, Refusal> {
        let head = self.draft_conversation(service, fields)?;
        Ok(self.open_conversation(head, None, Vec::new(), &Origin::Rest, cause))
    }

    /// At most one open conversation for each set of numbers, and for each pair of address and proxy. Inactive
    /// conversations are open.
    pub(crate) fn check_claims(
        &self,
        members: &[Member],
        own: Option<&ConversationSid>,
    ) -> Result<(), Refusal> {
        match self.register.conflict(&group::claims(members), own) {
            None => Ok(()),
            Some((Claim::Roster(_), holder)) => Err(GROUP_EXISTS.saying(format!(
                "Group MMS with given participant list already exists as Conversation {holder}"
            ))),
            Some((Claim::Pair { .. }, holder)) => Err(PAIR_BOUND.saying(format!(
                "A binding for this participant and proxy address already exists in Conversation {holder}"
            ))),
        }
    }

    /// Puts a new conversation in its place and tells of it.
    pub(super) fn open_conversation(
        &mut self,
        mut head: Head,
        setup: Option<Setup>,
        webhooks: Vec<ConversationWebhook>,
        origin: &Origin<'_>,
        cause: Cause,
    ) -> ConversationSid {
        head.serial = self.next_serial();
        let sid = head.sid.clone();
        let name = EventName::ConversationAdded;
        let added = event::conversation_added(&self.sid, name, &head, origin, None, cause);
        if setup.is_some() {
            self.effects.push(Effect::SetUp(sid.clone()));
        }
        self.register.insert(Conversation {
            head,
            participants: Vec::new(),
            messages: Vec::new(),
            webhooks,
            setup,
            next_index: 0,
        });
        self.tell(&added, cause);
        sid
    }

    /// A head for a conversation that an inbound message makes.
    pub(super) fn inbound_head(&self, service: ServiceSid, state: State, created_by: String) -> Head {
        Head {
            state,
            created_by,
            ..self.blank_head(service)
        }
    }

    /// The head as an update would leave it, if Twilio would make the update.
    fn draft_update(
        &self,
        service: &ServiceSid,
        key: &str,
        fields: &ConversationFields,
    ) -> Result<Head, Refusal> {
        let conversation = self.conversation(service, key)?;
        conversation.head.check_open()?;
        let mut head = conversation.head.clone();
        self.apply_fields(&mut head, fields)?;
        head.updated = fields.dates.updated()?.unwrap_or_else(|| self.now());
        head.last_activity = self.now();
        Ok(head)
    }

    pub(crate) fn ask_update(
        &self,
        service: &ServiceSid,
        key: &str,
        fields: &ConversationFields,
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let head = self.draft_update(service, key, fields)?;
        Ok(event::conversation_changed(
            &self.sid,
            EventName::ConversationUpdate,
            &head,
            None,
            cause,
        ))
    }

    pub(crate) fn update_conversation(
        &mut self,
        service: &ServiceSid,
        key: &str,
        fields: &ConversationFields,
        cause: Cause,
    ) -> Result<ConversationSid, Refusal> {
        let head = self.draft_update(service, key, fields)?;
        let sid = head.sid.clone();
        let wanted = head.state;
        let before = self.change_conversation(&sid, |conversation| {
            let before = conversation.head.state;
            // The state is changed below, where its change is told.
            conversation.head = Head {
                state: before,
                ..head
            };
            before
        });
        if fields.friendly_name.is_some()
            || fields.unique_name.is_some()
            || fields.attributes.is_some()
            || fields.messaging_service.is_some()
        {
            self.tell_changed(&sid, EventName::ConversationUpdated, cause);
        }
        self.set_state(&sid, before, wanted, Reason::Api, cause);
        Ok(sid)
    }

    fn tell_changed(&mut self, sid: &ConversationSid, name: EventName, cause: Cause) {
        let head = &self.register.get(sid).expect("found under the same lock").head;
        let event = event::conversation_changed(&self.sid, name, head, None, cause);
        self.tell(&event, cause);
    }

    /// Puts a conversation into the state `to` and tells of it, if it was in another.
    pub(super) fn set_state(
        &mut self,
        sid: &ConversationSid,
        from: State,
        to: State,
        reason: Reason,
        cause: Cause,
    ) {
        if from == to {
            return;
        }
        let now = self.now();
        let head = self.change_conversation(sid, |conversation| {
            conversation.head.state = to;
            conversation.head.updated = conversation.head.updated.max(now);
            if reason != Reason::Timer {
                conversation.head.last_activity = now;
            }
            conversation.head.clone()
        });
        let event = event::state_updated(&self.sid, &head, from, now, reason, cause);
        self.tell(&event, cause);
    }

    /// A message or a new participant: the timers begin again, and an inactive conversation is active again.
    pub(super) fn note_activity(&mut self, sid: &ConversationSid, cause: Cause) {
        let now = self.now();
        let before = self.change_conversation(sid, |conversation| {
            conversation.head.last_activity = now;
            conversation.head.state
        });
        if before == State::Inactive {
            self.set_state(sid, before, State::Active, Reason::Event, cause);
        }
    }

    /// Lets every timer take effect that has run out by now.
    pub(crate) fn run_timers(&mut self) {
        let now = self.now();
        for sid in self.register.due(now) {
            // A conversation may have become inactive and closed since it was last looked at.
            while let Some((from, to)) = self
                .register
                .get(&sid)
                .and_then(|conversation| due(&conversation.head, now))
            {
                self.set_state(&sid, from, to, Reason::Timer, Cause::TIMER);
            }
        }
    }

    pub(crate) fn ask_remove(&self, service: &ServiceSid, key: &str, cause: Cause) -> Result<Event, Refusal> {
        let head = &self.removable(service, key)?.head;
        Ok(event::conversation_changed(
            &self.sid,
            EventName::ConversationRemove,
            head,
            None,
            cause,
        ))
    }

    fn removable(&self, service: &ServiceSid, key: &str) -> Result<&Conversation, Refusal> {
        let conversation = self.conversation(service, key)?;
        if conversation.head.state == State::Initializing {
            return Err(NOT_MODIFIABLE.refuse());
        }
        Ok(conversation)
    }

    /// Removes a conversation with everything in it; only its own removal is told.
    pub(crate) fn remove_conversation(
        &mut self,
        service: &ServiceSid,
        key: &str,
        cause: Cause,
    ) -> Result<(), Refusal> {
        let head = self.removable(service, key)?.head.clone();
        let name = EventName::ConversationRemoved;
        let event = event::conversation_changed(&self.sid, name, &head, Some(self.now()), cause);
        self.tell(&event, cause);
        self.register.remove(&head.sid);
        Ok(())
    }
}

/// What a timer makes of a conversation at `now`.
fn due(head: &Head, now: Timestamp) -> Option<(State, State)> {
    let has_come = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
    if has_come(head.date_inactive()) {
        Some((head.state, State::Inactive))
    } else if has_come(head.date_closed()) {
        Some((head.state, State::Closed))
    } else {
        None
    }
}

fn checked_state(text: &str) -> Result<State, Refusal> {
    match text {
        "" => Err(STATE_EMPTY.refuse()),
        "active" => Ok(State::Active),
        "inactive" => Ok(State::Inactive),
        "closed" => Ok(State::Closed),
        _ => Err(STATE_INVALID.refuse()),
    }
}

/// An empty text or a duration of nothing turns the timer off.
pub(crate) fn inactive_timer(text: &str) -> Result<Option<SignedDuration>, Refusal> {
    if is_off(text) {
        return Ok(None);
    }
    time::timer(
        text,
        INACTIVE_TIMER_MIN,
        TIMER_INACTIVE_FORMAT,
        TIMER_INACTIVE_SHORT,
    )
    .map(Some)
}

/// As [`inactive_timer`], for closing.
pub(crate) fn closed_timer(text: &str) -> Result<Option<SignedDuration>, Refusal> {
    if is_off(text) {
        return Ok(None);
    }
    time::timer(text, CLOSED_TIMER_MIN, TIMER_CLOSED_FORMAT, TIMER_CLOSED_SHORT).map(Some)
}

fn is_off(text: &str) -> bool {
    matches!(text, "" | "PT0S" | "P0D")
}
