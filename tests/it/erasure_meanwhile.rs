//! What happens while a person is being erased: holds, transfers and webhooks that come in the middle, and work that is
//! long, or cannot be done.

use std::sync::Arc;
use std::time::Duration;

use hookswitch::accounts::Accounts;
use hookswitch::config;
use hookswitch::erasure::{BUDGET, ERASE_TASK, Eraser, Left, State, Step, Upstream};
use hookswitch::events::Via;
use hookswitch::ids::ConversationSid;
use hookswitch::person::{Person, Subject};
use hookswitch::projection::answers;
use hookswitch::queue::{self, Worker};
use hookswitch::retention;
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::transfer::Kind;
use jiff::SignedDuration;

use crate::erasure::{
    OF_BUYER, OF_MAYA, command, erase, erasures, found, maya, new, number, story, where_named,
};
use crate::support::app::{ACCOUNT, BUYER, LINE, PARTNER, TestApp, sid_of};
use crate::support::sql;
use crate::support::webhook::Webhook;

/// Every deletion at Twilio fails, so that an erasure comes no further than that.
fn stop_at_twilio(app: &TestApp) {
    let fault = RestFault {
        method: Some("DELETE".to_owned()),
        path: None,
        status: Some(503),
        effect: Effect::default(),
        hold_ms: 0,
        probability: 1.0,
        times: None,
    };
    let faults = Faults {
        rest: vec![fault],
        ..Faults::default()
    };
    app.sandbox.set_faults(faults).unwrap();
}

/// Lets the work go on that waited for Twilio, without projecting anything.
async fn go_on(app: &TestApp) {
    app.sandbox.set_faults(Faults::default()).unwrap();
    app.advance(SignedDuration::from_mins(5));
    app.app.worker.run_until_idle().await.unwrap();
}

/// What only erases, with these accounts and so much time for one run.
fn worker(app: &TestApp, accounts: Accounts, budget: Duration) -> Worker {
    let eraser = Eraser {
        pool: app.pool().clone(),
        clock: app.clock.clone(),
        accounts,
        budget,
    };
    Worker::new(
        app.pool().clone(),
        app.clock.clone(),
        vec![(ERASE_TASK, Arc::new(eraser))],
        queue::Settings::default(),
    )
}

/// A webhook of somebody else's message that names the buyer.
fn naming_buyer(sid: &ConversationSid) -> Webhook {
    Webhook::message(7, 50)
        .with("ConversationSid", sid.as_str())
        .with("Author", PARTNER)
        .with("Body", &format!("Call {BUYER}, please."))
}

async fn hold(app: &TestApp, sid: &ConversationSid) {
    let now = app.clock.now();
    retention::hold(&mut *app.conn().await, sid, "case 17", "legal", Via::Cli, now)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_hold_that_begins_in_the_middle_keeps_what_is_not_erased_yet() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    stop_at_twilio(&app);
    let erasure = erasures(&app)
        .start(new(number(), Upstream::Messages))
        .await
        .unwrap();
    app.settle().await;
    // The webhooks are waited for, since one of them is not projected yet.
    app.deliver(&naming_buyer(&sid).0).await;
    go_on(&app).await;
    assert_eq!(found(&app, &erasure).await.step, Step::Webhooks);
    hold(&app, &sid).await;
    let before = sql::values(
        app.pool(),
        "select event_id::text from event where erased is not null
        union all select number::text from answer where erased_at is not null",
    )
    .await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    let done = found(&app, &erasure).await;
    assert_eq!(
        (done.state, &done.held),
        (State::Incomplete, &vec![sid.to_string()])
    );
    let of_group = format!("conversation_sid = '{sid}'");
    for kept in [
        "event where erased is not null",
        "answer where erased_at is not null",
    ] {
        let kept = format!("{kept} and {of_group}");
        assert_eq!(sql::count(app.pool(), &kept).await, before.len(), "{kept}");
    }
    assert!(before.is_empty());
    let form = format!("webhook where {of_group} and position('Call' in encode(form, 'escape')) > 0");
    assert_eq!(sql::count(app.pool(), &form).await, 1);
    // Asked for again when the hold has ended, all of it goes.
    let now = app.clock.now();
    retention::release(&mut *app.conn().await, &sid, "legal", Via::Cli, now)
        .await
        .unwrap();
    assert_eq!(
        erase(&app, number(), Upstream::Messages).await.state,
        State::Completed
    );
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);
}

