//! Stored webhooks read once more, for a mirror that is made anew ([`crate::rebuild`]).

use sqlx::PgConnection;

use super::process;
use super::store::Pending;
use crate::ids::AccountSid;
use crate::inbox::Format;
use crate::mirror::Observed;

/// A stored webhook, and what it says today.
#[derive(Debug)]
pub struct Restated {
    pub webhook_id: i64,
    pub account_sid: AccountSid,
    pub conversation_sid: Option<String>,
    pub says: Says,
}

/// What a webhook says today.
#[derive(Debug)]
pub enum Says {
    Statements(Vec<Observed>),
    /// Nothing any more: its form was erased.
    Erased,
    /// It cannot be read.
    IllFormed(String),
}

/// These webhooks, in the order in which they are named; one that is not there any more is left out.
pub async fn restate(conn: &mut PgConnection, webhook_ids: &[i64]) -> Result<Vec<Restated>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- inbox.restate
        select webhook_id, lane, account_sid as "account_sid: AccountSid", event_type, conversation_sid, format, form,
               erased_at is not null as "is_erased!"
        from unnest($1::bigint[]) with ordinality as named (id, place)
        cross join lateral (select * from webhook where webhook_id = named.id offset 0) as webhook
        order by place"#,
        webhook_ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let stored = Pending {
                webhook_id: row.webhook_id,
                lane: row.lane,
                account_sid: row.account_sid,
                event_type: row.event_type,
                conversation_sid: row.conversation_sid,
                format: Format::from_column(&row.format),
                form: row.form,
            };
            let says = if row.is_erased {
                Says::Erased
            } else {
                match process::read(&stored) {
                    Ok(statements) => Says::Statements(statements),
                    Err(reason) => Says::IllFormed(reason),
                }
            };
            Restated {
                webhook_id: stored.webhook_id,
                account_sid: stored.account_sid,
                conversation_sid: stored.conversation_sid,
                says,
            }
        })
        .collect())
}
