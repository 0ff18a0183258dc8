//! Rows of opt-outs, of what became of them, and of policies.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::opt_out::find::Resolved;
use crate::opt_out::{
    Cleared, Concern, ConcernState, OptOut, Policy, Source, keywords, policy_text, read_policy,
};

struct Row {
    opt_out_id: Uuid,
    account_sid: String,
    line: String,
    address: String,
    since: jiff_sqlx::Timestamp,
    source: String,
    evidence: Option<String>,
    conversation_sid: Option<String>,
    set_by: Option<String>,
    cleared_at: Option<jiff_sqlx::Timestamp>,
    cleared_source: Option<String>,
    cleared_evidence: Option<String>,
    cleared_by: Option<String>,
    recorded_at: jiff_sqlx::Timestamp,
}

impl From<Row> for OptOut {
    fn from(row: Row) -> Self {
        let cleared = row.cleared_at.zip(row.cleared_source);
        Self {
            opt_out_id: row.opt_out_id,
            account_sid: row.account_sid,
            line: row.line,
            address: row.address,
            since: row.since.to_jiff(),
            source: Source::read(&row.source),
            evidence: row.evidence,
            conversation_sid: row.conversation_sid,
            set_by: row.set_by,
            cleared: cleared.map(|(at, source)| Cleared {
                at: at.to_jiff(),
                source: Source::read(&source),
                evidence: row.cleared_evidence,
                by: row.cleared_by,
            }),
            recorded_at: row.recorded_at.to_jiff(),
        }
    }
}

/// An opt-out about to be recorded.
pub(super) struct New {
    pub(super) opt_out_id: Uuid,
    pub(super) account_sid: String,
    pub(super) line: String,
    pub(super) address: String,
    pub(super) since: Timestamp,
    pub(super) source: Source,
    pub(super) evidence: Option<String>,
    pub(super) conversation_sid: Option<String>,
    pub(super) set_by: Option<String>,
}

macro_rules! column {
    ($rows:expr, |$row:pat_param| $value:expr) => {
        &$rows.iter().map(|$row| $value).collect::<Vec<_>>()
    };
}

/// Records opt-outs, the oldest first. What is known already, or was cleared later than that, is left out. Answers with the
/// ids of those that are new.
pub(super) async fn insert(
    conn: &mut PgConnection,
    new: &[New],
    now: Timestamp,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- opt_out.insert
        insert into opt_out (opt_out_id, account_sid, line, address, since, source, evidence, conversation_sid, set_by, recorded_at)
        select seen.opt_out_id, seen.account_sid, seen.line, seen.address, seen.since, seen.source, seen.evidence,
               seen.conversation_sid, seen.set_by, $10
        from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::text[], $7::text[], $8::text[],
                $9::text[]) as seen (opt_out_id, account_sid, line, address, since, source, evidence, conversation_sid, set_by)
        where not exists (
            select from opt_out as known
            where known.account_sid = seen.account_sid and known.line = seen.line and known.address = seen.address
              and (known.cleared_at is null or known.cleared_at >= seen.since))
        order by seen.account_sid, seen.line, seen.address, seen.since
        on conflict do nothing
        returning opt_out_id",
        column!(new, |one| one.opt_out_id),
        column!(new, |one| one.account_sid.as_str()) as _,
        column!(new, |one| one.line.as_str()) as _,
        column!(new, |one| one.address.as_str()) as _,
        column!(new, |one| one.since.to_sqlx()) as _,
        column!(new, |one| one.source.as_str()) as _,
        column!(new, |one| one.evidence.as_deref()) as _,
        column!(new, |one| one.conversation_sid.as_deref()) as _,
        column!(new, |one| one.set_by.as_deref()) as _,
        now.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await
}

