//! Where a person is named. A new place is a line here, with a function of the module that owns the table.
//!
//! | what | how |
//! |---|---|
//! | mirror, ledger, transfers, sends | by conversation ([`in_conversation`]) |
//! | forms of webhooks, the log | in pages ([`in_webhooks`], [`in_log`]) |
//! | all else | at once ([`in_rest`]) |

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::Preview;
use crate::api::idempotency;
use crate::events::{self, Position};
use crate::ids::ConversationSid;
use crate::inbox::erase::{self as inbox, ErasedPage};
use crate::mirror::erase::{self as mirror, person as of_mirror};
use crate::person::Person;
use crate::projection::answers;
use crate::{escalation, group_text, health, ledger, outbox, retention, transfer};

/// How much of what was erased.
pub(super) type Counts = Vec<(&'static str, i64)>;

/// Rows of one page.
const PAGE: i64 = 2_000;

/// Gives the statements of this transaction the time to read tables whole.
pub(super) async fn take_time(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- erasure.take_time
        select set_config('statement_timeout', '90000', true)"
    )
    .fetch_one(conn)
    .await?;
    Ok(())
}

/// The conversations in which the person is named.
pub(super) async fn conversations(
    conn: &mut PgConnection,
    person: &Person,
) -> Result<BTreeSet<String>, sqlx::Error> {
    let mut sids = BTreeSet::new();
    sids.extend(of_mirror::conversations_of(conn, person).await?);
    sids.extend(ledger::erase::conversations_of(conn, person).await?);
    sids.extend(transfer::erase::conversations_of(conn, person).await?);
    sids.extend(outbox::erase::conversations_of(conn, person).await?);
    sids.extend(escalation::erase::conversations_of(conn, person).await?);
    Ok(sids)
}

/// Erases the person from one conversation, which is locked for it.
pub(super) async fn in_conversation(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
    now: Timestamp,
) -> Result<Counts, sqlx::Error> {
    mirror::lock_one(conn, sid).await?;
    let mut counts = of_mirror::erase_from_conversation(conn, sid, person, now).await?;
    counts.push(("ledger", ledger::erase::erase(conn, sid, person).await?));
    counts.push(("transfers", transfer::erase::erase(conn, sid, person).await?));
    counts.push(("escalations", escalation::erase::erase(conn, sid, person).await?));
    let sends = outbox::erase::erase_person(conn, sid, person, now).await?;
    counts.push(("sends", i64::try_from(sends.len()).unwrap_or(i64::MAX)));
    if !sends.is_empty() {
        let answers = idempotency::erase_person(conn, person, &sends).await?;
        counts.push(("api_answers", answers));
    }
    Ok(counts)
}

/// Erases the person from a page of the webhooks' forms.
pub(super) async fn in_webhooks(
    conn: &mut PgConnection,
    after: i64,
    person: &Person,
    held: &[String],
    now: Timestamp,
) -> Result<ErasedPage, sqlx::Error> {
    inbox::erase_person(conn, after, person, held, PAGE, now).await
}

/// Erases the person from a page of the log.
pub(super) async fn in_log(
    conn: &mut PgConnection,
    after: Position,
    person: &Person,
    held: &[String],
) -> Result<(Option<Position>, i64), sqlx::Error> {
    events::erase_person(conn, after, person, held, PAGE).await
}

/// Erases the person from what belongs to no conversation, or is looked through at once.
pub(super) async fn in_rest(
    conn: &mut PgConnection,
    person: &Person,
    held: &[String],
    now: Timestamp,
) -> Result<Counts, sqlx::Error> {
    Ok(vec![
        ("group_texts", group_text::erase::erase(conn, person, held).await?),
        ("line_findings", health::erase::erase(conn, person, held).await?),
        ("users", of_mirror::erase_user(conn, person, now).await?),
        ("answers", answers::erase_person(conn, person, held, now).await?),
        (
            "quarantine",
            inbox::erase_person_from_quarantine(conn, person).await?,
        ),
        ("api_answers", idempotency::erase_person(conn, person, &[]).await?),
    ])
}

/// Does all of it in transactions that are given up, and counts.
pub(super) async fn preview(
    conn: &mut PgConnection,
    person: &Person,
    now: Timestamp,
) -> Result<Preview, sqlx::Error> {
    let mut preview = Preview::default();
    let mut found = conn.begin().await?;
    take_time(&mut found).await?;
    let sids = conversations(&mut found, person).await?;
    let held = retention::held_of(&mut found, sids.iter().map(String::as_str)).await?;
    found.rollback().await?;
    for sid in sids {
        if held.contains(&sid) {
            preview.held.push(sid);
            continue;
        }
        if let Ok(parsed) = ConversationSid::try_from(sid.as_str()) {
            let mut tried = conn.begin().await?;
            take_time(&mut tried).await?;
            let counts = in_conversation(&mut tried, &parsed, person, now).await?;
            tried.rollback().await?;
            preview.add(counts);
        }
        preview.conversations.push(sid);
    }
    let (mut webhook, mut position) = (0, Position::default());
    loop {
        let mut tried = conn.begin().await?;
        take_time(&mut tried).await?;
        let page = in_webhooks(&mut tried, webhook, person, &preview.held, now).await?;
        tried.rollback().await?;
        preview.add(vec![("webhooks", page.erased)]);
        match page.last {
            Some(last) => webhook = last,
            None => break,
        }
    }
    loop {
        let mut tried = conn.begin().await?;
        take_time(&mut tried).await?;
        let (end, erased) = in_log(&mut tried, position, person, &preview.held).await?;
        tried.rollback().await?;
        preview.add(vec![("log_entries", erased)]);
        match end {
            Some(end) => position = end,
            None => break,
        }
    }
    let mut tried = conn.begin().await?;
    take_time(&mut tried).await?;
    let counts = in_rest(&mut tried, person, &preview.held, now).await?;
    tried.rollback().await?;
    preview.add(counts);
    Ok(preview)
}

impl Preview {
    fn add(&mut self, counts: Counts) {
        for (what, amount) in counts.into_iter().filter(|(_, amount)| *amount > 0) {
            *self.counts.entry(what.to_owned()).or_default() += amount;
        }
    }
}
