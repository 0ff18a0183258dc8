//! Starts the transfer of a step that offers or forces, and withdraws an offer when its escalation stops.
//!
//! It happens in one transaction with the record of it and with the end of the task, so that a step that is run twice
//! starts one transfer. The line is looked at again first, with its conversation locked: who has answered since is left
//! alone. Where many are due at once, whoever runs one does others along with it.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgConnection;
use tracing::warn;
use uuid::Uuid;

use crate::db::{self, is_passing};
use crate::escalation::look::{self, ALREADY_OPEN};
use crate::escalation::store::watch::{self, Key};
use crate::escalation::store::{self, Settled};
use crate::escalation::tell::{About, POLICY};
use crate::escalation::{ACT_TASK, Escalation, Step};
use crate::events::{self, Kind, NewEvent};
use crate::ids::{ConversationSid, Identity};
use crate::mirror;
use crate::queue::{self, Handler, NewTask, Outcome, Task};
use crate::transfer::{
    self, DecideError, IfOpen, NewForce, NewTransfer, StartTransferError, State, Transfer, Transfers,
};

/// So many steps at most are carried out in one transaction.
const TOGETHER: i64 = 64;

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
                } => {
                    let mine = Start {
                        conversation_sid,
                        escalation_id,
                        number,
                        along: None,
                    };
                    self.start(task, mine).await
                }
                Act::Withdraw { transfer_id, .. } => self.withdraw(transfer_id).await,
            };
            done.unwrap_or_else(|error| Outcome::Retry(error.into()))
        })
    }
}

/// An act that starts the transfer of a step.
#[derive(Debug, Clone)]
struct Start {
    conversation_sid: ConversationSid,
    escalation_id: Uuid,
    number: i32,
    /// Of a task that is done along with the one that is run.
    along: Option<i64>,
}

/// One that has something to do.
struct Item {
    start: Start,
    escalation: Escalation,
    step: Step,
    /// Until when the step has time, where the escalation goes on.
    until: Option<Timestamp>,
    done: Done,
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

    async fn start(&self, task: &Task, mine: Start) -> Result<Outcome, sqlx::Error> {
        match Box::pin(self.start_together(task, mine.clone(), TOGETHER)).await {
            Ok(Some(outcome)) => return Ok(outcome),
            Ok(None) => {}
            // Its own conversation is waited for, or the database: once is enough.
            Err(error) if is_passing(&error) => return Err(error),
            Err(error) => warn!(
                error = &error as &dyn std::error::Error,
                "cannot start transfers of escalations together, going on with one"
            ),
        }
        // One of the others may be why, and comes in its turn.
        let alone = Box::pin(self.start_together(task, mine, 1)).await?;
        Ok(alone.unwrap_or(Outcome::Wait(SignedDuration::ZERO)))
    }

    /// Starts the transfers of up to `limit` steps, of which others are waiting, in one transaction. None: one of the
    /// escalations ended at this moment, and nothing was done.
    async fn start_together(
        &self,
        task: &Task,
        mine: Start,
        limit: i64,
    ) -> Result<Option<Outcome>, sqlx::Error> {
        // An offer that a crash of the server forgets is made again, for the task is forgotten as done with it; and commits that
        // tell of something, as this one does, would wait for the disk one after the other.
        let began = Instant::now();
        let mut transaction = self.0.pool.begin_with(db::BEGIN_RELAXED).await?;
        mirror::read::lock_conversation(&mut transaction, &mine.conversation_sid).await?;
        let now = self.0.clock.now();
        let set = take_set(&mut transaction, mine, limit, now).await?;
        let along: Vec<i64> = set.iter().filter_map(|one| one.along).collect();
        let mut items = load(&mut transaction, set).await?;
        look_again(&mut transaction, &mut items, now).await?;
        self.begin(&mut transaction, &mut items, now).await?;
        if !settle(&mut transaction, &items, now).await? {
            return Ok(None);
        }
        if items.iter().any(|item| item.step.how == "force") {
            // Twilio is asked for it soon, and that is not forgotten.
            wait_for_the_disk(&mut transaction).await?;
        }
        queue::finish_along(&mut transaction, &along).await?;
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        } else {
            drop(transaction);
        }
        if !along.is_empty() {
            // As long as it took: of many at once, webhooks are to notice little.
            tokio::time::sleep(began.elapsed()).await;
        }
        Ok(Some(Outcome::Finished))
    }

    /// Starts the transfers of those that go on.
    async fn begin(
        &self,
        conn: &mut PgConnection,
        items: &mut [Item],
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let mut offered: Vec<usize> = Vec::new();
        let mut offers: Vec<NewTransfer> = Vec::new();
        for (place, item) in items.iter_mut().enumerate() {
            let Some(until) = item.until else { continue };
            let Some(to) = item.step.to.clone() else {
                item.done = Done::Refused("nobody");
                continue;
            };
            if item.step.how == "force" {
                item.done = self.force(conn, item, to).await?;
            } else {
                offered.push(place);
                offers.push(item.offer(to, until, now));
            }
        }
        let started = self.0.start_all_in(conn, offers).await?;
        for (place, outcome) in offered.into_iter().zip(started) {
            items[place].done = Done::of(outcome)?;
        }
        Ok(())
    }

    async fn force(&self, conn: &mut PgConnection, item: &Item, to: Identity) -> Result<Done, sqlx::Error> {
        let filter = transfer::Filter {
            conversation_sid: Some(item.escalation.conversation_sid.as_str().to_owned()),
            line: Some(item.escalation.line.as_str().to_owned()),
            to: None,
            open: true,
        };
        let open = transfer::page(conn, &filter, None, 1).await?;
        if open.iter().any(|one| one.state == State::Swapping) {
            return Ok(Done::Refused(ALREADY_OPEN));
        }
        let new = NewForce {
            conversation_sid: item.escalation.conversation_sid.clone(),
            line: Some(item.escalation.line.clone()),
            to,
            by: requested_by(item.escalation.escalation_id),
            reason: Some(item.reason()),
            note: None,
            introduction: None,
        };
        Done::of(self.0.force_in(conn, new).await)
    }
}

