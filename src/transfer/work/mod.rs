//! The swap: read, decide, one call, record, and again until the reading confirms it.
//!
//! Every record names two fences: the task's lease, and the line's. A worker that overslept records nothing.

mod calls;
mod ends;

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use tracing::{Instrument as _, info, info_span, warn};
use uuid::Uuid;

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::config::TransferMethod;
use crate::db;
use crate::events::{Kind as EventKind, Via};
use crate::ids::PhoneNumber;
use crate::ledger::{self, Lease};
use crate::mirror::{self, Change, Revisions, Standing};
use crate::projection::read::Failure;
use crate::queue::{self, Handler, Outcome, Task};
use crate::transfer::machine::{Next, Seat, Situation, next};
use crate::transfer::tell::tell;
use crate::transfer::{State, Transfer, Waiting, step as steps, store};
use crate::twilio::model::{Hidden, Participant};

use ends::root;

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

/// How long after a call without an answer Twilio may still do what it asked for.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_secs(2);

#[derive(Debug, Deserialize)]
struct Payload {
    transfer_id: Uuid,
}

/// A transfer whose line is leased to this run of its task: what it may record, and under which fences.
struct Hold<'a> {
    swap: &'a Swap,
    task: &'a Task,
    transfer: Transfer,
    lease: Lease,
}

/// One run of the task.
struct Run<'a> {
    hold: Hold<'a>,
    account: &'a Account,
    /// Something did not go as it should: the conversation itself is read too.
    in_doubt: bool,
    /// What it waits for, where it does.
    waits_for: Reason,
    /// When Twilio answered that somebody is off the line.
    removed_at: Option<Timestamp>,
    /// The mirror, when the run began.
    standing: Standing,
    /// Twilio said 50444 to an update of the account's, or it is never to be asked for one.
    update_refused: bool,
    /// The last step, until it is written down.
    ended: Option<Ended>,
}

/// What became of a step.
struct Ended {
    number: i32,
    outcome: &'static str,
    detail: Option<String>,
    at: Timestamp,
}

/// What Twilio shows, and what the mirror had when we asked.
struct Seen {
    conversation_state: Option<String>,
    participants: Vec<Participant>,
    changes: Vec<Change>,
    revisions: Revisions,
}

impl Seen {
    /// Whether the transfer's target is on its line.
    fn has_on_line(&self, transfer: &Transfer) -> bool {
        seats(&self.participants).iter().any(|seat| {
            seat.line.as_deref() == Some(transfer.line.as_str()) && seat.identity.as_deref() == transfer.to()
        })
    }
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
            let ended = self.swap(task, payload.transfer_id).instrument(span).await;
            let (reason, outcome) = match ended {
                Ok((reason, outcome)) => (reason, outcome),
                // Where the task is still ours, the transfer was taken over: the next run finds that out.
                Err(Stop::Fenced) => {
                    warn!("the line or the task went to somebody else");
                    return Outcome::Wait(SignedDuration::ZERO);
                }
                Err(Stop::Failed(failure)) => (Reason::of(&failure), failure.outcome()),
            };
            if let Some(reason) = reason
                && let Err(error) = self.note_waiting(task, payload.transfer_id, reason).await
            {
                warn!(
                    error = &error as &dyn std::error::Error,
                    "it was not noted why a transfer waits"
                );
            }
            outcome
        })
    }
}

/// Why a swap does not go on for now.
#[derive(Debug)]
struct Reason {
    what: &'static str,
    error: Option<String>,
}

impl Reason {
    fn only(what: &'static str) -> Self {
        Self { what, error: None }
    }

    /// What is told of an error: its class, and Twilio's code. A database that is away cannot be told of in it.
    fn of(failure: &Failure) -> Option<Self> {
        let Failure::Twilio(error) = failure else {
            return None;
        };
        Some(Self {
            what: "twilio",
            error: Some(error.label()),
        })
    }
}

