//! Webhooks of random histories, shuffled, doubled, in batches, some lost, with reads between: the mirror and the ledger
//! come to what Twilio holds. Most of it on the pure fold, since that is fast; a part through the real database.

use std::collections::BTreeMap;

use hookswitch::events::Via;
use hookswitch::ids::{AccountSid, ConversationSid};
use hookswitch::ledger::Fact;
use hookswitch::ledger::derive::derive;
use hookswitch::mirror::fold::{self, Context};
use hookswitch::mirror::{Change, Observed, Revisions, project};
use hookswitch::twilio::event_stream::CloudEvent;
use hookswitch::twilio::form::Form;
use hookswitch::twilio::webhook::Webhook;
use jiff::Timestamp;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use crate::support::app::{ACCOUNT, TestApp};
use crate::support::event;
use crate::support::history::{self, Op, Told, Twilio, ops, play};
use crate::support::tables;

/// Within a second, over it, and now and then in the same millisecond.
pub(crate) const PAUSES: &[i64] = &[0, 1, 30, 250, 400, 900, 1_000, 2_500];

pub(crate) fn account() -> AccountSid {
    ACCOUNT.parse().unwrap()
}

pub(crate) fn observed(told: &Told) -> Vec<Observed> {
    let form = history_form(&told.form);
    let webhook = Webhook::parse(&Form::parse(form.as_bytes()).unwrap()).unwrap();
    assert!(webhook.unread.is_empty(), "{:?}", webhook.unread);
    project::webhook(&account(), &webhook, "webhook:1").unwrap()
}

/// The same, told by Event Streams, for what those tell.
fn observed_by_event(told: &Told) -> Option<Vec<Observed>> {
    let event = event::of(&told.form)?;
    let webhook = CloudEvent::read(&event.to_string()).unwrap().webhook().unwrap();
    assert!(webhook.unread.is_empty(), "{:?}", webhook.unread);
    Some(project::webhook(&account(), &webhook, "webhook:2").unwrap())
}

fn history_form(form: &history::Form) -> String {
    form_urlencoded::Serializer::new(String::new())
        .extend_pairs(form)
        .finish()
}

/// A mirror in memory: what the database holds, without the database.
#[derive(Default)]
struct Mirror {
    state: fold::State,
    facts: Vec<Fact>,
    outcome: fold::Outcome,
}

impl Mirror {
    fn take(&mut self, batch: &[Observed], via: Via, settles: Option<&Revisions>) {
        let context = Context {
            via,
            now: Timestamp::UNIX_EPOCH,
            settles,
        };
        for one in batch {
            fold::apply(&mut self.state, &mut self.outcome, context, one);
        }
        self.facts.append(&mut self.outcome.facts);
    }

    fn revisions(&self) -> Revisions {
        let conversations = self
            .state
            .conversations
            .iter()
            .map(|(sid, row)| (sid.to_string(), row.revision));
        let participants = self
            .state
            .participants
            .iter()
            .map(|((_, sid), row)| (sid.to_string(), row.revision));
        let messages = self
            .state
            .messages
            .iter()
            .map(|((_, sid), row)| (sid.to_string(), row.revision));
        conversations.chain(participants).chain(messages).collect()
    }

    /// Commits what a read said of a conversation; `seen` are the revisions from before the read.
    fn read(&mut self, conversation: &history::Conversation, seen: &Revisions) {
        let observed: Vec<Observed> = conversation.as_read().into_iter().map(read_change).collect();
        self.take(&observed, Via::Rest, Some(seen));
    }

    fn ledger(&self, sid: &ConversationSid) -> BTreeMap<String, Vec<hookswitch::ledger::derive::Span>> {
        let facts: Vec<Fact> = self
            .facts
            .iter()
            .filter(|fact| fact.conversation_sid == *sid)
            .cloned()
            .collect();
        derive(&facts, self.state.conversations[sid].ended_at())
    }

    /// Without what only webhooks tell.
    fn forget_what_events_do_not_tell(&mut self) {
        for row in self.state.conversations.values_mut() {
            row.fields.service_sid = None;
        }
        for row in self.state.messages.values_mut() {
            row.source = None;
        }
    }

