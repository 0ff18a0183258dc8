//! Writing and reading the ledger.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx as _;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::{Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid, PhoneNumber, new_id};
use crate::ledger::derive::{Span, derive};
use crate::ledger::{Cause, Fact, Tenure};
use crate::mirror::Version;
use crate::mirror::as_of::Moment;

/// A conversation whose ledger may have to change.
#[derive(Debug, Clone)]
pub struct Affected {
    pub account_sid: AccountSid,
    /// When the conversation was closed or removed: its lines end with it.
    pub ended_at: Option<Timestamp>,
    /// Derive anew although no fact is new.
    pub end_changed: bool,
}

/// Keeps the facts and derives the tenures of their conversations anew, within the caller's transaction. Answers with
/// the log entries that tell of it.
///
/// The caller holds the lock of every conversation concerned, so that two derivations never run at once.
pub async fn record(
    conn: &mut PgConnection,
    facts: &[Fact],
    affected: &BTreeMap<ConversationSid, Affected>,
    leases: Leases,
    via: Via,
    now: Timestamp,
) -> Result<Recorded, sqlx::Error> {
    let ended: Vec<&str> = affected
        .iter()
        .filter(|(_, one)| one.end_changed)
        .map(|(sid, _)| sid.as_str())
        .collect();
    let facts = keep_and_load_facts(conn, facts, &ended, now).await?;
    let sids: BTreeSet<&str> = facts.of.keys().map(String::as_str).chain(ended).collect();
    if sids.is_empty() {
        return Ok(Recorded::default());
    }
    let sids: Vec<String> = sids.into_iter().map(str::to_owned).collect();
    let mut stored = load_tenures(conn, &sids).await?;
    let leases = match leases {
        Leases::Now => load_leases(conn, &sids).await?,
        Leases::Then => load_leases_then(conn, &sids, now).await?,
    };

    let mut difference = Difference::default();
    for sid in &sids {
        let Some((sid, context)) = affected.get_key_value(sid.as_str()) else {
            continue;
        };
        let derived = derive(
            facts.of.get(sid.as_str()).map_or(&[], Vec::as_slice),
            context.ended_at,
        );
        let stored = stored.remove(sid.as_str()).unwrap_or_default();
        // Who waited for the lock, or whose clock is behind, believes it from the last change of belief on: what was
        // believed at any time is one ledger.
        let believed_since = stored.iter().map(|tenure| tenure.recorded_at).max();
        let now = believed_since.map_or(now, |since| now.max(since));
        difference.add(sid, context, derived, &stored, &leases, via, now);
    }
    supersede(conn, &difference.superseded).await?;
    insert(conn, &difference.inserted).await?;
    Ok(Recorded {
        changed: facts.has_new || !(difference.inserted.is_empty() && difference.superseded.is_empty()),
        log: difference.events,
    })
}

/// What was ever said about seats, by conversation.
#[derive(Debug, Default)]
struct Facts {
    of: BTreeMap<String, Vec<Fact>>,
    /// Something of it was new.
    has_new: bool,
}

/// Where it is read who had which line leased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leases {
    /// From the leases.
    Now,
    /// From the transfers, for a past moment: leases are not kept.
    Then,
}

/// What [`record`] did.
#[derive(Debug, Default)]
pub struct Recorded {
    /// A fact was new, or a tenure.
    pub changed: bool,
    /// The entries that the log needs.
    pub log: Vec<NewEvent>,
}

#[derive(Debug, Default)]
struct Difference {
    /// With when that was found.
    superseded: Vec<(Tenure, Timestamp)>,
    inserted: Vec<Tenure>,
    events: Vec<NewEvent>,
}

/// The transfers that hold a line, and to whom they give it (`None`: to nobody): one, but of a past moment there may be
/// doubt.
type Leased = BTreeMap<(String, String), Vec<(Uuid, Option<String>)>>;

