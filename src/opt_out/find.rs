//! What statements about Twilio's state say of opting out. Pure, and cheap where they say nothing of it.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::ids::{AccountSid, ConversationSid};
use crate::mirror::read::ParticipantRow;
use crate::mirror::{Change, Observed};
use crate::opt_out::Source;
use crate::opt_out::keywords::Keyword;

/// Twilio's error for a message to somebody who has opted out.
const OPTED_OUT: &str = "21610";

/// A message or receipt by which somebody opts out, or in again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) account_sid: AccountSid,
    pub(super) conversation_sid: ConversationSid,
    pub(super) keyword: Keyword,
    pub(super) source: Source,
    pub(super) at: Timestamp,
    /// SID of the message or the receipt.
    pub(super) evidence: String,
    /// Of a receipt.
    pub(super) message_sid: Option<String>,
    pub(super) author: Option<String>,
    pub(super) participant_sid: Option<String>,
    pub(super) cause: String,
}

/// Whom something that was seen is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Resolved {
    pub(super) seen: Seen,
    /// The numbers of ours that the member hears from in the conversation.
    pub(super) lines: Vec<String>,
    pub(super) address: String,
    pub(super) participant_sid: String,
}

/// What is known of whom it is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Who {
    Known(Box<Resolved>),
    /// One of ours wrote the word: it means what it says.
    Nobody,
    /// The members have not come yet.
    NotYet(Box<Seen>),
}

/// The conversations of a batch that a handset is told to be a member of, or that have a new number of ours.
pub(super) fn joined(observed: &[Observed]) -> Vec<&str> {
    conversations(observed, |change| match change {
        Change::Participant(change) if !change.removed => {
            let fields = change.fields.as_ref();
            let is_handset = fields.is_some_and(|fields| fields.address.is_some());
            let is_line = fields.is_some_and(|fields| fields.projected_address.is_some());
            // Lines change hands, and are no other lines for it.
            is_handset || (is_line && change.created_at.is_none_or(|at| at >= change.version.at))
        }
        _ => false,
    })
}

/// The conversations of a batch that a handset has left, or that have ended.
pub(super) fn left(observed: &[Observed]) -> Vec<&str> {
    conversations(observed, |change| match change {
        Change::Participant(change) => {
            let fields = change.fields.as_ref();
            change.removed && fields.is_none_or(|fields| fields.address.is_some())
        }
        Change::Conversation(change) => change.state.as_deref() == Some("closed"),
        Change::ConversationState(change) => change.state == "closed",
        Change::ConversationRemoved { .. } => true,
        Change::Message(_) | Change::Receipt(_) | Change::User(_) | Change::Unread { .. } => false,
    })
}

fn conversations(observed: &[Observed], is_meant: impl Fn(&Change) -> bool) -> Vec<&str> {
    let mut sids: Vec<&str> = observed
        .iter()
        .filter(|one| is_meant(&one.change))
        .filter_map(|one| one.change.conversation_sid())
        .map(ConversationSid::as_str)
        .collect();
    sids.sort_unstable();
    sids.dedup();
    sids
}

/// What of a batch is about opting out; nothing, nearly always.
pub(super) fn seen(observed: &[Observed], masked: &BTreeMap<usize, Change>) -> Vec<Seen> {
    let mut all: Vec<Seen> = observed
        .iter()
        .enumerate()
        .filter_map(|(place, one)| {
            let change = masked.get(&place).unwrap_or(&one.change);
            of_change(change, one)
        })
        .collect();
    all.sort_by(|one, other| (one.at, &one.evidence).cmp(&(other.at, &other.evidence)));
    all
}

