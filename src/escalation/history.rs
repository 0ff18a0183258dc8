//! What happened to lines, as mirror and ledger have it: the facts of the evaluator.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::escalation::evaluate::{Fact, What};
use crate::escalation::policy::{Policy, When};
use crate::escalation::world::World;
use crate::ids::{Identity, PhoneNumber};
use crate::ledger::Cause;
use crate::opt_out::keywords::Keyword;

/// What has more characters is no word by which somebody opts out, with some space around it.
const KEYWORD_MAX: i32 = 24;

/// From when to when, and how many messages of a conversation.
#[derive(Debug, Clone, Copy)]
pub struct Window {
    pub from: Timestamp,
    pub to: Timestamp,
    pub messages_max: i64,
    /// The newest of the window, rather than those of the newest that are within it: it lies in the past, and takes longer.
    pub is_past: bool,
}

/// What some policies have to know beside who wrote when.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wants {
    pub texts: bool,
    pub failures: bool,
}

impl Wants {
    pub fn of<'a>(policies: impl Iterator<Item = &'a Policy>) -> Self {
        policies.fold(Self::default(), |wants, policy| Self {
            texts: wants.texts || policy.has(|when| matches!(when, When::Words(_))),
            failures: wants.failures || policy.has(|when| *when == When::DeliveryFailure),
        })
    }
}

/// What happened in a conversation.
#[derive(Default)]
pub struct Conversation {
    pub account_sid: String,
    ended_at: Option<Timestamp>,
    tenures: Vec<Tenure>,
    messages: Vec<Message>,
    /// By the message.
    failures: Vec<(String, Timestamp)>,
    /// Messages are complete from then on.
    pub complete_since: Option<Timestamp>,
}

struct Tenure {
    line: String,
    holder: Option<Identity>,
    from: Timestamp,
    is_gone: bool,
}

struct Message {
    sid: String,
    at: Timestamp,
    author: Option<String>,
    text: Option<String>,
    opts_out: bool,
    /// Its author only said who has the line from now on.
    introduces: bool,
}

/// Reads these conversations, all at once.
pub async fn load(
    conn: &mut PgConnection,
    sids: &[&str],
    window: Window,
    wants: Wants,
) -> Result<HashMap<String, Conversation>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- escalation.conversations
        select conversation_sid, account_sid,
               case when state = 'closed' or removed_at is not null
                    then coalesce(closed_at, removed_at, state_at, first_seen_at) end as ended_at
        from conversation where conversation_sid = any($1)"#,
        sids as _,
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut found: HashMap<String, Conversation> = rows
        .into_iter()
        .map(|row| {
            let conversation = Conversation {
                account_sid: row.account_sid,
                ended_at: row.ended_at.map(jiff_sqlx::Timestamp::to_jiff),
                ..Conversation::default()
            };
            (row.conversation_sid, conversation)
        })
        .collect();
    load_tenures(conn, sids, &mut found).await?;
    load_messages(conn, sids, window, wants.texts, &mut found).await?;
    if wants.failures {
        load_failures(conn, sids, window, &mut found).await?;
    }
    Ok(found)
}

async fn load_tenures(
    conn: &mut PgConnection,
    sids: &[&str],
    found: &mut HashMap<String, Conversation>,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- escalation.tenures
        select conversation_sid, line, holder, lower(during) as "from_at!", cause
        from tenure where conversation_sid = any($1) and superseded_at is null
        order by lower(during)"#,
        sids as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        if let Some(conversation) = found.get_mut(&row.conversation_sid) {
            conversation.tenures.push(Tenure {
                line: row.line,
                holder: row
                    .holder
                    .and_then(|holder| Identity::try_from(holder.as_str()).ok()),
                from: row.from_at.to_jiff(),
                is_gone: row.cause == Cause::Removed.as_str(),
            });
        }
    }
    Ok(())
}

