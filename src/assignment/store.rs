//! Rows of lines that wait or were given, and whose turn it was last.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::{Line, Passed, Row, Stored};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber};
use crate::numbers::Rule;

/// A line is given so often without success; then it is left to people.
const ATTEMPTS_MAX: i32 = 3;
/// So many lines are looked at, the oldest first.
const LOOKED_AT: i64 = 2_000;
/// Why a line waits that was given without success.
pub(super) const IN_VAIN: &str = "given_in_vain";

/// A line with what is asked about earlier groups of the same people.
struct Found {
    line: Line,
    /// The numbers of all members, sorted and joined, as SQL does it.
    members: String,
    /// The number of one of the handsets.
    handset: Option<String>,
}

/// Lines of these conversations that nobody holds, that have a rule, and that a customer has written in since, or started:
/// those that neither wait nor were given. Their conversations are open, and complete as far as can be seen.
pub(super) async fn asked_for(
    conn: &mut PgConnection,
    sids: &[&str],
    since: Timestamp,
) -> Result<Vec<Line>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- assignment.asked_for
        select tenure.conversation_sid as "sid: ConversationSid", tenure.line as "line: PhoneNumber",
               number.account_sid as "account_sid: AccountSid", number.team_id, number.rule as "rule!",
               number.person as "person: Identity", seats.members, seats.handset,
               seats.elsewhere || array(select to_holder from transfer
                   where transfer.conversation_sid = tenure.conversation_sid and transfer.line <> tenure.line
                     and finished_at is null and to_holder is not null) as "elsewhere!"
        from unnest($1::text[]) as wanted (sid)
        join tenure on tenure.conversation_sid = wanted.sid and superseded_at is null and upper_inf(during)
            and holder is null and cause <> 'removed'
        join number on number.number = tenure.line and number.rule is not null
        join conversation on conversation.conversation_sid = wanted.sid and conversation.account_sid = number.account_sid
            and conversation.removed_at is null and conversation.state in ('active', 'inactive')
        cross join lateral (
            select count(distinct coalesce(projected_address, address)) as number_of_members,
                   string_agg(distinct coalesce(projected_address, address), ',') as members,
                   min(address) filter (where projected_address is null) as handset,
                   coalesce(array_agg(identity) filter (
                       where identity is not null and projected_address is distinct from tenure.line), '{}') as elsewhere
            from participant
            where participant.conversation_sid = wanted.sid and participant.removed_at is null) as seats
        where not exists (select from line_assignment
                where line_assignment.conversation_sid = wanted.sid and line_assignment.line = tenure.line)
          and not exists (select from transfer
                where transfer.conversation_sid = wanted.sid and transfer.line = tenure.line and finished_at is null)
          and case when conversation.autocreated and tenure.cause = 'created'
              -- The message that started it need not have come yet. Its members may be told one by one.
              then coalesce(conversation.created_at, conversation.first_seen_at) > $2 and number_of_members > 2
              else exists (select from message
                where message.conversation_sid = wanted.sid and message.removed_at is null
                  and message.created_at >= date_trunc('second', lower(tenure.during)) and message.created_at > $2
                  and left(message.author, 1) = '+'
                  and not exists (select from participant
                      where participant.conversation_sid = wanted.sid
                        and participant.projected_address = message.author))
              end
        order by tenure.conversation_sid, tenure.line"#,
        sids as _,
        since.to_sqlx() as _,
    )
    .fetch_all(&mut *conn)
    .await?;
    let found = rows
        .into_iter()
        .filter_map(|row| {
            Some(Found {
                line: Line {
                    conversation_sid: row.sid,
                    line: row.line,
                    account_sid: row.account_sid,
                    team_id: row.team_id,
                    rule: Rule::from_column(&row.rule)?,
                    person: row.person,
                    elsewhere: row.elsewhere,
                    last_holder: None,
                    stored: None,
                },
                members: row.members.unwrap_or_default(),
                handset: row.handset,
            })
        })
        .collect();
    with_last_holders(conn, found).await
}

