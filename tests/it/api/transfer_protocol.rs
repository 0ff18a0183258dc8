//! Who may do what with a line, through the API: supervisors, holders, those who are offered it.

use hookswitch::api::auth::Scope;
use hookswitch::mirror::change::Change;
use serde_json::{Value, json};

use super::{Answer, LINE, Office, message, office};
use crate::support::sql;

impl Office {
    /// A POST with another key.
    async fn post_with(&self, key: &str, path: &str, body: &Value) -> Answer {
        let mut request = self.posting(&hookswitch::ids::new_id().to_string(), path, body);
        let bearer = format!("Bearer {key}").parse().unwrap();
        request.headers_mut().insert("authorization", bearer);
        self.send(request).await
    }

    async fn get_with(&self, key: &str, path: &str) -> Answer {
        let request = axum::http::Request::get(path).header("authorization", format!("Bearer {key}"));
        self.send(request.body(axum::body::Body::empty()).unwrap()).await
    }

    /// What the log has of a kind: the data of each entry. Not by the feed, which waits for what other tests write.
    async fn told(&self, kind: &str) -> Vec<Value> {
        let sql = format!("select data from event where type = '{kind}' order by commit_xid, event_id");
        let data = sql::values(&self.pool, &sql).await;
        data.iter()
            .map(|data| serde_json::from_str(data).unwrap())
            .collect()
    }
}

fn offer(group: &impl ToString, to: &str) -> Value {
    json!({ "conversation_sid": group.to_string(), "kind": "warm", "to": to, "requested_by": "maya" })
}

#[tokio::test]
async fn only_a_key_that_supervises_answers_in_somebody_s_place() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let plain = office.key_with(&[Scope::TransfersWrite]).await;
    let supervises = office
        .key_with(&[Scope::TransfersWrite, Scope::TransfersSupervise])
        .await;
    let offered = office
        .post("/v1/transfers", &offer(&group, "noor"))
        .await
        .expect(202);
    let accept = format!(
        "/v1/transfers/{}/accept",
        offered["transfer_id"].as_str().unwrap()
    );
    let for_noor = json!({ "by": "sam", "as": "noor" });
    let refused = office.post_with(&plain, &accept, &for_noor).await;
    assert_eq!(refused.problem(), "missing_scope");
    assert!(
        refused.json()["detail"]
            .as_str()
            .unwrap()
            .contains("transfers:supervise")
    );
    let for_herself = json!({ "by": "noor", "as": "noor" });
    let other = office
        .post_with(&supervises, &accept, &json!({ "by": "sam", "as": "zoe" }))
        .await;
    assert_eq!(other.problem(), "not_the_target");
    let accepted = office
        .post_with(&supervises, &accept, &for_noor)
        .await
        .expect(200);
    assert_eq!(
        (&accepted["decided_by"], &accepted["decided_as"]),
        (&json!("sam"), &json!("noor"))
    );
    // To stand in for oneself is nothing special; and who is late hears who was not.
    let late = office.post_with(&plain, &accept, &for_herself).await;
    assert_eq!(late.problem(), "transfer_not_open");
    assert_eq!(late.json()["by"], "sam");

    // Each refusal is on record, but not that a key may not.
    let id = &offered["transfer_id"];
    let refusals = office.told("transfer.refused").await;
    assert_eq!(
        refusals,
        [
            json!({ "verb": "accept", "by": "sam", "code": "not_the_target" }),
            json!({ "verb": "accept", "by": "noor", "code": "transfer_not_open" }),
        ]
    );
    let about = "select subject || ' ' || conversation_sid || ' ' || actor from event
        where type = 'transfer.refused' order by commit_xid, event_id";
    let about = sql::values(&office.pool, about).await;
    let id = id.as_str().unwrap();
    assert_eq!(about, [format!("{id} {group} sam"), format!("{id} {group} noor")]);
}

