//! Webhooks that were set aside, made to wait again after a fix.

use sqlx::PgPool;

use crate::clock::Clock;
use crate::events::{self, Kind, NewEvent, Via};
use crate::inbox::store;

pub use store::{Backlog, backlog};

/// Projects webhooks again that were set aside: all of them, or those named. Answers how many.
pub async fn replay(pool: &PgPool, clock: &Clock, webhook_ids: Option<&[i64]>) -> Result<u64, sqlx::Error> {
    let now = clock.now();
    let mut transaction = pool.begin().await?;
    let replayed = store::replay(&mut transaction, webhook_ids).await?;
    if replayed > 0 {
        let event = NewEvent {
            kind: Kind::WebhookReplayed,
            account_sid: None,
            conversation_sid: None,
            subject: "webhook".to_owned(),
            actor: None,
            via: Via::Cli,
            cause: None,
            occurred_at: now,
            recorded_at: now,
            data: serde_json::json!({ "count": replayed }),
        };
        events::append(&mut transaction, &[event]).await?;
    }
    transaction.commit().await?;
    Ok(replayed)
}
