//! Erasing a person: at Twilio, and here wherever they are named; it stays so, and the record stays whole.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use hookswitch::api::auth::{self, Scope};
use hookswitch::audit::verify;
use hookswitch::erasure::{self, Erasure, Erasures, NewErasure, StartError, State, Upstream};
use hookswitch::events::Via;
use hookswitch::ids::ConversationSid;
use hookswitch::outbox::NewOutboundMessage;
use hookswitch::people::hours::{Holidays, Week};
use hookswitch::people::{self, Actor, NewAvailability, Profile, Status, TeamPlan};
use hookswitch::person::Subject;
use hookswitch::retention;
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::sweep::Found;
use hookswitch::transfer::{Kind, NewTransfer, Turn};
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::ConversationUpdate;
use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Row as _};

use crate::audit::seal_everything;
use crate::support::app::{BUYER, LINE, PARTNER, TestApp, http, sid_of};
use crate::support::sql;

const WORDS: &str = "Is it still there?";
const REPLY: &str = "It is, until Friday.";
const NAME: &str = "M. Lopez";
const AWAY: &str = "at the dentist's";
const INTRODUCTION: &str = "I take care of you from now on.";
/// Why somebody else had the line taken from her.
const WHY: &str = "the client asked for somebody who listens";

pub(crate) fn number() -> Subject {
    Subject::Number(BUYER.parse().unwrap())
}

pub(crate) fn maya() -> Subject {
    Subject::Identity("maya".parse().unwrap())
}

pub(crate) fn new(subject: Subject, upstream: Upstream) -> NewErasure {
    NewErasure {
        subject,
        upstream,
        asked_by: "the person, by letter".to_owned(),
        reason: "right to erasure".to_owned(),
        requested_by: "cli".to_owned(),
        via: Via::Cli,
    }
}

pub(crate) fn erasures(app: &TestApp) -> &Erasures {
    &app.app.api.erasures
}

pub(crate) async fn found(app: &TestApp, erasure: &Erasure) -> Erasure {
    erasure::find(&mut *app.conn().await, erasure.erasure_id)
        .await
        .unwrap()
        .unwrap()
}

pub(crate) async fn erase(app: &TestApp, subject: Subject, upstream: Upstream) -> Erasure {
    let erasure = erasures(app).start(new(subject, upstream)).await.unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
    found(app, &erasure).await
}

/// A group in which the buyer wrote and edited, maya answered, and which is then noor's; of noor it was offered to others.
pub(crate) async fn story(app: &TestApp) -> ConversationSid {
    let sid = sid_of(&app.group(Some("maya")).await);
    app.text(BUYER, &[LINE, PARTNER], "Is it thre?").await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    let message = app.at_twilio(&sid).messages[0].sid.clone();
    let update = hookswitch::twilio::requests::MessageUpdate {
        body: Some(WORDS.into()),
        ..Default::default()
    };
    let client = &app.account().client;
    client.update_message(&sid, &message, &update).await.unwrap();
    app.text(PARTNER, &[LINE, BUYER], "I'd like to know too.").await;
    let send = NewOutboundMessage {
        conversation_sid: sid.clone(),
        line: None,
        as_holder: None,
        body: REPLY.to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    };
    app.app.api.outbox.send(send).await.unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
    app.start_transfer(&sid, Kind::Cold, "noor").await;
    for _ in 0..3 {
        app.settle_for(SignedDuration::from_secs(5)).await;
    }
    assert_eq!(app.holders(&sid).await.last().unwrap().as_deref(), Some("noor"));
    our_people(app).await;
    offered_to_lena_and_maya(app, &sid).await;
    sid
}

