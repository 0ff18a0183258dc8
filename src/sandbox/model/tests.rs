//! What holds of the account whatever is done to it.

use std::collections::{BTreeSet, HashMap};

use jiff::SignedDuration;
use proptest::prelude::*;

use crate::clock::Clock;
use crate::ids::{ConversationSid, PhoneNumber};

use super::address::Shape;
use super::conversation::{Conversation, State};
use super::conversations::ConversationFields;
use super::group::{Claim, GROUP_LIMIT};
use super::inbound::Outgoing;
use super::messages::MessageFields;
use super::participants::{NewParticipant, ParticipantChange};
use super::webhook::EventName;
use super::{Account, Cause, Effect, IdentityReplacement};

const OURS: [&str; 2] = ["+15017122661", "+15017122662"];
const OTHERS: [&str; 4] = ["+15555550101", "+15555550102", "+15555550103", "+15555550104"];
const PEOPLE: [&str; 3] = ["agent-7", "agent-8", "agent-9"];

/// One thing that somebody does. Numbers choose among what there is.
#[derive(Debug, Clone)]
enum Step {
    Create {
        name: usize,
    },
    CreateWith {
        natives: usize,
        line: usize,
        person: Option<usize>,
    },
    AddNative {
        conversation: usize,
        number: usize,
    },
    AddProxied {
        conversation: usize,
        number: usize,
        line: usize,
    },
    AddProjected {
        conversation: usize,
        line: usize,
        person: Option<usize>,
    },
    AddChat {
        conversation: usize,
        person: usize,
    },
    HandOver {
        conversation: usize,
        participant: usize,
        person: usize,
    },
    RemoveParticipant {
        conversation: usize,
        participant: usize,
    },
    RemoveUser {
        person: usize,
    },
    SetState {
        conversation: usize,
        state: &'static str,
    },
    RemoveConversation {
        conversation: usize,
    },
    Post {
        conversation: usize,
        person: usize,
    },
    Text {
        sender: usize,
        others: usize,
        line: usize,
    },
    SetUp,
    Wait {
        minutes: i64,
    },
}

fn step() -> impl Strategy<Value = Step> {
    let any = 0..8_usize;
    let person = prop::option::of(0..PEOPLE.len());
    prop_oneof![
        (0..PEOPLE.len()).prop_map(|name| Step::Create { name }),
        (2..4_usize, 0..2_usize, person.clone()).prop_map(|(natives, line, person)| Step::CreateWith {
            natives,
            line,
            person
        }),
        (any.clone(), 0..OTHERS.len())
            .prop_map(|(conversation, number)| Step::AddNative { conversation, number }),
        (any.clone(), 0..OTHERS.len(), 0..2_usize).prop_map(|(conversation, number, line)| {
            Step::AddProxied {
                conversation,
                number,
                line,
            }
        }),
        (any.clone(), 0..2_usize, person).prop_map(|(conversation, line, person)| Step::AddProjected {
            conversation,
            line,
            person
        }),
        (any.clone(), 0..PEOPLE.len())
            .prop_map(|(conversation, person)| Step::AddChat { conversation, person }),
        (any.clone(), 0..6_usize, 0..PEOPLE.len()).prop_map(|(conversation, participant, person)| {
            Step::HandOver {
                conversation,
                participant,
                person,
            }
        }),
        (any.clone(), 0..6_usize).prop_map(|(conversation, participant)| Step::RemoveParticipant {
            conversation,
            participant
        }),
        (0..PEOPLE.len()).prop_map(|person| Step::RemoveUser { person }),
        (
            any.clone(),
            prop::sample::select(vec!["active", "inactive", "closed"])
        )
            .prop_map(|(conversation, state)| Step::SetState { conversation, state }),
        any.clone()
            .prop_map(|conversation| Step::RemoveConversation { conversation }),
        (any, 0..PEOPLE.len()).prop_map(|(conversation, person)| Step::Post { conversation, person }),
        (0..OTHERS.len(), 0..4_usize, 0..2_usize).prop_map(|(sender, others, line)| Step::Text {
            sender,
            others,
            line
        }),
        Just(Step::SetUp),
        (0..20_i64).prop_map(|minutes| Step::Wait { minutes }),
    ]
}

