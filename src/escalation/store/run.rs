//! Escalations and their steps.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use super::unreadable;
use super::watch::Key;
use crate::escalation::{Escalation, Step};
use crate::ids::{ConversationSid, Identity, PhoneNumber};

struct Row {
    escalation_id: Uuid,
    account_sid: String,
    conversation_sid: ConversationSid,
    line: PhoneNumber,
    policy_id: String,
    policy_version: i64,
    rule: String,
    cause: String,
    cause_key: String,
    cause_at: jiff_sqlx::Timestamp,
    holder: Option<Identity>,
    asked_by: Option<String>,
    reason: Option<String>,
    state: String,
    why: Option<String>,
    stopped_by: Option<String>,
    next_at: Option<jiff_sqlx::Timestamp>,
    started_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
    finished_at: Option<jiff_sqlx::Timestamp>,
}

impl TryFrom<Row> for Escalation {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        Ok(Self {
            escalation_id: row.escalation_id,
            account_sid: row.account_sid,
            conversation_sid: row.conversation_sid,
            line: row.line,
            policy_id: row
                .policy_id
                .parse()
                .map_err(|error| unreadable("escalation.policy_id", error))?,
            policy_version: row.policy_version,
            rule: row.rule,
            cause: row.cause,
            cause_key: row.cause_key,
            cause_at: row.cause_at.to_jiff(),
            holder: row.holder,
            asked_by: row.asked_by,
            reason: row.reason,
            state: row.state,
            why: row.why,
            stopped_by: row.stopped_by,
            next_at: row.next_at.map(jiff_sqlx::Timestamp::to_jiff),
            started_at: row.started_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            finished_at: row.finished_at.map(jiff_sqlx::Timestamp::to_jiff),
        })
    }
}

macro_rules! step {
    ($row:ident) => {
        Step {
            escalation_id: $row.escalation_id,
            number: $row.number,
            step: $row.step,
            how: $row.how,
            whom: $row.whom,
            to: $row.to_identity,
            taken_at: $row.taken_at.to_jiff(),
            outcome: $row.outcome,
            code: $row.code,
            transfer_id: $row.transfer_id,
            settled_at: $row.settled_at.map(|at| at.to_jiff()),
            transfer_state: $row.transfer_state,
            transfer_finished_at: $row.transfer_finished_at.map(|at| at.to_jiff()),
        }
    };
}

/// What was recorded of these lines: all that is open, and what began with something after a time. Each with its steps.
pub(in crate::escalation) async fn known(
    conn: &mut PgConnection,
    keys: &[Key],
    after: Timestamp,
) -> Result<HashMap<Key, Vec<(Escalation, Vec<Step>)>>, sqlx::Error> {
    let (sids, lines): (Vec<&str>, Vec<&str>) = keys
        .iter()
        .map(|key| (key.conversation_sid.as_str(), key.line.as_str()))
        .unzip();
    let rows = sqlx::query_as!(
        Row,
        r#"-- escalation.known
        select escalation_id, account_sid, one.conversation_sid as "conversation_sid: ConversationSid",
               one.line as "line: PhoneNumber", policy_id, policy_version, rule, cause, cause_key, cause_at,
               holder as "holder: Identity", asked_by, reason, state, why, stopped_by, next_at, started_at, updated_at, finished_at
        from unnest($1::text[], $2::text[]) as wanted (conversation_sid, line)
        join escalation as one on one.conversation_sid = wanted.conversation_sid and one.line = wanted.line
        where finished_at is null or cause_at >= $3
        order by started_at, escalation_id"#,
        &sids as _,
        &lines as _,
        after.to_sqlx() as _,
    )
    .fetch_all(&mut *conn)
    .await?;
    let (of, ids): (Vec<&str>, Vec<Uuid>) = rows
        .iter()
        .map(|row| (row.conversation_sid.as_str(), row.escalation_id))
        .unzip();
    let mut steps: HashMap<Uuid, Vec<Step>> = HashMap::new();
    if !ids.is_empty() {
        for step in steps_of(conn, &of, &ids).await? {
            steps.entry(step.escalation_id).or_default().push(step);
        }
    }
    let mut known: HashMap<Key, Vec<(Escalation, Vec<Step>)>> = HashMap::new();
    for row in rows {
        let one = Escalation::try_from(row)?;
        let key = Key {
            conversation_sid: one.conversation_sid.as_str().to_owned(),
            line: one.line.as_str().to_owned(),
        };
        let steps = steps.remove(&one.escalation_id).unwrap_or_default();
        known.entry(key).or_default().push((one, steps));
    }
    Ok(known)
}

