//! What is erased when, and what legal hold keeps.

use std::time::Duration;

use hookswitch::audit::verify;
use hookswitch::config;
use hookswitch::events::Via;
use hookswitch::ids::ConversationSid;
use hookswitch::people::{self, Actor, Profile};
use hookswitch::retention::{self, Class, Erased, Retention};
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::audit::seal_everything;
use crate::support::app::{BUYER, LINE, PARTNER, TestApp, sid_of};
use crate::support::sql;

const DAY: Duration = Duration::from_hours(24);

fn rules(app: &TestApp, webhooks: Option<Duration>, log: Option<Duration>) -> Retention {
    Retention {
        pool: app.pool().clone(),
        clock: app.clock.clone(),
        settings: config::Retention {
            every: Duration::ZERO,
            webhooks,
            log,
            message_bodies: webhooks,
            attributes: webhooks,
            versions: webhooks,
            quarantine: webhooks,
        },
    }
}

#[tokio::test]
async fn nothing_is_erased_unasked_or_early() {
    let app = TestApp::start().await;
    app.group(Some("maya")).await;
    let kept = rules(&app, None, None);
    let early = rules(&app, Some(DAY), Some(DAY));
    for class in Class::ALL {
        assert_eq!(kept.run_all(class, false).await.unwrap(), None);
        let done = early.run_all(class, false).await.unwrap();
        assert_eq!(done, Some(Erased::default()), "{class:?}");
    }
    assert_eq!(sql::count(app.pool(), "webhook where form = ''").await, 0);
    assert_eq!(sql::count(app.pool(), "event where erased is not null").await, 0);
}

#[tokio::test]
async fn what_is_due_is_erased_and_the_log_stays_provable() {
    let app = TestApp::start().await;
    app.group(Some("maya")).await;
    app.text(BUYER, &[LINE, PARTNER], "Is it still there?").await;
    app.settle().await;
    seal_everything(&app.app.sealer).await;
    let webhooks = i64::try_from(sql::count(app.pool(), "webhook").await).unwrap();
    let answers = i64::try_from(sql::count(app.pool(), "answer").await).unwrap();
    let entries = i64::try_from(sql::count(app.pool(), "event").await).unwrap();
    app.clock.advance(SignedDuration::from_hours(25));
    app.text(BUYER, &[LINE, PARTNER], "Hello?").await;
    app.settle().await;
    let rules = rules(&app, Some(DAY), Some(DAY));

    // The class has what Twilio told: forms, and the recorded answers of our own calls.
    for (class, due) in [(Class::Webhooks, webhooks + answers), (Class::Log, entries)] {
        let expected = Some(Erased { erased: due, held: 0 });
        assert_eq!(rules.run_all(class, true).await.unwrap(), expected, "counted");
        assert_eq!(
            rules.run_all(class, true).await.unwrap(),
            expected,
            "and not erased"
        );
        assert_eq!(rules.run_all(class, false).await.unwrap(), expected, "{class:?}");
        let again = rules.run_all(class, false).await.unwrap();
        assert_eq!(again, Some(Erased::default()), "{class:?} again");
    }
    assert_eq!(
        i64::try_from(sql::count(app.pool(), "webhook where form = ''").await).unwrap(),
        webhooks
    );
    // Of the old entries nothing personal is left; what came later is whole.
    let old = "event where erased is not null";
    assert_eq!(i64::try_from(sql::count(app.pool(), old).await).unwrap(), entries);
    let telling =
        format!("{old} and (subject like '+%' or actor is not null or data <> '{{\"erased\":true}}')");
    assert_eq!(sql::count(app.pool(), &telling).await, 0);
    let told = sql::values(
        app.pool(),
        "select subject || ' ' || (data::jsonb ->> 'erased') from event where type = 'retention.erased' order by event_id",
    )
    .await;
    let expected = [
        format!("webhooks {webhooks}"),
        format!("webhooks {answers}"),
        format!("log {entries}"),
    ];
    assert!(answers > 0);
    assert_eq!(told, expected);
    assert_eq!(
        i64::try_from(sql::count(app.pool(), "answer where statements = '[]'").await).unwrap(),
        answers
    );

    seal_everything(&app.app.sealer).await;
    let verified = verify(app.pool(), None, 1).await.unwrap().unwrap();
    assert_eq!((verified.erased, verified.unsealed), (entries, 0));
}

#[tokio::test]
async fn legal_hold_wins_and_its_end_lets_the_rules_go_on() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let mut conn = app.conn().await;
    for _ in 0..2 {
        let now = app.clock.now();
        let held = retention::hold(&mut conn, &sid, "case 17", "legal", Via::Cli, now)
            .await
            .unwrap();
        assert_eq!(held.reason, "case 17");
    }
    app.clock.advance(SignedDuration::from_hours(25));
    let rules = rules(&app, Some(DAY), Some(DAY));
    let of_group = format!("webhook where conversation_sid = '{sid}'");
    let webhooks = i64::try_from(sql::count(app.pool(), &of_group).await).unwrap();
    let kept = rules.run_all(Class::Webhooks, false).await.unwrap().unwrap();
    assert!(webhooks > 0);
    let answers =
        i64::try_from(sql::count(app.pool(), &of_group.replace("webhook", "answer")).await).unwrap();
    assert_eq!(kept.held, webhooks + answers);
    assert_eq!(
        sql::count(app.pool(), &format!("{of_group} and form = ''")).await,
        0
    );
    sql::log_is_readable(app.pool()).await;
    rules.run_all(Class::Log, false).await.unwrap();
    let of_log = format!("event where conversation_sid = '{sid}' and erased is not null");
    assert_eq!(sql::count(app.pool(), &of_log).await, 0);
    // What was told before there was a conversation is about it too.
    let before = "event where type = 'group_text.requested' and conversation_sid is null";
    let erased = format!("{before} and erased is not null");
    assert_eq!(sql::count(app.pool(), before).await, 1);
    assert_eq!(sql::count(app.pool(), &erased).await, 0);

    let now = app.clock.now();
    assert!(
        retention::release(&mut conn, &sid, "legal", Via::Cli, now)
            .await
            .unwrap()
    );
    assert!(
        !retention::release(&mut conn, &sid, "legal", Via::Cli, now)
            .await
            .unwrap()
    );
    let gone = rules.run_all(Class::Webhooks, false).await.unwrap().unwrap();
    assert_eq!(
        gone,
        Erased {
            erased: webhooks + answers,
            held: 0
        }
    );
    sql::log_is_readable(app.pool()).await;
    let log = rules.run_all(Class::Log, false).await.unwrap().unwrap();
    assert!(log.erased > 0 && log.held == 0);
    assert_eq!(sql::count(app.pool(), &erased).await, 1);
    let told = sql::values(
        app.pool(),
        "select type from event where type like 'legal_hold.%' order by commit_xid, event_id",
    )
    .await;
    assert_eq!(told, ["legal_hold.set", "legal_hold.released"]);
}

