//! Makes one repair: reads, judges again, does one thing at Twilio, and reads back.

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use serde::Deserialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::accounts::Account;
use crate::events::{self, Kind, Via};
use crate::health::findings::{self, Known};
use crate::health::{Finding, Health, Ours, Repair, RepairState, SeenBy, judge, store};
use crate::ids::{ConversationSid, Identity, ParticipantSid, PhoneNumber, RoleSid};
use crate::mirror::{self, Observed, read};
use crate::projection;
use crate::projection::read::{Failure, conversation, gone_now};
use crate::queue::{self, Handler, Outcome, Task};
use crate::twilio::requests::{ConversationUpdate, Member, NewParticipant, ParticipantUpdate};
use crate::twilio::{Class, Error as TwilioError};

/// Runs [`super::REPAIR_TASK`].
#[derive(Debug, Clone)]
pub struct Repairer(pub Health);

#[derive(Debug, Deserialize)]
struct Payload {
    conversation_sid: ConversationSid,
    line_finding_id: Uuid,
}

impl Handler for Repairer {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            Box::pin(self.repair(task, &payload))
                .await
                .unwrap_or_else(Failure::outcome)
        })
    }

    fn buried<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        task: &'a Task,
        _error: &'a str,
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let Ok(payload) = serde_json::from_value::<Payload>(task.payload.clone()) else {
                return Ok(());
            };
            match store::find(conn, &payload.conversation_sid, payload.line_finding_id).await? {
                Some(finding) => self.end(conn, &finding, RepairState::Failed, "given_up").await,
                None => Ok(()),
            }
        })
    }
}

impl Repairer {
    async fn repair(&self, task: &Task, payload: &Payload) -> Result<Outcome, Failure> {
        let sid = &payload.conversation_sid;
        let Some(finding) = self.load(payload).await?.filter(is_queued) else {
            return Ok(Outcome::Done);
        };
        let Some(account) = self.0.accounts.get(&finding.account_sid) else {
            return Ok(Outcome::Wait(SignedDuration::from_secs(30)));
        };
        if !self.read_again(account, sid, task).await? {
            return Ok(Outcome::Finished);
        }
        let Some(finding) = self.load(payload).await?.filter(is_queued) else {
            return Ok(Outcome::Done);
        };
        if finding.resolved_at.is_some() {
            return self.finish(task, &finding, RepairState::Done, "already_so").await;
        }
        let Some(repair) = finding.repair else {
            return self
                .finish(task, &finding, RepairState::Failed, "no_longer_safe")
                .await;
        };
        if repair == Repair::ReadAgain {
            return self.finish(task, &finding, RepairState::Done, "read_again").await;
        }
        match self.act(account, sid, &finding, repair, task).await {
            Ok(Act::Done) => {}
            Ok(Act::NotOurs) => return Ok(Outcome::Finished),
            Ok(Act::NoLongerSafe) => {
                return self
                    .finish(task, &finding, RepairState::Failed, "no_longer_safe")
                    .await;
            }
            Err(Failure::Twilio(error)) if is_final(&error) => {
                let code = error
                    .code()
                    .map_or_else(|| "twilio_refused".to_owned(), |code| format!("twilio_{code}"));
                return self.finish(task, &finding, RepairState::Failed, &code).await;
            }
            // What is not known is read when it is tried again.
            Err(failure) => return Err(failure),
        }
        if !self.read_again(account, sid, task).await? {
            return Ok(Outcome::Finished);
        }
        let resolved = self
            .load(payload)
            .await?
            .is_none_or(|now| now.resolved_at.is_some());
        let (state, outcome) = if resolved {
            (RepairState::Done, "repaired")
        } else {
            (RepairState::Failed, "not_confirmed")
        };
        self.finish(task, &finding, state, outcome).await
    }

    async fn load(&self, payload: &Payload) -> Result<Option<Finding>, sqlx::Error> {
        let mut conn = self.0.pool.acquire().await?;
        store::find(&mut conn, &payload.conversation_sid, payload.line_finding_id).await
    }