#[tokio::test]
async fn a_preview_names_a_held_conversation_of_which_only_the_sources_say_it() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    // The mirror says nothing of them, while the forms and the log do.
    let forget = "delete from participant_version; delete from message_version; delete from message; delete from participant;
        delete from holding; delete from tenure; delete from transfer; delete from transfer_candidate;
        delete from outbound_message; delete from group_text";
    sql::execute(app.pool(), forget).await;
    hold(&app, &sid).await;
    let preview = erasures(&app).preview(&number()).await.unwrap();
    assert_eq!(
        (preview.held, preview.conversations),
        (vec![sid.to_string()], vec![])
    );
    assert!(!preview.counts.contains_key("webhooks") && !preview.counts.contains_key("answers"));
    let done = erase(&app, number(), Upstream::None).await;
    assert_eq!(
        (done.state, done.held),
        (State::Incomplete, vec![sid.to_string()])
    );
    let emptied = format!("webhook where conversation_sid = '{sid}' and erased_at is not null");
    assert_eq!(sql::count(app.pool(), &emptied).await, 0);
}

#[tokio::test]
async fn a_hold_that_begins_while_twilio_deletes_stops_it_and_keeps_the_words() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    for text in ["One", "Two", "Three"] {
        app.text(BUYER, &[LINE, PARTNER], text).await;
    }
    app.settle_for(SignedDuration::from_secs(5)).await;
    erasures(&app)
        .start(new(number(), Upstream::Participants))
        .await
        .unwrap();
    // Whoever sets a hold has this lock, and nothing is erased here meanwhile.
    let mut legal = app.pool().begin().await.unwrap();
    retention::lock(&mut legal).await.unwrap();
    let process = app.restarted();
    let run = tokio::spawn(async move { process.worker.run_until_idle().await });
    while app.at_twilio(&sid).messages.len() == 3 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let now = app.clock.now();
    retention::hold(&mut legal, &sid, "case 17", "legal", Via::Cli, now)
        .await
        .unwrap();
    legal.commit().await.unwrap();
    run.await.unwrap().unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
    let held = sql::values(
        app.pool(),
        "select array_to_string(held, ' ') || ' ' || state from erasure",
    )
    .await;
    assert_eq!(held, [format!("{sid} incomplete")]);
    let left = app.at_twilio(&sid);
    assert_eq!((left.messages.len(), left.participants.len()), (2, 3));
    let gone = "select concat_ws('|', body, author) from message where removed_at is not null";
    assert_eq!(sql::values(app.pool(), gone).await, [format!("One|{BUYER}")]);
    assert_eq!(
        sql::count(app.pool(), "message where erased_at is not null").await,
        0
    );
}

#[tokio::test]
async fn a_transfer_that_begins_in_the_middle_keeps_its_names_until_it_ends() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    stop_at_twilio(&app);
    let erasure = erasures(&app)
        .start(new(maya(), Upstream::Messages))
        .await
        .unwrap();
    app.settle().await;
    assert_eq!(found(&app, &erasure).await.step, Step::Twilio);
    let offered = app.start_transfer(&sid, Kind::Warm, "maya").await;
    go_on(&app).await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    let waits = found(&app, &erasure).await;
    assert_eq!((waits.state, waits.step), (State::Running, Step::Conversations));
    let to = app.transfer(offered.transfer_id).await.to_holder;
    assert_eq!(to.unwrap().as_str(), "maya");
    app.app
        .api
        .transfers
        .decline(offered.transfer_id, "maya")
        .await
        .unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(found(&app, &erasure).await.state, State::Completed);
    assert_eq!(where_named(&app, OF_MAYA).await, [""; 0]);
}

