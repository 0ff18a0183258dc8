//! Which lines somebody holds: what the ledger says, what Twilio says, and where the two do not agree. Pure, but for asking
//! Twilio.

use std::collections::BTreeMap;

use crate::accounts::Accounts;
use crate::handover::Finding;
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber};
use crate::ledger::Held;
use crate::twilio;
use crate::twilio::conversations::Of;
use crate::twilio::model::ConversationState;

/// A line that Twilio lists for an identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    pub account_sid: AccountSid,
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub is_closed: bool,
}

/// Asks every account for the conversations of an identity. One that Twilio does not know has none. Where they take part
/// without a number, as in chats, there is no line.
pub async fn seats(accounts: &Accounts, identity: &Identity) -> Result<Vec<Seat>, twilio::Error> {
    let mut seats = Vec::new();
    for account in accounts.iter() {
        let pages = account
            .client
            .list_participant_conversations(Of::Identity(identity));
        let rows = match pages.all().await {
            Err(twilio::Error::NotFound { .. }) => continue,
            rows => rows?,
        };
        seats.extend(rows.into_iter().filter_map(|row| {
            Some(Seat {
                account_sid: account.account_sid.clone(),
                conversation_sid: row.conversation_sid,
                line: row
                    .participant_messaging_binding
                    .projected_address?
                    .as_str()
                    .parse()
                    .ok()?,
                is_closed: row.conversation_state == ConversationState::Closed,
            })
        }));
    }
    Ok(seats)
}

/// A line that belongs into a plan.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub account_sid: String,
    pub conversation_sid: ConversationSid,
    pub line: PhoneNumber,
    pub finding: Finding,
    /// Its conversation has to be read before anything is done.
    pub is_in_doubt: bool,
}

/// Puts both together, in the order of the conversations. What Twilio says is closed and the ledger does not have is nobody's.
pub fn compare(held: Vec<Held>, seats: &[Seat]) -> Vec<Found> {
    let key = |sid: &ConversationSid, line: &PhoneNumber| (sid.to_string(), line.as_str().to_owned());
    let mut at_twilio: BTreeMap<(String, String), &Seat> = seats
        .iter()
        .map(|seat| (key(&seat.conversation_sid, &seat.line), seat))
        .collect();
    let mut found: Vec<Found> = held
        .into_iter()
        .map(|held| {
            let finding = match at_twilio.remove(&key(&held.conversation_sid, &held.line)) {
                Some(seat) if seat.is_closed => Finding::Closed,
                Some(_) => Finding::Agrees,
                None => Finding::OnlyHere,
            };
            Found {
                is_in_doubt: finding != Finding::Agrees || held.is_in_doubt,
                account_sid: held.account_sid,
                conversation_sid: held.conversation_sid,
                line: held.line,
                finding,
            }
        })
        .collect();
    let only_there = at_twilio.into_values().filter(|seat| !seat.is_closed);
    found.extend(only_there.map(|seat| Found {
        account_sid: seat.account_sid.as_str().to_owned(),
        conversation_sid: seat.conversation_sid.clone(),
        line: seat.line.clone(),
        finding: Finding::OnlyAtTwilio,
        is_in_doubt: true,
    }));
    found.sort_by_key(|one| key(&one.conversation_sid, &one.line));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sid(number: u32) -> ConversationSid {
        format!("CH{number:032}").parse().unwrap()
    }

    fn line() -> PhoneNumber {
        "+15555550100".parse().unwrap()
    }

    fn held(number: u32, is_in_doubt: bool) -> Held {
        Held {
            account_sid: "AC00000000000000000000000000000001".to_owned(),
            conversation_sid: sid(number),
            line: line(),
            is_in_doubt,
        }
    }

    fn seat(number: u32, is_closed: bool) -> Seat {
        Seat {
            account_sid: "AC00000000000000000000000000000001".parse().unwrap(),
            conversation_sid: sid(number),
            line: line(),
            is_closed,
        }
    }

    #[test]
    fn what_the_two_do_not_agree_on_is_in_doubt() {
        let ours = vec![held(1, false), held(2, false), held(3, false), held(4, true)];
        let theirs = [
            seat(0, false),
            seat(1, false),
            seat(3, true),
            seat(4, false),
            seat(5, true),
        ];
        let found = compare(ours, &theirs);
        let said: Vec<_> = found
            .iter()
            .map(|one| (one.conversation_sid.clone(), one.finding, one.is_in_doubt))
            .collect();
        assert_eq!(
            said,
            [
                (sid(0), Finding::OnlyAtTwilio, true),
                (sid(1), Finding::Agrees, false),
                (sid(2), Finding::OnlyHere, true),
                (sid(3), Finding::Closed, true),
                (sid(4), Finding::Agrees, true),
            ]
        );
    }
}
