//! The record of what entered otherwise than by a webhook: answers of calls of ours, and what sweeps read.
//!
//! Only what changed something is recorded, whole, with its place in the order of all statements. With the webhooks it is
//! all that the mirror is made of.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use sqlx::types::Json;

use crate::events::Via;
use crate::ids::ConversationSid;
use crate::mirror::Observed;
use crate::mirror::replay::Stated;
use crate::person::Person;

/// Records statements that were just committed, each conversation's apart. The caller's transaction holds the locks of
/// the conversations, so that the numbers are in the order of the effects.
pub(super) async fn record(
    conn: &mut PgConnection,
    observed: &[Observed],
    settled: &[bool],
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    for ((account_sid, conversation_sid), statements) in by_conversation(observed, settled) {
        sqlx::query!(
            "-- projection.record_answer
            insert into answer (account_sid, conversation_sid, via, learnt_at, statements) values ($1, $2, $3, $4, $5)",
            account_sid,
            conversation_sid,
            via.as_str(),
            now.to_sqlx() as _,
            Json(statements) as _,
        )
        .execute(&mut *conn)
        .await?;
    }
    Ok(())
}

/// Answers after a number that were learnt before a time: their numbers, conversations, and whether they are erased by
/// now. Ends before the first that is younger.
pub async fn due_for_erasure(
    conn: &mut PgConnection,
    after: i64,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<(i64, Option<String>, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- projection.answers_due_for_erasure
        select number, conversation_sid, erased_at is not null as "is_erased!", learnt_at < $2 as "is_due!"
        from answer where number > $1
        order by number limit $3"#,
        after,
        before.to_sqlx() as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .take_while(|row| row.is_due)
        .map(|row| (row.number, row.conversation_sid, row.is_erased))
        .collect())
}

/// Answers of a conversation after a number, up to another: their numbers, and whether they are erased by now.
pub async fn of_conversation(
    conn: &mut PgConnection,
    sid: &str,
    after: i64,
    until: i64,
    limit: i64,
) -> Result<Vec<(i64, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- projection.answers_of_conversation
        select number, erased_at is not null as "is_erased!" from answer
        where conversation_sid = $1 and number > $2 and number <= $3
        order by number limit $4"#,
        sid,
        after,
        until,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.number, row.is_erased)).collect())
}

/// Empties these answers: what came of them stays, and has no source any more.
pub async fn erase(conn: &mut PgConnection, numbers: &[i64], now: Timestamp) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- projection.erase_answers
        update answer set statements = '[]', erased_at = $2,
            erased = jsonb_build_object('statements', erasure_proof(convert_to(statements::text, 'UTF8')))
        where number = any($1) and erased_at is null",
        numbers,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// What a page of the answers came to.
#[derive(Debug)]
pub struct ErasedAnswers {
    /// The last answer of the page; none at the end.
    pub last: Option<i64>,
    pub erased: i64,
    /// The conversations, of those to be left alone, of which some name the person.
    pub left: BTreeSet<String>,
}

/// Empties the answers after a number that name a person, in a page of them. Those of the conversations of `held` are left
/// alone.
pub async fn erase_person(
    conn: &mut PgConnection,
    after: i64,
    person: &Person,
    held: &[String],
    limit: i64,
    now: Timestamp,
) -> Result<ErasedAnswers, sqlx::Error> {
    let last = sqlx::query_scalar!(
        "-- projection.page_of_answers
        select max(number) from (select number from answer where number > $1 order by number limit $2) as page",
        after,
        limit,
    )
    .fetch_one(&mut *conn)
    .await?;
    let rows = sqlx::query!(
        r#"-- projection.answers_naming_person
        select number, conversation_sid, coalesce(conversation_sid = any($3), false) as "is_held!",
               statements::text as "statements!"
        from answer
        where number > $1 and number <= $2 and erased_at is null
          and exists (select from unnest($4::bytea[]) as spelling
              where position(spelling in convert_to(statements::text, 'UTF8')) > 0)"#,
        after,
        last,
        held,
        &person.spellings() as _,
    )
    .fetch_all(&mut *conn)
    .await?;
    let (held, free): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .filter(|row| person.is_named_in(row.statements.as_bytes()))
        .partition(|row| row.is_held);
    let numbers: Vec<i64> = free.iter().map(|row| row.number).collect();
    Ok(ErasedAnswers {
        last,
        erased: erase(conn, &numbers, now).await?,
        left: held.into_iter().filter_map(|row| row.conversation_sid).collect(),
    })
}

/// Account and conversation; a user belongs to none.
type Scope<'a> = (&'a str, Option<&'a str>);

fn by_conversation<'a>(observed: &'a [Observed], settled: &[bool]) -> BTreeMap<Scope<'a>, Vec<Stated>> {
    let mut groups: BTreeMap<_, Vec<Stated>> = BTreeMap::new();
    for (one, settled) in observed.iter().zip(settled) {
        let conversation_sid = one.change.conversation_sid().map(ConversationSid::as_str);
        groups
            .entry((one.account_sid.as_str(), conversation_sid))
            .or_default()
            .push(Stated {
                observed: one.clone(),
                settled: *settled,
            });
    }
    groups
}
