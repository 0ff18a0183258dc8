//! Rows of opt-outs.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::new_id;
use crate::opt_out::{Cleared, OptOut, Policy, Source};

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

/// A member and a number of ours: what an opt-out is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Pair {
    pub(super) account_sid: String,
    pub(super) line: String,
    pub(super) address: String,
}

impl OptOut {
    pub(super) fn pair(&self) -> Pair {
        Pair {
            account_sid: self.account_sid.clone(),
            line: self.line.clone(),
            address: self.address.clone(),
        }
    }
}

/// An opt-out about to be recorded.
pub(super) struct New<'a> {
    pub(super) pair: &'a Pair,
    pub(super) since: Timestamp,
    pub(super) source: Source,
    pub(super) evidence: Option<&'a str>,
    pub(super) conversation_sid: Option<&'a str>,
    pub(super) set_by: Option<&'a str>,
}

/// Keeps what is learnt of a member and a number apart until the transaction ends: of two that learn of a word each, the
/// second sees what the first has recorded. Taken in one order, after the conversations.
pub(super) async fn lock(conn: &mut PgConnection, pairs: &[&Pair]) -> Result<(), sqlx::Error> {
    let keys: Vec<String> = pairs
        .iter()
        .map(|pair| format!("{} {} {}", pair.account_sid, pair.line, pair.address))
        .collect();
    sqlx::query!(
        "-- opt_out.lock
        select pg_advisory_xact_lock(hashtext('hookswitch.opt_out'), pair.hash)
        from (select distinct hashtext(key) as hash from unnest($1::text[]) as key order by 1) as pair",
        &keys,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Records an opt-out. None where one lasts already, or ended later than this began.
pub(super) async fn insert(
    conn: &mut PgConnection,
    new: &New<'_>,
    now: Timestamp,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- opt_out.insert
        insert into opt_out (opt_out_id, account_sid, line, address, since, source, evidence, conversation_sid, set_by, recorded_at)
        select $1::uuid, $2::text, $3::text, $4::text, $5::timestamptz, $6::text, $7::text, $8::text, $9::text, $10::timestamptz
        where not exists (
            select from opt_out as known
            where known.account_sid = $2 and known.line = $3 and known.address = $4
              and (known.cleared_at is null or known.cleared_at > $5))
        on conflict do nothing
        returning opt_out_id",
        new_id(),
        new.pair.account_sid,
        new.pair.line,
        new.pair.address,
        new.since.to_sqlx() as _,
        new.source.as_str(),
        new.evidence,
        new.conversation_sid,
        new.set_by,
        now.to_sqlx() as _,
    )
    .fetch_optional(conn)
    .await
}

/// Ends the opt-out that began before a word by which the member opts in. Answers with its id; none where none lasts.
pub(super) async fn end(
    conn: &mut PgConnection,
    pair: &Pair,
    at: Timestamp,
    evidence: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- opt_out.end
        update opt_out set cleared_at = $4, cleared_source = 'keyword', cleared_evidence = $5
        where account_sid = $1 and line = $2 and address = $3 and cleared_at is null and since < $4
        returning opt_out_id",
        pair.account_sid,
        pair.line,
        pair.address,
        at.to_sqlx() as _,
        evidence,
    )
    .fetch_optional(conn)
    .await
}

/// When the last one of a member and a number ended.
pub(super) async fn last_end(conn: &mut PgConnection, pair: &Pair) -> Result<Option<Timestamp>, sqlx::Error> {
    let at = sqlx::query_scalar!(
        r#"-- opt_out.last_end
        select max(cleared_at) as "at: jiff_sqlx::Timestamp" from opt_out where account_sid = $1 and line = $2 and address = $3"#,
        pair.account_sid,
        pair.line,
        pair.address,
    )
    .fetch_one(conn)
    .await?;
    Ok(at.map(jiff_sqlx::Timestamp::to_jiff))
}

