//! On the command line.

use std::path::PathBuf;
use std::process::Command;

use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ask, later, policy, set, slow_answer, staffed, step, told};
use crate::support::app::{LINE, TestApp};
use crate::support::tables;

/// What a command printed, and whether it succeeded.
async fn run(app: &TestApp, args: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookswitch"));
    command.arg("escalation").args(args);
    command
        .env("DATABASE_URL", app.database.url().expose_secret())
        .env_remove("HOOKSWITCH_CONFIG");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let mut text = String::from_utf8(output.stdout).unwrap();
    if !output.status.success() {
        text += &String::from_utf8(output.stderr).unwrap();
    }
    (output.status.success(), text)
}

fn file(dir: &TempDir, document: &Value) -> String {
    let path: PathBuf = dir.path().join("policy.json");
    std::fs::write(&path, document.to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

/// A command goes by the machine's clock, of which a test's is ahead: what happened is put two hours back.
async fn earlier(app: &TestApp) {
    tables::execute(
        app,
        "update message set created_at = created_at - interval '2 hours';
        update tenure set during = tstzrange(lower(during) - interval '3 hours', null);
        update conversation set first_seen_at = first_seen_at - interval '3 hours'",
    )
    .await;
}

#[tokio::test]
async fn policies_are_checked_set_tried_and_removed() {
    let (app, sid) = staffed().await;
    let dir = tempfile::tempdir().unwrap();
    let wrong = json!({ "name": "x", "rules": [{ "name": "a", "when": "never", "steps": [] }] });
    let (ok, text) = run(&app, &["put", "all", &file(&dir, &wrong), "--dry-run"]).await;
    assert!(!ok);
    assert!(
        text.contains("/rules/0/when: expected") && text.contains("/rules/0/steps: expected 1 to 20 items"),
        "{text}"
    );
    assert!(text.contains("2 places are wrong; nothing was changed"), "{text}");

    let path = file(&dir, &slow_answer());
    let (ok, text) = run(&app, &["put", "all", &path, "--dry-run"]).await;
    assert!(
        ok && text == "nothing was changed; it would be: all version 1, on\n",
        "{text}"
    );
    let (_, none) = run(&app, &["policies"]).await;
    assert_eq!(none, "");
    let (_, text) = run(&app, &["put", "all", &path]).await;
    assert_eq!(text, "all version 1, on\n");
    let (_, text) = run(&app, &["policies"]).await;
    assert!(text.starts_with("all  version 1  on since "), "{text}");
    let (_, text) = run(&app, &["show", "all"]).await;
    assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), slow_answer());

    let (_, text) = run(&app, &["dry-run", sid.as_str()]).await;
    assert!(
        text.contains("held by maya  all version 1\n  nothing would happen"),
        "{text}"
    );
    ask(&app, "Hello?").await;
    earlier(&app).await;
    let (ok, text) = run(&app, &["dry-run", sid.as_str(), "--policy", &path]).await;
    assert!(ok, "{text}");
    for part in [
        "held by maya  the file",
        "rule  since no_answer",
        "nudge holder: maya",
        "offer backup: jonas",
        "needs_person",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
    assert_eq!(told(&app).await, Vec::<String>::new());
    let (_, text) = run(&app, &["list"]).await;
    assert_eq!(text, "");
    let (ok, text) = run(&app, &["remove", "all"]).await;
    assert!(ok && text == "all is removed\n", "{text}");
    let (ok, _) = run(&app, &["show", "all"]).await;
    assert!(!ok);
}

#[tokio::test]
async fn a_back_test_is_told_in_words() {
    let (app, _) = staffed().await;
    let dir = tempfile::tempdir().unwrap();
    let path = file(&dir, &slow_answer());
    ask(&app, "Hello?").await;
    later(&app, 60).await;
    let (ok, text) = run(&app, &["backtest", "--policy", &path, "--each"]).await;
    assert!(ok, "{text}");
    assert!(
        text.contains(" 0 escalations"),
        "not by the machine's clock: {text}"
    );
    let (ok, text) = run(
        &app,
        &["backtest", "--policy", &path, "--from", "2030-01-01T00:00:00Z"],
    )
    .await;
    assert!(
        !ok && text.contains("a stretch of time that has passed"),
        "{text}"
    );
    let (ok, text) = run(&app, &["backtest"]).await;
    assert!(!ok, "{text}");
    // An hour ago the buyer wrote, and nobody has answered.
    earlier(&app).await;
    let (ok, text) = run(&app, &["backtest", "--policy", &path, "--each"]).await;
    assert!(ok, "{text}");
    for part in [
        "1 conversations, 1 escalations",
        "1 by rule",
        "1 left to a person",
        "1 steps: nudge",
        "1 steps: offer",
        "offer backup: jonas",
        "As they were: holders, messages, absences. As they are now: teams,",
    ] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[tokio::test]
async fn somebody_asks_for_one_and_stops_it() {
    let (app, sid) = staffed().await;
    let ask = |rest: &[&'static str]| [&["ask", sid.as_str(), LINE, "--by", "maya"], rest].concat();
    let (ok, text) = run(&app, &ask(&[])).await;
    assert!(!ok && text.contains("no policy says what to do"), "{text}");
    let rule = json!({ "when": "asked", "steps": [step("nudge", &json!("supervisor"), "5m")] });
    set(&app, "all", &policy(&rule)).await;
    let (ok, text) = run(&app, &ask(&["--reason", ""])).await;
    assert!(
        !ok && text.contains("--reason: expected 1 to 200 characters"),
        "{text}"
    );
    let (ok, text) = run(&app, &ask(&["--reason", "wants a manager"])).await;
    assert!(ok && text.ends_with(" begins: all rule\n"), "{text}");
    let id = text.split(' ').next().unwrap().to_owned();
    let (ok, text) = run(&app, &ask(&[])).await;
    assert!(!ok && text.contains("one is open already"), "{text}");
    let (ok, text) = run(&app, &["stop", &id, "--by", "noor"]).await;
    assert!(ok && text == format!("{id} is stopped\n"), "{text}");
    let (ok, text) = run(&app, &["stop", &id, "--by", "noor"]).await;
    assert!(!ok && text.contains("the escalation is over"), "{text}");
    assert_eq!(told(&app).await, ["started", "stopped stopped_by_hand"]);
}