/// Lines that wait and that may be given, the oldest first; of one conversation, or of all.
pub(super) async fn waiting(
    conn: &mut PgConnection,
    sid: Option<&ConversationSid>,
) -> Result<Vec<Line>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- assignment.waiting
        select waits.conversation_sid as "sid: ConversationSid", waits.line as "line: PhoneNumber",
               number.account_sid as "account_sid: AccountSid", number.team_id, number.rule as "rule!",
               number.person as "person: Identity", seats.members, seats.handset,
               seats.elsewhere || array(select to_holder from transfer
                   where transfer.conversation_sid = waits.conversation_sid and transfer.line <> waits.line
                     and finished_at is null and to_holder is not null) as "elsewhere!",
               waits.reason, waits.passed as "passed: Json<Vec<Passed>>", waits.since
        from line_assignment as waits
        join tenure on tenure.conversation_sid = waits.conversation_sid and tenure.line = waits.line
            and superseded_at is null and upper_inf(during) and holder is null and cause <> 'removed'
        join number on number.number = waits.line and number.rule is not null
        join conversation on conversation.conversation_sid = waits.conversation_sid
            and conversation.account_sid = number.account_sid
        cross join lateral (
            select string_agg(distinct coalesce(projected_address, address), ',') as members,
                   min(address) filter (where projected_address is null) as handset,
                   coalesce(array_agg(identity) filter (
                       where identity is not null and projected_address is distinct from waits.line), '{}') as elsewhere
            from participant
            where participant.conversation_sid = waits.conversation_sid and participant.removed_at is null) as seats
        where waits.state = 'waiting' and waits.attempts < $2 and ($1::text is null or waits.conversation_sid = $1)
          and conversation.removed_at is null and conversation.state in ('active', 'inactive')
          and not exists (select from transfer
                where transfer.conversation_sid = waits.conversation_sid and transfer.line = waits.line
                  and finished_at is null)
        order by waits.since, waits.conversation_sid, waits.line
        limit $3"#,
        sid.map(ConversationSid::as_str),
        ATTEMPTS_MAX,
        LOOKED_AT,
    )
    .fetch_all(&mut *conn)
    .await?;
    let found = rows
        .into_iter()
        .filter_map(|row| {
            Some(Found {
                line: Line {
                    conversation_sid: row.sid,
                    line: row.line,
                    account_sid: row.account_sid,
                    team_id: row.team_id,
                    rule: Rule::from_column(&row.rule)?,
                    person: row.person,
                    elsewhere: row.elsewhere,
                    last_holder: None,
                    stored: Some(Stored {
                        reason: row.reason,
                        passed: row.passed.0,
                        since: row.since.to_jiff(),
                    }),
                },
                members: row.members.unwrap_or_default(),
                handset: row.handset,
            })
        })
        .collect();
    with_last_holders(conn, found).await
}

/// Adds who held each line's number with the same people last: in the same conversation, or in an earlier one of the same
/// members. Whoever was in an earlier one until it ended, was a member.
async fn with_last_holders(conn: &mut PgConnection, found: Vec<Found>) -> Result<Vec<Line>, sqlx::Error> {
    if found.is_empty() {
        return Ok(Vec::new());
    }
    let sids: Vec<&str> = found
        .iter()
        .map(|one| one.line.conversation_sid.as_str())
        .collect();
    let lines: Vec<&str> = found.iter().map(|one| one.line.line.as_str()).collect();
    let members: Vec<&str> = found.iter().map(|one| one.members.as_str()).collect();
    let handsets: Vec<Option<&str>> = found.iter().map(|one| one.handset.as_deref()).collect();
    let accounts: Vec<&str> = found.iter().map(|one| one.line.account_sid.as_str()).collect();
    let rows = sqlx::query!(
        r#"-- assignment.last_holders
        select asked.place as "place!", past.holder as "holder!"
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) with ordinality
            as asked (sid, line, members, handset, account_sid, place)
        cross join lateral (
            select tenure.holder
            from tenure
            join conversation on conversation.conversation_sid = tenure.conversation_sid
            where tenure.line = asked.line and tenure.superseded_at is null and tenure.holder is not null
              and conversation.account_sid = asked.account_sid
              and (tenure.conversation_sid = asked.sid
                or tenure.conversation_sid in (
                    select participant.conversation_sid from participant where participant.address = asked.handset)
                  and asked.members = (
                    select string_agg(distinct coalesce(projected_address, address), ',')
                    from participant
                    where participant.conversation_sid = tenure.conversation_sid
                      and (participant.removed_at is null or participant.removed_at
                           >= coalesce(conversation.closed_at, conversation.removed_at) - interval '1 minute')))
            order by upper(tenure.during) desc nulls first, lower(tenure.during) desc
            limit 1) as past"#,
        &sids as _,
        &lines as _,
        &members as _,
        &handsets as _,
        &accounts as _,
    )
    .fetch_all(conn)
    .await?;
    let mut holders: HashMap<i64, String> = rows.into_iter().map(|row| (row.place, row.holder)).collect();
    Ok((1_i64..)
        .zip(found)
        .map(|(place, one)| Line {
            last_holder: holders.remove(&place),
            ..one.line
        })
        .collect())
}

