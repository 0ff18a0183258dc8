//! People brought in from files and written out, by the API and on the command line.

use std::path::PathBuf;
use std::process::Command;

use axum::body::Body;
use axum::http::{Method, Request, header};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{add_agents, put, told};
use crate::api::{Answer, Office, office};

async fn import(office: &Office, query: &str, csv: &str) -> Answer {
    import_as(office, &hookswitch::ids::new_id().to_string(), query, csv).await
}

async fn import_as(office: &Office, key: &str, query: &str, csv: &str) -> Answer {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("/v1/people/import{query}"))
        .header(header::AUTHORIZATION, format!("Bearer {}", office.key))
        .header(header::CONTENT_TYPE, "text/csv; charset=utf-8")
        .header("idempotency-key", key)
        .body(Body::from(csv.to_owned()))
        .unwrap();
    office.send(request).await
}

async fn exported(office: &Office) -> String {
    let answer = office.get("/v1/people/export").await;
    assert_eq!(answer.header("content-type"), Some("text/csv; charset=utf-8"));
    String::from_utf8(answer.bytes).unwrap()
}

const FILE: &str = "identity,name,supervisor,skills,capacity\nmaya,Maya Lopez,noor,spanish;loans,3\nnoor,\"Haddad, Noor\",,,\n";

