//! Rows that somebody changed by hand: found, named, and set right when asked.

use std::time::{Duration, Instant};

use hookswitch::rebuild::report::{Class, Where};
use hookswitch::rebuild::{Error, Rebuild, tables::TABLES};
use hookswitch::transfer::Kind;
use jiff::SignedDuration;

use super::{COMPARE, SWAP, assert_equal, assert_nothing_differs, of, rebuild_of, run};
use crate::support::app::{BUYER, LINE, PARTNER, TestApp, sid_of};
use crate::support::cut::cut;
use crate::support::history::Op;
use crate::support::sql;
use crate::support::tables::{execute, mirror_and_ledger, rows};

/// An account of which every table has something.
async fn app_with_everything() -> TestApp {
    let app = TestApp::start().await;
    let group = app.group(Some("maya")).await;
    let sid = sid_of(&group);
    app.text(BUYER, &[LINE, PARTNER], "Is it still there?").await;
    app.settle().await;
    app.start_transfer(&sid, Kind::Cold, "jonas").await;
    app.settle_for(SignedDuration::from_secs(3)).await;
    let op = |what, detail| Op {
        what,
        which: 0,
        detail,
        pause_ms: 900,
    };
    // Joins, messages, edits, receipts and people, as in other histories.
    let ops: Vec<Op> = (0..20).chain(0..20).map(|what| op(what, what * 7)).collect();
    for one in crate::support::history::play(&ops, 2) {
        app.deliver(&one.form).await;
        app.app.projector.run_until_idle().await.unwrap();
    }
    app
}

/// What is done to a row, and what then is to be found.
struct Damage {
    table: &'static str,
    sql: &'static str,
    place: Where,
    columns: &'static [&'static str],
}

const DAMAGES: &[Damage] = &[
    Damage {
        table: "conversation",
        sql: "update conversation set friendly_name = 'Forged' where conversation_sid = (select min(conversation_sid) from conversation)",
        place: Where::Different,
        columns: &["friendly_name"],
    },
    Damage {
        table: "participant",
        sql: "delete from participant where participant_sid = (select min(participant_sid) from participant)",
        place: Where::OnlyInNew,
        columns: &[],
    },
    Damage {
        table: "message",
        sql: "update message set body = 'Forged', author = 'Forged' where message_sid = (select max(message_sid) from message where body is not null)",
        place: Where::Different,
        columns: &["author", "body"],
    },
    Damage {
        table: "delivery_receipt",
        sql: "insert into delivery_receipt select conversation_sid, message_sid, 'DYffffffffffffffffffffffffffffffff', account_sid, null, null, 'sent', null, now(), now(), now() from delivery_receipt limit 1",
        place: Where::OnlyInOld,
        columns: &[],
    },
    Damage {
        table: "chat_user",
        sql: "update chat_user set identity = 'forged' where user_sid = (select min(user_sid) from chat_user)",
        place: Where::Different,
        columns: &["identity"],
    },
    Damage {
        table: "conversation_version",
        sql: "delete from conversation_version where ctid = (select min(ctid) from conversation_version)",
        place: Where::OnlyInNew,
        columns: &[],
    },
    Damage {
        table: "participant_version",
        sql: "update participant_version set identity = 'forged' where ctid = (select min(ctid) from participant_version)",
        place: Where::Different,
        columns: &["identity"],
    },
    Damage {
        table: "message_version",
        sql: "update message_version set learnt_at = learnt_at - interval '1 day' where ctid = (select min(ctid) from message_version)",
        place: Where::Different,
        columns: &["learnt_at"],
    },
    Damage {
        table: "receipt_version",
        sql: "delete from receipt_version where ctid = (select min(ctid) from receipt_version)",
        place: Where::OnlyInNew,
        columns: &[],
    },
    Damage {
        table: "holding",
        sql: "update holding set identity = 'forged' where ctid = (select min(ctid) from holding where identity is not null)",
        place: Where::OnlyInOld,
        columns: &[],
    },
    Damage {
        table: "tenure",
        sql: "update tenure set holder = 'forged' where tenure_id = (select tenure_id from tenure where holder is not null and superseded_at is null limit 1)",
        place: Where::Different,
        columns: &["holder"],
    },
];