#[tokio::test]
async fn of_a_user_who_mentions_the_person_only_that_goes() {
    let app = TestApp::start().await;
    story(&app).await;
    let insert = format!(
        "insert into chat_user (account_sid, user_sid, identity, friendly_name, attributes, version_at)
         values ('AC1', 'US1', 'ada', 'Ada', '{{\"boss\":\"maya\"}}', now()),
                ('AC1', 'US2', 'eve', 'Eve, {BUYER}', '{{\"desk\":4}}', now())"
    );
    sql::execute(app.pool(), &insert).await;
    erase(&app, maya(), Upstream::None).await;
    erase(&app, number(), Upstream::None).await;
    let users = sql::values(
        app.pool(),
        "select concat_ws('|', identity, friendly_name, attributes, (select string_agg(key, ' ') from jsonb_object_keys(erased) as key))
        from chat_user where account_sid = 'AC1' order by user_sid",
    )
    .await;
    assert_eq!(users, ["ada|Ada|attributes", r#"eve|{"desk":4}|friendly_name"#]);
}

#[tokio::test]
async fn users_are_masked_before_the_webhooks_are_gone_through() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    let insert = "insert into chat_user (account_sid, user_sid, identity, version_at) values ('AC1', 'US1', 'maya', now())";
    sql::execute(app.pool(), insert).await;
    let users = "chat_user where identity = 'maya'";
    assert_eq!(sql::count(app.pool(), users).await, 1);
    stop_at_twilio(&app);
    let erasure = erasures(&app)
        .start(new(maya(), Upstream::Messages))
        .await
        .unwrap();
    app.settle().await;
    let naming = naming_buyer(&sid).with("Attributes", r#"{"for":"maya"}"#);
    app.deliver(&naming.0).await;
    go_on(&app).await;
    assert_eq!(found(&app, &erasure).await.step, Step::Webhooks);
    assert_eq!(sql::count(app.pool(), users).await, 0);
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(found(&app, &erasure).await.state, State::Completed);
}

#[tokio::test]
async fn what_no_account_here_can_delete_is_left_and_told() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    let erasure = erasures(&app)
        .start(new(number(), Upstream::Messages))
        .await
        .unwrap();
    // Another process, asked for something else, keeps its hands off.
    let asked = [
        "--asked-by",
        "the customer",
        "--reason",
        "by letter",
        "--yes",
        "--only-here",
    ];
    let (went_on, output) = command(&app, &[&["--number", BUYER][..], &asked].concat());
    assert!(
        !went_on && output.contains("is running with --upstream messages"),
        "{output}"
    );
    assert_eq!(found(&app, &erasure).await.step, Step::Find);

    let nowhere = config::Twilio {
        accounts: Vec::new(),
        ..app.config.twilio.clone()
    };
    let worker = worker(&app, Accounts::new(&nowhere).unwrap(), BUDGET);
    worker.run_until_idle().await.unwrap();
    let done = found(&app, &erasure).await;
    assert_eq!(done.state, State::Incomplete);
    let left = Left {
        conversation_sid: Some(sid.to_string()),
        sid: None,
        code: "account_not_configured".to_owned(),
    };
    assert_eq!(done.failures, [left]);
    assert_eq!(app.at_twilio(&sid).messages.len(), 3);
}

#[tokio::test]
async fn a_roster_loses_a_whole_number_and_nothing_to_an_identity() {
    let app = TestApp::start().await;
    let group = app.group(Some("maya")).await;
    let longer = format!("{BUYER}9");
    let update = format!("update group_text set roster = '{LINE},{BUYER},{longer}'");
    sql::execute(app.pool(), &update).await;
    let roster = format!(
        "select roster from group_text where group_text_id = '{}'",
        group.group_text_id
    );
    let digits = Subject::Identity("555".parse().unwrap());
    erase(&app, digits, Upstream::None).await;
    let before = format!("{LINE},{BUYER},{longer}");
    assert_eq!(sql::value(app.pool(), &roster).await, Some(before));
    erase(&app, number(), Upstream::None).await;
    let after = sql::value(app.pool(), &roster).await.unwrap();
    let members: Vec<&str> = after.split(',').collect();
    assert_eq!((members[0], members[2]), (LINE, longer.as_str()));
    assert!(members[1].starts_with("erased:"), "{after}");
}

#[tokio::test]
async fn a_run_whose_time_is_up_at_once_gets_further_all_the_same() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    for text in ["One", "Two", "Three", "Four"] {
        app.text(BUYER, &[LINE, PARTNER], text).await;
    }
    app.settle_for(SignedDuration::from_secs(5)).await;
    let erasure = erasures(&app)
        .start(new(number(), Upstream::Messages))
        .await
        .unwrap();
    let worker = worker(&app, app.app.accounts.clone(), Duration::ZERO);
    tokio::time::timeout(Duration::from_mins(1), worker.run_until_idle())
        .await
        .expect("each run deletes something")
        .unwrap();
    assert_eq!(app.at_twilio(&sid).messages.len(), 0);
    app.settle_for(SignedDuration::from_secs(5)).await;
    let done = found(&app, &erasure).await;
    assert_eq!(done.state, State::Completed);
    assert_eq!(done.counts["twilio_messages"], 4);
}