    /// The one thing to be done at Twilio. It is judged once more, and what it needs is looked up now: it may be otherwise
    /// than when it was offered.
    async fn act(
        &self,
        account: &Account,
        sid: &ConversationSid,
        finding: &Finding,
        repair: Repair,
        task: &Task,
    ) -> Result<Act, Failure> {
        let mut transaction = self.0.pool.begin().await?;
        let known = Known::load(&mut transaction, sid).await?;
        let is_held = queue::is_held(&mut transaction, task.lease).await?;
        // It was locked to be read.
        transaction.rollback().await?;
        if !is_held {
            return Ok(Act::NotOurs);
        }
        let Some(known) = known else {
            return Ok(Act::NoLongerSafe);
        };
        let still = judge::judge(&known.situation(Some(Ours::of(account)), None));
        let is_offered = still.found.iter().any(|judged| {
            judged.code == finding.code && judged.line == finding.line && judged.repair == Some(repair)
        });
        if !is_offered {
            return Ok(Act::NoLongerSafe);
        }
        let client = &account.client;
        match repair {
            Repair::ReadAgain => {}
            Repair::PinMessagingService => {
                let update = ConversationUpdate {
                    messaging_service_sid: Some(account.messaging_service_sid.clone()),
                    ..ConversationUpdate::default()
                };
                client.update_conversation(sid, &update).await?;
            }
            Repair::ReaddParticipant => {
                if let Some(new) = judge::departed(&known.participants).and_then(|(last, _)| returning(last))
                {
                    client.create_participant(sid, &new).await?;
                }
            }
            Repair::ReattachHolder => {
                let line = finding.line.as_deref().unwrap_or_default();
                let situation = known.situation(Some(Ours::of(account)), None);
                let holder = judge::returning_holder(&situation, line);
                let seat = judge::empty_seat(&known.participants, line);
                let holder = holder.and_then(|holder| Identity::try_from(holder).ok());
                let seat = seat.and_then(|seat| ParticipantSid::try_from(seat.participant_sid.as_str()).ok());
                if let (Some(identity), Some(seat)) = (holder, seat) {
                    let update = ParticipantUpdate {
                        identity: Some(identity),
                        ..ParticipantUpdate::default()
                    };
                    client.update_participant(sid, &seat, &update).await?;
                }
            }
        }
        Ok(Act::Done)
    }

    /// Reads the conversation and its members, and whether members of ours that are no longer listed are gone; takes that
    /// into the mirror, and judges it.
    ///
    /// False: the task is another worker's by now.
    async fn read_again(
        &self,
        account: &Account,
        sid: &ConversationSid,
        task: &Task,
    ) -> Result<bool, Failure> {
        let began_at = self.0.clock.now();
        let mut conn = self.0.pool.acquire().await?;
        let revisions = mirror::standing(&mut conn, sid.as_str()).await?.revisions;
        let known = read::participants(&mut conn, sid.as_str()).await?;
        drop(conn);
        let changes = conversation(account, sid, &known, gone_now(&self.0.clock)).await?;
        let observed: Vec<Observed> = changes
            .into_iter()
            .map(|change| Observed {
                account_sid: account.account_sid.clone(),
                change,
                cause: format!("repair:{}", task.lease.task_id),
                source: None,
            })
            .collect();
        let now = self.0.clock.now();
        let mut transaction = self.0.pool.begin().await?;
        projection::commit(&mut transaction, &observed, Via::Rest, Some(&revisions), now).await?;
        mirror::mark_verified_as_of(&mut transaction, sid, began_at).await?;
        self.0
            .examine_in(&mut transaction, sid, SeenBy::Repair, None, now)
            .await?;
        let is_held = queue::is_held(&mut transaction, task.lease).await?;
        if is_held {
            transaction.commit().await?;
        }
        Ok(is_held)
    }

    async fn finish(
        &self,
        task: &Task,
        finding: &Finding,
        state: RepairState,
        outcome: &str,
    ) -> Result<Outcome, Failure> {
        let mut transaction = self.0.pool.begin().await?;
        self.end(&mut transaction, finding, state, outcome).await?;
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }

    async fn end(
        &self,
        conn: &mut PgConnection,
        finding: &Finding,
        state: RepairState,
        outcome: &str,
    ) -> Result<(), sqlx::Error> {
        let now = self.0.clock.now();
        store::end_repair(conn, finding, state, outcome, now).await?;
        let kind = match state {
            RepairState::Failed => Kind::LineRepairFailed,
            RepairState::Queued | RepairState::Done => Kind::LineRepairDone,
        };
        let told = Finding {
            repair_outcome: Some(outcome.to_owned()),
            ..finding.clone()
        };
        let by = finding.repair_requested_by.as_deref();
        events::append(conn, &[findings::entry(&told, kind, Via::Worker, by, now)]).await
    }
}

/// What became of the one thing to be done.
enum Act {
    Done,
    /// The task is another worker's by now.
    NotOurs,
    /// What is known now offers this repair no longer.
    NoLongerSafe,
}

fn is_queued(finding: &Finding) -> bool {
    finding.repair_state == Some(RepairState::Queued)
}

/// Whoever was on the line last, as a member to be added again.
fn returning(last: &read::ParticipantRow) -> Option<NewParticipant> {
    let projected_address: PhoneNumber = last.projected_address.as_deref()?.parse().ok()?;
    let member = match last.identity.as_deref() {
        Some(identity) => Member::Projected {
            identity: identity.parse().ok()?,
            projected_address,
        },
        None => Member::Gateway { projected_address },
    };
    Some(NewParticipant {
        member,
        attributes: last.attributes.as_deref().map(Into::into),
        role_sid: last
            .role_sid
            .as_deref()
            .and_then(|role| RoleSid::try_from(role).ok()),
    })
}

/// Twilio's word that it will not do it; asking again would not help.
fn is_final(error: &TwilioError) -> bool {
    match error {
        TwilioError::Rejected(rejection) => !matches!(
            rejection.class,
            Class::Conflict | Class::Throttled | Class::Failed
        ),
        TwilioError::NotFound { .. } | TwilioError::Configuration { .. } => true,
        TwilioError::Throttled { .. }
        | TwilioError::Unavailable { .. }
        | TwilioError::OutcomeUnknown { .. }
        | TwilioError::Malformed { .. } => false,
    }
}