fn account(replacement: IdentityReplacement) -> Account {
    let mut account = Account::new(
        Clock::fixed("2026-01-02T03:04:05.678Z".parse().unwrap()),
        "AC00000000000000000000000000000001".parse().unwrap(),
        "IS00000000000000000000000000000001".parse().unwrap(),
        "MG00000000000000000000000000000001".parse().unwrap(),
        OURS.iter().map(|number| number.parse().unwrap()),
        replacement,
    );
    account.configuration.inactive_timer = Some("PT5M".to_owned());
    account.configuration.closed_timer = Some("PT15M".to_owned());
    let fields = super::autocreation::AddressFields {
        kind: Some("sms".to_owned()),
        address: Some(OURS[0].to_owned()),
        enabled: Some("true".to_owned()),
        ..super::autocreation::AddressFields::default()
    };
    account.configure_address(&fields).unwrap();
    account
}

/// Does a step. Whether it is refused does not matter here; that it leaves everything in order does.
fn take(account: &mut Account, step: &Step) {
    let service = account.configuration.service.clone();
    let cause = Cause::rest(true);
    let sid = |account: &Account, at: usize| {
        let all: Vec<ConversationSid> = account.register.iter().map(|one| one.head.sid.clone()).collect();
        all.get(at % all.len().max(1))
            .map_or_else(String::new, ToString::to_string)
    };
    let participant = |account: &Account, conversation: &str, at: usize| {
        let found = account.conversation(&service, conversation).ok();
        let one = found.and_then(|found| found.participants.get(at));
        one.map_or_else(String::new, |one| one.sid.to_string())
    };
    let new = |shape| NewParticipant {
        shape,
        ..NewParticipant::default()
    };
    let native = |at: usize| Shape {
        address: Some(OTHERS[at].to_owned()),
        ..Shape::default()
    };
    let projected = |line: usize, person: Option<usize>| Shape {
        identity: person.map(|person| PEOPLE[person].to_owned()),
        projected_address: Some(OURS[line].to_owned()),
        ..Shape::default()
    };
    match step {
        Step::Create { name } => {
            let fields = ConversationFields {
                unique_name: Some(PEOPLE[*name].to_owned()),
                ..ConversationFields::default()
            };
            drop(account.create_conversation(&service, &fields, cause));
        }
        Step::CreateWith {
            natives,
            line,
            person,
        } => {
            let founders: Vec<NewParticipant> = (0..*natives)
                .map(native)
                .chain([projected(*line, *person)])
                .map(new)
                .collect();
            let fields = ConversationFields::default();
            drop(account.create_with_participants(&service, &fields, &founders, cause));
        }
        Step::AddNative { conversation, number } => {
            let key = sid(account, *conversation);
            drop(account.add_participant(&service, &key, &new(native(*number)), cause));
        }
        Step::AddProxied {
            conversation,
            number,
            line,
        } => {
            let key = sid(account, *conversation);
            let shape = Shape {
                proxy_address: Some(OURS[*line].to_owned()),
                ..native(*number)
            };
            drop(account.add_participant(&service, &key, &new(shape), cause));
        }
        Step::AddProjected {
            conversation,
            line,
            person,
        } => {
            let key = sid(account, *conversation);
            drop(account.add_participant(&service, &key, &new(projected(*line, *person)), cause));
        }
        Step::AddChat { conversation, person } => {
            let key = sid(account, *conversation);
            let shape = Shape {
                identity: Some(PEOPLE[*person].to_owned()),
                ..Shape::default()
            };
            drop(account.add_participant(&service, &key, &new(shape), cause));
        }
        Step::HandOver {
            conversation,
            participant: at,
            person,
        } => {
            let key = sid(account, *conversation);
            let one = participant(account, &key, *at);
            let change = ParticipantChange {
                identity: Some(PEOPLE[*person].to_owned()),
                ..ParticipantChange::default()
            };
            drop(account.update_participant(&service, &key, &one, &change, cause));
        }
        Step::RemoveParticipant {
            conversation,
            participant: at,
        } => {
            let key = sid(account, *conversation);
            let one = participant(account, &key, *at);
            drop(account.remove_participant(&service, &key, &one, cause));
        }
        Step::RemoveUser { person } => drop(account.remove_user(&service, PEOPLE[*person], cause)),
        Step::SetState { conversation, state } => {
            let key = sid(account, *conversation);
            let fields = ConversationFields {
                state: Some((*state).to_owned()),
                ..ConversationFields::default()
            };
            drop(account.update_conversation(&service, &key, &fields, cause));
        }
        Step::RemoveConversation { conversation } => {
            let key = sid(account, *conversation);
            drop(account.remove_conversation(&service, &key, cause));
        }
        Step::Post { conversation, person } => {
            let key = sid(account, *conversation);
            let fields = MessageFields {
                author: Some(PEOPLE[*person].to_owned()),
                body: Some("hello".to_owned()),
                ..MessageFields::default()
            };
            drop(account.post_message(&service, &key, &fields, cause));
        }
        Step::Text { sender, others, line } => {
            let number = |text: &str| -> PhoneNumber { text.parse().unwrap() };
            let mut to: Vec<PhoneNumber> = (1..=*others)
                .map(|step| OTHERS[(sender + step) % OTHERS.len()])
                .filter(|other| *other != OTHERS[*sender])
                .map(number)
                .collect();
            to.push(number(OURS[*line]));
            let text = Outgoing {
                from: number(OTHERS[*sender]),
                to,
                body: Some("hi".to_owned()),
                media: Vec::new(),
            };
            if account.check_outgoing(&text).is_ok() {
                account.take_in(&text, None);
            }
        }
        Step::SetUp => {
            let waiting: Vec<ConversationSid> = account
                .register
                .iter()
                .filter(|one| one.setup.is_some())
                .map(|one| one.head.sid.clone())
                .collect();
            for conversation in waiting {
                account.set_up_next(&conversation);
            }
        }
        Step::Wait { minutes } => {
            account.clock.advance(SignedDuration::from_mins(*minutes));
            account.run_timers();
        }
    }
}

