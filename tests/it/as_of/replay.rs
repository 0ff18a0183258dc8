//! What the database answers for a past moment is what a mirror would hold that had been told only what was known by
//! then, of what was so by then: random histories, in any order, doubled, in batches.

use std::collections::BTreeMap;

use hookswitch::events::Via;
use hookswitch::ids::ConversationSid;
use hookswitch::ledger::derive::derive;
use hookswitch::ledger::{self, Cause, Fact};
use hookswitch::mirror::as_of::{self, Moment};
use hookswitch::mirror::change::{Change, MessageFields};
use hookswitch::mirror::fold::{self, Context};
use hookswitch::mirror::read::{self, ConversationRow, MessageRow};
use hookswitch::mirror::{self, Observed};
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use sqlx::PgConnection;

use crate::convergence::{OPS_MAX, PAUSES, cases, deliveries, observed, read_change, shuffled};
use crate::support::database::database;
use crate::support::history::{ops, play};

/// One statement, and when we learnt it.
struct Learnt {
    observed: Observed,
    at: Timestamp,
}

fn version_at(change: &Change) -> Timestamp {
    match change {
        Change::Conversation(change) => change.version.at,
        Change::ConversationState(change) => change.version.at,
        Change::ConversationRemoved { version, .. } => version.at,
        Change::Participant(change) => change.version.at,
        Change::Message(change) => change.version.at,
        Change::Receipt(change) => change.version.at,
        Change::User(change) => change.version.at,
        // Says only that a read has to tell.
        Change::Unread { .. } => Timestamp::MIN,
    }
}

/// What would be known, had nothing else been said.
struct Replayed {
    state: fold::State,
    facts: Vec<Fact>,
}

fn replay<'a>(statements: impl Iterator<Item = &'a Learnt>) -> Replayed {
    let (mut state, mut outcome) = (fold::State::default(), fold::Outcome::default());
    for one in statements {
        let context = Context {
            via: Via::Webhook,
            now: one.at,
            settles: None,
        };
        fold::apply(&mut state, &mut outcome, context, &one.observed);
    }
    Replayed {
        state,
        facts: outcome.facts,
    }
}

fn begin() -> Timestamp {
    "2026-02-01T00:00:00Z".parse().unwrap()
}

/// Lets the statements into the database in batches, one second after the other.
async fn deliver(
    conn: &mut PgConnection,
    statements: impl Iterator<Item = Vec<Observed>>,
    batches: &[usize],
) -> Vec<Learnt> {
    let (mut learnt, mut now) = (Vec::new(), begin());
    let mut statements = statements.peekable();
    for size in batches.iter().cycle() {
        if statements.peek().is_none() {
            break;
        }
        now += SignedDuration::from_secs(1);
        let batch: Vec<Observed> = statements.by_ref().take(*size).flatten().collect();
        mirror::commit(conn, &batch, Via::Webhook, None, now)
            .await
            .unwrap();
        learnt.extend(batch.into_iter().map(|observed| Learnt { observed, at: now }));
    }
    learnt
}

fn message_text(fields: &MessageFields) -> String {
    format!(
        "{:?} {:?} {:?} {:?} {:?} {:?}",
        fields.index, fields.author, fields.participant_sid, fields.body, fields.media, fields.attributes
    )
}

/// What is expected of a conversation then, as lines of text.
fn expected(then: &Replayed, known: &Replayed, sid: &ConversationSid, as_of: Timestamp) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(row) = then.state.conversations.get(sid) {
        let fields = &row.fields;
        lines.push(format!(
            "{sid} {:?} {:?} {:?} {:?} {:?} closed {:?} removed {:?}",
            fields.messaging_service_sid,
            fields.friendly_name,
            fields.unique_name,
            fields.attributes,
            row.state,
            row.closed_at,
            row.removed_at
        ));
    }
    for ((of, participant), row) in &then.state.participants {
        let fields = &row.fields;
        let text = format!(
            "{participant} {:?} {:?} {:?} {:?} {:?} {:?} removed {:?}",
            fields.identity,
            fields.address,
            fields.proxy_address,
            fields.projected_address,
            fields.attributes,
            fields.last_read_message_index,
            row.removed_at
        );
        lines.extend((of == sid).then_some(text));
    }
    for ((of, message), row) in &then.state.messages {
        let text = format!(
            "{message} {} removed {:?}",
            message_text(&row.fields),
            row.removed_at
        );
        lines.extend((of == sid).then_some(text));
    }
    for ((of, receipt), row) in &then.state.receipts {
        let text = format!("{receipt} {} {:?} {}", row.status, row.error_code, row.version.at);
        lines.extend((of == sid).then_some(text));
    }
    let facts: Vec<Fact> = known
        .facts
        .iter()
        .filter(|fact| fact.conversation_sid == *sid)
        .cloned()
        .collect();
    let ended_at = known
        .state
        .conversations
        .get(sid)
        .and_then(fold::Conversation::ended_at);
    for (line, spans) in derive(&facts, ended_at) {
        for span in spans.iter().filter(|span| span.from <= as_of) {
            lines.push(format!(
                "{line} {:?} from {} to {:?} {}",
                span.holder,
                span.from,
                span.to.filter(|to| *to <= as_of),
                span.vacant
            ));
        }
    }
    lines.sort();
    lines
}

