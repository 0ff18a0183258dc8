//! The queue, the timeline and new group texts as a CRM sees them.

use hookswitch::api::auth::{self, Scope};
use hookswitch::numbers::Rule;
use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{put_number, queue, sales, set_away, started, wanted};
use crate::support::app::{BUYER, LINE, OTHER_LINE, PARTNER, TestApp, http};

struct Crm<'a> {
    app: &'a TestApp,
    key: String,
}

impl<'a> Crm<'a> {
    async fn of(app: &'a TestApp) -> Self {
        let scopes = [Scope::Admin];
        let key = auth::create(&mut *app.conn().await, "crm", &scopes, app.clock.now())
            .await
            .unwrap();
        Self {
            app,
            key: key.key.expose_secret().to_owned(),
        }
    }

    async fn get(&self, path: &str) -> Value {
        let url = format!("{}{path}", self.app.url);
        let answer = http().get(url).bearer_auth(&self.key).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    /// The status and the body.
    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let answer = http()
            .post(format!("{}{path}", self.app.url))
            .bearer_auth(&self.key)
            .header("Idempotency-Key", hookswitch::ids::new_id().to_string())
            .json(body)
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn put_availability(&self, identity: &str, status: &str) {
        let answer = http()
            .put(format!("{}/v1/agents/{identity}/availability", self.app.url))
            .bearer_auth(&self.key)
            .json(&json!({ "status": status }))
            .send()
            .await
            .unwrap();
        assert_eq!(answer.status(), 200);
    }
}

#[tokio::test]
async fn what_waits_is_listed_with_its_age_and_taken_once() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben"], Some(Rule::RoundRobin)).await;
    set_away(&app, "ada", true).await;
    set_away(&app, "ben", true).await;
    let sid = started(&app).await;
    app.advance(SignedDuration::from_mins(5));
    let crm = Crm::of(&app).await;
    let listed = crm.get("/v1/queue?team=sales").await;
    let mut item = listed["items"][0].clone();
    assert!(item["age_seconds"].as_i64().unwrap() >= 300, "{item}");
    for differs in ["age_seconds", "since", "last_message_at", "conversation_sid"] {
        assert!(!item[differs].is_null(), "{differs}");
        item.as_object_mut().unwrap().remove(differs);
    }
    insta::assert_json_snapshot!(item, @r#"
    {
      "last_holder": null,
      "line": "+15017122661",
      "passed": [
        {
          "identity": "ada",
          "why": "away"
        },
        {
          "identity": "ben",
          "why": "away"
        }
      ],
      "reason": "nobody_free",
      "team": "sales"
    }
    "#);
    let others = crm.get("/v1/queue?team=night").await;
    assert_eq!(others["items"], json!([]));

    let take = |by: &str| json!({ "conversation_sid": sid, "by": by });
    let (status, transfer) = crm.post("/v1/queue/take", &take("ben")).await;
    assert_eq!(
        (status, &transfer["kind"], &transfer["to"]),
        (202, &json!("assign"), &json!("ben"))
    );
    let (status, refused) = crm.post("/v1/queue/take", &take("ada")).await;
    assert_eq!(status, 409, "{refused}");
    assert_eq!(refused["type"], "urn:hookswitch:problem:already_taken");
    assert_eq!(
        (&refused["by"], &refused["transfer_id"]),
        (&json!("ben"), &transfer["transfer_id"])
    );
    assert!(refused["at"].is_string());
    let (status, unknown) = crm
        .post(
            "/v1/queue/take",
            &json!({ "conversation_sid": "CH00000000000000000000000000000099", "by": "ada" }),
        )
        .await;
    assert_eq!(status, 404, "{unknown}");
    let (status, wrong) = crm.post("/v1/queue/take", &json!({ "line": 5 })).await;
    assert_eq!(
        (status, wrong["errors"].as_array().unwrap().len()),
        (400, 3),
        "{wrong}"
    );
    app.settle_for(SignedDuration::from_secs(5)).await;

    let timeline = crm.get(&format!("/v1/conversations/{sid}/timeline")).await;
    let told: Vec<&str> = timeline["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|item| item["type"] == "assignment")
        .map(|item| item["event"].as_str().unwrap())
        .collect();
    assert_eq!(told, ["line.queued", "line.taken"]);
}

#[tokio::test]
async fn who_says_that_they_are_back_is_given_what_waits_at_once() {
    let app = TestApp::start().await;
    sales(&app, &["ada"], Some(Rule::LeastLoaded)).await;
    set_away(&app, "ada", true).await;
    let sid = started(&app).await;
    assert_eq!(queue(&app).await, ["nobody_free"]);
    let crm = Crm::of(&app).await;
    crm.put_availability("ada", "available").await;
    app.settle().await;
    assert_eq!(super::holder(&app, &sid).await.as_deref(), Some("ada"));
}

#[tokio::test]
async fn a_group_text_asks_for_any_number_of_a_team() {
    let app = TestApp::start().await;
    sales(&app, &["maya"], None).await;
    put_number(&app, OTHER_LINE, wanted(None)).await;
    let crm = Crm::of(&app).await;
    let members = |ours: Value| json!([ours, { "address": BUYER }, { "address": PARTNER }]);
    let any = json!({ "line_of_team": "sales", "holder": "maya" });
    let body = json!({ "members": members(any.clone()) });
    let (status, group) = crm.post("/v1/group-texts", &body).await;
    assert_eq!(
        (status, &group["members"][0]["line"], &group["if_exists"]),
        (202, &json!(LINE), &json!("other_number"))
    );
    app.settle_for(SignedDuration::from_secs(3)).await;

    let ours = json!({ "line": LINE, "holder": "maya" });
    let adopt = json!({ "members": members(ours.clone()), "if_exists": "adopt" });
    let (status, same) = crm.post("/v1/group-texts", &adopt).await;
    assert_eq!((status, &same["adopted"]), (200, &json!(true)), "{same}");
    assert_eq!(same["group_text_id"], group["group_text_id"]);
    let refuse = json!({ "members": members(ours), "if_exists": "refuse" });
    let (status, refused) = crm.post("/v1/group-texts", &refuse).await;
    assert_eq!(
        (status, &refused["type"]),
        (409, &json!("urn:hookswitch:problem:group_exists"))
    );
    assert_eq!(refused["conversation_sid"], same["conversation_sid"]);

    let (status, _) = crm.post("/v1/group-texts", &body).await;
    assert_eq!(status, 202, "the other number");
    let (status, none) = crm.post("/v1/group-texts", &body).await;
    assert_eq!(
        (status, &none["type"]),
        (409, &json!("urn:hookswitch:problem:no_free_number"))
    );
    assert_eq!(none["numbers"], json!({ "taken": 2 }));
    assert!(!none.to_string().contains(&LINE[1..]), "{none}");

    let twice = json!({ "members": [any.clone(), any, { "address": BUYER, "line_of_team": "Sales" }], "if_exists": "perhaps" });
    let (status, wrong) = crm.post("/v1/group-texts", &twice).await;
    assert_eq!(status, 400, "{wrong}");
    let unknown_team = json!({ "members": members(json!({ "line_of_team": "night" })) });
    let (status, none) = crm.post("/v1/group-texts", &unknown_team).await;
    assert_eq!(
        (status, &none["type"], &none["team"]),
        (
            409,
            &json!("urn:hookswitch:problem:team_unknown"),
            &json!("night")
        )
    );
}
