//! The calls of a swap: reading what is at Twilio, and changing one thing.

use tracing::warn;

use super::{Ended, Reason, Run, SETTLED_AFTER, Seen, Stop};
use crate::ids::ParticipantSid;
use crate::mirror::change::ParticipantChange;
use crate::mirror::{self, Change, Version, project};
use crate::projection::read::Failure;
use crate::queue::Outcome;
use crate::transfer::{State, step as steps};
use crate::twilio::model::Participant;
use crate::twilio::requests::{Member, NewParticipant, ParticipantUpdate};
use crate::twilio::{Class, Error as TwilioError};

impl Run<'_> {
    /// Reads the members at Twilio. The state of the conversation is the mirror's, where that says that it is open and
    /// nothing has gone wrong yet; else it is read too.
    ///
    /// Meanwhile it is written down what became of the last step: nothing that follows needs it.
    pub(super) async fn look(&mut self) -> Result<Seen, Failure> {
        let ended = self.ended.take();
        let (seen, written) = futures_util::join!(self.look_at_twilio(), self.write_down(ended));
        written?;
        seen
    }

    async fn look_at_twilio(&self) -> Result<Seen, Failure> {
        let sid = &self.hold.transfer.conversation_sid;
        // While all goes well, what stood in the mirror when the run began will do: where a row has changed since, the
        // answer settles nothing about it.
        let standing = if self.in_doubt {
            let mut conn = self.hold.swap.pool.acquire().await?;
            mirror::standing(&mut conn, sid.as_str()).await?
        } else {
            self.standing.clone()
        };
        let mut seen = Seen {
            conversation_state: standing.state,
            participants: Vec::new(),
            changes: Vec::new(),
            revisions: standing.revisions,
        };
        let is_open = matches!(seen.conversation_state.as_deref(), Some("active" | "inactive"));
        if self.in_doubt || !is_open {
            seen.conversation_state = match self.account.client.fetch_conversation(sid).await {
                Ok(conversation) => {
                    seen.changes.extend(project::conversation(&conversation));
                    Some(conversation.state.to_string())
                }
                Err(TwilioError::NotFound { .. }) => None,
                Err(error) => return Err(error.into()),
            };
        }
        match self.account.client.list_participants(sid).all().await {
            Err(TwilioError::NotFound { .. }) => seen.conversation_state = None,
            Err(error) => return Err(error.into()),
            Ok(participants) => {
                seen.changes
                    .extend(participants.iter().filter_map(project::participant));
                seen.changes.extend(self.gone(&standing.members, &participants));
                seen.participants = participants;
            }
        }
        Ok(seen)
    }

    /// Who was on the line and is not listed any more: gone by now, which the ledger must not wait for a webhook to hear.
    fn gone(&self, known: &[(String, Option<String>)], listed: &[Participant]) -> Vec<Change> {
        let on_line = known
            .iter()
            .filter(|(_, line)| line.as_deref() == Some(self.hold.transfer.line.as_str()));
        let absent = on_line.filter(|(sid, _)| listed.iter().all(|other| other.sid.as_str() != sid));
        // Not before anybody who is listed was last changed, where our clock is behind Twilio's.
        let latest = listed.iter().filter_map(|one| Some(one.date_updated?.at)).max();
        let at = self.removed_at.unwrap_or_else(|| self.hold.swap.clock.now());
        let at = latest.map_or(at, |latest| at.max(latest));
        absent
            .filter_map(|(sid, _)| ParticipantSid::try_from(sid.as_str()).ok())
            .map(|participant_sid| {
                Change::Participant(ParticipantChange {
                    conversation_sid: self.hold.transfer.conversation_sid.clone(),
                    participant_sid,
                    version: Version::exact(at),
                    removed: true,
                    fields: None,
                    created_at: None,
                })
            })
            .collect()
    }

    pub(super) async fn update(&mut self, participant_sid: &str) -> Result<Option<Outcome>, Stop> {
        let participant_sid = parse(participant_sid)?;
        let step = self.begin("update").await?;
        let update = ParticipantUpdate {
            identity: self.hold.transfer.to_holder.clone(),
            ..Default::default()
        };
        let called = self
            .account
            .client
            .update_participant(&self.hold.transfer.conversation_sid, &participant_sid, &update)
            .await;
        self.end_step(step, called.as_ref().err());
        match called {
            Ok(_) => Ok(None),
            Err(error) if error.code() == Some(50444) => {
                let now = self.hold.swap.clock.now();
                let mut conn = self.hold.swap.pool.acquire().await?;
                steps::learn_method(&mut conn, &self.hold.transfer.account_sid, true, now).await?;
                self.update_refused = true;
                Ok(None)
            }
            Err(error) => {
                self.after_error(error, "Twilio refused to update the identity")
                    .await
            }
        }
    }

    pub(super) async fn add(&mut self, beside: &str, seen: &Seen) -> Result<Option<Outcome>, Stop> {
        let old = seen
            .participants
            .iter()
            .find(|participant| participant.sid.as_str() == beside);
        let is_person = self.hold.transfer.to_holder.is_some();
        let new = NewParticipant {
            member: match self.hold.transfer.to_holder.clone() {
                Some(identity) => Member::Projected {
                    identity,
                    projected_address: self.hold.transfer.line.clone(),
                },
                None => Member::Gateway {
                    projected_address: self.hold.transfer.line.clone(),
                },
            },
            attributes: old.map(|old| old.attributes.clone()),
            // A number by itself has no role, and has read nothing.
            role_sid: old.and_then(|old| old.role_sid.clone()).filter(|_| is_person),
        };
        let step = self.begin("add").await?;
        let called = self
            .account
            .client
            .create_participant(&self.hold.transfer.conversation_sid, &new)
            .await;
        self.end_step(step, called.as_ref().err());
        match called {
            Ok(_) if !is_person => Ok(None),
            Ok(added) => self.copy_read_horizon(&added, old).await.map(|()| None),
            Err(error) if error.code() == Some(50436) => {
                let detail = "the group has ten members, and Twilio does not replace an identity here: a place is needed";
                self.end(State::Failed, "group_full", detail, seen)
                    .await
                    .map(Some)
            }
            Err(error) => {
                self.after_error(error, "Twilio refused to add the new holder")
                    .await
            }
        }
    }

    /// How far the line had been read belongs to the participant, and goes over to the new one. Not worth a failure.
    async fn copy_read_horizon(&self, added: &Participant, old: Option<&Participant>) -> Result<(), Stop> {
        let Some(index) = old.and_then(|old| old.last_read_message_index) else {
            return Ok(());
        };
        let update = ParticipantUpdate {
            last_read_message_index: Some(index),
            ..Default::default()
        };
        let sid = &self.hold.transfer.conversation_sid;
        if let Err(error) = self
            .account
            .client
            .update_participant(sid, &added.sid, &update)
            .await
        {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot copy how far the line was read"
            );
        }
        Ok(())
    }

    pub(super) async fn remove(&mut self, participant_sid: &str) -> Result<Option<Outcome>, Stop> {
        let participant_sid = parse(participant_sid)?;
        let step = self.begin("remove").await?;
        let called = self
            .account
            .client
            .delete_participant(&self.hold.transfer.conversation_sid, &participant_sid)
            .await;
        self.end_step(step, called.as_ref().err());
        match called {
            Ok(()) => {
                self.removed_at = Some(self.hold.swap.clock.now());
                Ok(None)
            }
            // Gone already is what we wanted.
            Err(TwilioError::NotFound { .. }) => {
                self.in_doubt = true;
                Ok(None)
            }
            Err(TwilioError::OutcomeUnknown { .. }) => Ok(Some(self.wait_for_what_comes())),
            Err(error) => Err(error.into()),
        }
    }

    /// A refusal ends the transfer where nothing was changed; anything that may pass or may have happened is looked at
    /// again.
    async fn after_error(&mut self, error: TwilioError, what: &str) -> Result<Option<Outcome>, Stop> {
        self.in_doubt = true;
        match &error {
            TwilioError::OutcomeUnknown { .. } => Ok(Some(self.wait_for_what_comes())),
            TwilioError::NotFound { .. } => Ok(None),
            TwilioError::Rejected(rejection) => match rejection.class {
                // It is so already, or somebody else is at it: the next look tells.
                Class::AlreadySo | Class::NotFound => Ok(None),
                Class::Conflict | Class::Throttled | Class::Failed | Class::StartAgain => Err(error.into()),
                Class::Refused | Class::Configuration | Class::OwnWebhook => {
                    let seen = self.look().await?;
                    let code = error.code().unwrap_or_default();
                    let detail = format!("{what} (Twilio's error {code})");
                    self.end(State::Failed, "refused_by_twilio", &detail, &seen)
                        .await
                        .map(Some)
                }
            },
            TwilioError::Configuration { .. }
            | TwilioError::Throttled { .. }
            | TwilioError::Unavailable { .. }
            | TwilioError::Malformed { .. } => Err(error.into()),
        }
    }

    /// Twilio may do what it gave no answer to a moment later: what is seen before that is not the end of it.
    fn wait_for_what_comes(&mut self) -> Outcome {
        self.waits_for = Reason {
            what: "twilio",
            error: Some("outcome_unknown".to_owned()),
        };
        Outcome::Wait(SETTLED_AFTER)
    }

    /// Writes down what is about to be tried, and that the line is contested from now on.
    async fn begin(&mut self, action: &str) -> Result<i32, Stop> {
        let now = self.hold.swap.clock.now();
        let mut transaction = self.hold.swap.pool.begin().await?;
        self.hold.check_fences(&mut transaction).await?;
        self.hold.transfer.contested_from.get_or_insert(now);
        self.hold.transfer.updated_at = now;
        let step = steps::begin(&mut transaction, &self.hold.transfer, action, now).await?;
        transaction.commit().await?;
        Ok(step)
    }

    /// What became of a step is written down beside the next look, or before the run ends.
    fn end_step(&mut self, number: i32, error: Option<&TwilioError>) {
        let outcome = match error {
            None => "done",
            Some(TwilioError::OutcomeUnknown { .. }) => "unknown",
            Some(_) => "refused",
        };
        self.ended = Some(Ended {
            number,
            outcome,
            detail: error.map(ToString::to_string),
            at: self.hold.swap.clock.now(),
        });
    }

    pub(super) async fn write_down(&self, ended: Option<Ended>) -> Result<(), sqlx::Error> {
        let Some(ended) = ended else { return Ok(()) };
        let mut conn = self.hold.swap.pool.acquire().await?;
        let (transfer, detail) = (&self.hold.transfer, ended.detail.as_deref());
        steps::end(&mut conn, transfer, ended.number, ended.outcome, detail, ended.at).await
    }
}

fn parse(participant_sid: &str) -> Result<ParticipantSid, Stop> {
    ParticipantSid::try_from(participant_sid).map_err(|error| {
        Stop::Failed(Failure::Twilio(TwilioError::Malformed {
            reason: error.to_string(),
        }))
    })
}