impl Difference {
    #[expect(clippy::too_many_arguments, reason = "two ledgers and what tells them apart")]
    fn add(
        &mut self,
        sid: &ConversationSid,
        context: &Affected,
        derived: BTreeMap<String, Vec<Span>>,
        stored: &[Tenure],
        leases: &Leased,
        via: Via,
        now: Timestamp,
    ) {
        let mut kept = BTreeSet::new();
        for (line, spans) in derived {
            let mut previous: Option<Option<String>> = None;
            let old: Vec<&Tenure> = stored.iter().filter(|tenure| tenure.line == line).collect();
            let mut matched = BTreeSet::new();
            let begins: Vec<(Option<String>, Timestamp)> = spans
                .iter()
                .map(|span| (span.holder.clone(), span.from))
                .collect();
            for span in spans {
                let holder_before = previous.replace(span.holder.clone());
                let known =
                    closest(&old, &span, &matched).or_else(|| begun_earlier(&old, &span, &begins, &matched));
                matched.extend(known.map(|tenure| tenure.tenure_id));
                let lease = leases
                    .get(&(sid.as_str().to_owned(), line.clone()))
                    .and_then(|leased| leased.iter().find(|(_, to)| span.holder == *to));
                let (cause, transfer_id) = cause_of(&span, holder_before.is_none(), known, lease);
                if let Some(same) = known.filter(|tenure| is_same(tenure, &span) && tenure.cause == cause) {
                    kept.insert(same.tenure_id);
                    continue;
                }
                if known.is_none() {
                    let event = holder_changed(
                        sid,
                        context,
                        &line,
                        holder_before.flatten().as_deref(),
                        &span,
                        cause,
                        transfer_id,
                    );
                    self.events.push(NewEvent {
                        via,
                        recorded_at: now,
                        ..event
                    });
                }
                self.inserted.push(Tenure {
                    tenure_id: new_id(),
                    conversation_sid: sid.as_str().to_owned(),
                    line: line.clone(),
                    holder: span.holder,
                    from: span.from,
                    to: span.to,
                    cause,
                    transfer_id,
                    via: known.map_or_else(|| via.as_str().to_owned(), |tenure| tenure.via.clone()),
                    recorded_at: now,
                });
            }
        }
        self.superseded.extend(
            stored
                .iter()
                .filter(|tenure| !kept.contains(&tenure.tenure_id))
                .map(|tenure| (tenure.clone(), now)),
        );
    }
}

fn is_same(tenure: &Tenure, span: &Span) -> bool {
    has_holder_of(tenure, span) && tenure.from == span.from && tenure.to == span.to
}

/// A line that is gone has no holder, like one that nobody staffs; they are not the same.
fn has_holder_of(tenure: &Tenure, span: &Span) -> bool {
    tenure.holder == span.holder && (tenure.cause == Cause::Removed) == span.vacant
}

/// The stored tenure that this span is, known better or with another end. One that an earlier span is already is no
/// other's: who comes back within a second has two.
fn closest<'a>(old: &[&'a Tenure], span: &Span, matched: &BTreeSet<Uuid>) -> Option<&'a Tenure> {
    let distance = |tenure: &Tenure| tenure.from.duration_since(span.from).abs();
    old.iter()
        .filter(|tenure| !matched.contains(&tenure.tenure_id))
        .filter(|tenure| has_holder_of(tenure, span) && distance(tenure) <= SignedDuration::from_secs(1))
        .min_by_key(|tenure| distance(tenure))
        .copied()
}

/// The stored tenure that this span is, known to have begun earlier: whose beginning lies in it, and is no other span's. A
/// swap is confirmed by a look, which has no time of its own, and may come long after the process that asked for the
/// change has died; the webhook of it tells when it was.
fn begun_earlier<'a>(
    old: &[&'a Tenure],
    span: &Span,
    begins: &[(Option<String>, Timestamp)],
    matched: &BTreeSet<Uuid>,
) -> Option<&'a Tenure> {
    let is_another_s = |tenure: &Tenure| {
        begins.iter().any(|(holder, from)| {
            *holder == tenure.holder
                && tenure.from.duration_since(*from).abs() <= SignedDuration::from_secs(1)
        })
    };
    old.iter()
        .filter(|tenure| !matched.contains(&tenure.tenure_id) && has_holder_of(tenure, span))
        .filter(|tenure| tenure.from > span.from && span.to.is_none_or(|to| tenure.from < to))
        .filter(|tenure| !is_another_s(tenure))
        .min_by_key(|tenure| tenure.from)
        .copied()
}

