//! Lines that nobody holds, seen in the transaction that saw it.

use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;

use super::decide::decide;
use super::find::{self, Members};
use super::{store, tell};
use crate::events::Via;
use crate::ids::ConversationSid;
use crate::mirror::Stirred;

/// A message that is older than this when we first learn of it, and a group that is, ask for nobody: an account that was
/// there before us is swept in.
const ASKED_WITHIN: SignedDuration = SignedDuration::from_hours(72);

/// Decides about lines of these conversations that nobody holds, within the transaction that changed the mirror.
///
/// One statement where all lines are held; none where no number has a rule.
pub async fn follow(
    conn: &mut PgConnection,
    stirred: &Stirred,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if !stirred.seats.is_empty() {
        let seats: Vec<&str> = stirred.seats.iter().map(ConversationSid::as_str).collect();
        for gone in store::forget_settled(conn, &seats).await? {
            tell::dequeued(conn, &gone, via, now).await?;
        }
    }
    let all: Vec<&str> = stirred
        .seats
        .union(&stirred.messages)
        .map(ConversationSid::as_str)
        .collect();
    if all.is_empty() {
        return Ok(());
    }
    let members = match via {
        Via::Webhook => Members::OneByOne,
        Via::Rest | Via::Api | Via::Timer | Via::Sweep | Via::Cli | Via::Worker => Members::All,
    };
    let lines = find::asked_for(conn, &all, members, now - ASKED_WITHIN, now).await?;
    decide(conn, lines, via, now).await?;
    Ok(())
}
