//! Legal hold: of a conversation under it nothing is erased, whatever the rules say.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{Connection as _, PgConnection};

use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::ConversationSid;
use crate::retention::store;

/// A hold that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LegalHold {
    pub conversation_sid: String,
    pub reason: String,
    pub held_by: String,
    pub held_since: Timestamp,
}

/// Puts a conversation under hold. One that is under hold stays as it is.
pub async fn hold(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    reason: &str,
    by: &str,
    via: Via,
    now: Timestamp,
) -> Result<LegalHold, sqlx::Error> {
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    let wanted = LegalHold {
        conversation_sid: sid.to_string(),
        reason: reason.to_owned(),
        held_by: by.to_owned(),
        held_since: now,
    };
    if store::insert_hold(&mut transaction, &wanted).await? {
        let event = told(Kind::LegalHoldSet, sid, by, via, now);
        events::append(&mut transaction, &[event]).await?;
    }
    let stands = store::find_hold(&mut transaction, sid.as_str()).await?;
    transaction.commit().await?;
    Ok(stands.unwrap_or(wanted))
}

/// Ends a hold. Answers whether there was one. What is due by then is erased by the next run of the rules.
pub async fn release(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    by: &str,
    via: Via,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    let released = store::delete_hold(&mut transaction, sid.as_str()).await?;
    if released {
        store::insert_released(&mut transaction, sid.as_str()).await?;
        let event = told(Kind::LegalHoldReleased, sid, by, via, now);
        events::append(&mut transaction, &[event]).await?;
    }
    transaction.commit().await?;
    Ok(released)
}

pub async fn find_hold(
    conn: &mut PgConnection,
    sid: &ConversationSid,
) -> Result<Option<LegalHold>, sqlx::Error> {
    store::find_hold(conn, sid.as_str()).await
}

/// The reason is somebody's words, and stays out of the log.
fn told(kind: Kind, sid: &ConversationSid, by: &str, via: Via, now: Timestamp) -> NewEvent {
    NewEvent {
        kind,
        account_sid: None,
        conversation_sid: Some(sid.clone()),
        subject: sid.to_string(),
        actor: Some(by.to_owned()),
        via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({}),
    }
}
