//! Starts the transfer of a step that offers or forces, and withdraws an offer when its escalation stops.
//!
//! It happens in one transaction with the record of it and with the end of the task, so that a step that is run twice
//! starts one transfer. The line is looked at again first, with its conversation locked: who has answered since is left
//! alone.

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::db;
use crate::escalation::look::{self, ALREADY_OPEN};
use crate::escalation::store::watch::{self, Key};
use crate::escalation::store::{self};
use crate::escalation::tell::{About, POLICY};
use crate::escalation::{ACT_TASK, Escalation, Step};
use crate::events::{self, Kind};
use crate::ids::ConversationSid;
use crate::mirror;
use crate::queue::{self, Handler, NewTask, Outcome, Task};
use crate::transfer::{
    self, DecideError, IfOpen, NewForce, NewTransfer, StartTransferError, State, Transfer, Transfers,
};

/// Runs [`ACT_TASK`].
#[derive(Debug, Clone)]
pub struct Acting(pub Transfers);

/// What is to be done.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(tag = "verb", rename_all = "snake_case")]
pub(super) enum Act {
    Start {
        conversation_sid: ConversationSid,
        escalation_id: Uuid,
        number: i32,
    },
    Withdraw {
        conversation_sid: ConversationSid,
        transfer_id: Uuid,
    },
}

impl Act {
    pub(super) fn task(&self, now: Timestamp) -> NewTask {
        let (sid, unique_key) = match self {
            Self::Start {
                conversation_sid,
                escalation_id,
                number,
            } => (conversation_sid, format!("{escalation_id}:{number}")),
            Self::Withdraw {
                conversation_sid,
                transfer_id,
            } => (conversation_sid, format!("withdraw:{transfer_id}")),
        };
        NewTask {
            kind: ACT_TASK,
            order_key: format!("escalation:{sid}"),
            unique_key: Some(unique_key),
            payload: serde_json::to_value(self).unwrap_or_default(),
            run_at: now,
            attempts_max: 100,
        }
    }
}

/// An offer of an escalation that may still stand.
pub(super) fn standing_offer(steps: &[Step]) -> Option<Uuid> {
    let last = steps.iter().rfind(|step| step.transfer_id.is_some())?;
    let stands = last.transfer_state.as_deref() == Some(State::Offered.as_str());
    last.transfer_id.filter(|_| stands)
}

/// Who asks for the transfers of an escalation. The schema knows it by its beginning.
pub(super) fn requested_by(escalation_id: Uuid) -> String {
    format!("escalation:{escalation_id}")
}

impl Handler for Acting {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let act: Act = match serde_json::from_value(task.payload.clone()) {
                Ok(act) => act,
                Err(error) => return Outcome::Bury(error.into()),
            };
            let done = match act {
                Act::Start {
                    conversation_sid,
                    escalation_id,
                    number,
                } => Box::pin(self.start(task, &conversation_sid, escalation_id, number)).await,
                Act::Withdraw { transfer_id, .. } => self.withdraw(transfer_id).await,
            };
            done.unwrap_or_else(|error| Outcome::Retry(error.into()))
        })
    }
}

impl Acting {
    async fn withdraw(&self, transfer_id: Uuid) -> Result<Outcome, sqlx::Error> {
        match self.0.cancel(transfer_id, POLICY.0).await {
            Ok(_)
            | Err(DecideError::NotFound | DecideError::NotOpen { .. } | DecideError::NotTheTarget { .. }) => {
                Ok(Outcome::Done)
            }
            Err(DecideError::Database(error)) => Err(error),
        }
    }

    async fn start(
        &self,
        task: &Task,
        sid: &ConversationSid,
        escalation_id: Uuid,
        number: i32,
    ) -> Result<Outcome, sqlx::Error> {
        // An offer that a crash of the server forgets is made again, for the task is forgotten as done with it; and commits that
        // tell of something, as this one does, would wait for the disk one after the other.
        let mut transaction = self.0.pool.begin_with(db::BEGIN_RELAXED).await?;
        mirror::read::lock_conversation(&mut transaction, sid).await?;
        let now = self.0.clock.now();
        let steps = store::steps(&mut transaction, sid, escalation_id).await?;
        // One that comes so late that the next one was taken meanwhile is that one's no more.
        let is_overtaken = steps.last().is_some_and(|last| last.number > number);
        let step = steps
            .into_iter()
            .find(|step| step.number == number && step.outcome == "asked");
        let found = store::find(&mut transaction, escalation_id).await?;
        let (Some(step), Some(escalation)) = (step, found) else {
            return Ok(Outcome::Done);
        };
        let goes_on = if is_overtaken {
            None
        } else {
            look_again(&mut transaction, &escalation, now).await?
        };
        let done = match goes_on {
            Some(until) => {
                self.begin(&mut transaction, &escalation, &step, until, now)
                    .await?
            }
            None => Done::Dropped,
        };
        let (key, about) = (About::of(&escalation).key, About::of(&escalation));
        if matches!(done, Done::Started(_)) {
            // Who looks at the line at this moment does not know of what was started, and could not withdraw it.
            watch::take_away(&mut transaction, &key.conversation_sid, &key.line).await?;
        } else {
            // What comes next is due at once, or the end has to be written.
            watch::mark(&mut transaction, &key.conversation_sid, &key.line, now).await?;
        }
        let stands = store::lock(&mut transaction, sid, escalation_id).await?;
        let is_open = stands.is_some_and(|one| one.finished_at.is_none());
        if !is_open && matches!(done, Done::Started(_)) {
            // Ended at this moment: what was begun is given up, and dropped by the next run.
            return Ok(Outcome::Wait(SignedDuration::ZERO));
        }
        let (outcome, code, transfer_id) = match &done {
            Done::Started(transfer) => ("started", None, Some(transfer.transfer_id)),
            Done::Refused(code) => ("refused", Some(*code), None),
            Done::Dropped => ("dropped", None, None),
        };
        let of = (sid, escalation_id, number);
        store::settle_step(&mut transaction, of, outcome, code, transfer_id, now).await?;
        let kind = match &done {
            Done::Started(_) => Kind::EscalationStepTaken,
            Done::Refused(_) => Kind::EscalationStepRefused,
            Done::Dropped => Kind::EscalationStepDropped,
        };
        let facts = json!({
            "number": number,
            "step": step.step,
            "how": step.how,
            "whom": step.whom,
            "to": step.to,
            "code": code,
            "transfer_id": transfer_id,
            "next_at": goes_on.filter(|_| transfer_id.is_some()),
        });
        let entry = about.entry(kind, POLICY, facts, now);
        events::append(&mut transaction, &[entry]).await?;
        if step.how == "force" {
            // Twilio is asked for it soon, and that is not forgotten.
            wait_for_the_disk(&mut transaction).await?;
        }
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }

