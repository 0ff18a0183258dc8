//! Our pool of numbers, over HTTP and on the command line; which number a new group text gets.

mod choice;

use std::process::Command;

use hookswitch::events::Via;
use hookswitch::numbers::{self, PutNumberError};
use hookswitch::people::Actor;
use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::api::{LINE, OTHER_LINE, Office, office};
use crate::assignment::{sales, wanted};
use crate::people::{add_agents, delete, put, told};
use crate::support::app::TestApp;
use crate::support::tables;

fn path(number: &str) -> String {
    format!("/v1/numbers/{}", number.replace('+', "%2B"))
}

#[tokio::test]
async fn a_number_is_added_replaced_shown_and_removed() {
    let office = office().await;
    let sales = json!({ "kind": "long_code", "mms_capable": true, "team": "sales", "rule": "round_robin", "label": "London" });
    assert_eq!(put(&office, &path(LINE), &sales).await.problem(), "team_unknown");
    put(
        &office,
        "/v1/teams/sales",
        &json!({ "name": "Sales", "time_zone": "Europe/London" }),
    )
    .await
    .expect(200);
    let added = put(&office, &path(LINE), &sales).await.expect(200);
    insta::assert_json_snapshot!(added, @r#"
    {
      "account_sid": "AC00000000000000000000000000000001",
      "created_at": "2026-03-01T14:00:00Z",
      "enabled": true,
      "kind": "long_code",
      "known": true,
      "label": "London",
      "messaging_service_sid": null,
      "mms_capable": true,
      "number": "+15017122661",
      "open_groups": 0,
      "person": null,
      "rule": "round_robin",
      "team": "sales",
      "updated_at": "2026-03-01T14:00:00Z",
      "version": 1
    }
    "#);
    assert_eq!(
        put(&office, &path(LINE), &sales).await.expect(200),
        added,
        "it may be repeated"
    );
    assert_eq!(office.get(&path(LINE)).await.expect(200), added);

    let of_maya =
        json!({ "kind": "long_code", "mms_capable": true, "rule": "person", "person": "maya", "version": 1 });
    let refused = put(&office, &path(LINE), &of_maya).await;
    assert_eq!(refused.problem(), "person_unknown");
    add_agents(&office, &["maya"]).await;
    let replaced = put(&office, &path(LINE), &of_maya).await.expect(200);
    let in_use = delete(&office, "/v1/agents/maya").await;
    assert_eq!(
        (in_use.problem(), &in_use.json()["numbers"]),
        ("agent_in_use".into(), &json!(1))
    );
    assert_eq!(
        (&replaced["version"], &replaced["team"]),
        (&json!(2), &json!(null))
    );
    assert_eq!(
        put(&office, &path(LINE), &sales_at(1)).await.problem(),
        "version_conflict"
    );

    let foreign = json!({ "kind": "long_code", "mms_capable": true });
    let unknown = put(&office, &path("+15555550199"), &foreign).await;
    assert_eq!(unknown.problem(), "account_unknown");
    let wrong = put(
        &office,
        &path(LINE),
        &json!({ "kind": "fax", "rule": "queue", "colour": 1 }),
    )
    .await;
    assert_eq!(wrong.status.as_u16(), 400);
    let wrong = put(&office, &path(LINE), &json!({ "kind": "fax", "rule": "queue" })).await;
    let fields: Vec<String> = wrong.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(fields, ["/kind", "/mms_capable"]);

    assert_eq!(delete(&office, &path(LINE)).await.status.as_u16(), 204);
    assert_eq!(delete(&office, &path(LINE)).await.problem(), "not_found");
    let told = told(&office, "number.changed,number.removed").await;
    let told: Vec<&str> = told.iter().map(|entry| entry["type"].as_str().unwrap()).collect();
    assert_eq!(told, ["number.changed", "number.changed", "number.removed"]);
}

fn sales_at(version: u32) -> serde_json::Value {
    json!({ "kind": "long_code", "mms_capable": true, "version": version })
}

#[tokio::test]
async fn numbers_are_listed_with_their_groups_and_those_that_nobody_added_too() {
    let office = office().await;
    let plain = json!({ "kind": "long_code", "mms_capable": true });
    put(&office, &path(OTHER_LINE), &plain).await.expect(200);
    office.group(1, Some("maya")).await;
    office.group(2, None).await;
    let listed = |items: Vec<serde_json::Value>| -> Vec<String> {
        items
            .iter()
            .map(|item| format!("{} {} {}", item["number"], item["known"], item["open_groups"]))
            .collect()
    };
    assert_eq!(
        listed(office.all("/v1/numbers", 1).await),
        [format!("\"{LINE}\" false 2"), format!("\"{OTHER_LINE}\" true 0")]
    );
    assert_eq!(
        listed(office.all("/v1/numbers?known=false", 5).await),
        [format!("\"{LINE}\" false 2")]
    );
    assert_eq!(
        listed(office.all("/v1/numbers?enabled=true", 5).await),
        [format!("\"{OTHER_LINE}\" true 0")]
    );
    let unknown = office.get(&path(LINE)).await.expect(200);
    assert_eq!(
        (&unknown["known"], &unknown["open_groups"]),
        (&json!(false), &json!(2))
    );
    assert_eq!(office.get(&path("+15555550199")).await.problem(), "not_found");
}

/// Runs `hookswitch numbers` on the test's database.
fn command(office: &Office, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hookswitch"))
        .arg("numbers")
        .args(arguments)
        .env("DATABASE_URL", office.database.url().expose_secret())
        .envs(crate::api::environment())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_keeps_the_pool_too() {
    let office = office().await;
    put(
        &office,
        "/v1/teams/sales",
        &json!({ "name": "Sales", "time_zone": "Europe/London" }),
    )
    .await
    .expect(200);
    office.group(1, None).await;
    let (refused, said) = command(&office, &["put", OTHER_LINE, "--rule", "queue"]);
    assert!(!refused && said.contains("--team: expected the team"), "{said}");
    let arguments = [
        "put",
        OTHER_LINE,
        "--team",
        "sales",
        "--rule",
        "least-loaded",
        "--label",
        "London",
    ];
    let (done, said) = command(&office, &arguments);
    assert!(done, "{said}");
    let (_, listed) = command(&office, &["list"]);
    let lines: Vec<&str> = listed.lines().collect();
    assert_eq!(
        lines,
        [
            format!("{LINE}  (not in the pool)  1 groups"),
            format!("{OTHER_LINE}  sales  least_loaded  long_code  0 groups  London"),
        ]
    );
    let (_, queue) = command(&office, &["queue", "--team", "sales"]);
    assert_eq!(queue, "");
    let (done, said) = command(&office, &["remove", OTHER_LINE]);
    assert!(done, "{said}");
    assert_eq!(office.get(&path(OTHER_LINE)).await.problem(), "not_found");
}

#[tokio::test]
async fn a_team_that_is_removed_meanwhile_gets_no_number() {
    let app = TestApp::start().await;
    sales(&app, &[], None).await;
    let mut removing = app.pool().begin().await.unwrap();
    hookswitch::people::lock(&mut removing).await.unwrap();
    let adding = tokio::spawn({
        let (pool, accounts) = (app.pool().clone(), app.app.accounts.clone());
        let (number, now) = (OTHER_LINE.parse().unwrap(), app.clock.now());
        async move {
            let mut conn = pool.acquire().await.unwrap();
            let by = Actor {
                name: "crm".to_owned(),
                via: Via::Api,
                cause: None,
            };
            numbers::put_number(&mut conn, &accounts, &number, wanted(None), &by, now).await
        }
    });
    app.somebody_waits_for_a_lock(&adding).await;
    tables::execute(&app, "delete from number; delete from team").await;
    removing.commit().await.unwrap();
    let refused = adding.await.unwrap();
    assert!(
        matches!(refused, Err(PutNumberError::TeamUnknown { .. })),
        "{refused:?}"
    );
}
