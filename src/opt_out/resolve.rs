//! Finding out whom a word or a refusal was about whose member had not come yet.

use futures_util::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use sqlx::{PgConnection, PgPool};
use tracing::warn;

use crate::clock::Clock;
use crate::events::Via;
use crate::ids::{AccountSid, ConversationSid};
use crate::mirror::read;
use crate::opt_out::Source;
use crate::opt_out::find::Seen;
use crate::opt_out::follow::take_in;
use crate::opt_out::keywords::Keyword;
use crate::queue::{self, Handler, Outcome, Task};

/// Runs [`super::RESOLVE_TASK`].
#[derive(Debug, Clone)]
pub struct Resolve {
    pub pool: PgPool,
    pub clock: Clock,
}

#[derive(Debug, Deserialize)]
struct Unresolved {
    account_sid: AccountSid,
    conversation_sid: ConversationSid,
    message_sid: String,
    receipt_sid: Option<String>,
    /// When it was said. None in what was put before this was kept.
    at: Option<Timestamp>,
}

/// After so long the members are not waited for any more.
const RESOLVE_WITHIN: SignedDuration = SignedDuration::from_hours(1);
const RESOLVE_AGAIN: SignedDuration = SignedDuration::from_secs(30);

impl Handler for Resolve {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Unresolved = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            match self.resolve(task, &payload).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Retry(error.into()),
            }
        })
    }
}

impl Resolve {
    async fn resolve(&self, task: &Task, payload: &Unresolved) -> Result<Outcome, sqlx::Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        read::lock_conversation(&mut transaction, &payload.conversation_sid).await?;
        let Some(seen) = seen_in_mirror(&mut transaction, payload).await? else {
            return Ok(Outcome::Done);
        };
        let waiting = take_in(&mut transaction, vec![seen], Via::Worker, now).await?;
        if waiting.is_empty() {
            if queue::finish(&mut transaction, task.lease).await? {
                transaction.commit().await?;
            }
            return Ok(Outcome::Finished);
        }
        if now.duration_since(task.created_at) > RESOLVE_WITHIN {
            warn!(
                conversation.sid = %payload.conversation_sid,
                "cannot tell who opted out, since the member is not known"
            );
            return Ok(Outcome::Done);
        }
        Ok(Outcome::Wait(RESOLVE_AGAIN))
    }
}

/// What was seen, as the mirror has it by now.
async fn seen_in_mirror(conn: &mut PgConnection, payload: &Unresolved) -> Result<Option<Seen>, sqlx::Error> {
    let sid = payload.conversation_sid.as_str();
    let common = |keyword, source, at, evidence: &str| Seen {
        account_sid: payload.account_sid.clone(),
        conversation_sid: payload.conversation_sid.clone(),
        keyword,
        source,
        at,
        evidence: evidence.to_owned(),
        message_sid: None,
        author: None,
        participant_sid: None,
        cause: format!("message:{}", payload.message_sid),
    };
    if let Some(receipt_sid) = &payload.receipt_sid {
        let receipts = read::receipts(conn, sid, &[&payload.message_sid]).await?;
        let receipt = receipts
            .into_iter()
            .find(|one| one.delivery_receipt_sid == *receipt_sid);
        return Ok(receipt.map(|receipt| Seen {
            message_sid: Some(payload.message_sid.clone()),
            participant_sid: receipt.participant_sid,
            ..common(
                Keyword::Stop,
                Source::Receipt,
                payload.at.unwrap_or(receipt.updated_at),
                receipt_sid,
            )
        }));
    }
    let message = read::message(conn, sid, &payload.message_sid).await?;
    Ok(message
        .filter(|message| message.removed_at.is_none())
        .and_then(|message| {
            let keyword = Keyword::of(message.body.as_deref()?)?;
            let at = payload.at.or(message.created_at).unwrap_or(message.updated_at);
            Some(Seen {
                author: message.author,
                participant_sid: message.participant_sid,
                ..common(keyword, Source::Keyword, at, &message.message_sid)
            })
        }))
}
