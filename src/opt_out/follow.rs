//! Takes in what statements about Twilio's state say of opting out, within the transaction that brings them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid, new_id};
use crate::mirror::read::{self, ParticipantRow};
use crate::mirror::{Change, Observed};
use crate::opt_out::find::{self, Resolved, Seen, Who};
use crate::opt_out::keywords::Keyword;
use crate::opt_out::{APPLY_TASK, Cleared, OptOut, RESOLVE_TASK, Source, store};
use crate::queue::{self, NewTask};

/// How long the members of a conversation are waited for: they are mostly on their way.
const RESOLVE_AFTER: SignedDuration = SignedDuration::from_secs(5);

/// Looks through a batch that has entered the mirror. `masked` has what was erased of it. A batch without anything of the
/// kind costs no statement, one with new members a single one: they may have opted out before.
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
    // In the order of their times: whoever stops, starts and stops again within a batch has stopped.
    for run in known.chunk_by(|one, other| one.seen.keyword == other.seen.keyword) {
        match run[0].seen.keyword {
            Keyword::Stop => stop(conn, run, via, now).await?,
            Keyword::Start => start(conn, run, via, now).await?,
        }
    }
    Ok(waiting)
}

async fn stop(
    conn: &mut PgConnection,
    run: &[Resolved],
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut new = Vec::new();
    let mut by_id: BTreeMap<Uuid, (&Resolved, &str)> = BTreeMap::new();
    for one in run {
        for line in &one.lines {
            let opt_out_id = new_id();
            by_id.insert(opt_out_id, (one, line));
            new.push(store::New {
                opt_out_id,
                account_sid: one.seen.account_sid.to_string(),
                line: line.clone(),
                address: one.address.clone(),
                since: one.seen.at,
                source: one.seen.source,
                evidence: Some(one.seen.evidence.clone()),
                conversation_sid: Some(one.seen.conversation_sid.to_string()),
                set_by: None,
            });
        }
    }
    let mut entries = Vec::new();
    for opt_out_id in store::insert(conn, &new, now).await? {
        let Some((one, line)) = by_id.get(&opt_out_id) else {
            continue;
        };
        entries.push(entry(one, line, Kind::OptOutRecorded, opt_out_id, via, now));
        let sid = one.seen.conversation_sid.as_str();
        // The word that ends it may have come before it.
        let later = store::opted_in_after(conn, sid, &one.address, one.seen.at).await?;
        if let Some((evidence, at)) = later {
            let cleared = Cleared {
                at,
                source: Source::Keyword,
                evidence: Some(evidence),
                by: None,
            };
            store::clear(conn, opt_out_id, &cleared).await?;
            entries.push(entry(one, line, Kind::OptOutCleared, opt_out_id, via, now));
        }
        put_apply(conn, opt_out_id, now).await?;
    }
    events::append(conn, &entries).await
}

async fn start(
    conn: &mut PgConnection,
    run: &[Resolved],
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let said: Vec<(&Resolved, &str)> = run
        .iter()
        .flat_map(|one| one.lines.iter().map(move |line| (one, line.as_str())))
        .collect();
    let mut entries = Vec::new();
    for (place, ended) in store::clear_said(conn, &said).await? {
        if let Some((one, line)) = said.get(place) {
            entries.push(entry(one, line, Kind::OptOutCleared, ended.opt_out_id, via, now));
        }
        put_apply(conn, ended.opt_out_id, now).await?;
    }
    events::append(conn, &entries).await
}

/// A member is named by their participant alone.
fn entry(one: &Resolved, line: &str, kind: Kind, opt_out_id: Uuid, via: Via, now: Timestamp) -> NewEvent {
    let seen = &one.seen;
    NewEvent {
        kind,
        account_sid: Some(seen.account_sid.clone()),
        conversation_sid: Some(seen.conversation_sid.clone()),
        subject: opt_out_id.to_string(),
        actor: None,
        via,
        cause: Some(seen.cause.clone()),
        occurred_at: seen.at,
        recorded_at: now,
        data: json!({
            "opt_out_id": opt_out_id,
            "line": line,
            "participant_sid": one.participant_sid,
            "source": seen.source,
            "evidence": seen.evidence,
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

/// Queues what the policy says about it, or the end of that.
pub(super) async fn put_apply(
    conn: &mut PgConnection,
    opt_out_id: Uuid,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: APPLY_TASK,
        order_key: format!("opt_out:{opt_out_id}"),
        unique_key: Some(opt_out_id.to_string()),
        payload: json!({ "opt_out_id": opt_out_id }),
        run_at: now,
        attempts_max: 30,
    };
    queue::put(conn, &task, now).await
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
        }),
        run_at: now + RESOLVE_AFTER,
        attempts_max: 12,
    };
    queue::put(conn, &task, now).await
}