#[tokio::test]
async fn a_line_is_forced_released_and_handed_back() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let by = |by: &str| json!({ "conversation_sid": group.to_string(), "by": by });

    let stranger = office.post("/v1/transfers/release", &by("zoe")).await;
    assert_eq!(stranger.problem(), "not_the_holder");
    assert_eq!(stranger.json()["holder"], "maya");
    let back = office.post("/v1/transfers/handback", &by("maya")).await;
    assert_eq!(back.problem(), "no_previous_holder");
    let verbs: Vec<Value> = office
        .told("transfer.refused")
        .await
        .into_iter()
        .map(|data| data["verb"].clone())
        .collect();
    assert_eq!(verbs, ["release", "handback"]);

    let offered = office
        .post("/v1/transfers", &offer(&group, "noor"))
        .await
        .expect(202);
    let mut force = by("sam");
    force["to"] = json!("sam");
    force["reason"] = json!("maya is not well");
    let answer = office.post("/v1/transfers/force", &force).await;
    let forced = answer.expect(202);
    assert_eq!(
        (&forced["kind"], &forced["state"], &forced["supersedes"]),
        (&json!("force"), &json!("swapping"), &offered["transfer_id"])
    );
    let shown = office.get(answer.header("location").unwrap()).await.expect(200);
    assert_eq!(shown["requested_by"], "sam");
    force["to"] = json!("ada");
    let second = office.post("/v1/transfers/force", &force).await;
    assert_eq!(second.problem(), "transfer_already_open");
    assert_eq!(
        (&second.json()["by"], &second.json()["state"]),
        (&json!("sam"), &json!("swapping"))
    );
    let superseded = office.told("transfer.superseded").await;
    assert_eq!(superseded.len(), 1);
    assert_eq!(
        (&superseded[0]["to"], &superseded[0]["superseded_by"]),
        (&json!("noor"), &forced["transfer_id"])
    );

    let other = office.group(2, Some("maya")).await;
    let release =
        json!({ "conversation_sid": other, "by": "maya", "line": LINE, "introduction": "Nobody says this" });
    let released = office.post("/v1/transfers/release", &release).await.expect(202);
    assert_eq!(
        (&released["kind"], &released["to"], &released["introduction"]),
        (&json!("release"), &Value::Null, &Value::Null)
    );
}

#[tokio::test]
async fn a_list_is_checked_whole_before_anybody_is_asked() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let with = |to: Value, candidates: Value, kind: &str| {
        json!({
            "conversation_sid": group, "kind": kind, "requested_by": "maya", "to": to, "candidates": candidates,
        })
    };
    let everybody: Vec<Value> = (0..21)
        .map(|place| json!({ "to": format!("agent-{place}") }))
        .collect();
    let twice = json!([{ "to": "noor" }, { "to": "ada" }, { "to": "noor" }]);
    for (body, field, code) in [
        (with(json!(null), json!(null), "warm"), "/to", "missing"),
        (
            with(json!("noor"), json!([{ "to": "ada" }]), "warm"),
            "/candidates",
            "not_both",
        ),
        (with(json!(null), json!([]), "warm"), "/candidates", "malformed"),
        (
            with(json!(null), json!(everybody), "warm"),
            "/candidates",
            "malformed",
        ),
        (
            with(json!(null), twice.clone(), "warm"),
            "/candidates/2/to",
            "duplicate",
        ),
        (
            with(json!(null), json!([{ "to": "noor" }, { "to": "ada" }]), "cold"),
            "/candidates",
            "not_offered",
        ),
        (
            with(json!(null), json!([{ "to": "noor", "wait": "5m" }]), "warm"),
            "/candidates/0/wait",
            "malformed",
        ),
        (
            with(
                json!(null),
                json!([{ "to": "noor", "offer_timeout": "0s" }]),
                "warm",
            ),
            "/candidates/0/offer_timeout",
            "malformed",
        ),
        (with(json!("noor"), json!(null), "force"), "/kind", "malformed"),
        (with(json!("noor"), json!(null), "release"), "/kind", "malformed"),
    ] {
        let answer = office.post("/v1/transfers", &body).await;
        assert_eq!(answer.problem(), "invalid", "{body}");
        let errors = answer.json()["errors"].clone();
        assert_eq!(
            (&errors[0]["field"], &errors[0]["code"]),
            (&json!(field), &json!(code)),
            "{errors}"
        );
    }
    let list = json!([{ "to": "maya" }, { "to": "noor", "offer_timeout": "2m" }, { "to": "ada" }]);
    let mut body = with(json!(null), list, "warm");
    body["offer_timeout"] = json!("10m");
    let answer = office.post("/v1/transfers", &body).await;
    let started = answer.expect(202);
    assert_eq!(
        (&started["to"], &started["offer_expires_at"]),
        (&json!("noor"), &json!("2026-03-01T14:02:00Z"))
    );
    let shown = office.get(answer.header("location").unwrap()).await.expect(200);
    let brief: Vec<Value> = shown["candidates"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| json!([one["to"], one["state"], one["reason"], one["offer_seconds"]]))
        .collect();
    assert_eq!(
        brief,
        [
            json!(["maya", "skipped", "already_holder", 600]),
            json!(["noor", "offered", null, 120]),
            json!(["ada", "waiting", null, 600]),
        ]
    );
    // What one has is nobody else's.
    let list = json!([{ "to": "noor", "offer_timeout": "2m" }, { "to": "ada" }]);
    let answer = office
        .post("/v1/transfers", &with(json!(null), list, "warm"))
        .await;
    answer.expect(202);
    let shown = office.get(answer.header("location").unwrap()).await.expect(200);
    let seconds: Vec<&Value> = (0..2)
        .map(|place| &shown["candidates"][place]["offer_seconds"])
        .collect();
    assert_eq!(seconds, [&json!(120), &json!(900)]);
}

