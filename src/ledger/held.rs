//! The lines of one person.

use std::collections::HashMap;

use sqlx::PgConnection;

use crate::ids::{ConversationSid, PhoneNumber};

/// A line that somebody holds now, in a conversation that goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    pub account_sid: String,
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    /// The mirror is not certain of its conversation, and a read is under way.
    pub is_in_doubt: bool,
}

/// The lines that somebody holds now.
pub async fn held_by(conn: &mut PgConnection, holder: &str) -> Result<Vec<Held>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.held_by
        select conversation_sid as "conversation_sid!: ConversationSid", line as "line!: PhoneNumber", account_sid as "account_sid!",
               unverified_since is not null as "is_in_doubt!"
        from tenure join conversation using (conversation_sid)
        where holder = $1 and superseded_at is null and upper_inf(during) and cause <> 'removed'
        order by conversation_sid, line"#,
        holder,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Held {
            account_sid: row.account_sid,
            conversation_sid: row.conversation_sid,
            line: row.line,
            is_in_doubt: row.is_in_doubt,
        })
        .collect())
}

/// Who held each line of these conversations last, besides one person: by conversation and line.
pub async fn last_holders_besides(
    conn: &mut PgConnection,
    conversation_sids: &[&str],
    besides: &str,
) -> Result<HashMap<(String, String), String>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.last_holders_besides
        select distinct on (conversation_sid, line) conversation_sid, line, holder as "holder!"
        from tenure
        where conversation_sid = any($1) and superseded_at is null and holder <> $2
        order by conversation_sid, line, lower(during) desc"#,
        conversation_sids as _,
        besides,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| ((row.conversation_sid, row.line), row.holder))
        .collect())
}