async fn load_messages(
    conn: &mut PgConnection,
    sids: &[&str],
    window: Window,
    texts: bool,
    found: &mut HashMap<String, Conversation>,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- escalation.messages
        select wanted.sid as "conversation_sid!", one.message_sid as "message_sid!", one.at as "at!", one.author,
               case when $5 or length(one.body) <= $7 then one.body end as body
        from unnest($1::text[]) as wanted (sid)
        cross join lateral (
            select message_sid, author, body, coalesce(created_at, version_at) as at, message_index
            from message where conversation_sid = wanted.sid and removed_at is null
              and (not $6 or coalesce(created_at, version_at) between $2 and $3)
            order by message_index desc, message_sid desc limit $4) as one
        where one.at >= $2 and one.at <= $3
        order by wanted.sid, one.at, one.message_index"#,
        sids as _,
        window.from.to_sqlx() as _,
        window.to.to_sqlx() as _,
        window.messages_max,
        texts,
        window.is_past,
        KEYWORD_MAX,
    )
    .fetch_all(&mut *conn)
    .await?;
    let introductions = introductions(conn, sids).await?;
    for row in rows {
        if let Some(conversation) = found.get_mut(&row.conversation_sid) {
            conversation.messages.push(Message {
                introduces: introductions.contains(&row.message_sid),
                sid: row.message_sid,
                at: row.at.to_jiff(),
                author: row.author,
                opts_out: row.body.as_deref().and_then(Keyword::of) == Some(Keyword::Stop),
                text: row.body.filter(|_| texts),
            });
        }
    }
    for conversation in found.values_mut() {
        let is_cut =
            i64::try_from(conversation.messages.len()).is_ok_and(|count| count >= window.messages_max);
        let first = conversation.messages.first().filter(|_| is_cut);
        conversation.complete_since = Some(first.map_or(window.from, |message| message.at));
    }
    Ok(())
}

/// The messages by which new holders introduced themselves.
async fn introductions(conn: &mut PgConnection, sids: &[&str]) -> Result<HashSet<String>, sqlx::Error> {
    let messages = sqlx::query_scalar!(
        r#"-- escalation.introductions
        select message.message_sid as "message_sid!"
        from transfer join outbound_message as message
          on message.conversation_sid = transfer.conversation_sid
         and message.outbound_message_id = transfer.introduction_send_id
        where transfer.conversation_sid = any($1) and transfer.introduction_send_id is not null
          and message.message_sid is not null"#,
        sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(messages.into_iter().collect())
}

async fn load_failures(
    conn: &mut PgConnection,
    sids: &[&str],
    window: Window,
    found: &mut HashMap<String, Conversation>,
) -> Result<(), sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- escalation.failures
        select conversation_sid, message_sid, min(version_at) as "at!"
        from delivery_receipt
        where conversation_sid = any($1) and status in ('failed', 'undelivered') and version_at >= $2 and version_at <= $3
        group by conversation_sid, message_sid"#,
        sids as _,
        window.from.to_sqlx() as _,
        window.to.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        if let Some(conversation) = found.get_mut(&row.conversation_sid) {
            conversation.failures.push((row.message_sid, row.at.to_jiff()));
        }
    }
    Ok(())
}

impl Conversation {
    /// Its lines, also those that it had.
    pub fn lines(&self) -> BTreeSet<&str> {
        self.tenures.iter().map(|tenure| tenure.line.as_str()).collect()
    }

    /// Who holds a line at the end of what is known; none: nobody, or it is no line.
    pub fn holder(&self, line: &str) -> Option<&Identity> {
        let last = self.tenures.iter().rfind(|tenure| tenure.line == line)?;
        last.holder.as_ref().filter(|_| !last.is_gone)
    }

    /// Whether it is a line, and goes on.
    pub fn is_live(&self, line: &str) -> bool {
        let last = self.tenures.iter().rfind(|tenure| tenure.line == line);
        self.ended_at.is_none() && last.is_some_and(|last| !last.is_gone)
    }