/// Locks the turns of these teams, in their order, until the transaction ends: decisions about one team are made one after
/// the other. Answers of whose turn it was last in each.
pub(super) async fn lock_turns(
    conn: &mut PgConnection,
    teams: &BTreeSet<&str>,
) -> Result<BTreeMap<String, Option<String>>, sqlx::Error> {
    let teams: Vec<&str> = teams.iter().copied().collect();
    if teams.is_empty() {
        return Ok(BTreeMap::new());
    }
    sqlx::query!(
        "-- assignment.ensure_turns
        insert into assignment_turn (team_id) select team from unnest($1::text[]) as team order by team
        on conflict do nothing",
        &teams as _,
    )
    .execute(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        "-- assignment.lock_turns
        select team_id, last_identity from assignment_turn where team_id = any($1) order by team_id for update",
        &teams as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.team_id, row.last_identity))
        .collect())
}

pub(super) async fn save_turn(conn: &mut PgConnection, team: &str, last: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- assignment.save_turn
        update assignment_turn set last_identity = $2 where team_id = $1",
        team,
        last,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn given(
    conn: &mut PgConnection,
    line: &Line,
    by: &str,
    passed: &[Passed],
    (transfer_id, to): (Uuid, &Identity),
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- assignment.given
        insert into line_assignment (conversation_sid, line, account_sid, team_id, state, reason, since, last_holder, passed,
            transfer_id, to_holder, updated_at)
        values ($1, $2, $3, $4, 'given', $5, $10, $6, $7, $8, $9, $10)
        on conflict (conversation_sid, line) do update set team_id = excluded.team_id, state = 'given',
            reason = excluded.reason, last_holder = excluded.last_holder, passed = excluded.passed,
            transfer_id = excluded.transfer_id, to_holder = excluded.to_holder, updated_at = excluded.updated_at",
        line.conversation_sid.as_str(),
        line.line.as_str(),
        line.account_sid.as_str(),
        line.team_id,
        by,
        line.last_holder,
        Json(passed) as _,
        transfer_id,
        to.as_str(),
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn waits(
    conn: &mut PgConnection,
    line: &Line,
    why: &str,
    passed: &[Passed],
    since: Timestamp,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- assignment.waits
        insert into line_assignment (conversation_sid, line, account_sid, team_id, state, reason, since, last_holder, passed,
            updated_at)
        values ($1, $2, $3, $4, 'waiting', $5, $8, $6, $7, $9)
        on conflict (conversation_sid, line) do update set team_id = excluded.team_id, state = 'waiting',
            reason = excluded.reason, last_holder = excluded.last_holder, passed = excluded.passed, transfer_id = null,
            to_holder = null, updated_at = excluded.updated_at",
        line.conversation_sid.as_str(),
        line.line.as_str(),
        line.account_sid.as_str(),
        line.team_id,
        why,
        line.last_holder,
        Json(passed) as _,
        since.to_sqlx() as _,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn taken(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    line: &PhoneNumber,
    (transfer_id, by): (Uuid, &Identity),
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- assignment.taken
        update line_assignment set state = 'given', reason = 'taken', transfer_id = $3, to_holder = $4, updated_at = $5
        where conversation_sid = $1 and line = $2",
        sid.as_str(),
        line.as_str(),
        transfer_id,
        by.as_str(),
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The rows of one conversation, which the caller has locked.
pub(super) async fn rows_of(conn: &mut PgConnection, sid: &ConversationSid) -> Result<Vec<Row>, sqlx::Error> {
    sqlx::query_as!(
        Row,
        r#"-- assignment.rows_of
        select line as "line: PhoneNumber", account_sid as "account_sid: AccountSid", team_id,
               state = 'waiting' as "is_waiting!", since as "since: jiff_sqlx::Timestamp", to_holder, transfer_id,
               updated_at as "updated_at: jiff_sqlx::Timestamp"
        from line_assignment where conversation_sid = $1 order by line"#,
        sid.as_str(),
    )
    .fetch_all(conn)
    .await
}

/// A row that is no more.
pub(super) struct Settled {
    pub(super) conversation_sid: ConversationSid,
    pub(super) line: String,
    pub(super) account_sid: AccountSid,
    pub(super) team_id: Option<String>,
    pub(super) was_waiting: bool,
    pub(super) since: Timestamp,
    /// None: the line is no more.
    pub(super) holder: Option<String>,
}

/// Deletes the rows of these conversations of lines that somebody holds, or that are no more.
pub(super) async fn forget_settled(
    conn: &mut PgConnection,
    sids: &[&str],
) -> Result<Vec<Settled>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- assignment.forget_settled
        delete from line_assignment as gone
        where conversation_sid = any($1)
          and not exists (select from tenure
              where tenure.conversation_sid = gone.conversation_sid and tenure.line = gone.line
                and superseded_at is null and upper_inf(during) and holder is null and cause <> 'removed')
        returning conversation_sid as "sid: ConversationSid", line, account_sid as "account_sid: AccountSid", team_id,
            state = 'waiting' as "was_waiting!", since,
            (select holder from tenure
             where tenure.conversation_sid = gone.conversation_sid and tenure.line = gone.line
               and superseded_at is null and upper_inf(during) and cause <> 'removed') as holder"#,
        sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Settled {
            conversation_sid: row.sid,
            line: row.line,
            account_sid: row.account_sid,
            team_id: row.team_id,
            was_waiting: row.was_waiting,
            since: row.since.to_jiff(),
            holder: row.holder,
        })
        .collect())
}

/// Conversations with rows of lines that somebody holds, or that are no more.
pub(super) async fn settled(conn: &mut PgConnection) -> Result<Vec<ConversationSid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- assignment.settled
        select distinct conversation_sid as "sid: ConversationSid" from line_assignment as kept
        where not exists (select from tenure
              where tenure.conversation_sid = kept.conversation_sid and tenure.line = kept.line
                and superseded_at is null and upper_inf(during) and holder is null and cause <> 'removed')"#,
    )
    .fetch_all(conn)
    .await
}