/// Maya has a name, supervises noor, is on call, and said when others are away; so was said of her.
async fn our_people(app: &TestApp) {
    let mut conn = app.conn().await;
    let now = app.clock.now();
    let by = Actor {
        name: "crm".to_owned(),
        via: Via::Api,
        cause: None,
    };
    for (identity, name, supervisor) in [
        ("maya", NAME, None),
        ("noor", "Noor", Some("maya")),
        ("lena", "Lena", Some("noor")),
    ] {
        let profile = Profile {
            name: name.to_owned(),
            team: None,
            supervisor: supervisor.map(|one| one.parse().unwrap()),
            backup: None,
            skills: BTreeSet::new(),
            capacity: None,
            left_at: None,
        };
        people::put_agent(&mut conn, &identity.parse().unwrap(), profile, None, &by, now)
            .await
            .unwrap();
    }
    for (identity, reason) in [("maya", AWAY), ("lena", "call +15555550101")] {
        let away = NewAvailability {
            status: Status::Away,
            reason: Some(reason.to_owned()),
            until: None,
            by: Some("maya".parse().unwrap()),
        };
        people::set_availability(&mut conn, &identity.parse().unwrap(), away, &by, now)
            .await
            .unwrap();
        let back = NewAvailability {
            status: Status::Available,
            reason: None,
            until: None,
            by: Some("maya".parse().unwrap()),
        };
        if identity == "lena" {
            people::set_availability(&mut conn, &identity.parse().unwrap(), back, &by, now)
                .await
                .unwrap();
        }
    }
    let plan = TeamPlan {
        name: "East".to_owned(),
        time_zone: "America/New_York".parse().unwrap(),
        hours: Week::default(),
        holidays: Holidays::default(),
        on_call: vec!["maya".parse().unwrap(), "noor".parse().unwrap()],
        rotation: None,
    };
    people::put_team(&mut conn, &"east".parse().unwrap(), plan, None, &by, now)
        .await
        .unwrap();
}

