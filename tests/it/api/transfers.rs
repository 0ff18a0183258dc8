//! Transfers and sends as the API tells of them, and every way in which they are refused.

use axum::body::Body;
use axum::http::{Request, header};
use hookswitch::api::auth::Scope;
use serde_json::{Value, json};

use super::{LINE, OTHER_LINE, Office, closed, conversation_sid, left, office, seat};

fn transfer(conversation: &impl ToString, kind: &str, to: &str) -> Value {
    json!({ "conversation_sid": conversation.to_string(), "kind": kind, "to": to, "requested_by": "maya" })
}

impl Office {
    /// The problem that a transfer is refused with, without what all problems have.
    async fn refusal(&self, body: &Value) -> (u16, String, Value) {
        self.refusal_of("/v1/transfers", body).await
    }

    async fn refusal_of(&self, path: &str, body: &Value) -> (u16, String, Value) {
        let answer = self.post(path, body).await;
        let problem = answer.problem();
        let mut facts = answer.json();
        for common in ["type", "title", "status", "detail"] {
            facts.as_object_mut().unwrap().remove(common);
        }
        (answer.status.as_u16(), problem, facts)
    }
}

fn refused(code: &str, facts: Value) -> (u16, String, Value) {
    (409, code.to_owned(), facts)
}

#[tokio::test]
async fn a_warm_transfer_is_offered_and_accepted_by_its_target_only() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let mut body = transfer(&group, "warm", "noor");
    body["note"] = json!("Wants to know about the mortgage.\nIs in a hurry.");
    body["offer_timeout"] = json!("5m");
    let started = office.post("/v1/transfers", &body).await;
    let offered = started.expect(202);
    // Who may read conversations alone is not told what was written for the colleague.
    let path = format!("/v1/conversations/{group}");
    let crm = office.key_with(&[Scope::ConversationsRead]).await;
    let request = Request::get(&path).header(header::AUTHORIZATION, format!("Bearer {crm}"));
    let shown = office
        .send(request.body(Body::empty()).unwrap())
        .await
        .expect(200);
    assert_eq!(shown["open_transfers"][0]["note"], Value::Null);
    let shown = office.get(&path).await.expect(200);
    assert_eq!(shown["open_transfers"][0]["note"], body["note"]);
    insta::assert_json_snapshot!(offered, { ".transfer_id" => "[id]" }, @r#"
    {
      "contested_from": null,
      "contested_to": null,
      "conversation_sid": "CH00000000000000000000000000000001",
      "created_at": "2026-03-01T14:00:00Z",
      "decided_as": null,
      "decided_by": null,
      "finished_at": null,
      "from": "maya",
      "introduction": null,
      "kind": "warm",
      "line": "+15017122661",
      "method": null,
      "note": "Wants to know about the mortgage.\nIs in a hurry.",
      "offer_expires_at": "2026-03-01T14:05:00Z",
      "outcome_code": null,
      "outcome_detail": null,
      "reason": null,
      "requested_by": "maya",
      "state": "offered",
      "superseded_by": null,
      "supersedes": null,
      "to": "noor",
      "transfer_id": "[id]",
      "updated_at": "2026-03-01T14:00:00Z",
      "waiting_error": null,
      "waiting_for": "answer",
      "waiting_since": "2026-03-01T14:00:00Z"
    }
    "#);
    let location = started.header("location").unwrap().to_owned();

    let conversation = office
        .get(&format!("/v1/conversations/{group}"))
        .await
        .expect(200);
    assert_eq!(conversation["open_transfers"][0], offered);
    let waiting = office.get("/v1/transfers?to=noor&open=true").await.expect(200);
    assert_eq!(waiting["items"], json!([offered]));

    let stranger = office
        .refusal_of(&format!("{location}/accept"), &json!({ "by": "zoe" }))
        .await;
    assert_eq!(stranger, refused("not_the_target", json!({ "to": "noor" })));
    let accepted = office
        .post(&format!("{location}/accept"), &json!({ "by": "noor" }))
        .await
        .expect(200);
    assert_eq!(
        (&accepted["state"], &accepted["decided_by"]),
        (&json!("swapping"), &json!("noor"))
    );
    for action in ["accept", "decline", "cancel"] {
        let late = office
            .refusal_of(&format!("{location}/{action}"), &json!({ "by": "noor" }))
            .await;
        let facts = json!({ "state": "swapping", "by": "noor", "at": "2026-03-01T14:00:00Z" });
        assert_eq!(late, refused("transfer_not_open", facts), "{action}");
    }
    let shown = office.get(&location).await.expect(200);
    assert_eq!(shown["steps"], json!([]));
    assert_eq!(shown["state"], "swapping");
}