/// Conversations with lines that were given and that nobody holds, though no transfer of them is open.
pub(super) async fn given_in_vain(conn: &mut PgConnection) -> Result<Vec<ConversationSid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- assignment.given_in_vain
        select distinct conversation_sid as "sid: ConversationSid" from line_assignment as given
        where state = 'given'
          and not exists (select from transfer
              where transfer.conversation_sid = given.conversation_sid and transfer.line = given.line
                and finished_at is null)"#,
    )
    .fetch_all(conn)
    .await
}

/// Lets lines of a conversation wait that were given in vain, with how that ended among who was passed over. One of which a
/// person has to look is left to people.
pub(super) async fn let_wait(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    now: Timestamp,
) -> Result<Vec<(Row, Value)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- assignment.let_wait
        with vain as (
            select given.line, given.transfer_id,
                   jsonb_build_array(jsonb_build_object('identity', given.to_holder,
                       'why', coalesce(transfer.outcome_code, transfer.state, 'gone'))) as ended,
                   case when transfer.state = 'needs_attention' then $3 else given.attempts + 1 end as attempts
            from line_assignment as given
            left join transfer on transfer.conversation_sid = given.conversation_sid
                and transfer.transfer_id = given.transfer_id
            where given.conversation_sid = $1 and given.state = 'given'
              and not exists (select from transfer as open
                  where open.conversation_sid = given.conversation_sid and open.line = given.line
                    and open.finished_at is null)
        )
        update line_assignment as waits
        set state = 'waiting', reason = $4, passed = vain.ended, transfer_id = null, to_holder = null,
            attempts = vain.attempts, updated_at = $2
        from vain
        where waits.conversation_sid = $1 and waits.line = vain.line
        returning waits.line as "line: PhoneNumber", account_sid as "account_sid: AccountSid", team_id, since,
            vain.transfer_id, passed"#,
        sid.as_str(),
        now.to_sqlx() as _,
        ATTEMPTS_MAX,
        IN_VAIN,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let line = Row {
                line: row.line,
                account_sid: row.account_sid,
                team_id: row.team_id,
                is_waiting: true,
                since: row.since,
                to_holder: None,
                transfer_id: row.transfer_id,
                updated_at: now.to_sqlx(),
            };
            (line, row.passed)
        })
        .collect())
}