/// Nobody on the list took it.
async fn offered_to_lena_and_maya(app: &TestApp, sid: &ConversationSid) {
    let new = NewTransfer {
        then: vec![Turn {
            to: "zoe".parse().unwrap(),
            offer_timeout: None,
        }],
        reason: Some(format!("as {BUYER} asked")),
        note: Some(r#"{"known to":"maya"}"#.to_owned()),
        introduction: Some(INTRODUCTION.to_owned()),
        ..TestApp::new_transfer(sid, Kind::Warm, "lena")
    };
    let offered = app.app.api.transfers.start(new).await.unwrap();
    let id = offered.transfer_id;
    app.app.api.transfers.decline(id, "lena").await.unwrap();
    app.app.api.transfers.decline(id, "zoe").await.unwrap();
    // As if maya had been there in zoe's place, on a line that somebody forced before, answered for by a supervisor.
    let as_maya = format!(
        "update transfer_candidate set identity = 'maya', answered_by = 'maya', reason = 'for \"maya\" and {BUYER}'
         where transfer_id = '{id}' and identity = 'zoe';
         update transfer set to_holder = 'maya', decided_as = 'maya', displaced = array['maya', null],
            waiting_for = 'twilio', waiting_error = 'not \"maya\", {BUYER}', waiting_since = now()
         where transfer_id = '{id}';
         update transfer set requested_by = 'noor', note = '{WHY}', reason = '{WHY}' where from_holder = 'maya';"
    );
    sql::execute(app.pool(), &as_maya).await;
}

async fn close(app: &TestApp, sid: &ConversationSid) {
    let update = ConversationUpdate {
        state: Some(ConversationState::Closed),
        ..ConversationUpdate::default()
    };
    app.account()
        .client
        .update_conversation(sid, &update)
        .await
        .unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
}

/// Every column of every table that holds one of these texts, in whatever spelling.
pub(crate) async fn where_named(app: &TestApp, texts: &[&str]) -> Vec<String> {
    let columns = sql::values(
        app.pool(),
        "select format('%I.%I %s', table_name, column_name, data_type)
        from information_schema.columns join information_schema.tables using (table_schema, table_name)
        where table_schema = 'public' and table_type = 'BASE TABLE' and table_name <> '_sqlx_migrations'
          and data_type in ('text', 'character varying', 'json', 'jsonb', 'bytea', 'ARRAY', 'name', '\"char\"')
        order by 1",
    )
    .await;
    assert!(columns.len() > 120, "all of them: {}", columns.len());
    let mut named = Vec::new();
    for column in columns {
        let (name, kind) = column.split_once(' ').unwrap();
        let (table, of_table) = name.split_once('.').unwrap();
        for text in texts {
            let text = text.replace('\'', "''");
            let says = match kind {
                "bytea" => format!("position(convert_to('{text}', 'UTF8') in {of_table}) > 0"),
                _ => format!("position('{text}' in {of_table}::text) > 0"),
            };
            let sql = format!("select count(*) from {table} where {says}");
            let row = sqlx::raw_sql(AssertSqlSafe(sql))
                .fetch_one(app.pool())
                .await
                .unwrap();
            let rows: i64 = row.get(0);
            if rows > 0 {
                named.push(format!("{name}: {rows} with {text}"));
            }
        }
    }
    named
}

/// As they stand in columns, in forms and in JSON.
pub(crate) const OF_BUYER: &[&str] = &[
    "5555550101",
    WORDS,
    "Is+it+still",
    "Is%20it%20still",
    "Is it thre",
    "Is+it+thre",
];
pub(crate) const OF_MAYA: &[&str] = &[
    "maya",
    REPLY,
    "It+is%2C",
    "It%20is%2C",
    NAME,
    AWAY,
    INTRODUCTION,
    WHY,
];

async fn swept(app: &TestApp) {
    let run = app
        .app
        .sweeper
        .sweep(app.account(), true, &mut |_| {})
        .await
        .unwrap();
    assert_eq!((run.found, run.failed, run.unsettled), (Found::default(), 0, 0));
}

async fn assert_provable(app: &TestApp) {
    seal_everything(&app.app.sealer).await;
    verify(app.pool(), None, 1).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_customer_is_named_nowhere_after_it_and_nothing_else_is_lost() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    close(&app, &sid).await;
    seal_everything(&app.app.sealer).await;
    assert!(!where_named(&app, OF_BUYER).await.is_empty());
    let preview = erasures(&app).preview(&number()).await.unwrap();
    assert_eq!(preview.conversations, [sid.to_string()]);
    assert!(!where_named(&app, OF_BUYER).await.is_empty(), "only counted");

    let done = erase(&app, number(), Upstream::Messages).await;
    // Twilio changes nothing about the members of what is closed, which is told.
    assert_eq!((done.state, &done.held), (State::Incomplete, &vec![]));
    assert_eq!(done.failures.len(), 1);
    assert_eq!(done.failures[0].code, "50377");
    assert_eq!(done.conversations, [sid.to_string()]);
    assert_eq!(done.counts["twilio_messages"], 1);
    assert_eq!(done.counts["webhooks"], preview.counts["webhooks"]);
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);

    // At Twilio what they wrote is gone, and what others wrote is not; here too.
    let left = app.at_twilio(&sid);
    assert!(left.messages.iter().all(|one| one.author != BUYER));
    assert_eq!(left.messages.len(), 2);
    let others = format!("message where body in ('I''d like to know too.', '{REPLY}') and erased_at is null");
    assert_eq!(sql::count(app.pool(), &others).await, 2);
    let pseudonyms = sql::values(
        app.pool(),
        "select author from message where erased_at is not null
        union select address from participant where erased ? 'address'",
    )
    .await;
    assert_eq!(pseudonyms.len(), 1, "one pseudonym everywhere: {pseudonyms:?}");
    assert!(pseudonyms[0].starts_with("erased:"));

    swept(&app).await;
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);
    assert_provable(&app).await;
    let told = sql::values(
        app.pool(),
        "select type || ' ' || (data::jsonb ->> 'state') from event where type like 'erasure.%' order by event_id",
    )
    .await;
    assert_eq!(told, ["erasure.requested running", "erasure.finished incomplete"]);
}

