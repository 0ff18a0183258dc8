//! The one door through which statements about Twilio's state enter: the mirror with its ledger and log, and then those
//! who wait for a conversation's state, all in the caller's transaction. Owns `answer` and `unrecorded_conversation`:
//! what entered otherwise than by a webhook, so that it can be replayed.

pub mod answers;
pub mod read;

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::assignment;
use crate::events::Via;
use crate::mirror::{self, Observed, Revisions};
use crate::{escalation, group_text, opt_out, outbox};

/// Commits what a source says within the caller's transaction. See [`mirror::commit`] for the parameters.
/// Answers which causes said again what had been erased here.
pub async fn commit(
    conn: &mut PgConnection,
    observed: &[Observed],
    via: Via,
    settles: Option<&Revisions>,
    now: Timestamp,
) -> Result<BTreeSet<String>, sqlx::Error> {
    let committed = mirror::commit(conn, observed, via, settles, now).await?;
    // Webhooks are kept as they came; an answer that told nothing new need not be told again.
    if via != Via::Webhook && committed.changed {
        // As they were taken: what was erased does not come back through here.
        let mut taken = observed.to_vec();
        for (place, change) in &committed.masked {
            taken[*place].change = change.clone();
        }
        answers::record(conn, &taken, &committed.settled, via, now).await?;
    }
    group_text::follow(conn, &committed.state_changed, via, now).await?;
    opt_out::follow(conn, observed, &committed.masked, via, now).await?;
    outbox::follow(conn, observed, via, now).await?;
    assignment::follow(conn, &committed.stirred, via, now).await?;
    if committed.changed {
        escalation::follow(conn, observed, committed.state_changed.iter(), now).await?;
    }
    Ok(committed
        .masked
        .keys()
        .map(|place| observed[*place].cause.clone())
        .collect())
}
