//! Takes in what statements about Twilio's state say of opting out, within the transaction that brings them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid};
use crate::mirror::read::{self, ParticipantRow};
use crate::mirror::{Change, Observed};
use crate::opt_out::find::{self, Resolved, Seen, Who};
use crate::opt_out::keywords::Keyword;
use crate::opt_out::said::{self, Word};
use crate::opt_out::store::{self, Pair};
use crate::opt_out::tasks::{put_apply, put_resume};
use crate::opt_out::{OptOut, RESOLVE_TASK, concerns};
use crate::queue::{self, NewTask};

/// How long the members of a conversation are waited for: they are mostly on their way.
const RESOLVE_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// Looks through a batch that has entered the mirror. `masked` has what was erased of it. A batch without anything of the
/// kind costs no statement; one with new members a single one, since they may have opted out before, and so one in which
/// members leave or conversations end, since something may wait there that nobody has to decide any more.
pub async fn follow(
    conn: &mut PgConnection,
    observed: &[Observed],
    masked: &BTreeMap<usize, Change>,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let joined = find::joined(observed);
    if !joined.is_empty() {
        for opt_out_id in store::open_in(conn, &joined).await? {
            put_apply(conn, opt_out_id, now).await?;
        }
    }
    let left = find::left(observed);
    if !left.is_empty() {
        for conversation_sid in concerns::held_in(conn, &left).await? {
            put_resume(conn, &conversation_sid, now).await?;
        }
    }
    let seen = find::seen(observed, masked);
    if seen.is_empty() {
        return Ok(());
    }
    for one in take_in(conn, seen, via, now).await? {
        put_resolve(conn, &one, now).await?;
    }
    Ok(())
}

/// Records what was seen. Answers with what is about members who are not known yet.
pub(super) async fn take_in(
    conn: &mut PgConnection,
    seen: Vec<Seen>,
    via: Via,
    now: Timestamp,
) -> Result<Vec<Seen>, sqlx::Error> {
    let sids: BTreeSet<&str> = seen.iter().map(|one| one.conversation_sid.as_str()).collect();
    let sids: Vec<&str> = sids.into_iter().collect();
    let mut members: BTreeMap<String, Vec<ParticipantRow>> = BTreeMap::new();
    for member in read::participants_of_many(conn, &sids).await? {
        members
            .entry(member.conversation_sid.clone())
            .or_default()
            .push(member);
    }
    let (mut known, mut waiting) = (Vec::new(), Vec::new());
    for one in seen {
        let here = members.get(one.conversation_sid.as_str());
        match find::resolve(one, here.map_or(&[], Vec::as_slice)) {
            Who::Known(resolved) => known.push(*resolved),
            Who::Nobody => {}
            Who::NotYet(one) => waiting.push(*one),
        }
    }
    // In the order of their times.
    let said: Vec<(Pair, &Resolved)> = known
        .iter()
        .flat_map(|one| one.lines.iter().map(move |line| (pair_of(one, line), one)))
        .collect();
    if !said.is_empty() {
        let pairs: Vec<&Pair> = said.iter().map(|(pair, _)| pair).collect();
        store::lock(conn, &pairs).await?;
    }
    let mut entries = Vec::new();
    for (pair, one) in &said {
        for (word, opt_out_id) in said::take(conn, pair, Word::of(one), now).await? {
            entries.push(entry(one, pair, &word, opt_out_id, via, now));
            put_apply(conn, opt_out_id, now).await?;
        }
    }
    events::append(conn, &entries).await?;
    Ok(waiting)
}

fn pair_of(one: &Resolved, line: &str) -> Pair {
    Pair {
        account_sid: one.seen.account_sid.to_string(),
        line: line.to_owned(),
        address: one.address.clone(),
    }
}

/// A member is named by their participant alone.
fn entry(one: &Resolved, pair: &Pair, word: &Word, opt_out_id: Uuid, via: Via, now: Timestamp) -> NewEvent {
    let kind = match word.keyword {
        Keyword::Stop => Kind::OptOutRecorded,
        Keyword::Start => Kind::OptOutCleared,
    };
    NewEvent {
        kind,
        account_sid: Some(one.seen.account_sid.clone()),
        conversation_sid: ConversationSid::try_from(word.conversation_sid.as_str()).ok(),
        subject: opt_out_id.to_string(),
        actor: None,
        via,
        cause: Some(one.seen.cause.clone()),
        occurred_at: word.at,
        recorded_at: now,
        data: json!({
            "opt_out_id": opt_out_id,
            "line": pair.line,
            "participant_sid": word.participant_sid,
            "source": word.source,
            "evidence": word.evidence,
        }),
    }
}

/// As [`entry`], of what somebody did by hand, or of what was done about it in a conversation.
pub(super) fn told(
    of: &OptOut,
    kind: Kind,
    conversation_sid: Option<&str>,
    actor: Option<&str>,
    via: Via,
    now: Timestamp,
) -> NewEvent {
    NewEvent {
        kind,
        account_sid: AccountSid::try_from(of.account_sid.as_str()).ok(),
        conversation_sid: conversation_sid.and_then(|sid| ConversationSid::try_from(sid).ok()),
        subject: of.opt_out_id.to_string(),
        actor: actor.map(str::to_owned),
        via,
        cause: Some(format!("opt_out:{}", of.opt_out_id)),
        occurred_at: now,
        recorded_at: now,
        data: json!({ "opt_out_id": of.opt_out_id, "line": of.line }),
    }
}

async fn put_resolve(conn: &mut PgConnection, seen: &Seen, now: Timestamp) -> Result<(), sqlx::Error> {
    let (message_sid, receipt_sid) = match &seen.message_sid {
        Some(message_sid) => (message_sid, Some(&seen.evidence)),
        None => (&seen.evidence, None),
    };
    let task = NewTask {
        kind: RESOLVE_TASK,
        order_key: format!("opt_out:{}", seen.evidence),
        unique_key: Some(seen.evidence.clone()),
        payload: json!({
            "account_sid": seen.account_sid,
            "conversation_sid": seen.conversation_sid,
            "message_sid": message_sid,
            "receipt_sid": receipt_sid,
            "at": seen.at,
        }),
        run_at: now + RESOLVE_AFTER,
        attempts_max: 12,
    };
    queue::put(conn, &task, now).await
}