/// Why a span began; `lease` is of a transfer to its holder. What is stored of it counts only where it can still be so: what was the first span may have turned
/// out to be a later one.
fn cause_of(
    span: &Span,
    first: bool,
    known: Option<&Tenure>,
    lease: Option<&(Uuid, Option<String>)>,
) -> (Cause, Option<Uuid>) {
    if span.vacant {
        return (Cause::Removed, None);
    }
    if first {
        return (Cause::Created, None);
    }
    match (known.map(|tenure| (tenure.cause, tenure.transfer_id)), lease) {
        (Some((cause @ (Cause::Transfer | Cause::Upstream), transfer_id)), _) => (cause, transfer_id),
        (_, Some((transfer_id, _))) => (Cause::Transfer, Some(*transfer_id)),
        _ => (Cause::Upstream, None),
    }
}

fn holder_changed(
    sid: &ConversationSid,
    context: &Affected,
    line: &str,
    holder_before: Option<&str>,
    span: &Span,
    cause: Cause,
    transfer_id: Option<Uuid>,
) -> NewEvent {
    NewEvent {
        kind: Kind::HolderChanged,
        account_sid: Some(context.account_sid.clone()),
        conversation_sid: Some(sid.clone()),
        subject: line.to_owned(),
        actor: None,
        via: Via::Worker,
        cause: transfer_id.map(crate::events::transfer_cause),
        occurred_at: span.from,
        recorded_at: span.from,
        data: json!({
            "line": line,
            "from": holder_before,
            "to": span.holder,
            "cause": cause.as_str(),
            "transfer_id": transfer_id,
        }),
    }
}

/// Keeps facts, and loads those of all conversations of which something new was said, and of `anyway`. One statement: who
/// waits for the conversation's lock waits for fewer round trips.
async fn keep_and_load_facts(
    conn: &mut PgConnection,
    facts: &[Fact],
    anyway: &[&str],
    now: Timestamp,
) -> Result<Facts, sqlx::Error> {
    if facts.is_empty() && anyway.is_empty() {
        return Ok(Facts::default());
    }
    let conversations: Vec<&str> = facts.iter().map(|fact| fact.conversation_sid.as_str()).collect();
    let participants: Vec<&str> = facts.iter().map(|fact| fact.participant_sid.as_str()).collect();
    let at: Vec<_> = facts.iter().map(|fact| fact.version.at.to_sqlx()).collect();
    let exact: Vec<bool> = facts.iter().map(|fact| fact.version.exact).collect();
    let lines: Vec<Option<&str>> = facts
        .iter()
        .map(|fact| fact.line.as_ref().map(PhoneNumber::as_str))
        .collect();
    let identities: Vec<Option<&str>> = facts.iter().map(|fact| fact.identity.as_deref()).collect();
    let removed: Vec<bool> = facts.iter().map(|fact| fact.removed).collect();
    let vias: Vec<&str> = facts.iter().map(|fact| fact.via.as_str()).collect();
    let rows = sqlx::query!(
        r#"-- ledger.keep_and_load_facts
        with kept as (
            insert into holding (conversation_sid, participant_sid, at, exact, line, identity, removed, via, recorded_at)
            select fact.*, $9
            from unnest($1::text[], $2::text[], $3::timestamptz[], $4::boolean[], $5::text[], $6::text[], $7::boolean[], $8::text[])
                as fact
            on conflict do nothing
            returning conversation_sid, participant_sid, at, exact, line, identity, removed),
        wanted as (select conversation_sid from kept union select unnest($10::text[])),
        -- What is kept just now is not seen by this statement.
        fact as (
            select true as is_new, kept.* from kept
            union all
            select false, earlier.* from wanted
            cross join lateral (
                select conversation_sid, participant_sid, at, exact, line, identity, removed from holding
                where conversation_sid = wanted.conversation_sid offset 0) as earlier)
        select is_new as "is_new!", conversation_sid as "conversation_sid!: ConversationSid",
               participant_sid as "participant_sid!: crate::ids::ParticipantSid", at as "at!", exact as "exact!",
               line as "line: PhoneNumber", identity, removed as "removed!"
        from fact"#,
        &conversations as _,
        &participants as _,
        &at as _,
        &exact,
        &lines as _,
        &identities as _,
        &removed,
        &vias as _,
        now.to_sqlx() as _,
        anyway as _,
    )
    .fetch_all(conn)
    .await?;
    let mut facts = Facts::default();
    for row in rows {
        facts.has_new |= row.is_new;
        facts
            .of
            .entry(row.conversation_sid.as_str().to_owned())
            .or_default()
            .push(Fact {
                conversation_sid: row.conversation_sid,
                participant_sid: row.participant_sid,
                version: Version {
                    at: row.at.to_jiff(),
                    exact: row.exact,
                },
                line: row.line,
                identity: row.identity,
                removed: row.removed,
                via: Via::Webhook,
            });
    }
    Ok(facts)
}

