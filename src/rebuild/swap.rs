//! The new rows written over the old ones where they differ.
//!
//! Whoever projects webhooks takes lanes, and whoever commits an answer locks a conversation's row: with both held,
//! nothing enters meanwhile. What has entered since the comparison is replayed first, so that it cannot differ; only what
//! differed before is looked at again. Webhooks are received all the while, and readers are not kept waiting. Nothing is
//! erased meanwhile either.

use std::time::{Duration, Instant};

use serde_json::json;
use sqlx::Row as _;
use sqlx::error::DatabaseError;

use super::compare::{self, Part, listed};
use super::replay::Replay;
use super::report::{Swapped, Written};
use super::shadow::{Session, dynamic};
use super::tables::{Role, Sort, TABLES, Table};
use super::{Error, Rebuild};
use crate::events::{self, Kind, NewEvent, Via};
use crate::retention;

/// Conversations that are written together.
const PAGE: usize = 200;

pub(super) async fn swap(
    rebuild: &Rebuild,
    session: &mut Session,
    replay: &mut Replay,
) -> Result<Swapped, Error> {
    // Most of what has entered since, while nobody is kept waiting.
    replay.catch_up(session, &mut |_| ()).await?;
    let began = Instant::now();
    let limit = Limit {
        began,
        locked_max: rebuild.locked_max,
    };
    let written = tokio::time::timeout(rebuild.locked_max, locked(rebuild, session, replay, limit)).await;
    let mut swapped = match written {
        Ok(Err(Error::Database(error))) if is_timeout(&error) => {
            return Err(Error::TooLong(rebuild.locked_max));
        }
        Ok(done) => done?,
        // The session is given up with its connection, and the server looks for that while a statement runs.
        Err(_) => return Err(Error::TooLong(rebuild.locked_max)),
    };
    // Nothing cuts this short: after it was asked for, only an answer tells whether it was done.
    session.commit().await.map_err(|error| match error {
        sqlx::Error::Database(_) => Error::Database(error),
        other => Error::OutcomeUnknown(other),
    })?;
    swapped.locked_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(swapped)
}

/// How long the locks may be held, and since when somebody may be kept waiting.
#[derive(Debug, Clone, Copy)]
struct Limit {
    began: Instant,
    locked_max: Duration,
}

impl Limit {
    /// No statement from here on goes on for longer than what is left.
    async fn apply(self, session: &mut Session) -> Result<(), sqlx::Error> {
        let left = self
            .locked_max
            .saturating_sub(self.began.elapsed())
            .as_millis()
            .max(1);
        session
            .run(format!(
                "set local statement_timeout = {left}; set local lock_timeout = {left}"
            ))
            .await
    }
}

/// A lock or a statement that took too long.
fn is_timeout(error: &sqlx::Error) -> bool {
    error
        .as_database_error()
        .and_then(DatabaseError::code)
        .is_some_and(|code| code == "55P03" || code == "57014")
}

/// All of it but the commit.
async fn locked(
    rebuild: &Rebuild,
    session: &mut Session,
    replay: &mut Replay,
    limit: Limit,
) -> Result<Swapped, Error> {
    session.begin().await?;
    lock(session, limit).await?;
    limit.apply(session).await?;
    replay.catch_up_within(session, &mut |_| ()).await?;
    limit.apply(session).await?;
    session.note_erased(true).await?;
    let parts = parts(session).await?;
    let mut swapped = Swapped {
        conversations: compare::count(session, "pg_temp.damaged").await?,
        ..Swapped::default()
    };
    for table in TABLES {
        for part in &parts {
            limit.apply(session).await?;
            let written = write(session, table, part).await?;
            if written != Written::default() {
                let total = swapped.tables.entry(table.name).or_default();
                total.added += written.added;
                total.changed += written.changed;
                total.removed += written.removed;
            }
        }
    }
    limit.apply(session).await?;
    tell(rebuild, session, replay, &swapped).await?;
    let left = compare::damaged(session, &parts).await?;
    if left > 0 {
        session.rollback().await?;
        return Err(Error::NotRepaired(left));
    }
    Ok(swapped)
}

async fn lock(session: &mut Session, limit: Limit) -> Result<(), sqlx::Error> {
    session
        .run("set local synchronous_commit = on".to_owned())
        .await?;
    limit.apply(session).await?;
    // In this order: who erases holds this one first of all, a projector its lanes before it locks conversations. Users are
    // of no conversation: only the first keeps their erasing apart from a swap.
    retention::lock(&mut session.conn).await?;
    limit.apply(session).await?;
    session
        .run("select lane from public.projection_lane order by lane for update".to_owned())
        .await?;
    limit.apply(session).await?;
    session
        .run("lock table public.conversation in exclusive mode".to_owned())
        .await
}

/// What was found damaged, in pieces.
async fn parts(session: &mut Session) -> Result<Vec<Part>, sqlx::Error> {
    let rows = dynamic("select scope from pg_temp.damaged order by scope".to_owned())
        .fetch_all(&mut session.conn)
        .await?;
    let scopes: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let (accounts, conversations): (Vec<String>, Vec<String>) =
        scopes.into_iter().partition(|scope| scope.starts_with("AC"));
    let mut parts: Vec<Part> = conversations
        .chunks(PAGE)
        .map(|page| Part::Conversations(page.to_vec()))
        .collect();
    if !accounts.is_empty() {
        parts.push(Part::Accounts(accounts));
    }
    Ok(parts)
}