/// Ends the opt-outs of members who wrote so. Answers with those that it ended, each with its place in `said`.
pub(super) async fn clear_said(
    conn: &mut PgConnection,
    said: &[(&Resolved, &str)],
) -> Result<Vec<(usize, OptOut)>, sqlx::Error> {
    let ids = open_of(conn, said).await?;
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let rows = sqlx::query!(
        r#"-- opt_out.clear_said
        update opt_out
        set cleared_at = said.at, cleared_source = 'keyword', cleared_evidence = said.evidence
        from unnest($1::uuid[], $2::timestamptz[], $3::text[], $4::bigint[]) as said (opt_out_id, at, evidence, place)
        where opt_out.opt_out_id = said.opt_out_id and cleared_at is null
        returning opt_out.opt_out_id, said.place as "place!""#,
        column!(ids, |(id, _)| *id),
        column!(ids, |(_, place)| said[*place].0.seen.at.to_sqlx()) as _,
        column!(ids, |(_, place)| said[*place].0.seen.evidence.as_str()) as _,
        column!(ids, |(_, place)| i64::try_from(*place).unwrap_or(i64::MAX)),
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut ended = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(one) = find(conn, row.opt_out_id).await? {
            ended.push((usize::try_from(row.place).unwrap_or_default(), one));
        }
    }
    Ok(ended)
}

/// The open opt-outs that these words end, locked in the order of their ids.
async fn open_of(
    conn: &mut PgConnection,
    said: &[(&Resolved, &str)],
) -> Result<Vec<(Uuid, usize)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- opt_out.open_of
        select opt_out.opt_out_id, said.place as "place!"
        from unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[]) with ordinality
            as said (account_sid, line, address, at, place)
        join opt_out using (account_sid, line, address)
        where opt_out.cleared_at is null and opt_out.since <= said.at
        order by opt_out.opt_out_id, said.at
        for update of opt_out"#,
        column!(said, |(one, _)| one.seen.account_sid.as_str()) as _,
        column!(said, |(_, line)| *line) as _,
        column!(said, |(one, _)| one.address.as_str()) as _,
        column!(said, |(one, _)| one.seen.at.to_sqlx()) as _,
    )
    .fetch_all(conn)
    .await?;
    let mut ids: Vec<(Uuid, usize)> = rows
        .into_iter()
        .map(|row| (row.opt_out_id, usize::try_from(row.place - 1).unwrap_or_default()))
        .collect();
    ids.dedup_by_key(|(id, _)| *id);
    Ok(ids)
}

/// A message of the same conversation by which the member opted in again, after a time: it may have come before the other.
pub(super) async fn opted_in_after(
    conn: &mut PgConnection,
    conversation_sid: &str,
    address: &str,
    since: Timestamp,
) -> Result<Option<(String, Timestamp)>, sqlx::Error> {
    let words: Vec<String> = keywords::START.iter().map(|word| (*word).to_owned()).collect();
    let row = sqlx::query!(
        r#"-- opt_out.opted_in_after
        select message_sid, created_at as "created_at!" from message
        where conversation_sid = $1 and author = $2 and created_at > $3 and removed_at is null
          and lower(btrim(body, E' \t\r\n')) = any($4)
        order by created_at limit 1"#,
        conversation_sid,
        address,
        since.to_sqlx() as _,
        &words,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.message_sid, row.created_at.to_jiff())))
}

/// Ends one. False: it had ended before.
pub(super) async fn clear(
    conn: &mut PgConnection,
    opt_out_id: Uuid,
    cleared: &Cleared,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "-- opt_out.clear
        update opt_out set cleared_at = greatest($2, since), cleared_source = $3, cleared_evidence = $4, cleared_by = $5
        where opt_out_id = $1 and cleared_at is null",
        opt_out_id,
        cleared.at.to_sqlx() as _,
        cleared.source.as_str(),
        cleared.evidence,
        cleared.by,
    )
    .execute(conn)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn find(conn: &mut PgConnection, opt_out_id: Uuid) -> Result<Option<OptOut>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- opt_out.find
        select opt_out_id, account_sid, line, address, since, source, evidence, conversation_sid, set_by, cleared_at,
               cleared_source, cleared_evidence, cleared_by, recorded_at
        from opt_out where opt_out_id = $1",
        opt_out_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(OptOut::from))
}