#[tokio::test]
async fn the_one_who_is_offered_a_line_reads_the_thread_and_nobody_else_does() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    for index in 0..3 {
        let said = message(&group, index, "+15555550101", 1, i64::from(index) * 10 + 10);
        office.observe(vec![Change::Message(said)]).await;
    }
    let key = office.key_with(&[Scope::TransfersRead]).await;
    let offered = office
        .post("/v1/transfers", &offer(&group, "noor"))
        .await
        .expect(202);
    let id = offered["transfer_id"].as_str().unwrap();
    let path = format!("/v1/transfers/{id}/thread");
    let read = async |who: &str| office.get_with(&key, &format!("{path}?as={who}&limit=2")).await;

    let document = office.get("/openapi.json").await.expect(200);
    let parameters = &document["paths"]["/v1/transfers/{transfer_id}/thread"]["get"]["parameters"];
    let reader = parameters
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["name"] == "as");
    let reader = reader.unwrap_or_else(|| panic!("no `as` among {parameters}"));
    assert_eq!(reader["required"], true);
    assert_eq!(office.get_with(&key, &path).await.problem(), "invalid");
    assert_eq!(read("zoe").await.problem(), "not_the_target");
    let page = read("noor").await.expect(200);
    let bodies = |page: &Value| -> Vec<Value> {
        let items = page["items"].as_array().unwrap();
        items.iter().map(|item| item["body"].clone()).collect()
    };
    assert_eq!(bodies(&page), ["text 0", "text 1"]);
    let next = page["next"].as_str().unwrap();
    let rest = office
        .get_with(&key, &format!("{path}?as=noor&cursor={next}"))
        .await
        .expect(200);
    assert_eq!(bodies(&rest), ["text 2"]);
    let shown = office.get(&format!("/v1/transfers/{id}")).await.expect(200);
    assert_eq!(shown["candidates"][0]["briefed_at"], "2026-03-01T14:00:00Z");
    assert_eq!(office.told("transfer.thread_read").await.len(), 2);

    office
        .post(&format!("/v1/transfers/{id}/decline"), &json!({ "by": "noor" }))
        .await
        .expect(200);
    let after = read("noor").await;
    assert_eq!(
        after.problem(),
        "transfer_not_open",
        "only while the offer stands"
    );
}