#[tokio::test]
async fn an_offer_is_declined_by_its_target_and_cancelled_by_whoever_asked() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    for (action, by, state) in [("decline", "noor", "declined"), ("cancel", "maya", "cancelled")] {
        let started = office
            .post("/v1/transfers", &transfer(&group, "escalation", "noor"))
            .await;
        started.expect(202);
        let path = format!("{}/{action}", started.header("location").unwrap());
        let ended = office.post(&path, &json!({ "by": by })).await.expect(200);
        assert_eq!(
            (&ended["state"], &ended["decided_by"]),
            (&json!(state), &json!(by))
        );
        assert_eq!(ended["finished_at"], "2026-03-01T14:00:00Z");
    }
    let open = office.get("/v1/transfers?open=true").await.expect(200);
    assert_eq!(open["items"], json!([]));
}

#[tokio::test]
async fn every_reason_not_to_start_a_transfer_is_told_with_its_facts() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;

    let unknown = office
        .refusal(&transfer(&conversation_sid(99), "cold", "noor"))
        .await;
    assert_eq!(unknown, (404, "not_found".to_owned(), json!({})));

    let assign = office.refusal(&transfer(&group, "assign", "noor")).await;
    assert_eq!(assign, refused("line_staffed", json!({ "holder": "maya" })));

    let same = office.refusal(&transfer(&group, "cold", "maya")).await;
    assert_eq!(same, refused("already_holder", json!({})));

    let mut other_line = transfer(&group, "cold", "noor");
    other_line["line"] = json!(OTHER_LINE);
    assert_eq!(
        office.refusal(&other_line).await,
        refused("line_not_found", json!({}))
    );

    office
        .observe(vec![seat(&group, 4, OTHER_LINE, Some("zoe"), 10)])
        .await;
    let ambiguous = office.refusal(&transfer(&group, "cold", "noor")).await;
    assert_eq!(ambiguous, refused("line_ambiguous", json!({ "lines": 2 })));

    let mut elsewhere = transfer(&group, "cold", "zoe");
    elsewhere["line"] = json!(LINE);
    assert_eq!(
        office.refusal(&elsewhere).await,
        refused("target_in_group", json!({}))
    );

    let mut warm = transfer(&group, "warm", "noor");
    warm["line"] = json!(LINE);
    let open = office.post("/v1/transfers", &warm).await.expect(202);
    warm["to"] = json!("ada");
    warm["if_open"] = json!("refuse");
    let facts = json!({
        "transfer_id": open["transfer_id"], "to": "noor", "state": "offered", "by": "maya", "since": "2026-03-01T14:00:00Z",
    });
    assert_eq!(
        office.refusal(&warm).await,
        refused("transfer_already_open", facts)
    );

    let unstaffed = office.group(2, None).await;
    let cold = office.refusal(&transfer(&unstaffed, "cold", "noor")).await;
    assert_eq!(cold, refused("line_unstaffed", json!({})));

    office.observe(vec![left(&unstaffed, 3, 10)]).await;
    let gone = office.refusal(&transfer(&unstaffed, "assign", "noor")).await;
    assert_eq!(
        gone,
        refused("line_not_found", json!({})),
        "a number that was taken out is no line"
    );

    office.observe(vec![closed(&group, 20)]).await;
    let closed = office.refusal(&transfer(&group, "cold", "ada")).await;
    assert_eq!(closed, refused("conversation_closed", json!({})));
}

