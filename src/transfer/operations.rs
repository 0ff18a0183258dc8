//! What all that starts a transfer has in common: what it stands on, whom it is for, and what it ends.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config;
use crate::events::{self, Kind as EventKind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber, new_id};
use crate::mirror::read::ConversationRow;
use crate::queue::{self, NewTask};
use crate::transfer::tell::{entry, tell};
use crate::transfer::{EXPIRE_TASK, Kind, SWAP_TASK, State, Transfer, candidate, people, store};
use crate::{ledger, mirror};

/// The operations, with what they need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transfers {
    pub pool: PgPool,
    pub clock: Clock,
    pub settings: config::Transfer,
}

/// A transfer that somebody asks for.
#[derive(Debug, Clone)]
pub struct NewTransfer {
    pub conversation_sid: ConversationSid,
    /// None: the conversation's only line.
    pub line: Option<PhoneNumber>,
    /// One that somebody may simply ask for: not a force, a release or a handback.
    pub kind: Kind,
    pub to: Identity,
    /// Who is offered it after `to`, in this order, if nobody before took it. Only for a kind that is offered.
    pub then: Vec<Turn>,
    pub requested_by: String,
    pub reason: Option<String>,
    pub note: Option<String>,
    /// What the new holder says to the group once the line is theirs.
    pub introduction: Option<String>,
    /// How long `to` has. None: as the settings say. Only for a kind that is offered.
    pub offer_timeout: Option<SignedDuration>,
    pub if_open: IfOpen,
}

/// Somebody's turn to be offered a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub to: Identity,
    /// None: as the settings say.
    pub offer_timeout: Option<SignedDuration>,
}

/// What becomes of an offer of the same line that still stands. A swap that is under way is never touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IfOpen {
    /// It ends, `superseded`.
    #[default]
    Supersede,
    /// It stands, and the new one is refused.
    Refuse,
}

/// Somebody who cannot be offered a line, and why.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Passed {
    pub to: Identity,
    pub why: &'static str,
}

/// Why a transfer cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartTransferError {
    #[error("no such conversation")]
    ConversationNotFound,
    #[error("the conversation is closed")]
    ConversationClosed,
    #[error("the conversation has no such line")]
    LineNotFound,
    #[error("the conversation has several lines: say which")]
    LineAmbiguous { lines: Vec<String> },
    #[error("the line is unstaffed: use `assign`")]
    Unstaffed,
    #[error("the line is staffed: use `cold`, `warm` or `escalation`")]
    Staffed { holder: String },
    #[error("the target holds the line already")]
    AlreadyHolder,
    #[error("the target is in the conversation already, on another line")]
    TargetInGroup,
    #[error("nobody of those named can be given the line now")]
    NobodyFree { passed: Vec<Passed> },
    #[error("another transfer of this line is open")]
    AlreadyOpen {
        transfer_id: Uuid,
        to: Option<String>,
        state: State,
        /// Who accepted it, or asked for it.
        by: String,
        since: Timestamp,
    },
    #[error("the line has changed hands too often in the last hour")]
    TooManyHops { limit: u32, next_at: Timestamp },
    #[error("only the line's holder can give it up")]
    NotTheHolder { holder: String },
    #[error("nobody held the line before the present holder")]
    NoPreviousHolder,
    #[error("who held the line before is no longer here")]
    PreviousHolderGone { holder: String },
    #[error("cannot record the transfer")]
    Database(#[from] sqlx::Error),
}

/// What a new transfer stands on. The conversation is locked.
pub(super) struct Ground {
    pub(super) conversation_sid: ConversationSid,
    pub(super) account_sid: AccountSid,
    pub(super) line: PhoneNumber,
    pub(super) holder: Option<String>,
}

impl Ground {
    /// Conversation and line.
    pub(super) fn key(&self) -> (&str, &str) {
        (self.conversation_sid.as_str(), self.line.as_str())
    }
}

/// What a new transfer says itself.
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) to: Option<Identity>,
    pub(super) requested_by: String,
    pub(super) decided_as: Option<String>,
    pub(super) reason: Option<String>,
    pub(super) note: Option<String>,
    pub(super) introduction: Option<String>,
    /// None where it is not offered.
    pub(super) offer_timeout: Option<SignedDuration>,
}

impl Transfers {
    /// How often a line changes hands is limited, so that it does not go round in circles.
    pub(super) async fn check_hops(
        &self,
        conn: &mut PgConnection,
        ground: &Ground,
        now: Timestamp,
    ) -> Result<(), StartTransferError> {
        let refused = self.too_many_hops(conn, &[ground], now).await?.pop();
        refused.flatten().map_or(Ok(()), Err)
    }

