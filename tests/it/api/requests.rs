//! Requests that are wrong: each is refused with a problem that says where, and never with a 5xx.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{Request, header};
use axum::routing::get;
use hookswitch::web::fallback::not_found;
use hookswitch::web::request::{attend, bound};
use serde_json::{Value, json};

use super::{Answer, Office, office};

const JSON: Option<&str> = Some("application/json");
const PROBE: &str = "/v1/conversations/CH00000000000000000000000000000001/messages";

impl Office {
    async fn post_raw(&self, content_type: Option<&str>, body: impl Into<Body>) -> Answer {
        let mut request = Request::post(PROBE)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header("idempotency-key", hookswitch::ids::new_id().to_string());
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    async fn errors(&self, path: &str, body: &Value) -> Value {
        let answer = self.post(path, body).await;
        assert_eq!(answer.problem(), "invalid");
        answer.json()["errors"].clone()
    }
}

#[tokio::test]
async fn a_body_that_is_no_json_of_the_right_kind_is_refused() {
    let office = office().await;
    office.group(1, Some("maya")).await;
    let good = r#"{"body": "hello"}"#;
    let deep = format!(
        r#"{{"body": "x", "attributes": {}1{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let cases: Vec<(Answer, &str)> = vec![
        (office.post_raw(None, good).await, "unsupported_media_type"),
        (
            office.post_raw(Some("text/plain"), good).await,
            "unsupported_media_type",
        ),
        (
            office
                .post_raw(Some("application/x-www-form-urlencoded"), "body=x")
                .await,
            "unsupported_media_type",
        ),
        (office.post_raw(JSON, "").await, "malformed"),
        (office.post_raw(JSON, "{").await, "malformed"),
        (office.post_raw(JSON, format!("{good} {good}")).await, "malformed"),
        (office.post_raw(JSON, r#"{"body": "\ud800"}"#).await, "malformed"),
        (
            office.post_raw(JSON, b"{\"body\": \"\xff\"}".to_vec()).await,
            "malformed",
        ),
        (office.post_raw(JSON, deep).await, "malformed"),
        (office.post_raw(JSON, "[]").await, "invalid"),
        (
            office.post_raw(JSON, r#"{"body": "a", "body": "b"}"#).await,
            "invalid",
        ),
        (office.post_raw(JSON, r#"{"body": "a\u0000b"}"#).await, "invalid"),
        (office.post_raw(JSON, r#"{"body": 1e400}"#).await, "malformed"),
        (
            office.post_raw(JSON, vec![b' '; 64 * 1024 + 1]).await,
            "too_large",
        ),
    ];
    for (answer, problem) in cases {
        assert_eq!(answer.problem(), problem, "{answer:?}");
    }
    let accepted = office
        .post_raw(Some("application/json; charset=utf-8"), good)
        .await;
    assert_eq!(accepted.status, 202);
}

#[tokio::test]
async fn everything_wrong_with_a_request_is_told_at_once() {
    let office = office().await;
    let transfer = json!({
        "conversation_sid": "CH1",
        "line": "501-712-2661",
        "kind": "hot",
        "to": "+15555550101",
        "reason": "",
        "note": "é".repeat(3000),
        "offer_timeout": "0s",
    });
    insta::assert_json_snapshot!(office.errors("/v1/transfers", &transfer).await, @r#"
    [
      {
        "code": "malformed",
        "field": "/conversation_sid",
        "message": "expected a SID like CH0123456789abcdef0123456789abcdef (CH and 32 hexadecimal digits)"
      },
      {
        "code": "malformed",
        "field": "/line",
        "message": "expected a phone number in E.164 form, like +15555550101"
      },
      {
        "code": "malformed",
        "field": "/kind",
        "message": "expected one of `assign`, `cold`, `warm`, `escalation`"
      },
      {
        "code": "malformed",
        "field": "/to",
        "message": "expected an identity: 1 to 256 characters, no control characters, not a phone number"
      },
      {
        "code": "missing",
        "field": "/requested_by",
        "message": "expected a value"
      },
      {
        "code": "malformed",
        "field": "/reason",
        "message": "expected text that is not blank"
      },
      {
        "code": "malformed",
        "field": "/note",
        "message": "expected at most 4096 bytes"
      },
      {
        "code": "malformed",
        "field": "/offer_timeout",
        "message": "expected a duration like `90s` or `5m`, of 1 s to 604800 s"
      }
    ]
    "#);
    let cold = json!({
        "conversation_sid": "CH00000000000000000000000000000001",
        "kind": "cold", "to": "noor", "requested_by": "maya", "offer_timeout": "5m",
    });
    insta::assert_json_snapshot!(office.errors("/v1/transfers", &cold).await, @r#"
    [
      {
        "code": "not_offered",
        "field": "/offer_timeout",
        "message": "expected only for `warm` and `escalation`: the others are not offered"
      }
    ]
    "#);
    let group = json!({
        "friendly_name": "x".repeat(257),
        "attributes": [],
        "members": [
            { "line": "+15555550109" }, { "address": "+15017122661" }, { "address": "+18005550100" }, {},
        ],
    });
    insta::assert_json_snapshot!(office.errors("/v1/group-texts", &group).await, @r#"
    [
      {
        "code": "too_long",
        "field": "/friendly_name",
        "message": "expected at most 256 characters"
      },
      {
        "code": "object",
        "field": "/attributes",
        "message": "expected a JSON object"
      },
      {
        "code": "not_ours",
        "field": "/members/0/line",
        "message": "this number is not one of ours: add it to the account's `numbers`"
      },
      {
        "code": "own_number",
        "field": "/members/1/address",
        "message": "this number is ours: name it as `line`"
      },
      {
        "code": "toll_free",
        "field": "/members/2/address",
        "message": "toll-free numbers cannot take part in group texts"
      },
      {
        "code": "shape",
        "field": "/members/3",
        "message": "expected either `address` (a handset) or `line` (a number of ours), and not both"
      }
    ]
    "#);
}

#[tokio::test]
async fn an_unknown_member_is_named_with_its_place() {
    let office = office().await;
    let errors = office.errors(PROBE, &json!({ "body": "x", "to": "maya" })).await;
    insta::assert_json_snapshot!(errors, @r#"
    [
      {
        "code": "unknown",
        "field": "/to",
        "message": "unknown field `to`, expected one of `body`, `media`, `line`, `as`, `acknowledge_opt_out`, `attributes`"
      }
    ]
    "#);
    let members = json!({ "members": [{ "line": "+15017122661", "owner": "maya" }] });
    let errors = office.errors("/v1/group-texts", &members).await;
    assert_eq!(errors[0]["field"], "/members/0/owner");
}

#[tokio::test]
async fn a_post_without_an_idempotency_key_is_told_to_send_one() {
    let office = office().await;
    let request = Request::post(PROBE)
        .header(header::AUTHORIZATION, format!("Bearer {}", office.key))
        .header(header::CONTENT_TYPE, "application/json");
    let answer = office.send(request.body(Body::from("{}")).unwrap()).await;
    assert_eq!(answer.problem(), "invalid");
    assert_eq!(answer.json()["errors"][0]["field"], "Idempotency-Key");
    assert_eq!(answer.json()["errors"][0]["code"], "missing");
}

#[tokio::test]
async fn wrong_queries_and_paths_are_400_and_name_the_parameter() {
    let office = office().await;
    office.group(1, Some("maya")).await;
    let group = "/v1/conversations/CH00000000000000000000000000000001";
    let cases = [
        ("/v1/conversations?limit=0".to_owned(), "limit"),
        ("/v1/conversations?limit=201".to_owned(), "limit"),
        ("/v1/conversations?cursor=abc".to_owned(), "cursor"),
        ("/v1/conversations?state=open".to_owned(), "state"),
        ("/v1/conversations?line=+15017122661".to_owned(), "line"),
        ("/v1/conversations?holder=%00".to_owned(), "holder"),
        ("/v1/conversations?stat=active".to_owned(), "stat"),
        ("/v1/conversations?limit=1&limit=2".to_owned(), "limit"),
        ("/v1/group-texts?state=%00".to_owned(), "state"),
        ("/v1/transfers?open=maybe".to_owned(), "open"),
        (
            "/v1/transfers?conversation_sid=CH1".to_owned(),
            "conversation_sid",
        ),
        ("/v1/events?after=0-0".to_owned(), "after"),
        ("/v1/events?types=message.added,x".to_owned(), "types"),
        ("/v1/events?wait=26".to_owned(), "wait"),
        ("/v1/events?cursor=x".to_owned(), "cursor"),
        (format!("{group}/participants?limit=5"), "limit"),
        (format!("{group}/timeline?cursor=%00"), "cursor"),
        (
            "/v1/lines/%2B15017122661/tenures?from=yesterday".to_owned(),
            "from",
        ),
        (
            "/v1/lines/%2B15017122661/tenures?from=-009999-01-02T00:00:00Z".to_owned(),
            "from",
        ),
        (
            "/v1/lines/%2B15017122661/tenures?from=2026-03-02T00:00:00Z&to=2026-03-01T00:00:00Z".to_owned(),
            "to",
        ),
        ("/v1/lines/15017122661/tenures".to_owned(), "number"),
        ("/v1/lines/%00/tenures".to_owned(), "number"),
        ("/v1/conversations/CH1".to_owned(), "conversation_sid"),
        ("/v1/conversations/%ff".to_owned(), "conversation_sid"),
        ("/v1/transfers/17".to_owned(), "transfer_id"),
        ("/v1/sends/x%00y".to_owned(), "send_id"),
    ];
    for (path, field) in cases {
        let answer = office.get(&path).await;
        assert_eq!(answer.status, 400, "{path}");
        assert_eq!(answer.problem(), "invalid", "{path}");
        assert_eq!(answer.json()["errors"][0]["field"], field, "{path}");
    }
    assert_eq!(
        office.get("/v1/conversations?holder=%ff").await.problem(),
        "malformed"
    );
}

#[tokio::test]
async fn a_cursor_of_another_list_is_refused() {
    let office = office().await;
    for number in 1..=2 {
        office.group(number, Some("maya")).await;
    }
    let page = office.get("/v1/conversations?limit=1").await.expect(200);
    let cursor = page["next"].as_str().unwrap();
    assert_eq!(
        office
            .get(&format!("/v1/conversations?cursor={cursor}"))
            .await
            .status,
        200
    );
    for list in [
        "/v1/transfers",
        "/v1/group-texts",
        "/v1/lines/+15017122661/tenures",
    ] {
        let answer = office.get(&format!("{list}?cursor={cursor}")).await;
        assert_eq!(answer.json()["errors"][0]["field"], "cursor", "{list}");
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_and_a_wrong_method_405() {
    let office = office().await;
    let unknown = "CH00000000000000000000000000000099";
    for path in [
        format!("/v1/conversations/{unknown}"),
        format!("/v1/conversations/{unknown}/participants"),
        format!("/v1/conversations/{unknown}/messages"),
        format!("/v1/conversations/{unknown}/sends"),
        format!("/v1/conversations/{unknown}/timeline"),
        "/v1/transfers/0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01".to_owned(),
        "/v1/sends/0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01".to_owned(),
        "/v1/group-texts/0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01".to_owned(),
        "/v1/nothing".to_owned(),
        "/v1/conversations/".to_owned(),
        "/".to_owned(),
    ] {
        assert_eq!(office.get(&path).await.problem(), "not_found", "{path}");
    }
    let answer = office
        .send(Request::delete("/v1/transfers").body(Body::empty()).unwrap())
        .await;
    assert_eq!(answer.problem(), "method_not_allowed");
    assert_eq!(answer.status, 405);
    let allow = answer.header("allow").unwrap();
    assert!(allow.contains("GET") && allow.contains("POST"), "{allow}");
}

#[tokio::test]
async fn every_answer_has_the_client_s_request_id_or_a_new_one() {
    let office = office().await;
    let ask = async |id: Option<&str>, path: &str| {
        let mut request = Request::get(path);
        if let Some(id) = id {
            request = request.header("x-request-id", id);
        }
        let answer = office.send(request.body(Body::empty()).unwrap()).await;
        answer.header("x-request-id").unwrap().to_owned()
    };
    assert_eq!(ask(Some("crm-17.a"), "/openapi.json").await, "crm-17.a");
    assert_eq!(ask(Some("crm-17.a"), "/v1/nothing").await, "crm-17.a");
    assert_eq!(ask(None, "/v1/events").await.len(), 36);
    for odd in ["", "a b", "a\"b", &"x".repeat(129)] {
        assert_eq!(ask(Some(odd), "/openapi.json").await.len(), 36, "{odd:?}");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing_but_the_request_s_id() {
    let office = Office {
        router: attend(Router::new().route(
            "/panic",
            get(async || -> &'static str { panic!("the customer said: hunter2") }),
        )),
        ..office().await
    };
    let request = Request::get("/panic").header("x-request-id", "crm-17");
    let answer = office.send(request.body(Body::empty()).unwrap()).await;
    assert_eq!(answer.problem(), "internal");
    assert_eq!(answer.json()["request_id"], "crm-17");
    assert!(!String::from_utf8_lossy(&answer.bytes).contains("hunter2"));
}

#[tokio::test]
async fn a_handler_that_takes_too_long_is_a_503() {
    let slow = Router::new().route(
        "/slow",
        get(async || {
            tokio::time::sleep(Duration::from_mins(1)).await;
            "late"
        }),
    );
    let office = Office {
        router: attend(bound(slow, Duration::from_millis(50)).fallback(not_found)),
        ..office().await
    };
    let answer = office.get("/slow").await;
    assert_eq!(answer.problem(), "unavailable");
    assert_eq!(answer.header("retry-after"), Some("1"));
}

#[tokio::test]
async fn without_a_database_it_is_503_and_nothing_inside_is_told() {
    let office = office().await;
    office.pool.close().await;
    for path in ["/v1/conversations", "/v1/events", "/v1/transfers"] {
        let answer = office.get(path).await;
        assert_eq!(answer.problem(), "unavailable", "{path}");
        assert!(answer.json()["request_id"].is_string());
    }
    let answer = office.post("/v1/transfers", &json!({})).await;
    assert_eq!(answer.status, 503);
    assert_eq!(office.get("/openapi.json").await.status, 200);
}
