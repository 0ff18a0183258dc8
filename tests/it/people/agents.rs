//! Agents over HTTP.

use hookswitch::api::auth::Scope;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{add_agents, delete, identities, put, told};
use crate::api::{OTHER_LINE, Office, closed, conversation, conversation_sid, office, participant_sid, seat};

#[tokio::test]
async fn an_agent_is_added_replaced_and_told_of() {
    let office = office().await;
    put(
        &office,
        "/v1/teams/sales",
        &json!({ "name": "Sales", "time_zone": "UTC" }),
    )
    .await
    .expect(200);
    add_agents(&office, &["noor"]).await;
    let maya = json!({
        "name": "Maya Lopez", "team": "sales", "supervisor": "noor", "skills": ["spanish", "loans", "spanish"], "capacity": 3,
    });
    let added = put(&office, "/v1/agents/maya", &maya).await.expect(200);
    insta::assert_json_snapshot!(added, @r#"
    {
      "availability": {
        "reason": null,
        "set_by": null,
        "since": "2026-03-01T14:00:00Z",
        "status": "available",
        "until": null
      },
      "backup": null,
      "capacity": 3,
      "created_at": "2026-03-01T14:00:00Z",
      "identity": "maya",
      "known": true,
      "left_at": null,
      "load": 0,
      "name": "Maya Lopez",
      "skills": [
        "loans",
        "spanish"
      ],
      "supervisor": "noor",
      "team": "sales",
      "unavailable": null,
      "updated_at": "2026-03-01T14:00:00Z",
      "version": 1
    }
    "#);
    assert_eq!(office.get("/v1/agents/maya").await.expect(200), added);

    office.clock.advance(SignedDuration::from_secs(5));
    let again = put(&office, "/v1/agents/maya", &maya).await.expect(200);
    assert_eq!(again, added, "what is so already is left alone");
    let replaced = put(
        &office,
        "/v1/agents/maya",
        &json!({ "name": "Maya Lopez", "capacity": 4 }),
    )
    .await
    .expect(200);
    assert_eq!(
        (&replaced["version"], &replaced["team"]),
        (&json!(2), &Value::Null)
    );

    let told: Vec<Value> = told(&office, "agent.changed").await;
    let told: Vec<&Value> = told.iter().map(|entry| &entry["data"]).collect();
    insta::assert_json_snapshot!(told[1..], @r#"
    [
      {
        "change": "added",
        "changes": {
          "capacity": {
            "from": null,
            "to": 3
          },
          "name": {
            "from": null,
            "to": "Maya Lopez"
          },
          "skills": {
            "from": null,
            "to": [
              "loans",
              "spanish"
            ]
          },
          "supervisor": {
            "from": null,
            "to": "noor"
          },
          "team": {
            "from": null,
            "to": "sales"
          }
        },
        "identity": "maya",
        "version": 1
      },
      {
        "change": "changed",
        "changes": {
          "capacity": {
            "from": 3,
            "to": 4
          },
          "skills": {
            "from": [
              "loans",
              "spanish"
            ],
            "to": []
          },
          "supervisor": {
            "from": "noor",
            "to": null
          },
          "team": {
            "from": "sales",
            "to": null
          }
        },
        "identity": "maya",
        "version": 2
      }
    ]
    "#);
}

#[tokio::test]
async fn of_two_who_change_an_agent_at_once_one_is_told() {
    let office = office().await;
    let with = |name: &str, version: Option<u32>| json!({ "name": name, "version": version });
    let path = "/v1/agents/maya";
    assert_eq!(
        put(&office, path, &with("Maya", Some(1))).await.problem(),
        "version_conflict"
    );
    for _ in 0..2 {
        // A repeat is answered as the first time.
        let added = put(&office, path, &with("Maya", Some(0))).await.expect(200);
        assert_eq!(added["version"], 1);
    }
    let late = put(&office, path, &with("Maya L", Some(0))).await;
    assert_eq!(late.problem(), "version_conflict");
    put(&office, path, &with("Maya L", Some(1))).await.expect(200);
    let late = put(&office, path, &with("M. Lopez", Some(1))).await;
    assert_eq!(late.problem(), "version_conflict");
    assert_eq!(
        (late.json()["version"].clone(), late.json()["updated_at"].clone()),
        (json!(2), json!("2026-03-01T14:00:00Z"))
    );
    // Who does not care replaces what stands. Where nothing changes, the version does not either.
    let stands = put(&office, path, &with("Maya L", None)).await.expect(200);
    assert_eq!(stands["version"], 2);
}

#[tokio::test]
async fn everything_wrong_with_an_agent_is_told_at_once() {
    let office = office().await;
    let wrong = json!({
        "name": " Maya", "team": "Sales", "supervisor": "+15555550101", "skills": ["ok", "Not Ok"], "capacity": -1,
        "left_at": "soon", "version": "1",
    });
    let answer = put(&office, "/v1/agents/maya", &wrong).await.expect(400);
    let fields: Vec<&str> = answer["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "/name",
            "/skills/1",
            "/team",
            "/supervisor",
            "/capacity",
            "/left_at",
            "/version"
        ]
    );
    assert!(!answer.to_string().contains("5555550101"));
    let unknown = put(
        &office,
        "/v1/agents/maya",
        &json!({ "name": "Maya", "role": "x" }),
    )
    .await;
    assert_eq!(unknown.expect(400)["errors"][0]["field"], "/role");
    let path = put(&office, "/v1/agents/%2B15555550101", &json!({ "name": "Maya" })).await;
    assert_eq!(path.expect(400)["errors"][0]["field"], "identity");
    let empty = put(&office, "/v1/agents/maya", &json!({})).await.expect(400);
    assert_eq!(empty["errors"][0]["code"], "missing");
    let team = json!({ "name": "Maya", "team": "sales" });
    assert_eq!(
        put(&office, "/v1/agents/maya", &team).await.problem(),
        "team_unknown"
    );
    let supervisor = json!({ "name": "Maya", "supervisor": "noor" });
    assert_eq!(
        put(&office, "/v1/agents/maya", &supervisor).await.problem(),
        "supervisor_unknown"
    );
    assert_eq!(office.get("/v1/agents/maya").await.problem(), "not_found");
}

#[tokio::test]
async fn nobody_becomes_their_own_supervisor() {
    let office = office().await;
    add_agents(&office, &["ana", "ben", "cleo"]).await;
    let above = async |who: &str, supervisor: &str| {
        let body = json!({ "name": who, "supervisor": supervisor });
        put(&office, &format!("/v1/agents/{who}"), &body).await
    };
    above("ana", "ben").await.expect(200);
    above("ben", "cleo").await.expect(200);
    let round = above("cleo", "ana").await;
    assert_eq!(round.problem(), "supervisor_cycle");
    assert_eq!(round.json()["chain"], json!(["cleo", "ana", "ben", "cleo"]));
    let own = above("ana", "ana").await;
    assert_eq!(own.json()["chain"], json!(["ana", "ana"]));

    let chain = office.get("/v1/agents/ana/supervisors").await.expect(200);
    assert_eq!(
        identities(chain["supervisors"].as_array().unwrap()),
        ["ben", "cleo"]
    );
    // Who has left is passed over, from that time on.
    let left = json!({ "name": "ben", "supervisor": "cleo", "left_at": "2026-03-02T00:00:00Z" });
    put(&office, "/v1/agents/ben", &left).await.expect(200);
    let at = async |at: &str| {
        let chain = office
            .get(&format!("/v1/agents/ana/supervisors?at={at}"))
            .await
            .expect(200);
        chain["supervisors"].as_array().unwrap().len()
    };
    assert_eq!(at("2026-03-01T23:59:59Z").await, 2);
    assert_eq!(at("2026-03-02T00:00:00Z").await, 1);
}

#[tokio::test]
async fn of_two_who_would_close_a_circle_at_once_one_is_refused() {
    let office = office().await;
    office.connect().await;
    add_agents(&office, &["ana", "ben"]).await;
    let (to_ben, to_ana) = (
        json!({ "name": "ana", "supervisor": "ben" }),
        json!({ "name": "ben", "supervisor": "ana" }),
    );
    let (ana, ben) = tokio::join!(
        put(&office, "/v1/agents/ana", &to_ben),
        put(&office, "/v1/agents/ben", &to_ana)
    );
    let mut statuses = [ana.status.as_u16(), ben.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409]);
}