pub(super) async fn is_any(conn: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- assignment.is_any
        select exists (select from line_assignment) as "is_any!""#,
    )
    .fetch_one(conn)
    .await
}

/// A line that waits, as it is listed.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub team_id: Option<String>,
    /// `queue`, `nobody_in_team`, `nobody_free` or `given_in_vain`.
    pub reason: String,
    pub since: Timestamp,
    pub last_holder: Option<String>,
    pub passed: Vec<Passed>,
    pub last_message_at: Option<Timestamp>,
}

/// Lines that wait, the oldest first, those after `after` (a time, a conversation and a line, for paging).
pub async fn page(
    conn: &mut PgConnection,
    team: Option<&str>,
    after: Option<(Timestamp, &str, &str)>,
    limit: i64,
) -> Result<Vec<Waiting>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- assignment.page
        select waits.conversation_sid as "sid: ConversationSid", line as "line: PhoneNumber", team_id, reason, since,
               last_holder, passed as "passed: Json<Vec<Passed>>", last_message_at
        from line_assignment as waits
        join conversation on conversation.conversation_sid = waits.conversation_sid
        where waits.state = 'waiting' and ($1::text is null or team_id = $1)
          and ($2::timestamptz is null or (since, waits.conversation_sid, line) > ($2, $3::text, $4::text))
          and not exists (select from transfer
              where transfer.conversation_sid = waits.conversation_sid and transfer.line = waits.line
                and finished_at is null)
        order by since, waits.conversation_sid, line
        limit $5"#,
        team,
        after.map(|(at, _, _)| at.to_sqlx()) as _,
        after.map(|(_, sid, _)| sid),
        after.map(|(_, _, line)| line),
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Waiting {
            conversation_sid: row.sid,
            line: row.line,
            team_id: row.team_id,
            reason: row.reason,
            since: row.since.to_jiff(),
            last_holder: row.last_holder,
            passed: row.passed.0,
            last_message_at: row.last_message_at.map(jiff_sqlx::Timestamp::to_jiff),
        })
        .collect())
}

/// How many lines wait, and since when the oldest does.
pub async fn count_waiting(conn: &mut PgConnection) -> Result<(i64, Option<Timestamp>), sqlx::Error> {
    let row = sqlx::query!(
        r#"-- assignment.count_waiting
        select count(*) as "lines!", min(since) as since from line_assignment where state = 'waiting'"#,
    )
    .fetch_one(conn)
    .await?;
    Ok((row.lines, row.since.map(jiff_sqlx::Timestamp::to_jiff)))
}
