//! The swap: read, decide, one call, record, and again until the reading confirms it.
//!
//! Every record names two fences: the task's lease, and the line's. A worker that overslept records nothing.

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use tracing::{Instrument as _, info, info_span, warn};
use uuid::Uuid;

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::config::TransferMethod;
use crate::events::{Kind as EventKind, Via, transfer_cause};
use crate::ids::{ParticipantSid, PhoneNumber};
use crate::ledger::{self, Lease};
use crate::mirror::{self, Change, Observed, Revisions, project};
use crate::projection;
use crate::projection::read::Failure;
use crate::queue::{self, Handler, Outcome, Task};
use crate::transfer::machine::{Next, Seat, Situation, next};
use crate::transfer::{State, Transfer, operations, store};
use crate::twilio::model::{Hidden, Participant};
use crate::twilio::requests::{Member, NewParticipant, ParticipantUpdate};
use crate::twilio::{Class, Error as TwilioError};

/// Runs [`super::SWAP_TASK`].
#[derive(Debug, Clone)]
pub struct Swap {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

/// Looks and calls in one run of the task at most; what is left is for the next run.
const ROUNDS_MAX: usize = 6;

/// How long the line is leased for a run; longer than a run may take.
const LINE_LEASE: SignedDuration = SignedDuration::from_mins(3);

#[derive(Debug, Deserialize)]
struct Payload {
    transfer_id: Uuid,
}

/// One run of the task, with what it may record under.
struct Run<'a> {
    swap: &'a Swap,
    account: &'a Account,
    task: &'a Task,
    transfer: Transfer,
    lease: Lease,
}

/// What Twilio shows, and what the mirror had when we asked.
struct Seen {
    conversation_state: Option<String>,
    participants: Vec<Participant>,
    changes: Vec<Change>,
    revisions: Revisions,
}

/// The worker lost the line or the task to somebody else, and stops without a trace.
#[derive(Debug)]
enum Stop {
    Fenced,
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl Handler for Swap {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            let span = info_span!("transfer.swap", transfer.id = %payload.transfer_id);
            self.swap(task, payload.transfer_id)
                .instrument(span)
                .await
                .unwrap_or_else(|stop| match stop {
                    Stop::Fenced => {
                        warn!("the line or the task went to another worker");
                        Outcome::Finished
                    }
                    Stop::Failed(failure) => failure.outcome(),
                })
        })
    }
}

impl Swap {
    async fn swap(&self, task: &Task, transfer_id: Uuid) -> Result<Outcome, Stop> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let Some(transfer) = store::lock(&mut transaction, transfer_id).await? else {
            return Ok(Outcome::Done);
        };
        if transfer.state != State::Swapping {
            return Ok(Outcome::Done);
        }
        let Some(account) = self.accounts.get(&transfer.account_sid) else {
            warn!("the transfer's account is not configured");
            return Ok(Outcome::Wait(SignedDuration::from_secs(30)));
        };
        let (sid, line) = (transfer.conversation_sid.as_str(), transfer.line.as_str());
        let to = transfer.to_holder.as_str();
        let until = now + LINE_LEASE;
        let taken = ledger::acquire_line(&mut transaction, sid, line, transfer_id, to, now, until).await?;
        transaction.commit().await?;
        let lease = match taken {
            Ok(lease) => lease,
            Err(held) => {
                info!(by = %held.by, "the line is leased to another transfer");
                return Ok(Outcome::Wait(SignedDuration::from_secs(1)));
            }
        };
        let mut run = Run {
            swap: self,
            account,
            task,
            transfer,
            lease,
        };
        run.work().await
    }
}

