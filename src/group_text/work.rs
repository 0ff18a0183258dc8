//! The calls to Twilio that a group text needs: create it, adopt what is there already, see whether it is ready.

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use tracing::{info, warn};
use uuid::Uuid;

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::config;
use crate::events::{Kind, Via};
use crate::group_text::validate::roster;
use crate::group_text::{CHECK_TASK, GroupText, Member, State, choice, follow, operations, store};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::mirror::{self, Change, Observed, project};
use crate::projection;
use crate::projection::read::Failure;
use crate::queue::{self, Handler, NewTask, Outcome, Task};
use crate::twilio::conversations::Of;
use crate::twilio::model::{Conversation, ConversationState, Participant};
use crate::twilio::requests::{self, NewConversation, NewParticipant};
use crate::twilio::{Class, Error as TwilioError};

/// Runs [`super::CREATE_TASK`].
#[derive(Debug, Clone)]
pub struct Create {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

/// Runs [`CHECK_TASK`].
#[derive(Debug, Clone)]
pub struct Check {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
    pub settings: config::GroupText,
}

#[derive(Debug, Deserialize)]
struct Payload {
    group_text_id: Uuid,
}

/// What Twilio has that this group text is.
pub(super) struct Found {
    pub(super) conversation: Conversation,
    participants: Vec<Participant>,
    pub(super) adopted: bool,
}

impl Handler for Create {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            self.create(task, payload.group_text_id)
                .await
                .unwrap_or_else(Failure::outcome)
        })
    }

    fn buried<'a>(
        &'a self,
        conn: &'a mut PgConnection,
        task: &'a Task,
        error: &'a str,
    ) -> BoxFuture<'a, Result<(), sqlx::Error>> {
        Box::pin(async move {
            let now = self.clock.now();
            let Ok(payload) = serde_json::from_value::<Payload>(task.payload.clone()) else {
                return Ok(());
            };
            match store::lock(conn, payload.group_text_id).await? {
                Some(group) if group.state == State::Requested => {
                    let detail = format!("given up after {} attempts: {error}", task.attempts);
                    follow::fail(conn, group, "not_created", &detail, Via::Worker, now).await
                }
                _ => Ok(()),
            }
        })
    }
}

impl Create {
    async fn create(&self, task: &Task, group_text_id: Uuid) -> Result<Outcome, Failure> {
        let mut conn = self.pool.acquire().await?;
        let group = store::find(&mut conn, group_text_id).await?;
        drop(conn);
        let Some(group) = group.filter(|group| group.state == State::Requested) else {
            return Ok(Outcome::Done);
        };
        let Some(account) = self.accounts.get(&group.account_sid) else {
            return Ok(Outcome::Wait(SignedDuration::from_secs(30)));
        };
        // Beyond the first try, the one before may have done it although its answer was lost.
        if task.attempts > 1
            && let Some(found) = by_unique_name(account, &group).await?
        {
            return self.record(task, account, group, found).await;
        }
        match self.ask(account, &group).await {
            Ok(conversation) => {
                let found = Found {
                    conversation,
                    participants: Vec::new(),
                    adopted: false,
                };
                self.record(task, account, group, found).await
            }
            Err(error) => self.after_error(task, account, group, error).await,
        }
    }

    async fn ask(&self, account: &Account, group: &GroupText) -> Result<Conversation, TwilioError> {
        let new = NewConversation {
            friendly_name: group.friendly_name.clone().map(Into::into),
            unique_name: Some(group.unique_name()),
            messaging_service_sid: Some(account.messaging_service_sid.clone()),
            attributes: group.attributes.clone().map(Into::into),
        };
        let participants: Vec<NewParticipant> = group.members.iter().filter_map(participant).collect();
        account
            .client
            .create_conversation_with_participants(&new, &participants)
            .await
    }

