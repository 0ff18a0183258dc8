//! Finds lines that somebody is to have, and who had them before.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use sqlx::types::Json;

use super::choose::Why;
use super::store::ATTEMPTS_MAX;
use super::{Line, Passed, Stored};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber};
use crate::numbers::Rule;

/// So many lines are looked at together.
pub(super) const TOGETHER: usize = 500;
/// Webhooks of the members of a group that starts may come one after the other, in any order, for so long.
const MEMBERS_COME_WITHIN: SignedDuration = SignedDuration::from_secs(15);

/// A line with what is asked about earlier groups of the same people.
struct Found {
    line: Line,
    /// The numbers of all members, joined.
    members: String,
    /// The number of one of the handsets.
    handset: Option<String>,
    /// Members may be on their way to us.
    members_may_come: bool,
}

/// How a group's members became known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Members {
    /// One by one, by webhooks in any order.
    OneByOne,
    /// By a list of all of them.
    All,
}

/// Lines of these conversations that nobody holds, that have a rule, and that a customer has written in since, or started:
/// those of which nothing is stored, or that wait for their members. Their conversations are open.
pub(super) async fn asked_for(
    conn: &mut PgConnection,
    sids: &[&str],
    members: Members,
    since: Timestamp,
    now: Timestamp,
) -> Result<Vec<Line>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- assignment.asked_for
        select tenure.conversation_sid as "sid: ConversationSid", tenure.line as "line: PhoneNumber",
               number.account_sid as "account_sid: AccountSid", number.team_id, number.rule as "rule!",
               number.person as "person: Identity", seats.members, seats.handset,
               seats.elsewhere || array(select to_holder from transfer
                   where transfer.conversation_sid = tenure.conversation_sid and transfer.line <> tenure.line
                     and finished_at is null and to_holder is not null) as "elsewhere!",
               conversation.autocreated and tenure.cause = 'created' as "starts!",
               exists (select from transfer
                   where transfer.conversation_sid = wanted.sid and transfer.line = tenure.line
                     and finished_at is null) as "has_transfer!",
               waits.reason as "reason?", waits.team_id as waits_for_team, waits.passed as "passed?: Json<Vec<Passed>>",
               waits.since as "since?"
        from unnest($1::text[]) as wanted (sid)
        join tenure on tenure.conversation_sid = wanted.sid and superseded_at is null and upper_inf(during)
            and holder is null and cause <> 'removed'
        join number on number.number = tenure.line and number.rule is not null
        join conversation on conversation.conversation_sid = wanted.sid and conversation.account_sid = number.account_sid
            and conversation.removed_at is null and conversation.state in ('active', 'inactive')
        left join line_assignment as waits on waits.conversation_sid = wanted.sid and waits.line = tenure.line
        cross join lateral (
            select count(distinct coalesce(projected_address, address)) as number_of_members,
                   string_agg(distinct coalesce(projected_address, address), ',') as members,
                   min(address) filter (where projected_address is null) as handset,
                   coalesce(array_agg(identity) filter (
                       where identity is not null and projected_address is distinct from tenure.line), '{}') as elsewhere
            from participant
            where participant.conversation_sid = wanted.sid and participant.removed_at is null) as seats
        where (waits.line is null or (waits.state = 'waiting' and waits.reason = $3))
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
        Why::MembersComing.as_str(),
    )
    .fetch_all(&mut *conn)
    .await?;
    let found = rows
        .into_iter()
        .filter_map(|row| {
            let stored = row.reason.zip(row.passed).zip(row.since);
            let stored = stored.map(|((reason, passed), since)| Stored {
                reason,
                team_id: row.waits_for_team,
                passed: passed.0,
                since: since.to_jiff(),
            });
            if row.has_transfer && stored.is_some() {
                return None;
            }
            Some(Found {
                members_may_come: members == Members::OneByOne
                    && row.starts
                    && stored.as_ref().is_none_or(|stored| may_come(stored, now)),
                line: Line {
                    conversation_sid: row.sid,
                    line: row.line,
                    account_sid: row.account_sid,
                    team_id: row.team_id,
                    rule: Rule::from_column(&row.rule)?,
                    person: row.person,
                    elsewhere: row.elsewhere,
                    last_holder: None,
                    not_yet: row.has_transfer.then_some(Why::TransferOpen),
                    stored,
                },
                members: row.members.unwrap_or_default(),
                handset: row.handset,
            })
        })
        .collect();
    with_last_holders(conn, found).await
}

fn may_come(stored: &Stored, now: Timestamp) -> bool {
    now < stored.since + MEMBERS_COME_WITHIN
}

