//! Sealing the log, and finding what was changed afterwards.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

use axum::Json;
use axum::http::StatusCode;
use hookswitch::audit::{Copy, Difference, Sealer, Verified, verify};
use hookswitch::queue::{Handler, Worker};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use super::seal_everything;
use crate::support::app::{BUYER, LINE, PARTNER, TestApp};
use crate::support::{sql, tables};

struct Sealed {
    app: TestApp,
    sealer: Sealer,
    file: PathBuf,
    _directory: tempfile::TempDir,
}

/// A log with some entries under several seals.
async fn sealed() -> Sealed {
    let app = TestApp::start().await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("seals.jsonl");
    let mut settings = app.config.audit.clone();
    settings.seal_batch = 4;
    settings.seal_file = Some(file.clone());
    let sealer = Sealer {
        settings: Arc::new(settings),
        ..app.app.sealer.clone()
    };
    app.group(Some("maya")).await;
    app.text(BUYER, &[LINE, PARTNER], "Is it still there?").await;
    app.settle().await;
    assert!(seal_everything(&sealer).await >= 3);
    Sealed {
        app,
        sealer,
        file,
        _directory: directory,
    }
}

impl Sealed {
    async fn verify(&self) -> Result<Verified, Difference> {
        verify(self.app.pool(), None, 1).await.unwrap()
    }

    async fn verify_against_the_file(&self) -> Result<Verified, Difference> {
        let copy = Copy::open(&self.file).unwrap();
        verify(self.app.pool(), Some(copy), 1).await.unwrap()
    }

    /// The place of the `n`th entry, as SQL compares it.
    async fn entry(&self, n: usize) -> String {
        let sql = format!(
            "select format('(commit_xid, event_id) = (%s, %s)', commit_xid, event_id) from event
            order by commit_xid, event_id offset {n} limit 1"
        );
        sql::value(self.app.pool(), &sql).await.unwrap()
    }

    /// As somebody who owns the database, and means harm.
    async fn tamper(&self, sql: &str) {
        tables::execute(&self.app, sql).await;
    }

    /// Makes all seals anew, as somebody does who has changed the log.
    async fn seal_anew(&self) {
        self.tamper("truncate seal").await;
        let mut settings = self.app.config.audit.clone();
        settings.seal_batch = 4;
        let sealer = Sealer {
            settings: Arc::new(settings),
            ..self.sealer.clone()
        };
        seal_everything(&sealer).await;
    }
}

#[tokio::test]
async fn an_untouched_log_is_as_it_was_sealed() {
    let log = sealed().await;
    let entries = sql::count(log.app.pool(), "event").await;
    let verified = log.verify().await.unwrap();
    assert_eq!(usize::try_from(verified.entries).unwrap(), entries);
    assert_eq!((verified.unsealed, verified.erased), (0, 0));
    assert_eq!(log.verify_against_the_file().await, Ok(verified));
    assert_eq!(log.sealer.seal_all().await.unwrap(), 0, "nothing new, no seal");

    log.app.text(BUYER, &[LINE, PARTNER], "Hello?").await;
    log.app.settle().await;
    assert!(log.verify().await.unwrap().unsealed > 0);
    seal_everything(&log.sealer).await;
    assert_eq!(log.verify_against_the_file().await.unwrap().unsealed, 0);
}

#[tokio::test]
async fn the_first_entry_that_differs_is_named() {
    let log = sealed().await;
    let fifth = log.entry(5).await;
    let kind = sql::value(log.app.pool(), &format!("select type from event where {fifth}"))
        .await
        .unwrap();
    log.tamper(&format!("update event set data = '{{}}' where {fifth}"))
        .await;
    let found = log.verify().await.unwrap_err();
    assert!(
        matches!(&found, Difference::Altered { seal: 2, kind: of, .. } if *of == kind),
        "{found:?}"
    );
}

#[tokio::test]
async fn an_entry_that_is_missing_or_added_is_named() {
    let log = sealed().await;
    log.tamper(
        "insert into event (commit_xid, type, subject, via, occurred_at, recorded_at, data)
        select commit_xid, 'send.sent', 'x', 'api', now(), now(), '{}' from event order by commit_xid, event_id limit 1",
    )
    .await;
    let found = log.verify().await.unwrap_err();
    assert!(
        matches!(&found, Difference::Extra { kind, .. } if kind == "send.sent"),
        "{found:?}"
    );
    log.tamper("delete from event where subject = 'x'").await;
    log.verify().await.unwrap();

    let sixth = log.entry(6).await;
    log.tamper(&format!("delete from event where {sixth}")).await;
    let found = log.verify().await.unwrap_err();
    assert!(matches!(found, Difference::Missing { seal: 2, .. }), "{found:?}");
}