    /// All that is Twilio's, as text, since the rows hide it: not the revisions, doubts and times of ours.
    fn told(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (sid, row) in &self.state.conversations {
            let fields = &row.fields;
            lines.push(format!(
                "{sid} {:?} {:?} {:?} {:?} {:?}, {:?} {:?}, created {:?} closed {:?} removed {:?} last {:?} {} {:?}",
                fields.service_sid, fields.messaging_service_sid, fields.friendly_name, fields.unique_name,
                fields.attributes, row.state, row.state_version, row.created_at, row.closed_at, row.removed_at,
                row.last_message_at, row.autocreated, row.version,
            ));
            lines.push(format!("{sid} {:?}", self.ledger(sid)));
        }
        for ((_, sid), row) in &self.state.participants {
            lines.push(format!(
                "{sid} {} created {:?} removed {:?} {:?}",
                participant_text(&row.fields),
                row.created_at,
                row.removed_at,
                row.version
            ));
        }
        for ((_, sid), row) in &self.state.messages {
            lines.push(format!(
                "{sid} {} {:?} created {:?} removed {:?} {:?}",
                message_text(&row.fields),
                row.source,
                row.created_at,
                row.removed_at,
                row.version
            ));
        }
        for ((_, sid), row) in &self.state.receipts {
            lines.push(format!(
                "{sid} {} {:?} {:?} {} {:?} {:?} {:?}",
                row.message_sid,
                row.participant_sid,
                row.channel_message_sid,
                row.status,
                row.error_code,
                row.created_at,
                row.version
            ));
        }
        for ((_, sid), row) in &self.state.users {
            let fields = &row.fields;
            lines.push(format!(
                "{sid} {:?} {:?} {:?} {:?} {:?} {:?}",
                fields.identity,
                fields.friendly_name,
                fields.is_online,
                fields.is_notifiable,
                row.created_at,
                row.version
            ));
        }
        lines
    }
}

fn participant_text(fields: &hookswitch::mirror::change::ParticipantFields) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?}",
        fields.identity,
        fields.address,
        fields.proxy_address,
        fields.projected_address,
        fields.binding_type,
        fields.role_sid,
        fields.attributes,
        fields.last_read_message_index
    )
}

fn message_text(fields: &hookswitch::mirror::change::MessageFields) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        fields.index, fields.author, fields.participant_sid, fields.body, fields.media, fields.attributes
    )
}

pub(crate) fn read_change(change: Change) -> Observed {
    Observed {
        account_sid: account(),
        change,
        cause: "read:1".to_owned(),
        source: None,
    }
}

/// How one statement is delivered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Delivery {
    rank: u32,
    doubled: Option<u32>,
    lost: bool,
}

pub(crate) fn deliveries(size: usize) -> impl Strategy<Value = Vec<Delivery>> {
    let one = (
        any::<u32>(),
        prop::option::weighted(0.3, any::<u32>()),
        prop::bool::weighted(0.3),
    )
        .prop_map(|(rank, doubled, lost)| Delivery { rank, doubled, lost });
    prop::collection::vec(one, size)
}

/// The places of the statements in the order of delivery, a doubled one twice.
pub(crate) fn shuffled(told: &[Told], deliveries: &[Delivery]) -> Vec<usize> {
    let mut order: Vec<(u32, usize)> = Vec::new();
    for (place, delivery) in (0..told.len()).zip(deliveries) {
        order.push((delivery.rank, place));
        order.extend(delivery.doubled.map(|rank| (rank, place)));
    }
    order.sort_unstable();
    order.into_iter().map(|(_, place)| place).collect()
}

pub(crate) const OPS_MAX: usize = 40;

pub(crate) fn cases(cases: u32) -> Config {
    Config {
        failure_persistence: None,
        cases,
        ..Config::default()
    }
}

fn converges(ops: &[Op], conversations: u8, deliveries: &[Delivery]) -> Result<(), TestCaseError> {
    let told = play(ops, conversations);
    let mut in_order = Mirror::default();
    for one in &told {
        in_order.take(&observed(one), Via::Webhook, None);
    }
    let mut out_of_order = Mirror::default();
    for place in shuffled(&told, deliveries) {
        out_of_order.take(&observed(&told[place]), Via::Webhook, None);
    }
    let (expected, found) = (in_order.told(), out_of_order.told());
    for (expected, found) in expected.iter().zip(&found) {
        prop_assert_eq!(expected, found);
    }
    prop_assert_eq!(expected.len(), found.len());
    Ok(())
}

/// A read of a conversation at Twilio: when it begins, when its answer is committed, and how much it sees.
#[derive(Debug, Clone, Copy)]
struct Read {
    begins: usize,
    takes: usize,
    sees_more: usize,
    which: usize,
}

fn reads() -> impl Strategy<Value = Vec<Read>> {
    let one =
        (0..OPS_MAX, 0usize..4, 0usize..12, 0usize..3).prop_map(|(begins, takes, sees_more, which)| Read {
            begins,
            takes,
            sees_more,
            which,
        });
    prop::collection::vec(one, 0..8)
}

