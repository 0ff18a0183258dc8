//! What is deleted at Twilio, and what becomes of it here at once. Each deletion may be repeated: what is gone is done.

use std::collections::BTreeSet;
use std::time::Instant;

use sqlx::PgConnection;

use super::work::{Eraser, is_held};
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
use crate::retention;
use crate::twilio::Error;
use crate::twilio::conversations::{Of, Order};
use crate::twilio::model::{ConversationState, Hidden, Message, ParticipantConversation};

/// How far the deletions in a conversation have come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Progress {
    Done,
    /// The time of this run is up, and it is not all done.
    TimeIsUp,
    /// A legal hold began meanwhile: what is not deleted yet stays.
    Held,
}

/// A conversation of an account in which is deleted.
struct Room<'a> {
    task: &'a Task,
    person: &'a Person,
    account: &'a Account,
    sid: &'a ConversationSid,
    began: Instant,
}

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

    /// Deletes what the person has in one conversation.
    pub(super) async fn delete_in(
        &self,
        task: &Task,
        erasure: &mut Erasure,
        person: &Person,
        sid: &ConversationSid,
        began: Instant,
    ) -> Result<Progress, Failure> {
        let row = read::conversation(&mut *self.pool.acquire().await?, sid.as_str()).await?;
        let owner = row.as_ref().map(|row| &row.account_sid);
        if owner.is_some_and(|owner| self.accounts.iter().all(|account| account.account_sid != *owner)) {
            erasure.leave(Left {
                conversation_sid: Some(sid.to_string()),
                sid: None,
                code: "account_not_configured".to_owned(),
            });
            return Ok(Progress::Done);
        }
        for account in self.accounts.iter() {
            if owner.is_some_and(|owner| *owner != account.account_sid) {
                continue;
            }
            let room = Room {
                task,
                person,
                account,
                sid,
                began,
            };
            match self.delete_in_account(erasure, &room).await {
                // Where it is not found, the conversation is gone, or another account's.
                Ok(Progress::Done) | Err(Failure::Twilio(Error::NotFound { .. })) => {}
                Ok(stopped) => return Ok(stopped),
                Err(Failure::Twilio(error)) if is_final(&error) => {
                    erasure.leave(left(sid, None, &error));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Progress::Done)
    }

    async fn delete_in_account(&self, erasure: &mut Erasure, room: &Room<'_>) -> Result<Progress, Failure> {
        let (client, sid) = (&room.account.client, room.sid);
        let conversation = client.fetch_conversation(sid).await?;
        let is_closed = conversation.state == ConversationState::Closed;
        if is_closed && erasure.upstream == Upstream::Conversations {
            return self.delete_whole(erasure, room).await;
        }
        let seats: Vec<ParticipantSid> = client
            .list_participants(sid)
            .all()
            .await?
            .into_iter()
            .filter(|one| match room.person.subject() {
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
        match self.delete_messages(erasure, room, &seats).await? {
            Progress::Done => {}
            stopped => return Ok(stopped),
        }
        if !is_closed && erasure.upstream < Upstream::Participants {
            if !seats.is_empty() {
                erasure.count("twilio_participants_left_in_open_conversations", 1);
            }
            return Ok(Progress::Done);
        }
        for seat in seats {
            if self.came_under_hold(erasure, sid).await? {
                return Ok(Progress::Held);
            }
            match client.delete_participant(sid, &seat).await {
                Ok(()) | Err(Error::NotFound { .. }) => {
                    self.seat_gone(erasure, room, &seat).await?;
                    erasure.count("twilio_participants", 1);
                }
                Err(error) if is_final(&error) => erasure.leave(left(sid, Some(seat.as_str()), &error)),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(Progress::Done)
    }

    async fn delete_whole(&self, erasure: &mut Erasure, room: &Room<'_>) -> Result<Progress, Failure> {
        if self.came_under_hold(erasure, room.sid).await? {
            return Ok(Progress::Held);
        }
        // A delete that is repeated may not find what it deleted itself.
        match room.account.client.delete_conversation(room.sid).await {
            Ok(()) | Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let mut transaction = self.begin(room.task).await?;
        let change = Change::ConversationRemoved {
            conversation_sid: room.sid.clone(),
            version: Version::exact(self.clock.now()),
        };
        self.gone(&mut transaction, erasure, room.account, change).await?;
        transaction.commit().await?;
        erasure.count("twilio_conversations", 1);
        Ok(Progress::Done)
    }

    /// Deletes the person's messages page by page as they are listed, so that a run whose time is up has come further. Where
    /// there is more than one page they are listed again until none is left: what a list goes on from may have moved.
    async fn delete_messages(
        &self,
        erasure: &mut Erasure,
        room: &Room<'_>,
        seats: &[ParticipantSid],
    ) -> Result<Progress, Failure> {
        let (client, sid) = (&room.account.client, room.sid);
        let known = of_mirror::seats_of(&mut *self.pool.acquire().await?, sid, room.person).await?;
        let is_own = |message: &Message| {
            let author = message.author.as_ref().map(Hidden::as_str);
            let by_seat = matches!(room.person.subject(), Subject::Number(_))
                && message.participant_sid.as_ref().is_some_and(|seat| {
                    seats.contains(seat) || known.iter().any(|known| known == seat.as_str())
                });
            author == Some(room.person.exact()) || by_seat
        };
        let mut deleted = BTreeSet::new();
        loop {
            let (mut listed, mut found) = (0, 0);
            let mut pages = client.list_messages(sid, Order::OldestFirst);
            while let Some(page) = pages.next().await? {
                listed += 1;
                for message in page.into_iter().filter(is_own).map(|message| message.sid) {
                    if deleted.contains(&message) || erasure.has_left(message.as_str()) {
                        continue;
                    }
                    if self.came_under_hold(erasure, sid).await? {
                        return Ok(Progress::Held);
                    }
                    match client.delete_message(sid, &message).await {
                        Ok(()) | Err(Error::NotFound { .. }) => {
                            self.message_gone(erasure, room, &message).await?;
                            erasure.count("twilio_messages", 1);
                            deleted.insert(message);
                            found += 1;
                        }
                        Err(error) if is_final(&error) => {
                            erasure.leave(left(sid, Some(message.as_str()), &error));
                        }
                        Err(error) => return Err(error.into()),
                    }
                    if room.began.elapsed() > self.budget {
                        return Ok(Progress::TimeIsUp);
                    }
                }
            }
            if listed <= 1 || found == 0 {
                return Ok(Progress::Done);
            }
        }
    }

    /// Asked before every deletion: a hold may begin at any time.
    async fn came_under_hold(
        &self,
        erasure: &mut Erasure,
        sid: &ConversationSid,
    ) -> Result<bool, sqlx::Error> {
        let held = is_held(&mut *self.pool.acquire().await?, sid.as_str()).await?;
        if held {
            erasure.hold(sid.as_str());
        }
        Ok(held)
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
        erasure: &mut Erasure,
        room: &Room<'_>,
        message: &MessageSid,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let change = Change::Message(MessageChange {
            conversation_sid: room.sid.clone(),
            message_sid: message.clone(),
            version: Version::exact(now),
            removed: true,
            fields: None,
            created_at: None,
        });
        let mut transaction = self.begin(room.task).await?;
        // Of what came under hold meanwhile only that it is gone is recorded; what it said is kept.
        let is_held = hold_or_none(&mut transaction, erasure, room.sid).await?;
        self.gone(&mut transaction, erasure, room.account, change).await?;
        if !is_held {
            of_mirror::mark_deleted_message(&mut transaction, room.sid, message, room.person, now).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn seat_gone(
        &self,
        erasure: &mut Erasure,
        room: &Room<'_>,
        seat: &ParticipantSid,
    ) -> Result<(), Failure> {
        let now = self.clock.now();
        let change = Change::Participant(ParticipantChange {
            conversation_sid: room.sid.clone(),
            participant_sid: seat.clone(),
            version: Version::exact(now),
            removed: true,
            fields: None,
            created_at: None,
        });
        let mut transaction = self.begin(room.task).await?;
        let is_held = hold_or_none(&mut transaction, erasure, room.sid).await?;
        self.gone(&mut transaction, erasure, room.account, change).await?;
        if !is_held {
            of_mirror::mark_deleted_seat(&mut transaction, room.sid, seat, room.person, now).await?;
        }
        transaction.commit().await?;
        Ok(())
    }

    async fn gone(
        &self,
        conn: &mut PgConnection,
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

/// Whether the conversation is under hold, which no other can begin or end until the transaction does.
async fn hold_or_none(
    conn: &mut PgConnection,
    erasure: &mut Erasure,
    sid: &ConversationSid,
) -> Result<bool, sqlx::Error> {
    retention::lock(conn).await?;
    let held = is_held(conn, sid.as_str()).await?;
    if held {
        erasure.hold(sid.as_str());
    }
    Ok(held)
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
