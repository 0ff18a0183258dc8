//! Erasing a person from plans: a pseudonym stands in their place, and what is written of them goes.

use sqlx::PgConnection;

use crate::person::Person;

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

/// Puts the pseudonym in the person's place, but in the lines of the conversations of `held`. Answers of how many plans and
/// lines.
pub async fn erase(conn: &mut PgConnection, person: &Person, held: &[String]) -> Result<i64, sqlx::Error> {
    let plans = sqlx::query!(
        "-- handover.erase_person_from_plans
        update handover_plan
        set leaver = case when leaver = $1 then $3 else leaver end,
            requested_by = case when requested_by = $1 then $3 else requested_by end,
            started_by = case when started_by = $1 then $3 else started_by end,
            reason = case when requested_by = $1 or position($2 in reason) > 0 then null else reason end,
            note = case when requested_by = $1 or position($2 in note) > 0 then null else note end
        where $1 in (leaver, requested_by, started_by) or position($2 in concat_ws(' ', reason, note)) > 0",
        person.exact(),
        person.needle(),
        person.pseudonym(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query!(
        "-- handover.erase_person_from_rules
        update handover_rule set people = array_replace(people, $1, $2) where $1 = any(people)",
        person.exact(),
        person.pseudonym(),
    )
    .execute(&mut *conn)
    .await?;
    let quoted = serde_json::Value::from(person.exact()).to_string();
    let lines = sqlx::query!(
        "-- handover.erase_person_from_lines
        update handover_line
        set to_holder = case when to_holder = $1 then $3 else to_holder end,
            passed = replace(passed::text, $2, to_json($3::text)::text)::jsonb
        where (to_holder = $1 or position($2 in passed::text) > 0) and not (conversation_sid = any($4))",
        person.exact(),
        quoted,
        person.pseudonym(),
        held,
    )
    .execute(conn)
    .await?;
    let erased = plans.rows_affected().saturating_add(lines.rows_affected());
    Ok(i64::try_from(erased).unwrap_or(i64::MAX))
}