    /// As [`Transfers::check_hops`], of several: what stands against each.
    pub(super) async fn too_many_hops(
        &self,
        conn: &mut PgConnection,
        grounds: &[&Ground],
        now: Timestamp,
    ) -> Result<Vec<Option<StartTransferError>>, sqlx::Error> {
        let limit = self.settings.hops_per_hour;
        let window = SignedDuration::from_hours(1);
        if limit == 0 || grounds.is_empty() {
            return Ok(grounds.iter().map(|_| None).collect());
        }
        let keys: Vec<(&str, &str)> = grounds.iter().map(|ground| ground.key()).collect();
        let mut hops: HashMap<(String, String), Vec<Timestamp>> = HashMap::new();
        for (sid, line, at) in store::hops_since(conn, &keys, now - window).await? {
            hops.entry((sid, line)).or_default().push(at);
        }
        let of = |(sid, line): (&str, &str)| {
            let hops = hops.get(&(sid.to_owned(), line.to_owned()))?;
            next_hop(hops, limit, window)
        };
        let refused = |next_at| StartTransferError::TooManyHops { limit, next_at };
        Ok(keys.into_iter().map(|key| of(key).map(refused)).collect())
    }

    pub(super) fn draft(&self, ground: &Ground, draft: Draft, now: Timestamp) -> Transfer {
        drafted(ground, draft, signed(self.settings.swap_timeout), now)
    }
}

/// A transfer that is about to begin: offered, or its swap at once.
pub(super) fn drafted(
    ground: &Ground,
    draft: Draft,
    swap_timeout: SignedDuration,
    now: Timestamp,
) -> Transfer {
    let offered = draft.offer_timeout.is_some();
    Transfer {
        transfer_id: new_id(),
        account_sid: ground.account_sid.as_str().to_owned(),
        conversation_sid: ground.conversation_sid.clone(),
        line: ground.line.clone(),
        kind: draft.kind,
        from_holder: ground.holder.clone(),
        to_holder: draft.to,
        state: if offered { State::Offered } else { State::Swapping },
        requested_by: draft.requested_by,
        decided_by: None,
        decided_as: draft.decided_as,
        supersedes: None,
        superseded_by: None,
        reason: draft.reason,
        note: draft.note,
        introduction: draft.introduction,
        introduction_send_id: None,
        displaced: Vec::new(),
        waiting: None,
        outcome_code: None,
        outcome_detail: None,
        method: None,
        offer_expires_at: draft.offer_timeout.map(|timeout| now + timeout),
        swap_deadline_at: (!offered).then(|| now + swap_timeout),
        contested_from: None,
        contested_to: None,
        created_at: now,
        updated_at: now,
        finished_at: None,
    }
}

/// When the line may change hands again, where it may not now: of the last `limit` times the first has to be `window` ago.
fn next_hop(hops: &[Timestamp], limit: u32, window: SignedDuration) -> Option<Timestamp> {
    let counts = hops.len().checked_sub(usize::try_from(limit).ok()?)?;
    hops.get(counts).map(|at| *at + window)
}

/// Locks the conversation and finds the line.
pub(super) async fn survey(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    line: Option<&PhoneNumber>,
) -> Result<Ground, StartTransferError> {
    let found = survey_all(conn, &[(sid, line)]).await?;
    found.into_iter().next().expect("as many as were asked for")
}

/// As [`survey`], of several conversations.
pub(super) async fn survey_all(
    conn: &mut PgConnection,
    asked: &[(&ConversationSid, Option<&PhoneNumber>)],
) -> Result<Vec<Result<Ground, StartTransferError>>, sqlx::Error> {
    let sids: Vec<&str> = asked.iter().map(|(sid, _)| sid.as_str()).collect();
    let conversations: HashMap<ConversationSid, ConversationRow> =
        mirror::read::lock_conversations(conn, &sids)
            .await?
            .into_iter()
            .map(|one| (one.conversation_sid.clone(), one))
            .collect();
    let mut lines: HashMap<String, Vec<(String, Option<String>)>> = HashMap::new();
    for (sid, line, holder) in ledger::lines_of_many(conn, &sids).await? {
        lines.entry(sid).or_default().push((line, holder));
    }
    Ok(asked
        .iter()
        .map(|(sid, line)| {
            let lines = lines.get(sid.as_str()).map_or(&[][..], Vec::as_slice);
            ground(conversations.get(*sid), lines, *line)
        })
        .collect())
}