#[tokio::test]
async fn one_of_ours_gives_way_to_a_pseudonym_and_the_ledger_stays_whole() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    let shape =
        "select concat_ws('|', line, during, cause, superseded_at, holder = 'noor') from tenure order by 1";
    let before = sql::values(app.pool(), shape).await;
    seal_everything(&app.app.sealer).await;

    let done = erase(&app, maya(), Upstream::Messages).await;
    assert_eq!((done.state, &done.failures), (State::Completed, &vec![]));
    assert_eq!(done.counts["twilio_users"], 1);
    assert_eq!(where_named(&app, OF_MAYA).await, [""; 0]);
    assert_eq!(sql::values(app.pool(), shape).await, before);
    let holders = app.holders(&sid).await;
    assert_eq!(holders.len(), 2);
    let pseudonym = holders[0].clone().unwrap();
    assert!(pseudonym.starts_with("erased:"), "{pseudonym}");
    assert_eq!(holders[1].as_deref(), Some("noor"));
    let then = format!(
        "participant_as_of('{sid}', (select max(upper(during)) - interval '1 millisecond' from tenure), 'infinity')
         where identity = '{pseudonym}'"
    );
    assert_eq!(sql::count(app.pool(), &then).await, 1);

    // Who left is not given a line, and everybody whom they supervised has a supervisor still.
    let left = format!("agent where identity = '{pseudonym}' and left_at is not null and name = identity");
    assert_eq!(sql::count(app.pool(), &left).await, 1);
    let under = format!("agent where identity = 'noor' and supervisor = '{pseudonym}'");
    assert_eq!(sql::count(app.pool(), &under).await, 1);
    let on_call = "select identity from team_on_call order by place";
    assert_eq!(
        sql::values(app.pool(), on_call).await,
        [pseudonym.as_str(), "noor"]
    );

    // The ledger is derived anew from what is kept, and comes to the same.
    app.start_transfer(&sid, Kind::Cold, "lena").await;
    for _ in 0..3 {
        app.settle_for(SignedDuration::from_secs(5)).await;
    }
    let holders = app.holders(&sid).await;
    assert_eq!(
        holders
            .iter()
            .map(|one| one.as_deref().unwrap())
            .collect::<Vec<_>>(),
        [pseudonym.as_str(), "noor", "lena"]
    );
    swept(&app).await;
    assert_eq!(where_named(&app, OF_MAYA).await, [""; 0]);
    assert_provable(&app).await;
}

#[tokio::test]
async fn only_here_leaves_twilio_alone_and_no_sweep_or_webhook_reads_it_back() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    let done = erase(&app, number(), Upstream::None).await;
    assert_eq!(done.state, State::Completed);
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);
    assert_eq!(app.at_twilio(&sid).messages.len(), 3, "all is there still");
    swept(&app).await;
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);

    // What they write from now on is new, and kept.
    app.text(BUYER, &[LINE, PARTNER], "I am back.").await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    let back = format!("message where author = '{BUYER}' and body = 'I am back.'");
    assert_eq!(sql::count(app.pool(), &back).await, 1);
    assert_eq!(
        sql::count(app.pool(), &format!("participant where address = '{BUYER}'")).await,
        0
    );
    swept(&app).await;
    let again = erase(&app, number(), Upstream::None).await;
    assert_eq!(again.state, State::Completed);
    assert_eq!(where_named(&app, &["5555550101", "I am back"]).await, [""; 0]);
}

#[tokio::test]
async fn a_closed_conversation_goes_whole_where_that_is_asked_for() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    close(&app, &sid).await;
    let done = erase(&app, number(), Upstream::Conversations).await;
    assert_eq!((done.state, &done.failures), (State::Completed, &vec![]));
    assert_eq!(done.counts["twilio_conversations"], 1);
    assert!(app.sandbox.conversations().iter().all(|one| one.sid != sid));
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);
    // What others wrote stays here.
    let others = format!("message where body in ('I''d like to know too.', '{REPLY}')");
    assert_eq!(sql::count(app.pool(), &others).await, 2);
    swept(&app).await;
}

#[tokio::test]
async fn an_open_group_keeps_its_member_unless_told_otherwise() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    let member = |app: &TestApp| {
        app.at_twilio(&sid).participants.iter().any(|one| {
            one.address
                .as_ref()
                .is_some_and(|address| address.as_str() == BUYER)
        })
    };
    let done = erase(&app, number(), Upstream::Messages).await;
    assert_eq!(done.counts["twilio_participants_left_in_open_conversations"], 1);
    assert!(member(&app));
    let done = erase(&app, number(), Upstream::Participants).await;
    assert_eq!(done.counts["twilio_participants"], 1);
    assert!(!member(&app));
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);
}

