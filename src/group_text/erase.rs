//! Erasing a person from group texts: a pseudonym stands in their place.

use sqlx::PgConnection;

use crate::person::{Person, Subject};

/// Whether a group text in the making has to do with the person: Twilio is still to be told of its members.
pub async fn is_at_work(conn: &mut PgConnection, person: &Person) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- group_text.is_at_work_for_person
        select exists (select from group_text
                       where state in ('requested', 'initializing') and position($1 in members::text) > 0) as "is_at_work!""#,
        quoted(person),
    )
    .fetch_one(conn)
    .await
}

/// The conversations of group texts that name the person.
pub async fn conversations_of(conn: &mut PgConnection, person: &Person) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"-- group_text.conversations_of_person
        select conversation_sid as "sid!" from group_text
        where conversation_sid is not null
          and (requested_by = $1 or position($3 in members::text) > 0 or $4 = any(string_to_array(roster, ','))
               or concat_ws(' ', friendly_name, attributes, failure_detail) like any($2))"#,
        person.exact(),
        &person.patterns() as _,
        quoted(person),
        number_of(person),
    )
    .fetch_all(conn)
    .await
}

/// Puts the pseudonym in the person's place, but in the conversations of `held`, and where the group text is in the making.
/// Answers of how many group texts.
pub async fn erase(conn: &mut PgConnection, person: &Person, held: &[String]) -> Result<i64, sqlx::Error> {
    let erased = sqlx::query!(
        "-- group_text.erase_person
        update group_text
        set members = replace(members::text, $3, to_json($4::text)::text)::jsonb,
            roster = array_to_string(array_replace(string_to_array(roster, ','), $6, $4), ','),
            requested_by = case when requested_by = $1 then $4 else requested_by end,
            friendly_name = case when friendly_name like any($2) then null else friendly_name end,
            attributes = case when attributes like any($2) then null else attributes end,
            failure_detail = case when failure_detail like any($2) then null else failure_detail end
        where (requested_by = $1 or position($3 in members::text) > 0 or $6 = any(string_to_array(roster, ','))
               or concat_ws(' ', friendly_name, attributes, failure_detail) like any($2))
          and not coalesce(conversation_sid = any($5), false) and state not in ('requested', 'initializing')",
        person.exact(),
        &person.patterns() as _,
        quoted(person),
        person.pseudonym(),
        held,
        number_of(person),
    )
    .execute(conn)
    .await?;
    Ok(i64::try_from(erased.rows_affected()).unwrap_or(i64::MAX))
}

/// A roster has numbers alone, each of them whole.
fn number_of(person: &Person) -> Option<&str> {
    match person.subject() {
        Subject::Number(number) => Some(number.as_str()),
        Subject::Identity(_) => None,
    }
}

fn quoted(person: &Person) -> String {
    serde_json::Value::from(person.exact()).to_string()
}