/// Which lines that wait are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) enum Which<'a> {
    Of(&'a ConversationSid),
    /// Of all conversations, those after this one in the order of [`waiting`].
    After(Option<&'a Line>),
}

/// Lines that wait and that may be given, the oldest first, up to [`TOGETHER`].
pub(super) async fn waiting(
    conn: &mut PgConnection,
    which: Which<'_>,
    now: Timestamp,
) -> Result<Vec<Line>, sqlx::Error> {
    let (of, after) = match which {
        Which::Of(sid) => (Some(sid.as_str()), None),
        Which::After(line) => (None, line),
    };
    let after_since = after.and_then(|line| Some(line.stored.as_ref()?.since));
    let rows = sqlx::query!(
        r#"-- assignment.waiting
        select waits.conversation_sid as "sid: ConversationSid", waits.line as "line: PhoneNumber",
               number.account_sid as "account_sid: AccountSid", number.team_id, number.rule as "rule!",
               number.person as "person: Identity", seats.members, seats.handset,
               seats.elsewhere || array(select to_holder from transfer
                   where transfer.conversation_sid = waits.conversation_sid and transfer.line <> waits.line
                     and finished_at is null and to_holder is not null) as "elsewhere!",
               waits.reason, waits.team_id as waits_for_team, waits.passed as "passed: Json<Vec<Passed>>", waits.since
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
          and ($4::timestamptz is null
               or (waits.since, waits.conversation_sid, waits.line) > ($4, $5::text, $6::text))
          and conversation.removed_at is null and conversation.state in ('active', 'inactive')
          and not exists (select from transfer
                where transfer.conversation_sid = waits.conversation_sid and transfer.line = waits.line
                  and finished_at is null)
        order by waits.since, waits.conversation_sid, waits.line
        limit $3"#,
        of,
        ATTEMPTS_MAX,
        i64::try_from(TOGETHER).unwrap_or(i64::MAX),
        after_since.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        after.map(|line| line.conversation_sid.as_str()),
        after.map(|line| line.line.as_str()),
    )
    .fetch_all(&mut *conn)
    .await?;
    let found = rows
        .into_iter()
        .filter_map(|row| {
            let stored = Stored {
                reason: row.reason,
                team_id: row.waits_for_team,
                passed: row.passed.0,
                since: row.since.to_jiff(),
            };
            Some(Found {
                members_may_come: stored.reason == Why::MembersComing.as_str() && may_come(&stored, now),
                line: Line {
                    conversation_sid: row.sid,
                    line: row.line,
                    account_sid: row.account_sid,
                    team_id: row.team_id,
                    rule: Rule::from_column(&row.rule)?,
                    person: row.person,
                    elsewhere: row.elsewhere,
                    last_holder: None,
                    not_yet: None,
                    stored: Some(stored),
                },
                members: row.members.unwrap_or_default(),
                handset: row.handset,
            })
        })
        .collect();
    with_last_holders(conn, found).await
}

/// Adds who held each line's number with the same people last: in the same conversation, or in an earlier one of the same
/// members. Whoever was in an earlier one until it ended, was a member. Where members may come, and an earlier group had all
/// that are there and more, it is not decided yet.
///
/// It goes from the groups of one handset to who held the number in each, since a number has many more.
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
        select asked.place as "place!", past.holder, coalesce(past.had_more, false) as "had_more!"
        from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) with ordinality
            as asked (sid, line, members, handset, account_sid, place)
        cross join lateral (
            select (array_agg(held.holder order by upper(held.during) desc nulls first, lower(held.during) desc)
                       filter (where earlier.sid = asked.sid
                           or members.numbers @> asked_members.numbers and members.numbers <@ asked_members.numbers))[1] as holder,
                   bool_or(earlier.sid <> asked.sid
                       and members.numbers @> asked_members.numbers
                       and not members.numbers <@ asked_members.numbers) as had_more
            from (select string_to_array(asked.members, ',') as numbers) as asked_members
            cross join (
                select asked.sid as sid
                union
                select participant.conversation_sid from participant where participant.address = asked.handset) as earlier
            join conversation on conversation.conversation_sid = earlier.sid
                and conversation.account_sid = asked.account_sid
            cross join lateral (
                select holder, during from tenure
                where tenure.conversation_sid = earlier.sid and tenure.line = asked.line
                  and superseded_at is null and holder is not null
                order by upper(during) desc nulls first, lower(during) desc
                limit 1) as held
            cross join lateral (
                select array_agg(distinct coalesce(projected_address, address))
                    filter (where coalesce(projected_address, address) is not null) as numbers
                from participant
                where participant.conversation_sid = earlier.sid
                  and (participant.removed_at is null or participant.removed_at
                       >= coalesce(conversation.closed_at, conversation.removed_at) - interval '1 minute')) as members
        ) as past"#,
        &sids as _,
        &lines as _,
        &members as _,
        &handsets as _,
        &accounts as _,
    )
    .fetch_all(conn)
    .await?;
    let mut past: HashMap<i64, (Option<String>, bool)> = rows
        .into_iter()
        .map(|row| (row.place, (row.holder, row.had_more)))
        .collect();
    Ok((1_i64..)
        .zip(found)
        .map(|(place, one)| {
            let (last_holder, had_more) = past.remove(&place).unwrap_or_default();
            let waits_for_members = (had_more && one.members_may_come).then_some(Why::MembersComing);
            Line {
                last_holder,
                not_yet: one.line.not_yet.or(waits_for_members),
                ..one.line
            }
        })
        .collect())
}