fn of_change(change: &Change, observed: &Observed) -> Option<Seen> {
    match change {
        Change::Message(message) if !message.removed => {
            let fields = message.fields.as_ref()?;
            Some(Seen {
                keyword: Keyword::of(fields.body.as_deref()?)?,
                account_sid: observed.account_sid.clone(),
                conversation_sid: message.conversation_sid.clone(),
                source: Source::Keyword,
                at: message.created_at.unwrap_or(message.version.at),
                evidence: message.message_sid.to_string(),
                message_sid: None,
                author: fields.author.clone(),
                participant_sid: fields.participant_sid.clone(),
                cause: observed.cause.clone(),
            })
        }
        Change::Receipt(receipt) if receipt.error_code.as_deref() == Some(OPTED_OUT) => Some(Seen {
            keyword: Keyword::Stop,
            account_sid: observed.account_sid.clone(),
            conversation_sid: receipt.conversation_sid.clone(),
            source: Source::Receipt,
            // When the message was refused to them, and not when that was told again.
            at: receipt
                .created_at
                .unwrap_or(receipt.version.at)
                .min(receipt.version.at),
            evidence: receipt.receipt_sid.to_string(),
            message_sid: Some(receipt.message_sid.to_string()),
            author: None,
            participant_sid: receipt.participant_sid.clone(),
            cause: observed.cause.clone(),
        }),
        _ => None,
    }
}

