//! Sources that are gone, ill-formed, or came while the run was under way.

use std::time::Duration;

use hookswitch::config;
use hookswitch::projection::answers;
use hookswitch::rebuild::report::Class;
use hookswitch::retention::{Class as Kept, Retention};
use jiff::SignedDuration;

use super::{COMPARE, SWAP, assert_equal, assert_nothing_differs, of, rebuild_of, run};
use crate::support::app::{BUYER, LINE, PARTNER, TestApp, sid_of};
use crate::support::history::{Op, play};
use crate::support::sql;
use crate::support::sweep::Meddler;
use crate::support::tables::{execute, mirror_and_ledger};

#[tokio::test]
async fn what_was_erased_is_no_damage_and_a_swap_keeps_what_came_of_it() {
    let app = TestApp::start().await;
    let group = app.group(Some("maya")).await;
    app.text(BUYER, &[LINE, PARTNER], "Long ago").await;
    app.settle_for(SignedDuration::from_hours(25)).await;
    app.text(BUYER, &[LINE, PARTNER], "Hello?").await;
    app.settle().await;
    let rules = Retention {
        pool: app.pool().clone(),
        clock: app.clock.clone(),
        settings: config::Retention {
            every: Duration::ZERO,
            webhooks: Some(Duration::from_hours(24)),
            message_bodies: Some(Duration::from_hours(24)),
            attributes: None,
            versions: None,
            quarantine: None,
            log: Some(Duration::from_hours(24)),
        },
    };
    sql::log_is_readable(app.pool()).await;
    for class in [Kept::Webhooks, Kept::MessageBodies, Kept::Log] {
        assert!(rules.run_all(class, false).await.unwrap().unwrap().erased > 0);
    }
    let kept = mirror_and_ledger(&app).await;
    let left = "message where body = 'Long ago'";
    assert_eq!(sql::count(app.pool(), left).await, 0);
    let report = run(&app, COMPARE).await.unwrap();
    assert_eq!(report.damaged(), 0, "{report}");
    assert!(
        report.sources.erased_webhooks > 0
            && report.sources.erased_answers > 0
            && report.sources.unsourced == 1,
        "{report}"
    );
    let log = of(&report, "event");
    assert!(log.unsourced.total() > 0, "{report}");
    assert!(report.verdict().contains("no source any more"), "{report}");

    // A message of which the source is there has to be there.
    execute(&app, "delete from message where body = 'Hello?'").await;
    let report = run(&app, SWAP).await.unwrap();
    assert_eq!(of(&report, "message").damaged.only_in_new, 1, "{report}");
    assert_eq!(mirror_and_ledger(&app).await, kept);
    let report = assert_equal(&app).await;
    assert!(report.sources.unsourced == 1, "{report}");

    // Somewhere else, damage is damage.
    let other = sid_of(&app.group_of(&["+15555550131", "+15555550132"]).await);
    assert_ne!(Some(other.to_string()), group.conversation_sid);
    execute(
        &app,
        &format!("update conversation set unique_name = 'forged' where conversation_sid = '{other}'"),
    )
    .await;
    let report = run(&app, COMPARE).await.unwrap();
    assert_eq!(
        (report.damaged(), of(&report, "conversation").damaged.different),
        (1, 1),
        "{report}"
    );
}

#[tokio::test]
async fn an_answer_that_was_erased_or_cannot_be_read_leaves_its_conversation_without_a_source() {
    let app = TestApp::start().await;
    app.group(Some("maya")).await;
    assert!(sql::count(app.pool(), "answer").await > 0);
    let now = app.clock.now();
    let due = answers::due_for_erasure(&mut *app.conn().await, 0, now, 100)
        .await
        .unwrap();
    let (last, ..) = due.last().unwrap();
    assert_eq!(
        answers::erase(&mut *app.conn().await, &[*last], now)
            .await
            .unwrap(),
        1
    );
    assert_eq!(
        answers::erase(&mut *app.conn().await, &[*last], now)
            .await
            .unwrap(),
        0
    );
    let due = answers::due_for_erasure(&mut *app.conn().await, 0, now, 100)
        .await
        .unwrap();
    assert!(
        due.iter()
            .all(|(number, sid, is_erased)| sid.is_some() && *is_erased == (number == last))
    );
    execute(&app, "update answer set statements = '[{\"says\": \"something new\"}]' where number = (select min(number) from answer)").await;
    let report = run(&app, COMPARE).await.unwrap();
    assert_eq!(
        (
            report.sources.erased_answers,
            report.sources.unreadable_answers.len()
        ),
        (1, 1),
        "{report}"
    );
    assert_eq!(report.damaged(), 0, "{report}");
    let examples = report.tables.iter().flat_map(|table| &table.examples);
    assert!(examples.clone().count() > 0 && examples.clone().all(|one| one.class == Class::Unsourced));
}

#[tokio::test]
async fn what_was_mirrored_before_answers_were_recorded_has_no_source() {
    let app = TestApp::start().await;
    app.group(Some("maya")).await;
    execute(
        &app,
        "truncate answer; insert into unrecorded_conversation select conversation_sid from conversation",
    )
    .await;
    let report = run(&app, SWAP).await.unwrap();
    assert!(report.damaged() == 0 && report.swapped.is_none(), "{report}");
    assert!(of(&report, "event").unsourced.total() > 0, "{report}");
}