#[tokio::test]
async fn who_is_away_comes_back_by_the_clock() {
    let office = office().await;
    add_agents(&office, &["maya"]).await;
    let path = "/v1/agents/maya/availability";
    let unknown = put(
        &office,
        "/v1/agents/zoe/availability",
        &json!({ "status": "away" }),
    )
    .await;
    assert_eq!(unknown.problem(), "not_found");
    let passed = json!({ "status": "away", "until": "2026-03-01T14:00:00Z" });
    let passed = put(&office, path, &passed).await.expect(400);
    assert_eq!(passed["errors"][0]["code"], "passed");
    let odd = json!({ "status": "available", "reason": "x", "until": "2026-03-01T15:00:00Z" });
    assert_eq!(
        put(&office, path, &odd).await.expect(400)["errors"]
            .as_array()
            .unwrap()
            .len(),
        2
    );

    let lunch = json!({ "status": "away", "reason": "private matter", "until": "2026-03-01T15:00:00Z", "by": "maya" });
    let away = put(&office, path, &lunch).await.expect(200);
    assert_eq!(away["availability"]["status"], "away");
    assert_eq!(away["unavailable"]["code"], "away");
    assert_eq!(away["unavailable"]["until"], "2026-03-01T15:00:00Z");
    assert_eq!(away["version"], 1, "no change of the profile");
    office.clock.advance(SignedDuration::from_mins(10));
    assert_eq!(
        put(&office, path, &lunch).await.expect(200),
        away,
        "it may be repeated"
    );

    office.clock.advance(SignedDuration::from_mins(50));
    let back = office.get("/v1/agents/maya").await.expect(200);
    assert_eq!(
        back["availability"],
        json!({ "status": "available", "reason": null, "until": null, "since": "2026-03-01T15:00:00Z", "set_by": null })
    );
    assert_eq!(back["unavailable"], Value::Null);
    let told = told(&office, "agent.availability_changed").await;
    assert_eq!(told.len(), 1);
    assert_eq!(told[0]["data"]["set_by"], "maya");
    assert!(
        !told[0].to_string().contains("private matter"),
        "the reason is not told"
    );
}