    async fn begin(
        &self,
        conn: &mut PgConnection,
        escalation: &Escalation,
        step: &Step,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Done, sqlx::Error> {
        let Some(to) = step.to.clone() else {
            return Ok(Done::Refused("nobody"));
        };
        let reason = format!("escalation {}: {}", escalation.policy_id, escalation.rule);
        let begun = if step.how == "force" {
            let filter = transfer::Filter {
                conversation_sid: Some(escalation.conversation_sid.as_str().to_owned()),
                line: Some(escalation.line.as_str().to_owned()),
                to: None,
                open: true,
            };
            let open = transfer::page(conn, &filter, None, 1).await?;
            if open.iter().any(|one| one.state == State::Swapping) {
                return Ok(Done::Refused(ALREADY_OPEN));
            }
            self.0
                .force_in(
                    conn,
                    NewForce {
                        conversation_sid: escalation.conversation_sid.clone(),
                        line: Some(escalation.line.clone()),
                        to,
                        by: requested_by(escalation.escalation_id),
                        reason: Some(reason),
                        note: None,
                        introduction: None,
                    },
                )
                .await
        } else {
            let time = until.duration_since(now).max(SignedDuration::from_secs(1));
            self.0
                .start_in(
                    conn,
                    NewTransfer {
                        conversation_sid: escalation.conversation_sid.clone(),
                        line: Some(escalation.line.clone()),
                        kind: transfer::Kind::Escalation,
                        to,
                        then: Vec::new(),
                        requested_by: requested_by(escalation.escalation_id),
                        reason: Some(reason),
                        note: None,
                        introduction: None,
                        offer_timeout: Some(time),
                        if_open: IfOpen::Refuse,
                    },
                )
                .await
        };
        match begun {
            Ok(transfer) => Ok(Done::Started(Box::new(transfer))),
            Err(StartTransferError::Database(error)) => Err(error),
            Err(refused) => Ok(Done::Refused(code(&refused))),
        }
    }
}

enum Done {
    Started(Box<Transfer>),
    Refused(&'static str),
    Dropped,
}

async fn wait_for_the_disk(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- escalation.wait_for_the_disk
        select set_config('synchronous_commit', 'on', true)"
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// Whether an escalation goes on by what is known now: then until when its present step has time.
async fn look_again(
    conn: &mut PgConnection,
    escalation: &Escalation,
    now: Timestamp,
) -> Result<Option<Timestamp>, sqlx::Error> {
    if escalation.finished_at.is_some() {
        return Ok(None);
    }
    let standing = look::Standing::load(conn).await?;
    let key: Key = About::of(escalation).key;
    // What is due meanwhile is none of this: only what ends it.
    let seen = look::lines(conn, &standing, &[key], now, now).await?;
    let run = seen.first().and_then(|seen| seen.run(escalation.escalation_id));
    Ok(run
        .filter(|run| run.end.is_none())
        .map(|run| run.next_at.unwrap_or(now)))
}

fn code(refused: &StartTransferError) -> &'static str {
    match refused {
        StartTransferError::ConversationNotFound => "conversation_not_found",
        StartTransferError::ConversationClosed => "conversation_closed",
        StartTransferError::LineNotFound | StartTransferError::LineAmbiguous { .. } => "line_not_found",
        StartTransferError::Unstaffed => "unstaffed",
        StartTransferError::Staffed { .. } => "staffed",
        StartTransferError::AlreadyHolder => "holds_it_already",
        StartTransferError::TargetInGroup => "target_in_group",
        StartTransferError::NobodyFree { passed } => {
            passed.first().map_or("nobody_free", |passed| passed.why)
        }
        StartTransferError::AlreadyOpen { .. } => ALREADY_OPEN,
        StartTransferError::TooManyHops { .. } => "too_many_hops",
        StartTransferError::NotTheHolder { .. } => "not_the_holder",
        StartTransferError::NoPreviousHolder | StartTransferError::PreviousHolderGone { .. } => {
            "previous_holder_gone"
        }
        StartTransferError::Database(_) => "database",
    }
}