/// The steps of these escalations, by conversation and id, in order.
pub(in crate::escalation) async fn steps_of(
    conn: &mut PgConnection,
    sids: &[&str],
    ids: &[Uuid],
) -> Result<Vec<Step>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- escalation.steps_of
        select step.escalation_id, number, step, how, whom, to_identity as "to_identity: Identity", taken_at, outcome, code,
               step.transfer_id, settled_at, transfer.state as "transfer_state?", transfer.finished_at as transfer_finished_at
        from unnest($1::text[], $2::uuid[]) as wanted (conversation_sid, escalation_id)
        join escalation_step as step
          on step.conversation_sid = wanted.conversation_sid and step.escalation_id = wanted.escalation_id
        left join transfer
          on transfer.conversation_sid = step.conversation_sid and transfer.transfer_id = step.transfer_id
        order by step.escalation_id, number"#,
        sids as _,
        ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| step!(row)).collect())
}

/// The steps of one escalation, in order.
pub async fn steps(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    escalation_id: Uuid,
) -> Result<Vec<Step>, sqlx::Error> {
    steps_of(conn, &[conversation_sid.as_str()], &[escalation_id]).await
}

/// One escalation.
pub async fn find(conn: &mut PgConnection, escalation_id: Uuid) -> Result<Option<Escalation>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"-- escalation.find
        select escalation_id, account_sid, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber",
               policy_id, policy_version, rule, cause, cause_key, cause_at, holder as "holder: Identity", asked_by, reason, state,
               why, stopped_by, next_at, started_at, updated_at, finished_at
        from escalation where escalation_id = $1"#,
        escalation_id,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Escalation::try_from).transpose()
}

/// Some escalations, by conversation and id, in no order.
pub(in crate::escalation) async fn find_all(
    conn: &mut PgConnection,
    sids: &[&str],
    ids: &[Uuid],
) -> Result<Vec<Escalation>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- escalation.find_all
        select escalation_id, account_sid, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber",
               policy_id, policy_version, rule, cause, cause_key, cause_at, holder as "holder: Identity", asked_by, reason, state,
               why, stopped_by, next_at, started_at, updated_at, finished_at
        from escalation where (conversation_sid, escalation_id) in (select * from unnest($1::text[], $2::uuid[]))"#,
        sids as _,
        ids,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Escalation::try_from).collect()
}

/// Locks these escalations until the transaction ends. Answers those that are open.
pub(in crate::escalation) async fn lock_open(
    conn: &mut PgConnection,
    sids: &[&str],
    ids: &[Uuid],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- escalation.lock_open
        select escalation_id, finished_at is null as "is_open!" from escalation
        where (conversation_sid, escalation_id) in (select * from unnest($1::text[], $2::uuid[]))
        order by conversation_sid, escalation_id
        for update"#,
        sids as _,
        ids,
    )
    .fetch_all(conn)
    .await?;
    let open = rows.into_iter().filter(|row| row.is_open);
    Ok(open.map(|row| row.escalation_id).collect())
}

