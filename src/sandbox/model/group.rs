//! The rules of group MMS about who may be in one conversation together, and what a conversation holds for itself.
//!
//! Every function looks at a list of members as it would be after the change; none of them changes anything.
//! Twilio: "Group Texting in Conversations" and the error dictionary.

use std::collections::BTreeSet;

use crate::ids::PhoneNumber;

use super::address::Binding;
use super::refusal::{
    ACTIVATION_FAILED, GROUP_FULL, IDENTITY_IN_CONVERSATION, NO_PROJECTED_ADDRESS, PAIR_BOUND,
    PARTICIPANT_EXISTS, Refusal, TOO_MANY_NON_CHAT, TOO_MANY_PARTICIPANTS,
};

/// Group MMS takes at most this many participants, those behind projected addresses included.
pub(crate) const GROUP_LIMIT: usize = 10;
/// A conversation becomes group MMS with this many different numbers.
const GROUP_NUMBERS: usize = 3;
const PARTICIPANT_LIMIT: usize = 1000;
const NON_CHAT_LIMIT: usize = 50;

/// A participant reduced to what these rules look at.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Member {
    pub(crate) identity: Option<String>,
    pub(crate) binding: Binding,
}

/// What only one open conversation can have at a time. Inbound messages find their conversation by it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Claim {
    /// All numbers of a group, identities apart: the key of the unique-group rule.
    Roster(BTreeSet<PhoneNumber>),
    /// A handset and the one number that it sees.
    Pair {
        address: PhoneNumber,
        proxy: PhoneNumber,
    },
}

/// May `joining` be one more participant beside `present`?
pub(crate) fn check_joining(present: &[Member], joining: &Member) -> Result<(), Refusal> {
    check_not_present(present, joining)?;
    let mut all = present.to_vec();
    all.push(joining.clone());
    check_limits(&all)?;
    if joining.binding == Binding::Chat && present.iter().any(|member| member.binding.is_group()) {
        return Err(NO_PROJECTED_ADDRESS.refuse());
    }
    check_activation(&all)
}

/// May these be the participants of a conversation that is created with all of them at once?
///
/// Unlike a conversation that grows, it is a group from the start, so that too few numbers are refused, too.
pub(crate) fn check_founding(all: &[Member]) -> Result<(), Refusal> {
    for (position, member) in all.iter().enumerate() {
        check_not_present(&all[..position], member)?;
    }
    check_limits(all)?;
    if !all.iter().any(|member| member.binding.is_group()) {
        return Ok(());
    }
    if all.iter().any(|member| member.binding == Binding::Chat) {
        return Err(NO_PROJECTED_ADDRESS.refuse());
    }
    if is_group(all) {
        Ok(())
    } else {
        Err(ACTIVATION_FAILED.saying(
            "Group MMS activation failed: it takes three numbers, an address and a projected address among them",
        ))
    }
}

/// May these be the participants after one of them was changed?
pub(crate) fn check_changed(all: &[Member], changed: &Member) -> Result<(), Refusal> {
    let another_in_group = all
        .iter()
        .filter(|member| *member != changed)
        .any(|member| member.binding.is_group());
    if changed.binding == Binding::Chat && another_in_group {
        return Err(NO_PROJECTED_ADDRESS.refuse());
    }
    check_activation(all)
}