/// The one that is open for a member and a number.
pub(super) async fn find_open(
    conn: &mut PgConnection,
    account_sid: &str,
    line: &str,
    address: &str,
) -> Result<Option<OptOut>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- opt_out.find_open
        select opt_out_id, account_sid, line, address, since, source, evidence, conversation_sid, set_by, cleared_at,
               cleared_source, cleared_evidence, cleared_by, recorded_at
        from opt_out where account_sid = $1 and line = $2 and address = $3 and cleared_at is null",
        account_sid,
        line,
        address,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(OptOut::from))
}

/// Which opt-outs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub line: Option<String>,
    /// Those that last, or those that have ended.
    pub open: Option<bool>,
}

/// Opt-outs, the newest first, those before a place.
pub async fn page(
    conn: &mut PgConnection,
    filter: &Filter,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<OptOut>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- opt_out.page
        select opt_out_id, account_sid, line, address, since, source, evidence, conversation_sid, set_by, cleared_at,
               cleared_source, cleared_evidence, cleared_by, recorded_at
        from opt_out
        where ($1::text is null or line = $1)
          and ($2::boolean is null or (cleared_at is null) = $2)
          and ($3::timestamptz is null or (recorded_at, opt_out_id) < ($3, $4::uuid))
        order by recorded_at desc, opt_out_id desc limit $5",
        filter.line.as_deref(),
        filter.open,
        before.map(|(at, _)| at.to_sqlx()) as _,
        before.map(|(_, id)| id) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(OptOut::from).collect())
}

/// All that members of a conversation ever had to do with its numbers, the newest first; those of members who are there.
pub async fn of_conversation(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Vec<OptOut>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- opt_out.of_conversation
        select distinct on (recorded_at, opt_out_id) opt_out_id, opt_out.account_sid, line, opt_out.address, since, source, evidence,
               opt_out.conversation_sid, set_by, cleared_at, cleared_source, cleared_evidence, cleared_by, recorded_at
        from participant as member
        join participant as ours on ours.conversation_sid = member.conversation_sid and ours.removed_at is null
        join opt_out on opt_out.account_sid = member.account_sid and opt_out.address = member.address
                    and opt_out.line in (ours.projected_address, member.proxy_address)
        where member.conversation_sid = $1 and member.removed_at is null
        order by recorded_at desc, opt_out_id desc limit 200",
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(OptOut::from).collect())
}

/// The open opt-outs of those who are in some conversations, of which nothing has come yet there.
pub(super) async fn open_in(
    conn: &mut PgConnection,
    conversation_sids: &[&str],
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- opt_out.open_in
        select distinct opt_out.opt_out_id
        from participant as member
        join participant as ours on ours.conversation_sid = member.conversation_sid and ours.removed_at is null
        join opt_out on opt_out.account_sid = member.account_sid and opt_out.address = member.address
                    and opt_out.line in (ours.projected_address, member.proxy_address) and opt_out.cleared_at is null
        where (select exists (select from opt_out where cleared_at is null))
          and member.conversation_sid = any($1) and member.removed_at is null and member.address is not null
          and not exists (select from opt_out_concern as concern
                          where concern.conversation_sid = member.conversation_sid
                            and concern.opt_out_id = opt_out.opt_out_id)
        order by opt_out.opt_out_id",
        conversation_sids as _,
    )
    .fetch_all(conn)
    .await
}