    async fn after_error(
        &self,
        task: &Task,
        account: &Account,
        group: GroupText,
        error: TwilioError,
    ) -> Result<Outcome, Failure> {
        let code = error.code();
        match &error {
            TwilioError::Rejected(rejection) if code == Some(50438) => {
                let mut found = match &rejection.conversation_sid {
                    Some(sid) => Some(read(account, sid, true).await?),
                    None => by_roster(account, &group).await?,
                };
                // Our own earlier try, whose answer was lost, is nothing that was there before.
                if let Some(found) = &mut found {
                    found.adopted = found.conversation.unique_name != Some(group.unique_name());
                }
                if let Some(outcome) = self.after_taken(task, account, &group, found.as_ref()).await? {
                    return Ok(outcome);
                }
                match found {
                    Some(found) => self.record(task, account, group, found).await,
                    // It was closed meanwhile, or Twilio is still adding its members.
                    None => Err(error.into()),
                }
            }
            // Our own earlier try has the name.
            TwilioError::Rejected(_) if code == Some(50353) => match by_unique_name(account, &group).await? {
                Some(found) => self.record(task, account, group, found).await,
                None => self.start_again(task, group).await,
            },
            TwilioError::Rejected(rejection) => match rejection.class {
                Class::StartAgain => self.start_again(task, group).await,
                Class::Throttled | Class::Failed | Class::Conflict => Err(error.into()),
                Class::NotFound
                | Class::AlreadySo
                | Class::Refused
                | Class::Configuration
                | Class::OwnWebhook => self.fail(task, group, &error).await,
            },
            TwilioError::Configuration { .. } | TwilioError::NotFound { .. } => {
                self.fail(task, group, &error).await
            }
            TwilioError::Throttled { .. }
            | TwilioError::Unavailable { .. }
            | TwilioError::OutcomeUnknown { .. }
            | TwilioError::Malformed { .. } => Err(error.into()),
        }
    }

    /// Takes what Twilio has: the mirror, the group text and the next look in one transaction.
    async fn record(
        &self,
        task: &Task,
        account: &Account,
        group: GroupText,
        found: Found,
    ) -> Result<Outcome, Failure> {
        let now = self.clock.now();
        let observed = observe(account, &group, &found);
        let mut transaction = self.pool.begin().await?;
        projection::commit(&mut transaction, &observed, Via::Rest, None, now).await?;
        let sid = found.conversation.sid.clone();
        let Some(mut group) = store::lock(&mut transaction, group.group_text_id).await? else {
            return Ok(Outcome::Done);
        };
        // A group text of the same conversation may be there: one that a customer started, or one that was closed.
        let taken = store::find_by_conversation(&mut transaction, sid.as_str()).await?;
        if let Some(other) = taken.filter(|other| other.group_text_id != group.group_text_id) {
            let detail = format!(
                "Twilio has this group already; it is group text {}",
                other.group_text_id
            );
            let mut kept = choice::find(&mut transaction, group.group_text_id).await?;
            kept.existing_conversation_sid = Some(sid.as_str().to_owned());
            choice::keep(&mut transaction, group.group_text_id, &kept).await?;
            follow::fail(&mut transaction, group, "exists", &detail, Via::Worker, now).await?;
        } else {
            group.conversation_sid = Some(sid.as_str().to_owned());
            group.adopted = found.adopted;
            group.updated_at = now;
            store::update(&mut transaction, &group).await?;
            if group.adopted {
                operations::tell(
                    &mut transaction,
                    &group,
                    Kind::GroupTextAdopted,
                    None,
                    Via::Rest,
                    now,
                )
                .await?;
            }
            self.catch_up(&mut transaction, group, &sid, now).await?;
        }
        if !queue::finish(&mut transaction, task.lease).await? {
            return Ok(Outcome::Finished);
        }
        transaction.commit().await?;
        info!(conversation.sid = %sid, adopted = found.adopted, "group text created");
        Ok(Outcome::Finished)
    }

    /// The webhook that says `active` may have come before Twilio's answer to our call: the mirror knows.
    async fn catch_up(
        &self,
        conn: &mut PgConnection,
        group: GroupText,
        sid: &ConversationSid,
        now: jiff::Timestamp,
    ) -> Result<(), sqlx::Error> {
        let Some(row) = mirror::read::conversation(conn, sid.as_str()).await? else {
            return Ok(());
        };
        let state = mirror::StateNow {
            account_sid: row.account_sid,
            friendly_name: row.friendly_name,
            state: row.state,
            removed: row.removed_at.is_some(),
            autocreated: row.autocreated,
        };
        put_check(conn, &group, 1, now).await?;
        follow::step(conn, group, &state, Via::Rest, now).await
    }

