//! How complete the mirror is: when each conversation was last compared with Twilio, by what, and what that found.
//!
//! Conversations that Twilio no longer has are left out: nothing can be missing of them.

use jiff::Timestamp;
use serde::Serialize;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::{AccountSid, ConversationSid};
use crate::sweep::{By, Compared, Found, Run, store};

/// How far one conversation of the mirror is verified.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OfConversation {
    pub conversation_sid: String,
    /// As of when the mirror was found, or made, equal to Twilio. Absent if never. What came later came by webhooks.
    pub verified_at: Option<Timestamp>,
    pub verified_by: Option<By>,
    /// As of when it was last compared whole.
    pub walked_at: Option<Timestamp>,
    /// From when on it is known by webhooks alone: its last verification, or its first appearance where it has none.
    /// Absent once Twilio no longer has it.
    pub unverified_since: Option<Timestamp>,
    /// Two sources disagree since then, and a read is to decide.
    pub in_doubt_since: Option<Timestamp>,
    /// What the last probe or walk compared, the conversation itself aside.
    pub compared: Compared,
    /// What all sweeps together found.
    pub found: Found,
    /// Webhooks of it that were received and could not be projected.
    pub webhooks_set_aside: i64,
    /// Webhooks of it that were received and are not yet projected.
    pub webhooks_pending: i64,
    /// The run that looked at it last.
    pub sweep_run_id: Option<Uuid>,
}

/// How far the mirror is verified in all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Total {
    /// Those that Twilio has, as far as we know.
    pub conversations: i64,
    /// Received or listed, and not yet compared.
    pub never_verified: i64,
    /// Two sources disagree, and a read is to decide.
    pub in_doubt: i64,
    /// The newest verification of any conversation.
    pub verified_at: Option<Timestamp>,
    pub verified_by: Option<By>,
    /// The oldest unverified span begins here: since then, at least one conversation is known by webhooks alone. It is
    /// the oldest time of a conversation's last verification, or of its first appearance where it has none.
    pub unverified_since: Option<Timestamp>,
    /// What the last probe or walk of each conversation compared, conversations aside.
    pub compared: Compared,
    /// What all sweeps together found.
    pub found: Found,
    pub webhooks_set_aside: i64,
    pub webhooks_pending: i64,
    pub accounts: Vec<OfAccount>,
}

/// The sweeps of one account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct OfAccount {
    pub account_sid: String,
    /// The newest run that looked at every conversation.
    pub last_completed: Option<Run>,
    /// The newest run, whatever became of it.
    pub newest: Option<Run>,
}

/// None: the mirror does not have the conversation.
pub async fn of_conversation(
    conn: &mut PgConnection,
    sid: &ConversationSid,
) -> Result<Option<OfConversation>, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- completeness.of_conversation
        select conversation.conversation_sid, conversation.verified_at as read_at, unverified_since,
               first_seen_at, removed_at, known.verified_at as "swept_at?", known.verified_by as "swept_by?", known.walked_at as "walked_at?",
               known.sweep_run_id as "sweep_run_id?",
               coalesce(known.participants, 0) as "participants!", coalesce(known.messages, 0) as "messages!",
               coalesce(known.receipts, 0) as "receipts!", coalesce(known.missing, 0) as "missing!",
               coalesce(known.stale, 0) as "stale!", coalesce(known.gone, 0) as "gone!",
               coalesce(known.extra, 0) as "extra!",
               (select count(*) from webhook_set_aside join webhook using (webhook_id)
                where webhook.conversation_sid = $1) as "set_aside!",
               (select count(*) from webhook_pending join webhook using (webhook_id)
                where webhook.conversation_sid = $1) as "pending!"
        from conversation
        left join conversation_check as known on known.conversation_sid = conversation.conversation_sid
        where conversation.conversation_sid = $1"#,
        sid.as_str(),
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| {
        let swept = row.swept_at.map(jiff_sqlx::Timestamp::to_jiff).zip(row.swept_by);
        let read_at = row.read_at.map(jiff_sqlx::Timestamp::to_jiff);
        let (verified_at, verified_by) = newest(swept, read_at).unzip();
        OfConversation {
            conversation_sid: row.conversation_sid,
            verified_at,
            verified_by,
            walked_at: row.walked_at.map(jiff_sqlx::Timestamp::to_jiff),
            unverified_since: match row.removed_at {
                Some(_) => None,
                None => verified_at.or(Some(row.first_seen_at.to_jiff())),
            },
            in_doubt_since: row.unverified_since.map(jiff_sqlx::Timestamp::to_jiff),
            compared: Compared {
                participants: row.participants,
                messages: row.messages,
                receipts: row.receipts,
            },
            found: Found {
                missing: row.missing,
                stale: row.stale,
                gone: row.gone,
                extra: row.extra,
            },
            webhooks_set_aside: row.set_aside,
            webhooks_pending: row.pending,
            sweep_run_id: row.sweep_run_id,
        }
    }))
}