#[tokio::test]
async fn deciding_about_a_transfer_that_is_not_there_is_404() {
    let office = office().await;
    for action in ["accept", "decline", "cancel"] {
        let path = format!("/v1/transfers/0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01/{action}");
        assert_eq!(
            office.post(&path, &json!({ "by": "noor" })).await.problem(),
            "not_found"
        );
    }
}

#[tokio::test]
async fn a_message_is_taken_and_can_be_followed() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let path = format!("/v1/conversations/{group}/messages");
    let body = json!({ "body": "é".repeat(1600), "line": LINE, "as": "maya", "attributes": { "task": 7 } });
    let answer = office.post(&path, &body).await;
    let taken = answer.expect(202);
    insta::assert_json_snapshot!(taken, {
        ".send_id" => "[id]",
        ".requested_by" => "[key]",
        ".body" => insta::dynamic_redaction(|value, _| {
            assert_eq!(value.as_str().unwrap().chars().count(), 1600);
            "[1600 characters]"
        }),
    }, @r#"
    {
      "acknowledged_opt_out": false,
      "as": "maya",
      "attributes": {
        "task": 7
      },
      "author": null,
      "body": "[1600 characters]",
      "conversation_sid": "CH00000000000000000000000000000001",
      "created_at": "2026-03-01T14:00:00Z",
      "held_since": null,
      "line": "+15017122661",
      "media": [],
      "message_sid": null,
      "outcome_code": null,
      "outcome_detail": null,
      "requested_by": "[key]",
      "send_id": "[id]",
      "state": "queued",
      "updated_at": "2026-03-01T14:00:00Z",
      "waiting_error": null,
      "waiting_since": null
    }
    "#);
    assert_eq!(
        office.get(answer.header("location").unwrap()).await.expect(200),
        taken
    );
    let sends = office
        .get(&format!("/v1/conversations/{group}/sends"))
        .await
        .expect(200);
    assert_eq!(sends, json!({ "items": [taken], "next": null }));
}

#[tokio::test]
async fn every_reason_not_to_take_a_message_is_told_with_its_facts() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let path = format!("/v1/conversations/{group}/messages");
    let refusal = async |body: Value| office.refusal_of(&path, &body).await;

    let elsewhere = format!("/v1/conversations/{}/messages", conversation_sid(99));
    let unknown = office.refusal_of(&elsewhere, &json!({ "body": "x" })).await;
    assert_eq!(unknown, (404, "not_found".to_owned(), json!({})));
    assert_eq!(
        refusal(json!({ "body": "x", "as": "noor" })).await,
        refused("not_the_holder", json!({ "holder": "maya" }))
    );
    assert_eq!(
        refusal(json!({ "body": "x", "line": OTHER_LINE })).await,
        refused("line_not_found", json!({}))
    );
    office
        .observe(vec![seat(&group, 4, OTHER_LINE, Some("zoe"), 10)])
        .await;
    assert_eq!(
        refusal(json!({ "body": "x" })).await,
        refused("line_ambiguous", json!({ "lines": 2 }))
    );
    office.observe(vec![closed(&group, 20)]).await;
    assert_eq!(
        refusal(json!({ "body": "x" })).await,
        refused("conversation_closed", json!({}))
    );
    for wrong in [
        json!(""),
        json!(" \n"),
        json!("x".repeat(1601)),
        json!(null),
        json!(7),
    ] {
        let (status, problem, facts) = refusal(json!({ "body": wrong })).await;
        assert_eq!((status, problem.as_str()), (400, "invalid"));
        assert_eq!(facts["errors"][0]["field"], "/body");
    }
}