#[tokio::test]
async fn seals_made_anew_are_caught_by_the_copy_outside() {
    let log = sealed().await;
    let fifth = log.entry(5).await;
    log.tamper(&format!("update event set actor = 'somebody' where {fifth}"))
        .await;
    log.seal_anew().await;
    log.verify()
        .await
        .expect("by itself the database looks as it should");
    let found = log.verify_against_the_file().await.unwrap_err();
    // Times of sealing differ from the first seal on, whose entries are as they were: it is the entry that is named.
    let Difference::Altered {
        seal: 2, position, ..
    } = found
    else {
        panic!("{found:?}");
    };
    let place = format!(
        "(commit_xid, event_id) = ({}, {})",
        position.commit_xid, position.event_id
    );
    assert_eq!(place, fifth);

    let log = sealed().await;
    log.seal_anew().await;
    let found = log.verify_against_the_file().await.unwrap_err();
    assert_eq!(found, Difference::SealAltered(1), "no entry differs");

    let log = sealed().await;
    log.tamper("delete from seal where seal_number = (select max(seal_number) from seal)")
        .await;
    log.verify().await.expect("the end is not missed from inside");
    let found = log.verify_against_the_file().await.unwrap_err();
    assert!(matches!(found, Difference::SealMissing(_)), "{found:?}");

    let log = sealed().await;
    log.tamper("update seal set sealed_at = sealed_at + interval '1 second' where seal_number = 2")
        .await;
    assert_eq!(log.verify().await, Err(Difference::SealAltered(2)));
    log.tamper("delete from seal where seal_number = 2").await;
    assert_eq!(log.verify().await, Err(Difference::SealMissing(2)));
}