#[tokio::test]
async fn legal_hold_wins_and_is_named() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    let mut conn = app.conn().await;
    let now = app.clock.now();
    retention::hold(&mut conn, &sid, "case 17", "legal", Via::Cli, now)
        .await
        .unwrap();
    drop(conn);
    let before = where_named(&app, OF_BUYER).await;
    let done = erase(&app, number(), Upstream::Participants).await;
    assert_eq!(done.state, State::Incomplete);
    assert_eq!(done.held, [sid.to_string()]);
    assert_eq!(app.at_twilio(&sid).messages.len(), 3);
    assert_eq!(
        where_named(&app, OF_BUYER).await,
        before,
        "all of it is of the conversation"
    );
    let kept = sql::value(
        app.pool(),
        "select concat(subject, '|', (select count(*) from task where kind = 'erasure.run')) from erasure",
    );
    assert_eq!(kept.await.as_deref(), Some("|0"), "whom it meant is forgotten");
}

#[tokio::test]
async fn what_is_needed_still_is_not_erased() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let refused = erasures(&app).start(new(maya(), Upstream::None)).await;
    assert!(matches!(refused, Err(StartError::HoldsLines(sids)) if sids == [sid.to_string()]));
    let line = Subject::Number(LINE.parse().unwrap());
    let refused = erasures(&app).start(new(line, Upstream::None)).await;
    assert!(matches!(refused, Err(StartError::OurNumber)));
    app.start_transfer(&sid, Kind::Warm, "noor").await;
    let noor = Subject::Identity("noor".parse().unwrap());
    let refused = erasures(&app).start(new(noor, Upstream::None)).await;
    assert!(matches!(refused, Err(StartError::AtWork)));
}

#[tokio::test]
async fn what_fails_at_twilio_is_tried_again_until_it_is_done() {
    let app = TestApp::start().await;
    story(&app).await;
    let fault = |status: u16, times: u32| Faults {
        rest: vec![RestFault {
            method: Some("DELETE".to_owned()),
            path: None,
            status: Some(status),
            effect: Effect::default(),
            hold_ms: 0,
            probability: 1.0,
            times: Some(times),
        }],
        ..Faults::default()
    };
    app.sandbox.set_faults(fault(503, 40)).unwrap();
    let erasure = erasures(&app)
        .start(new(number(), Upstream::Messages))
        .await
        .unwrap();
    app.settle().await;
    assert_eq!(found(&app, &erasure).await.state, State::Running);
    assert_eq!(found(&app, &erasure).await.step, erasure::Step::Twilio);
    app.sandbox.set_faults(Faults::default()).unwrap();
    for _ in 0..12 {
        app.settle_for(SignedDuration::from_mins(5)).await;
    }
    assert_eq!(found(&app, &erasure).await.state, State::Completed);
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);
}

#[tokio::test]
async fn a_run_that_is_cut_anywhere_is_gone_on_with() {
    let app = TestApp::start().await;
    story(&app).await;
    let erasure = erasures(&app)
        .start(new(number(), Upstream::Messages))
        .await
        .unwrap();
    let mut cuts = 0;
    for millis in (1..).map(|round: u64| 15 * round) {
        let process = app.restarted();
        let run = process.worker.run_until_idle();
        if tokio::time::timeout(Duration::from_millis(millis), run)
            .await
            .is_err()
        {
            cuts += 1;
        }
        // The lease of a process that died runs out.
        app.advance(SignedDuration::from_secs(30));
        app.app.projector.run_until_idle().await.unwrap();
        if found(&app, &erasure).await.state != State::Running {
            break;
        }
    }
    assert!(cuts >= 3, "{cuts}");
    app.settle_for(SignedDuration::from_secs(5)).await;
    let done = found(&app, &erasure).await;
    assert_eq!((done.state, &done.failures), (State::Completed, &vec![]));
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);
    swept(&app).await;
    assert_provable(&app).await;
}