#[tokio::test]
async fn a_file_is_brought_in_whole_and_again_changes_nothing() {
    let office = office().await;
    let dry = import(&office, "?dry_run=true", FILE).await.expect(200);
    assert_eq!(
        (&dry["dry_run"], &dry["totals"]["added"]),
        (&json!(true), &json!(2))
    );
    assert_eq!(office.get("/v1/agents/maya").await.problem(), "not_found");

    let done = import_as(&office, "first", "", FILE).await.expect(200);
    assert_eq!(done["changes"], dry["changes"], "what was shown was done");
    assert_eq!(done["changes"][0]["change"], "added");
    let maya = office.get("/v1/agents/maya").await.expect(200);
    assert_eq!(
        (&maya["supervisor"], &maya["skills"]),
        (&json!("noor"), &json!(["loans", "spanish"]))
    );
    let repeated = import_as(&office, "first", "", FILE).await;
    assert_eq!(repeated.header("idempotency-replayed"), Some("true"));
    let other = import_as(&office, "first", "?absent=deactivate", FILE).await;
    assert_eq!(
        other.problem(),
        "idempotency_key_reused",
        "another question under the same key"
    );

    let again = import(&office, "", FILE).await.expect(200);
    assert_eq!(
        (&again["totals"]["unchanged"], &again["changes"]),
        (&json!(2), &json!([]))
    );
    let file = exported(&office).await;
    insta::assert_snapshot!(file, @r#"
    identity,name,team,supervisor,skills,capacity,left_at,backup
    maya,Maya Lopez,,noor,loans;spanish,3,,
    noor,"Haddad, Noor",,,,,,
    "#);
    let back = import(&office, "?absent=deactivate", &file).await.expect(200);
    assert_eq!(
        (&back["totals"]["unchanged"], &back["changes"]),
        (&json!(2), &json!([]))
    );

    let told = told(&office, "people.imported,agent.changed").await;
    let causes: Vec<&Value> = told.iter().map(|entry| &entry["cause"]).collect();
    assert_eq!(told.len(), 3, "only what changed is told");
    assert_eq!(causes, [&Value::Null, &told[0]["subject"], &told[0]["subject"]]);
}

#[tokio::test]
async fn what_a_column_that_is_left_out_says_stays_and_who_is_absent_leaves_if_asked() {
    let office = office().await;
    import(&office, "", FILE).await.expect(200);
    put(
        &office,
        "/v1/agents/maya/availability",
        &json!({ "status": "away" }),
    )
    .await
    .expect(200);
    let part = "identity,name,capacity\nmaya,Maya L,\n";
    let stays = import(&office, "", part).await.expect(200);
    assert_eq!(
        stays["changes"],
        json!([{
            "identity": "maya", "change": "changed",
            "changes": { "name": { "from": "Maya Lopez", "to": "Maya L" }, "capacity": { "from": 3, "to": null } },
        }])
    );
    let maya = office.get("/v1/agents/maya").await.expect(200);
    assert_eq!(
        (&maya["supervisor"], &maya["version"]),
        (&json!("noor"), &json!(2))
    );
    assert_eq!(
        maya["availability"]["status"], "away",
        "a file does not bring anybody back"
    );

    let absent = import(&office, "?absent=deactivate", part).await.expect(200);
    assert_eq!(absent["totals"]["deactivated"], 1);
    let noor = office.get("/v1/agents/noor").await.expect(200);
    assert_eq!(noor["left_at"], "2026-03-01T14:00:00Z");
    assert_eq!(noor["unavailable"]["code"], "left");
    let again = import(&office, "?absent=deactivate", part).await.expect(200);
    assert_eq!(again["changes"], json!([]), "who has left does not leave again");
    assert_eq!(import(&office, "?absent=drop", part).await.problem(), "invalid");
}

#[tokio::test]
async fn a_bad_file_is_refused_whole_and_every_bad_row_is_named() {
    let office = office().await;
    add_agents(&office, &["noor"]).await;
    let bad = "identity,name,team,supervisor,skills,capacity\n\
               fine,Fine,,,,\n\
               ana,Ana,nowhere,,,\n\
               ben,Ben,,zoe,,\n\
               cleo,Cleo,,dora,,\n\
               dora,Dora,,eva,,\n\
               eva,Eva,,cleo,,\n\
               noor,Noor,,noor,,\n";
    let refused = import(&office, "", bad).await.expect(400);
    let errors: Vec<String> = refused["errors"]
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
    line 3, team: there is no such team: add it first, or bring it in with the same import
    line 4, supervisor: nobody of ours has this identity: add a row for them, or correct it
    line 5, supervisor: they would be their own supervisor (cleo > dora > eva > cleo): change one of these
    line 6, supervisor: they would be their own supervisor (dora > eva > cleo > dora): change one of these
    line 7, supervisor: they would be their own supervisor (eva > cleo > dora > eva): change one of these
    line 8, supervisor: they would be their own supervisor (noor > noor): change one of these
    ");
    assert_eq!(office.get("/v1/agents/fine").await.problem(), "not_found");
    assert_eq!(office.get("/v1/agents/noor").await.expect(200)["version"], 1);
    // What stands counts too: noor above maya, and now the other way round.
    put(
        &office,
        "/v1/agents/maya",
        &json!({ "name": "Maya", "supervisor": "noor" }),
    )
    .await
    .expect(200);
    let round = import(&office, "", "identity,name,supervisor\nnoor,Noor,maya\n")
        .await
        .expect(400);
    assert!(
        round["errors"][0]["message"]
            .as_str()
            .unwrap()
            .contains("noor > maya > noor")
    );

    let cells = import(&office, "", "identity,name\n+15555550101,x\n")
        .await
        .expect(400);
    assert_eq!(cells["errors"][0]["field"], "line 2, identity");
    assert!(!cells.to_string().contains("5555550101"));
    let json = office.post("/v1/people/import", &json!({})).await;
    assert_eq!(json.problem(), "unsupported_media_type");
    let large = "x".repeat(1024 * 1024 + 1);
    assert_eq!(import(&office, "", &large).await.problem(), "too_large");
    let many = format!("identity,name\n{}", ",x\n".repeat(600));
    let many = import(&office, "", &many).await.expect(400);
    let errors = many["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 501);
    assert_eq!(errors[500]["message"], "and 100 more places");
}

struct Desk<'a> {
    office: &'a Office,
    dir: TempDir,
}

impl Desk<'_> {
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// Runs `hookswitch people` on the test's database: what it says, and whether it is content.
    fn people(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_hookswitch"))
            .arg("people")
            .args(arguments)
            .env("DATABASE_URL", self.office.database.url().expose_secret())
            .env_remove("HOOKSWITCH_CONFIG")
            .output()
            .unwrap();
        let mut said = String::from_utf8(output.stdout).unwrap();
        if !output.status.success() {
            said.push_str(&String::from_utf8(output.stderr).unwrap());
        }
        (output.status.success(), said)
    }

    #[track_caller]
    fn content(&self, arguments: &[&str]) -> String {
        let (content, said) = self.people(arguments);
        assert!(content, "{arguments:?}: {said}");
        said
    }
}

const TEAMS: &str = r#"{ "teams": {
    "sales": { "name": "Sales", "time_zone": "Europe/London", "on_call": ["noor"],
               "hours": { "monday": ["09:00-17:00"] }, "holidays": [{ "date": "2026-12-25" }],
               "rotation": { "every": "week", "start": "2026-03-02T09:00" } }
} }"#;