/// At most one open conversation holds a claim, and the register finds exactly what the conversations have.
fn check_register(account: &Account) {
    let mut holders: HashMap<Claim, ConversationSid> = HashMap::new();
    let (mut names, mut deadlines) = (0, 0);
    for conversation in account.register.iter() {
        let head = &conversation.head;
        for claim in conversation.claims() {
            assert!(account.register.claimant(&claim) == Some(&head.sid));
            assert!(
                holders.insert(claim, head.sid.clone()).is_none(),
                "two hold the same numbers"
            );
        }
        if let Some(name) = &head.unique_name {
            names += 1;
            assert_eq!(
                account.register.unique_name_holder(&head.service, name),
                Some(&head.sid)
            );
        }
        deadlines += usize::from(head.deadline().is_some());
    }
    assert_eq!(account.register.index_sizes(), [holders.len(), names, deadlines]);
}

fn check_conversation(conversation: &Conversation, now: jiff::Timestamp) {
    let identities: Vec<&String> = conversation
        .participants
        .iter()
        .filter_map(|one| one.identity.as_ref())
        .collect();
    let distinct: BTreeSet<&String> = identities.iter().copied().collect();
    assert_eq!(
        identities.len(),
        distinct.len(),
        "an identity is in a conversation once"
    );
    if conversation.is_group_text() {
        assert!(conversation.participants.len() <= GROUP_LIMIT);
    }
    let indexes: Vec<u64> = conversation
        .messages
        .iter()
        .map(|message| message.index)
        .collect();
    assert!(indexes.windows(2).all(|pair| pair[0] < pair[1]));
    assert_eq!(
        conversation.setup.is_some(),
        conversation.head.state == State::Initializing
    );
    if let Some(deadline) = conversation.head.deadline() {
        assert!(deadline > now, "a timer that has run out has taken effect");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_done_the_rules_hold(
        steps in prop::collection::vec(step(), 1..60),
        refuse in any::<bool>(),
    ) {
        let replacement = if refuse { IdentityReplacement::Refuse } else { IdentityReplacement::Update };
        let mut account = account(replacement);
        for step in &steps {
            take(&mut account, step);
            check_register(&account);
            for conversation in account.register.iter() {
                check_conversation(conversation, account.now());
            }
        }
    }
}

/// The account with a group of three, and the service's webhook on every post-action event.
fn group() -> (Account, String) {
    let mut account = account(IdentityReplacement::Update);
    let service = account.configuration.service.clone();
    let filters = EventName::ALL.iter().filter(|name| !name.is_pre());
    let change = super::webhook::ScopeWebhookChange {
        post_url: Some("http://127.0.0.1/hook".to_owned()),
        filters: Some(filters.map(|name| name.as_str().to_owned()).collect()),
        ..super::webhook::ScopeWebhookChange::default()
    };
    account.configure_webhook(&service, change).unwrap();
    take(
        &mut account,
        &Step::CreateWith {
            natives: 2,
            line: 0,
            person: Some(0),
        },
    );
    for _ in 0..4 {
        take(&mut account, &Step::SetUp);
    }
    let key = account.register.iter().next().unwrap().head.sid.to_string();
    account.take_effects();
    (account, key)
}

fn told(account: &mut Account) -> Vec<&'static str> {
    let effects = account.take_effects().into_iter();
    effects
        .filter_map(|effect| match effect {
            Effect::Send { event, .. } => Some(event.name.as_str()),
            Effect::SetUp(_) | Effect::Carry { .. } => None,
        })
        .collect()
}