/// As [`find`], locked until the transaction ends.
pub(in crate::escalation) async fn lock(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    escalation_id: Uuid,
) -> Result<Option<Escalation>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"-- escalation.lock
        select escalation_id, account_sid, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber",
               policy_id, policy_version, rule, cause, cause_key, cause_at, holder as "holder: Identity", asked_by, reason, state,
               why, stopped_by, next_at, started_at, updated_at, finished_at
        from escalation where conversation_sid = $1 and escalation_id = $2 for update"#,
        conversation_sid.as_str(),
        escalation_id,
    )
    .fetch_optional(conn)
    .await?;
    row.map(Escalation::try_from).transpose()
}

/// Which escalations to list; `None` takes any.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub conversation_sid: Option<String>,
    pub line: Option<String>,
    pub policy_id: Option<String>,
    pub state: Option<String>,
}

/// Escalations, newest first, those before `before` (a time of beginning and an id, for paging).
pub async fn page(
    conn: &mut PgConnection,
    filter: &Filter,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Escalation>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- escalation.page
        select escalation_id, account_sid, conversation_sid as "conversation_sid: ConversationSid", line as "line: PhoneNumber",
               policy_id, policy_version, rule, cause, cause_key, cause_at, holder as "holder: Identity", asked_by, reason, state,
               why, stopped_by, next_at, started_at, updated_at, finished_at
        from escalation
        where ($1::text is null or conversation_sid = $1)
          and ($2::text is null or line = $2)
          and ($3::text is null or policy_id = $3)
          and ($4::text is null or state = $4)
          and ($5::timestamptz is null or (started_at, escalation_id) < ($5, $6::uuid))
        order by started_at desc, escalation_id desc
        limit $7"#,
        filter.conversation_sid,
        filter.line,
        filter.policy_id,
        filter.state,
        before.map(|(at, _)| at.to_sqlx()) as _,
        before.map(|(_, id)| id) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Escalation::try_from).collect()
}

/// One that begins.
#[derive(Debug)]
pub(in crate::escalation) struct Begun {
    pub(in crate::escalation) escalation_id: Uuid,
    pub(in crate::escalation) account_sid: String,
    pub(in crate::escalation) key: Key,
    pub(in crate::escalation) policy_id: String,
    pub(in crate::escalation) policy_version: i64,
    pub(in crate::escalation) rule: String,
    pub(in crate::escalation) cause: &'static str,
    pub(in crate::escalation) cause_key: String,
    pub(in crate::escalation) cause_at: Timestamp,
    pub(in crate::escalation) holder: Option<Identity>,
}

/// Writes those that begin, as open. Answers which: one that is there already is left alone.
pub(in crate::escalation) async fn insert(
    conn: &mut PgConnection,
    begun: &[Begun],
    now: Timestamp,
) -> Result<Vec<Uuid>, sqlx::Error> {
    if begun.is_empty() {
        return Ok(Vec::new());
    }
    let text = |of: fn(&Begun) -> &str| begun.iter().map(of).collect::<Vec<&str>>();
    let ids: Vec<Uuid> = begun.iter().map(|one| one.escalation_id).collect();
    let versions: Vec<i64> = begun.iter().map(|one| one.policy_version).collect();
    let at: Vec<_> = begun.iter().map(|one| one.cause_at.to_sqlx()).collect();
    let holders: Vec<Option<&str>> = begun
        .iter()
        .map(|one| one.holder.as_ref().map(Identity::as_str))
        .collect();
    sqlx::query_scalar!(
        "-- escalation.insert
        insert into escalation (escalation_id, account_sid, conversation_sid, line, policy_id, policy_version, rule, cause,
            cause_key, cause_at, holder, state, started_at, updated_at)
        select escalation_id, account_sid, conversation_sid, line, policy_id, policy_version, rule, cause, cause_key, cause_at,
            holder, 'open', $12, $12
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::text[],
                    $9::text[], $10::timestamptz[], $11::text[])
            as one (escalation_id, account_sid, conversation_sid, line, policy_id, policy_version, rule, cause, cause_key,
                    cause_at, holder)
        on conflict do nothing
        returning escalation_id",
        &ids,
        &text(|one| &one.account_sid) as _,
        &text(|one| &one.key.conversation_sid) as _,
        &text(|one| &one.key.line) as _,
        &text(|one| &one.policy_id) as _,
        &versions,
        &text(|one| &one.rule) as _,
        &text(|one| one.cause) as _,
        &text(|one| &one.cause_key) as _,
        &at as _,
        &holders as _,
        now.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await
}