#[tokio::test]
async fn who_an_entry_about_one_of_ours_is_about_goes_with_the_log() {
    let app = TestApp::start().await;
    let by = Actor {
        name: "crm".to_owned(),
        via: Via::Api,
        cause: None,
    };
    let profile = Profile {
        name: "Maya Lopez".to_owned(),
        team: None,
        supervisor: None,
        backup: None,
        skills: std::collections::BTreeSet::new(),
        capacity: None,
        left_at: None,
    };
    let (mut conn, now) = (app.conn().await, app.clock.now());
    people::put_agent(&mut conn, &"maya".parse().unwrap(), profile, None, &by, now)
        .await
        .unwrap();
    assert_eq!(sql::count(app.pool(), "event where subject = 'maya'").await, 1);
    app.clock.advance(SignedDuration::from_hours(25));
    let rules = rules(&app, None, Some(DAY));
    sql::log_is_readable(app.pool()).await;
    rules.run_all(Class::Log, false).await.unwrap();
    assert_eq!(sql::count(app.pool(), "event where subject = 'maya'").await, 0);
    seal_everything(&app.app.sealer).await;
    verify(app.pool(), None, 1).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_hold_that_ends_sends_no_rule_back_to_the_beginning() {
    let app = TestApp::start().await;
    let held = sid_of(&app.group(Some("maya")).await);
    let free = sid_of(&app.group_of(&["+15555550103", "+15555550104"]).await);
    let (mut conn, now) = (app.conn().await, app.clock.now());
    retention::hold(&mut conn, &held, "case 17", "legal", Via::Cli, now)
        .await
        .unwrap();
    app.clock.advance(SignedDuration::from_hours(25));
    let rules = rules(&app, Some(DAY), Some(DAY));
    sql::log_is_readable(app.pool()).await;
    for class in [Class::Webhooks, Class::Log] {
        rules.run_all(class, false).await.unwrap();
    }
    let come_to = "select concat_ws(' ', place, commit_xid, number) from retention_progress
        where place in ('webhooks', 'answers', 'log') order by place";
    let before = sql::values(app.pool(), come_to).await;
    let now = app.clock.now();
    retention::release(&mut conn, &held, "legal", Via::Cli, now)
        .await
        .unwrap();
    assert_eq!(sql::values(app.pool(), come_to).await, before);
    assert_eq!(sql::count(app.pool(), "retention_released").await, 3);

    let of = |sid: &ConversationSid| {
        format!("select (select count(*) from webhook where conversation_sid = '{sid}' and erased_at is null)
            + (select count(*) from answer where conversation_sid = '{sid}' and erased_at is null)
            + (select count(*) from event where coalesce(conversation_sid, conversation_of_group_text(type, subject)) = '{sid}'
               and erased is null and type not like 'legal_hold.%') ||''")
    };
    let left = async |sid| -> i64 {
        let left = sql::value(app.pool(), &of(sid)).await.unwrap();
        left.parse().unwrap()
    };
    assert_eq!(left(&free).await, 0);
    let due = left(&held).await;
    assert!(due > 10, "{due}");
    for dry_run in [true, true, false] {
        let mut done = Erased::default();
        for class in [Class::Webhooks, Class::Log] {
            let one = rules.run_all(class, dry_run).await.unwrap().unwrap();
            done.erased += one.erased;
            done.held += one.held;
        }
        assert_eq!(done, Erased { erased: due, held: 0 });
    }
    assert_eq!(left(&held).await, 0);
    assert_eq!(sql::count(app.pool(), "retention_released").await, 0);
}

#[tokio::test]
async fn the_rules_are_run_now_and_then_until_nothing_is_due() {
    let app = TestApp::start().await;
    let more = "insert into quarantined_webhook (account_sid, method, form, received_at, refusal)
        select 'AC1', 'POST', 'a', now() - interval '10 days', 'no_signature' from generate_series(1, 1700)";
    sql::execute(app.pool(), more).await;
    // As for a place that is new with a version.
    sql::execute(app.pool(), "delete from retention_progress").await;
    let mut rules = rules(&app, Some(DAY), None);
    rules.settings.every = Duration::from_millis(50);
    let stop = CancellationToken::new();
    let runs = tokio::spawn(rules.keep_running(stop.clone()));
    while sql::count(app.pool(), "quarantined_webhook").await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    stop.cancel();
    runs.await.unwrap();
    let told = "event where type = 'retention.erased' and subject = 'quarantine'";
    assert_eq!(sql::count(app.pool(), told).await, 4, "in batches");
}
