//! Over HTTP: policies with everything that is wrong told at once, escalations by hand, dry run and back-test.

use axum::body::Body;
use axum::http::{Method, Request, header};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{answer, ask, later, policy, set, slow_answer, staffed, step, told};
use crate::support::app::{LINE, TestApp};
use hookswitch::api::auth::{self, Scope};
use secrecy::ExposeSecret as _;

/// A CRM of the running service.
struct Crm {
    key: String,
    router: axum::Router,
}

async fn crm(app: &TestApp) -> Crm {
    let created = auth::create(&mut *app.conn().await, "crm", &[Scope::Admin], app.clock.now())
        .await
        .unwrap();
    Crm {
        key: created.key.expose_secret().to_owned(),
        router: hookswitch::api::router(app.app.api.clone()),
    }
}

impl Crm {
    async fn ask(&self, method: Method, path: &str, body: &Value) -> (u16, Value) {
        use http_body_util::BodyExt as _;
        use tower::ServiceExt as _;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", hookswitch::ids::new_id().to_string())
            .body(Body::from(body.to_string()))
            .unwrap();
        let answer = self.router.clone().oneshot(request).await.unwrap();
        let status = answer.status().as_u16();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&bytes).unwrap_or(Value::Null))
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.ask(Method::GET, path, &json!({})).await;
        assert_eq!(status, 200, "{body}");
        body
    }
}

#[tokio::test]
async fn a_policy_is_set_in_versions_and_everything_wrong_is_told_at_once() {
    let (app, _) = staffed().await;
    let crm = crm(&app).await;
    let path = "/v1/escalation-policies/all";
    let wrong = json!({ "name": "x", "rules": [{ "name": "a", "when": { "no_answer": "soon" },
        "steps": [{ "how": "offer", "to": { "person": "zoe" }, "for": "5m" }], "colour": 1 }] });
    let (status, problem) = crm.ask(Method::PUT, path, &wrong).await;
    assert_eq!(status, 400);
    let places: Vec<&str> = problem["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        places,
        [
            "/rules/0/colour",
            "/rules/0/when/no_answer",
            "/rules/0/steps/0/to/person"
        ]
    );

    let (status, dry) = crm
        .ask(Method::PUT, &format!("{path}?dry_run=true"), &slow_answer())
        .await;
    assert_eq!((status, &dry["version"]), (200, &json!(1)));
    assert_eq!(crm.ask(Method::GET, path, &json!({})).await.0, 404);
    let (_, first) = crm
        .ask(Method::PUT, &format!("{path}?version=0"), &slow_answer())
        .await;
    assert_eq!(
        (&first["version"], &first["enabled"], &first["document"]),
        (&json!(1), &json!(true), &slow_answer())
    );
    let (_, again) = crm
        .ask(Method::PUT, &format!("{path}?version=0"), &slow_answer())
        .await;
    assert_eq!(again, first, "what is so already is left alone");
    let mut other = slow_answer();
    other["name"] = json!("Other");
    let (status, conflict) = crm.ask(Method::PUT, &format!("{path}?version=0"), &other).await;
    assert_eq!((status, &conflict["version"]), (409, &json!(1)));
    let (_, second) = crm.ask(Method::PUT, &format!("{path}?version=1"), &other).await;
    assert_eq!(
        (&second["version"], &second["enabled_since"]),
        (&json!(2), &first["enabled_since"])
    );
    let old = crm.get(&format!("{path}?version=1")).await;
    assert_eq!(
        (
            &old["document"],
            old["created_by"].as_str().unwrap().starts_with("api_key:")
        ),
        (&slow_answer(), true)
    );
    assert_eq!(
        crm.get("/v1/escalation-policies?limit=1").await["items"][0]["version"],
        2
    );
    assert_eq!(crm.ask(Method::DELETE, path, &json!({})).await.0, 204);
    assert_eq!(crm.ask(Method::DELETE, path, &json!({})).await.0, 404);
    assert_eq!(crm.get(&format!("{path}?version=1")).await["version"], 1);
    let (_, third) = crm.ask(Method::PUT, path, &slow_answer()).await;
    assert_eq!(third["version"], 3, "no version comes twice");
}