/// Delivers what is not lost, out of order, with reads between; then each conversation is read once more.
fn heals(
    ops: &[Op],
    conversations: u8,
    deliveries: &[Delivery],
    reads: &[Read],
) -> Result<(), TestCaseError> {
    let told = play(ops, conversations);
    let order: Vec<usize> = shuffled(&told, deliveries)
        .into_iter()
        .filter(|place| told[*place].is_removal || !deliveries[*place].lost)
        .collect();
    let mut mirror = Mirror::default();
    let mut under_way: Vec<(usize, Revisions, history::Conversation)> = Vec::new();
    // Nothing is told before it happened: a read sees all that has been delivered.
    let mut newest = 0;
    for (step, place) in order.iter().enumerate() {
        for read in reads.iter().filter(|read| read.begins == step) {
            let after = &told[(newest + read.sees_more).min(told.len() - 1)].after;
            if let Some(conversation) = after.conversations.get(read.which).filter(|one| !one.removed) {
                under_way.push((step + read.takes, mirror.revisions(), conversation.clone()));
            }
        }
        newest = newest.max(*place);
        mirror.take(&observed(&told[*place]), Via::Webhook, None);
        for (_, seen, conversation) in under_way.extract_if(.., |(done, _, _)| *done <= step) {
            mirror.read(&conversation, &seen);
        }
    }
    for (_, seen, conversation) in under_way {
        mirror.read(&conversation, &seen);
    }
    let truth = &told.last().expect("a conversation is created").after;
    for conversation in truth.conversations.iter().filter(|one| !one.removed) {
        let seen = mirror.revisions();
        mirror.read(conversation, &seen);
    }
    is_as(&mirror, truth)
}

fn is_as(mirror: &Mirror, truth: &Twilio) -> Result<(), TestCaseError> {
    for conversation in truth.conversations.iter().filter(|one| !one.removed) {
        let mut fresh = Mirror::default();
        fresh.read(conversation, &Revisions::new());
        let sid: ConversationSid = conversation.sid.parse().unwrap();
        let (row, true_row) = (
            &mirror.state.conversations[&sid],
            &fresh.state.conversations[&sid],
        );
        prop_assert_eq!(row.state.as_deref(), Some(conversation.state));
        prop_assert!(row.fields == true_row.fields, "{} differs", sid);
        for (key, true_row) in &fresh.state.participants {
            let row = &mirror.state.participants[key];
            prop_assert_eq!(participant_text(&row.fields), participant_text(&true_row.fields));
            prop_assert_eq!(row.removed_at, None);
        }
        for (key, true_row) in &fresh.state.messages {
            let row = &mirror.state.messages[key];
            prop_assert_eq!(message_text(&row.fields), message_text(&true_row.fields));
        }
        let ledger = mirror.ledger(&sid);
        for (line, spans) in &ledger {
            for pair in spans.windows(2) {
                prop_assert_eq!(pair[0].to, Some(pair[1].from));
            }
            let seated: Vec<&Option<String>> = conversation
                .participants
                .iter()
                .filter(|one| one.projected.as_deref() == Some(line.as_str()))
                .map(|one| &one.identity)
                .collect();
            let last = spans.last().expect("a line has a span");
            if conversation.state == "closed" {
                prop_assert!(last.to.is_some());
            } else if let [only] = seated[..] {
                prop_assert_eq!((&last.holder, last.to), (only, None));
            } else if seated.is_empty() {
                prop_assert!(last.vacant && last.to.is_none());
            }
        }
    }
    Ok(())
}

/// Which of the two tells a statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    Webhook,
    Event,
}

/// Delivers each statement by one of the two, or by both at different times.
fn converges_by_any_source(
    ops: &[Op],
    conversations: u8,
    deliveries: &[Delivery],
    by: &[By],
) -> Result<(), TestCaseError> {
    let told = play(ops, conversations);
    let mut expected = Mirror::default();
    for one in &told {
        expected.take(&observed(one), Via::Webhook, None);
    }
    let mut found = Mirror::default();
    for (place, by) in shuffled(&told, deliveries).into_iter().zip(by.iter().cycle()) {
        let by_event = Some(&told[place]).filter(|_| *by == By::Event);
        let observed = by_event
            .and_then(observed_by_event)
            .unwrap_or_else(|| observed(&told[place]));
        found.take(&observed, Via::Webhook, None);
    }
    expected.forget_what_events_do_not_tell();
    found.forget_what_events_do_not_tell();
    let (expected, found) = (expected.told(), found.told());
    for (expected, found) in expected.iter().zip(&found) {
        prop_assert_eq!(expected, found);
    }
    prop_assert_eq!(expected.len(), found.len());
    Ok(())
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn webhooks_and_event_streams_in_any_order_and_mixture_come_to_the_same_mirror_and_ledger(
        ops in ops(PAUSES, 0..OPS_MAX),
        conversations in 1u8..4,
        deliveries in deliveries(OPS_MAX + 3),
        by in prop::collection::vec(prop::sample::select(vec![By::Webhook, By::Event]), 1..60),
    ) {
        converges_by_any_source(&ops, conversations, &deliveries, &by)?;
    }

    #[test]
    fn webhooks_in_any_order_and_doubled_come_to_the_same_mirror_and_ledger(
        ops in ops(PAUSES, 0..OPS_MAX),
        conversations in 1u8..4,
        deliveries in deliveries(OPS_MAX + 3),
    ) {
        converges(&ops, conversations, &deliveries)?;
    }

    #[test]
    fn whatever_was_lost_and_read_between_one_more_read_makes_the_mirror_and_the_ledger_true(
        ops in ops(PAUSES, 0..OPS_MAX),
        conversations in 1u8..4,
        deliveries in deliveries(OPS_MAX + 3),
        reads in reads(),
    ) {
        heals(&ops, conversations, &deliveries, &reads)?;
    }
}

