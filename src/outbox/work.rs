//! Sends one message, once.

use futures_util::future::BoxFuture;
use jiff::SignedDuration;
use serde::Deserialize;
use serde_json::{Map, Value};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::{Account, Accounts};
use crate::clock::Clock;
use crate::events::{Kind, Via};
use crate::health::{self, Health};
use crate::ids::ConversationSid;
use crate::mirror::{self, Observed, project};
use crate::outbox::upload::{Uploaded, may_pass};
use crate::outbox::{ATTRIBUTE, OutboundMessage, State, Waiting, media, operations, sent_as, store, update};
use crate::projection::read::Failure;
use crate::queue::{self, Handler, Outcome, Task};
use crate::twilio::conversations::Order;
use crate::twilio::model::Message;
use crate::twilio::requests::NewMessage;
use crate::twilio::{Class, Error as TwilioError};
use crate::{ledger, projection};

/// Runs [`super::SEND_TASK`].
#[derive(Debug, Clone)]
pub struct Send {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
    pub health: Health,
}

/// How far back messages are looked through for one that may have been sent: until they are older than it by so much.
/// More than clocks differ.
const LOOK_BACK: SignedDuration = SignedDuration::from_hours(3);

/// And no more than so many. Where they were not enough, a person has to look.
const LOOK_BACK_MAX: usize = 20_000;

/// How long after an attempt without an answer a message that is not listed counts as not sent: what was still on its way
/// at Twilio when we gave up has ended by then.
const SETTLED_AFTER: SignedDuration = SignedDuration::from_secs(2);

/// Why a message whose line is gone was not sent.
pub(super) const LINE_GONE: &str =
    "the number is no longer in the conversation, or the conversation has ended";

/// For so long a message is looked for of which Twilio says that it exists.
const LOOK_FOR: SignedDuration = SignedDuration::from_mins(5);

/// What stands in a message's outcome while it is known to be at Twilio and is not found there.
const TOOK_MEDIA: &str = "media_taken";

/// Twilio's codes for media that a message has taken already, and for one that is not there (any more).
const MEDIA_USED: u32 = 50_508;
const MEDIA_NOT_FOUND: u32 = 50_507;

#[derive(Debug, Deserialize)]
struct Payload {
    outbound_message_id: Uuid,
}

impl Handler for Send {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            self.send(task, payload.outbound_message_id)
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
            let Ok(payload) = serde_json::from_value::<Payload>(task.payload.clone()) else {
                return Ok(());
            };
            let Some(mut message) = store::find(conn, payload.outbound_message_id).await? else {
                return Ok(());
            };
            let (sid, id) = (message.conversation_sid.clone(), message.outbound_message_id);
            let shown = match message.state {
                State::Queued => None,
                State::Sending => mirror::read::message_carrying(conn, &sid, &id.to_string()).await?,
                State::Sent | State::Failed | State::NeedsAttention => return Ok(()),
            };
            let kind = match (message.state, shown) {
                (_, Some(message_sid)) => {
                    message.settle_as_sent(&message_sid);
                    Kind::SendSent
                }
                (State::Sending, None) => {
                    message.give_up(State::NeedsAttention, task, error);
                    Kind::SendNeedsAttention
                }
                (_, None) => {
                    message.give_up(State::Failed, task, error);
                    Kind::SendFailed
                }
            };
            message.updated_at = self.clock.now();
            update(conn, &message).await?;
            operations::tell(conn, &message, kind, Via::Worker, message.updated_at).await
        })
    }
}

impl OutboundMessage {
    fn give_up(&mut self, state: State, task: &Task, error: &str) {
        self.state = state;
        self.waiting = None;
        self.outcome_code = Some("given_up".to_owned());
        self.outcome_detail = Some(format!("given up after {} attempts: {error}", task.attempts));
    }
}

