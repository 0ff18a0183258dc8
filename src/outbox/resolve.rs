//! What ends a message of which nobody knew whether Twilio took it: the mirror, once it shows the message, or a person.

use jiff::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::{Kind, Via};
use crate::ids::{Identity, MessageSid};
use crate::mirror::{self, Change, Observed};
use crate::outbox::operations::{self, Outbox};
use crate::outbox::{ATTRIBUTE, OutboundMessage, State, sent_as, store};

/// What a person found out about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is this one of the conversation.
    Sent(MessageSid),
    /// It did not reach the group.
    NotSent,
}

/// Why what became of a message cannot be said.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    #[error("no such message")]
    NotFound,
    #[error("it is known what became of the message")]
    Known { state: State },
    #[error("the mirror has no such message in the conversation")]
    NoSuchMessage,
    #[error("the message is another one that was sent from here")]
    Another { send_id: Uuid },
    #[error("cannot record it")]
    Database(#[from] sqlx::Error),
}

impl Outbox {
    /// Ends a message that needs attention as a person says.
    pub async fn resolve_in(
        &self,
        conn: &mut PgConnection,
        id: Uuid,
        verdict: &Verdict,
        by: &Identity,
        via: Via,
    ) -> Result<OutboundMessage, ResolveError> {
        let message = store::find(conn, id).await?.ok_or(ResolveError::NotFound)?;
        // As everybody who writes to a conversation does; what the mirror shows at this moment is not missed.
        let sid = message.conversation_sid.clone();
        if let Ok(sid) = sid.as_str().try_into() {
            mirror::read::lock_conversation(conn, &sid).await?;
        }
        let locked = store::unknown(conn, &[sid.as_str()], &[id]).await?.pop();
        let Some(mut message) = locked else {
            let now = store::find(conn, id).await?.ok_or(ResolveError::NotFound)?;
            return Err(ResolveError::Known { state: now.state });
        };
        match verdict {
            Verdict::Sent(message_sid) => {
                let shown = mirror::read::message(conn, &sid, message_sid.as_str()).await?;
                let shown = shown.ok_or(ResolveError::NoSuchMessage)?;
                let carried = shown.attributes.as_deref().and_then(sent_as);
                if let Some(send_id) = carried.filter(|other| *other != id) {
                    return Err(ResolveError::Another { send_id });
                }
                message.settle_as_sent(message_sid.as_str());
            }
            Verdict::NotSent => {
                message.state = State::Failed;
                message.outcome_code = Some("not_sent".to_owned());
                message.outcome_detail = Some("somebody found that it did not reach the group".to_owned());
            }
        }
        let now = self.clock.now();
        end(conn, &mut message, Some(by), via, now).await?;
        Ok(message)
    }
}

impl OutboundMessage {
    pub(super) fn settle_as_sent(&mut self, message_sid: &str) {
        self.state = State::Sent;
        self.message_sid = Some(message_sid.to_owned());
        self.waiting = None;
        self.outcome_code = None;
        self.outcome_detail = None;
    }
}

/// Ends those messages as sent of which it was not known, and that are shown by what a source says now.
pub async fn follow(
    conn: &mut PgConnection,
    observed: &[Observed],
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut shown: Vec<(&str, Uuid, &str)> = Vec::new();
    for one in observed {
        if let Change::Message(message) = &one.change
            && !message.removed
            && let Some(attributes) = message
                .fields
                .as_ref()
                .and_then(|fields| fields.attributes.as_deref())
            && attributes.contains(ATTRIBUTE)
            && let Some(id) = sent_as(attributes)
        {
            shown.push((
                message.conversation_sid.as_str(),
                id,
                message.message_sid.as_str(),
            ));
        }
    }
    if shown.is_empty() {
        return Ok(());
    }
    let (sids, ids): (Vec<&str>, Vec<Uuid>) = shown.iter().map(|(sid, id, _)| (*sid, *id)).unzip();
    for mut message in store::unknown(conn, &sids, &ids).await? {
        let found = shown.iter().find(|(_, id, _)| *id == message.outbound_message_id);
        if let Some((_, _, message_sid)) = found {
            message.settle_as_sent(message_sid);
            end(conn, &mut message, None, via, now).await?;
        }
    }
    Ok(())
}

async fn end(
    conn: &mut PgConnection,
    message: &mut OutboundMessage,
    by: Option<&Identity>,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    message.updated_at = now;
    super::update(conn, message).await?;
    let kind = match message.state {
        State::Sent => Kind::SendSent,
        _ => Kind::SendFailed,
    };
    let actor = by.map(Identity::as_str);
    operations::tell_as(conn, message, kind, actor, via, now).await
}
