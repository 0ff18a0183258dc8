//! Agents, teams, calendars, who is on call: over HTTP and on the command line.

mod agents;
mod files;
mod teams;

use axum::body::Body;
use axum::http::{Method, Request, header};
use serde_json::{Value, json};

use crate::api::{Answer, Office};

async fn ask(office: &Office, method: Method, path: &str, body: &Value) -> Answer {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {}", office.key))
        .header(header::CONTENT_TYPE, "application/json");
    office
        .send(request.body(Body::from(body.to_string())).unwrap())
        .await
}

pub(crate) async fn put(office: &Office, path: &str, body: &Value) -> Answer {
    ask(office, Method::PUT, path, body).await
}

pub(crate) async fn delete(office: &Office, path: &str) -> Answer {
    ask(office, Method::DELETE, path, &json!({})).await
}

/// Agents with nothing but a name.
pub(crate) async fn add_agents(office: &Office, identities: &[&str]) {
    for identity in identities {
        put(
            office,
            &format!("/v1/agents/{identity}"),
            &json!({ "name": identity }),
        )
        .await
        .expect(200);
    }
}

/// The identities of a list's items.
fn identities(items: &[Value]) -> Vec<&str> {
    items
        .iter()
        .map(|item| item["identity"].as_str().unwrap())
        .collect()
}

#[tokio::test]
async fn the_document_names_what_may_be_asked() {
    let office = crate::api::office().await;
    let document = office.get("/openapi.json").await.expect(200);
    let asked = |path: &str, method: &str| {
        let parameters = document["paths"][path][method]["parameters"].as_array().unwrap();
        let queries = parameters.iter().filter(|one| one["in"] == "query");
        queries
            .map(|one| one["name"].as_str().unwrap())
            .collect::<Vec<_>>()
            .join(" ")
    };
    assert_eq!(
        asked("/v1/agents", "get"),
        "known team supervisor skill left limit cursor"
    );
    assert_eq!(asked("/v1/teams", "get"), "limit cursor");
    assert_eq!(asked("/v1/teams/{team_id}/deadline", "get"), "from minutes");
    assert_eq!(asked("/v1/people/import", "post"), "dry_run absent");
}

/// What the log says of some types, without what differs from run to run.
pub(crate) async fn told(office: &Office, types: &str) -> Vec<Value> {
    office.settle().await;
    let feed = office.get(&format!("/v1/events?types={types}")).await.expect(200);
    feed["items"].as_array().unwrap().clone()
}
