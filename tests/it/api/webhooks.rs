//! Webhooks that could not be projected: listed, looked at, replayed.

use std::process::Command;

use hookswitch::db::Notices;
use hookswitch::inbox::pace::Pace;
use hookswitch::inbox::process::Projector;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{Office, office};
use crate::support::sql::{count, execute, value};

/// A message without its index, so many of them; set aside by the projector itself.
async fn with_set_aside(webhooks: usize) -> Office {
    let office = office().await;
    for number in 1..=webhooks {
        let form = format!(
            "AccountSid=AC00000000000000000000000000000001&EventType=onMessageAdded\
            &ConversationSid=CH00000000000000000000000000000001&MessageSid=IM{number:032x}&Body=secret"
        );
        let sql = format!(
            "with stored as (insert into webhook (received_at, account_sid, conversation_sid, event_type, dedupe_key, method, form,
                token_index, url_candidate, lane)
            values (now(), 'AC00000000000000000000000000000001', 'CH00000000000000000000000000000001', 'onMessageAdded',
                gen_random_uuid(), 'POST', convert_to('{form}', 'UTF8'), 0, 'as configured', 0)
            returning lane, webhook_id)
            insert into webhook_pending (lane, webhook_id) select lane, webhook_id from stored"
        );
        execute(&office.pool, &sql).await;
    }
    project(&office).await;
    office
}

async fn project(office: &Office) {
    let projector = Projector {
        pool: office.pool.clone(),
        clock: office.clock.clone(),
        batch: 100,
        notices: Notices::default(),
        pace: Pace::default(),
    };
    projector.run_until_idle().await.unwrap();
}

fn field<'a>(webhook: &'a Value, key: &str) -> &'a Value {
    let fields = webhook["fields"].as_array().unwrap();
    fields.iter().find(|field| field["key"] == key).unwrap()
}

#[tokio::test]
async fn what_is_set_aside_is_listed_with_its_reason_in_pages() {
    let office = with_set_aside(3).await;
    let first = office.get("/v1/webhooks/set-aside?limit=2").await.expect(200);
    assert_eq!(first["items"].as_array().unwrap().len(), 2);
    assert_eq!(
        first["items"][0]["reason"],
        "`Index` is missing or not a whole number"
    );
    let next = format!(
        "/v1/webhooks/set-aside?cursor={}",
        first["next"].as_str().unwrap()
    );
    let last = office.get(&next).await.expect(200);
    assert_eq!(
        (last["items"].as_array().unwrap().len(), &last["next"]),
        (1, &Value::Null)
    );
    assert!(!format!("{first}{last}").contains("secret"));
    office
        .get("/v1/webhooks/set-aside?state=pending")
        .await
        .expect(400);
}

#[tokio::test]
async fn what_a_webhook_says_is_shown_only_when_asked_and_that_is_logged() {
    let office = with_set_aside(1).await;
    let webhook = office.get("/v1/webhooks/1").await.expect(200);
    assert_eq!(webhook["state"], "set_aside");
    assert_eq!(
        field(&webhook, "Body"),
        &json!({ "key": "Body", "value": null, "bytes": 6 })
    );
    assert_eq!(field(&webhook, "EventType")["value"], "onMessageAdded");
    assert_eq!(
        count(&office.pool, "event where type = 'webhook.revealed'").await,
        0
    );

    let webhook = office.get("/v1/webhooks/1?reveal=content").await.expect(200);
    assert_eq!(field(&webhook, "Body")["value"], "secret");
    let told =
        "select subject || ' ' || left(actor, 8) || ' ' || via from event where type = 'webhook.revealed'";
    assert_eq!(
        value(&office.pool, told).await.as_deref(),
        Some("webhook:1 api_key: api")
    );

    office.get("/v1/webhooks/1?reveal=all").await.expect(400);
    assert_eq!(office.get("/v1/webhooks/99").await.problem(), "not_found");
}