#[tokio::test]
async fn what_colleagues_write_to_each_other_takes_the_scope_for_transfers() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let mut body = offer(&group, "noor");
    body["note"] = json!("Their budget is tight.");
    body["introduction"] = json!("Noor here.");
    office.post("/v1/transfers", &body).await.expect(202);
    let path = format!("/v1/conversations/{group}");
    let only_conversations = office.key_with(&[Scope::ConversationsRead]).await;
    let shown = office.get_with(&only_conversations, &path).await.expect(200);
    let open = &shown["open_transfers"][0];
    assert_eq!(
        (&open["to"], &open["note"], &open["introduction"]),
        (&json!("noor"), &Value::Null, &Value::Null)
    );
    let both = office
        .key_with(&[Scope::ConversationsRead, Scope::TransfersRead])
        .await;
    let shown = office.get_with(&both, &path).await.expect(200);
    assert_eq!(shown["open_transfers"][0]["note"], "Their budget is tight.");
    let offered = office.told("transfer.offered").await;
    assert_eq!(
        (&offered[0]["has_note"], &offered[0]["has_introduction"]),
        (&json!(true), &json!(true))
    );
    assert!(!offered[0].to_string().contains("budget"));
}

#[tokio::test]
async fn of_a_list_those_are_asked_who_can_take_a_line_now() {
    let office = office().await;
    let put = async |path: &str, body: Value| {
        let request = axum::http::Request::put(path)
            .header("authorization", format!("Bearer {}", office.key))
            .header("content-type", "application/json")
            .body(axum::body::Body::from(body.to_string()));
        office.send(request.unwrap()).await.expect(200);
    };
    put("/v1/agents/noor", json!({ "name": "Noor" })).await;
    put(
        "/v1/agents/noor/availability",
        json!({ "status": "away", "reason": "dentist" }),
    )
    .await;
    put("/v1/agents/ada", json!({ "name": "Ada", "capacity": 1 })).await;
    put(
        "/v1/agents/zoe",
        json!({ "name": "Zoe", "left_at": "2026-01-01T00:00:00Z" }),
    )
    .await;
    // What is offered may become theirs, and counts.
    let other = office.group(2, Some("maya")).await;
    let first = office
        .post("/v1/transfers", &offer(&other, "ada"))
        .await
        .expect(202);
    assert_eq!(first["to"], "ada");

    let group = office.group(1, Some("maya")).await;
    let list = json!({
        "conversation_sid": group.to_string(),
        "kind": "warm",
        "requested_by": "maya",
        // Nobody has added sam: nothing stands against him.
        "candidates": [{ "to": "noor" }, { "to": "ada" }, { "to": "zoe" }, { "to": "sam" }],
    });
    let offered = office.post("/v1/transfers", &list).await.expect(202);
    assert_eq!(offered["to"], "sam");
    let skipped = office.told("transfer.skipped").await;
    let reasons: Vec<_> = skipped
        .iter()
        .map(|one| one["why"].as_str().unwrap_or("?"))
        .collect();
    assert_eq!(reasons, ["away", "at_capacity", "left"], "{skipped:?}");

    // Who is named alone is asked, away or not; but for one who has left.
    let noor = office
        .post("/v1/transfers", &offer(&group, "noor"))
        .await
        .expect(202);
    assert_eq!(noor["to"], "noor");
    let zoe = office.post("/v1/transfers", &offer(&group, "zoe")).await;
    assert_eq!(
        (zoe.status.as_u16(), zoe.problem().as_str()),
        (409, "nobody_free")
    );
}

#[tokio::test]
async fn what_colleagues_write_to_each_other_is_for_keys_that_read_transfers() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let writes = office.key_with(&[Scope::TransfersWrite]).await;
    let mut body = offer(&group, "noor");
    body["reason"] = "closing on Friday".into();
    body["note"] = "wants a second viewing".into();
    body["introduction"] = "Hello, Noor here".into();
    let offered = office.post("/v1/transfers", &body).await.expect(202);
    assert_eq!(offered["note"], "wants a second viewing");
    let cancel = format!(
        "/v1/transfers/{}/cancel",
        offered["transfer_id"].as_str().unwrap()
    );
    let cancelled = office
        .post_with(&writes, &cancel, &json!({ "by": "maya" }))
        .await
        .expect(200);
    assert_eq!(cancelled["state"], "cancelled");
    let begun = office
        .post_with(&writes, "/v1/transfers", &body)
        .await
        .expect(202);
    for shown in [cancelled, begun] {
        for member in ["reason", "note", "introduction"] {
            assert_eq!(shown[member], Value::Null, "{member}");
        }
    }
}