macro_rules! tenure {
    ($row:ident) => {
        Tenure {
            tenure_id: $row.tenure_id,
            conversation_sid: $row.conversation_sid,
            line: $row.line,
            holder: $row.holder,
            from: $row.from_at.to_jiff(),
            to: $row.to_at.map(|at| at.to_jiff()),
            cause: Cause::from_column(&$row.cause),
            transfer_id: $row.transfer_id,
            via: $row.via,
            recorded_at: $row.recorded_at.to_jiff(),
        }
    };
}

async fn load_tenures(
    conn: &mut PgConnection,
    sids: &[String],
) -> Result<BTreeMap<String, Vec<Tenure>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.load_tenures
        select tenure_id, conversation_sid, line, holder, lower(during) as "from_at!", upper(during) as to_at,
               cause, transfer_id, via, recorded_at
        from tenure where conversation_sid = any($1) and superseded_at is null"#,
        sids,
    )
    .fetch_all(conn)
    .await?;
    let mut tenures: BTreeMap<String, Vec<Tenure>> = BTreeMap::new();
    for row in rows {
        tenures
            .entry(row.conversation_sid.clone())
            .or_default()
            .push(tenure!(row));
    }
    Ok(tenures)
}

async fn load_leases(conn: &mut PgConnection, sids: &[String]) -> Result<Leased, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.load_leases
        select conversation_sid, line, transfer_id as "transfer_id!", to_holder from line_lease
        where conversation_sid = any($1) and transfer_id is not null"#,
        sids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let line = (row.conversation_sid, row.line);
            (line, vec![(row.transfer_id, row.to_holder)])
        })
        .collect())
}

/// The transfers that had a line at a past moment. What a swap did is known only from its first step on, and whoever
/// projects took the time a little earlier than it looked; a swap that had nothing to do had the line when it ended.
async fn load_leases_then(
    conn: &mut PgConnection,
    sids: &[String],
    then: Timestamp,
) -> Result<Leased, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.load_leases_then
        select conversation_sid, line, transfer_id, to_holder
        from transfer
        cross join lateral (
            select coalesce((select min(started_at) - interval '10 seconds' from transfer_step
                    where transfer_step.conversation_sid = transfer.conversation_sid
                      and transfer_step.transfer_id = transfer.transfer_id),
                finished_at) as since) as leased
        where conversation_sid = any($1)
          and state in ('swapping', 'completed', 'failed', 'needs_attention', 'superseded')
          and leased.since <= $2 and (finished_at is null or finished_at >= $2)
        order by finished_at nulls last"#,
        sids,
        then.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await?;
    let mut leased = Leased::new();
    for row in rows {
        let line = (row.conversation_sid, row.line);
        leased
            .entry(line)
            .or_default()
            .push((row.transfer_id, row.to_holder));
    }
    Ok(leased)
}