#[tokio::test]
async fn somebody_asks_by_hand_and_somebody_stops_it() {
    let (app, sid) = staffed().await;
    let crm = crm(&app).await;
    let line = LINE.replace('+', "%2B");
    let path = format!("/v1/conversations/{sid}/lines/{line}/escalations");
    let body = json!({ "by": "maya", "reason": "asks for a manager" });
    let (status, none) = crm.ask(Method::POST, &path, &body).await;
    assert_eq!(
        (status, none["type"].as_str()),
        (409, Some("urn:hookswitch:problem:no_policy"))
    );
    let rule = json!({ "when": "asked", "steps": [step("offer", &json!("supervisor"), "10m")] });
    set(&app, "all", &policy(&rule)).await;
    let (status, begun) = crm.ask(Method::POST, &path, &body).await;
    assert_eq!(
        (status, &begun["state"], &begun["because"], &begun["asked_by"]),
        (202, &json!("open"), &json!("asked"), &json!("maya"))
    );
    let (status, twice) = crm.ask(Method::POST, &path, &body).await;
    assert_eq!(
        (status, &twice["escalation_id"], &twice["by"]),
        (409, &begun["escalation_id"], &json!("maya"))
    );
    app.settle().await;
    assert_eq!(told(&app).await, ["started", "step_taken offer noor"]);
    let id = begun["escalation_id"].as_str().unwrap();
    let shown = crm.get(&format!("/v1/escalations/{id}")).await;
    assert_eq!(
        (
            &shown["steps"][0]["outcome"],
            &shown["steps"][0]["transfer_state"]
        ),
        (&json!("started"), &json!("offered"))
    );
    let stop = format!("/v1/escalations/{id}/stop");
    let (status, stopped) = crm.ask(Method::POST, &stop, &json!({ "by": "noor" })).await;
    assert_eq!(
        (status, &stopped["why"], &stopped["stopped_by"]),
        (200, &json!("stopped_by_hand"), &json!("noor"))
    );
    let (status, over) = crm.ask(Method::POST, &stop, &json!({ "by": "noor" })).await;
    assert_eq!((status, &over["state"]), (409, &json!("stopped")));
    app.settle().await;
    let shown = crm.get(&format!("/v1/escalations/{id}")).await;
    assert_eq!(shown["steps"][0]["transfer_state"], "cancelled");

    // It is in the list, in the timeline and in the feed; what was asked for is not.
    let open = crm
        .get(&format!("/v1/escalations?conversation_sid={sid}&state=open"))
        .await;
    assert_eq!(open["items"], json!([]));
    let timeline = crm.get(&format!("/v1/conversations/{sid}/timeline")).await;
    let of_it: Vec<&str> = timeline["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|entry| entry["type"] == "escalation")
        .map(|entry| entry["event"].as_str().unwrap())
        .collect();
    assert_eq!(
        of_it,
        [
            "escalation.started",
            "escalation.step_taken",
            "escalation.stopped"
        ]
    );
    let feed = crm.get("/v1/events?types=escalation.started").await;
    assert!(!feed.to_string().contains("manager"), "{feed}");
    let (status, _) = crm
        .ask(
            Method::POST,
            &format!("/v1/conversations/{sid}/lines/%2B15555550199/escalations"),
            &body,
        )
        .await;
    assert_eq!(status, 404);
}

#[tokio::test]
async fn a_dry_run_says_what_would_happen_and_then_it_does() {
    let (app, sid) = staffed().await;
    let crm = crm(&app).await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    let path = format!("/v1/conversations/{sid}/escalations/dry-run");
    let would = crm.get(&path).await;
    let line = &would["lines"][0];
    assert_eq!(
        (&line["line"], &line["holder"], &line["policy_id"]),
        (&json!(LINE), &json!("maya"), &json!("all"))
    );
    let run = &line["escalations"][0];
    assert_eq!(
        (&run["escalation_id"], &run["because"], &run["why"]),
        (&Value::Null, &json!("no_answer"), &json!("needs_person"))
    );
    let steps: Vec<String> = run["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            format!(
                "{} {}",
                step["how"].as_str().unwrap(),
                step["to"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(steps, ["nudge maya", "offer jonas"]);
    assert_eq!(told(&app).await, Vec::<String>::new(), "nothing was done");

    let first: jiff::Timestamp = run["steps"][0]["at"].as_str().unwrap().parse().unwrap();
    app.settle_for(first.duration_since(app.clock.now()) + SignedDuration::from_millis(50))
        .await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge maya"]);
    let goes_on = crm.get(&path).await;
    let run = &goes_on["lines"][0]["escalations"][0];
    assert!(run["escalation_id"].is_string());
    assert_eq!(run["steps"].as_array().unwrap().len(), 2);
    answer(&app, &sid).await;
    assert_eq!(crm.get(&path).await["lines"][0]["escalations"], json!([]));

    // By another policy, whether it is on or not.
    let mut off = policy(&json!({
        "when": { "no_answer": "1m" }, "steps": [step("nudge", &json!("supervisor"), "5m")],
    }));
    off["enabled"] = json!(false);
    set(&app, "other", &off).await;
    ask(&app, "And?").await;
    let other = crm.get(&format!("{path}?policy_id=other")).await;
    assert_eq!(
        other["lines"][0]["escalations"][0]["steps"][0]["to"],
        json!("noor")
    );
    let unknown = crm
        .ask(Method::GET, &format!("{path}?line=%2B15555550199"), &json!({}))
        .await;
    assert_eq!(unknown.0, 404);
}

#[tokio::test]
async fn a_back_test_finds_what_was_done_live() {
    let (app, sid) = staffed().await;
    let crm = crm(&app).await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "One").await;
    later(&app, 16).await;
    answer(&app, &sid).await;
    ask(&app, "Two").await;
    later(&app, 5).await;
    answer(&app, &sid).await;
    ask(&app, "Three").await;
    later(&app, 15).await;
    later(&app, 5).await;
    later(&app, 11).await;
    assert_eq!(
        told(&app).await,
        [
            "started",
            "step_taken nudge maya",
            "stopped answered",
            "started",
            "step_taken nudge maya",
            "step_taken offer jonas",
            "needs_person needs_person"
        ]
    );
    let back = crm.get("/v1/escalation-policies/all/backtest").await;
    assert_eq!(
        back["totals"],
        json!({
            "conversations": 1,
            "escalations": 2,
            "by_rule": { "rule": 2 },
            "by_end": { "answered": 1, "needs_person": 1 },
            "steps": { "nudge": 2, "offer": 1 },
        })
    );
    assert_eq!(back["escalations"][0]["conversation_sid"], json!(sid));
    assert_eq!(back["next"], Value::Null);
    assert_eq!(
        back["basis"],
        json!({
            "as_then": ["holders", "messages", "absences"],
            "as_now": ["teams", "supervisors", "backups", "hours", "on_call", "departures"],
        })
    );
    // A stretch that begins after the last message, which waits for its answer still; in a mirror that saw it all later.
    crate::support::tables::execute(
        &app,
        "update conversation set first_seen_at = first_seen_at + interval '1 year'",
    )
    .await;
    let began = app.clock.now() - SignedDuration::from_mins(20);
    let part = crm
        .get(&format!("/v1/escalation-policies/all/backtest?from={began}"))
        .await;
    assert_eq!(part["totals"]["by_end"], json!({ "needs_person": 1 }));
    // Each within a second or two of what was really done.
    let live = crm.get("/v1/escalations").await;
    for (would, did) in back["escalations"]
        .as_array()
        .unwrap()
        .iter()
        .zip(live["items"].as_array().unwrap().iter().rev())
    {
        let at =
            |value: &Value| -> jiff::Timestamp { value["started_at"].as_str().unwrap().parse().unwrap() };
        let off = at(would).duration_until(at(did));
        assert!(
            off >= SignedDuration::ZERO && off < SignedDuration::from_secs(90),
            "{off:?}"
        );
        assert_eq!(would["why"], did["why"]);
    }
    let (status, wrong) = crm
        .ask(
            Method::GET,
            "/v1/escalation-policies/all/backtest?from=2030-01-01T00:00:00Z&to=2029-01-01T00:00:00Z&conversations=0",
            &json!({}),
        )
        .await;
    assert_eq!((status, wrong["errors"].as_array().unwrap().len()), (400, 3));
}
