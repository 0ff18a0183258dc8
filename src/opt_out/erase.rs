//! Erasing a person from opt-outs. That somebody opted out stays, and holds in the groups that they are in, where the mirror
//! has the same pseudonym; their number does not, not even as a digest, which whoever tries all numbers would read. In a new
//! group it is learnt again: Twilio keeps it, and refuses to deliver (21610).

use sqlx::PgConnection;

use crate::person::Person;

/// Puts the pseudonym in the person's place, but for what was seen in the conversations of `held`. Answers of how many rows.
pub async fn erase(conn: &mut PgConnection, person: &Person, held: &[String]) -> Result<i64, sqlx::Error> {
    let opt_outs = sqlx::query!(
        "-- opt_out.erase_person
        update opt_out
        set address = case when address = $1 then $2 else address end,
            set_by = case when set_by = $1 then $2 else set_by end,
            cleared_by = case when cleared_by = $1 then $2 else cleared_by end
        where $1 in (address, set_by, cleared_by) and not coalesce(conversation_sid = any($3), false)",
        person.exact(),
        person.pseudonym(),
        held,
    )
    .execute(&mut *conn)
    .await?;
    let concerns = sqlx::query!(
        "-- opt_out.erase_person_who_decided
        update opt_out_concern set decided_by = $2 where decided_by = $1 and not conversation_sid = any($3)",
        person.exact(),
        person.pseudonym(),
        held,
    )
    .execute(&mut *conn)
    .await?;
    let policies = sqlx::query!(
        "-- opt_out.erase_person_who_set_a_policy
        update opt_out_policy set set_by = $2 where set_by = $1",
        person.exact(),
        person.pseudonym(),
    )
    .execute(conn)
    .await?;
    let rows = opt_outs.rows_affected() + concerns.rows_affected() + policies.rows_affected();
    Ok(i64::try_from(rows).unwrap_or(i64::MAX))
}