impl Send {
    async fn send(&self, task: &Task, id: Uuid) -> Result<Outcome, Failure> {
        let mut conn = self.pool.acquire().await?;
        let message = store::find(&mut conn, id).await?;
        drop(conn);
        let Some(message) = message.filter(|message| matches!(message.state, State::Queued | State::Sending))
        else {
            return Ok(Outcome::Done);
        };
        let Some(account) = self.accounts.get(&message.account_sid) else {
            return Ok(Outcome::Wait(SignedDuration::from_secs(30)));
        };
        let Ok(sid) = ConversationSid::try_from(message.conversation_sid.as_str()) else {
            return Ok(Outcome::Bury(anyhow::anyhow!(
                "the message's conversation is no SID"
            )));
        };
        if message.state == State::Sending {
            // Not before: a list that was read too early proves nothing.
            let age = self.clock.now().duration_since(message.updated_at);
            if age < SETTLED_AFTER {
                return Ok(Outcome::Wait(SETTLED_AFTER - age));
            }
            match look_for(account, &sid, &message).await? {
                Found::Sent(sent) => return self.record(task, account, message, &sent).await,
                // It was sent, whatever became of it since: it is not sent again.
                Found::No if message.outcome_code.as_deref() == Some(TOOK_MEDIA) => {
                    let error =
                        anyhow::anyhow!("Twilio says that a message took its media, and lists none of ours");
                    return Ok(if age < LOOK_FOR {
                        Outcome::Retry(error)
                    } else {
                        Outcome::Bury(error)
                    });
                }
                Found::No => {}
                Found::TooMany => {
                    return Ok(Outcome::Bury(anyhow::anyhow!(
                        "it is not among the newest {LOOK_BACK_MAX} messages"
                    )));
                }
            }
        }
        self.ask(task, account, &sid, message).await
    }

    async fn ask(
        &self,
        task: &Task,
        account: &Account,
        sid: &ConversationSid,
        mut message: OutboundMessage,
    ) -> Result<Outcome, Failure> {
        if let Some(outcome) = self.hold_back(task, account, &message).await? {
            return Ok(outcome);
        }
        let media_sid = match self.ensure_uploaded(task, account, &message).await? {
            Uploaded::None => None,
            Uploaded::As(media_sid) => Some(media_sid),
            Uploaded::LeaseLost => return Ok(Outcome::Finished),
            Uploaded::Gone => {
                let detail = "its media was erased before it was sent";
                return self.fail(task, message, "media_gone", detail).await;
            }
            // Nothing was posted by that, whatever came of the upload.
            Uploaded::Refused(error) if may_pass(&error) => {
                return self.wait(task, message, State::Queued, error).await;
            }
            Uploaded::Refused(error) => return self.after_error(task, message, error).await,
        };
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        if !queue::is_held(&mut transaction, task.lease).await? {
            return Ok(Outcome::Finished);
        }
        let holder = ledger::holder_of(&mut transaction, sid.as_str(), &message.line).await?;
        let Some(holder) = holder else {
            drop(transaction);
            return self.fail(task, message, "line_gone", LINE_GONE).await;
        };
        if message.as_holder.is_some() && message.as_holder != holder {
            drop(transaction);
            let detail = "the line went to somebody else before the message was sent";
            return self.fail(task, message, "not_the_holder", detail).await;
        }
        // An unstaffed line writes as its own number.
        let author = holder.unwrap_or_else(|| message.line.clone());
        message.author = Some(author.clone());
        message.state = State::Sending;
        message.updated_at = now;
        store::update(&mut transaction, &message).await?;
        transaction.commit().await?;

        let new = NewMessage {
            author: Some(author.into()),
            body: Some(message.body.clone().into()).filter(|_| !message.body.is_empty()),
            media_sid,
            attributes: Some(attributes_of(&message).into()),
        };
        match account.client.create_message(sid, &new).await {
            Ok(sent) => self.record(task, account, message, &sent).await,
            Err(error) => self.after_error(task, message, error).await,
        }
    }