#[tokio::test]
async fn teams_and_agents_that_need_each_other_come_in_together_on_the_command_line() {
    let office = office().await;
    let desk = Desk {
        office: &office,
        dir: TempDir::new().unwrap(),
    };
    let agents = desk.file(
        "agents.csv",
        "\u{feff}identity,name,team,supervisor,capacity\r\nmaya,=Maya,sales,noor,2\r\nnoor,Noor,sales,,\r\n",
    );
    let teams = desk.file("teams.json", TEAMS);
    let (agents, teams) = (agents.to_str().unwrap(), teams.to_str().unwrap());
    let (content, said) = desk.people(&["import", agents]);
    assert!(
        !content && said.contains("agents, line 2, column team: there is no such team"),
        "{said}"
    );
    assert!(said.contains("2 places are wrong; nothing was changed"), "{said}");
    let (content, said) = desk.people(&["import", "--teams", teams]);
    assert!(
        !content && said.contains("teams, /teams/sales/on_call/0: nobody of ours"),
        "{said}"
    );

    let dry = desk.content(&["import", agents, "--teams", teams, "--dry-run"]);
    insta::assert_snapshot!(dry, @r#"
    + team sales: holidays [{"date":"2026-12-25"}], hours {"monday":["09:00-17:00"]}, name Sales, on_call ["noor"], rotation {"every":"week","start":"2026-03-02T09:00:00"}, time_zone Europe/London
    + agent maya: capacity 2, name =Maya, supervisor noor, team sales
    + agent noor: name Noor, team sales
    nothing was changed; it would be: agents 2 added, 0 changed, 0 deactivated, 0 unchanged; teams 1 added, 0 changed, 0 unchanged
    "#);
    assert!(desk.content(&["list"]).is_empty());
    let done = desk.content(&["import", agents, "--teams", teams]);
    assert!(
        done.ends_with(
            "agents 2 added, 0 changed, 0 deactivated, 0 unchanged; teams 1 added, 0 changed, 0 unchanged\n"
        ),
        "{done}"
    );

    // Out, and in again.
    let agents = desk.file("out.csv", &desk.content(&["export", "agents"]));
    let teams = desk.file("out.json", &desk.content(&["export", "teams"]));
    assert!(
        std::fs::read_to_string(&agents)
            .unwrap()
            .contains("maya,'=Maya,sales,noor,,2,")
    );
    let again = desk.content(&[
        "import",
        agents.to_str().unwrap(),
        "--teams",
        teams.to_str().unwrap(),
        "--absent",
        "deactivate",
    ]);
    assert_eq!(
        again,
        "agents 0 added, 0 changed, 0 deactivated, 2 unchanged; teams 0 added, 0 changed, 1 unchanged\n"
    );
    assert_eq!(office.get("/v1/agents/maya").await.expect(200)["name"], "=Maya");
    let entries = told(&office, "people.imported").await;
    assert_eq!((entries.len(), &entries[0]["actor"]), (1, &json!("cli")));
}

#[tokio::test]
async fn people_are_looked_at_and_put_away_on_the_command_line() {
    let office = office().await;
    let desk = Desk {
        office: &office,
        dir: TempDir::new().unwrap(),
    };
    add_agents(&office, &["noor"]).await;
    put(
        &office,
        "/v1/agents/maya",
        &json!({ "name": "Maya Lopez", "supervisor": "noor", "capacity": 1 }),
    )
    .await
    .expect(200);
    put(
        &office,
        "/v1/teams/sales",
        &json!({ "name": "Sales", "time_zone": "UTC", "on_call": ["maya", "noor"] }),
    )
    .await
    .expect(200);
    office.group(1, Some("maya")).await;
    office.group(2, Some("zoe")).await;
    assert_eq!(
        desk.content(&["list"]),
        "maya  Maya Lopez  -  1 of 1 lines  holds 1 of 1 lines\n\
         noor  noor  -  0 lines  available\n\
         zoe  (unknown here)  1 lines\n"
    );
    assert_eq!(
        desk.content(&["list", "--unknown"]),
        "zoe  (unknown here)  1 lines\n"
    );
    assert!(
        desk.content(&["show", "maya"])
            .contains("supervisor   noor  noor")
    );
    assert!(desk.content(&["show", "zoe"]).contains("unknown here"));
    assert!(!desk.people(&["show", "nobody"]).0);

    let away = desk.content(&["away", "maya", "--for", "2h", "--reason", "dentist"]);
    assert!(away.starts_with("maya is away until 20"), "{away}");
    assert!(desk.content(&["list"]).contains("away until"));
    assert!(desk.content(&["show", "maya"]).contains("(dentist)"));
    assert!(
        desk.content(&["teams"])
            .contains("sales  Sales  UTC  open  on call: noor")
    );
    assert_eq!(desk.content(&["back", "maya"]), "maya is available\n");
    assert!(desk.content(&["teams"]).contains("on call: maya"));
    let (content, said) = desk.people(&["away", "zoe"]);
    assert!(!content && said.contains("no such agent"), "{said}");
    let (content, said) = desk.people(&["away", "maya", "--until", "2020-01-01T00:00:00Z"]);
    assert!(!content && said.contains("the end has passed"), "{said}");
}