#[tokio::test]
async fn a_row_that_was_changed_is_named_and_a_swap_sets_it_right() {
    let app = app_with_everything().await;
    assert_nothing_differs(&assert_equal(&app).await);
    let undamaged = mirror_and_ledger(&app).await;
    assert_eq!(DAMAGES.len() + 1, TABLES.len(), "every table but the log");
    for (place, damage) in DAMAGES.iter().enumerate() {
        execute(&app, damage.sql).await;
        let report = run(&app, COMPARE).await.unwrap();
        let found = of(&report, damage.table);
        let named = found.examples.iter().find(|one| one.place == damage.place);
        let named = named.unwrap_or_else(|| panic!("{}: {report}", damage.table));
        assert_eq!(
            (named.class, named.columns.as_slice()),
            (Class::Damaged, damage.columns),
            "{report}"
        );
        for intact in &DAMAGES[place + 1..] {
            assert_eq!(
                of(&report, intact.table).damaged.total(),
                0,
                "{} too: {report}",
                intact.table
            );
        }
    }
    assert_ne!(
        mirror_and_ledger(&app).await,
        undamaged,
        "a comparison changes nothing"
    );

    let log_before = sql::count(app.pool(), "event").await;
    let report = run(&app, SWAP).await.unwrap();
    let swapped = report.swapped.as_ref().expect("it was swapped in");
    for damage in DAMAGES {
        assert!(swapped.tables.contains_key(damage.table), "{report}");
    }
    assert_eq!(mirror_and_ledger(&app).await, undamaged);
    assert_nothing_differs(&assert_equal(&app).await);
    let told = rows(&app, "select data from event where type = 'mirror.rebuilt'").await;
    assert_eq!(told.len(), 1);
    assert!(
        told[0].contains(r#""tenure":{"added":1,"changed":0,"removed":1}"#),
        "{told:?}"
    );
    assert_eq!(sql::count(app.pool(), "event").await, log_before + 1);

    // Nothing to be done, nothing done.
    let again = run(&app, SWAP).await.unwrap();
    assert!(again.swapped.is_none());
    assert_eq!(sql::count(app.pool(), "event").await, log_before + 1);
}

#[tokio::test]
async fn damage_of_each_table_is_found_and_set_right_alone() {
    let app = app_with_everything().await;
    for damage in DAMAGES {
        execute(&app, damage.sql).await;
        let report = run(&app, SWAP).await.unwrap();
        let tables: Vec<&str> = report
            .tables
            .iter()
            .filter(|table| table.damaged.total() > 0)
            .map(|table| table.table)
            .collect();
        assert_eq!(tables, [damage.table], "{report}");
        assert_nothing_differs(&assert_equal(&app).await);
    }
}

#[tokio::test]
async fn the_log_is_added_to_and_never_rewritten() {
    let app = app_with_everything().await;
    execute(&app, "delete from event where (commit_xid, event_id) = (select commit_xid, event_id from event where type = 'message.added' limit 1)").await;
    execute(&app, "update event set data = '{\"forged\":true}' where (commit_xid, event_id) = (select commit_xid, event_id from event where type = 'line.holder_changed' limit 1)").await;
    let report = run(&app, COMPARE).await.unwrap();
    let log = of(&report, "event");
    assert_eq!(
        (
            log.damaged.only_in_new,
            log.damaged.different,
            log.damaged.only_in_old
        ),
        (1, 1, 0),
        "{report}"
    );
    // A conversation's number is nobody's; the line's is.
    assert!(
        log.examples.iter().all(|one| !one.key.contains_key("subject")),
        "{report}"
    );

    let forged = "select commit_xid || ' ' || event_id from event where data like '%forged%'";
    let before = rows(&app, forged).await;
    let report = run(&app, SWAP).await.unwrap();
    assert_eq!(report.swapped.unwrap().tables["event"].added, 1);
    assert_eq!(rows(&app, forged).await, before, "it stands where it stood");
    let report = assert_equal(&app).await;
    assert_eq!(of(&report, "event").left.different, 1, "{report}");
    assert!(report.verdict().contains("as a swap left them"));

    // Every reader of the log finds what was missing behind the last that it has read.
    let last = rows(
        &app,
        "select type from event order by commit_xid desc, event_id desc limit 2",
    )
    .await;
    assert_eq!(last, ["mirror.rebuilt", "message.added"]);
    // What is changed after the swap is no longer excused by it.
    app.text(BUYER, &[LINE, PARTNER], "Hello?").await;
    app.settle().await;
    execute(&app, "update event set actor = 'forged' where (commit_xid, event_id) = (select commit_xid, event_id from event where type = 'message.added' order by commit_xid desc, event_id desc limit 1)").await;
    assert_eq!(run(&app, COMPARE).await.unwrap().damaged(), 1);
}

#[tokio::test]
async fn a_mirror_that_was_lost_comes_back() {
    let app = app_with_everything().await;
    let whole = mirror_and_ledger(&app).await;
    execute(
        &app,
        "truncate conversation, participant, message, delivery_receipt, chat_user, conversation_version,
        participant_version, message_version, receipt_version, holding, tenure",
    )
    .await;
    let report = run(&app, SWAP).await.unwrap();
    assert!(report.swapped.is_some(), "{report}");
    assert_eq!(mirror_and_ledger(&app).await, whole);
    assert_nothing_differs(&assert_equal(&app).await);
}

#[tokio::test]
async fn a_run_that_was_killed_leaves_nothing_and_the_next_one_begins_anew() {
    let app = app_with_everything().await;
    execute(&app, DAMAGES[0].sql).await;
    let damaged = mirror_and_ledger(&app).await;
    let mut deaths = 0;
    let report = loop {
        match cut(run(&app, SWAP), 20 + 60 * deaths).await {
            Some(Ok(report)) => break report,
            // The one before has not been buried yet.
            Some(Err(Error::Busy)) => tokio::time::sleep(Duration::from_millis(5)).await,
            Some(Err(error)) => panic!("{error:?}"),
            None => {
                deaths += 1;
                if rows(&app, "select type from event where type = 'mirror.rebuilt'")
                    .await
                    .is_empty()
                {
                    assert_eq!(mirror_and_ledger(&app).await, damaged);
                }
            }
        }
    };
    assert!(deaths > 3, "{deaths}");
    assert!(report.tables.iter().all(|table| table.unsourced.total() == 0));
    assert_nothing_differs(&assert_equal(&app).await);
    // A session is buried by the server when it finds that nobody is at the other end.
    let sessions = "select pid::text from pg_stat_activity where application_name = 'hookswitch rebuild'
        and datname = current_database()";
    // Others' sessions are shown to the owner alone.
    let owner = app.database.pool(1).await;
    while !sql::values(&owner, sessions).await.is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let left = rows(
        &app,
        "select relname::text from pg_class where relpersistence = 't' and relkind = 'r'",
    )
    .await;
    assert_eq!(left, Vec::<String>::new());
}

#[tokio::test]
async fn two_at_once_refuse_each_other() {
    let app = app_with_everything().await;
    let (one, other) = tokio::join!(run(&app, COMPARE), run(&app, COMPARE));
    let refused = |ended: &Result<_, Error>| matches!(ended, Err(Error::Busy));
    assert!(refused(&one) != refused(&other), "{one:?} {other:?}");
}

#[tokio::test]
async fn a_swap_waits_no_longer_than_it_may_and_changes_nothing_then() {
    let app = app_with_everything().await;
    execute(&app, DAMAGES[0].sql).await;
    let mut somebody = app.pool().begin().await.unwrap();
    sqlx::query!("select conversation_sid from conversation for update")
        .fetch_all(&mut *somebody)
        .await
        .unwrap();
    let impatient = Rebuild {
        locked_max: Duration::from_millis(300),
        ..rebuild_of(&app)
    };
    let ended = Box::pin(impatient.run(SWAP, &mut |_| ())).await;
    assert!(matches!(ended, Err(Error::TooLong(_))), "{ended:?}");
    somebody.rollback().await.unwrap();
    assert_eq!(run(&app, COMPARE).await.unwrap().damaged(), 1);
    // Nothing holds a lane or a conversation.
    app.text(BUYER, &[LINE, PARTNER], "Hello?").await;
    app.settle().await;
    assert_eq!(run(&app, SWAP).await.unwrap().damaged(), 1);
    assert_nothing_differs(&assert_equal(&app).await);
}

/// Users are of no conversation, so that only this lock keeps their erasing and a swap apart.
#[tokio::test]
async fn a_swap_waits_for_whoever_erases() {
    let app = app_with_everything().await;
    execute(&app, DAMAGES[0].sql).await;
    let mut somebody = app.pool().begin().await.unwrap();
    hookswitch::retention::lock(&mut somebody).await.unwrap();
    let impatient = Rebuild {
        locked_max: Duration::from_millis(300),
        ..rebuild_of(&app)
    };
    let ended = Box::pin(impatient.run(SWAP, &mut |_| ())).await;
    assert!(matches!(ended, Err(Error::TooLong(_))), "{ended:?}");
    somebody.rollback().await.unwrap();
    assert_eq!(run(&app, SWAP).await.unwrap().damaged(), 1);
}

/// The time counts from when somebody may be kept waiting, and a statement that is under way when it is up ends too.
#[tokio::test]
async fn a_swap_that_is_given_up_lets_go_of_its_locks() {
    let app = app_with_everything().await;
    execute(&app, "update message set body = 'Forged'").await;
    let mut lanes = app.pool().begin().await.unwrap();
    sqlx::query!("select lane from projection_lane for update")
        .fetch_all(&mut *lanes)
        .await
        .unwrap();
    let mut messages = app.pool().begin().await.unwrap();
    sqlx::query!("select message_sid from message for update")
        .fetch_all(&mut *messages)
        .await
        .unwrap();
    let impatient = Rebuild {
        locked_max: Duration::from_secs(2),
        ..rebuild_of(&app)
    };
    let let_go_late = async {
        let waits = "select pid::text from pg_stat_activity where application_name = 'hookswitch rebuild'
            and datname = current_database() and wait_event_type = 'Lock'";
        let owner = app.database.pool(1).await;
        while sql::values(&owner, waits).await.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        // Most of its time is gone before it writes at all.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        lanes.rollback().await.unwrap();
    };
    let mut unwatched = |_: &_| ();
    let swap = Box::pin(impatient.run(SWAP, &mut unwatched));
    let (ended, ()) = tokio::join!(swap, let_go_late);
    assert!(matches!(ended, Err(Error::TooLong(_))), "{ended:?}");
    let given_up = Instant::now();
    sqlx::query!("select lane from projection_lane for update")
        .fetch_all(app.pool())
        .await
        .unwrap();
    let kept = given_up.elapsed();
    assert!(kept < Duration::from_secs(1), "{kept:?}");
    messages.rollback().await.unwrap();
}

/// A sweep that compares Twilio with a forged row repairs what it sees, and its answer is a source from then on.
#[tokio::test]
async fn what_a_sweep_built_on_a_damaged_row_is_set_right_too() {
    let app = TestApp::start().await;
    app.group(Some("maya")).await;
    execute(
        &app,
        "update conversation set friendly_name = 'Forged', attributes = '{}'",
    )
    .await;
    app.sweep().await;
    app.settle_for(SignedDuration::from_secs(3)).await;
    assert_eq!(
        rows(&app, "select friendly_name from conversation").await,
        ["Home-buying journey"]
    );
    let report = run(&app, SWAP).await.unwrap();
    assert!(report.damaged() > 0, "{report}");
    let report = assert_equal(&app).await;
    assert!(
        of(&report, "event").left.only_in_old > 0,
        "that it was repaired stands in the log: {report}"
    );
    assert_eq!(
        rows(&app, "select friendly_name from conversation").await,
        ["Home-buying journey"]
    );
}
