//! Erasing from plans: of a person, for whom a pseudonym stands, and by age, what people wrote.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::mirror::erase::{Keys, Looked, Window};
use crate::person::Person;

/// Plans in the order of their keys, with those marked as due that ended before a time, are not to return, and have words: a
/// note, a reason or an introduction. Each with one of its conversations that is under legal hold, if any is.
pub async fn words_due(conn: &mut PgConnection, window: Window<'_>) -> Result<Vec<Looked>, sqlx::Error> {
    let after: Uuid = window.after.0.parse().unwrap_or_default();
    let rows = sqlx::query!(
        r#"-- handover.words_due
        select handover_id,
               (select conversation_sid from handover_line join legal_hold using (conversation_sid)
                where handover_line.handover_id = plan.handover_id limit 1) as held,
               (coalesce(finished_at < $2, false) and not (state = 'completed' and return_at is not null)
                and num_nonnulls(note, reason, introduction) > 0) as "is_due!"
        from handover_plan as plan where handover_id > $1
        order by handover_id limit $3"#,
        after,
        window.before.to_sqlx() as _,
        window.limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Looked {
            parent: row.handover_id.to_string(),
            key: String::new(),
            conversation_sid: row.held,
            is_due: row.is_due,
        })
        .collect())
}

/// Erases what people wrote of these plans.
pub async fn erase_words(
    conn: &mut PgConnection,
    keys: Keys<'_>,
    before: Timestamp,
) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- handover.erase_words
        update handover_plan set note = null, reason = null, introduction = null
        where handover_id::text = any($1) and finished_at < $2 and not (state = 'completed' and return_at is not null)",
        keys.parents as _,
        before.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// Whether a plan that is not at its end, or is still to return lines, has to do with the person.
pub async fn is_at_work(conn: &mut PgConnection, person: &Person) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- handover.is_at_work_for_person
        select exists (
            select from handover_plan as plan
            where (state in ('planning', 'draft', 'running', 'paused')
                   or (state = 'completed' and return_at is not null))
              and (leaver = $1
                   or exists (select from handover_rule as rule
                              where rule.handover_id = plan.handover_id and $1 = any(people))
                   or exists (select from handover_line as given
                              where given.handover_id = plan.handover_id and to_holder = $1))) as "is_at_work!""#,
        person.exact(),
    )
    .fetch_one(conn)
    .await
}

/// Puts the pseudonym in the person's place, but in the lines of the conversations of `held`, and empties what they wrote, what
/// is written about them as the leaver, and what names them. Where a plan has begun to need the name meanwhile, it keeps it.
/// Answers of how many plans and lines.
pub async fn erase(conn: &mut PgConnection, person: &Person, held: &[String]) -> Result<i64, sqlx::Error> {
    let plans = sqlx::query!(
        "-- handover.erase_person_from_plans
        with plan as (
            select handover_id, leaver = $1
                   and not (state in ('planning', 'draft', 'running', 'paused')
                            or (state = 'completed' and return_at is not null)) as is_leaver
            from handover_plan)
        update handover_plan
        set leaver = case when is_leaver then $3 else leaver end,
            requested_by = case when requested_by = $1 then $3 else requested_by end,
            started_by = case when started_by = $1 then $3 else started_by end,
            turned_by = case when turned_by = $1 then $3 else turned_by end,
            changed_by = case when changed_by = $1 then $3 else changed_by end,
            reason = case when is_leaver or requested_by = $1 or reason like any($2) then null else reason end,
            note = case when is_leaver or requested_by = $1 or note like any($2) then null else note end,
            introduction = case when is_leaver or requested_by = $1 or introduction like any($2)
                                then null else introduction end
        from plan
        where plan.handover_id = handover_plan.handover_id
          and (is_leaver or $1 in (requested_by, started_by, turned_by, changed_by)
               or concat_ws(' ', reason, note, introduction) like any($2))",
        person.exact(),
        &person.patterns() as _,
        person.pseudonym(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "-- handover.erase_person_from_rules
        update handover_rule set people = array_replace(people, $1, $2)
        where $1 = any(people)
          and not exists (select from handover_plan as plan
                          where plan.handover_id = handover_rule.handover_id
                            and (state in ('planning', 'draft', 'running', 'paused')
                                 or (state = 'completed' and return_at is not null)))",
        person.exact(),
        person.pseudonym(),
    )
    .execute(&mut *conn)
    .await?;
    let lines = sqlx::query!(
        "-- handover.erase_person_from_lines
        update handover_line
        set to_holder = case when to_holder = $1 then $2 else to_holder end,
            passed = (select coalesce(jsonb_agg(case when one ->> 'to' = $1
                                                     then one || jsonb_build_object('to', $2::text) else one end
                                                order by place), '[]')
                      from jsonb_array_elements(passed) with ordinality as passed (one, place))
        where (to_holder = $1 or passed @> jsonb_build_array(jsonb_build_object('to', $1::text)))
          and not (conversation_sid = any($3))
          and not exists (select from handover_plan as plan
                          where plan.handover_id = handover_line.handover_id
                            and (plan.state in ('planning', 'draft', 'running', 'paused')
                                 or (plan.state = 'completed' and return_at is not null)))",
        person.exact(),
        person.pseudonym(),
        held,
    )
    .execute(conn)
    .await?;
    let erased = plans.rows_affected().saturating_add(lines.rows_affected());
    Ok(i64::try_from(erased).unwrap_or(i64::MAX))
}
