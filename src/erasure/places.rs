//! Where a person is named. A new place is a line here, with a function of the module that owns the table.
//!
//! | what | how |
//! |---|---|
//! | mirror, ledger, transfers with their lists, sends and what the API answered of them | by conversation ([`in_conversation`]) |
//! | users | at once, before the webhooks are gone through, so that what comes meanwhile is masked ([`users`]), and with the rest again |
//! | forms of webhooks, the log, recorded answers | in pages ([`in_webhooks`], [`in_log`], [`in_answers`]) |
//! | people, group texts, findings, the quarantine, answers of the API | at once ([`in_rest`]) |
//!
//! `tests/it/erased_columns.rs` walks the columns of every table: each is erased by a function that is called here, or
//! names nobody.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection};

use super::Preview;
use crate::api::idempotency;
use crate::events::{self, ErasedEntries, Position};
use crate::ids::ConversationSid;
use crate::inbox::erase::{self as inbox, ErasedPage};
use crate::mirror::erase::{self as mirror, person as of_mirror};
use crate::person::Person;
use crate::projection::answers::{self, ErasedAnswers};
use crate::{
    assignment, escalation, group_text, handover, health, ledger, numbers, opt_out, outbox, people,
    retention, transfer,
};

/// How much of what was erased.
pub(super) type Counts = Vec<(&'static str, i64)>;

/// Rows of one page.
const PAGE: i64 = 2_000;
/// Recorded answers of one page: each may say much.
const PAGE_OF_ANSWERS: i64 = 500;

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
    sids.extend(group_text::erase::conversations_of(conn, person).await?);
    sids.extend(health::erase::conversations_of(conn, person).await?);
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
    counts.push((
        "escalations",
        escalation::erase::erase(conn, sid, person, now).await?,
    ));
    let sends = outbox::erase::erase_person(conn, sid, person, now).await?;
    counts.push(("sends", i64::try_from(sends.len()).unwrap_or(i64::MAX)));
    let media = outbox::media::erase_person(conn, sid, person, &sends, now).await?;
    counts.push(("media", media));
    if !sends.is_empty() {
        let answers = idempotency::erase_person(conn, person, &sends).await?;
        counts.push(("api_answers", answers));
    }
    Ok(counts)
}

/// Erases the person from among the users.
pub(super) async fn users(
    conn: &mut PgConnection,
    person: &Person,
    now: Timestamp,
) -> Result<Counts, sqlx::Error> {
    Ok(vec![("users", of_mirror::erase_user(conn, person, now).await?)])
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
) -> Result<ErasedEntries, sqlx::Error> {
    events::erase_person(conn, after, person, held, PAGE).await
}

/// Erases the person from a page of the recorded answers.
pub(super) async fn in_answers(
    conn: &mut PgConnection,
    after: i64,
    person: &Person,
    held: &[String],
    now: Timestamp,
) -> Result<ErasedAnswers, sqlx::Error> {
    answers::erase_person(conn, after, person, held, PAGE_OF_ANSWERS, now).await
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
        (
            "escalation_policies",
            escalation::erase::erase_from_policies(conn, person).await?,
        ),
        ("handovers", handover::erase::erase(conn, person, held).await?),
        ("line_findings", health::erase::erase(conn, person, held).await?),
        ("opt_outs", opt_out::erase::erase(conn, person, held).await?),
        ("assignments", assignment::erase::erase(conn, person, held).await?),
        ("numbers", numbers::erase::erase(conn, person, now).await?),
        ("users", of_mirror::erase_user(conn, person, now).await?),
        ("people", people::erase::erase(conn, person, now).await?),
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
    let all_held = retention::all_held(&mut found).await?;
    found.rollback().await?;
    let mut held: BTreeSet<String> = sids.intersection(&all_held).cloned().collect();
    for sid in sids.difference(&held) {
        if let Ok(parsed) = ConversationSid::try_from(sid.as_str()) {
            let mut tried = conn.begin().await?;
            take_time(&mut tried).await?;
            let counts = in_conversation(&mut tried, &parsed, person, now).await?;
            tried.rollback().await?;
            preview.add(counts);
        }
        preview.conversations.push(sid.clone());
    }
    let all_held: Vec<String> = all_held.into_iter().collect();
    let mut last = Some(0);
    while let Some(after) = last {
        let mut tried = conn.begin().await?;
        take_time(&mut tried).await?;
        let page = in_webhooks(&mut tried, after, person, &all_held, now).await?;
        tried.rollback().await?;
        preview.add(vec![("webhooks", page.erased)]);
        held.extend(page.left);
        last = page.last;
    }
    let mut end = Some(Position::default());
    while let Some(after) = end {
        let mut tried = conn.begin().await?;
        take_time(&mut tried).await?;
        let page = in_log(&mut tried, after, person, &all_held).await?;
        tried.rollback().await?;
        preview.add(vec![("log_entries", page.erased)]);
        held.extend(page.left);
        end = page.end;
    }
    let mut last = Some(0);
    while let Some(after) = last {
        let mut tried = conn.begin().await?;
        take_time(&mut tried).await?;
        let page = in_answers(&mut tried, after, person, &all_held, now).await?;
        tried.rollback().await?;
        preview.add(vec![("answers", page.erased)]);
        held.extend(page.left);
        last = page.last;
    }
    let mut tried = conn.begin().await?;
    take_time(&mut tried).await?;
    let counts = in_rest(&mut tried, person, &all_held, now).await?;
    tried.rollback().await?;
    preview.add(counts);
    preview.held = held.into_iter().collect();
    Ok(preview)
}

impl Preview {
    fn add(&mut self, counts: Counts) {
        for (what, amount) in counts.into_iter().filter(|(_, amount)| *amount > 0) {
            *self.counts.entry(what.to_owned()).or_default() += amount;
        }
    }
}