fn ground(
    conversation: Option<&ConversationRow>,
    lines: &[(String, Option<String>)],
    line: Option<&PhoneNumber>,
) -> Result<Ground, StartTransferError> {
    let conversation = conversation.ok_or(StartTransferError::ConversationNotFound)?;
    if conversation.is_over() {
        return Err(StartTransferError::ConversationClosed);
    }
    let is_asked = |(number, _): &&(String, _)| line.is_none_or(|line| number == line.as_str());
    let lines: Vec<_> = lines.iter().filter(is_asked).collect();
    match lines.as_slice() {
        [] => Err(StartTransferError::LineNotFound),
        [(number, holder)] => Ok(Ground {
            conversation_sid: conversation.conversation_sid.clone(),
            account_sid: conversation.account_sid.clone(),
            line: PhoneNumber::try_from(number.as_str()).map_err(|_| StartTransferError::LineNotFound)?,
            holder: holder.clone(),
        }),
        _ => Err(StartTransferError::LineAmbiguous {
            lines: lines.into_iter().map(|(number, _)| number.clone()).collect(),
        }),
    }
}

pub(super) const IN_GROUP: &str = "target_in_group";
pub(super) const HOLDS_IT: &str = "already_holder";

/// Why somebody on a list cannot be given a line now, if they cannot.
pub(super) async fn why_not(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    line: &PhoneNumber,
    holder: Option<&str>,
    to: &Identity,
    now: Timestamp,
) -> Result<Option<&'static str>, sqlx::Error> {
    if holder == Some(to.as_str()) {
        return Ok(Some(HOLDS_IT));
    }
    if is_elsewhere(conn, sid, line, to).await? {
        return Ok(Some(IN_GROUP));
    }
    people::unavailable(conn, to, now).await
}

/// Whether somebody is in the conversation, but not on this line: Twilio takes a person once.
pub(super) async fn is_elsewhere(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    line: &PhoneNumber,
    to: &Identity,
) -> Result<bool, sqlx::Error> {
    let asked = (sid.as_str(), line.as_str(), to.as_str());
    Ok(!mirror::read::elsewhere(conn, &[asked]).await?.is_empty())
}

/// Ends an offer of the line that still stands in favour of a new transfer. A swap is not interrupted by this.
pub(super) async fn make_way(
    conn: &mut PgConnection,
    ground: &Ground,
    new: &mut Transfer,
    if_open: IfOpen,
    now: Timestamp,
) -> Result<(), StartTransferError> {
    match store::open_on_line(conn, &ground.conversation_sid, ground.line.as_str()).await? {
        Some(open) => make_way_of(conn, open, new, if_open, now).await,
        None => Ok(()),
    }
}

/// As [`make_way`], of a transfer that was seen to be open.
pub(super) async fn make_way_of(
    conn: &mut PgConnection,
    open: Transfer,
    new: &mut Transfer,
    if_open: IfOpen,
    now: Timestamp,
) -> Result<(), StartTransferError> {
    let Some(open) = store::lock(conn, open.transfer_id).await? else {
        return Ok(());
    };
    let stands = match open.state {
        State::Offered => if_open == IfOpen::Refuse && !open.is_past_its_time(now),
        State::Swapping => true,
        // It came to its end a moment ago.
        _ => return Ok(()),
    };
    if stands {
        return Err(already_open(open));
    }
    supersede(conn, open, new, now).await?;
    Ok(())
}

pub(super) fn already_open(open: Transfer) -> StartTransferError {
    StartTransferError::AlreadyOpen {
        transfer_id: open.transfer_id,
        to: open.to_holder.map(Identity::into_string),
        state: open.state,
        since: if open.state == State::Offered {
            open.created_at
        } else {
            open.updated_at
        },
        by: open.decided_by.unwrap_or(open.requested_by),
    }
}