/// Writes one that somebody asked for. False: one of the rule is open already.
pub(in crate::escalation) async fn insert_one(
    conn: &mut PgConnection,
    one: &Escalation,
) -> Result<bool, sqlx::Error> {
    let inserted = sqlx::query!(
        "-- escalation.insert_asked
        insert into escalation (escalation_id, account_sid, conversation_sid, line, policy_id, policy_version, rule, cause,
            cause_key, cause_at, holder, asked_by, reason, state, next_at, started_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'open', $10, $10, $10)
        on conflict do nothing",
        one.escalation_id,
        one.account_sid,
        one.conversation_sid.as_str(),
        one.line.as_str(),
        one.policy_id.as_str(),
        one.policy_version,
        one.rule,
        one.cause,
        one.cause_key,
        one.cause_at.to_sqlx() as _,
        one.holder.as_ref().map(Identity::as_str),
        one.asked_by,
        one.reason,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// What became of one.
#[derive(Debug)]
pub(in crate::escalation) struct Changed {
    pub(in crate::escalation) conversation_sid: String,
    pub(in crate::escalation) escalation_id: Uuid,
    pub(in crate::escalation) state: &'static str,
    pub(in crate::escalation) why: Option<&'static str>,
    pub(in crate::escalation) stopped_by: Option<String>,
    pub(in crate::escalation) next_at: Option<Timestamp>,
    pub(in crate::escalation) finished_at: Option<Timestamp>,
}

/// Writes what became of those that are open.
pub(in crate::escalation) async fn update(
    conn: &mut PgConnection,
    changed: &[Changed],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if changed.is_empty() {
        return Ok(());
    }
    let sids: Vec<&str> = changed.iter().map(|one| one.conversation_sid.as_str()).collect();
    let ids: Vec<Uuid> = changed.iter().map(|one| one.escalation_id).collect();
    let states: Vec<&str> = changed.iter().map(|one| one.state).collect();
    let whys: Vec<Option<&str>> = changed.iter().map(|one| one.why).collect();
    let by: Vec<Option<&str>> = changed.iter().map(|one| one.stopped_by.as_deref()).collect();
    let at = |of: fn(&Changed) -> Option<Timestamp>| {
        changed
            .iter()
            .map(|one| of(one).map(jiff_sqlx::ToSqlx::to_sqlx))
            .collect::<Vec<_>>()
    };
    sqlx::query!(
        "-- escalation.update
        update escalation as one
        set state = new.state, why = new.why, stopped_by = new.stopped_by, next_at = new.next_at,
            finished_at = new.finished_at, updated_at = $8
        from unnest($1::text[], $2::uuid[], $3::text[], $4::text[], $5::text[], $6::timestamptz[], $7::timestamptz[])
            as new (conversation_sid, escalation_id, state, why, stopped_by, next_at, finished_at)
        where one.conversation_sid = new.conversation_sid and one.escalation_id = new.escalation_id
          and one.finished_at is null",
        &sids as _,
        &ids,
        &states as _,
        &whys as _,
        &by as _,
        &at(|one| one.next_at) as _,
        &at(|one| one.finished_at) as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A step that is taken.
#[derive(Debug)]
pub(in crate::escalation) struct StepRow {
    pub(in crate::escalation) conversation_sid: String,
    pub(in crate::escalation) escalation_id: Uuid,
    pub(in crate::escalation) number: i32,
    pub(in crate::escalation) step: i32,
    pub(in crate::escalation) how: &'static str,
    pub(in crate::escalation) whom: String,
    pub(in crate::escalation) to: Option<Identity>,
    pub(in crate::escalation) outcome: &'static str,
    pub(in crate::escalation) code: Option<&'static str>,
}

pub(in crate::escalation) async fn insert_steps(
    conn: &mut PgConnection,
    steps: &[StepRow],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if steps.is_empty() {
        return Ok(());
    }
    let sids: Vec<&str> = steps.iter().map(|one| one.conversation_sid.as_str()).collect();
    let ids: Vec<Uuid> = steps.iter().map(|one| one.escalation_id).collect();
    let numbers: Vec<i32> = steps.iter().map(|one| one.number).collect();
    let places: Vec<i32> = steps.iter().map(|one| one.step).collect();
    let hows: Vec<&str> = steps.iter().map(|one| one.how).collect();
    let whoms: Vec<&str> = steps.iter().map(|one| one.whom.as_str()).collect();
    let to: Vec<Option<&str>> = steps
        .iter()
        .map(|one| one.to.as_ref().map(Identity::as_str))
        .collect();
    let outcomes: Vec<&str> = steps.iter().map(|one| one.outcome).collect();
    let codes: Vec<Option<&str>> = steps.iter().map(|one| one.code).collect();
    sqlx::query!(
        "-- escalation.insert_steps
        insert into escalation_step (conversation_sid, escalation_id, number, step, how, whom, to_identity, taken_at, outcome,
            code)
        select conversation_sid, escalation_id, number, step, how, whom, to_identity, $10, outcome, code
        from unnest($1::text[], $2::uuid[], $3::int4[], $4::int4[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[])
            as one (conversation_sid, escalation_id, number, step, how, whom, to_identity, outcome, code)",
        &sids as _,
        &ids,
        &numbers,
        &places,
        &hows as _,
        &whoms as _,
        &to as _,
        &outcomes as _,
        &codes as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What came of a step whose transfer was to be started.
#[derive(Debug)]
pub(in crate::escalation) struct Settled<'a> {
    pub(in crate::escalation) conversation_sid: &'a str,
    pub(in crate::escalation) escalation_id: Uuid,
    pub(in crate::escalation) number: i32,
    pub(in crate::escalation) outcome: &'static str,
    pub(in crate::escalation) code: Option<&'static str>,
    pub(in crate::escalation) transfer_id: Option<Uuid>,
}

/// Writes what came of steps. One that is settled already is left alone.
pub(in crate::escalation) async fn settle_steps(
    conn: &mut PgConnection,
    settled: &[Settled<'_>],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let sids: Vec<&str> = settled.iter().map(|one| one.conversation_sid).collect();
    let ids: Vec<Uuid> = settled.iter().map(|one| one.escalation_id).collect();
    let numbers: Vec<i32> = settled.iter().map(|one| one.number).collect();
    let outcomes: Vec<&str> = settled.iter().map(|one| one.outcome).collect();
    let codes: Vec<Option<&str>> = settled.iter().map(|one| one.code).collect();
    let transfers: Vec<Option<Uuid>> = settled.iter().map(|one| one.transfer_id).collect();
    sqlx::query!(
        "-- escalation.settle_steps
        update escalation_step as step
        set outcome = one.outcome, code = one.code, transfer_id = one.transfer_id, settled_at = $7
        from unnest($1::text[], $2::uuid[], $3::int4[], $4::text[], $5::text[], $6::uuid[])
            as one (conversation_sid, escalation_id, number, outcome, code, transfer_id)
        where step.conversation_sid = one.conversation_sid and step.escalation_id = one.escalation_id
          and step.number = one.number and step.outcome = 'asked'",
        &sids as _,
        &ids,
        &numbers,
        &outcomes as _,
        &codes as _,
        &transfers as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}
