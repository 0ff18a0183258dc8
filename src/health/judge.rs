//! What is wrong with one group, by what we know of it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::health::{Autocreating, Code, LineSend, Ours, Repair};
use crate::mirror::read::{ConversationRow, ParticipantRow};

/// What is known of a conversation when it is judged.
#[derive(Debug, Clone, Copy)]
pub struct Situation<'a> {
    pub conversation: &'a ConversationRow,
    /// Those who left, too.
    pub participants: &'a [ParticipantRow],
    /// Of each line, who held it last, now or before.
    pub last_holders: &'a BTreeMap<String, String>,
    pub sends: &'a [LineSend],
    /// A webhook said that the last of ours left, and when. What a read found missing may have left long before.
    pub departure_was_told: bool,
    /// None: its account is not configured, and nothing is known of what it should be.
    pub ours: Option<Ours<'a>>,
    /// None: nobody has asked Twilio now.
    pub autocreating: Option<&'a Autocreating>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub struct Judged {
    pub code: Code,
    pub line: Option<String>,
    pub evidence: Value,
    pub repair: Option<Repair>,
}

/// What came of it: what is wrong, and which codes could not be judged, so that a finding of theirs stays as it is.
#[derive(Debug, Default, PartialEq)]
pub struct Judgement {
    pub found: Vec<Judged>,
    pub open: BTreeSet<Code>,
}

/// Judges a conversation. In one that is over nothing is wrong, nor in one that is no group of ours.
pub fn judge(situation: &Situation<'_>) -> Judgement {
    let conversation = situation.conversation;
    let mut judgement = Judgement::default();
    if conversation.is_over() {
        return judgement;
    }
    let is_group = situation
        .participants
        .iter()
        .any(|one| one.projected_address.is_some());
    let is_up = matches!(conversation.state.as_deref(), Some("active" | "inactive"));
    if is_up && is_group {
        judgement.found.extend(seats(situation));
        judgement.found.extend(service(situation));
        judgement.found.extend(numbers(situation));
        // Of a number that is no longer in the group nobody writes.
        let lines: BTreeSet<&str> = seated(situation.participants)
            .into_iter()
            .filter_map(|one| one.projected_address.as_deref())
            .collect();
        let sends = situation.sends.iter();
        judgement.found.extend(
            sends
                .filter(|send| lines.is_empty() || lines.contains(send.line.as_str()))
                .filter_map(|send| refusals(conversation, send)),
        );
    }
    if conversation.verified_at.is_none() {
        judgement.found.push(Judged {
            code: Code::NeverVerified,
            line: None,
            evidence: json!({ "first_seen_at": conversation.first_seen_at }),
            repair: Some(Repair::ReadAgain),
        });
    }
    if situation.autocreating.is_none() {
        judgement.open.insert(Code::NumberNotAutocreating);
    }
    if situation.ours.is_none() {
        judgement.open.extend([
            Code::MessagingServiceDiffers,
            Code::NumberNotConfigured,
            Code::NumberNotAutocreating,
        ]);
    }
    judgement
}

/// Who is, and should be, on our numbers.
fn seats(situation: &Situation<'_>) -> Vec<Judged> {
    let seated = seated(situation.participants);
    if seated.is_empty() {
        return missing(situation).into_iter().collect();
    }
    let mut by_line: BTreeMap<&str, Vec<&ParticipantRow>> = BTreeMap::new();
    for one in seated {
        let line = one.projected_address.as_deref().unwrap_or_default();
        by_line.entry(line).or_default().push(one);
    }
    let unstaffed = by_line
        .into_iter()
        .filter(|(_, seats)| seats.iter().all(|seat| seat.identity.is_none()));
    unstaffed
        .map(|(line, seats)| Judged {
            code: Code::LineUnstaffed,
            line: Some(line.to_owned()),
            evidence: json!({ "participant_sid": seats[0].participant_sid }),
            repair: returning_holder(situation, line).map(|_| Repair::ReattachHolder),
        })
        .collect()
}

/// Those who are on a number of ours now.
fn seated(participants: &[ParticipantRow]) -> Vec<&ParticipantRow> {
    participants
        .iter()
        .filter(|one| one.removed_at.is_none() && one.projected_address.is_some())
        .collect()
}

/// The seat of an unstaffed line that a holder can be put behind.
pub fn empty_seat<'a>(participants: &'a [ParticipantRow], line: &str) -> Option<&'a ParticipantRow> {
    seated(participants)
        .into_iter()
        .find(|one| one.projected_address.as_deref() == Some(line) && one.identity.is_none())
}

/// Whoever held the line last, if they may be put behind it again: Twilio takes a person once.
pub fn returning_holder<'a>(situation: &Situation<'a>, line: &str) -> Option<&'a str> {
    let holder = situation.last_holders.get(line)?;
    let is_there = situation
        .participants
        .iter()
        .any(|one| one.removed_at.is_none() && one.identity.as_ref() == Some(holder));
    (!is_there).then_some(holder.as_str())
}

