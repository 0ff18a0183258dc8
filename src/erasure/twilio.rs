//! What is deleted at Twilio, and what becomes of it here at once. Each deletion may be repeated: what is gone is done.

use std::time::Instant;

use super::work::{BUDGET, Eraser};
use super::{Erasure, Left, Upstream};
use crate::accounts::Account;
use crate::events::Via;
use crate::ids::{ConversationSid, MessageSid, ParticipantSid};
use crate::mirror::change::{MessageChange, ParticipantChange};
use crate::mirror::erase::person as of_mirror;
use crate::mirror::{Change, Observed, Version, read};
use crate::person::{Person, Subject};
use crate::projection;
use crate::projection::read::Failure;
use crate::queue::Task;
use crate::twilio::Error;
use crate::twilio::conversations::{Of, Order};
use crate::twilio::model::{ConversationState, Hidden, ParticipantConversation};

impl Eraser {
    /// The conversations that Twilio says the person is in, of all accounts.
    pub(super) async fn listed(&self, person: &Person) -> Result<Vec<ParticipantConversation>, Failure> {
        let mut listed = Vec::new();
        for account in self.accounts.iter() {
            let of = match person.subject() {
                Subject::Number(number) => Of::Address(number),
                Subject::Identity(identity) => Of::Identity(identity),
            };
            match account.client.list_participant_conversations(of).all().await {
                Ok(rows) => listed.extend(rows),
                Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(listed)
    }

    /// Deletes what the person has in one conversation. False: the time of this run is up, and it is not all done.
    pub(super) async fn delete_in(
        &self,
        task: &Task,
        erasure: &mut Erasure,
        person: &Person,
        sid: &ConversationSid,
        began: Instant,
    ) -> Result<bool, Failure> {
        let row = read::conversation(&mut *self.pool.acquire().await?, sid.as_str()).await?;
        for account in self.accounts.iter() {
            if row
                .as_ref()
                .is_some_and(|row| row.account_sid != account.account_sid)
            {
                continue;
            }
            match self
                .delete_in_account(task, erasure, person, account, sid, began)
                .await
            {
                Ok(false) => return Ok(false),
                // Where it is not found, the conversation is gone, or another account's.
                Ok(true) | Err(Failure::Twilio(Error::NotFound { .. })) => {}
                Err(Failure::Twilio(error)) if is_final(&error) => {
                    erasure.leave(left(sid, None, &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    async fn delete_in_account(
        &self,
        task: &Task,
        erasure: &mut Erasure,
        person: &Person,
        account: &Account,
        sid: &ConversationSid,
        began: Instant,
    ) -> Result<bool, Failure> {
        let conversation = account.client.fetch_conversation(sid).await?;
        let is_closed = conversation.state == ConversationState::Closed;
        if is_closed && erasure.upstream == Upstream::Conversations {
            // A delete that is repeated may not find what it deleted itself.
            match account.client.delete_conversation(sid).await {
                Ok(()) | Err(Error::NotFound { .. }) => {}
                Err(error) => return Err(error.into()),
            }
            let mut transaction = self.begin(task).await?;
            let change = Change::ConversationRemoved {
                conversation_sid: sid.clone(),
                version: Version::exact(self.clock.now()),
            };
            self.gone(&mut transaction, erasure, account, change).await?;
            transaction.commit().await?;
            erasure.count("twilio_conversations", 1);
            return Ok(true);
        }
        let seats: Vec<ParticipantSid> = account
            .client
            .list_participants(sid)
            .all()
            .await?
            .into_iter()
            .filter(|one| match person.subject() {
                Subject::Number(number) => one
                    .messaging_binding
                    .address
                    .as_ref()
                    .is_some_and(|address| address.as_str() == number.as_str()),
                Subject::Identity(identity) => one
                    .identity
                    .as_ref()
                    .is_some_and(|one| one.as_str() == identity.as_str()),
            })
            .map(|one| one.sid)
            .collect();
        let known = of_mirror::seats_of(&mut *self.pool.acquire().await?, sid, person).await?;
        let mut pages = account.client.list_messages(sid, Order::OldestFirst);
        let mut own = Vec::new();
        while let Some(page) = pages.next().await? {
            own.extend(page.into_iter().filter_map(|message| {
                let author = message.author.as_ref().map(Hidden::as_str);
                let by_seat = matches!(person.subject(), Subject::Number(_))
                    && message.participant_sid.as_ref().is_some_and(|seat| {
                        seats.contains(seat) || known.iter().any(|known| known == seat.as_str())
                    });
                (author == Some(person.exact()) || by_seat).then_some(message.sid)
            }));
            if pages.position().is_none() {
                break;
            }
        }
        for message in own {
            if began.elapsed() > BUDGET {
                return Ok(false);
            }
            match account.client.delete_message(sid, &message).await {
                Ok(()) | Err(Error::NotFound { .. }) => {
                    self.message_gone(task, erasure, person, account, sid, &message)
                        .await?;
                    erasure.count("twilio_messages", 1);
                }
                Err(error) if is_final(&error) => erasure.leave(left(sid, Some(message.as_str()), &error)),
                Err(error) => return Err(error.into()),
            }
        }
        if !is_closed && erasure.upstream < Upstream::Participants {
            if !seats.is_empty() {
                erasure.count("twilio_participants_left_in_open_conversations", 1);
            }
            return Ok(true);
        }
        for seat in seats {
            match account.client.delete_participant(sid, &seat).await {
                Ok(()) | Err(Error::NotFound { .. }) => {
                    self.seat_gone(task, erasure, person, account, sid, &seat).await?;
                    erasure.count("twilio_participants", 1);
                }
                Err(error) if is_final(&error) => erasure.leave(left(sid, Some(seat.as_str()), &error)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(true)
    }

    /// Deletes the person's user, where they are one of ours and in no conversation that is to stay as it is.
    pub(super) async fn delete_user(&self, erasure: &mut Erasure, person: &Person) -> Result<(), Failure> {
        let Subject::Identity(identity) = person.subject() else {
            return Ok(());
        };
        let is_in_open = self
            .listed(person)
            .await?
            .iter()
            .any(|one| one.conversation_state != ConversationState::Closed);
        if !erasure.held.is_empty() || (is_in_open && erasure.upstream < Upstream::Participants) {
            erasure.count("twilio_users_left", 1);
            return Ok(());
        }
        for account in self.accounts.iter() {
            match account.client.delete_user(identity).await {
                Ok(()) => erasure.count("twilio_users", 1),
                Err(Error::NotFound { .. }) => {}
                Err(error) if is_final(&error) => erasure.leave(Left {
                    conversation_sid: None,
                    sid: None,
                    code: code_of(&error),
                }),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    async fn message_gone(
        &self,
        task: &Task,
        erasure: &Erasure,
        person: &Person,
        account: &Account,
        sid: &ConversationSid,
        message: &MessageSid,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let change = Change::Message(MessageChange {
            conversation_sid: sid.clone(),
            message_sid: message.clone(),
            version: Version::exact(now),
            removed: true,
            fields: None,
            created_at: None,
        });
        let mut transaction = self.begin(task).await?;
        self.gone(&mut transaction, erasure, account, change).await?;
        of_mirror::mark_deleted_message(&mut transaction, sid, message, person, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn seat_gone(
        &self,
        task: &Task,
        erasure: &Erasure,
        person: &Person,
        account: &Account,
        sid: &ConversationSid,
        seat: &ParticipantSid,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let change = Change::Participant(ParticipantChange {
            conversation_sid: sid.clone(),
            participant_sid: seat.clone(),
            version: Version::exact(now),
            removed: true,
            fields: None,
            created_at: None,
        });
        let mut transaction = self.begin(task).await?;
        self.gone(&mut transaction, erasure, account, change).await?;
        of_mirror::mark_deleted_seat(&mut transaction, sid, seat, person, now).await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn gone(
        &self,
        conn: &mut sqlx::PgConnection,
        erasure: &Erasure,
        account: &Account,
        change: Change,
    ) -> Result<(), sqlx::Error> {
        let observed = Observed {
            account_sid: account.account_sid.clone(),
            change,
            cause: format!("erasure:{}", erasure.erasure_id),
            source: None,
        };
        projection::commit(conn, &[observed], Via::Rest, None, self.clock.now()).await?;
        Ok(())
    }
}

/// Whether asking again would give the same answer.
fn is_final(error: &Error) -> bool {
    match error {
        Error::Rejected(_) | Error::Configuration { .. } | Error::Malformed { .. } => true,
        Error::Throttled { .. }
        | Error::Unavailable { .. }
        | Error::OutcomeUnknown { .. }
        | Error::NotFound { .. } => false,
    }
}

fn left(sid: &ConversationSid, what: Option<&str>, error: &Error) -> Left {
    Left {
        conversation_sid: Some(sid.to_string()),
        sid: what.map(str::to_owned),
        code: code_of(error),
    }
}

/// Twilio's code, or the status where there is none.
fn code_of(error: &Error) -> String {
    error
        .code()
        .map(|code| code.to_string())
        .or_else(|| error.status().map(|status| format!("status {status}")))
        .unwrap_or_else(|| "unreadable answer".to_owned())
}