#[tokio::test]
async fn a_replay_projects_after_a_fix_or_sets_aside_again() {
    let office = with_set_aside(2).await;
    office.post("/v1/webhooks/1/replay", &json!({})).await.expect(202);
    assert_eq!(office.get("/v1/webhooks/1").await.expect(200)["state"], "pending");
    let waits = office.post("/v1/webhooks/1/replay", &json!({})).await;
    assert_eq!(waits.problem(), "not_set_aside");
    project(&office).await;
    assert_eq!(
        office.get("/v1/webhooks/1").await.expect(200)["state"],
        "set_aside"
    );

    // As if a new version could read it.
    let fix = "update webhook set form = form || convert_to('&Index=7&DateCreated=2026-01-02T03:04:05.678Z', 'UTF8')";
    execute(&office.pool, fix).await;
    let replayed = office.post("/v1/webhooks/replay", &json!({})).await.expect(202);
    assert_eq!(replayed["replayed"], 2);
    project(&office).await;
    let webhook = office.get("/v1/webhooks/1").await.expect(200);
    assert_eq!(
        (&webhook["state"], &webhook["reason"]),
        (&json!("projected"), &Value::Null)
    );
    assert_eq!(count(&office.pool, "message").await, 2);
    assert_eq!(
        count(&office.pool, "event where type = 'webhook.replayed'").await,
        2
    );
    assert_eq!(
        office.post("/v1/webhooks/99/replay", &json!({})).await.problem(),
        "not_found"
    );
}

#[tokio::test]
async fn one_whose_form_was_erased_is_not_replayed() {
    let office = with_set_aside(1).await;
    execute(&office.pool, "update webhook set form = '', erased_at = now()").await;
    let refused = office.post("/v1/webhooks/1/replay", &json!({})).await;
    assert_eq!(
        (refused.status.as_u16(), refused.problem().as_str()),
        (409, "erased")
    );
    let all = office.post("/v1/webhooks/replay", &json!({})).await.expect(202);
    assert_eq!(all["replayed"], 0);
    assert_eq!(
        office.get("/v1/webhooks/1").await.expect(200)["state"],
        "set_aside"
    );
}

fn replay(office: &Office, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hookswitch"))
        .arg("replay")
        .args(arguments)
        .current_dir(std::env::temp_dir())
        .env_clear()
        .env("DATABASE_URL", office.database.url().expose_secret())
        .output()
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_lists_shows_and_replays() {
    let office = with_set_aside(2).await;
    let (good, said) = replay(&office, &["--list"]);
    assert!(good && said.lines().count() == 2, "{said}");
    assert!(said.starts_with("1 set_aside \"onMessageAdded\""), "{said}");
    assert!(
        said.contains("`Index` is missing or not a whole number"),
        "{said}"
    );

    let (good, said) = replay(&office, &["--show", "2"]);
    assert!(
        good && said.contains("\"Body\" (6 bytes)") && !said.contains("secret"),
        "{said}"
    );
    let revealed = "event where type = 'webhook.revealed'";
    assert_eq!(count(&office.pool, revealed).await, 0);
    let (good, said) = replay(&office, &["--show", "2", "--reveal"]);
    assert!(good && said.contains("\"Body\" \"secret\""), "{said}");
    assert_eq!(count(&office.pool, revealed).await, 1);
    let (good, said) = replay(&office, &["--show", "9"]);
    assert!(!good && said.contains("there is no webhook 9"), "{said}");

    let fix = "update webhook set form = form || convert_to('&Index=7&DateCreated=2026-01-02T03:04:05.678Z', 'UTF8')
        where webhook_id = 1";
    execute(&office.pool, fix).await;
    let (good, said) = replay(&office, &["1"]);
    assert!(good && said.contains("replayed 1; set aside now: 1"), "{said}");
    let (good, said) = replay(&office, &[]);
    assert!(
        good && said.contains("replayed 1; set aside now: 1"),
        "the other is as it was: {said}"
    );
    let states = value(
        &office.pool,
        "select string_agg(state, ' ' order by webhook_id) from webhook_state",
    )
    .await;
    assert_eq!(states.as_deref(), Some("projected set_aside"));
}
