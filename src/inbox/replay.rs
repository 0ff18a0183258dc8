//! Webhooks that were set aside, made to wait again after a fix.

use sqlx::PgPool;

use crate::clock::Clock;
use crate::events::Via;
use crate::inbox::set_aside::{self, Reader};
use crate::inbox::store;

pub use store::{Backlog, backlog};

/// Projects webhooks again that were set aside: all of them, or those named. Answers how many.
pub async fn replay(pool: &PgPool, clock: &Clock, webhook_ids: Option<&[i64]>) -> Result<u64, sqlx::Error> {
    let by = Reader {
        actor: None,
        via: Via::Cli,
    };
    let mut transaction = pool.begin().await?;
    let replayed = set_aside::replay_all(&mut transaction, webhook_ids, by, clock.now()).await?;
    transaction.commit().await?;
    Ok(replayed)
}
