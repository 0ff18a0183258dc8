//! How far a message came to each member: what receipts tell, and who is still waited for. Pure.

use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::mirror::read::{ParticipantRow, ReceiptRow};

/// What is said of a member of whom Twilio has told nothing yet.
const PENDING: &str = "pending";

/// How far a message came to one member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct Delivery {
    participant_sid: Option<String>,
    /// The handset, where the member is known.
    address: Option<String>,
    /// Twilio's word: `sent`, `delivered`, `read`, `undelivered`, `failed`; or `pending` while it has told nothing. It never goes
    /// back, in whatever order we hear of it; `undelivered` and `failed` are final.
    status: String,
    /// Twilio's, where it was not delivered: 21610 says that they have opted out.
    error_code: Option<String>,
    /// When it came so far; null: Twilio has told nothing.
    updated_at: Option<Timestamp>,
}

/// How many members a message has come how far to: each is counted once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct DeliverySummary {
    total: usize,
    pending: usize,
    sent: usize,
    delivered: usize,
    read: usize,
    undelivered: usize,
    failed: usize,
}

/// What of a message matters to who it goes to.
pub(super) struct Written<'a> {
    pub(super) at: Timestamp,
    pub(super) participant_sid: Option<&'a str>,
    pub(super) author: Option<&'a str>,
    /// One of ours wrote it: Twilio sends it to every handset. Else carriers bring it, and nobody tells.
    pub(super) is_ours: bool,
}

/// Each member with a handset who was there, and whoever else Twilio has told of.
pub(super) fn of_members(
    written: &Written<'_>,
    members: &[ParticipantRow],
    receipts: Vec<ReceiptRow>,
) -> Vec<Delivery> {
    let mut furthest: Vec<ReceiptRow> = Vec::with_capacity(receipts.len());
    for receipt in receipts {
        let same = furthest
            .iter_mut()
            .find(|one| one.participant_sid.is_some() && one.participant_sid == receipt.participant_sid);
        match same {
            Some(known) if order(&receipt) > order(known) => *known = receipt,
            Some(_) => {}
            None => furthest.push(receipt),
        }
    }
    let waited_for = members
        .iter()
        .filter(|member| written.is_ours && written.goes_to(member))
        .filter(|member| {
            let sid = Some(&member.participant_sid);
            !furthest
                .iter()
                .any(|receipt| receipt.participant_sid.as_ref() == sid)
        })
        .map(|member| Delivery {
            participant_sid: Some(member.participant_sid.clone()),
            address: member.address.clone(),
            status: PENDING.to_owned(),
            error_code: None,
            updated_at: None,
        })
        .collect::<Vec<_>>();
    let told = furthest.into_iter().map(|receipt| {
        let member = members
            .iter()
            .find(|member| Some(&member.participant_sid) == receipt.participant_sid.as_ref());
        Delivery {
            address: member.and_then(|member| member.address.clone()),
            participant_sid: receipt.participant_sid,
            status: receipt.status,
            error_code: receipt.error_code,
            updated_at: Some(receipt.updated_at),
        }
    });
    told.chain(waited_for).collect()
}

/// The sum; none where nobody is to be told of.
pub(super) fn summary(all: &[Delivery]) -> Option<DeliverySummary> {
    if all.is_empty() {
        return None;
    }
    let mut summary = DeliverySummary {
        total: all.len(),
        ..DeliverySummary::default()
    };
    for one in all {
        let count = match one.status.as_str() {
            "sent" => &mut summary.sent,
            "delivered" => &mut summary.delivered,
            "read" => &mut summary.read,
            "undelivered" => &mut summary.undelivered,
            "failed" => &mut summary.failed,
            // A word that Twilio may have for being on the way.
            _ => &mut summary.pending,
        };
        *count += 1;
    }
    Some(summary)
}

impl Written<'_> {
    fn goes_to(&self, member: &ParticipantRow) -> bool {
        let was_there = member.created_at.is_none_or(|at| at <= self.at)
            && member.removed_at.is_none_or(|at| at > self.at);
        let is_author = Some(member.participant_sid.as_str()) == self.participant_sid
            || (member.address.is_some() && member.address.as_deref() == self.author);
        member.address.is_some() && was_there && !is_author
    }
}

/// The order of states, and not of arrival.
fn order(receipt: &ReceiptRow) -> (u8, Timestamp) {
    let rank = match receipt.status.as_str() {
        "sent" => 1,
        "delivered" => 2,
        "read" => 3,
        "undelivered" | "failed" => 4,
        _ => 0,
    };
    (rank, receipt.updated_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_000_000 + second).unwrap()
    }

    fn member(sid: &str, address: Option<&str>) -> ParticipantRow {
        ParticipantRow {
            conversation_sid: String::new(),
            participant_sid: sid.to_owned(),
            identity: None,
            address: address.map(str::to_owned),
            proxy_address: None,
            projected_address: None,
            attributes: None,
            role_sid: None,
            last_read_message_index: None,
            created_at: Some(at(0)),
            updated_at: at(0),
            removed_at: None,
            erased_at: None,
        }
    }

    fn receipt(sid: &str, status: &str, second: i64) -> ReceiptRow {
        ReceiptRow {
            message_sid: String::new(),
            delivery_receipt_sid: format!("DY{sid}{second}"),
            participant_sid: Some(sid.to_owned()),
            channel_message_sid: None,
            status: status.to_owned(),
            error_code: None,
            updated_at: at(second),
        }
    }

    fn written(is_ours: bool) -> Written<'static> {
        Written {
            at: at(10),
            participant_sid: None,
            author: Some("maya"),
            is_ours,
        }
    }

    fn shown(all: &[Delivery]) -> Vec<(&str, &str)> {
        all.iter()
            .map(|one| (one.participant_sid.as_deref().unwrap_or("?"), one.status.as_str()))
            .collect()
    }

    #[test]
    fn every_handset_that_was_there_is_named_once_with_its_furthest_state() {
        let late = ParticipantRow {
            created_at: Some(at(11)),
            ..member("late", Some("+15555550103"))
        };
        let gone = ParticipantRow {
            removed_at: Some(at(9)),
            ..member("gone", Some("+15555550104"))
        };
        let members = [
            member("one", Some("+15555550101")),
            member("two", Some("+15555550102")),
            member("line", None),
            late,
            gone,
        ];
        let receipts = vec![
            receipt("one", "delivered", 12),
            receipt("one", "sent", 13),
            receipt("unknown", "failed", 12),
        ];
        let all = of_members(&written(true), &members, receipts);
        assert_eq!(
            shown(&all),
            [("one", "delivered"), ("unknown", "failed"), ("two", "pending")]
        );
        assert_eq!(all[0].address.as_deref(), Some("+15555550101"));
        assert_eq!(
            summary(&all),
            Some(DeliverySummary {
                total: 3,
                pending: 1,
                delivered: 1,
                failed: 1,
                ..DeliverySummary::default()
            })
        );
    }

    #[test]
    fn nobody_tells_how_far_a_handset_s_own_message_came() {
        let members = [member("one", Some("+15555550101"))];
        let all = of_members(&written(false), &members, Vec::new());
        assert_eq!(all, []);
        assert_eq!(summary(&all), None);
    }
}
