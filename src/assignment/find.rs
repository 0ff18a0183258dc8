//! Finds lines that somebody is to have, and who had them before.

use std::collections::HashMap;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::store::ATTEMPTS_MAX;
use super::{Line, Passed, Stored};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber};
use crate::numbers::Rule;

/// So many lines are looked at, the oldest first.
const LOOKED_AT: i64 = 2_000;

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