#[tokio::test]
async fn the_load_is_what_is_held_now_and_capacity_counts_it() {
    let office = office().await;
    let body = json!({ "name": "Maya", "capacity": 2 });
    put(&office, "/v1/agents/maya", &body).await.expect(200);
    let first = office.group(1, Some("maya")).await;
    office.group(2, Some("maya")).await;
    let full = office.get("/v1/agents/maya").await.expect(200);
    assert_eq!(full["load"], 2);
    assert_eq!(
        full["unavailable"],
        json!({ "code": "at_capacity", "detail": "holds 2 of 2 lines", "until": null })
    );
    office.observe(vec![closed(&first, 1_000)]).await;
    let room = office.get("/v1/agents/maya").await.expect(200);
    assert_eq!((&room["load"], &room["unavailable"]), (&json!(1), &Value::Null));
}

async fn listed(office: &Office, query: &str) -> Vec<(String, bool)> {
    let items = office.all(&format!("/v1/agents?{query}"), 200).await;
    items
        .iter()
        .map(|item| {
            let identity = item["identity"].as_str().unwrap().to_owned();
            (identity, item["known"].as_bool().unwrap())
        })
        .collect()
}

#[tokio::test]
async fn an_identity_at_twilio_that_is_unknown_here_is_listed_and_never_dropped() {
    let office = office().await;
    add_agents(&office, &["maya", "noor"]).await;
    for (number, holder) in [(1, "maya"), (2, "zoe"), (3, "ada"), (4, "zoe"), (5, "liv")] {
        office.group(number, Some(holder)).await;
    }
    let group = conversation_sid(9);
    office
        .observe(vec![
            conversation(&group, 0),
            seat(&group, 91, OTHER_LINE, Some("maya"), 0),
        ])
        .await;
    let whole: Vec<(String, bool)> = [
        ("ada", false),
        ("liv", false),
        ("maya", true),
        ("noor", true),
        ("zoe", false),
    ]
    .map(|(identity, known)| (identity.to_owned(), known))
    .into();
    assert_eq!(listed(&office, "").await, whole);
    for limit in 1..=5 {
        let pages = office.all("/v1/agents", limit).await;
        assert_eq!(
            identities(&pages),
            ["ada", "liv", "maya", "noor", "zoe"],
            "in pages of {limit}"
        );
    }
    assert_eq!(
        identities(&office.all("/v1/agents?known=false", 1).await),
        ["ada", "liv", "zoe"]
    );
    assert_eq!(
        identities(&office.all("/v1/agents?known=true", 1).await),
        ["maya", "noor"]
    );
    let zoe = office.get("/v1/agents/zoe").await.expect(200);
    assert_eq!((&zoe["known"], &zoe["load"]), (&json!(false), &json!(2)));
    assert_eq!(zoe["unavailable"]["code"], "unknown");

    // Removed by mistake: the lines stay, as those of somebody unknown.
    assert_eq!(delete(&office, "/v1/agents/maya").await.status.as_u16(), 204);
    assert_eq!(delete(&office, "/v1/agents/maya").await.problem(), "not_found");
    let maya = office.get("/v1/agents/maya").await.expect(200);
    assert_eq!((&maya["known"], &maya["load"]), (&json!(false), &json!(2)));
    // Gone from Twilio too, there is nothing left to show.
    let ada = conversation_sid(3);
    office
        .observe(vec![hookswitch::mirror::change::Change::Participant(
            hookswitch::mirror::change::ParticipantChange {
                conversation_sid: ada,
                participant_sid: participant_sid(3),
                version: hookswitch::mirror::Version::exact(crate::api::after(5_000)),
                removed: true,
                fields: None,
                created_at: None,
            },
        )])
        .await;
    assert_eq!(office.get("/v1/agents/ada").await.problem(), "not_found");
    assert_eq!(listed(&office, "known=false").await.len(), 3);
}

