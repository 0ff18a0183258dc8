//! Legal hold over HTTP: set, shown, ended, and told in the log.

use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::json;

use super::{Answer, Office, office};

async fn ask(office: &Office, method: Method, path: &str, body: &str) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", office.key))
        .header(header::CONTENT_TYPE, "application/json");
    office
        .send(request.body(Body::from(body.to_owned())).unwrap())
        .await
}

#[tokio::test]
async fn a_hold_is_set_once_shown_and_ended() {
    let office = office().await;
    let sid = office.group(1, Some("maya")).await;
    let path = format!("/v1/conversations/{sid}/legal-hold");
    assert_eq!(office.get(&path).await.problem(), "not_found");
    for wrong in ["{}", r#"{"reason": ""}"#, r#"{"reason": "x", "until": "y"}"#] {
        assert_eq!(
            ask(&office, Method::PUT, &path, wrong).await.status.as_u16(),
            400,
            "{wrong}"
        );
    }
    let unknown = path.replace(sid.as_str(), "CH99999999999999999999999999999999");
    let body = json!({ "reason": "case 17" }).to_string();
    assert_eq!(
        ask(&office, Method::PUT, &unknown, &body).await.problem(),
        "not_found"
    );

    let first = ask(&office, Method::PUT, &path, &body).await.expect(200);
    let again = ask(&office, Method::PUT, &path, r#"{"reason": "another"}"#)
        .await
        .expect(200);
    assert_eq!(first, again, "the hold that stands stays");
    assert_eq!(office.get(&path).await.expect(200), first);
    assert_eq!(first["reason"], "case 17");

    assert_eq!(ask(&office, Method::DELETE, &path, "").await.status.as_u16(), 204);
    assert_eq!(
        ask(&office, Method::DELETE, &path, "").await.problem(),
        "not_found"
    );
    office.settle().await;
    let told = office
        .get("/v1/events?types=legal_hold.set,legal_hold.released")
        .await
        .expect(200);
    let told = told["items"].as_array().unwrap();
    assert_eq!(told.len(), 2);
    assert!(!told[0].to_string().contains("case 17"), "the reason is not told");
}