async fn write(session: &mut Session, table: &Table, part: &Part) -> Result<Written, sqlx::Error> {
    let (Some(old), Some(new)) = (part.condition(table, "old"), part.condition(table, "new")) else {
        return Ok(Written::default());
    };
    let statements = match table.sort {
        Sort::Resource => resource(table, &old, &new),
        Sort::Derived => derived(table, &old, &new),
        Sort::Log => log(table, &new),
    };
    let mut written = Written::default();
    for (count, sql) in statements {
        let done = part.bind(dynamic(sql)).execute(&mut session.conn).await?;
        let count = match count {
            Count::Added => &mut written.added,
            Count::Changed => &mut written.changed,
            Count::Removed => &mut written.removed,
        };
        *count += done.rows_affected();
    }
    Ok(written)
}

#[derive(Debug, Clone, Copy)]
enum Count {
    Added,
    Changed,
    Removed,
}

/// The condition that every source of a row is there.
fn is_sourced(table: &Table, row: &str) -> String {
    let scope = table.scope.of(row);
    format!("not exists (select from pg_temp.unsourced where unsourced.scope = {scope})")
}

/// Equal in the columns that are never null.
fn same_key(table: &Table) -> String {
    let columns: Vec<String> = table
        .shown_key()
        .map(|column| format!("old.\"{column}\" = new.\"{column}\""))
        .collect();
    columns.join(" and ")
}

/// In its place: columns of ours stay as they are, and a new revision tells readers that the row has changed.
fn resource(table: &Table, old: &str, new: &str) -> Vec<(Count, String)> {
    let (name, key, sourced) = (table.name, same_key(table), is_sourced(table, "old"));
    let (olds, news) = (listed(table.content(), "old"), listed(table.content(), "new"));
    let mut set: Vec<String> = table
        .content()
        .map(|column| format!("\"{column}\" = new.\"{column}\""))
        .collect();
    if table.has("revision") {
        set.push("revision = greatest(old.revision, new.revision) + 1".to_owned());
    }
    let set = set.join(", ");
    let all = listed(table.all(), "");
    vec![
        (
            Count::Removed,
            format!(
                "delete from public.{name} as old where {old} and {sourced}
                 and not exists (select from pg_temp.{name} as new where {key})"
            ),
        ),
        (
            Count::Changed,
            format!(
                "update public.{name} as old set {set} from pg_temp.{name} as new
                 where {old} and {key} and {sourced} and row({olds}) is distinct from row({news})"
            ),
        ),
        (
            Count::Added,
            format!(
                "insert into public.{name} ({all}) select {all} from pg_temp.{name} as new
                 where {new} and not exists (select from public.{name} as old where {key})"
            ),
        ),
    ]
}

fn derived(table: &Table, old: &str, new: &str) -> Vec<(Count, String)> {
    let (name, key) = (table.name, same_key(table));
    let rest = |row: &str| {
        let columns = table
            .columns
            .iter()
            .filter(|(_, role)| matches!(role, Role::HiddenKey | Role::Content | Role::Subject));
        listed(columns.map(|(column, _)| *column), row)
    };
    let same = format!(
        "{key} and row({}) is not distinct from row({})",
        rest("old"),
        rest("new")
    );
    let all = listed(table.all(), "");
    vec![
        (
            Count::Removed,
            format!(
                "delete from public.{name} as old where {old} and {}
                 and not exists (select from pg_temp.{name} as new where {same})",
                is_sourced(table, "old")
            ),
        ),
        (
            Count::Added,
            format!(
                "insert into public.{name} ({all}) select {all} from pg_temp.{name} as new where {new} and {}
                 and not exists (select from public.{name} as old where {same})",
                is_sourced(table, "new")
            ),
        ),
    ]
}

/// What is missing is added, with the times that it should have had. An entry that is there and says otherwise stays.
fn log(table: &Table, new: &str) -> Vec<(Count, String)> {
    let columns = listed(table.compared(), "");
    let key: Vec<String> = table
        .shown_key()
        .filter(|column| *column != "conversation_sid")
        .map(|column| format!("old.\"{column}\" = new.\"{column}\""))
        .collect();
    // An index and a hash find equal ones only where they are not null.
    let place = if new.contains("is null") {
        "old.conversation_sid is null and old.account_sid = new.account_sid"
    } else {
        "old.conversation_sid = new.conversation_sid"
    };
    vec![(
        Count::Added,
        format!(
            "insert into public.event ({columns}) select {columns} from pg_temp.event as new
             where {new} and {} and not exists (select from public.event as old
                where {place} and {} and (old.subject = new.subject or old.erased is not null))
             order by commit_xid, event_id",
            is_sourced(table, "new"),
            key.join(" and ")
        ),
    )]
}

/// One entry of the log says what was done; it also marks what of the log was left as it is.
async fn tell(
    rebuild: &Rebuild,
    session: &mut Session,
    replay: &Replay,
    swapped: &Swapped,
) -> Result<(), Error> {
    let now = rebuild.clock.now();
    let entry = NewEvent {
        kind: Kind::MirrorRebuilt,
        account_sid: None,
        conversation_sid: None,
        subject: "mirror".to_owned(),
        actor: None,
        via: Via::Cli,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({
            "replayed": replay.replayed,
            "conversations": swapped.conversations,
            "tables": swapped.tables,
        }),
    };
    session.see_live_tables().await?;
    events::append(&mut session.conn, &[entry]).await?;
    Ok(())
}
