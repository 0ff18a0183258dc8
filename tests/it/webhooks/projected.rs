//! What becomes of kept webhooks: no content loses one, and one that cannot be projected stops no other.

use hookswitch::inbox::replay::{self, Backlog};
use tokio_util::sync::CancellationToken;

use crate::support::app::TestApp;
use crate::support::sql::{assert_webhooks_are_in_one_place, count, execute, value, values};
use crate::support::webhook::{Webhook, sid};

async fn backlog(app: &TestApp) -> Backlog {
    replay::backlog(&mut *app.conn().await).await.unwrap()
}

/// Sends, projects, and tells what became of it: its state, with the reason if there is one.
async fn outcome(app: &TestApp, webhook: &Webhook) -> String {
    assert_eq!(webhook.send(&app.url).await.status, 200);
    assert_eq!(app.app.projector.run_until_idle().await.unwrap(), 1);
    let sql = "select concat_ws(': ', state, reason) from webhook_state order by webhook_id desc limit 1";
    value(app.pool(), sql).await.unwrap()
}

#[tokio::test]
async fn no_text_keeps_a_message_out_of_the_mirror() {
    let app = TestApp::start().await;
    let odd = [
        ("Body", "nul\0inside"),
        ("Body", "\u{202e}\u{200d}\u{fffe}\u{10ffff} 👩‍👩‍👧‍👦 e\u{301}"),
        ("Body", ""),
        ("Author", "nul\0inside"),
        ("Attributes", "{\"nul\":\"\\u0000\",\"half\":\"\\ud800\"}"),
        ("Attributes", "{\"half\":\"\\udc00 \\ud83d\"}"),
        ("Attributes", "no JSON at all \0"),
        ("Attributes", "{\"deep\":1e999999}"),
        ("Media", "no JSON either"),
        (
            "Media",
            "[{\"Sid\":\"ME1\",\"Filename\":\"\\u0000\",\"ContentType\":\"\\ud800\",\"Size\":-1}]",
        ),
        ("ParticipantSid", "MB\0"),
        ("MessagingServiceSid", "'; drop table webhook; --"),
        ("Source", "nul\0inside"),
        ("ChatServiceSid", "\0"),
        ("RetryCount", "99999999999999999999"),
        ("ClientIdentity", "\0"),
        ("nul\0in a key", "nul\0in its value"),
        ("", "no key"),
        ("DateUpdated", "when the cows come home"),
    ];
    for (number, (key, text)) in odd.into_iter().enumerate() {
        let webhook = Webhook::message(1, number).with(key, text);
        assert_eq!(outcome(&app, &webhook).await, "projected", "{key}={text:?}");
        let message = format!("message where message_sid = '{}'", sid("IM", 100_000 + number));
        assert_eq!(count(app.pool(), &message).await, 1, "{key}={text:?}");
    }
    let body = format!(
        "select body from message where message_sid = '{}'",
        sid("IM", 100_000)
    );
    assert_eq!(
        value(app.pool(), &body).await.as_deref(),
        Some("nul\u{fffd}inside")
    );
}

#[tokio::test]
async fn an_ill_formed_webhook_is_kept_and_set_aside_by_the_name_of_the_field() {
    let app = TestApp::start().await;
    let set_aside = [
        ("ConversationSid", "CH1"),
        ("ConversationSid", "CH\0"),
        ("MessageSid", "IM0000000000000000000000000000000\u{ff10}"),
        ("MessageSid", ""),
        ("Index", "99999999999999999999"),
        ("Index", "first"),
    ];
    for (number, (key, text)) in set_aside.into_iter().enumerate() {
        let outcome = outcome(&app, &Webhook::message(2, number).with(key, text)).await;
        assert!(
            outcome.starts_with(&format!("set_aside: `{key}` is missing or not ")),
            "{key}={text:?}: {outcome}"
        );
    }
    let without_time = outcome(&app, &Webhook::message(2, 6).without("DateCreated")).await;
    assert!(
        without_time.starts_with("set_aside: the event has no time"),
        "{without_time}"
    );
    assert_eq!(
        backlog(&app).await,
        Backlog {
            pending: 0,
            set_aside: 7
        }
    );
    assert_eq!(count(app.pool(), "message").await, 0);
    assert_eq!(
        count(app.pool(), "event where type = 'webhook.set_aside'").await,
        7
    );

    // A replay that changes nothing sets them aside again, with the reason.
    assert_eq!(replay::replay(app.pool(), &app.clock, None).await.unwrap(), 7);
    assert_eq!(backlog(&app).await.pending, 7);
    assert_eq!(app.app.projector.run_until_idle().await.unwrap(), 7);
    assert_eq!(backlog(&app).await.set_aside, 7);

    assert_eq!(outcome(&app, &Webhook::message(1, 0)).await, "projected");
}