#[tokio::test]
async fn readings_of_the_past_answer_and_say_what_was_erased() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    let then = app.clock.now();
    app.advance(SignedDuration::from_mins(5));
    erase(&app, number(), Upstream::None).await;
    let mut conn = app.conn().await;
    let key = auth::create(&mut conn, "test", &[Scope::Admin], app.clock.now())
        .await
        .unwrap();
    drop(conn);
    let get = async |path: &str| -> Value {
        let url = if path.starts_with('/') {
            format!("{}{path}", app.url)
        } else {
            format!("{}/v1/conversations/{sid}/{path}", app.url)
        };
        let answer = http()
            .get(url)
            .bearer_auth(key.key.expose_secret())
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    };
    for path in [
        "messages".to_owned(),
        format!("messages?as_of={then}"),
        format!("messages?as_of={then}&known_at={then}"),
    ] {
        let page = get(&path).await;
        let items = page["items"].as_array().unwrap();
        assert_eq!(items.len(), 3, "{path}");
        let erased: Vec<&Value> = items.iter().filter(|one| !one["erased_at"].is_null()).collect();
        assert_eq!(erased.len(), 1, "{path}");
        assert!(erased[0]["body"].is_null());
        assert!(erased[0]["author"].as_str().unwrap().starts_with("erased:"));
    }
    for path in [
        "participants".to_owned(),
        format!("participants?as_of={then}"),
        format!("timeline?as_of={then}"),
        "timeline".to_owned(),
    ] {
        let page = get(&path).await;
        assert!(page.to_string().contains("erased_at"), "{path}");
        assert!(!page.to_string().contains(BUYER), "{path}");
    }
    erase(&app, maya(), Upstream::None).await;
    let lines = format!("/v1/lines/{}/tenures", LINE.replace('+', "%2B"));
    for path in [
        "/v1/group-texts",
        "/v1/transfers",
        "/v1/conversations",
        "/v1/events",
        "/v1/health/lines",
        "/v1/erasures",
        lines.as_str(),
        "sends",
        "timeline",
        "versions",
    ] {
        let answer = get(path).await.to_string();
        assert!(
            !answer.contains(BUYER) && !answer.contains("maya"),
            "{path}: {answer}"
        );
    }
}

/// Runs `hookswitch erase` on the test's database, with no account of Twilio's.
pub(crate) fn command(app: &TestApp, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hookswitch"))
        .arg("erase")
        .args(arguments)
        .env("DATABASE_URL", app.database.url().expose_secret())
        .env_remove("HOOKSWITCH_CONFIG")
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_command_line_counts_first_and_erases_when_told_to() {
    let app = TestApp::start().await;
    let sid = story(&app).await;
    let whom = ["--number", BUYER];
    let (counted, output) = command(&app, &[&whom[..], &["--dry-run"]].concat());
    assert!(counted, "{output}");
    assert!(
        output.contains(sid.as_str()) && output.contains("messages_written: 1 would be erased"),
        "{output}"
    );
    let told = [
        "--only-here",
        "--asked-by",
        "the customer",
        "--reason",
        "by letter",
    ];
    let (unsure, output) = command(&app, &[&whom[..], &told].concat());
    assert!(!unsure && output.contains("repeat it with --yes"), "{output}");
    assert!(
        !where_named(&app, OF_BUYER).await.is_empty(),
        "only counted so far"
    );
    let (asked, output) = command(&app, &[&whom[..], &["--yes"]].concat());
    assert!(!asked && output.contains("--asked-by"), "{output}");
    let (erased, output) = command(&app, &[&whom[..], &told, &["--yes"]].concat());
    assert!(erased && output.contains("is completed"), "{output}");
    assert!(!output.contains("5555550101"), "{output}");
    assert_eq!(where_named(&app, OF_BUYER).await, [""; 0]);
    let (held, output) = command(&app, &["--identity", "noor", "--dry-run"]);
    assert!(
        !held && output.contains("holds lines") && output.contains(sid.as_str()),
        "{output}"
    );
}