/// Finds the member and our numbers among all who are or were in the conversation.
pub(super) fn resolve(seen: Seen, members: &[ParticipantRow]) -> Who {
    let by_sid = members
        .iter()
        .find(|member| Some(&member.participant_sid) == seen.participant_sid.as_ref());
    let by_address = || {
        let author = seen.author.as_ref()?;
        members
            .iter()
            .filter(|member| member.address.as_ref() == Some(author))
            .max_by_key(|member| member.removed_at.is_none())
    };
    let Some(member) = by_sid.or_else(by_address) else {
        // A handset writes under its number; what else there is, is one of ours.
        let is_ours = members
            .iter()
            .any(|member| member.projected_address.is_some() && member.projected_address == seen.author);
        let may_come = match (&seen.author, seen.source) {
            (Some(author), _) => author.starts_with('+') && !is_ours,
            (None, Source::Receipt) => seen.participant_sid.is_some(),
            (None, _) => false,
        };
        return if may_come {
            Who::NotYet(Box::new(seen))
        } else {
            Who::Nobody
        };
    };
    let Some(address) = member.address.clone() else {
        return Who::Nobody;
    };
    let mut lines: Vec<String> = match &member.proxy_address {
        Some(proxy) => vec![proxy.clone()],
        None => members
            .iter()
            .filter(|other| other.removed_at.is_none_or(|at| at > seen.at))
            .filter_map(|other| other.projected_address.clone())
            .collect(),
    };
    lines.sort();
    lines.dedup();
    if lines.is_empty() {
        return Who::NotYet(Box::new(seen));
    }
    Who::Known(Box::new(Resolved {
        lines,
        address,
        participant_sid: member.participant_sid.clone(),
        seen,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::Version;
    use crate::mirror::change::{MessageChange, MessageFields, ReceiptChange};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_000_000 + second).unwrap()
    }

    fn observed(change: Change) -> Observed {
        Observed {
            account_sid: "AC00000000000000000000000000000001".parse().unwrap(),
            change,
            cause: "webhook:1".to_owned(),
            source: None,
        }
    }

    fn message(author: &str, body: &str, second: i64) -> Observed {
        observed(Change::Message(MessageChange {
            conversation_sid: "CH00000000000000000000000000000001".parse().unwrap(),
            message_sid: "IM00000000000000000000000000000001".parse().unwrap(),
            version: Version {
                at: at(second + 100),
                exact: true,
            },
            removed: false,
            fields: Some(MessageFields {
                author: Some(author.to_owned()),
                body: Some(body.to_owned()),
                ..MessageFields::default()
            }),
            created_at: Some(at(second)),
        }))
    }

    fn receipt(code: Option<&str>) -> Observed {
        observed(Change::Receipt(ReceiptChange {
            conversation_sid: "CH00000000000000000000000000000001".parse().unwrap(),
            message_sid: "IM00000000000000000000000000000001".parse().unwrap(),
            receipt_sid: "DY00000000000000000000000000000001".parse().unwrap(),
            participant_sid: Some("MB1".to_owned()),
            channel_message_sid: None,
            status: "undelivered".to_owned(),
            error_code: code.map(str::to_owned),
            created_at: Some(at(1)),
            version: Version {
                at: at(9),
                exact: true,
            },
        }))
    }

    fn member(sid: &str, address: Option<&str>, line: Option<&str>) -> ParticipantRow {
        ParticipantRow {
            conversation_sid: String::new(),
            participant_sid: sid.to_owned(),
            identity: None,
            address: address.map(str::to_owned),
            proxy_address: None,
            projected_address: line.map(str::to_owned),
            attributes: None,
            role_sid: None,
            last_read_message_index: None,
            created_at: None,
            updated_at: at(0),
            removed_at: None,
            erased_at: None,
        }
    }

    fn only(observed: Observed) -> Seen {
        let mut all = seen(&[observed], &BTreeMap::new());
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[test]
    fn words_and_receipts_are_seen_in_the_order_of_their_times() {
        let all = [
            message("+15555550101", "start", 7),
            message("+15555550101", "hello", 3),
            receipt(None),
            receipt(Some("30003")),
            receipt(Some("21610")),
            message("+15555550101", "Stop ", 5),
        ];
        let seen = seen(&all, &BTreeMap::new());
        let found: Vec<_> = seen.iter().map(|one| (one.keyword, one.source, one.at)).collect();
        assert_eq!(
            found,
            [
                (Keyword::Stop, Source::Receipt, at(1)),
                (Keyword::Stop, Source::Keyword, at(5)),
                (Keyword::Start, Source::Keyword, at(7)),
            ]
        );
    }

    #[test]
    fn what_was_erased_says_nothing() {
        let said = message("+15555550101", "STOP", 1);
        let masked = message("+15555550101", "", 1).change;
        assert_eq!(seen(&[said], &BTreeMap::from([(0, masked)])), []);
    }

    #[test]
    fn the_member_is_found_with_every_line_of_the_group() {
        let members = [
            member("MB1", Some("+15555550101"), None),
            member("MB2", None, Some("+15017122662")),
            member("MB3", None, Some("+15017122661")),
            ParticipantRow {
                removed_at: Some(at(4)),
                ..member("MB4", None, Some("+15555550199"))
            },
        ];
        for one in [message("+15555550101", "STOP", 5), receipt(Some("21610"))] {
            let Who::Known(found) = resolve(only(one), &members[..3]) else {
                panic!("it is known");
            };
            assert_eq!(found.address, "+15555550101");
            assert_eq!(found.lines, ["+15017122661", "+15017122662"]);
            assert_eq!(found.participant_sid, "MB1");
        }
        let lines_at = |second| match resolve(only(message("+15555550101", "STOP", second)), &members) {
            Who::Known(found) => found.lines.len(),
            _ => 0,
        };
        assert_eq!((lines_at(3), lines_at(5)), (3, 2));
    }

    #[test]
    fn one_of_ours_may_write_the_word() {
        let members = [member("MB2", None, Some("+15017122662"))];
        for author in ["maya", "+15017122662"] {
            assert_eq!(resolve(only(message(author, "STOP", 5)), &members), Who::Nobody);
        }
    }

    #[test]
    fn who_is_not_known_yet_is_waited_for() {
        let line = member("MB2", None, Some("+15017122662"));
        let handset = member("MB1", Some("+15555550101"), None);
        for members in [vec![], vec![line], vec![handset]] {
            let who = resolve(only(message("+15555550101", "STOP", 5)), &members);
            assert!(matches!(who, Who::NotYet(_)), "{members:?}");
        }
        assert!(matches!(
            resolve(only(receipt(Some("21610"))), &[]),
            Who::NotYet(_)
        ));
    }
}
