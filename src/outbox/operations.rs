//! Asking for a message to be sent.

use jiff::Timestamp;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::clock::Clock;
use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber, new_id};
use crate::opt_out::{OptOuts, Standing};
use crate::outbox::media::{self, TakeError};
use crate::outbox::{OutboundMessage, SEND_TASK, State, store};
use crate::queue::{self, NewTask};
use crate::{ledger, mirror};

/// The operation, with what it needs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Outbox {
    pub pool: PgPool,
    pub clock: Clock,
}

/// A message that somebody asks for. Its body is checked for length before.
#[derive(Clone)]
pub struct NewOutboundMessage {
    pub conversation_sid: ConversationSid,
    /// None: the conversation's only line.
    pub line: Option<PhoneNumber>,
    /// The line must be held by this person.
    pub as_holder: Option<Identity>,
    pub body: String,
    /// A JSON object.
    pub attributes: Option<serde_json::Value>,
    pub requested_by: String,
}

/// What a message may have besides its words.
#[derive(Debug, Clone, Default)]
pub struct Extras {
    /// Media of the same conversation that was uploaded before.
    pub media: Vec<Uuid>,
    /// Whoever asks knows that a member has opted out of the number, and is not sent it.
    pub acknowledge_opt_out: bool,
}

/// Why a message that somebody posts is not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error(transparent)]
    Media(#[from] TakeError),
    #[error("members of the conversation have opted out of the number")]
    OptedOut(Standing),
}

/// Why a message cannot be taken for sending.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("no such conversation")]
    ConversationNotFound,
    #[error("the conversation is closed")]
    ConversationClosed,
    #[error("the conversation has no such line")]
    LineNotFound,
    #[error("the conversation has several lines: say which")]
    LineAmbiguous { lines: Vec<String> },
    #[error("the line is held by somebody else")]
    NotTheHolder { holder: Option<String> },
    #[error("cannot record the message")]
    Database(#[from] sqlx::Error),
}

