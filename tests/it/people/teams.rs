//! Teams over HTTP: calendars, who is on call, who may be given a line.

use serde_json::{Value, json};

use super::{add_agents, delete, put, told};
use crate::api::office;

#[tokio::test]
async fn a_team_is_added_replaced_shown_and_removed() {
    let office = office().await;
    add_agents(&office, &["maya", "noor"]).await;
    let sales = json!({
        "name": "Sales",
        "time_zone": "europe/london",
        "hours": { "friday": ["22:00-06:00"], "monday": ["13:30-17:00", "09:00-12:30"] },
        "holidays": [{ "date": "2026-12-25", "name": "Christmas Day" }, { "date": "2026-12-24", "hours": ["09:00-12:00"] }],
        "on_call": ["noor", "maya"],
        "rotation": { "every": "week", "start": "2026-03-02T09:00" },
    });
    let added = put(&office, "/v1/teams/sales", &sales).await.expect(200);
    insta::assert_json_snapshot!(added, @r#"
    {
      "created_at": "2026-03-01T14:00:00Z",
      "holidays": [
        {
          "date": "2026-12-24",
          "hours": [
            "09:00-12:00"
          ]
        },
        {
          "date": "2026-12-25",
          "name": "Christmas Day"
        }
      ],
      "hours": {
        "friday": [
          "22:00-06:00"
        ],
        "monday": [
          "09:00-12:30",
          "13:30-17:00"
        ]
      },
      "name": "Sales",
      "on_call": [
        "noor",
        "maya"
      ],
      "rotation": {
        "every": "week",
        "start": "2026-03-02T09:00:00"
      },
      "team_id": "sales",
      "time_zone": "Europe/London",
      "updated_at": "2026-03-01T14:00:00Z",
      "version": 1
    }
    "#);
    assert_eq!(office.get("/v1/teams/sales").await.expect(200), added);
    assert_eq!(
        put(&office, "/v1/teams/sales", &sales).await.expect(200),
        added,
        "it may be repeated"
    );
    // What was shown can be sent back.
    let mut same = added.clone();
    for shown in ["team_id", "created_at", "updated_at"] {
        same.as_object_mut().unwrap().remove(shown);
    }
    assert_eq!(put(&office, "/v1/teams/sales", &same).await.expect(200), added);

    let bare = json!({ "name": "Sales", "time_zone": "Europe/London", "version": 1 });
    let stale = json!({ "name": "Sales and more", "time_zone": "Europe/London", "version": 1 });
    let replaced = put(&office, "/v1/teams/sales", &bare).await.expect(200);
    assert_eq!(
        (&replaced["version"], &replaced["on_call"]),
        (&json!(2), &json!([]))
    );
    assert_eq!(
        put(&office, "/v1/teams/sales", &stale).await.problem(),
        "version_conflict"
    );
    put(&office, "/v1/teams/night", &bare_named("Night"))
        .await
        .expect(200);
    let listed = office.all("/v1/teams", 1).await;
    let ids: Vec<&str> = listed
        .iter()
        .map(|team| team["team_id"].as_str().unwrap())
        .collect();
    assert_eq!(ids, ["night", "sales"]);

    assert_eq!(delete(&office, "/v1/teams/sales").await.status.as_u16(), 204);
    assert_eq!(delete(&office, "/v1/teams/sales").await.problem(), "not_found");
    let told = told(&office, "team.changed,team.removed").await;
    let told: Vec<String> = told
        .iter()
        .map(|entry| {
            format!(
                "{} {} {}",
                entry["type"], entry["subject"], entry["data"]["change"]
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            r#""team.changed" "sales" "added""#,
            r#""team.changed" "sales" "changed""#,
            r#""team.changed" "night" "added""#,
            r#""team.removed" "sales" null"#,
        ]
    );
}

fn bare_named(name: &str) -> Value {
    json!({ "name": name, "time_zone": "Europe/London" })
}

#[tokio::test]
async fn everything_wrong_with_a_team_is_told_at_once() {
    let office = office().await;
    let wrong = json!({
        "name": "", "time_zone": "Europe/Atlantis", "hours": { "monday": ["9-5"] }, "holidays": [{ "date": "Christmas" }],
        "on_call": ["maya", "maya"], "rotation": { "every": "month", "start": "2026-03-02T09:00" },
    });
    let answer = put(&office, "/v1/teams/sales", &wrong).await.expect(400);
    let errors: Vec<String> = answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| {
            format!(
                "{}: {}",
                error["field"].as_str().unwrap(),
                error["message"].as_str().unwrap()
            )
        })
        .collect();
    insta::assert_snapshot!(errors.join("\n"), @r"
    /name: expected 1 to 100 characters in one line, without space around them
    /time_zone: expected the IANA name of a time zone, like `Europe/London` or `America/New_York`
    /hours/monday/0: expected hours like `09:00-17:30`; over midnight like `22:00-06:00`, a whole day is `00:00-24:00`
    /holidays/0/date: expected a date like 2026-12-25
    /on_call/1: expected each person once in the order
    /rotation/every: expected `day` or `week`
    ");
    let overlap = json!({
        "name": "Sales", "time_zone": "UTC", "hours": { "sunday": ["22:00-06:00"], "monday": ["05:00-09:00"] },
    });
    let answer = put(&office, "/v1/teams/sales", &overlap).await.expect(400);
    assert!(
        answer["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("those of monday")
    );
    let unknown = json!({ "name": "Sales", "time_zone": "UTC", "on_call": ["maya", "noor"] });
    let answer = put(&office, "/v1/teams/sales", &unknown).await;
    assert_eq!(answer.problem(), "on_call_unknown");
    assert_eq!(answer.json()["identities"], json!(["maya", "noor"]));
    let id = put(&office, "/v1/teams/Sales", &bare_named("Sales"))
        .await
        .expect(400);
    assert_eq!(id["errors"][0]["field"], "team_id");
}

#[tokio::test]
async fn the_calendar_shows_when_a_team_is_open_and_when_time_is_up() {
    let office = office().await;
    let day = json!(["09:00-17:00"]);
    let team = json!({
        "name": "Sales",
        "time_zone": "Europe/London",
        "hours": { "monday": day, "tuesday": day, "wednesday": day, "thursday": day, "friday": day, "saturday": ["22:00-06:00"] },
    });
    put(&office, "/v1/teams/sales", &team).await.expect(200);
    // The clocks go forward in the night to Sunday 29 March.
    let path = "/v1/teams/sales/calendar?from=2026-03-27T12:00:00Z&to=2026-03-31T00:00:00Z";
    let shown = office.get(path).await.expect(200);
    insta::assert_json_snapshot!(shown, @r#"
    {
      "business_minutes": 1200,
      "from": "2026-03-27T12:00:00Z",
      "is_open": true,
      "next_open": "2026-03-27T12:00:00Z",
      "open": [
        {
          "from": "2026-03-27T12:00:00Z",
          "to": "2026-03-27T17:00:00Z"
        },
        {
          "from": "2026-03-28T22:00:00Z",
          "to": "2026-03-29T05:00:00Z"
        },
        {
          "from": "2026-03-30T08:00:00Z",
          "to": "2026-03-30T16:00:00Z"
        }
      ],
      "team_id": "sales",
      "time_zone": "Europe/London",
      "to": "2026-03-31T00:00:00Z"
    }
    "#);
    let until = async |minutes: &str| {
        let path = format!("/v1/teams/sales/deadline?from=2026-03-27T16:30:00Z&minutes={minutes}");
        office.get(&path).await.expect(200)["at"].clone()
    };
    assert_eq!(until("30").await, "2026-03-27T17:00:00Z");
    assert_eq!(until("31").await, "2026-03-28T22:01:00Z");
    assert_eq!(until("451").await, "2026-03-30T08:01:00Z");
    // A Sunday, and a week is shown if nobody says otherwise.
    let shown = office.get("/v1/teams/sales/calendar").await.expect(200);
    assert_eq!(shown["is_open"], false);
    assert_eq!(shown["next_open"], "2026-03-02T09:00:00Z");
    assert_eq!(shown["to"], "2026-03-08T14:00:00Z");
    for wrong in [
        "calendar?from=2026-03-27T12:00:00Z&to=2026-03-27T11:00:00Z",
        "calendar?to=2030-01-01T00:00:00Z",
        "calendar?at=2026-03-27T12:00:00Z",
        "deadline",
        "deadline?minutes=-1",
        "deadline?minutes=100001",
    ] {
        assert_eq!(
            office.get(&format!("/v1/teams/sales/{wrong}")).await.problem(),
            "invalid",
            "{wrong}"
        );
    }
    assert_eq!(
        office.get("/v1/teams/other/calendar").await.problem(),
        "not_found"
    );
}

#[tokio::test]
async fn the_first_of_the_turn_who_is_there_is_on_call() {
    let office = office().await;
    add_agents(&office, &["ana", "ben", "cleo"]).await;
    let team = json!({
        "name": "Sales",
        "time_zone": "America/New_York",
        "hours": { "monday": ["09:00-17:00"] },
        "on_call": ["ana", "ben", "cleo"],
        "rotation": { "every": "week", "start": "2026-02-23T09:00" },
    });
    put(&office, "/v1/teams/sales", &team).await.expect(200);
    let on_call = async |at: &str| {
        let shown = office
            .get(&format!("/v1/teams/sales/on-call?at={at}"))
            .await
            .expect(200);
        (shown["on_call"].clone(), shown["turn_ends_at"].clone())
    };
    // A week later, and the clocks go forward in the one after.
    let first = (json!("ana"), json!("2026-03-02T14:00:00Z"));
    assert_eq!(on_call("2026-03-01T14:00:00Z").await, first);
    assert_eq!(on_call("2026-03-02T13:59:59Z").await, first);
    assert_eq!(
        on_call("2026-03-02T14:00:00Z").await,
        (json!("ben"), json!("2026-03-09T13:00:00Z"))
    );
    assert_eq!(on_call("2026-03-09T13:00:00Z").await.0, "cleo");

    let away = json!({ "status": "away", "until": "2026-03-02T15:00:00Z" });
    put(&office, "/v1/agents/ben/availability", &away)
        .await
        .expect(200);
    let left = json!({ "name": "cleo", "left_at": "2026-03-02T14:30:00Z" });
    put(&office, "/v1/agents/cleo", &left).await.expect(200);
    assert_eq!(on_call("2026-03-02T14:00:00Z").await.0, "cleo", "ben is away");
    assert_eq!(
        on_call("2026-03-02T14:30:00Z").await.0,
        "ana",
        "and cleo has left"
    );
    assert_eq!(on_call("2026-03-02T15:00:00Z").await.0, "ben");
    let shown = office
        .get("/v1/teams/sales/on-call?at=2026-03-02T14:30:00Z")
        .await
        .expect(200);
    let order: Vec<(&str, Option<&str>)> = shown["order"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["identity"].as_str().unwrap(), one["skipped"]["code"].as_str()))
        .collect();
    assert_eq!(
        order,
        [("ben", Some("away")), ("cleo", Some("left")), ("ana", None)]
    );
    assert_eq!(office.get("/v1/teams/other/on-call").await.problem(), "not_found");
}

#[tokio::test]
async fn candidates_are_listed_with_the_reason_for_each_that_is_passed_over() {
    let office = office().await;
    let team =
        json!({ "name": "Sales", "time_zone": "Europe/London", "hours": { "monday": ["09:00-17:00"] } });
    put(&office, "/v1/teams/sales", &team).await.expect(200);
    for (identity, skills, capacity) in [
        ("ana", json!(["spanish"]), Some(1)),
        ("ben", json!(["spanish"]), None),
        ("cleo", json!([]), None),
        ("dora", json!(["spanish"]), Some(9)),
    ] {
        let body = json!({ "name": identity, "team": "sales", "skills": skills, "capacity": capacity });
        put(&office, &format!("/v1/agents/{identity}"), &body)
            .await
            .expect(200);
    }
    for (number, holder) in [(1, "ana"), (2, "ben"), (3, "ben"), (4, "dora")] {
        office.group(number, Some(holder)).await;
    }
    let found = async |query: &str| {
        let shown = office
            .get(&format!("/v1/teams/sales/candidates?{query}"))
            .await
            .expect(200);
        let why: Vec<String> = shown["candidates"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| {
                let why = one["skipped"]["code"].as_str().unwrap_or("-");
                format!("{} {} {why}", one["identity"].as_str().unwrap(), one["load"])
            })
            .collect();
        (why.join(", "), shown["least_loaded"].clone())
    };
    let open = "at=2026-03-02T10:00:00Z";
    assert_eq!(
        found(&format!("{open}&skill=spanish")).await,
        (
            "ana 1 at_capacity, ben 2 -, cleo 0 lacks_skill, dora 1 -".to_owned(),
            json!("dora")
        )
    );
    assert_eq!(found(open).await.1, "cleo");
    // It is Sunday.
    assert_eq!(found("").await.1, Value::Null);
    assert_eq!(found("any_hour=true").await.1, "cleo");
}