    async fn after_error(
        &self,
        task: &Task,
        mut message: OutboundMessage,
        error: TwilioError,
    ) -> Result<Outcome, Failure> {
        if message.media_count > 0 && error.code() == Some(MEDIA_USED) {
            // By a message that can only be ours: the next runs look for that.
            message.outcome_code = Some(TOOK_MEDIA.to_owned());
            return self.wait(task, message, State::Sending, error).await;
        }
        if message.media_count > 0 && error.code() == Some(MEDIA_NOT_FOUND) {
            // Twilio has removed it meanwhile: it is uploaded again.
            let (sid, id) = (message.conversation_sid.clone(), message.outbound_message_id);
            media::forget_upload(&mut *self.pool.acquire().await?, &sid, id).await?;
            return self.wait(task, message, State::Queued, error).await;
        }
        match &error {
            // The next run looks first, and what is still on its way at Twilio has time to arrive until then.
            TwilioError::OutcomeUnknown { .. } | TwilioError::Malformed { .. } => {
                self.wait(task, message, State::Sending, error).await
            }
            TwilioError::Throttled { .. } | TwilioError::Unavailable { .. } => {
                self.wait(task, message, State::Queued, error).await
            }
            TwilioError::Rejected(rejection)
                if matches!(
                    rejection.class,
                    Class::Conflict | Class::Throttled | Class::Failed
                ) =>
            {
                self.wait(task, message, State::Queued, error).await
            }
            TwilioError::Rejected(_) | TwilioError::NotFound { .. } | TwilioError::Configuration { .. } => {
                let code = error
                    .code()
                    .map_or_else(|| "twilio_refused".to_owned(), |code| format!("twilio_{code}"));
                let detail = format!("{error}{}", hint(error.code()));
                // One about credentials or the account says nothing of the line.
                let refusal = error.code().filter(|code| !matches!(code, 20_000..=20_999));
                self.fail_for(task, message, &code, &detail, refusal).await
            }
        }
    }

    /// Writes down how an attempt ended that did not end the message: `queued` is Twilio's word that it did nothing, and
    /// the next run need not look; `sending` is that nobody knows, as of now. Who waits for it is told why, once.
    async fn wait(
        &self,
        task: &Task,
        mut message: OutboundMessage,
        state: State,
        error: TwilioError,
    ) -> Result<Outcome, Failure> {
        let now = self.clock.now();
        let is_new = message.waiting.is_none();
        message.state = state;
        message.waiting = Some(Waiting {
            error: error.label(),
            since: message.waiting.map_or(now, |waiting| waiting.since),
        });
        message.updated_at = now;
        let mut transaction = self.pool.begin().await?;
        // A worker that overslept must not take back what another one has recorded meanwhile.
        if queue::is_held(&mut transaction, task.lease).await? {
            store::update(&mut transaction, &message).await?;
            if is_new {
                operations::tell(&mut transaction, &message, Kind::SendWaiting, Via::Worker, now).await?;
            }
            transaction.commit().await?;
        }
        Err(error.into())
    }

    async fn record(
        &self,
        task: &Task,
        account: &Account,
        mut message: OutboundMessage,
        sent: &Message,
    ) -> Result<Outcome, Failure> {
        let now = self.clock.now();
        let observed: Vec<Observed> = project::message(sent)
            .into_iter()
            .map(|change| Observed {
                account_sid: account.account_sid.clone(),
                change,
                cause: format!("send:{}", message.outbound_message_id),
                source: Some("API".to_owned()),
            })
            .collect();
        message.settle_as_sent(sent.sid.as_str());
        message.updated_at = now;
        let mut transaction = self.pool.begin().await?;
        projection::commit(&mut transaction, &observed, Via::Rest, None, now).await?;
        self.health
            .accepted_in(&mut transaction, of_line(&message), now)
            .await?;
        update(&mut transaction, &message).await?;
        operations::tell(&mut transaction, &message, Kind::SendSent, Via::Worker, now).await?;
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }

    pub(super) async fn fail(
        &self,
        task: &Task,
        message: OutboundMessage,
        code: &str,
        detail: &str,
    ) -> Result<Outcome, Failure> {
        self.fail_for(task, message, code, detail, None).await
    }