#[tokio::test]
async fn recorded_answers_are_gone_through_in_pages() {
    let app = TestApp::start().await;
    app.group(Some("maya")).await;
    let sql = format!(
        "insert into answer (account_sid, conversation_sid, via, learnt_at, statements)
         select 'AC1', 'CH1', 'rest', now(), jsonb_build_array('{BUYER}') from generate_series(1, 1100)"
    );
    sql::execute(app.pool(), &sql).await;
    let numbers = sql::values(
        app.pool(),
        "select number::text from answer order by answer.number",
    )
    .await;
    let person = Person::new(number(), "erased:1".to_owned());
    let mut tried = app.pool().begin().await.unwrap();
    let page = answers::erase_person(&mut tried, 0, &person, &[], 100, app.clock.now())
        .await
        .unwrap();
    assert_eq!(page.last.map(|last| last.to_string()).as_ref(), numbers.get(99));
    tried.rollback().await.unwrap();
    let done = erase(&app, number(), Upstream::None).await;
    assert!(done.counts["answers"] >= 1100, "{:?}", done.counts);
    assert_eq!(where_named(&app, &["5555550101"]).await, [""; 0]);
}

#[tokio::test]
async fn an_identity_is_found_as_json_escapes_it_too() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let zoe = Subject::Identity("zoë".parse().unwrap());
    let escaped = r#"{"by":"zo\u00eb"}"#;
    let naming = naming_buyer(&sid).with("Body", "Hi").with("Attributes", escaped);
    app.deliver(&naming.0).await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    let written = format!("update conversation set attributes = '{escaped}'");
    sql::execute(app.pool(), &written).await;
    let labelled = format!(
        r"insert into number (number, account_sid, label, kind, mms_capable, enabled, version, created_at, updated_at)
        values ('{LINE}', '{ACCOUNT}', 'of {escaped}', 'long_code', true, true, 1, now(), now())"
    );
    sql::execute(app.pool(), &labelled).await;
    let spellings = [r"zo\u00eb", r"zo\\u00eb", "zo%5Cu00eb"];
    assert!(where_named(&app, &spellings).await.len() >= 3);
    let done = erase(&app, zoe, Upstream::None).await;
    assert_eq!(done.state, State::Completed);
    assert_eq!(where_named(&app, &spellings).await, [""; 0]);
    let version = "number where label is null and version = 2";
    assert_eq!(crate::support::tables::count(&app, version).await, 1);
}