#[tokio::test]
async fn a_webhook_that_was_set_aside_is_counted_and_named_once_it_would_be_projected() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let ill_formed = [
        ("AccountSid", crate::support::app::ACCOUNT),
        ("EventType", "onMessageAdded"),
        ("ConversationSid", sid.as_str()),
    ];
    let form: Vec<(String, String)> = ill_formed
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .to_vec();
    app.deliver(&form).await;
    app.settle().await;
    let report = assert_equal(&app).await;
    assert_eq!(
        (report.sources.set_aside, report.sources.projecting_now.len()),
        (1, 0),
        "{report}"
    );

    // A later version reads what this one does not: here, by other words in its place.
    execute(
        &app,
        "update webhook set form = (select form from webhook where event_type = 'onConversationUpdated'
            or event_type = 'onConversationAdded' order by webhook_id limit 1)
        where webhook_id in (select webhook_id from webhook_set_aside)",
    )
    .await;
    let report = assert_equal(&app).await;
    assert_eq!(
        (report.sources.set_aside, report.sources.projecting_now.len()),
        (1, 1),
        "{report}"
    );
    hookswitch::inbox::replay::replay(app.pool(), &app.clock, None)
        .await
        .unwrap();
    app.settle().await;
    let report = assert_equal(&app).await;
    assert_nothing_differs(&report);
    assert_eq!(report.sources.set_aside, 0);
}

#[tokio::test]
async fn a_webhook_that_is_not_read_any_more_is_named() {
    let app = TestApp::start().await;
    app.group(Some("maya")).await;
    execute(&app, "update webhook set form = 'EventType=onMessageAdded' where webhook_id = (select min(webhook_id) from webhook)").await;
    let report = run(&app, COMPARE).await.unwrap();
    let first = sql::value(app.pool(), "select min(webhook_id)::text from webhook")
        .await
        .unwrap();
    assert_eq!(
        report.sources.not_projecting_any_more,
        [first.parse::<i64>().unwrap()],
        "{report}"
    );
    assert!(report.to_string().contains(&format!("could not be now: {first}")));
}

/// Webhooks and reads go on while it is replayed, compared and swapped in.
#[tokio::test]
async fn the_service_goes_on_meanwhile_and_nothing_of_it_is_lost() {
    let app = TestApp::start().await;
    let mut meddler = Meddler::new(&app, 5);
    meddler.make(40).await;
    app.settle_for(SignedDuration::from_secs(3)).await;
    for round in 0..4 {
        execute(&app, "update conversation set first_seen_at = '2020-01-01' where conversation_sid = (select min(conversation_sid) from conversation)").await;
        let busy = async {
            for _ in 0..6 {
                meddler.make(4).await;
                app.app.projector.run_until_idle().await.unwrap();
                app.sweep().await;
            }
        };
        let rebuild = rebuild_of(&app);
        let mut watch = |_: &_| ();
        let rebuilding = Box::pin(rebuild.run(if round % 2 == 0 { SWAP } else { COMPARE }, &mut watch));
        let ((), report) = tokio::join!(busy, rebuilding);
        let report = report.unwrap();
        assert_eq!(report.damaged(), 1, "{report}");
        if round % 2 == 1 {
            assert_eq!(run(&app, SWAP).await.unwrap().damaged(), 1);
        }
        app.settle_for(SignedDuration::from_secs(3)).await;
        assert_nothing_differs(&assert_equal(&app).await);
    }
}

/// A batch of which the database refused one webhook was projected one by one, with a tenure for each step on the way.
#[tokio::test]
async fn a_batch_that_was_taken_apart_is_replayed_apart() {
    let app = TestApp::start().await;
    let op = |what, detail| Op {
        what,
        which: 0,
        detail,
        pause_ms: 1_000,
    };
    // Somebody on our line, whom others follow.
    let ops = [
        op(0, 2),
        op(2, 16),
        op(3, 32),
        op(8, 1),
        op(2, 48),
        op(4, 0),
        op(2, 32),
    ];
    let told = play(&ops, 1);
    execute(
        &app,
        "alter table message add constraint no_poison check (body <> 'poison')",
    )
    .await;
    let (before, after) = told.split_at(4);
    for one in before {
        app.deliver(&one.form).await;
    }
    // Of the same conversation, and so of the same batch.
    let mut poison = told
        .iter()
        .find(|one| one.form.iter().any(|(key, _)| key == "Body"));
    let mut poison = poison.take().unwrap().form.clone();
    for (key, text) in &mut poison {
        match key.as_str() {
            "Body" => "poison".clone_into(text),
            "MessageSid" => "IM000000000000000000000000000000ff".clone_into(text),
            _ => {}
        }
    }
    app.deliver(&poison).await;
    for one in after {
        app.deliver(&one.form).await;
    }
    app.app.projector.run_until_idle().await.unwrap();
    assert_eq!(sql::count(app.pool(), "webhook_set_aside").await, 1);
    let momentary = "tenure where superseded_at = recorded_at";
    assert!(sql::count(app.pool(), momentary).await > 0);
    let report = assert_equal(&app).await;
    assert_nothing_differs(&report);
    let sources = &report.sources;
    assert_eq!(
        (sources.set_aside, sources.projecting_now.len()),
        (1, 0),
        "{report}"
    );
    execute(&app, "alter table message drop constraint no_poison").await;
    assert_eq!(assert_equal(&app).await.sources.projecting_now.len(), 1);
}