/// Ends one by hand, after it began. False: it had ended before.
pub(super) async fn clear(
    conn: &mut PgConnection,
    opt_out_id: Uuid,
    cleared: &Cleared,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "-- opt_out.clear
        update opt_out set cleared_at = greatest($2, since + interval '1 microsecond'), cleared_source = $3, cleared_evidence = $4, cleared_by = $5
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
pub(super) async fn find_open(conn: &mut PgConnection, pair: &Pair) -> Result<Option<OptOut>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- opt_out.find_open
        select opt_out_id, account_sid, line, address, since, source, evidence, conversation_sid, set_by, cleared_at,
               cleared_source, cleared_evidence, cleared_by, recorded_at
        from opt_out where account_sid = $1 and line = $2 and address = $3 and cleared_at is null",
        pair.account_sid,
        pair.line,
        pair.address,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(OptOut::from))
}

/// Which opt-outs to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    pub line: Option<String>,
    /// Only this member.
    pub address: Option<String>,
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
          and ($6::text is null or address = $6)
        order by recorded_at desc, opt_out_id desc limit $5",
        filter.line.as_deref(),
        filter.open,
        before.map(|(at, _)| at.to_sqlx()) as _,
        before.map(|(_, id)| id) as _,
        limit,
        filter.address.as_deref(),
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

/// The open opt-outs of those who are in some conversations that are not over, of which nothing has come yet there.
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
        join conversation on conversation.conversation_sid = member.conversation_sid
        where (select exists (select from opt_out where cleared_at is null))
          and member.conversation_sid = any($1) and member.removed_at is null and member.address is not null
          and conversation.removed_at is null and conversation.state is distinct from 'closed'
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

/// The open opt-outs of one number, or of all, those after an id, each with whether what is done about it is not what the
/// policy says now: another policy has done it, or none, where the conversation is not over.
pub(super) async fn astray(
    conn: &mut PgConnection,
    of: Option<(&str, &str)>,
    of_accounts: &[(String, Policy)],
    after: Uuid,
    limit: i64,
) -> Result<Vec<(Uuid, bool)>, sqlx::Error> {
    let (accounts, policies): (Vec<&str>, Vec<&str>) = of_accounts
        .iter()
        .map(|(account_sid, policy)| (account_sid.as_str(), policy.as_str()))
        .unzip();
    let rows = sqlx::query!(
        r#"-- opt_out.astray
        with lasting as (
            select opt_out_id, account_sid, line, address from opt_out
            where cleared_at is null and opt_out_id > $1
              and ($2::text is null or (account_sid = $2 and line = $3))
            order by opt_out_id limit $4)
        select lasting.opt_out_id,
               exists (
                   select from participant as ours
                   join participant as member on member.conversation_sid = ours.conversation_sid
                   join conversation on conversation.conversation_sid = ours.conversation_sid
                   left join opt_out_concern as concern
                       on concern.conversation_sid = ours.conversation_sid and concern.opt_out_id = lasting.opt_out_id
                   where member.account_sid = lasting.account_sid and member.address = lasting.address
                     and member.removed_at is null and ours.removed_at is null
                     and (ours.projected_address = lasting.line
                          or (ours.participant_sid = member.participant_sid and ours.proxy_address = lasting.line))
                     and conversation.removed_at is null and conversation.state is distinct from 'closed'
                     and concern.state is distinct from 'closed'
                     and concern.policy is distinct from coalesce(own.policy, of_account.policy, 'carry_on')) as "is_astray!"
        from lasting
        left join opt_out_policy as own on own.account_sid = lasting.account_sid and own.line = lasting.line
        left join unnest($5::text[], $6::text[]) as of_account (account_sid, policy)
            on of_account.account_sid = lasting.account_sid
        order by lasting.opt_out_id"#,
        after,
        of.map(|(account_sid, _)| account_sid),
        of.map(|(_, line)| line),
        limit,
        &accounts as _,
        &policies as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.opt_out_id, row.is_astray))
        .collect())
}
