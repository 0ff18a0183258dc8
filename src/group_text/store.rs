//! Rows of group texts.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde::de::DeserializeOwned;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::group_text::{GroupText, Origin, State};

struct Row {
    group_text_id: Uuid,
    account_sid: String,
    origin: String,
    conversation_sid: Option<String>,
    adopted: bool,
    state: String,
    failure_code: Option<String>,
    failure_detail: Option<String>,
    friendly_name: Option<String>,
    attributes: Option<String>,
    roster: Option<String>,
    members: Option<serde_json::Value>,
    create_attempt: i16,
    requested_by: Option<String>,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
}

impl From<Row> for GroupText {
    fn from(row: Row) -> Self {
        Self {
            group_text_id: row.group_text_id,
            account_sid: row.account_sid,
            origin: word(&row.origin),
            conversation_sid: row.conversation_sid,
            adopted: row.adopted,
            state: word(&row.state),
            failure_code: row.failure_code,
            failure_detail: row.failure_detail,
            friendly_name: row.friendly_name,
            attributes: row.attributes,
            roster: row.roster,
            members: row
                .members
                .and_then(|members| serde_json::from_value(members).ok())
                .unwrap_or_default(),
            create_attempt: row.create_attempt,
            requested_by: row.requested_by,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
        }
    }
}

/// A word that the column's check allows.
fn word<T: DeserializeOwned>(text: &str) -> T {
    serde_json::from_value(serde_json::Value::from(text)).expect("the column's check allows only these words")
}

/// Inserts a group text, unless the conversation has one already, or one of the same roster is in the making.
pub(super) async fn insert(conn: &mut PgConnection, group: &GroupText) -> Result<bool, sqlx::Error> {
    let asked_for = group.origin == Origin::Requested;
    let members = serde_json::to_value(&group.members).unwrap_or_default();
    let inserted = sqlx::query!(
        "-- group_text.insert
        insert into group_text (group_text_id, account_sid, origin, conversation_sid, state, friendly_name, attributes,
            roster, members, requested_by, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11)
        on conflict do nothing",
        group.group_text_id,
        group.account_sid,
        group.origin.as_str(),
        group.conversation_sid,
        group.state.as_str(),
        group.friendly_name,
        group.attributes,
        group.roster,
        asked_for.then_some(members),
        group.requested_by,
        group.created_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(inserted.rows_affected() == 1)
}

/// Writes what may change of a group text that the caller has locked.
pub(super) async fn update(conn: &mut PgConnection, group: &GroupText) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- group_text.update
        update group_text
        set conversation_sid = $2, adopted = $3, state = $4, failure_code = $5, failure_detail = $6, create_attempt = $7,
            updated_at = $8
        where group_text_id = $1",
        group.group_text_id,
        group.conversation_sid,
        group.adopted,
        group.state.as_str(),
        group.failure_code,
        group.failure_detail,
        group.create_attempt,
        group.updated_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find(conn: &mut PgConnection, group_text_id: Uuid) -> Result<Option<GroupText>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- group_text.find
        select group_text_id, account_sid, origin, conversation_sid, adopted, state, failure_code, failure_detail,
               friendly_name, attributes, roster, members, create_attempt, requested_by, created_at, updated_at
        from group_text where group_text_id = $1",
        group_text_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(GroupText::from))
}

/// The group text that a conversation is.
pub async fn find_by_conversation(
    conn: &mut PgConnection,
    conversation_sid: &str,
) -> Result<Option<GroupText>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- group_text.find_by_conversation
        select group_text_id, account_sid, origin, conversation_sid, adopted, state, failure_code, failure_detail,
               friendly_name, attributes, roster, members, create_attempt, requested_by, created_at, updated_at
        from group_text where conversation_sid = $1",
        conversation_sid,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(GroupText::from))
}

/// Locked until the transaction ends.
pub(super) async fn lock(
    conn: &mut PgConnection,
    group_text_id: Uuid,
) -> Result<Option<GroupText>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        "-- group_text.lock
        select group_text_id, account_sid, origin, conversation_sid, adopted, state, failure_code, failure_detail,
               friendly_name, attributes, roster, members, create_attempt, requested_by, created_at, updated_at
        from group_text where group_text_id = $1 for update",
        group_text_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(GroupText::from))
}

/// Those of the conversations that are group texts, locked in the order of their conversations.
pub(super) async fn lock_by_conversations(
    conn: &mut PgConnection,
    conversation_sids: &[&str],
) -> Result<Vec<GroupText>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- group_text.lock_by_conversations
        select group_text_id, account_sid, origin, conversation_sid, adopted, state, failure_code, failure_detail,
               friendly_name, attributes, roster, members, create_attempt, requested_by, created_at, updated_at
        from group_text where conversation_sid = any($1)
        order by conversation_sid
        for update",
        conversation_sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(GroupText::from).collect())
}

/// The group text of this roster that is being made.
pub(super) async fn in_the_making(
    conn: &mut PgConnection,
    account_sid: &str,
    roster: &str,
) -> Result<Option<Uuid>, sqlx::Error> {
    let row = sqlx::query!(
        "-- group_text.in_the_making
        select group_text_id from group_text
        where account_sid = $1 and roster = $2 and state in ('requested', 'initializing') and origin = 'requested'",
        account_sid,
        roster,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| row.group_text_id))
}

/// Group texts, newest first, those before `before` (a time of creation and an id, for paging).
pub async fn page(
    conn: &mut PgConnection,
    state: Option<State>,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<GroupText>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        "-- group_text.page
        select group_text_id, account_sid, origin, conversation_sid, adopted, state, failure_code, failure_detail,
               friendly_name, attributes, roster, members, create_attempt, requested_by, created_at, updated_at
        from group_text
        where ($1::text is null or state = $1)
          and ($2::timestamptz is null or (created_at, group_text_id) < ($2, $3::uuid))
        order by created_at desc, group_text_id desc
        limit $4",
        state.map(State::as_str),
        before.map(|(at, _)| at.to_sqlx()) as _,
        before.map(|(_, id)| id) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(GroupText::from).collect())
}