    /// As [`Send::fail`], where Twilio refused with a code of its own.
    async fn fail_for(
        &self,
        task: &Task,
        mut message: OutboundMessage,
        code: &str,
        detail: &str,
        refusal: Option<u32>,
    ) -> Result<Outcome, Failure> {
        let now = self.clock.now();
        message.state = State::Failed;
        message.waiting = None;
        message.outcome_code = Some(code.to_owned());
        message.outcome_detail = Some(detail.to_owned());
        message.updated_at = now;
        let mut transaction = self.pool.begin().await?;
        self.health
            .refused_in(&mut transaction, of_line(&message), refusal, now)
            .await?;
        update(&mut transaction, &message).await?;
        operations::tell(&mut transaction, &message, Kind::SendFailed, Via::Worker, now).await?;
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Outcome::Finished)
    }
}

fn of_line(message: &OutboundMessage) -> health::Send<'_> {
    health::Send {
        account_sid: &message.account_sid,
        conversation_sid: &message.conversation_sid,
        line: &message.line,
        outbound_message_id: message.outbound_message_id,
    }
}

/// What came of looking for a message that may have been sent.
enum Found {
    Sent(Box<Message>),
    No,
    /// There are more messages since then than are looked through.
    TooMany,
}

/// The message that carries our id, from the newest back to before it was asked for.
async fn look_for(
    account: &Account,
    sid: &ConversationSid,
    wanted: &OutboundMessage,
) -> Result<Found, TwilioError> {
    let until = wanted.created_at - LOOK_BACK;
    let mut pages = account.client.list_messages(sid, Order::NewestFirst);
    let mut seen = 0;
    while let Some(page) = pages.next().await? {
        seen += page.len();
        let is_past = page
            .last()
            .is_some_and(|oldest| oldest.date_created.is_some_and(|at| at.at < until));
        let sent = page
            .into_iter()
            .find(|message| sent_as(message.attributes.as_str()) == Some(wanted.outbound_message_id));
        if let Some(sent) = sent {
            return Ok(Found::Sent(Box::new(sent)));
        }
        if is_past {
            break;
        }
        if seen >= LOOK_BACK_MAX {
            return Ok(Found::TooMany);
        }
    }
    Ok(Found::No)
}

fn attributes_of(message: &OutboundMessage) -> String {
    let mut attributes: Map<String, Value> = message
        .attributes
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    attributes.insert(
        ATTRIBUTE.to_owned(),
        Value::from(message.outbound_message_id.to_string()),
    );
    Value::from(attributes).to_string()
}

/// What a person can do about a refusal.
fn hint(code: Option<u32>) -> &'static str {
    match code {
        Some(50377) => ": the conversation is closed, which is final",
        Some(50504) => ": the text is longer than 1600 characters",
        Some(50513) => ": the line's holder is not a member of the group at Twilio",
        Some(50373) => ": the conversation has no messaging service",
        Some(50511) => ": Twilio does not take media of this type",
        Some(50512) => ": the media is too large for Twilio",
        Some(20003 | 20005 | 20006) => ": check the account's credentials",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_again_by_the_id_in_its_attributes() {
        let id = Uuid::from_u128(7);
        let message = OutboundMessage {
            outbound_message_id: id,
            conversation_sid: String::new(),
            account_sid: String::new(),
            line: String::new(),
            as_holder: None,
            author: None,
            body: String::new(),
            attributes: Some(r#"{"crm":"x","hookswitch_send_id":"forged"}"#.to_owned()),
            media_count: 0,
            acknowledged_opt_out: false,
            held_since: None,
            waiting: None,
            state: State::Queued,
            outcome_code: None,
            outcome_detail: None,
            message_sid: None,
            requested_by: String::new(),
            created_at: jiff::Timestamp::UNIX_EPOCH,
            updated_at: jiff::Timestamp::UNIX_EPOCH,
            erased_at: None,
        };
        assert_eq!(sent_as(&attributes_of(&message)), Some(id));
        assert_eq!(sent_as("{}"), None);
        assert_eq!(sent_as("not json"), None);
    }
}
