//! Where conversations are kept, and every way of finding them: by SID, by unique name, by claim, by next deadline.
//!
//! All changes go through [`Register::change`], so that no index can be forgotten.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;

use crate::ids::{ConversationSid, ServiceSid};

use super::conversation::Conversation;
use super::group::Claim;

#[derive(Default)]
pub(crate) struct Register {
    /// By serial number, which is the order of creation.
    conversations: BTreeMap<u64, Conversation>,
    serials: HashMap<ConversationSid, u64>,
    unique_names: HashMap<(ServiceSid, String), ConversationSid>,
    claims: HashMap<Claim, ConversationSid>,
    deadlines: BTreeSet<(Timestamp, ConversationSid)>,
}

/// What the indexes know of one conversation.
struct Entry {
    unique_name: Option<(ServiceSid, String)>,
    claims: Vec<Claim>,
    deadline: Option<(Timestamp, ConversationSid)>,
}

impl Register {
    pub(crate) fn get(&self, sid: &ConversationSid) -> Option<&Conversation> {
        self.conversations.get(self.serials.get(sid)?)
    }

    /// By SID or unique name, within a service.
    pub(crate) fn find(&self, service: &ServiceSid, key: &str) -> Option<&Conversation> {
        let sid = match ConversationSid::try_from(key) {
            Ok(sid) => sid,
            Err(_) => self.unique_name_holder(service, key)?.clone(),
        };
        self.get(&sid)
            .filter(|conversation| conversation.head.service == *service)
    }

    pub(crate) fn unique_name_holder(&self, service: &ServiceSid, name: &str) -> Option<&ConversationSid> {
        self.unique_names.get(&(service.clone(), name.to_owned()))
    }

    pub(crate) fn claimant(&self, claim: &Claim) -> Option<&ConversationSid> {
        self.claims.get(claim)
    }

    /// The first of `claims` that another conversation than `own` holds, and which one that is.
    pub(crate) fn conflict<'a>(
        &self,
        claims: &'a [Claim],
        own: Option<&ConversationSid>,
    ) -> Option<(&'a Claim, &ConversationSid)> {
        claims
            .iter()
            .filter_map(|claim| Some((claim, self.claims.get(claim)?)))
            .find(|&(_, holder)| Some(holder) != own)
    }

    /// In the order of creation.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = &Conversation> {
        self.conversations.values()
    }

    /// The conversations whose timer has run out by `now`.
    pub(crate) fn due(&self, now: Timestamp) -> Vec<ConversationSid> {
        self.deadlines
            .iter()
            .take_while(|(at, _)| *at <= now)
            .map(|(_, sid)| sid.clone())
            .collect()
    }

    /// How many claims, unique names and deadlines the indexes hold: no more than the conversations have.
    #[cfg(test)]
    pub(crate) fn index_sizes(&self) -> [usize; 3] {
        [self.claims.len(), self.unique_names.len(), self.deadlines.len()]
    }

    pub(crate) fn insert(&mut self, conversation: Conversation) {
        let serial = conversation.head.serial;
        self.serials.insert(conversation.head.sid.clone(), serial);
        self.enter(entry(&conversation), &conversation.head.sid);
        self.conversations.insert(serial, conversation);
    }

    pub(crate) fn remove(&mut self, sid: &ConversationSid) -> Option<Conversation> {
        let serial = self.serials.remove(sid)?;
        let conversation = self.conversations.remove(&serial)?;
        self.strike(&entry(&conversation), sid);
        Some(conversation)
    }

    /// Runs `change` on a conversation and brings the indexes up to date. None where there is no such conversation.
    pub(crate) fn change<T>(
        &mut self,
        sid: &ConversationSid,
        change: impl FnOnce(&mut Conversation) -> T,
    ) -> Option<T> {
        let conversation = self.conversations.get_mut(self.serials.get(sid)?)?;
        let before = entry(conversation);
        let outcome = change(conversation);
        let after = entry(conversation);
        self.strike(&before, sid);
        self.enter(after, sid);
        Some(outcome)
    }

    fn enter(&mut self, entry: Entry, sid: &ConversationSid) {
        if let Some(name) = entry.unique_name {
            self.unique_names.insert(name, sid.clone());
        }
        for claim in entry.claims {
            self.claims.entry(claim).or_insert_with(|| sid.clone());
        }
        self.deadlines.extend(entry.deadline);
    }

    fn strike(&mut self, entry: &Entry, sid: &ConversationSid) {
        if let Some(name) = &entry.unique_name {
            self.unique_names.remove(name);
        }
        for claim in &entry.claims {
            if self.claims.get(claim) == Some(sid) {
                self.claims.remove(claim);
            }
        }
        if let Some(deadline) = &entry.deadline {
            self.deadlines.remove(deadline);
        }
    }
}

fn entry(conversation: &Conversation) -> Entry {
    let head = &conversation.head;
    Entry {
        unique_name: head.unique_name.clone().map(|name| (head.service.clone(), name)),
        claims: conversation.claims(),
        deadline: head.deadline().map(|at| (at, head.sid.clone())),
    }
}