/// The conversations that are not over and have both the member and the number.
pub(super) async fn conversations(conn: &mut PgConnection, of: &OptOut) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- opt_out.conversations
        select distinct member.conversation_sid as "sid!"
        from participant as ours
        join participant as member on member.conversation_sid = ours.conversation_sid
        join conversation on conversation.conversation_sid = ours.conversation_sid
        where (ours.projected_address = $2 or (ours.proxy_address = $2 and ours.address = $3))
          and ours.removed_at is null and ours.account_sid = $1
          and member.address = $3 and member.removed_at is null
          and conversation.removed_at is null and conversation.state is distinct from 'closed'
        order by 1"#,
        of.account_sid,
        of.line,
        of.address,
    )
    .fetch_all(conn)
    .await
}

/// What became of opt-outs in a conversation.
pub async fn concerns_of(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Vec<Concern>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- opt_out.concerns_of
        select conversation_sid, opt_out_id, policy, state, decided_by, decided_at, updated_at
        from opt_out_concern where conversation_sid = $1",
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Concern {
            conversation_sid: row.conversation_sid,
            opt_out_id: row.opt_out_id,
            policy: read_policy(&row.policy),
            state: ConcernState::read(&row.state),
            decided_by: row.decided_by,
            decided_at: row.decided_at.map(jiff_sqlx::Timestamp::to_jiff),
            updated_at: row.updated_at.to_jiff(),
        })
        .collect())
}

/// The conversations in which something became of an opt-out.
pub(super) async fn conversations_concerned(
    conn: &mut PgConnection,
    opt_out_id: Uuid,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- opt_out.conversations_concerned
        select conversation_sid from opt_out_concern where opt_out_id = $1 order by conversation_sid",
        opt_out_id,
    )
    .fetch_all(conn)
    .await
}

/// Writes what became of an opt-out in a conversation.
pub(super) async fn save_concern(conn: &mut PgConnection, concern: &Concern) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- opt_out.save_concern
        insert into opt_out_concern (conversation_sid, opt_out_id, policy, state, decided_by, decided_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7)
        on conflict (conversation_sid, opt_out_id) do update
        set policy = excluded.policy, state = excluded.state, decided_by = excluded.decided_by,
            decided_at = excluded.decided_at, updated_at = excluded.updated_at",
        concern.conversation_sid,
        concern.opt_out_id,
        policy_text(concern.policy),
        concern.state.as_str(),
        concern.decided_by,
        concern.decided_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        concern.updated_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What a number has of its own.
pub(super) async fn policy_of(
    conn: &mut PgConnection,
    account_sid: &str,
    line: &str,
) -> Result<Option<Policy>, sqlx::Error> {
    let policy = sqlx::query_scalar!(
        "-- opt_out.policy_of
        select policy from opt_out_policy where account_sid = $1 and line = $2",
        account_sid,
        line,
    )
    .fetch_optional(conn)
    .await?;
    Ok(policy.as_deref().map(read_policy))
}

pub(super) async fn set_policy(
    conn: &mut PgConnection,
    account_sid: &str,
    line: &str,
    policy: Policy,
    set_by: &str,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- opt_out.set_policy
        insert into opt_out_policy (account_sid, line, policy, set_by, set_at) values ($1, $2, $3, $4, $5)
        on conflict (account_sid, line) do update
        set policy = excluded.policy, set_by = excluded.set_by, set_at = excluded.set_at",
        account_sid,
        line,
        policy_text(policy),
        set_by,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn drop_policy(
    conn: &mut PgConnection,
    account_sid: &str,
    line: &str,
) -> Result<bool, sqlx::Error> {
    let dropped = sqlx::query!(
        "-- opt_out.drop_policy
        delete from opt_out_policy where account_sid = $1 and line = $2",
        account_sid,
        line,
    )
    .execute(conn)
    .await?;
    Ok(dropped.rows_affected() == 1)
}

/// The open opt-outs of a number.
pub(super) async fn open_of_line(
    conn: &mut PgConnection,
    account_sid: &str,
    line: &str,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- opt_out.open_of_line
        select opt_out_id from opt_out where account_sid = $1 and line = $2 and cleared_at is null order by opt_out_id",
        account_sid,
        line,
    )
    .fetch_all(conn)
    .await
}
