//! Erasing the forms of webhooks. What is known of them otherwise stays: that they came, when, and that they verified.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::person::Person;

/// Webhooks after a number that came before a time: their numbers, conversations, and whether they are erased by now.
/// Ends before the first that is not settled yet.
pub async fn due(
    conn: &mut PgConnection,
    after: i64,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<(i64, Option<String>, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- inbox.due_for_erasure
        select webhook_id, conversation_sid, erased_at is not null as "is_erased!",
               (received_at < $2 and not exists (select from webhook_pending as pending
                    where pending.lane = webhook.lane and pending.webhook_id = webhook.webhook_id)) as "is_due!"
        from webhook where webhook_id > $1
        order by webhook_id limit $3"#,
        after,
        before.to_sqlx() as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .take_while(|row| row.is_due)
        .map(|row| (row.webhook_id, row.conversation_sid, row.is_erased))
        .collect())
}

/// Webhooks of a conversation after a number, up to another: their numbers, and whether they are erased by now.
pub async fn of_conversation(
    conn: &mut PgConnection,
    sid: &str,
    after: i64,
    until: i64,
    limit: i64,
) -> Result<Vec<(i64, bool)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- inbox.of_conversation_for_erasure
        select webhook_id, erased_at is not null as "is_erased!" from webhook
        where conversation_sid = $1 and webhook_id > $2 and webhook_id <= $3
        order by webhook_id limit $4"#,
        sid,
        after,
        until,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.webhook_id, row.is_erased))
        .collect())
}

/// Empties the forms of these webhooks, and keeps a salted hash of each. One that was set aside cannot be projected any
/// more.
pub async fn erase(conn: &mut PgConnection, webhook_ids: &[i64], now: Timestamp) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- inbox.erase
        update webhook set form = '', erased_at = $2, erased = jsonb_build_object('form', erasure_proof(form))
        where webhook_id = any($1) and erased_at is null
          and not exists (select from webhook_pending as pending
              where pending.lane = webhook.lane and pending.webhook_id = webhook.webhook_id)",
        webhook_ids,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// As [`erase`], of webhooks that are being projected, by their causes: they said again what had been erased.
pub async fn empty(
    conn: &mut PgConnection,
    causes: &BTreeSet<String>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let ids: Vec<i64> = causes
        .iter()
        .filter_map(|cause| cause.strip_prefix("webhook:")?.parse().ok())
        .collect();
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- inbox.empty
        update webhook set form = '', erased_at = $2, erased = jsonb_build_object('form', erasure_proof(form))
        where webhook_id = any($1) and erased_at is null",
        &ids,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What did not verify and came before a time, by number. Ends before the first that came later.
pub async fn due_in_quarantine(
    conn: &mut PgConnection,
    after: i64,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "-- inbox.due_in_quarantine
        select quarantined_webhook_id from quarantined_webhook
        where quarantined_webhook_id > $1 and received_at < $2
        order by quarantined_webhook_id limit $3",
        after,
        before.to_sqlx() as _,
        limit,
    )
    .fetch_all(conn)
    .await
}

/// Takes these out of the quarantine. Nobody has said that they are Twilio's, so nothing is kept of them.
pub async fn clear_quarantine(conn: &mut PgConnection, ids: &[i64]) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- inbox.clear_quarantine
        delete from quarantined_webhook where quarantined_webhook_id = any($1)",
        ids,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// What a page of the webhooks came to.
#[derive(Debug)]
pub struct ErasedPage {
    /// The last webhook of the page; none at the end.
    pub last: Option<i64>,
    pub erased: i64,
    /// Some that name the person are not projected yet, and are left for that.
    pub is_waiting: bool,
    /// The conversations, of those to be left alone, of which some name the person.
    pub left: BTreeSet<String>,
}

/// Empties the forms after a number that name the person, in a page of the webhooks. Those of the conversations of `held`
/// are left alone.
pub async fn erase_person(
    conn: &mut PgConnection,
    after: i64,
    person: &Person,
    held: &[String],
    limit: i64,
    now: Timestamp,
) -> Result<ErasedPage, sqlx::Error> {
    let last = sqlx::query_scalar!(
        "-- inbox.page_for_erasure
        select max(webhook_id)
        from (select webhook_id from webhook where webhook_id > $1 order by webhook_id limit $2) as page",
        after,
        limit,
    )
    .fetch_one(&mut *conn)
    .await?;
    let Some(last) = last else {
        return Ok(ErasedPage {
            last: None,
            erased: 0,
            is_waiting: false,
            left: BTreeSet::new(),
        });
    };
    let rows = sqlx::query!(
        r#"-- inbox.naming_person
        select webhook_id, form, conversation_sid, coalesce(conversation_sid = any($3), false) as "is_held!",
               exists (select from webhook_pending as pending
                       where pending.lane = webhook.lane and pending.webhook_id = webhook.webhook_id) as "is_pending!"
        from webhook
        where webhook_id > $1 and webhook_id <= $2
          and exists (select from unnest($4::bytea[]) as spelling where position(spelling in form) > 0)"#,
        after,
        last,
        held,
        &person.spellings() as _,
    )
    .fetch_all(&mut *conn)
    .await?;
    let (held, free): (Vec<_>, Vec<_>) = rows
        .into_iter()
        .filter(|row| person.is_named_in(&row.form))
        .partition(|row| row.is_held);
    let (pending, settled): (Vec<_>, Vec<_>) = free.into_iter().partition(|row| row.is_pending);
    let ids: Vec<i64> = settled.iter().map(|row| row.webhook_id).collect();
    Ok(ErasedPage {
        last: Some(last),
        erased: erase(conn, &ids, now).await?,
        is_waiting: !pending.is_empty(),
        left: held.into_iter().filter_map(|row| row.conversation_sid).collect(),
    })
}

/// Takes what names the person out of the quarantine. Answers of how many.
pub async fn erase_person_from_quarantine(
    conn: &mut PgConnection,
    person: &Person,
) -> Result<i64, sqlx::Error> {
    let rows = sqlx::query!(
        "-- inbox.quarantined_naming_person
        select quarantined_webhook_id, form from quarantined_webhook
        where exists (select from unnest($1::bytea[]) as spelling where position(spelling in form) > 0)",
        &person.spellings() as _,
    )
    .fetch_all(&mut *conn)
    .await?;
    let ids: Vec<i64> = rows
        .iter()
        .filter(|row| person.is_named_in(&row.form))
        .map(|row| row.quarantined_webhook_id)
        .collect();
    clear_quarantine(conn, &ids).await
}

/// Whether a webhook that names the person is not projected yet.
pub async fn is_waiting(conn: &mut PgConnection, person: &Person) -> Result<bool, sqlx::Error> {
    let forms = sqlx::query_scalar!(
        "-- inbox.waiting_naming_person
        select form from webhook_pending join webhook using (webhook_id)
        where exists (select from unnest($1::bytea[]) as spelling where position(spelling in form) > 0)",
        &person.spellings() as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(forms.iter().any(|form| person.is_named_in(form)))
}
