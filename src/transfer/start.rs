//! Starting the transfers that somebody asks for: offers, and swaps at once. Many lines are a set, and one is a set of one.

use std::collections::{HashMap, HashSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::PgConnection;

use crate::events::{self, Kind as EventKind, NewEvent, Via};
use crate::ids::Identity;
use crate::transfer::candidate::{self, Stage};
use crate::transfer::operations::{
    Draft, Ground, HOLDS_IT, IN_GROUP, NewTransfer, Passed, StartTransferError, Transfers, expire_task,
    make_way_of, signed, skipped, survey_all, swap_task, why_not,
};
use crate::transfer::people;
use crate::transfer::tell::entry;
use crate::transfer::{IfOpen, Kind, Transfer, store};
use crate::{mirror, queue};

/// One of a set, as far as it has come.
struct Start {
    new: NewTransfer,
    ground: Ground,
    /// Everybody who is to be asked, with the seconds that they have.
    turns: Vec<(Identity, i64)>,
    /// Who at the head of them cannot be.
    passed: Vec<Passed>,
}

type Outcome<T> = Result<T, StartTransferError>;

impl Transfers {
    /// Starts a transfer: an offer, or the swap at once.
    pub async fn start(&self, new: NewTransfer) -> Outcome<Transfer> {
        let mut transaction = self.pool.begin().await?;
        let transfer = self.start_in(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// As [`Transfers::start`], within the caller's transaction.
    pub async fn start_in(&self, conn: &mut PgConnection, new: NewTransfer) -> Outcome<Transfer> {
        let started = self.start_set(conn, vec![new]).await?;
        started.into_iter().next().expect("as many as were asked for")
    }

    /// As [`Transfers::start_in`], of several, each in another conversation. What stands against one keeps none of the others.
    pub async fn start_all_in(
        &self,
        conn: &mut PgConnection,
        all: Vec<NewTransfer>,
    ) -> Result<Vec<Outcome<Transfer>>, sqlx::Error> {
        let places = 0..all.len();
        // Of a list it is asked how much each already has, which those before it add to: one after the other.
        let (lists, alone): (Vec<_>, Vec<_>) = places.zip(all).partition(|(_, new)| !new.then.is_empty());
        let mut started: Vec<(usize, Outcome<Transfer>)> = Vec::new();
        for set in std::iter::once(alone).chain(lists.into_iter().map(|one| vec![one])) {
            let (places, set): (Vec<usize>, Vec<NewTransfer>) = set.into_iter().unzip();
            started.extend(places.into_iter().zip(self.start_set(conn, set).await?));
        }
        started.sort_unstable_by_key(|(place, _)| *place);
        Ok(started.into_iter().map(|(_, outcome)| outcome).collect())
    }

    async fn start_set(
        &self,
        conn: &mut PgConnection,
        all: Vec<NewTransfer>,
    ) -> Result<Vec<Outcome<Transfer>>, sqlx::Error> {
        let now = self.clock.now();
        let asked: Vec<_> = all
            .iter()
            .map(|new| (&new.conversation_sid, new.line.as_ref()))
            .collect();
        let grounds = survey_all(conn, &asked).await?;
        let mut set: Vec<Outcome<Start>> = all
            .into_iter()
            .zip(grounds)
            .map(|(new, ground)| {
                let (ground, turns) = (ground?, self.turns(&new));
                check_kind(new.kind, &ground, &turns)?;
                Ok(Start {
                    new,
                    ground,
                    turns,
                    passed: Vec::new(),
                })
            })
            .collect();
        self.check_hops_of(conn, &mut set, now).await?;
        pass_over(conn, &mut set, now).await?;
        self.begin(conn, set, now).await
    }

    /// Everybody who is to be asked, with the seconds that they have.
    fn turns(&self, new: &NewTransfer) -> Vec<(Identity, i64)> {
        let configured = match new.kind {
            Kind::Escalation => self.settings.escalation_timeout,
            _ => self.settings.offer_timeout,
        };
        let seconds = |timeout: Option<SignedDuration>| {
            let timeout = timeout.unwrap_or_else(|| signed(configured));
            timeout.as_secs().max(1)
        };
        let first = std::iter::once((new.to.clone(), seconds(new.offer_timeout)));
        let others = new
            .then
            .iter()
            .map(|turn| (turn.to.clone(), seconds(turn.offer_timeout)));
        first.chain(others).collect()
    }

    async fn check_hops_of(
        &self,
        conn: &mut PgConnection,
        set: &mut [Outcome<Start>],
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let grounds: Vec<&Ground> = set.iter().flatten().map(|start| &start.ground).collect();
        let mut refused = self.too_many_hops(conn, &grounds, now).await?;
        refused.reverse();
        for start in set.iter_mut().filter(|start| start.is_ok()) {
            if let Some(error) = refused.pop().flatten() {
                *start = Err(error);
            }
        }
        Ok(())
    }

    /// Writes those against which nothing stands.
    async fn begin(
        &self,
        conn: &mut PgConnection,
        set: Vec<Outcome<Start>>,
        now: Timestamp,
    ) -> Result<Vec<Outcome<Transfer>>, sqlx::Error> {
        let lines: Vec<(&str, &str)> = set.iter().flatten().map(|start| start.ground.key()).collect();
        let mut open: HashMap<(String, String), Transfer> = store::open_on_lines(conn, &lines)
            .await?
            .into_iter()
            .map(|one| {
                let key = (
                    one.conversation_sid.as_str().to_owned(),
                    one.line.as_str().to_owned(),
                );
                (key, one)
            })
            .collect();
        let mut begun: Vec<Outcome<(Start, Transfer)>> = Vec::with_capacity(set.len());
        for start in set {
            let drafted = match start {
                Ok(start) => {
                    let mut transfer = self.draft_of(&start, now);
                    let (sid, line) = start.ground.key();
                    let open = open.remove(&(sid.to_owned(), line.to_owned()));
                    make_room(conn, open, &mut transfer, start.new.if_open, now)
                        .await?
                        .map(|()| (start, transfer))
                }
                Err(error) => Err(error),
            };
            begun.push(drafted);
        }
        write(conn, &begun, now).await?;
        Ok(begun
            .into_iter()
            .map(|one| one.map(|(_, transfer)| transfer))
            .collect())
    }

    fn draft_of(&self, start: &Start, now: Timestamp) -> Transfer {
        let new = &start.new;
        let (to, seconds) = &start.turns[start.passed.len()];
        let draft = Draft {
            kind: new.kind,
            to: Some(to.clone()),
            requested_by: new.requested_by.clone(),
            decided_as: None,
            reason: new.reason.clone(),
            note: new.note.clone(),
            introduction: new.introduction.clone(),
            offer_timeout: new.kind.is_offered().then(|| SignedDuration::from_secs(*seconds)),
        };
        self.draft(&start.ground, draft, now)
    }
}

/// Whatever stands in the way of one is its own; the database's errors are everybody's.
async fn make_room(
    conn: &mut PgConnection,
    open: Option<Transfer>,
    new: &mut Transfer,
    if_open: IfOpen,
    now: Timestamp,
) -> Result<Outcome<()>, sqlx::Error> {
    let Some(open) = open else { return Ok(Ok(())) };
    match make_way_of(conn, open, new, if_open, now).await {
        Err(StartTransferError::Database(error)) => Err(error),
        made => Ok(made),
    }
}

async fn write(
    conn: &mut PgConnection,
    begun: &[Outcome<(Start, Transfer)>],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut transfers: Vec<&Transfer> = Vec::new();
    let mut lists: Vec<candidate::New<'_>> = Vec::new();
    let mut tasks = Vec::new();
    let mut entries: Vec<NewEvent> = Vec::new();
    for (start, transfer) in begun.iter().flatten() {
        transfers.push(transfer);
        let by = &transfer.requested_by;
        let kind = if transfer.kind.is_offered() {
            list(start, transfer, &mut lists, &mut entries, now);
            let place = i32::try_from(start.passed.len() + 1).unwrap_or(i32::MAX);
            tasks.push(expire_task(transfer, place, now));
            EventKind::TransferOffered
        } else {
            tasks.push(swap_task(transfer, now));
            EventKind::TransferStarted
        };
        entries.push(entry(transfer, kind, by, Via::Api, json!({}), now));
    }
    if transfers.is_empty() {
        return Ok(());
    }
    store::insert_all(conn, &transfers).await?;
    candidate::insert(conn, &lists, now).await?;
    queue::put_all(conn, &tasks, now).await?;
    events::append(conn, &entries).await
}

/// The list of an offered transfer, and what is told of those on it who were passed over.
fn list<'a>(
    start: &'a Start,
    transfer: &'a Transfer,
    lists: &mut Vec<candidate::New<'a>>,
    entries: &mut Vec<NewEvent>,
    now: Timestamp,
) {
    for (place, (identity, offer_seconds)) in start.turns.iter().enumerate() {
        let stage = match start.passed.get(place) {
            Some(passed) => {
                entries.push(skipped(transfer, passed, Via::Api, now));
                Stage::Skipped(passed.why)
            }
            None if place == start.passed.len() => Stage::Offered,
            None => Stage::Waiting,
        };
        lists.push(candidate::New {
            transfer,
            place: i32::try_from(place + 1).unwrap_or(i32::MAX),
            identity,
            offer_seconds: *offer_seconds,
            stage,
        });
    }
}

fn check_kind(kind: Kind, ground: &Ground, turns: &[(Identity, i64)]) -> Outcome<()> {
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

/// Finds who at the head of each list cannot be given the line, and why; who is left with nobody is refused.
async fn pass_over(
    conn: &mut PgConnection,
    set: &mut [Outcome<Start>],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let against = against_those_alone(conn, set, now).await?;
    for (place, slot) in set.iter_mut().enumerate() {
        let Ok(start) = slot else { continue };
        let passed = if start.turns.len() > 1 {
            of_list(conn, start, now).await?
        } else {
            let why = against.get(&place).copied();
            why.map(|why| passed(&start.turns[0].0, why))
                .into_iter()
                .collect()
        };
        if passed.len() == start.turns.len() {
            *slot = Err(refusal_of_all(passed));
        } else {
            start.passed = passed;
        }
    }
    Ok(())
}

fn passed(to: &Identity, why: &'static str) -> Passed {
    Passed { to: to.clone(), why }
}

/// What stands against those who were named alone, by their places in the set.
async fn against_those_alone(
    conn: &mut PgConnection,
    set: &[Outcome<Start>],
    now: Timestamp,
) -> Result<HashMap<usize, &'static str>, sqlx::Error> {
    let alone: Vec<(usize, &Start)> = set
        .iter()
        .enumerate()
        .filter_map(|(place, start)| Some((place, start.as_ref().ok()?)))
        .filter(|(_, start)| start.turns.len() == 1)
        .collect();
    if alone.is_empty() {
        return Ok(HashMap::new());
    }
    let asked: Vec<(&str, &str, &str)> = alone
        .iter()
        .map(|(_, start)| {
            let (sid, line) = start.ground.key();
            (sid, line, start.turns[0].0.as_str())
        })
        .collect();
    let elsewhere: HashSet<usize> = mirror::read::elsewhere(conn, &asked).await?;
    let people: Vec<&Identity> = alone.iter().map(|(_, start)| &start.turns[0].0).collect();
    let gone = people::gone(conn, &people, now).await?;
    Ok(alone
        .iter()
        .enumerate()
        .filter_map(|(number, (place, start))| {
            let to = &start.turns[0].0;
            let why = if start.ground.holder.as_deref() == Some(to.as_str()) {
                Some(HOLDS_IT)
            } else if elsewhere.contains(&number) {
                Some(IN_GROUP)
            } else {
                gone.contains(to).then_some(people::LEFT)
            };
            Some((*place, why?))
        })
        .collect())
}

async fn of_list(conn: &mut PgConnection, start: &Start, now: Timestamp) -> Result<Vec<Passed>, sqlx::Error> {
    let (sid, line) = (&start.ground.conversation_sid, &start.ground.line);
    let holder = start.ground.holder.as_deref();
    let mut all = Vec::new();
    for (to, _) in &start.turns {
        match why_not(conn, sid, line, holder, to, now).await? {
            Some(why) => all.push(passed(to, why)),
            None => break,
        }
    }
    Ok(all)
}

/// One who was named alone is refused in words of their own.
fn refusal_of_all(passed: Vec<Passed>) -> StartTransferError {
    match passed.as_slice() {
        [only] if only.why == IN_GROUP => StartTransferError::TargetInGroup,
        [only] if only.why == HOLDS_IT => StartTransferError::AlreadyHolder,
        _ => StartTransferError::NobodyFree { passed },
    }
}