#[tokio::test]
async fn an_event_that_nobody_knows_is_kept_and_changes_nothing() {
    let app = TestApp::start().await;
    let conversation = sid("CH", 1);
    for event_type in [
        "onTypingStarted",
        "",
        "nul\0inside",
        "onMessageAdded ",
        &"x".repeat(100_000),
    ] {
        let webhook = Webhook::new(
            event_type,
            &[("ConversationSid", &conversation), ("Body", "hello")],
        );
        let outcome = outcome(&app, &webhook).await;
        let expected = if event_type.is_empty() {
            "set_aside: `EventType` is missing or not the name of an event"
        } else {
            "projected"
        };
        assert_eq!(outcome, expected, "{event_type:.20?}");
    }
    for table in ["conversation", "message", "participant", "task"] {
        assert_eq!(count(app.pool(), table).await, 0, "{table}");
    }
    assert_eq!(count(app.pool(), "webhook").await, 5);
}

#[tokio::test]
async fn one_that_the_database_refuses_stops_no_other_and_is_projected_after_the_fix() {
    let app = TestApp::start().await;
    let owner = app.database.pool(1).await;
    execute(
        &owner,
        "alter table message add constraint no_poison check (body <> 'poison')",
    )
    .await;
    let poison = Webhook::message(1, 25).with("Body", "poison");
    for number in 0..51 {
        let webhook = if number == 25 {
            poison.clone()
        } else {
            Webhook::message(1, number)
        };
        assert_eq!(webhook.send(&app.url).await.status, 200);
    }
    // All of them are one batch of one lane.
    assert_eq!(app.app.projector.run_until_idle().await.unwrap(), 51);

    assert_eq!(
        backlog(&app).await,
        Backlog {
            pending: 0,
            set_aside: 1
        }
    );
    let reason = value(
        app.pool(),
        "select reason from webhook_state where state = 'set_aside'",
    )
    .await;
    assert_eq!(
        reason.as_deref(),
        Some("the database refused it: SQLSTATE 23514, constraint no_poison")
    );
    let messages = |range: std::ops::Range<usize>| range.map(|index| sid("IM", 100_000 + index));
    let mut expected: Vec<String> = messages(0..25).chain(messages(26..51)).collect();
    let logged = "select subject from event where type = 'message.added' order by commit_xid, event_id";
    assert_eq!(values(app.pool(), logged).await, expected);

    execute(&owner, "alter table message drop constraint no_poison").await;
    assert_eq!(replay::replay(app.pool(), &app.clock, None).await.unwrap(), 1);
    assert_eq!(app.app.projector.run_until_idle().await.unwrap(), 1);
    assert_eq!(
        backlog(&app).await,
        Backlog {
            pending: 0,
            set_aside: 0
        }
    );
    expected.extend(messages(25..26));
    assert_eq!(values(app.pool(), logged).await, expected);
    assert_eq!(count(app.pool(), "message").await, 51);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conversation_that_somebody_holds_locked_stops_no_other() {
    let app = TestApp::start().await;
    for conversation in 1..=12 {
        Webhook::message(conversation, 1).send(&app.url).await;
    }
    assert_eq!(app.app.projector.run_until_idle().await.unwrap(), 12);
    // Somebody at a prompt, whose session nothing ends.
    let prompt = app.database.pool(1).await;
    let mut holder = prompt.begin().await.unwrap();
    let lock = format!(
        "select from conversation where conversation_sid = '{}' for update",
        sid("CH", 1)
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(lock))
        .execute(&mut *holder)
        .await
        .unwrap();

    // The oldest that waits is the one that cannot go on.
    for conversation in 1..=12 {
        Webhook::message(conversation, 2).send(&app.url).await;
    }
    let cancel = CancellationToken::new();
    let working = tokio::spawn(app.app.projector.clone().run(cancel.clone()));
    let begun = std::time::Instant::now();
    // All that waits, but for what shares its lane.
    let others = format!(
        "webhook_pending where lane <> (select lane from webhook where conversation_sid = '{}' limit 1)",
        sid("CH", 1)
    );
    while count(app.pool(), &others).await > 0 {
        assert!(begun.elapsed().as_secs() < 40, "{:?}", backlog(&app).await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    for conversation in 2..=12 {
        Webhook::message(conversation, 3).send(&app.url).await;
    }
    while count(app.pool(), &others).await > 0 {
        assert!(begun.elapsed().as_secs() < 60, "{:?}", backlog(&app).await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(backlog(&app).await.pending > 0);
    holder.rollback().await.unwrap();
    while backlog(&app).await.pending > 0 {
        assert!(begun.elapsed().as_secs() < 100, "{:?}", backlog(&app).await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    cancel.cancel();
    working.await.unwrap();
    assert_eq!(backlog(&app).await.set_aside, 0);
    assert_webhooks_are_in_one_place(app.pool()).await;
    assert_eq!(count(app.pool(), "message").await, 35);
}