async fn supersede(conn: &mut PgConnection, tenures: &[(Tenure, Timestamp)]) -> Result<(), sqlx::Error> {
    if tenures.is_empty() {
        return Ok(());
    }
    let conversations: Vec<&str> = tenures
        .iter()
        .map(|(tenure, _)| tenure.conversation_sid.as_str())
        .collect();
    let ids: Vec<Uuid> = tenures.iter().map(|(tenure, _)| tenure.tenure_id).collect();
    let times: Vec<_> = tenures.iter().map(|(_, at)| at.to_sqlx()).collect();
    sqlx::query!(
        "-- ledger.supersede
        update tenure set superseded_at = old.at
        from unnest($1::text[], $2::uuid[], $3::timestamptz[]) as old (conversation_sid, tenure_id, at)
        where tenure.conversation_sid = old.conversation_sid and tenure.tenure_id = old.tenure_id",
        &conversations as _,
        &ids,
        &times as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

async fn insert(conn: &mut PgConnection, tenures: &[Tenure]) -> Result<(), sqlx::Error> {
    if tenures.is_empty() {
        return Ok(());
    }
    let ids: Vec<Uuid> = tenures.iter().map(|tenure| tenure.tenure_id).collect();
    let conversations: Vec<&str> = tenures
        .iter()
        .map(|tenure| tenure.conversation_sid.as_str())
        .collect();
    let lines: Vec<&str> = tenures.iter().map(|tenure| tenure.line.as_str()).collect();
    let holders: Vec<Option<&str>> = tenures.iter().map(|tenure| tenure.holder.as_deref()).collect();
    let from: Vec<_> = tenures.iter().map(|tenure| tenure.from.to_sqlx()).collect();
    let to: Vec<_> = tenures
        .iter()
        .map(|tenure| tenure.to.map(jiff_sqlx::ToSqlx::to_sqlx))
        .collect();
    let causes: Vec<&str> = tenures.iter().map(|tenure| tenure.cause.as_str()).collect();
    let transfers: Vec<Option<Uuid>> = tenures.iter().map(|tenure| tenure.transfer_id).collect();
    let vias: Vec<&str> = tenures.iter().map(|tenure| tenure.via.as_str()).collect();
    let recorded: Vec<_> = tenures
        .iter()
        .map(|tenure| tenure.recorded_at.to_sqlx())
        .collect();
    sqlx::query!(
        "-- ledger.insert
        insert into tenure (tenure_id, conversation_sid, line, holder, during, cause, transfer_id, via, recorded_at)
        select tenure_id, conversation_sid, line, holder, tstzrange(from_at, to_at), cause, transfer_id, via, recorded_at
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::text[],
                    $8::uuid[], $9::text[], $10::timestamptz[])
            as new (tenure_id, conversation_sid, line, holder, from_at, to_at, cause, transfer_id, via, recorded_at)",
        &ids,
        &conversations as _,
        &lines as _,
        &holders as _,
        &from as _,
        &to as _,
        &causes as _,
        &transfers as _,
        &vias as _,
        &recorded as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Who holds the line now; the outer `None` says that there is no such line, or that it has ended.
pub async fn holder_of(
    conn: &mut PgConnection,
    conversation_sid: &str,
    line: &str,
) -> Result<Option<Option<String>>, sqlx::Error> {
    let row = sqlx::query!(
        "-- ledger.holder_of
        select holder from tenure
        where conversation_sid = $1 and line = $2 and superseded_at is null and upper_inf(during)
          and cause <> 'removed'",
        conversation_sid,
        line,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| row.holder))
}

/// The lines that a conversation has now, with their holders. A number whose last participant was removed is none.
pub async fn lines_of(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Vec<(String, Option<String>)>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- ledger.lines_of
        select line, holder from tenure
        where conversation_sid = $1 and superseded_at is null and upper_inf(during) and cause <> 'removed'
        order by line",
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.line, row.holder)).collect())
}

