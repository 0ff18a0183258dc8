//! Reads at Twilio that the mirror asked for: of a conversation with its participants, or of one message.

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use serde::Deserialize;
use sqlx::PgPool;
use tracing::warn;

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::events::Via;
use crate::ids::{AccountSid, ConversationSid, MessageSid, ParticipantSid};
use crate::mirror::read::ParticipantRow;
use crate::mirror::{self, Change, Observed, Version, change, project};
use crate::queue::{self, Handler, Outcome, Task};
use crate::{projection, twilio};

/// Runs [`mirror::READ_TASK`].
#[derive(Debug, Clone)]
pub struct Reader {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

#[derive(Debug, Deserialize)]
struct Payload {
    account_sid: AccountSid,
    conversation_sid: ConversationSid,
    message_sid: Option<MessageSid>,
}

impl Handler for Reader {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            let Some(account) = self.accounts.get(payload.account_sid.as_str()) else {
                return Outcome::Bury(anyhow::anyhow!(
                    "account {} is not configured",
                    payload.account_sid
                ));
            };
            self.read(account, &payload, task)
                .await
                .unwrap_or_else(Failure::outcome)
        })
    }
}

/// Why a task that talks to Twilio and the database could not go on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
    #[error("Twilio did not answer as hoped")]
    Twilio(#[from] twilio::Error),
}

impl Failure {
    /// What the queue does about it: configuration is for a person, though it may be mended while we try.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Twilio(twilio::Error::Throttled { retry_after, .. }) => Outcome::Wait(
                retry_after
                    .and_then(|pause| pause.try_into().ok())
                    .unwrap_or(SignedDuration::from_secs(1)),
            ),
            other => Outcome::Retry(other.into()),
        }
    }
}

impl Reader {
    async fn read(&self, account: &Account, payload: &Payload, task: &Task) -> Result<Outcome, Failure> {
        let sid = &payload.conversation_sid;
        let began_at = self.clock.now();
        let mut conn = self.pool.acquire().await?;
        let service_sid = &account.client.settings().service_sid;
        let row = mirror::read::conversation(&mut conn, sid.as_str()).await?;
        if row
            .and_then(|row| row.service_sid)
            .is_some_and(|other| other != service_sid.as_str())
        {
            // Twilio would not find it here, which says nothing.
            warn!(conversation_sid = %sid, "of another service of the account: not read");
            return Ok(Outcome::Done);
        }
        let known = mirror::read::participants(&mut conn, sid.as_str()).await?;
        let mut revisions = mirror::standing(&mut conn, sid.as_str()).await?.revisions;
        if let Some(message_sid) = &payload.message_sid {
            revisions
                .extend(mirror::revision_of_message(&mut conn, sid.as_str(), message_sid.as_str()).await?);
        }
        drop(conn);

        let changes = match &payload.message_sid {
            Some(message_sid) => message(account, sid, message_sid, gone_now(&self.clock)).await?,
            None => conversation(account, sid, &known, gone_now(&self.clock)).await?,
        };
        let observed: Vec<Observed> = changes
            .into_iter()
            .map(|change| Observed {
                account_sid: account.account_sid.clone(),
                change,
                cause: format!("read:{}", task.lease.task_id),
                source: None,
            })
            .collect();

        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        projection::commit(&mut transaction, &observed, Via::Rest, Some(&revisions), now).await?;
        if payload.message_sid.is_none() {
            mirror::mark_verified_as_of(&mut transaction, sid, began_at).await?;
        }
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }
}

/// When a resource that Twilio no longer has went away is not told; we know only that it is gone now.
pub fn gone_now(clock: &Clock) -> Version {
    Version::exact(clock.now())
}

/// A conversation and its members as Twilio has them. Members that we know and that it does not list are asked for one
/// by one: only Twilio's word that one is gone makes it so.
pub async fn conversation(
    account: &Account,
    sid: &ConversationSid,
    known: &[ParticipantRow],
    gone: Version,
) -> Result<Vec<Change>, twilio::Error> {
    let conversation = match account.client.fetch_conversation(sid).await {
        Err(twilio::Error::NotFound { .. }) => {
            return Ok(vec![Change::ConversationRemoved {
                conversation_sid: sid.clone(),
                version: gone,
            }]);
        }
        other => other?,
    };
    let listed = account.client.list_participants(sid).all().await?;
    let mut changes = project::conversation(&conversation);
    changes.extend(listed.iter().filter_map(project::participant));
    let absent = known.iter().filter(|one| one.removed_at.is_none()).filter(|one| {
        listed
            .iter()
            .all(|other| other.sid.as_str() != one.participant_sid)
    });
    for one in absent {
        let Ok(participant_sid) = ParticipantSid::try_from(one.participant_sid.as_str()) else {
            continue;
        };
        match account.client.fetch_participant(sid, &participant_sid).await {
            Ok(found) => changes.extend(project::participant(&found)),
            Err(twilio::Error::NotFound { .. }) => {
                changes.push(Change::Participant(change::ParticipantChange {
                    conversation_sid: sid.clone(),
                    participant_sid,
                    version: gone,
                    removed: true,
                    fields: None,
                    created_at: None,
                }));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(changes)
}

async fn message(
    account: &Account,
    sid: &ConversationSid,
    message_sid: &MessageSid,
    gone: Version,
) -> Result<Vec<Change>, twilio::Error> {
    match account.client.fetch_message(sid, message_sid).await {
        Err(twilio::Error::NotFound { .. }) => Ok(vec![Change::Message(change::MessageChange {
            conversation_sid: sid.clone(),
            message_sid: message_sid.clone(),
            version: gone,
            removed: true,
            fields: None,
            created_at: None,
        })]),
        other => Ok(project::message(&other?).into_iter().collect()),
    }
}