/// The same participant twice is refused; one projected address behind two identities is not.
pub(crate) fn check_not_present(present: &[Member], joining: &Member) -> Result<(), Refusal> {
    for member in present {
        match (&member.binding, &joining.binding) {
            (Binding::Native(a), Binding::Native(b)) if a == b => return Err(PARTICIPANT_EXISTS.refuse()),
            (Binding::Projected(a), Binding::Projected(b))
                if a == b && member.identity == joining.identity =>
            {
                return Err(PARTICIPANT_EXISTS.refuse());
            }
            (Binding::Proxied { .. }, Binding::Proxied { .. }) if member.binding == joining.binding => {
                return Err(PAIR_BOUND.refuse());
            }
            _ if joining.identity.is_some() && member.identity == joining.identity => {
                return Err(IDENTITY_IN_CONVERSATION.refuse());
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_limits(all: &[Member]) -> Result<(), Refusal> {
    if all.iter().any(|member| member.binding.is_group()) && all.len() > GROUP_LIMIT {
        return Err(GROUP_FULL.refuse());
    }
    if all
        .iter()
        .filter(|member| member.binding != Binding::Chat)
        .count()
        > NON_CHAT_LIMIT
    {
        return Err(TOO_MANY_NON_CHAT.refuse());
    }
    if all.len() > PARTICIPANT_LIMIT {
        Err(TOO_MANY_PARTICIPANTS.refuse())
    } else {
        Ok(())
    }
}

/// With the third number the conversation turns into a group, which has no place for an identity without a number.
fn check_activation(all: &[Member]) -> Result<(), Refusal> {
    if is_group(all) && all.iter().any(|member| member.binding == Binding::Chat) {
        return Err(ACTIVATION_FAILED
            .saying("Group MMS activation failed: a participant has an identity but no projected address"));
    }
    Ok(())
}

/// Whether these make a group: three numbers, an outsider's and one of ours among them.
pub(crate) fn is_group(all: &[Member]) -> bool {
    reaches_somebody(all) && numbers(all).len() >= GROUP_NUMBERS
}

fn reaches_somebody(all: &[Member]) -> bool {
    let native = all
        .iter()
        .any(|member| matches!(member.binding, Binding::Native(_)));
    let projected = all
        .iter()
        .any(|member| matches!(member.binding, Binding::Projected(_)));
    native && projected
}

fn numbers(all: &[Member]) -> BTreeSet<PhoneNumber> {
    all.iter()
        .filter_map(|member| member.binding.group_number())
        .cloned()
        .collect()
}

/// What an open conversation with these participants holds for itself alone.
///
/// Two numbers, an outsider's and one of ours, are texting 1:1 through the projected address; they hold their set as
/// well, since an inbound message could not be matched otherwise.
pub(crate) fn claims(all: &[Member]) -> Vec<Claim> {
    let roster = reaches_somebody(all).then(|| Claim::Roster(numbers(all)));
    let pairs = all.iter().filter_map(|member| match &member.binding {
        Binding::Proxied { address, proxy } => Some(Claim::Pair {
            address: address.clone(),
            proxy: proxy.clone(),
        }),
        _ => None,
    });
    roster.into_iter().chain(pairs).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> PhoneNumber {
        text.parse().unwrap()
    }

    fn native(text: &str) -> Member {
        Member {
            identity: None,
            binding: Binding::Native(number(text)),
        }
    }

    fn projected(identity: Option<&str>) -> Member {
        Member {
            identity: identity.map(str::to_owned),
            binding: Binding::Projected(number("+15017122661")),
        }
    }

    fn chat(identity: &str) -> Member {
        Member {
            identity: Some(identity.to_owned()),
            binding: Binding::Chat,
        }
    }

    fn two_and_the_agent() -> Vec<Member> {
        vec![
            native("+15555550101"),
            native("+15555550102"),
            projected(Some("agent-7")),
        ]
    }

    fn code(result: Result<(), Refusal>) -> Option<u32> {
        result.err().map(|refusal| refusal.code)
    }

    #[test]
    fn the_eleventh_participant_is_refused_even_behind_a_shared_projected_address() {
        let mut group = two_and_the_agent();
        for last in 3..10 {
            let joining = native(&format!("+155555501{last:02}"));
            assert_eq!(code(check_joining(&group, &joining)), None);
            group.push(joining);
        }
        assert_eq!(group.len(), GROUP_LIMIT);
        assert_eq!(
            code(check_joining(&group, &projected(Some("agent-8")))),
            Some(50436)
        );
    }

    #[test]
    fn a_projected_address_is_shared_by_identities_but_not_taken_twice_by_one() {
        let group = two_and_the_agent();
        assert_eq!(code(check_joining(&group, &projected(Some("agent-8")))), None);
        assert_eq!(code(check_joining(&group, &projected(None))), None);
        assert_eq!(
            code(check_joining(&group, &projected(Some("agent-7")))),
            Some(50437)
        );
        assert_eq!(code(check_joining(&group, &native("+15555550101"))), Some(50437));
    }

    #[test]
    fn an_identity_is_in_a_conversation_once() {
        let joining = Member {
            identity: Some("agent-7".to_owned()),
            binding: Binding::Projected(number("+15017122662")),
        };
        assert_eq!(code(check_joining(&two_and_the_agent(), &joining)), Some(50433));
    }

    #[test]
    fn a_chat_participant_without_a_projected_address_has_no_place_in_a_group() {
        assert_eq!(
            code(check_joining(&two_and_the_agent(), &chat("agent-9"))),
            Some(50434)
        );
        let growing = [chat("agent-9"), native("+15555550101"), native("+15555550102")];
        assert_eq!(code(check_joining(&growing, &projected(None))), Some(50435));
    }

    #[test]
    fn a_group_is_founded_by_three_numbers_with_one_of_ours() {
        assert_eq!(code(check_founding(&two_and_the_agent())), None);
        assert_eq!(
            code(check_founding(&[native("+15555550101"), projected(None)])),
            Some(50435)
        );
        let outsiders: Vec<Member> = (1..4).map(|last| native(&format!("+1555555010{last}"))).collect();
        assert_eq!(code(check_founding(&outsiders)), Some(50435));
        assert_eq!(code(check_founding(&[chat("a"), chat("b")])), None);
    }

    #[test]
    fn the_roster_is_the_set_of_numbers_whoever_stands_behind_them() {
        let mut group = two_and_the_agent();
        let before = claims(&group);
        group.push(projected(Some("agent-8")));
        group.remove(2);
        group.reverse();
        assert!(claims(&group) == before);
        assert!(claims(&[native("+15555550101"), native("+15555550102")]).is_empty());
    }
}