#[tokio::test]
async fn what_is_erased_by_the_rules_stays_provable() {
    let log = sealed().await;
    let before = log.verify().await.unwrap();
    let fifth = log.entry(5).await;
    for fields in ["{data}", "{actor,cause}", "{data}"] {
        let erase =
            format!("select erase_from_log(commit_xid, event_id, '{fields}') from event where {fifth}");
        // The service's own role may do this, and nothing else to the log.
        sql::execute(log.app.pool(), &erase).await;
        let after = log.verify().await.unwrap();
        assert_eq!((after.entries, after.erased), (before.entries, 1));
    }
    let left = sql::value(
        log.app.pool(),
        &format!("select concat_ws(' ', data, actor, cause, salt) from event where {fifth}"),
    )
    .await;
    assert_eq!(left.as_deref(), Some(r#"{"erased":true}"#));
    log.tamper(&format!("update event set subject = 'other' where {fifth}"))
        .await;
    assert!(matches!(log.verify().await, Err(Difference::Altered { .. })));
}

#[tokio::test]
async fn the_service_adds_to_the_log_and_cannot_change_it() {
    let log = sealed().await;
    let role = sql::value(log.app.pool(), "select current_user::text").await;
    assert_eq!(role.as_deref(), Some("hookswitch_app"));
    for refused in [
        "update event set data = '{}'",
        "delete from event",
        "truncate event",
        "update seal set entries = 1",
        "delete from seal",
        "truncate seal",
        "set hookswitch.change_log = 'yes'; delete from event",
        "alter table event disable trigger all",
        "drop table seal",
    ] {
        let error = sqlx::raw_sql(refused).execute(log.app.pool()).await.unwrap_err();
        let code = error
            .as_database_error()
            .and_then(sqlx::error::DatabaseError::code);
        assert_eq!(code.as_deref(), Some("42501"), "{refused}");
    }
    // The owner too has to say that it means it.
    let mut owner = PgConnection::connect_with(&log.app.database.options)
        .await
        .unwrap();
    for refused in [
        "update event set data = '{}'",
        "delete from event",
        "truncate event, seal",
    ] {
        let error = sqlx::raw_sql(AssertSqlSafe(refused.to_owned()))
            .execute(&mut owner)
            .await
            .unwrap_err();
        assert!(error.to_string().contains("written once"), "{refused}: {error}");
    }
    log.verify().await.unwrap();
}

#[tokio::test]
async fn two_replicas_do_not_fork_the_chain() {
    let log = sealed().await;
    for n in 0..5 {
        log.app.text(BUYER, &[LINE, PARTNER], &format!("{n}")).await;
    }
    log.app.settle().await;
    let (one, other) = (log.sealer.clone(), log.sealer.clone());
    let (one, other) = tokio::join!(one.seal_all(), other.seal_all());
    let at_once = one.unwrap() + other.unwrap();
    assert!(at_once + seal_everything(&log.sealer).await > 0);
    let verified = log.verify_against_the_file().await.unwrap();
    assert_eq!(verified.unsealed, 0);
    assert_eq!(lines(&log.file), usize::try_from(verified.seals).unwrap());
}

fn lines(file: &Path) -> usize {
    std::fs::read_to_string(file).unwrap().lines().count()
}

#[tokio::test]
async fn seals_are_posted_outside_until_they_are_taken() {
    let taken: Arc<Mutex<Vec<Value>>> = Arc::default();
    let refusals = Arc::new(Mutex::new(1));
    let receiver = axum::Router::new().route(
        "/seals",
        axum::routing::post({
            let taken = Arc::clone(&taken);
            move |Json(seal): Json<Value>| async move {
                let mut left = refusals.lock().unwrap();
                if *left > 0 {
                    *left -= 1;
                    return StatusCode::SERVICE_UNAVAILABLE;
                }
                taken.lock().unwrap().push(seal);
                StatusCode::NO_CONTENT
            }
        }),
    );
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/seals", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, receiver).await });

    let log = sealed().await;
    let mut settings = (*log.sealer.settings).clone();
    settings.seal_url = Some(url.parse().unwrap());
    let settings = Arc::new(settings);
    let sealer = Sealer {
        settings: Arc::clone(&settings),
        ..log.sealer.clone()
    };
    log.app.text(BUYER, &[LINE, PARTNER], "Hello?").await;
    log.app.sandbox.settled().await;
    log.app.app.projector.run_until_idle().await.unwrap();
    seal_everything(&sealer).await;
    let post: Arc<dyn Handler> = Arc::new(hookswitch::audit::Post::new(
        log.app.pool().clone(),
        Arc::clone(&settings),
    ));
    let worker = Worker::new(
        log.app.pool().clone(),
        log.app.clock.clone(),
        vec![(hookswitch::audit::POST_TASK, post)],
        hookswitch::queue::Settings::default(),
    );
    worker.run_until_idle().await.unwrap();
    assert!(taken.lock().unwrap().is_empty());
    log.app.clock.advance(jiff::SignedDuration::from_mins(5));
    worker.run_until_idle().await.unwrap();
    let in_file = std::fs::read_to_string(&log.file).unwrap();
    let last: Value = serde_json::from_str(in_file.lines().last().unwrap()).unwrap();
    assert_eq!(taken.lock().unwrap().last(), Some(&last));
}

/// Runs `hookswitch audit` on the test's database.
fn command(log: &Sealed, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hookswitch"))
        .arg("audit")
        .args(arguments)
        .env("DATABASE_URL", log.app.database.url().expose_secret())
        .env_remove("HOOKSWITCH_CONFIG")
        .output()
        .unwrap();
    let said = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn the_log_is_checked_and_exported_on_the_command_line() {
    let log = sealed().await;
    let file = log.file.to_str().unwrap();
    let (sealed, said) = command(&log, &["seal"]);
    assert!(sealed, "{said}");
    for arguments in [
        &["verify"][..],
        &["verify", "--against", file],
        &["verify", "--from", "2"],
    ] {
        let (good, said) = command(&log, arguments);
        assert!(good && said.contains("are as they were sealed"), "{said}");
    }
    let (good, said) = command(&log, &["verify", "--from", "1000"]);
    assert!(!good && said.contains("there is no seal 999"), "{said}");

    let entries = sql::count(log.app.pool(), "event").await;
    let (exported, lines) = command(&log, &["export"]);
    assert!(exported && lines.lines().count() == entries, "{lines}");
    let first: Value = serde_json::from_str(lines.lines().next().unwrap()).unwrap();
    assert_eq!(first["erased"], false);
    assert!(first.get("salt").is_none());
    let (_, none) = command(&log, &["export", "--until", "2020-01-01T00:00:00Z"]);
    assert_eq!(none, "");

    let third = log.entry(2).await;
    log.tamper(&format!(
        "update event set data = '{{\"to\":\"secret\"}}' where {third}"
    ))
    .await;
    let (good, said) = command(&log, &["verify"]);
    assert!(
        !good && said.contains("the log was changed: entry 0") && said.contains("is not what was sealed"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
}

#[tokio::test]
async fn the_copy_outside_is_not_mixed_with_another_chain() {
    let log = sealed().await;
    let before = std::fs::read(&log.file).unwrap();
    log.seal_anew().await;
    let refused = log.sealer.seal_all().await.unwrap_err();
    assert!(
        refused.to_string().contains("the file ends with seal"),
        "{refused}"
    );
    assert_eq!(std::fs::read(&log.file).unwrap(), before);
}

#[tokio::test]
async fn a_role_that_was_made_later_reads_the_views_of_the_schema() {
    let app = TestApp::start().await;
    let may = "select has_table_privilege('hookswitch_app', 'webhook_state', 'select')::text";
    tables::execute(&app, "revoke select on webhook_state from hookswitch_app").await;
    assert_eq!(sql::value(app.pool(), may).await.as_deref(), Some("false"));
    tables::execute(&app, "select ensure_app_role()").await;
    assert_eq!(sql::value(app.pool(), may).await.as_deref(), Some("true"));
    let auditor =
        "select has_function_privilege('hookswitch_audit', 'next_statement_number()', 'execute')::text";
    assert_eq!(sql::value(app.pool(), auditor).await.as_deref(), Some("false"));
}