    /// What happened to one of its lines, in order. `asks` are what people asked for by hand.
    pub fn facts(&self, line: &str, world: &World, asks: &[(Uuid, Timestamp)]) -> Vec<Fact> {
        // Of what falls on one instant, causes come before what they bring about.
        let mut facts: Vec<(Timestamp, u8, What)> = Vec::new();
        let of_line = || self.tenures.iter().filter(|tenure| tenure.line == line);
        for tenure in of_line() {
            let what = if tenure.is_gone {
                What::Gone
            } else {
                What::Held(tenure.holder.clone())
            };
            facts.push((tenure.from, 1, what));
        }
        let holders: BTreeSet<&Identity> = of_line().filter_map(|tenure| tenure.holder.as_ref()).collect();
        let absences = world.absences_of(holders.into_iter());
        facts.extend(absences.into_iter().map(|fact| (fact.at, 0, fact.what)));
        let ours = self.ours();
        let mut written_by_us = HashSet::new();
        for message in &self.messages {
            let Some(author) = message.author.as_deref() else {
                continue;
            };
            let what = if ours.contains(author) {
                written_by_us.insert(message.sid.as_str());
                if message.introduces {
                    continue;
                }
                What::Answer
            } else if PhoneNumber::try_from(author).is_ok() {
                What::Inbound {
                    message: message.sid.clone(),
                    text: message.text.clone(),
                    opts_out: message.opts_out,
                }
            } else {
                continue;
            };
            facts.push((message.at, 2, what));
        }
        for (message, at) in &self.failures {
            if written_by_us.contains(message.as_str()) {
                let message = message.clone();
                facts.push((*at, 3, What::Failed { message }));
            }
        }
        facts.extend(asks.iter().map(|(id, at)| (*at, 4, What::Asked(*id))));
        facts.extend(self.ended_at.map(|at| (at, 5, What::Closed)));
        facts.sort_by_key(|(at, rank, _)| (*at, *rank));
        facts.into_iter().map(|(at, _, what)| Fact { at, what }).collect()
    }

    /// As whom we write here: whoever holds or held one of the lines, or the line itself.
    fn ours(&self) -> HashSet<&str> {
        let lines = self.tenures.iter().map(|tenure| tenure.line.as_str());
        let holders = self
            .tenures
            .iter()
            .filter_map(|tenure| tenure.holder.as_ref().map(Identity::as_str));
        lines.chain(holders).collect()
    }
}

/// Conversations in which something may have been amiss in a stretch of time, in the order of their SIDs, after one: something
/// was written since it began; or, of `silent` ones too, they were not over by then.
pub async fn conversations_between(
    conn: &mut PgConnection,
    from: Timestamp,
    to: Timestamp,
    silent: bool,
    after: &str,
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- escalation.conversations_between
        select conversation_sid from conversation
        where conversation_sid > $3 and least(created_at, first_seen_at) <= $2
          and coalesce(closed_at, removed_at, 'infinity') >= $1
          and ($5 or last_message_at is null or last_message_at >= $1)
        order by conversation_sid limit $4",
        from.to_sqlx() as _,
        to.to_sqlx() as _,
        after,
        limit,
        silent,
    )
    .fetch_all(conn)
    .await
}

/// When people came to the team that they are in, or left the one that they were in, if that is known.
pub(super) async fn moves(conn: &mut PgConnection) -> Result<BTreeMap<Identity, Timestamp>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- escalation.moves
        select identity as "identity: Identity", team_since as "team_since!" from agent where team_since is not null"#
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.identity, row.team_since.to_jiff()))
        .collect())
}

/// When people were away in a stretch of time, by what the log tells of it.
pub async fn absences(
    conn: &mut PgConnection,
    from: Timestamp,
    to: Timestamp,
) -> Result<BTreeMap<Identity, Vec<crate::escalation::world::Absence>>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- escalation.availability_changes
        select agent.identity as subject, said.occurred_at as "occurred_at!", said.data::jsonb ->> 'to' as "status",
               said.data::jsonb ->> 'until' as "until"
        from agent cross join lateral (
            (select occurred_at, event_id, data from event
             where type = 'agent.availability_changed' and subject = agent.identity and occurred_at < $1
             order by occurred_at desc, event_id desc limit 1)
            union all
            select occurred_at, event_id, data from event
            where type = 'agent.availability_changed' and subject = agent.identity
              and occurred_at >= $1 and occurred_at <= $2) as said
        order by said.occurred_at, said.event_id"#,
        from.to_sqlx() as _,
        to.to_sqlx() as _,
    )
    .fetch_all(conn)
    .await?;
    let mut absences: BTreeMap<Identity, Vec<crate::escalation::world::Absence>> = BTreeMap::new();
    for row in rows {
        let Ok(identity) = Identity::try_from(row.subject.as_str()) else {
            continue;
        };
        let at = row.occurred_at.to_jiff();
        let of = absences.entry(identity).or_default();
        // Whatever is said anew ends what was said before.
        if let Some(last) = of.last_mut().filter(|last| last.to.is_none_or(|ends| ends > at)) {
            last.to = Some(at);
        }
        if row.status.as_deref() == Some("away") {
            of.push(crate::escalation::world::Absence {
                from: at,
                to: row.until.and_then(|until| until.parse().ok()),
            });
        }
    }
    Ok(absences)
}