    async fn start_again(&self, task: &Task, group: GroupText) -> Result<Outcome, Failure> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let Some(group) = store::lock(&mut transaction, group.group_text_id).await? else {
            return Ok(Outcome::Done);
        };
        if queue::finish(&mut transaction, task.lease).await? {
            follow::start_again(&mut transaction, group, Via::Rest, now).await?;
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }

    async fn fail(&self, task: &Task, group: GroupText, error: &TwilioError) -> Result<Outcome, Failure> {
        let now = self.clock.now();
        let code = error
            .code()
            .map_or_else(|| "twilio_refused".to_owned(), |code| format!("twilio_{code}"));
        let detail = format!("{error}{}", hint(error.code()));
        warn!(code = %code, "Twilio refused a group text");
        let mut transaction = self.pool.begin().await?;
        let Some(group) = store::lock(&mut transaction, group.group_text_id).await? else {
            return Ok(Outcome::Done);
        };
        if queue::finish(&mut transaction, task.lease).await? {
            follow::fail(&mut transaction, group, &code, &detail, Via::Rest, now).await?;
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }
}

/// What a person can do about a refusal.
fn hint(code: Option<u32>) -> &'static str {
    match code {
        Some(50407) => ": a member's number cannot take part in a group text",
        Some(50425) => ": a member and a line are together in another conversation",
        Some(50439) => ": a line is not a number of this account",
        Some(50452) => ": group texting is not enabled for this account, ask Twilio's support",
        Some(50340..=50342 | 50373) => ": check the account's `messaging_service_sid`",
        Some(20003 | 20005 | 20006) => ": check the account's credentials",
        _ => "",
    }
}