/// What the database answers, in the same words.
async fn found(conn: &mut PgConnection, sid: &ConversationSid, moment: Moment) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(row) = as_of::conversation(conn, sid, moment).await.unwrap() {
        lines.push(format!(
            "{sid} {:?} {:?} {:?} {:?} {:?} closed {:?} removed {:?}",
            row.messaging_service_sid,
            row.friendly_name,
            row.unique_name,
            row.attributes,
            row.state,
            row.closed_at,
            row.removed_at
        ));
    }
    for row in as_of::participants(conn, sid, moment).await.unwrap() {
        lines.push(format!(
            "{} {:?} {:?} {:?} {:?} {:?} {:?} removed {:?}",
            row.participant_sid,
            row.identity,
            row.address,
            row.proxy_address,
            row.projected_address,
            row.attributes,
            row.last_read_message_index,
            row.removed_at
        ));
    }
    let messages = as_of::messages_by_time(conn, sid, moment, None, 1_000)
        .await
        .unwrap();
    let live: Vec<String> = messages
        .iter()
        .filter(|past| past.row.removed_at.is_none())
        .map(|past| past.row.message_sid.clone())
        .collect();
    let mut listed: Vec<String> = as_of::messages(conn, sid, moment, None, 1_000)
        .await
        .unwrap()
        .into_iter()
        .map(|past| past.row.message_sid)
        .collect();
    listed.sort();
    let mut sorted = live.clone();
    sorted.sort();
    assert_eq!(listed, sorted, "both lists have the same messages");
    for past in messages {
        let row = past.row;
        let fields = MessageFields {
            index: row.index,
            author: row.author,
            participant_sid: row.participant_sid,
            body: row.body,
            media: row.media,
            attributes: row.attributes,
        };
        lines.push(format!(
            "{} {} removed {:?}",
            row.message_sid,
            message_text(&fields),
            row.removed_at
        ));
    }
    let sids: Vec<String> = sqlx::query_scalar!(
        "select distinct message_sid from delivery_receipt where conversation_sid = $1",
        sid.as_str()
    )
    .fetch_all(&mut *conn)
    .await
    .unwrap();
    let sids: Vec<&str> = sids.iter().map(String::as_str).collect();
    for row in as_of::receipts(conn, sid, &sids, moment).await.unwrap() {
        lines.push(format!(
            "{} {} {:?} {}",
            row.delivery_receipt_sid, row.status, row.error_code, row.updated_at
        ));
    }
    for tenure in ledger::tenures_of_conversation_as_of(conn, sid, moment)
        .await
        .unwrap()
    {
        lines.push(format!(
            "{} {:?} from {} to {:?} {}",
            tenure.line,
            tenure.holder,
            tenure.from,
            tenure.to,
            tenure.cause == Cause::Removed
        ));
    }
    lines.sort();
    lines
}

/// The times that matter: of a sample of the statements, and just before and after them.
fn moments(learnt: &[Learnt], samples: &[(prop::sample::Index, prop::sample::Index, i64)]) -> Vec<Moment> {
    samples
        .iter()
        .map(|(of, known, by)| Moment {
            as_of: version_at(&of.get(learnt).observed.change) + SignedDuration::from_millis(*by),
            known_at: known.get(learnt).at,
        })
        .collect()
}

async fn equal_at(conn: &mut PgConnection, learnt: &[Learnt], moment: Moment) {
    let known = replay(learnt.iter().filter(|one| one.at <= moment.known_at));
    let then = replay(
        learnt
            .iter()
            .filter(|one| one.at <= moment.known_at && version_at(&one.observed.change) <= moment.as_of),
    );
    let all = replay(learnt.iter());
    for sid in all.state.conversations.keys() {
        let mut expected = expected(&then, &known, sid, moment.as_of);
        let mut found = found(conn, sid, moment).await;
        // That there was a conversation may be known by what was said later: of that moment, it says nothing.
        let says_nothing = format!("{sid} None None None None None closed None removed None");
        expected.retain(|line| *line != says_nothing);
        found.retain(|line| *line != says_nothing);
        assert_eq!(found, expected, "{sid} at {moment:?}");
    }
}

#[tokio::test]
async fn any_moment_reads_as_if_only_what_was_known_then_had_been_said() {
    const CASES: usize = 20;
    let database = database().await;
    let pool = database.pool(1).await;
    let mut runner = TestRunner::new(cases(1));
    for _ in 0..CASES {
        let (ops, deliveries, batches, samples) = (
            ops(PAUSES, 20..OPS_MAX),
            deliveries(OPS_MAX + 3),
            prop::collection::vec(1usize..6, OPS_MAX),
            prop::collection::vec(
                (
                    any::<prop::sample::Index>(),
                    any::<prop::sample::Index>(),
                    prop::sample::select(&[-1i64, 0, 1, 1_000][..]),
                ),
                16,
            ),
        )
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let told = play(&ops, 2);
        let order = shuffled(&told, &deliveries);
        // Rolled back at its end, so that each case finds empty tables.
        let mut transaction = pool.begin().await.unwrap();
        let statements = order.iter().map(|place| observed(&told[*place]));
        let learnt = deliver(&mut transaction, statements, &batches).await;
        for moment in moments(&learnt, &samples) {
            equal_at(&mut transaction, &learnt, moment).await;
        }
        transaction.rollback().await.unwrap();
    }
}

