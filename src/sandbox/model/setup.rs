//! Conversations that come into being with all their participants: created by `ConversationWithParticipants`, or by an
//! inbound group text. They are `initializing` until the last participant has joined.

use std::collections::VecDeque;

use crate::ids::{ConversationSid, ServiceSid};

use super::conversation::{Founder, Head, Inbound, Setup, State};
use super::conversations::ConversationFields;
use super::event::{self, Origin, Reason};
use super::group::{self, GROUP_LIMIT, Member};
use super::participants::NewParticipant;
use super::refusal::{PAIR_BOUND, PAIRS_IN_USE, Refusal, TOO_MANY_AT_ONCE};
use super::webhook::{Event, EventName};
use super::{Account, Cause};

/// A step of setting a conversation up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SetupStep {
    More,
    Done,
}

impl Account {
    /// The head of a conversation to be created with participants, and how it goes on from there.
    fn draft_founding(
        &self,
        service: &ServiceSid,
        fields: &ConversationFields,
        participants: &[NewParticipant],
        cause: Cause,
    ) -> Result<(Head, Setup), Refusal> {
        let mut head = self.draft_conversation(service, fields)?;
        let founders = self.draft_founders(service, participants)?;
        let setup = Setup {
            cause,
            founders: founders.into(),
            ends_in: head.state,
            inbound: VecDeque::new(),
        };
        head.state = State::Initializing;
        Ok((head, setup))
    }

    /// `onConversationAdd` for a REST request, if the request is one that would succeed.
    pub(crate) fn ask_create_with_participants(
        &self,
        service: &ServiceSid,
        fields: &ConversationFields,
        participants: &[NewParticipant],
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let (head, _) = self.draft_founding(service, fields, participants, cause)?;
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

    /// Creates a conversation and, one after the other and a little later, all of its participants.
    pub(crate) fn create_with_participants(
        &mut self,
        service: &ServiceSid,
        fields: &ConversationFields,
        participants: &[NewParticipant],
        cause: Cause,
    ) -> Result<ConversationSid, Refusal> {
        let (head, setup) = self.draft_founding(service, fields, participants, cause)?;
        Ok(self.open_conversation(head, Some(setup), Vec::new(), &Origin::Rest, cause))
    }

    fn draft_founders(
        &self,
        service: &ServiceSid,
        participants: &[NewParticipant],
    ) -> Result<Vec<Founder>, Refusal> {
        if participants.len() > GROUP_LIMIT {
            return Err(TOO_MANY_AT_ONCE.refuse());
        }
        let founders: Vec<Founder> = participants
            .iter()
            .map(|participant| self.draft_founder(service, participant))
            .collect::<Result<_, _>>()?;
        let members: Vec<Member> = founders.iter().map(|founder| founder.member.clone()).collect();
        group::check_founding(&members)?;
        self.check_claims(&members, None).map_err(|refusal| {
            // The same conflict has a code of its own where several participants are created at once.
            if refusal.code == PAIR_BOUND.code {
                PAIRS_IN_USE.refuse()
            } else {
                refusal
            }
        })?;
        Ok(founders)
    }

    /// Does the next thing that an initializing conversation waits for: one participant, or, after the last of them,
    /// the message that came in and the change of state.
    pub(crate) fn set_up_next(&mut self, sid: &ConversationSid) -> SetupStep {
        if self
            .register
            .get(sid)
            .is_none_or(|conversation| conversation.setup.is_none())
        {
            return SetupStep::Done;
        }
        let (cause, founder) = self.change_conversation(sid, |conversation| {
            let setup = conversation.setup.as_mut().expect("asked above");
            (setup.cause, setup.founders.pop_front())
        });
        let Some(founder) = founder else {
            self.finish_setup(sid);
            return SetupStep::Done;
        };
        match self.add_founder(sid, founder, cause) {
            Ok(()) => SetupStep::More,
            Err(refusal) => {
                self.fail_setup(sid, &refusal);
                SetupStep::Done
            }
        }
    }

    fn finish_setup(&mut self, sid: &ConversationSid) {
        let setup = self.change_conversation(sid, |conversation| {
            conversation.setup.take().expect("asked above")
        });
        self.change_conversation(sid, |conversation| conversation.head.state = setup.ends_in);
        for inbound in &setup.inbound {
            self.post_inbound(sid, inbound);
        }
        self.set_state(
            sid,
            State::Initializing,
            setup.ends_in,
            Reason::Event,
            setup.cause,
        );
    }

    /// Error 50427: the conversation ends closed, and everything that it held is free again but its unique name.
    fn fail_setup(&mut self, sid: &ConversationSid, refusal: &Refusal) {
        tracing::warn!(conversation.sid = %sid, code = refusal.code, "setting {sid} up failed, 50427");
        let setup = self.change_conversation(sid, |conversation| conversation.setup.take());
        let cause = setup.map_or(Cause::rest(false), |setup| setup.cause);
        self.set_state(sid, State::Initializing, State::Closed, Reason::Event, cause);
    }

    /// Keeps a message until its conversation is set up.
    pub(super) fn queue_inbound(&mut self, sid: &ConversationSid, inbound: Inbound) {
        self.change_conversation(sid, |conversation| {
            if let Some(setup) = conversation.setup.as_mut() {
                setup.inbound.push_back(inbound);
            }
        });
    }
}
