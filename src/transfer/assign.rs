//! Giving a line that nobody holds, by a rule and not by a person.

use std::collections::HashMap;

use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::{Kind as EventKind, Via};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber};
use crate::transfer::operations::{Draft, Ground, drafted, put_swap};
use crate::transfer::tell::tell;
use crate::transfer::{Kind, store};

/// Who asks, where no person does.
const US: &str = "hookswitch";
/// The work on it may go on so long; then somebody else may be found for the line. Whoever decides within the projection has
/// no settings at hand.
const SWAP_WITHIN: SignedDuration = SignedDuration::from_hours(2);

/// A line that a rule gives to somebody.
#[derive(Debug, Clone)]
pub struct Assigned {
    pub account_sid: AccountSid,
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub to: Identity,
    /// How they were chosen.
    pub reason: &'static str,
}

/// Begins the transfer within the caller's transaction, which holds the conversation's lock and has seen that nobody holds
/// the line and no transfer of it is open.
pub async fn assign_in(
    conn: &mut PgConnection,
    new: Assigned,
    via: Via,
    now: Timestamp,
) -> Result<Uuid, sqlx::Error> {
    let ground = Ground {
        conversation_sid: new.conversation_sid,
        account_sid: new.account_sid,
        line: new.line,
        holder: None,
    };
    let draft = Draft {
        kind: Kind::Assign,
        to: Some(new.to),
        requested_by: US.to_owned(),
        decided_as: None,
        reason: Some(new.reason.to_owned()),
        note: None,
        introduction: None,
        offer_timeout: None,
    };
    let transfer = drafted(&ground, draft, SWAP_WITHIN, now);
    store::insert(conn, &transfer).await?;
    put_swap(conn, &transfer, now).await?;
    tell(conn, &transfer, EventKind::TransferStarted, US, via, now).await?;
    Ok(transfer.transfer_id)
}

/// Lines that are on their way to each of these people. Those to whom none is are not in it.
pub async fn coming_to(
    conn: &mut PgConnection,
    identities: &[&str],
) -> Result<HashMap<String, u32>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- transfer.coming_to
        select to_holder as "to_holder!", count(*) as "lines!" from transfer
        where to_holder = any($1) and finished_at is null and state = 'swapping'
        group by to_holder"#,
        identities as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.to_holder, u32::try_from(row.lines).unwrap_or(u32::MAX)))
        .collect())
}