#[tokio::test]
async fn agents_are_filtered_and_one_that_others_refer_to_stays() {
    let office = office().await;
    add_agents(&office, &["noor"]).await;
    let team = json!({ "name": "Sales", "time_zone": "UTC", "on_call": ["noor"] });
    put(&office, "/v1/teams/sales", &team).await.expect(200);
    for (identity, skill, left_at) in [
        ("ana", "spanish", None),
        ("ben", "welsh", Some("2026-02-01T00:00:00Z")),
        ("cleo", "spanish", Some("2026-04-01T00:00:00Z")),
    ] {
        let body = json!({
            "name": identity, "team": "sales", "supervisor": "noor", "skills": [skill], "left_at": left_at,
        });
        put(&office, &format!("/v1/agents/{identity}"), &body)
            .await
            .expect(200);
    }
    office.group(1, Some("zoe")).await;
    let found = async |query: &str| {
        let found = listed(&office, query).await;
        found
            .into_iter()
            .map(|(identity, _)| identity)
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(found("").await, "ana ben cleo noor zoe");
    assert_eq!(found("team=sales").await, "ana ben cleo");
    assert_eq!(found("team=sales&skill=spanish&left=false").await, "ana cleo");
    assert_eq!(found("left=true").await, "ben");
    assert_eq!(found("supervisor=noor&skill=welsh").await, "ben");
    assert_eq!(found("team=other").await, "");
    assert_eq!(office.get("/v1/agents?teams=sales").await.problem(), "invalid");
    assert_eq!(office.get("/v1/agents?cursor=x").await.problem(), "invalid");

    let refused = delete(&office, "/v1/agents/noor").await;
    assert_eq!(refused.problem(), "agent_in_use");
    assert_eq!(refused.json()["supervises"], json!(["ana", "ben", "cleo"]));
    assert_eq!(refused.json()["on_call"], json!(["sales"]));
    let team = delete(&office, "/v1/teams/sales").await;
    assert_eq!(team.problem(), "team_in_use");
    assert_eq!(team.json()["members"], 3);
}

#[tokio::test]
async fn who_may_read_people_may_not_change_them() {
    let mut office = office().await;
    add_agents(&office, &["maya"]).await;
    office.key = office.key_with(&[Scope::PeopleRead]).await;
    office.get("/v1/agents/maya").await.expect(200);
    let body = json!({ "status": "away" });
    assert_eq!(
        put(&office, "/v1/agents/maya/availability", &body)
            .await
            .problem(),
        "missing_scope"
    );
    office.key = office.key_with(&[Scope::PeopleWrite]).await;
    put(&office, "/v1/agents/maya/availability", &body)
        .await
        .expect(200);
    assert_eq!(office.get("/v1/agents").await.problem(), "missing_scope");
}