impl Run<'_> {
    async fn work(&mut self) -> Result<Outcome, Stop> {
        let mut method = None;
        for round in 0..ROUNDS_MAX {
            let seen = match self.look(round > 0).await {
                Err(failure) if self.is_overdue() => return self.give_up(&failure).await,
                other => other?,
            };
            let update_refused = self.update_refused().await?;
            let step = next(&Situation {
                conversation_state: seen.conversation_state.as_deref(),
                seats: &seats(&seen.participants),
                line: self.transfer.line.as_str(),
                from: self.transfer.from_holder.as_deref(),
                to: self.transfer.to_holder.as_str(),
                method: self.account.transfer_method,
                update_refused,
            });
            match step {
                Next::Confirmed => return self.complete(&seen, method).await,
                Next::Fail { code, detail } => {
                    return self.end(State::Failed, code, &detail, Some(&seen)).await;
                }
                Next::Attention { code, detail } => {
                    return self.end(State::NeedsAttention, code, &detail, Some(&seen)).await;
                }
                _ if self.is_overdue() => return self.time_is_up(&step, &seen).await,
                Next::Wait => return Ok(Outcome::Wait(SignedDuration::from_millis(500))),
                Next::Update { participant_sid } => {
                    method.get_or_insert("update");
                    if let Some(end) = self.update(&participant_sid).await? {
                        return Ok(end);
                    }
                }
                Next::Add { beside } => {
                    method = Some("add_remove");
                    if let Some(end) = self.add(&beside, &seen).await? {
                        return Ok(end);
                    }
                }
                Next::Remove { participant_sid } => {
                    method = Some("add_remove");
                    self.remove(&participant_sid).await?;
                }
            }
        }
        Ok(Outcome::Retry(anyhow::anyhow!(
            "the swap is not confirmed after {ROUNDS_MAX} rounds"
        )))
    }

    /// Reads the members at Twilio. The state of the conversation is the mirror's, where that says that it is open and
    /// nothing has gone wrong yet; else it is read too.
    async fn look(&self, again: bool) -> Result<Seen, Failure> {
        let sid = &self.transfer.conversation_sid;
        let mut conn = self.swap.pool.acquire().await?;
        let revisions = mirror::revisions_of_conversation(&mut conn, sid.as_str()).await?;
        let known = mirror::read::conversation(&mut conn, sid.as_str())
            .await?
            .and_then(|row| row.state);
        drop(conn);
        let mut changes = Vec::new();
        let open = known.filter(|state| !again && matches!(state.as_str(), "active" | "inactive"));
        let conversation_state = if let Some(state) = open {
            Some(state)
        } else {
            match self.account.client.fetch_conversation(sid).await {
                Ok(conversation) => {
                    changes.extend(project::conversation(&conversation));
                    Some(conversation.state.to_string())
                }
                Err(TwilioError::NotFound { .. }) => None,
                Err(error) => return Err(error.into()),
            }
        };
        let participants = match self.account.client.list_participants(sid).all().await {
            Err(TwilioError::NotFound { .. }) => {
                return Ok(Seen {
                    conversation_state: None,
                    participants: Vec::new(),
                    changes,
                    revisions,
                });
            }
            other => other?,
        };
        changes.extend(participants.iter().filter_map(project::participant));
        Ok(Seen {
            conversation_state,
            participants,
            changes,
            revisions,
        })
    }

    async fn update(&mut self, participant_sid: &str) -> Result<Option<Outcome>, Stop> {
        let participant_sid = parse(participant_sid)?;
        let step = self.begin("update").await?;
        let update = ParticipantUpdate {
            identity: Some(self.transfer.to_holder.clone()),
            ..Default::default()
        };
        let called = self
            .account
            .client
            .update_participant(&self.transfer.conversation_sid, &participant_sid, &update)
            .await;
        self.finish(step, called.as_ref().err()).await?;
        match called {
            Ok(_) => Ok(None),
            Err(error) if error.code() == Some(50444) => {
                let now = self.swap.clock.now();
                let mut conn = self.swap.pool.acquire().await?;
                store::learn_method(&mut conn, &self.transfer.account_sid, true, now).await?;
                Ok(None)
            }
            Err(error) => {
                self.after_error(error, "Twilio refused to update the identity")
                    .await
            }
        }
    }

    async fn add(&mut self, beside: &str, seen: &Seen) -> Result<Option<Outcome>, Stop> {
        let old = seen
            .participants
            .iter()
            .find(|participant| participant.sid.as_str() == beside);
        let new = NewParticipant {
            member: Member::Projected {
                identity: self.transfer.to_holder.clone(),
                projected_address: self.transfer.line.clone(),
            },
            attributes: old.map(|old| old.attributes.clone()),
            role_sid: old.and_then(|old| old.role_sid.clone()),
        };
        let step = self.begin("add").await?;
        let called = self
            .account
            .client
            .create_participant(&self.transfer.conversation_sid, &new)
            .await;
        self.finish(step, called.as_ref().err()).await?;
        match called {
            Ok(added) => self.copy_read_horizon(&added, old).await.map(|()| None),
            Err(error) if error.code() == Some(50436) => {
                let detail = "the group has ten members, and Twilio does not replace an identity here: a place is needed";
                self.end(State::Failed, "group_full", detail, Some(seen))
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
        let sid = &self.transfer.conversation_sid;
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

    async fn remove(&mut self, participant_sid: &str) -> Result<(), Stop> {
        let participant_sid = parse(participant_sid)?;
        let step = self.begin("remove").await?;
        let called = self
            .account
            .client
            .delete_participant(&self.transfer.conversation_sid, &participant_sid)
            .await;
        self.finish(step, called.as_ref().err()).await?;
        match called {
            // Gone already is what we wanted.
            Ok(()) | Err(TwilioError::NotFound { .. } | TwilioError::OutcomeUnknown { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// A refusal ends the transfer where nothing was changed; anything that may pass or may have happened is looked at
    /// again.
    async fn after_error(&mut self, error: TwilioError, what: &str) -> Result<Option<Outcome>, Stop> {
        match &error {
            TwilioError::OutcomeUnknown { .. } | TwilioError::NotFound { .. } => Ok(None),
            TwilioError::Rejected(rejection) => match rejection.class {
                // It is so already, or somebody else is at it: the next look tells.
                Class::AlreadySo | Class::NotFound => Ok(None),
                Class::Conflict | Class::Throttled | Class::Failed | Class::StartAgain => Err(error.into()),
                Class::Refused | Class::Configuration | Class::OwnWebhook => {
                    let seen = self.look(true).await?;
                    let code = error.code().unwrap_or_default();
                    let detail = format!("{what} (Twilio's error {code})");
                    self.end(State::Failed, "refused_by_twilio", &detail, Some(&seen))
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

    fn is_overdue(&self) -> bool {
        self.transfer
            .swap_deadline_at
            .is_some_and(|at| at <= self.swap.clock.now())
    }

    /// The last look showed what is still to do; whether anything was done says how it ends.
    async fn time_is_up(&mut self, step: &Next, seen: &Seen) -> Result<Outcome, Stop> {
        match step {
            Next::Remove { participant_sid } => {
                let detail = format!(
                    "the new holder is on the line, and the old one could not be removed in time: participant {participant_sid}"
                );
                self.end(State::NeedsAttention, "old_holder_remains", &detail, Some(seen))
                    .await
            }
            _ => {
                self.end(
                    State::Failed,
                    "timed_out",
                    "Twilio did not do it in time; nothing was changed",
                    Some(seen),
                )
                .await
            }
        }
    }

    async fn give_up(&mut self, failure: &Failure) -> Result<Outcome, Stop> {
        if self.transfer.contested_from.is_none() {
            let detail = format!(
                "Twilio was never asked for a change, since it could not be read: {}",
                root(failure)
            );
            return self.end(State::Failed, "timed_out", &detail, None).await;
        }
        let detail = format!(
            "a change was asked for, and Twilio cannot be read to see whether it was done: {}",
            root(failure)
        );
        self.end(State::NeedsAttention, "outcome_unknown", &detail, None)
            .await
    }

    async fn update_refused(&self) -> Result<bool, Stop> {
        if self.account.transfer_method == TransferMethod::AddRemove {
            return Ok(true);
        }
        let mut conn = self.swap.pool.acquire().await?;
        Ok(store::update_refused(&mut conn, &self.transfer.account_sid).await?)
    }

    /// Writes down what is about to be tried, and that the line is contested from now on.
    async fn begin(&mut self, action: &str) -> Result<i32, Stop> {
        let now = self.swap.clock.now();
        let mut transaction = self.swap.pool.begin().await?;
        self.check_fences(&mut transaction).await?;
        self.transfer.contested_from.get_or_insert(now);
        self.transfer.updated_at = now;
        store::update(&mut transaction, &self.transfer).await?;
        let step = store::begin_step(&mut transaction, &self.transfer, action, now).await?;
        transaction.commit().await?;
        Ok(step)
    }

    async fn finish(&self, step: i32, error: Option<&TwilioError>) -> Result<(), Stop> {
        let (outcome, detail) = match error {
            None => ("done", None),
            Some(TwilioError::OutcomeUnknown { .. }) => ("unknown", error.map(ToString::to_string)),
            Some(_) => ("refused", error.map(ToString::to_string)),
        };
        let now = self.swap.clock.now();
        let mut conn = self.swap.pool.acquire().await?;
        store::end_step(&mut conn, &self.transfer, step, outcome, detail.as_deref(), now).await?;
        Ok(())
    }

    async fn complete(&mut self, seen: &Seen, method: Option<&'static str>) -> Result<Outcome, Stop> {
        let mut steps = Vec::new();
        if method.is_none() {
            let mut conn = self.swap.pool.acquire().await?;
            let sid = self.transfer.conversation_sid.as_str();
            steps = store::steps(&mut conn, sid, self.transfer.transfer_id).await?;
        }
        let earlier = steps.last().map(|step| {
            if step.action == "update" {
                "update"
            } else {
                "add_remove"
            }
        });
        self.transfer.method = Some(method.or(earlier).unwrap_or("none").to_owned());
        self.conclude(State::Completed, Some(seen)).await
    }

    async fn end(
        &mut self,
        state: State,
        code: &str,
        detail: &str,
        seen: Option<&Seen>,
    ) -> Result<Outcome, Stop> {
        self.transfer.outcome_code = Some(code.to_owned());
        self.transfer.outcome_detail = Some(detail.to_owned());
        self.conclude(state, seen).await
    }

    /// The end: what Twilio shows, the transfer, the ledger, the log, the lease and the task in one transaction.
    async fn conclude(&mut self, state: State, seen: Option<&Seen>) -> Result<Outcome, Stop> {
        let now = self.swap.clock.now();
        let mut transaction = self.swap.pool.begin().await?;
        // The conversation's row first, as everywhere: mirror, then what hangs on it.
        if let Some(seen) = seen {
            let observed = self.observed(seen);
            projection::commit(&mut transaction, &observed, Via::Rest, Some(&seen.revisions), now).await?;
        }
        self.check_fences(&mut transaction).await?;
        self.transfer.state = state;
        self.transfer.updated_at = now;
        self.transfer.finished_at = Some(now);
        if self.transfer.contested_from.is_some() && state != State::NeedsAttention {
            self.transfer.contested_to = Some(now);
        }
        store::update(&mut transaction, &self.transfer).await?;
        let (sid, line) = (
            self.transfer.conversation_sid.as_str(),
            self.transfer.line.as_str(),
        );
        ledger::release_line(&mut transaction, sid, line, self.transfer.transfer_id).await?;
        let kind = match state {
            State::Completed => EventKind::TransferCompleted,
            State::NeedsAttention => EventKind::TransferNeedsAttention,
            _ => EventKind::TransferFailed,
        };
        operations::tell(
            &mut transaction,
            &self.transfer,
            kind,
            "hookswitch",
            Via::Worker,
            now,
        )
        .await?;
        if !queue::finish(&mut transaction, self.task.lease).await? {
            return Err(Stop::Fenced);
        }
        transaction.commit().await?;
        info!(
            state = state.as_str(),
            code = self.transfer.outcome_code,
            "transfer {} {}",
            self.transfer.transfer_id,
            state.as_str()
        );
        metrics::counter!("hookswitch_transfers_total", "state" => state.as_str()).increment(1);
        Ok(Outcome::Finished)
    }

    fn observed(&self, seen: &Seen) -> Vec<Observed> {
        seen.changes
            .iter()
            .map(|change| Observed {
                account_sid: self.account.account_sid.clone(),
                change: change.clone(),
                cause: transfer_cause(self.transfer.transfer_id),
                source: None,
            })
            .collect()
    }

    async fn check_fences(&self, conn: &mut PgConnection) -> Result<(), Stop> {
        let (sid, line) = (
            self.transfer.conversation_sid.as_str(),
            self.transfer.line.as_str(),
        );
        let held = queue::is_held(conn, self.task.lease).await?
            && ledger::line_fence_holds(conn, sid, line, self.lease).await?;
        if held { Ok(()) } else { Err(Stop::Fenced) }
    }
}

fn seats(participants: &[Participant]) -> Vec<Seat> {
    let text = |hidden: &Option<Hidden>| hidden.as_ref().map(|hidden| hidden.as_str().to_owned());
    participants
        .iter()
        .map(|participant| Seat {
            participant_sid: participant.sid.to_string(),
            identity: text(&participant.identity),
            line: text(&participant.messaging_binding.projected_address)
                .filter(|number| PhoneNumber::try_from(number.as_str()).is_ok()),
        })
        .collect()
}

fn parse(participant_sid: &str) -> Result<ParticipantSid, Stop> {
    ParticipantSid::try_from(participant_sid).map_err(|error| {
        Stop::Failed(Failure::Twilio(TwilioError::Malformed {
            reason: error.to_string(),
        }))
    })
}

/// The innermost cause, which says most to a person.
fn root(failure: &Failure) -> String {
    let mut cause: &dyn std::error::Error = failure;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