/// Ends an open transfer, which the caller has locked, in favour of a new one that is about to be inserted.
pub(super) async fn supersede(
    conn: &mut PgConnection,
    mut open: Transfer,
    new: &mut Transfer,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    candidate::settle_all(conn, &open, "withdrawn", Some(&new.requested_by), now).await?;
    if open.state == State::Swapping {
        // Its task comes before the new one's, and may wait for its next attempt: it wakes, and finds that it has no more to do.
        put_swap(conn, &open, now).await?;
    }
    if open.contested_from.is_some() {
        // What it asked of Twilio may be done or not: the new one finds out, and answers for the time since.
        new.contested_from = open.contested_from;
        open.contested_to = Some(now);
        for one in [open.from_holder.clone(), open.to().map(str::to_owned)] {
            if !new.displaced.contains(&one) {
                new.displaced.push(one);
            }
        }
    }
    open.state = State::Superseded;
    open.superseded_by = Some(new.transfer_id);
    open.waiting = None;
    open.updated_at = now;
    open.finished_at = Some(now);
    new.supersedes = Some(open.transfer_id);
    store::update(conn, &open).await?;
    let (kind, by) = (EventKind::TransferSuperseded, &new.requested_by);
    tell(conn, &open, kind, by, Via::Api, now).await?;
    metrics::counter!("hookswitch_transfers_total", "state" => State::Superseded.as_str()).increment(1);
    Ok(())
}

/// Tells of those on a list who were passed over, from a place on.
pub(super) async fn tell_passed(
    conn: &mut PgConnection,
    transfer: &Transfer,
    first_place: i32,
    passed: &[Passed],
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    for (place, passed) in (first_place..).zip(passed) {
        candidate::skip(conn, transfer, place, passed.why).await?;
    }
    let entries: Vec<_> = passed
        .iter()
        .map(|one| skipped(transfer, one, via, now))
        .collect();
    events::append(conn, &entries).await
}

/// What is told of somebody who was passed over.
pub(super) fn skipped(transfer: &Transfer, passed: &Passed, via: Via, now: Timestamp) -> NewEvent {
    let facts = json!({ "skipped": passed.to, "why": passed.why });
    entry(
        transfer,
        EventKind::TransferSkipped,
        "hookswitch",
        via,
        facts,
        now,
    )
}

/// It is the turn of the one at a place, to whom the transfer already is.
pub(super) async fn offer(
    conn: &mut PgConnection,
    transfer: &Transfer,
    place: i32,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    candidate::offer(conn, transfer, place, now).await?;
    queue::put(conn, &expire_task(transfer, place, now), now).await?;
    let (kind, by) = (EventKind::TransferOffered, &transfer.requested_by);
    tell(conn, transfer, kind, by, via, now).await
}

/// Ends the turn of the one at a place when their time is over.
pub(super) fn expire_task(transfer: &Transfer, place: i32, now: Timestamp) -> NewTask {
    NewTask {
        kind: EXPIRE_TASK,
        // A timer for each turn: the one of an earlier turn comes in its time, and finds nothing due.
        order_key: format!("transfer:{}:{place}", transfer.transfer_id),
        unique_key: Some(format!("{}:{place}", transfer.transfer_id)),
        payload: json!({ "transfer_id": transfer.transfer_id }),
        run_at: transfer.offer_expires_at.unwrap_or(now),
        attempts_max: 100,
    }
}

/// The swap of a transfer that nobody has to accept begins.
pub(super) async fn begin_swap(
    conn: &mut PgConnection,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    put_swap(conn, transfer, now).await?;
    let (kind, by) = (EventKind::TransferStarted, &transfer.requested_by);
    tell(conn, transfer, kind, by, Via::Api, now).await
}

pub(super) async fn put_swap(
    conn: &mut PgConnection,
    transfer: &Transfer,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    queue::put(conn, &swap_task(transfer, now), now).await
}

pub(super) fn swap_task(transfer: &Transfer, now: Timestamp) -> NewTask {
    NewTask {
        kind: SWAP_TASK,
        // In the order of the conversation's other work: a message must not be written in the middle of a swap.
        order_key: format!("conversation:{}", transfer.conversation_sid),
        unique_key: Some(transfer.transfer_id.to_string()),
        payload: json!({ "transfer_id": transfer.transfer_id }),
        run_at: now,
        // The deadline of the swap ends it, not the number of attempts.
        attempts_max: i32::MAX,
    }
}

pub(super) fn signed(duration: std::time::Duration) -> SignedDuration {
    SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_hop_is_when_the_first_of_the_last_few_is_an_hour_old() {
        let at = |minute| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(minute);
        let hour = SignedDuration::from_hours(1);
        assert_eq!(next_hop(&[], 2, hour), None);
        assert_eq!(next_hop(&[at(5)], 2, hour), None);
        assert_eq!(next_hop(&[at(5), at(7)], 2, hour), Some(at(65)));
        assert_eq!(next_hop(&[at(5), at(7), at(9)], 2, hour), Some(at(67)));
        assert_eq!(next_hop(&[at(5)], 1, hour), Some(at(65)));
    }
}