impl Item {
    fn key(&self) -> Key {
        About::of(&self.escalation).key
    }

    fn reason(&self) -> String {
        format!(
            "escalation {}: {}",
            self.escalation.policy_id, self.escalation.rule
        )
    }

    fn offer(&self, to: Identity, until: Timestamp, now: Timestamp) -> NewTransfer {
        NewTransfer {
            conversation_sid: self.escalation.conversation_sid.clone(),
            line: Some(self.escalation.line.clone()),
            kind: transfer::Kind::Escalation,
            to,
            then: Vec::new(),
            requested_by: requested_by(self.escalation.escalation_id),
            reason: Some(self.reason()),
            note: None,
            introduction: None,
            offer_timeout: Some(until.duration_since(now).max(SignedDuration::from_secs(1))),
            if_open: IfOpen::Refuse,
        }
    }

    fn settled(&self) -> Settled<'_> {
        let (outcome, code, transfer_id) = match &self.done {
            Done::Started(transfer_id) => ("started", None, Some(*transfer_id)),
            Done::Refused(code) => ("refused", Some(*code), None),
            Done::Dropped => ("dropped", None, None),
        };
        Settled {
            conversation_sid: self.start.conversation_sid.as_str(),
            escalation_id: self.start.escalation_id,
            number: self.start.number,
            outcome,
            code,
            transfer_id,
        }
    }

    fn entry(&self, now: Timestamp) -> NewEvent {
        let settled = self.settled();
        let kind = match &self.done {
            Done::Started(_) => Kind::EscalationStepTaken,
            Done::Refused(_) => Kind::EscalationStepRefused,
            Done::Dropped => Kind::EscalationStepDropped,
        };
        let facts = json!({
            "number": settled.number,
            "step": self.step.step,
            "how": self.step.how,
            "whom": self.step.whom,
            "to": self.step.to,
            "code": settled.code,
            "transfer_id": settled.transfer_id,
            "next_at": self.until.filter(|_| settled.transfer_id.is_some()),
        });
        About::of(&self.escalation).entry(kind, POLICY, facts, now)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    Started(Uuid),
    Refused(&'static str),
    Dropped,
}

impl Done {
    fn of(outcome: Result<Transfer, StartTransferError>) -> Result<Self, sqlx::Error> {
        match outcome {
            Ok(transfer) => Ok(Self::Started(transfer.transfer_id)),
            Err(StartTransferError::Database(error)) => Err(error),
            Err(refused) => Ok(Self::Refused(code(&refused))),
        }
    }
}

/// The one whose task is run, and others that are due, each of another conversation, which is locked. Nobody is waited for:
/// what somebody else is at work on comes in its turn.
async fn take_set(
    conn: &mut PgConnection,
    mine: Start,
    limit: i64,
    now: Timestamp,
) -> Result<Vec<Start>, sqlx::Error> {
    let mut of: HashSet<ConversationSid> = HashSet::from([mine.conversation_sid.clone()]);
    let mut set = vec![mine];
    if limit > 1 {
        for along in queue::take_along(conn, ACT_TASK, limit - 1, now).await? {
            if let Ok(Act::Start {
                conversation_sid,
                escalation_id,
                number,
            }) = serde_json::from_value(along.payload)
                && of.insert(conversation_sid.clone())
            {
                set.push(Start {
                    conversation_sid,
                    escalation_id,
                    number,
                    along: Some(along.task_id),
                });
            }
        }
        let sids: Vec<&str> = set
            .iter()
            .skip(1)
            .map(|one| one.conversation_sid.as_str())
            .collect();
        let free = mirror::read::lock_free_conversations(conn, &sids).await?;
        set.retain(|one| one.along.is_none() || free.contains(&one.conversation_sid));
    }
    Ok(set)
}

/// Those whose step is to be carried out still.
async fn load(conn: &mut PgConnection, set: Vec<Start>) -> Result<Vec<Item>, sqlx::Error> {
    let (sids, ids): (Vec<&str>, Vec<Uuid>) = set
        .iter()
        .map(|one| (one.conversation_sid.as_str(), one.escalation_id))
        .unzip();
    let mut escalations: HashMap<Uuid, Escalation> = store::find_all(conn, &sids, &ids)
        .await?
        .into_iter()
        .map(|one| (one.escalation_id, one))
        .collect();
    let mut steps: HashMap<Uuid, Vec<Step>> = HashMap::new();
    for step in store::steps_of(conn, &sids, &ids).await? {
        steps.entry(step.escalation_id).or_default().push(step);
    }
    Ok(set
        .into_iter()
        .filter_map(|start| {
            let escalation = escalations.remove(&start.escalation_id)?;
            let steps = steps.remove(&start.escalation_id)?;
            // One that comes so late that the next one was taken meanwhile is that one's no more.
            let is_last = steps.last().is_some_and(|last| last.number <= start.number);
            let step = steps
                .into_iter()
                .find(|step| step.number == start.number && step.outcome == "asked")?;
            Some(Item {
                // Whether it goes on is looked at.
                until: (is_last && escalation.finished_at.is_none()).then_some(step.taken_at),
                start,
                escalation,
                step,
                done: Done::Dropped,
            })
        })
        .collect())
}

/// Whether escalations go on by what is known now: then until when their present step has time.
async fn look_again(conn: &mut PgConnection, items: &mut [Item], now: Timestamp) -> Result<(), sqlx::Error> {
    let keys: Vec<Key> = items
        .iter()
        .filter(|item| item.until.is_some())
        .map(Item::key)
        .collect();
    if keys.is_empty() {
        return Ok(());
    }
    let standing = look::Standing::load(conn).await?;
    // What is due meanwhile is none of this: only what ends it.
    let seen = look::lines(conn, &standing, &keys, now, now).await?;
    for item in items.iter_mut().filter(|item| item.until.is_some()) {
        let key = item.key();
        let seen = seen.iter().find(|seen| seen.key == key);
        let run = seen.and_then(|seen| seen.run(item.escalation.escalation_id));
        item.until = run
            .filter(|run| run.end.is_none())
            .map(|run| run.next_at.unwrap_or(now));
    }
    Ok(())
}

/// Writes what came of them. False: one for which something was started has ended at this moment.
async fn settle(conn: &mut PgConnection, items: &[Item], now: Timestamp) -> Result<bool, sqlx::Error> {
    if items.is_empty() {
        return Ok(true);
    }
    let is_started = |item: &&Item| matches!(item.done, Done::Started(_));
    let keys: Vec<Key> = items.iter().map(Item::key).collect();
    watch::lock(conn, &keys).await?;
    // Who looks at a line at this moment does not know of what was started, and could not withdraw it.
    let started: Vec<Key> = items.iter().filter(is_started).map(Item::key).collect();
    watch::take_away(conn, &started).await?;
    // Of the others, what comes next is due at once, or the end has to be written.
    let others: Vec<Key> = items
        .iter()
        .filter(|item| !is_started(item))
        .map(Item::key)
        .collect();
    watch::mark(conn, &others, now).await?;
    let (sids, ids): (Vec<&str>, Vec<Uuid>) = items
        .iter()
        .map(|item| (item.start.conversation_sid.as_str(), item.start.escalation_id))
        .unzip();
    let open: HashSet<Uuid> = store::lock_open(conn, &sids, &ids).await?.into_iter().collect();
    // What was begun for one that has ended is given up, and dropped by the next run.
    if items
        .iter()
        .filter(is_started)
        .any(|item| !open.contains(&item.start.escalation_id))
    {
        return Ok(false);
    }
    let settled: Vec<Settled<'_>> = items.iter().map(Item::settled).collect();
    store::settle_steps(conn, &settled, now).await?;
    let entries: Vec<NewEvent> = items.iter().map(|item| item.entry(now)).collect();
    events::append(conn, &entries).await?;
    Ok(true)
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