/// The later of what a sweep and what a read of the conversation and its members verified. A sweep notes both.
fn newest(swept: Option<(Timestamp, String)>, read_at: Option<Timestamp>) -> Option<(Timestamp, By)> {
    match (swept, read_at) {
        (Some((swept_at, _)), Some(read_at)) if read_at > swept_at => Some((read_at, By::Read)),
        (Some((swept_at, by)), _) => Some((swept_at, By::from_column(&by))),
        (None, read_at) => read_at.map(|at| (at, By::Read)),
    }
}

/// Reads every conversation's row: for people and for the end of a sweep, not for every request of a program.
pub async fn total(conn: &mut PgConnection) -> Result<Total, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- completeness.total
        with live as (
            select conversation.first_seen_at, conversation.unverified_since, known.*,
                   greatest(known.verified_at, conversation.verified_at) as last_at,
                   case when known.verified_at >= coalesce(conversation.verified_at, known.verified_at)
                        then known.verified_by else 'read' end as last_by
            from conversation
            left join conversation_check as known on known.conversation_sid = conversation.conversation_sid
            where conversation.removed_at is null)
        select count(*) as "conversations!", count(*) filter (where last_at is null) as "never_verified!",
               count(unverified_since) as "in_doubt!", max(last_at) as verified_at,
               (select last_by from live where last_at is not null order by last_at desc limit 1) as verified_by,
               min(coalesce(last_at, first_seen_at)) as unverified_since,
               coalesce(sum(participants), 0)::bigint as "participants!",
               coalesce(sum(messages), 0)::bigint as "messages!", coalesce(sum(receipts), 0)::bigint as "receipts!",
               (select count(*) from webhook_set_aside) as "set_aside!",
               (select count(*) from webhook_pending) as "pending!"
        from live"#
    )
    .fetch_one(&mut *conn)
    .await?;
    let found = found(conn).await?;
    Ok(Total {
        conversations: row.conversations,
        never_verified: row.never_verified,
        in_doubt: row.in_doubt,
        verified_at: row.verified_at.map(jiff_sqlx::Timestamp::to_jiff),
        verified_by: row.verified_by.as_deref().map(By::from_column),
        unverified_since: row.unverified_since.map(jiff_sqlx::Timestamp::to_jiff),
        compared: Compared {
            participants: row.participants,
            messages: row.messages,
            receipts: row.receipts,
        },
        found,
        webhooks_set_aside: row.set_aside,
        webhooks_pending: row.pending,
        accounts: accounts(conn).await?,
    })
}

/// Of the conversations that are gone, too: that they went unnoticed was found as well.
async fn found(conn: &mut PgConnection) -> Result<Found, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- completeness.found
        select coalesce(sum(missing), 0)::bigint as "missing!", coalesce(sum(stale), 0)::bigint as "stale!",
               coalesce(sum(gone), 0)::bigint as "gone!", coalesce(sum(extra), 0)::bigint as "extra!"
        from conversation_check"#
    )
    .fetch_one(conn)
    .await?;
    Ok(Found {
        missing: row.missing,
        stale: row.stale,
        gone: row.gone,
        extra: row.extra,
    })
}

async fn accounts(conn: &mut PgConnection) -> Result<Vec<OfAccount>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- completeness.accounts
        select account_sid as "account_sid: AccountSid" from sweep_run
        union select account_sid from conversation
        order by 1"#
    )
    .fetch_all(&mut *conn)
    .await?;
    let mut accounts = Vec::with_capacity(rows.len());
    for row in rows {
        let account_sid = row.account_sid.as_ref().map_or("", AccountSid::as_str);
        accounts.push(OfAccount {
            account_sid: account_sid.to_owned(),
            last_completed: store::last_completed(conn, account_sid).await?,
            newest: store::newest(conn, account_sid).await?,
        });
    }
    Ok(accounts)
}

/// Sets the gauges that tell how complete the mirror is.
pub(super) fn publish(total: &Total, now: Timestamp) {
    let age = total
        .unverified_since
        .map_or(0.0, |since| now.duration_since(since).as_secs_f64());
    metrics::gauge!("hookswitch_mirror_unverified_seconds").set(age);
    metrics::gauge!("hookswitch_mirror_conversations").set(as_gauge(total.conversations));
    metrics::gauge!("hookswitch_mirror_never_verified").set(as_gauge(total.never_verified));
    metrics::gauge!("hookswitch_mirror_in_doubt").set(as_gauge(total.in_doubt));
    for account in &total.accounts {
        if let Some(run) = &account.last_completed {
            metrics::gauge!("hookswitch_sweep_completed_timestamp_seconds", "account" => account.account_sid.clone())
                .set(as_gauge(run.started_at.as_second()));
        }
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float, and counts and seconds stay far below 2^52"
)]
fn as_gauge(value: i64) -> f64 {
    value as f64
}