/// The last participant that was on a number of ours, where none is now.
pub fn departed(participants: &[ParticipantRow]) -> Option<(&ParticipantRow, Timestamp)> {
    if !seated(participants).is_empty() {
        return None;
    }
    participants
        .iter()
        .filter(|one| one.projected_address.is_some())
        .filter_map(|one| Some((one, one.removed_at?)))
        .max_by_key(|(one, at)| (*at, one.participant_sid.clone()))
}

fn missing(situation: &Situation<'_>) -> Option<Judged> {
    let (last, at) = departed(situation.participants)?;
    let line = last.projected_address.clone()?;
    let is_ours = situation.ours.is_some_and(|ours| ours.has(&line));
    // What a read found missing may have left at any time since it came.
    let left_at_the_earliest = if situation.departure_was_told {
        Some(at)
    } else {
        last.created_at.map(|came| at.min(came + MADE_WITHIN))
    };
    let safe = is_ours
        && left_at_the_earliest
            .is_some_and(|earliest| roster_stood_still_since(situation.participants, earliest));
    Some(Judged {
        code: Code::ProjectedParticipantMissing,
        line: Some(line),
        evidence: json!({ "participant_sid": last.participant_sid, "removed_at": at }),
        repair: safe.then_some(Repair::ReaddParticipant),
    })
}

/// The members of a group that is made come within so much time.
const MADE_WITHIN: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);

/// Whether the handsets are the same as when our number left. Twilio and the handsets know a group by its set of
/// numbers, so that adding ours to another set would make another group.
fn roster_stood_still_since(participants: &[ParticipantRow], at: Timestamp) -> bool {
    let mut handsets = participants
        .iter()
        .filter(|one| one.address.is_some() && one.projected_address.is_none())
        .peekable();
    // A second, since answers of the REST API are cut to it.
    let slack = jiff::SignedDuration::from_secs(1);
    handsets.peek().is_some()
        && handsets.all(|one| {
            let came_before = one.created_at.is_some_and(|came| came <= at);
            let left_before = one.removed_at.is_some_and(|left| left + slack < at);
            came_before && (one.removed_at.is_none() || left_before)
        })
}

fn service(situation: &Situation<'_>) -> Option<Judged> {
    let conversation = situation.conversation;
    let judged = |code, evidence| {
        Some(Judged {
            code,
            line: None,
            evidence,
            repair: situation.ours.map(|_| Repair::PinMessagingService),
        })
    };
    match (&conversation.messaging_service_sid, situation.ours) {
        // A webhook may leave it out; a read does not.
        (None, _) if conversation.verified_at.is_some() => judged(Code::MessagingServiceMissing, json!({})),
        (Some(has), Some(ours)) if has != ours.messaging_service_sid => judged(
            Code::MessagingServiceDiffers,
            json!({ "messaging_service_sid": has, "configured": ours.messaging_service_sid }),
        ),
        _ => None,
    }
}

fn numbers(situation: &Situation<'_>) -> Vec<Judged> {
    let lines: BTreeSet<&str> = seated(situation.participants)
        .into_iter()
        .filter_map(|one| one.projected_address.as_deref())
        .collect();
    let mut found = Vec::new();
    for line in lines {
        let mut judged = |code| {
            found.push(Judged {
                code,
                line: Some(line.to_owned()),
                evidence: json!({}),
                repair: None,
            });
        };
        let Some(ours) = situation.ours else { continue };
        if !ours.has(line) {
            judged(Code::NumberNotConfigured);
        } else if situation.autocreating.is_some_and(|numbers| !numbers.has(line)) {
            judged(Code::NumberNotAutocreating);
        }
    }
    found
}

fn refusals(conversation: &ConversationRow, send: &LineSend) -> Option<Judged> {
    let refusal = send.refusal.as_ref()?;
    let code = match refusal.code.as_str() {
        "50513" => Code::AuthorNotInGroup,
        _ => Code::SendRefused,
    };
    Some(Judged {
        code,
        line: Some(send.line.clone()),
        evidence: json!({
            "error_code": refusal.code,
            "refused_in_a_row": refusal.in_a_row,
            "refused_since": refusal.since,
            "refused_at": refusal.at,
            "send_id": refusal.outbound_message_id,
            "accepted_at": send.accepted_at,
            // What makes the group look healthy.
            "last_message_at": conversation.last_message_at,
        }),
        repair: Some(match refusal.code.as_str() {
            // The conversation has no messaging service.
            "50373" => Repair::PinMessagingService,
            _ => Repair::ReadAgain,
        }),
    })
}

#[cfg(test)]
mod tests;