async fn by_unique_name(account: &Account, group: &GroupText) -> Result<Option<Found>, TwilioError> {
    match account
        .client
        .fetch_conversation_by_unique_name(&group.unique_name())
        .await
    {
        Ok(conversation) if conversation.state == ConversationState::Closed => Ok(None),
        Ok(conversation) => Ok(Some(Found {
            conversation,
            participants: Vec::new(),
            adopted: false,
        })),
        Err(TwilioError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Looks for the open conversation of the same numbers, where Twilio says that there is one and does not name it.
async fn by_roster(account: &Account, group: &GroupText) -> Result<Option<Found>, TwilioError> {
    let outsider = group.members.iter().find_map(|member| match member {
        Member::Outsider { address } => PhoneNumber::try_from(address.as_str()).ok(),
        Member::Line { .. } => None,
    });
    let Some(outsider) = outsider else { return Ok(None) };
    for row in account
        .client
        .list_participant_conversations(Of::Address(&outsider))
        .all()
        .await?
    {
        if row.conversation_state == ConversationState::Closed {
            continue;
        }
        let found = read(account, &row.conversation_sid, true).await?;
        if Some(roster_of(&found.participants)) == group.roster {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

fn roster_of(participants: &[Participant]) -> String {
    let members: Vec<Member> = participants
        .iter()
        .filter_map(|participant| {
            let binding = &participant.messaging_binding;
            let number = binding.projected_address.as_ref().or(binding.address.as_ref())?;
            Some(Member::Outsider {
                address: number.as_str().to_owned(),
            })
        })
        .collect();
    roster(&members)
}

async fn read(account: &Account, sid: &ConversationSid, adopted: bool) -> Result<Found, TwilioError> {
    let conversation = account.client.fetch_conversation(sid).await?;
    let participants = account.client.list_participants(sid).all().await?;
    Ok(Found {
        conversation,
        participants,
        adopted,
    })
}

pub(super) fn observe(account: &Account, group: &GroupText, found: &Found) -> Vec<Observed> {
    let changes: Vec<Change> = project::conversation(&found.conversation)
        .into_iter()
        .chain(found.participants.iter().filter_map(project::participant))
        .collect();
    changes
        .into_iter()
        .map(|change| Observed {
            account_sid: account.account_sid.clone(),
            change,
            cause: format!("group_text:{}", group.group_text_id),
            source: None,
        })
        .collect()
}

fn participant(member: &Member) -> Option<NewParticipant> {
    let member = match member {
        Member::Outsider { address } => requests::Member::Native {
            address: PhoneNumber::try_from(address.as_str()).ok()?,
        },
        Member::Line { line, holder } => {
            let projected_address = PhoneNumber::try_from(line.as_str()).ok()?;
            match holder {
                Some(holder) => requests::Member::Projected {
                    identity: Identity::try_from(holder.as_str()).ok()?,
                    projected_address,
                },
                None => requests::Member::Gateway { projected_address },
            }
        }
    };
    Some(member.into())
}

/// Half a second, one, two, four, … up to half a minute (Twilio says: poll).
fn pause(look: u32) -> SignedDuration {
    SignedDuration::from_millis(500 << look.min(6)).min(SignedDuration::from_secs(30))
}

async fn put_check(
    conn: &mut PgConnection,
    group: &GroupText,
    look: u32,
    now: jiff::Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: CHECK_TASK,
        order_key: format!("group_text:{}", group.group_text_id),
        unique_key: Some(group.group_text_id.to_string()),
        payload: json!({ "group_text_id": group.group_text_id, "look": look }),
        run_at: now + pause(look - 1),
        attempts_max: 100,
    };
    queue::put(conn, &task, now).await
}

#[derive(Debug, Deserialize)]
struct CheckPayload {
    group_text_id: Uuid,
    look: u32,
}

impl Handler for Check {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: CheckPayload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            self.check(task, &payload).await.unwrap_or_else(Failure::outcome)
        })
    }
}

impl Check {
    /// Reads the conversation and, once it is open, its members, whose SIDs no answer has told: webhooks may be lost.
    async fn check(&self, task: &Task, payload: &CheckPayload) -> Result<Outcome, Failure> {
        let mut conn = self.pool.acquire().await?;
        let group = store::find(&mut conn, payload.group_text_id).await?;
        let Some((group, sid)) = group.and_then(|group| {
            let sid = ConversationSid::try_from(group.conversation_sid.as_deref()?).ok()?;
            matches!(
                group.state,
                State::Requested | State::Initializing | State::Active
            )
            .then_some((group, sid))
        }) else {
            return Ok(Outcome::Done);
        };
        let Some(account) = self.accounts.get(&group.account_sid) else {
            return Ok(Outcome::Wait(SignedDuration::from_secs(30)));
        };
        let began_at = self.clock.now();
        let revisions = mirror::standing(&mut conn, sid.as_str()).await?.revisions;
        let members = mirror::read::participants(&mut conn, sid.as_str()).await?;
        drop(conn);

        let found = read(account, &sid, group.adopted).await?;
        let pending = found.conversation.state == ConversationState::Initializing;
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let observed = observe(account, &group, &found);
        projection::commit(&mut transaction, &observed, Via::Rest, Some(&revisions), now).await?;
        if !queue::finish(&mut transaction, task.lease).await? {
            return Ok(Outcome::Finished);
        }
        let patience =
            SignedDuration::try_from(self.settings.activation_timeout).unwrap_or(SignedDuration::MAX);
        // Members that Twilio no longer lists are a sweep's business, and it is not said that all is verified.
        let are_listed = members.iter().filter(|one| one.removed_at.is_none()).all(|one| {
            found
                .participants
                .iter()
                .any(|other| other.sid.as_str() == one.participant_sid)
        });
        if !pending && are_listed {
            mirror::mark_verified_as_of(&mut transaction, &sid, began_at).await?;
        } else if !pending {
            mirror::put_read(&mut transaction, &account.account_sid, &sid, None, now, now).await?;
        } else if now.duration_since(group.created_at) < patience {
            put_check(&mut transaction, &group, payload.look + 1, now).await?;
        } else if let Some(group) = store::lock(&mut transaction, group.group_text_id)
            .await?
            .filter(|group| matches!(group.state, State::Requested | State::Initializing))
        {
            let detail = "Twilio has not finished adding the members in time";
            follow::fail(
                &mut transaction,
                group,
                follow::ACTIVATION_TIMEOUT,
                detail,
                Via::Timer,
                now,
            )
            .await?;
        }
        transaction.commit().await?;
        Ok(Outcome::Finished)
    }
}
