//! Erasing from transfers: of a person, for whom a pseudonym stands, and by age, what people wrote.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::ConversationSid;
use crate::mirror::erase::{Keys, Looked, Window};
use crate::person::Person;

/// Transfers in the order of their keys, with those marked as due that ended before a time and have words: an introduction,
/// a note or a reason.
pub async fn words_due(conn: &mut PgConnection, window: Window<'_>) -> Result<Vec<Looked>, sqlx::Error> {
    let after: Uuid = window.after.1.parse().unwrap_or_default();
    let rows = sqlx::query!(
        r#"-- transfer.words_due
        select conversation_sid, transfer_id,
               (coalesce(finished_at < $3, false) and num_nonnulls(introduction, note, reason) > 0) as "is_due!"
        from transfer where (conversation_sid, transfer_id) > ($1, $2)
        order by conversation_sid, transfer_id limit $4"#,
        window.after.0,
        after,
        window.before.to_sqlx() as _,
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked {
            parent: row.conversation_sid.clone(),
            key: row.transfer_id.to_string(),
            conversation_sid: Some(row.conversation_sid),
            is_due: row.is_due,
        })
        .collect())
}

/// Erases what people wrote of these transfers.
pub async fn erase_words(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    before: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- transfer.erase_words
        update transfer set introduction = null, note = null, reason = null
        from unnest($1::text[], $2::text[]) as due (parent, key)
        where conversation_sid = due.parent and transfer_id::text = due.key and finished_at < $3",
        keys.parents as _,
        keys.keys as _,
        before.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// The conversations with transfers that name the person.
pub async fn conversations_of(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- transfer.conversations_of_person
        select conversation_sid as "sid!" from transfer
        where $1 in (from_holder, to_holder, requested_by, decided_by, decided_as) or $1 = any(displaced)
           or concat_ws(' ', reason, note, introduction, waiting_error, outcome_detail) like any($2)
        union select conversation_sid from transfer_step where detail like any($2)
        union select conversation_sid from transfer_candidate
        where $1 in (identity, answered_by) or reason like any($2)"#,
        person.exact(),
        &person.patterns() as _,
    )
    .fetch_all(conn)
    .await
}

/// Whether a transfer that is not finished has to do with the person: gives, takes, may be found on the line, is still to
/// be asked, decides, or is named in what is still to be posted. [`erase`] leaves such a one as it is.
pub async fn is_at_work(conn: &mut PgConnection, person: &Person) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- transfer.is_at_work_for_person
        select exists (
            select from transfer
            where finished_at is null
              and ($1 in (from_holder, to_holder, requested_by, decided_by, decided_as) or $1 = any(displaced)
                   or introduction like any($2))
            union all
            select from transfer_candidate as candidate join transfer using (conversation_sid, transfer_id)
            where finished_at is null and candidate.identity = $1 and candidate.state in ('waiting', 'offered')
        ) as "is_at_work!""#,
        person.exact(),
        &person.patterns() as _,
    )
    .fetch_one(conn)
    .await
}

/// Puts the pseudonym in the person's place, and empties what they wrote or what names them. Why a line was taken from
/// somebody is about them, whoever wrote it; an introduction is said by who got the line. What is at work is left, for its name is needed still. Answers of how many transfers.
pub async fn erase(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    person: &Person,
) -> Result<i64, sqlx::Error> {
    let mut erased = sqlx::query_scalar!(
        "-- transfer.erase_person
        update transfer
        set from_holder = case when from_holder = $2 then $4 else from_holder end,
            to_holder = case when to_holder = $2 then $4 else to_holder end,
            requested_by = case when requested_by = $2 then $4 else requested_by end,
            decided_by = case when decided_by = $2 then $4 else decided_by end,
            decided_as = case when decided_as = $2 then $4 else decided_as end,
            displaced = array_replace(displaced, $2, $4),
            reason = case when $2 in (requested_by, from_holder) or reason like any($3) then null else reason end,
            note = case when $2 in (requested_by, from_holder) or note like any($3) then null else note end,
            introduction = case when $2 in (to_holder, requested_by) or introduction like any($3)
                                then null else introduction end,
            waiting_error = case when waiting_error like any($3) then null else waiting_error end,
            outcome_detail = case when position($2 in outcome_detail) > 0 then null else outcome_detail end
        where conversation_sid = $1
          and ($2 in (from_holder, to_holder, requested_by, decided_by, decided_as) or $2 = any(displaced)
               or concat_ws(' ', reason, note, introduction, waiting_error, outcome_detail) like any($3))
          and (finished_at is not null
               or not coalesce($2 in (from_holder, to_holder, requested_by, decided_by, decided_as)
                               or $2 = any(displaced) or introduction like any($3), false))
        returning transfer_id",
        sid.as_str(),
        person.exact(),
        &person.patterns() as _,
        person.pseudonym(),
    )
    .fetch_all(&mut *conn)
    .await?;
    let on_lists = sqlx::query_scalar!(
        "-- transfer.erase_person_from_candidates
        update transfer_candidate as candidate
        set identity = case when identity = $2 then $4 else identity end,
            answered_by = case when answered_by = $2 then $4 else answered_by end,
            reason = case when reason like any($3) then null else reason end
        where conversation_sid = $1 and ($2 in (identity, answered_by) or reason like any($3))
          and not (state in ('waiting', 'offered')
                   and exists (select from transfer
                               where transfer.conversation_sid = $1 and transfer.transfer_id = candidate.transfer_id
                                 and transfer.finished_at is null))
        returning transfer_id",
        sid.as_str(),
        person.exact(),
        &person.patterns() as _,
        person.pseudonym(),
    )
    .fetch_all(&mut *conn)
    .await?;
    erased.extend(on_lists);
    erased.sort_unstable();
    erased.dedup();
    sqlx::query!(
        "-- transfer.erase_person_from_steps
        update transfer_step set detail = null
        where conversation_sid = $1
          and (detail like any($3) or (transfer_id = any($4) and position($2 in detail) > 0))",
        sid.as_str(),
        person.exact(),
        &person.patterns() as _,
        &erased,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.len()).unwrap_or(i64::MAX))
}
