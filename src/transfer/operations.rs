//! Starting a transfer: what it stands on, whom it is for, and what it ends. Each operation is one transaction.

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::clock::Clock;
use crate::config;
use crate::events::{Kind as EventKind, Via};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber, new_id};
use crate::queue::{self, NewTask};
use crate::transfer::people::Chosen;
use crate::transfer::tell::{tell, tell_with};
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
    /// How long `to` has, and everybody whose turn does not say it. None: as the settings say. Only for a kind that is
    /// offered.
    pub offer_timeout: Option<SignedDuration>,
    pub if_open: IfOpen,
}

/// Somebody's turn to be offered a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub to: Identity,
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
    /// Starts a transfer: an offer, or the swap at once.
    pub async fn start(&self, new: NewTransfer) -> Result<Transfer, StartTransferError> {
        let mut transaction = self.pool.begin().await?;
        let transfer = self.start_in(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// As [`Transfers::start`], within the caller's transaction.
    pub async fn start_in(
        &self,
        conn: &mut PgConnection,
        new: NewTransfer,
    ) -> Result<Transfer, StartTransferError> {
        let now = self.clock.now();
        let ground = survey(conn, &new.conversation_sid, new.line.as_ref()).await?;
        let turns = self.turns(&new);
        check_kind(new.kind, &ground, &turns)?;
        self.check_hops(conn, &ground, now).await?;
        let passed = pass_over(conn, &ground, &turns, now).await?;
        let Some((to, seconds)) = turns.get(passed.len()) else {
            return Err(refusal_of_all(passed));
        };
        let offered = new.kind.is_offered();
        let mut transfer = self.draft(
            &ground,
            Draft {
                kind: new.kind,
                to: Some(to.clone()),
                requested_by: new.requested_by,
                decided_as: None,
                reason: new.reason,
                note: new.note,
                introduction: new.introduction,
                offer_timeout: offered.then(|| SignedDuration::from_secs(*seconds)),
            },
            now,
        );
        make_way(conn, &ground, &mut transfer, new.if_open, now).await?;
        store::insert(conn, &transfer).await?;
        if offered {
            candidate::insert(conn, &transfer, &turns).await?;
            tell_passed(conn, &transfer, 1, &passed, Via::Api, now).await?;
            let place = i32::try_from(passed.len() + 1).expect("a list has no more than a request holds");
            offer(conn, &transfer, place, Via::Api, now).await?;
        } else {
            begin_swap(conn, &transfer, now).await?;
        }
        Ok(transfer)
    }

    /// Everybody who is to be asked, with the seconds that they have.
    fn turns(&self, new: &NewTransfer) -> Vec<(Identity, i64)> {
        let configured = match new.kind {
            Kind::Escalation => self.settings.escalation_timeout,
            _ => self.settings.offer_timeout,
        };
        let usual = new.offer_timeout.unwrap_or_else(|| signed(configured));
        let seconds = |timeout: SignedDuration| timeout.as_secs().max(1);
        let first = std::iter::once((new.to.clone(), seconds(usual)));
        let others = new.then.iter().map(|turn| {
            let timeout = turn.offer_timeout.unwrap_or(usual);
            (turn.to.clone(), seconds(timeout))
        });
        first.chain(others).collect()
    }

    /// How often a line changes hands is limited, so that it does not go round in circles.
    pub(super) async fn check_hops(
        &self,
        conn: &mut PgConnection,
        ground: &Ground,
        now: Timestamp,
    ) -> Result<(), StartTransferError> {
        let limit = self.settings.hops_per_hour;
        let window = SignedDuration::from_hours(1);
        if limit == 0 {
            return Ok(());
        }
        let (sid, line) = (ground.conversation_sid.as_str(), ground.line.as_str());
        let hops = store::hops_since(conn, sid, line, now - window).await?;
        match next_hop(&hops, limit, window) {
            Some(next_at) => Err(StartTransferError::TooManyHops { limit, next_at }),
            None => Ok(()),
        }
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
    let conversation = mirror::read::lock_conversation(conn, sid)
        .await?
        .ok_or(StartTransferError::ConversationNotFound)?;
    if conversation.is_over() {
        return Err(StartTransferError::ConversationClosed);
    }
    let mut lines = ledger::lines_of(conn, sid.as_str()).await?;
    if let Some(line) = line {
        lines.retain(|(number, _)| number == line.as_str());
    }
    match lines.len() {
        0 => Err(StartTransferError::LineNotFound),
        1 => {
            let (number, holder) = lines.remove(0);
            let line =
                PhoneNumber::try_from(number.as_str()).map_err(|_| StartTransferError::LineNotFound)?;
            Ok(Ground {
                conversation_sid: sid.clone(),
                account_sid: conversation.account_sid,
                line,
                holder,
            })
        }
        _ => Err(StartTransferError::LineAmbiguous {
            lines: lines.into_iter().map(|(number, _)| number).collect(),
        }),
    }
}

fn check_kind(kind: Kind, ground: &Ground, turns: &[(Identity, i64)]) -> Result<(), StartTransferError> {
    let holder = ground.holder.as_deref();
    let is_holder = |(to, _): &(Identity, i64)| holder == Some(to.as_str());
    if turns.iter().all(is_holder) {
        return Err(StartTransferError::AlreadyHolder);
    }
    match (kind, holder) {
        (Kind::Assign, Some(holder)) => Err(StartTransferError::Staffed {
            holder: holder.to_owned(),
        }),
        (Kind::Cold | Kind::Warm | Kind::Escalation, None) => Err(StartTransferError::Unstaffed),
        (Kind::Assign, None)
        | (Kind::Cold | Kind::Warm | Kind::Escalation, Some(_))
        | (Kind::Force | Kind::Release | Kind::Handback, _) => Ok(()),
    }
}

/// Who at the head of a list cannot be given the line, and why.
async fn pass_over(
    conn: &mut PgConnection,
    ground: &Ground,
    turns: &[(Identity, i64)],
    now: Timestamp,
) -> Result<Vec<Passed>, sqlx::Error> {
    let chosen = if turns.len() > 1 {
        Chosen::OfList
    } else {
        Chosen::Alone
    };
    let mut passed = Vec::new();
    for (to, _) in turns {
        let why = why_not(
            conn,
            &ground.conversation_sid,
            &ground.line,
            ground.holder.as_deref(),
            to,
            (chosen, now),
        )
        .await?;
        match why {
            Some(why) => passed.push(Passed { to: to.clone(), why }),
            None => break,
        }
    }
    Ok(passed)
}

/// One who was named alone is refused in words of their own.
fn refusal_of_all(passed: Vec<Passed>) -> StartTransferError {
    match passed.as_slice() {
        [only] if only.why == IN_GROUP => StartTransferError::TargetInGroup,
        [only] if only.why == HOLDS_IT => StartTransferError::AlreadyHolder,
        _ => StartTransferError::NobodyFree { passed },
    }
}

const IN_GROUP: &str = "target_in_group";
const HOLDS_IT: &str = "already_holder";

/// Why somebody cannot be given a line now, if they cannot.
pub(super) async fn why_not(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    line: &PhoneNumber,
    holder: Option<&str>,
    to: &Identity,
    (chosen, now): (Chosen, Timestamp),
) -> Result<Option<&'static str>, sqlx::Error> {
    if holder == Some(to.as_str()) {
        return Ok(Some(HOLDS_IT));
    }
    if is_elsewhere(conn, sid, line, to).await? {
        return Ok(Some(IN_GROUP));
    }
    people::unavailable(conn, to, chosen, now).await
}

/// Whether somebody is in the conversation, but not on this line: Twilio takes a person once.
pub(super) async fn is_elsewhere(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    line: &PhoneNumber,
    to: &Identity,
) -> Result<bool, sqlx::Error> {
    if !mirror::read::is_member(conn, sid, to.as_str()).await? {
        return Ok(false);
    }
    let members = mirror::read::participants(conn, sid.as_str()).await?;
    Ok(members.iter().any(|member| {
        member.removed_at.is_none()
            && member.identity.as_deref() == Some(to.as_str())
            && member.projected_address.as_deref() != Some(line.as_str())
    }))
}

/// Ends an offer of the line that still stands in favour of a new transfer. A swap is not interrupted by this.
pub(super) async fn make_way(
    conn: &mut PgConnection,
    ground: &Ground,
    new: &mut Transfer,
    if_open: IfOpen,
    now: Timestamp,
) -> Result<(), StartTransferError> {
    let open = store::open_on_line(conn, &ground.conversation_sid, ground.line.as_str()).await?;
    let Some(open) = open else { return Ok(()) };
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
    for (place, Passed { to, why }) in (first_place..).zip(passed) {
        candidate::skip(conn, transfer, place, why).await?;
        let facts = json!({ "skipped": to, "why": why });
        let kind = EventKind::TransferSkipped;
        tell_with(conn, transfer, kind, "hookswitch", via, facts, now).await?;
    }
    Ok(())
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
    let task = NewTask {
        kind: EXPIRE_TASK,
        // A timer for each turn: the one of an earlier turn comes in its time, and finds nothing due.
        order_key: format!("transfer:{}:{place}", transfer.transfer_id),
        unique_key: Some(format!("{}:{place}", transfer.transfer_id)),
        payload: json!({ "transfer_id": transfer.transfer_id }),
        run_at: transfer.offer_expires_at.unwrap_or(now),
        attempts_max: 100,
    };
    queue::put(conn, &task, now).await?;
    let (kind, by) = (EventKind::TransferOffered, &transfer.requested_by);
    tell(conn, transfer, kind, by, via, now).await
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
    let task = NewTask {
        kind: SWAP_TASK,
        // In the order of the conversation's other work: a message must not be written in the middle of a swap.
        order_key: format!("conversation:{}", transfer.conversation_sid),
        unique_key: Some(transfer.transfer_id.to_string()),
        payload: json!({ "transfer_id": transfer.transfer_id }),
        run_at: now,
        // The deadline of the swap ends it, not the number of attempts.
        attempts_max: i32::MAX,
    };
    queue::put(conn, &task, now).await
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