impl Swap {
    async fn swap(&self, task: &Task, transfer_id: Uuid) -> Result<(Option<Reason>, Outcome), Stop> {
        let wait = |what, pause| Ok((Some(Reason::only(what)), Outcome::Wait(pause)));
        let now = self.clock.now();
        // A fence that a crash of the server forgets was of a task that somebody else claims by then, with a token of their
        // own; and before Twilio is asked for anything, the step is on disk, and with it the fence.
        let mut transaction = self.pool.begin_with(db::BEGIN_RELAXED).await?;
        // Looked at first, and locked last: the line's lease comes before the transfer, as everywhere.
        let Some(transfer) = store::find(&mut transaction, transfer_id).await? else {
            return Ok((None, Outcome::Done));
        };
        if transfer.state != State::Swapping {
            return Ok((None, Outcome::Done));
        }
        let account = self.accounts.get(&transfer.account_sid);
        if account.is_none() && !transfer.is_overdue(now) {
            warn!("the transfer's account is not configured");
            drop(transaction);
            return wait("account", SignedDuration::from_secs(30));
        }
        if let Some(pause) = unsettled(&mut transaction, &transfer, now).await? {
            drop(transaction);
            return wait("twilio", pause);
        }
        let (sid, line) = (transfer.conversation_sid.as_str(), transfer.line.as_str());
        let until = now + LINE_LEASE;
        let to = transfer.to();
        let taken = ledger::acquire_line(&mut transaction, sid, line, transfer_id, to, now, until).await?;
        let transfer = store::lock(&mut transaction, transfer_id).await?;
        let Some(transfer) = transfer.filter(|transfer| transfer.state == State::Swapping) else {
            return Ok((None, Outcome::Done));
        };
        let standing = mirror::standing(&mut transaction, transfer.conversation_sid.as_str()).await?;
        let update_refused = match account.map(|account| account.transfer_method) {
            None | Some(TransferMethod::AddRemove) => true,
            Some(_) => steps::update_refused(&mut transaction, &transfer.account_sid).await?,
        };
        transaction.commit().await?;
        let lease = match taken {
            Ok(lease) => lease,
            Err(held) => {
                info!(by = %held.by, "the line is leased to another transfer");
                return wait("line", SignedDuration::from_secs(1));
            }
        };
        let mut hold = Hold {
            swap: self,
            task,
            transfer,
            lease,
        };
        let Some(account) = account else {
            return Ok((None, hold.end_unread("the account is not configured").await?));
        };
        let in_doubt = task.attempts > 1 || hold.transfer.contested_from.is_some();
        let mut run = Run {
            hold,
            account,
            in_doubt,
            waits_for: Reason::only("activation"),
            removed_at: None,
            standing,
            update_refused,
            ended: None,
        };
        let outcome = run.work().await;
        let ended = run.ended.take();
        run.write_down(ended).await?;
        let outcome = outcome?;
        let reason = matches!(outcome, Outcome::Wait(_)).then_some(run.waits_for);
        Ok((reason, outcome))
    }

    /// Notes why the swap does not go on, and tells of it the first time.
    async fn note_waiting(&self, task: &Task, transfer_id: Uuid, reason: Reason) -> Result<(), sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        if !queue::is_held(&mut transaction, task.lease).await? {
            return Ok(());
        }
        let found = store::lock(&mut transaction, transfer_id).await?;
        let Some(mut transfer) = found.filter(|transfer| transfer.state == State::Swapping) else {
            return Ok(());
        };
        let before = transfer.waiting.take();
        let since = before
            .as_ref()
            .filter(|before| before.what == reason.what)
            .map(|before| before.since);
        transfer.waiting = Some(Waiting {
            what: reason.what.to_owned(),
            error: reason.error,
            since: since.unwrap_or(now),
        });
        if transfer.waiting == before {
            return Ok(());
        }
        store::update(&mut transaction, &transfer).await?;
        if since.is_none() {
            let kind = EventKind::TransferWaiting;
            tell(&mut transaction, &transfer, kind, "hookswitch", Via::Worker, now).await?;
        }
        transaction.commit().await
    }
}

/// How long what was asked of Twilio without an answer may still come about: by this transfer in a run before, or by one
/// that it took over. It must not come after the next look.
async fn unsettled(
    conn: &mut PgConnection,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<Option<SignedDuration>, sqlx::Error> {
    if transfer.contested_from.is_none() {
        return Ok(None);
    }
    let mut longest = None;
    for one in [Some(transfer.transfer_id), transfer.supersedes]
        .into_iter()
        .flatten()
    {
        let steps = steps::steps(conn, transfer.conversation_sid.as_str(), one).await?;
        // One that was cut short has no outcome at all.
        let open = steps
            .last()
            .filter(|step| step.outcome.as_deref().is_none_or(|outcome| outcome == "unknown"));
        let age = open.map(|step| now.duration_since(step.finished_at.unwrap_or(step.started_at)));
        longest = longest.max(
            age.filter(|age| *age < SETTLED_AFTER)
                .map(|age| SETTLED_AFTER - age),
        );
    }
    Ok(longest)
}

impl Run<'_> {
    async fn work(&mut self) -> Result<Outcome, Stop> {
        let mut method = None;
        for _ in 0..ROUNDS_MAX {
            let seen = match self.look().await {
                Err(failure) if self.hold.is_overdue() => return self.hold.end_unread(&root(&failure)).await,
                other => other?,
            };
            let step = next(&Situation {
                conversation_state: seen.conversation_state.as_deref(),
                seats: &seats(&seen.participants),
                line: self.hold.transfer.line.as_str(),
                from: self.hold.transfer.from_holder.as_deref(),
                displaced: &self.hold.transfer.displaced,
                to: self.hold.transfer.to(),
                method: self.account.transfer_method,
                update_refused: self.update_refused,
            });
            match step {
                Next::Confirmed => return self.complete(&seen, method).await,
                Next::Fail { code, detail } => {
                    return self.end(State::Failed, code, &detail, &seen).await;
                }
                Next::Attention { code, detail } => {
                    return self.end(State::NeedsAttention, code, &detail, &seen).await;
                }
                _ if self.hold.is_overdue() => return self.time_is_up(&step, &seen).await,
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
                    if let Some(end) = self.remove(&participant_sid).await? {
                        return Ok(end);
                    }
                }
            }
        }
        Ok(Outcome::Retry(anyhow::anyhow!(
            "the swap is not confirmed after {ROUNDS_MAX} rounds"
        )))
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