/// As [`lines_of`], of many conversations at once: conversation, line, holder.
pub async fn lines_of_many(
    conn: &mut PgConnection,
    conversation_sids: &[&str],
) -> Result<Vec<(String, String, Option<String>)>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- ledger.lines_of_many
        select conversation_sid, line, holder from tenure
        where conversation_sid = any($1) and superseded_at is null and upper_inf(during) and cause <> 'removed'
        order by conversation_sid, line",
        conversation_sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.conversation_sid, row.line, row.holder))
        .collect())
}

/// All tenures of a conversation's lines as believed now, oldest first.
pub async fn tenures_of_conversation(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Vec<Tenure>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.tenures_of_conversation
        select tenure_id, conversation_sid, line, holder, lower(during) as "from_at!", upper(during) as to_at,
               cause, transfer_id, via, recorded_at
        from tenure where conversation_sid = $1 and superseded_at is null
        order by lower(during), line"#,
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| tenure!(row)).collect())
}

/// As [`tenures_of_conversation`], as was believed at a past moment: those that had begun, without an end that came later.
pub async fn tenures_of_conversation_as_of(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    moment: Moment,
) -> Result<Vec<Tenure>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.tenures_of_conversation_as_of
        select tenure_id, conversation_sid, line, holder, lower(during) as "from_at!",
               case when upper(during) <= $2 then upper(during) end as to_at, cause, transfer_id, via, recorded_at
        from tenure
        where conversation_sid = $1 and lower(during) <= $2
          and recorded_at <= $3 and (superseded_at is null or superseded_at > $3)
        order by lower(during), line"#,
        conversation_sid.as_str(),
        moment.as_of.to_sqlx() as _,
        moment.known_at.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| tenure!(row)).collect())
}

/// As [`tenures_of_line`], as was believed at a past moment.
pub async fn tenures_of_line_as_of(
    conn: &mut PgConnection,
    line: &str,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    moment: Moment,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Tenure>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.tenures_of_line_as_of
        select tenure_id, conversation_sid, line, holder, lower(during) as "from_at!",
               case when upper(during) <= $6 then upper(during) end as to_at, cause, transfer_id, via, recorded_at
        from tenure
        where line = $1 and recorded_at <= $7 and (superseded_at is null or superseded_at > $7)
          and during && tstzrange($2, $3, '[]') and lower(during) <= $6
          and ($4::timestamptz is null or (lower(during), tenure_id) > ($4, $5::uuid))
        order by lower(during), tenure_id
        limit $8"#,
        line,
        from.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        to.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        after.map(|(at, _)| at.to_sqlx()) as _,
        after.map(|(_, id)| id) as _,
        moment.as_of.to_sqlx() as _,
        moment.known_at.to_sqlx() as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| tenure!(row)).collect())
}

/// The tenures of one number in all conversations that touch the span, oldest first, after `after` (a beginning and an
/// id, for paging).
pub async fn tenures_of_line(
    conn: &mut PgConnection,
    line: &str,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    after: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Tenure>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.tenures_of_line
        select tenure_id, conversation_sid, line, holder, lower(during) as "from_at!", upper(during) as to_at,
               cause, transfer_id, via, recorded_at
        from tenure
        where line = $1 and superseded_at is null
          and during && tstzrange($2, $3, '[]')
          and ($4::timestamptz is null or (lower(during), tenure_id) > ($4, $5::uuid))
        order by lower(during), tenure_id
        limit $6"#,
        line,
        from.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        to.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        after.map(|(at, _)| at.to_sqlx()) as _,
        after.map(|(_, id)| id) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| tenure!(row)).collect())
}