/// The same through the signed webhook, the database and the projector, in random batches.
#[tokio::test]
async fn webhooks_in_any_order_come_to_the_same_rows_in_the_database() {
    const CASES: usize = 6;
    let app = TestApp::start().await;
    let mut runner = TestRunner::new(cases(1));
    for _ in 0..CASES {
        let (ops, deliveries, batches) = (
            ops(PAUSES, 20..OPS_MAX),
            deliveries(OPS_MAX + 3),
            prop::collection::vec(1usize..9, OPS_MAX),
        )
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let told = play(&ops, 2);
        let in_order: Vec<usize> = (0..told.len()).collect();
        let expected = rows_after(&app, &told, &in_order, &[1]).await;
        let found = rows_after(&app, &told, &shuffled(&told, &deliveries), &batches).await;
        assert_eq!(expected, found, "{ops:?} {deliveries:?}");
    }
}

/// Through the signed requests of both sources, the database and the projector.
#[tokio::test]
async fn both_sources_in_any_order_come_to_the_same_rows_in_the_database() {
    const CASES: usize = 6;
    const NOT_TOLD_BY_EVENTS: &str = "update conversation set service_sid = null;
        update chat_user set service_sid = null; update message set source = null";
    let app = TestApp::start().await;
    let mut runner = TestRunner::new(cases(1));
    for _ in 0..CASES {
        let (ops, deliveries) = (ops(PAUSES, 20..OPS_MAX), deliveries(OPS_MAX + 3))
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let told = play(&ops, 2);
        let in_order: Vec<usize> = (0..told.len()).collect();
        rows_after(&app, &told, &in_order, &[1]).await;
        tables::execute(&app, NOT_TOLD_BY_EVENTS).await;
        let expected = tables::mirror_and_ledger(&app).await;

        tables::empty(&app).await;
        // In bodies of several events, each told again by its webhook sooner or later, or not at all.
        let order = shuffled(&told, &deliveries);
        for (number, body) in order.chunks(5).enumerate() {
            let events: Vec<_> = body
                .iter()
                .filter_map(|place| event::of(&told[*place].form))
                .collect();
            // Where no event says any of it, Twilio sends nothing.
            if !events.is_empty() {
                app.deliver_events(&events).await;
            }
            for place in body {
                if event::of(&told[*place].form).is_none() || (place + number) % 3 == 0 {
                    app.deliver(&told[*place].form).await;
                }
            }
            app.app.projector.run_until_idle().await.unwrap();
        }
        assert_eq!(
            tables::count(&app, "webhook_state where state = 'set_aside'").await,
            0
        );
        tables::execute(&app, NOT_TOLD_BY_EVENTS).await;
        let found = tables::mirror_and_ledger(&app).await;
        assert_eq!(expected.len(), found.len(), "{ops:?} {deliveries:?}");
        for (expected, found) in expected.iter().zip(&found) {
            assert_eq!(expected, found, "{ops:?} {deliveries:?}");
        }
    }
}

/// The mirror and the ledger after the webhooks in that order, projected every so many.
async fn rows_after(app: &TestApp, told: &[Told], order: &[usize], batches: &[usize]) -> Vec<String> {
    tables::empty(app).await;
    let mut places = order.iter();
    for batch in batches.iter().cycle() {
        let taken: Vec<&usize> = places.by_ref().take(*batch).collect();
        if taken.is_empty() {
            break;
        }
        for place in taken {
            app.deliver(&told[*place].form).await;
        }
        app.app.projector.run_until_idle().await.unwrap();
    }
    let set_aside = tables::rows(
        app,
        "select webhook_id::text from webhook_state where state = 'set_aside'",
    )
    .await;
    assert_eq!(set_aside, Vec::<String>::new());
    tables::mirror_and_ledger(app).await
}