impl Outbox {
    /// Queues a message. Who its author is, is decided when it is sent: whoever holds the line then.
    pub async fn send(&self, new: NewOutboundMessage) -> Result<OutboundMessage, SendError> {
        let mut transaction = self.pool.begin().await?;
        let message = self.send_in(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(message)
    }

    /// As [`Outbox::send`], within the caller's transaction.
    pub async fn send_in(
        &self,
        conn: &mut PgConnection,
        new: NewOutboundMessage,
    ) -> Result<OutboundMessage, SendError> {
        self.queue_in(conn, new, &Extras::default()).await
    }

    /// As [`Outbox::send_in`], for somebody who can be told what stands against it, and with media. An error leaves what the
    /// caller's transaction has to give up.
    pub async fn post_in(
        &self,
        conn: &mut PgConnection,
        new: NewOutboundMessage,
        extras: &Extras,
        opt_outs: &OptOuts,
    ) -> Result<OutboundMessage, PostError> {
        let sid = new.conversation_sid.clone();
        let message = self.queue_in(conn, new, extras).await?;
        let standing = opt_outs
            .standing(conn, &message.account_sid, sid.as_str(), &message.line)
            .await
            .map_err(SendError::from)?;
        match standing {
            Standing::Clear => {}
            Standing::Warned { .. } if extras.acknowledge_opt_out => {}
            Standing::Warned { .. }
            | Standing::Held { .. }
            | Standing::Stopped { .. }
            | Standing::Closing { .. } => return Err(PostError::OptedOut(standing)),
        }
        media::take(conn, &sid, &extras.media, message.outbound_message_id).await?;
        Ok(message)
    }

    async fn queue_in(
        &self,
        conn: &mut PgConnection,
        new: NewOutboundMessage,
        extras: &Extras,
    ) -> Result<OutboundMessage, SendError> {
        let now = self.clock.now();
        let conversation = mirror::read::conversation(conn, new.conversation_sid.as_str())
            .await?
            .ok_or(SendError::ConversationNotFound)?;
        if conversation.is_over() {
            return Err(SendError::ConversationClosed);
        }
        let line = pick_line(conn, &new).await?;
        let message = OutboundMessage {
            outbound_message_id: new_id(),
            conversation_sid: new.conversation_sid.into_string(),
            account_sid: conversation.account_sid.into_string(),
            line,
            as_holder: new.as_holder.map(Identity::into_string),
            author: None,
            body: new.body,
            attributes: new.attributes.map(|attributes| attributes.to_string()),
            media_count: i16::try_from(extras.media.len()).unwrap_or(i16::MAX),
            acknowledged_opt_out: extras.acknowledge_opt_out,
            held_since: None,
            waiting: None,
            state: State::Queued,
            outcome_code: None,
            outcome_detail: None,
            message_sid: None,
            requested_by: new.requested_by,
            created_at: now,
            updated_at: now,
            erased_at: None,
        };
        store::insert(conn, &message).await?;
        put_send(conn, &message, now).await?;
        tell(conn, &message, Kind::SendQueued, Via::Api, now).await?;
        Ok(message)
    }
}

async fn pick_line(conn: &mut PgConnection, new: &NewOutboundMessage) -> Result<String, SendError> {
    let mut lines = ledger::lines_of(conn, new.conversation_sid.as_str()).await?;
    if let Some(line) = &new.line {
        lines.retain(|(number, _)| number == line.as_str());
    }
    if lines.len() > 1
        && let Some(holder) = &new.as_holder
    {
        lines.retain(|(_, held_by)| held_by.as_deref() == Some(holder.as_str()));
    }
    match lines.as_slice() {
        [] => Err(SendError::LineNotFound),
        [(_, held_by)]
            if new.as_holder.is_some()
                && held_by.as_deref() != new.as_holder.as_ref().map(Identity::as_str) =>
        {
            Err(SendError::NotTheHolder {
                holder: held_by.clone(),
            })
        }
        [(line, _)] => Ok(line.clone()),
        _ => Err(SendError::LineAmbiguous {
            lines: lines.into_iter().map(|(line, _)| line).collect(),
        }),
    }
}

pub(super) async fn put_send(
    conn: &mut PgConnection,
    message: &OutboundMessage,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: SEND_TASK,
        // In the order in which they were asked for, and never in the middle of a swap.
        order_key: format!("conversation:{}", message.conversation_sid),
        unique_key: Some(message.outbound_message_id.to_string()),
        payload: json!({ "outbound_message_id": message.outbound_message_id }),
        run_at: now,
        attempts_max: 30,
    };
    queue::put(conn, &task, now).await
}

/// Writes the log entry of a message's way. Never its body.
pub(super) async fn tell(
    conn: &mut PgConnection,
    message: &OutboundMessage,
    kind: Kind,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    tell_as(conn, message, kind, None, via, now).await
}

/// As [`tell`], where somebody else than who asked for the message did it.
pub(super) async fn tell_as(
    conn: &mut PgConnection,
    message: &OutboundMessage,
    kind: Kind,
    actor: Option<&str>,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut event = NewEvent {
        kind,
        account_sid: AccountSid::try_from(message.account_sid.as_str()).ok(),
        conversation_sid: ConversationSid::try_from(message.conversation_sid.as_str()).ok(),
        subject: message.outbound_message_id.to_string(),
        actor: Some(actor.unwrap_or(&message.requested_by).to_owned()),
        via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({
            "send_id": message.outbound_message_id,
            "line": message.line,
            "author": message.author,
            "state": message.state,
            "message_sid": message.message_sid,
            "outcome_code": message.outcome_code,
            "waiting_error": message.waiting.as_ref().map(|waiting| &waiting.error),
        }),
    };
    let mut entries = vec![event.clone()];
    // What introduces the new holder of a line is told of in the transfer's words too.
    if let Some(transfer_id) = events::transfer_of_cause(&message.requested_by)
        && let Some(kind) = of_introduction(kind)
    {
        event.kind = kind;
        event.subject = transfer_id.to_string();
        event.cause = Some(message.requested_by.clone());
        event.data["transfer_id"] = json!(transfer_id);
        event.data["code"] = json!(message.outcome_code);
        entries.push(event);
    }
    events::append(conn, &entries).await
}

fn of_introduction(kind: Kind) -> Option<Kind> {
    match kind {
        Kind::SendSent => Some(Kind::TransferIntroduced),
        Kind::SendFailed | Kind::SendNeedsAttention => Some(Kind::TransferIntroductionFailed),
        _ => None,
    }
}