#[test]
fn a_message_to_an_inactive_conversation_is_told_before_the_state_that_it_changes() {
    let (mut account, _) = group();
    take(
        &mut account,
        &Step::SetState {
            conversation: 0,
            state: "inactive",
        },
    );
    assert_eq!(told(&mut account), ["onConversationStateUpdated"]);
    take(
        &mut account,
        &Step::Post {
            conversation: 0,
            person: 0,
        },
    );
    assert_eq!(
        told(&mut account),
        ["onMessageAdded", "onConversationStateUpdated"]
    );
}

#[test]
fn a_group_that_would_become_the_twin_of_another_by_a_removal_keeps_its_member() {
    let (mut account, first) = group();
    let service = account.configuration.service.clone();
    take(
        &mut account,
        &Step::CreateWith {
            natives: 3,
            line: 0,
            person: Some(0),
        },
    );
    for _ in 0..5 {
        take(&mut account, &Step::SetUp);
    }
    let second = account.register.iter().nth(1).unwrap();
    let (second, third_native) = (
        second.head.sid.to_string(),
        second.participants[2].sid.to_string(),
    );
    let refused = account
        .remove_participant(&service, &second, &third_native, Cause::rest(false))
        .unwrap_err();
    assert_eq!(refused.code, 50438);
    assert!(refused.message.ends_with(&first));
}

#[test]
fn removing_the_last_one_on_a_line_frees_the_numbers_for_another_group() {
    let (mut account, first) = group();
    let service = account.configuration.service.clone();
    account
        .remove_participant(&service, &first, PEOPLE[0], Cause::rest(false))
        .unwrap();
    take(
        &mut account,
        &Step::CreateWith {
            natives: 2,
            line: 0,
            person: Some(1),
        },
    );
    assert_eq!(account.register.iter().count(), 2);
    // And the first one cannot have the line back.
    let shape = Shape {
        projected_address: Some(OURS[0].to_owned()),
        ..Shape::default()
    };
    let back = NewParticipant {
        shape,
        ..NewParticipant::default()
    };
    let refused = account
        .add_participant(&service, &first, &back, Cause::rest(false))
        .unwrap_err();
    assert_eq!(refused.code, 50438);
}

#[test]
fn a_number_given_away_while_a_group_is_set_up_makes_the_setup_fail() {
    let mut account = account(IdentityReplacement::Update);
    take(
        &mut account,
        &Step::CreateWith {
            natives: 2,
            line: 0,
            person: None,
        },
    );
    take(&mut account, &Step::SetUp);
    account.numbers.remove(&OURS[0].parse::<PhoneNumber>().unwrap());
    for _ in 0..3 {
        take(&mut account, &Step::SetUp);
    }
    let failed = account.register.iter().next().unwrap();
    assert_eq!(failed.head.state, State::Closed);
    assert!(failed.claims().is_empty());
}