/// Webhooks and reads at Twilio between them, whose times are cut to the second, so that doubts arise and are settled.
#[tokio::test]
async fn the_last_moment_reads_as_the_present_whatever_was_in_doubt() {
    const CASES: usize = 12;
    let database = database().await;
    let pool = database.pool(1).await;
    let mut runner = TestRunner::new(cases(1));
    for _ in 0..CASES {
        let (ops, deliveries) = (ops(PAUSES, 20..OPS_MAX), deliveries(OPS_MAX + 3))
            .new_tree(&mut runner)
            .unwrap()
            .current();
        let told = play(&ops, 2);
        let mut conn = pool.begin().await.unwrap();
        let (mut now, mut newest) = (begin(), 0);
        for (step, place) in shuffled(&told, &deliveries).into_iter().enumerate() {
            now += SignedDuration::from_secs(1);
            newest = newest.max(place);
            mirror::commit(&mut conn, &observed(&told[place]), Via::Webhook, None, now)
                .await
                .unwrap();
            let twilio = &told[newest].after.conversations;
            if let Some(read) = twilio.get(step % 5).filter(|one| !one.removed) {
                let sid: ConversationSid = read.sid.parse().unwrap();
                let seen = mirror::inventory(&mut conn, &sid).await.unwrap().revisions;
                let observed: Vec<Observed> = read.as_read().into_iter().map(read_change).collect();
                mirror::commit(&mut conn, &observed, Via::Rest, Some(&seen), now)
                    .await
                    .unwrap();
            }
            for conversation in twilio {
                equals_the_present(&mut conn, &conversation.sid.parse().unwrap(), now).await;
            }
        }
        conn.rollback().await.unwrap();
    }
}

async fn equals_the_present(conn: &mut PgConnection, sid: &ConversationSid, now: Timestamp) {
    let moment = Moment {
        as_of: now,
        known_at: now,
    };
    let present = read::conversation(conn, sid.as_str())
        .await
        .unwrap()
        .map(|row| ConversationRow {
            unverified_since: None,
            ..row
        });
    let then = as_of::conversation(conn, sid, moment).await.unwrap();
    assert!(then == present, "{sid} differs: {then:?} {present:?}");
    let present = read::participants(conn, sid.as_str()).await.unwrap();
    let then = as_of::participants(conn, sid, moment).await.unwrap();
    assert!(
        then == present,
        "participants of {sid} differ: {then:?} {present:?}"
    );
    let present = read::messages_by_time(conn, sid.as_str(), None, 1_000)
        .await
        .unwrap();
    let then = as_of::messages_by_time(conn, sid, moment, None, 1_000)
        .await
        .unwrap();
    assert!(
        then.iter()
            .all(|past| past.is_current == past.row.removed_at.is_none())
    );
    let then: Vec<MessageRow> = then.into_iter().map(|past| past.row).collect();
    assert!(then == present, "messages of {sid} differ: {then:?} {present:?}");
}

/// The same statements once more, in other batches: nothing is kept twice.
#[tokio::test]
async fn what_is_said_again_adds_no_version() {
    let database = database().await;
    let pool = database.pool(1).await;
    let mut runner = TestRunner::new(cases(1));
    let ops = ops(PAUSES, 30..OPS_MAX).new_tree(&mut runner).unwrap().current();
    let told = play(&ops, 2);
    let mut conn = pool.acquire().await.unwrap();
    let mut counts = Vec::new();
    for _ in 0..2 {
        deliver(&mut conn, told.iter().map(observed), &[3, 1, 4]).await;
        counts.push(versions(&mut conn).await);
    }
    assert_eq!(counts[0], counts[1]);
    assert!(counts[0].values().sum::<i64>() > 0, "{counts:?}");
}

async fn versions(conn: &mut PgConnection) -> BTreeMap<String, i64> {
    sqlx::query!(
        r#"select 'conversation' as "table!", count(*) as "rows!" from conversation_version
        union all select 'participant', count(*) from participant_version
        union all select 'message', count(*) from message_version
        union all select 'receipt', count(*) from receipt_version"#
    )
    .fetch_all(conn)
    .await
    .unwrap()
    .into_iter()
    .map(|row| (row.table, row.rows))
    .collect()
}

/// The hot path: what is new costs its own row and no other.
#[tokio::test]
async fn what_is_new_has_no_versions() {
    let database = database().await;
    let pool = database.pool(1).await;
    let mut conn = pool.acquire().await.unwrap();
    let told = play(&[], 3);
    deliver(&mut conn, told.iter().map(observed), &[1]).await;
    assert_eq!(versions(&mut conn).await.values().sum::<i64>(), 0);
}
