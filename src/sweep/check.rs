//! Looking at one conversation: reading it at Twilio, comparing, and repairing what differs.
//!
//! What the mirror holds is noted before anything is read ([`Inventory`]), and each part that was read is compared and
//! repaired in one transaction that locks the conversation. A resource becomes a tombstone only if a list that was read
//! to its end does not have it, a read of it alone does not find it, and its row is what it was before the list was read.

use std::collections::BTreeSet;

use jiff::Timestamp;

use crate::events::Via;
use crate::ids::{ConversationSid, MessageSid, ParticipantSid};
use crate::mirror::change::{MessageChange, ParticipantChange};
use crate::mirror::{self, Change, Inventory, Revisions, Version, project};
use crate::projection;
use crate::sweep::compare::{self, Standing};
use crate::sweep::run::Session;
use crate::sweep::store::{self, Ended};
use crate::sweep::{By, Compared, Error, Found};
use crate::twilio::conversations::Order;
use crate::twilio::model;
use crate::twilio::{self, Pages};

/// How often a walk is begun again because the conversation changed while it was read.
const WALKS_MAX: u32 = 2;

/// Whether everything that was read is now in the mirror as it was read, or newer.
type Settled = bool;

impl Session<'_> {
    /// Reads a conversation whole. None: neither Twilio nor the mirror has it.
    pub(super) async fn walk(&mut self, sid: &ConversationSid) -> Result<Option<Ended>, Error> {
        for _ in 0..WALKS_MAX {
            match self.walk_once(sid).await? {
                Some(Ended::Unsettled) => {}
                ended => return Ok(ended),
            }
        }
        Ok(Some(Ended::Unsettled))
    }

    async fn walk_once(&mut self, sid: &ConversationSid) -> Result<Option<Ended>, Error> {
        let as_of = self.sweeper.clock.now();
        let inventory = mirror::inventory(&mut *self.sweeper.pool.acquire().await?, sid).await?;
        match self.read_whole(sid, &inventory).await {
            Ok((true, compared)) => Ok(Some(Ended::Verified {
                by: By::Walk,
                as_of,
                compared,
            })),
            Ok((false, _)) => Ok(Some(Ended::Unsettled)),
            // The conversation is gone, perhaps since a moment ago.
            Err(Error::Twilio(twilio::Error::NotFound { .. })) => self.vanished(sid, &inventory, as_of).await,
            Err(error) => Err(error),
        }
    }

    async fn read_whole(
        &mut self,
        sid: &ConversationSid,
        inventory: &Inventory,
    ) -> Result<(Settled, Compared), Error> {
        self.request().await?;
        let conversation = self.account.client.fetch_conversation(sid).await?;
        let participants = self.participants(sid).await?;
        let mut changes = project::conversation(&conversation);
        changes.extend(participants.iter().filter_map(project::participant));
        let mut settled = self.repair(sid, changes, &inventory.revisions, 0).await?;

        let listed: BTreeSet<&ParticipantSid> = participants.iter().map(|one| &one.sid).collect();
        let absent = inventory.participants.iter().filter(|one| !listed.contains(one));
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for participant in absent {
            self.request().await?;
            match self.account.client.fetch_participant(sid, participant).await {
                Ok(found) => there.extend(project::participant(&found)),
                Err(twilio::Error::NotFound { .. }) => {
                    gone.push(removed_participant(sid, participant, self.gone_now()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        settled &= self.repair(sid, there, &inventory.revisions, 0).await?;
        settled &= self.bury(sid, gone, &inventory.revisions).await?;

        let (of_messages, mut compared) = self.messages(sid, inventory).await?;
        compared.participants = count(participants.len());
        Ok((settled && of_messages, compared))
    }

    async fn participants(&mut self, sid: &ConversationSid) -> Result<Vec<model::Participant>, Error> {
        let mut pages = self.account.client.list_participants(sid);
        let mut all = Vec::new();
        loop {
            self.request().await?;
            let Some(page) = pages.next().await? else { break };
            all.extend(page);
            if pages.position().is_none() {
                break;
            }
        }
        Ok(all)
    }

    /// All pages of messages, each compared and repaired before the next one is read.
    async fn messages(
        &mut self,
        sid: &ConversationSid,
        inventory: &Inventory,
    ) -> Result<(Settled, Compared), Error> {
        let mut settled = true;
        let mut compared = Compared::default();
        let mut seen: BTreeSet<MessageSid> = BTreeSet::new();
        let mut position: Option<String> = None;
        loop {
            let mut pages = self.message_pages(sid, position.as_deref())?;
            self.request().await?;
            let page = pages.next().await?.unwrap_or_default();
            let known_before = seen.len();
            seen.extend(page.iter().map(|one| one.sid.clone()));
            position = pages.position().map(str::to_owned);
            if position.is_some() && seen.len() == known_before {
                let reason = "the list of messages leads in a circle".to_owned();
                return Err(twilio::Error::Malformed { reason }.into());
            }
            let (of_page, receipts) = self.messages_of_page(sid, &page, &inventory.revisions).await?;
            settled &= of_page;
            compared.receipts += receipts;
            if position.is_none() {
                break;
            }
        }
        compared.messages = count(seen.len());
        settled &= self.absent_messages(sid, inventory, &seen).await?;
        Ok((settled, compared))
    }

    /// From a position on, so that the limit of pages does not grow into one of messages; circles are seen by SIDs.
    fn message_pages(
        &self,
        sid: &ConversationSid,
        position: Option<&str>,
    ) -> Result<Pages<model::Message>, Error> {
        let pages = self.account.client.list_messages(sid, Order::OldestFirst);
        match position {
            Some(position) => Ok(pages.resume(position)?),
            None => Ok(pages),
        }
    }

    /// A page of messages with the receipts of those whose summary does not agree with ours. Answers how many receipts
    /// that compared.
    async fn messages_of_page(
        &mut self,
        sid: &ConversationSid,
        page: &[model::Message],
        seen: &Revisions,
    ) -> Result<(Settled, i64), Error> {
        let stored = self.receipts_of(sid, page).await?;
        let mut changes: Vec<Change> = page.iter().filter_map(project::message).collect();
        let (mut compared, mut extra) = (0, 0);
        for message in page {
            let ours: Vec<_> = stored
                .iter()
                .filter(|one| one.message_sid == message.sid.as_str())
                .collect();
            let statuses: Vec<&str> = ours.iter().map(|one| one.status.as_str()).collect();
            compared += count(ours.len());
            if !self.run.everything && compare::summary_agrees(message.delivery.as_ref(), &statuses) {
                continue;
            }
            let theirs = self.receipts(sid, &message.sid).await?;
            let is_listed = |sid: &str| theirs.iter().any(|one| one.sid.as_str() == sid);
            let unlisted = ours
                .iter()
                .filter(|one| !is_listed(&one.delivery_receipt_sid))
                .count();
            extra += count(unlisted);
            compared += count(theirs.len() + unlisted) - count(ours.len());
            changes.extend(theirs.iter().filter_map(project::receipt));
        }
        let settled = self.repair(sid, changes, seen, extra).await?;
        Ok((settled, compared))
    }

    async fn receipts_of(
        &self,
        sid: &ConversationSid,
        page: &[model::Message],
    ) -> Result<Vec<mirror::read::ReceiptRow>, Error> {
        let sids: Vec<&str> = page.iter().map(|one| one.sid.as_str()).collect();
        let mut conn = self.sweeper.pool.acquire().await?;
        Ok(mirror::read::receipts(&mut conn, sid.as_str(), &sids).await?)
    }

    async fn receipts(
        &mut self,
        sid: &ConversationSid,
        message_sid: &MessageSid,
    ) -> Result<Vec<model::Receipt>, Error> {
        let mut pages = self.account.client.list_receipts(sid, message_sid);
        let mut all = Vec::new();
        loop {
            self.request().await?;
            match pages.next().await {
                Ok(Some(page)) => all.extend(page),
                // Not found: the message was deleted since it was listed, which the next look finds.
                Ok(None) | Err(twilio::Error::NotFound { .. }) => break,
                Err(error) => return Err(error.into()),
            }
            if pages.position().is_none() {
                break;
            }
        }
        Ok(all)
    }

    async fn absent_messages(
        &mut self,
        sid: &ConversationSid,
        inventory: &Inventory,
        listed: &BTreeSet<MessageSid>,
    ) -> Result<Settled, Error> {
        let (mut there, mut gone) = (Vec::new(), Vec::new());
        for message in inventory.messages.difference(listed) {
            self.request().await?;
            match self.account.client.fetch_message(sid, message).await {
                Ok(found) => there.extend(project::message(&found)),
                Err(twilio::Error::NotFound { .. }) => {
                    gone.push(removed_message(sid, message, self.gone_now()));
                }
                Err(error) => return Err(error.into()),
            }
        }
        let settled = self.repair(sid, there, &inventory.revisions, 0).await?;
        Ok(self.bury(sid, gone, &inventory.revisions).await? && settled)
    }

    /// Something of the conversation was not found. If that is since the conversation is gone, so is it here.
    async fn vanished(
        &mut self,
        sid: &ConversationSid,
        inventory: &Inventory,
        as_of: Timestamp,
    ) -> Result<Option<Ended>, Error> {
        self.request().await?;
        match self.account.client.fetch_conversation(sid).await {
            Ok(_) => return Ok(Some(Ended::Unsettled)),
            Err(twilio::Error::NotFound { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        if inventory.revisions.is_empty() {
            return Ok(None);
        }
        let gone = Change::ConversationRemoved {
            conversation_sid: sid.clone(),
            version: self.gone_now(),
        };
        let settled = self.bury(sid, vec![gone], &inventory.revisions).await?;
        Ok(Some(if settled {
            Ended::Verified {
                by: By::Walk,
                as_of,
                compared: Compared::default(),
            }
        } else {
            Ended::Unsettled
        }))
    }

    /// Reads the members and the newest page of messages of a conversation that was just listed. Where anything differs,
    /// webhooks were lost, and more than these may have been: then it is walked.
    pub(super) async fn probe(&mut self, listed: &model::Conversation) -> Result<Option<Ended>, Error> {
        let sid = &listed.sid;
        let as_of = self.sweeper.clock.now();
        let read = match self.read_head(sid).await {
            Err(Error::Twilio(twilio::Error::NotFound { .. })) => return self.walk(sid).await,
            read => read?,
        };
        match self.head_agrees(listed, &read).await? {
            Some(compared) => Ok(Some(Ended::Verified {
                by: By::Probe,
                as_of,
                compared,
            })),
            None => self.walk(sid).await,
        }
    }

    async fn read_head(&mut self, sid: &ConversationSid) -> Result<Head, Error> {
        let participants = self.participants(sid).await?;
        self.request().await?;
        let mut pages = self.account.client.list_messages(sid, Order::NewestFirst);
        let newest = pages.next().await?.unwrap_or_default();
        Ok(Head {
            participants,
            newest,
            is_all: pages.position().is_none(),
        })
    }

    /// What was compared, if nothing differs. A row of an earlier time gets the time that was read.
    async fn head_agrees(
        &mut self,
        listed: &model::Conversation,
        read: &Head,
    ) -> Result<Option<Compared>, Error> {
        let sid = &listed.sid;
        let receipts = self.receipts_of(sid, &read.newest).await?;
        let receipts_agree = read.newest.iter().all(|message| {
            let ours = receipts
                .iter()
                .filter(|one| one.message_sid == message.sid.as_str());
            let statuses: Vec<&str> = ours.map(|one| one.status.as_str()).collect();
            compare::summary_agrees(message.delivery.as_ref(), &statuses)
        });
        if !receipts_agree {
            return Ok(None);
        }
        let mut changes = project::conversation(listed);
        changes.extend(read.participants.iter().filter_map(project::participant));
        changes.extend(read.newest.iter().filter_map(project::message));
        let observed = self.observed(changes);

        let now = self.sweeper.clock.now();
        let mut transaction = self.sweeper.pool.begin().await?;
        let stored = mirror::stored(&mut transaction, &observed, now).await?;
        let held = mirror::inventory_from(&mut transaction, sid, read.oldest_index()).await?;
        if !read.has_all_of(&held) {
            return Ok(None);
        }
        let mut of_earlier = Vec::new();
        for one in observed {
            match compare::standing(&stored, &one.change) {
                Standing::Same => {}
                Standing::SameOfEarlier => of_earlier.push(one),
                Standing::SameInDoubt
                | Standing::Missing
                | Standing::Stale
                | Standing::Ahead
                | Standing::Removed => return Ok(None),
            }
        }
        projection::commit(&mut transaction, &of_earlier, Via::Sweep, None, now).await?;
        transaction.commit().await?;
        Ok(Some(Compared {
            participants: count(read.participants.len()),
            messages: count(read.newest.len()),
            receipts: count(receipts.len()),
        }))
    }

    /// Takes what was read into the mirror where the mirror is behind, and counts it, in one transaction.
    async fn repair(
        &mut self,
        sid: &ConversationSid,
        read: Vec<Change>,
        seen: &Revisions,
        extra: i64,
    ) -> Result<Settled, Error> {
        let observed = self.observed(read);
        let now = self.sweeper.clock.now();
        let mut transaction = self.sweeper.pool.begin().await?;
        let stored = mirror::stored(&mut transaction, &observed, now).await?;
        let mut settled = true;
        let mut behind = Vec::new();
        for one in observed {
            let standing = compare::standing(&stored, &one.change);
            if standing.is_behind() {
                behind.push((standing, one));
            } else if matches!(standing, Standing::Ahead | Standing::Removed) {
                // A webhook that came meanwhile explains it; else the mirror says what Twilio does not.
                settled &= !compare::stood_still(&stored, &one.change, seen);
            }
        }
        let mut found = Found {
            extra,
            ..Found::default()
        };
        if !behind.is_empty() {
            let statements: Vec<_> = behind.iter().map(|(_, one)| one.clone()).collect();
            projection::commit(&mut transaction, &statements, Via::Sweep, Some(seen), now).await?;
            // The gate may have refused it, so it is believed when it is seen.
            let stored = mirror::stored(&mut transaction, &statements, now).await?;
            for (before, one) in &behind {
                match compare::standing(&stored, &one.change) {
                    Standing::Same | Standing::SameOfEarlier => found.count(*before),
                    // A receipt only moves forward: ours is further than the one that was read.
                    Standing::Stale if matches!(one.change, Change::Receipt(_)) => {}
                    Standing::SameInDoubt
                    | Standing::Missing
                    | Standing::Stale
                    | Standing::Ahead
                    | Standing::Removed => settled = false,
                }
            }
        }
        self.count_found(&mut transaction, sid, found).await?;
        transaction.commit().await?;
        Ok(settled)
    }

    /// Makes tombstones of what Twilio no longer has, unless something has come of it meanwhile.
    async fn bury(
        &mut self,
        sid: &ConversationSid,
        gone: Vec<Change>,
        seen: &Revisions,
    ) -> Result<Settled, Error> {
        if gone.is_empty() {
            return Ok(true);
        }
        let observed = self.observed(gone);
        let now = self.sweeper.clock.now();
        let mut transaction = self.sweeper.pool.begin().await?;
        let stored = mirror::stored(&mut transaction, &observed, now).await?;
        let (gone, changed): (Vec<_>, Vec<_>) = observed
            .into_iter()
            .filter(|one| !compare::is_tombstone(&stored, &one.change))
            .partition(|one| compare::stood_still(&stored, &one.change, seen));
        projection::commit(&mut transaction, &gone, Via::Sweep, Some(seen), now).await?;
        let found = Found {
            gone: count(gone.len()),
            ..Found::default()
        };
        self.count_found(&mut transaction, sid, found).await?;
        transaction.commit().await?;
        Ok(changed.is_empty())
    }

    async fn count_found(
        &self,
        conn: &mut sqlx::PgConnection,
        sid: &ConversationSid,
        found: Found,
    ) -> Result<(), Error> {
        if found == Found::default() {
            return Ok(());
        }
        let account_sid = &self.account.account_sid;
        if store::count_found(conn, self.claim, account_sid, sid, found).await? {
            Ok(())
        } else {
            Err(Error::LeaseLost)
        }
    }

    /// When something that Twilio no longer has went away is not told; we know only that it is gone now.
    fn gone_now(&self) -> Version {
        Version::exact(self.sweeper.clock.now())
    }
}

/// The part of a conversation that a probe reads.
struct Head {
    participants: Vec<model::Participant>,
    /// The newest first.
    newest: Vec<model::Message>,
    /// There are no older messages.
    is_all: bool,
}

impl Head {
    /// From where on the page has every message; `None` if that is from the first one on.
    fn oldest_index(&self) -> Option<i64> {
        if self.is_all {
            return None;
        }
        self.newest.iter().filter_map(|one| one.index).min()
    }

    /// Whether everything that the mirror holds of this part was read.
    fn has_all_of(&self, held: &Inventory) -> bool {
        let participants: BTreeSet<&ParticipantSid> = self.participants.iter().map(|one| &one.sid).collect();
        let messages: BTreeSet<&MessageSid> = self.newest.iter().map(|one| &one.sid).collect();
        held.participants.iter().all(|sid| participants.contains(sid))
            && held.messages.iter().all(|sid| messages.contains(sid))
    }
}

impl Found {
    fn count(&mut self, before: Standing) {
        match before {
            Standing::Missing => self.missing += 1,
            Standing::Stale => self.stale += 1,
            Standing::Same
            | Standing::SameOfEarlier
            | Standing::SameInDoubt
            | Standing::Ahead
            | Standing::Removed => {}
        }
    }
}

fn removed_participant(sid: &ConversationSid, participant: &ParticipantSid, version: Version) -> Change {
    Change::Participant(ParticipantChange {
        conversation_sid: sid.clone(),
        participant_sid: participant.clone(),
        version,
        removed: true,
        fields: None,
        created_at: None,
    })
}

fn removed_message(sid: &ConversationSid, message: &MessageSid, version: Version) -> Change {
    Change::Message(MessageChange {
        conversation_sid: sid.clone(),
        message_sid: message.clone(),
        version,
        removed: true,
        fields: None,
        created_at: None,
    })
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}
