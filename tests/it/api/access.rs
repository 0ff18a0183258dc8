//! Who may call what. The routes are taken from the OpenAPI document, so that a new one is covered at once.

use std::process::Command;

use axum::body::Body;
use axum::http::{Request, header};
use hookswitch::api::auth::{self, Scope};
use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use super::{Answer, Office, conversation_sid, office};

/// One operation of the document, with a path that can be asked for.
struct Operation {
    id: String,
    method: String,
    path: String,
    scope: Scope,
    body: Option<String>,
    media_type: &'static str,
}

impl Operation {
    async fn ask(&self, office: &Office, key: Option<&str>) -> Answer {
        let mut request = Request::builder()
            .method(self.method.to_uppercase().as_str())
            .uri(&self.path);
        if let Some(key) = key {
            request = request.header(header::AUTHORIZATION, format!("Bearer {key}"));
        }
        let body = self
            .body
            .as_ref()
            .map_or_else(Body::empty, |body| Body::from(body.clone()));
        let request = request
            .header(header::CONTENT_TYPE, self.media_type)
            .header("idempotency-key", hookswitch::ids::new_id().to_string());
        office.send(request.body(body).unwrap()).await
    }
}

async fn operations(office: &Office) -> Vec<Operation> {
    let document = office.get("/openapi.json").await.expect(200);
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            operations.push(read(&document, path, method, operation));
        }
    }
    operations
}

fn read(document: &Value, path: &str, method: &str, operation: &Value) -> Operation {
    let id = operation["operationId"].as_str().unwrap().to_owned();
    let scope = operation["security"][0]["api_key"][0]
        .as_str()
        .unwrap_or_else(|| panic!("{id} names no scope"));
    let schema = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].as_str();
    let json = schema.map(|schema| {
        let name = schema.rsplit('/').next().unwrap();
        document["components"]["schemas"][name]["example"].to_string()
    });
    let csv = operation["requestBody"]["content"]["text/csv"]["example"].as_str();
    let media_type = if csv.is_some() {
        "text/csv"
    } else {
        "application/json"
    };
    let file = operation["requestBody"]["content"]["application/pdf"]["example"].as_str();
    let media_type = if file.is_some() {
        "application/pdf"
    } else {
        media_type
    };
    let body = json.or(csv.or(file).map(str::to_owned));
    Operation {
        method: method.to_owned(),
        path: format!("{path}{}", required_query(operation))
            .replace("{conversation_sid}", conversation_sid(1).as_str())
            .replace("{message_sid}", "IM00000000000000000000000000000001")
            .replace("{participant_sid}", "MB00000000000000000000000000000001")
            .replace("{webhook_id}", "17")
            .replace("{identity}", "maya")
            .replace("{team_id}", "sales")
            .replace("{policy_id}", "sales")
            .replace("{line}", "%2B15017122661")
            .replace("{escalation_id}", "0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01")
            .replace("{number}", "%2B15017122661")
            .replace("{group_text_id}", "0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01")
            .replace("{handover_id}", "0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01")
            .replace("{media_sid}", "ME00000000000000000000000000000001")
            .replace("{opt_out_id}", "0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01")
            .replace("{erasure_id}", "0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01")
            .replace("{transfer_id}", "0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01")
            .replace("{send_id}", "0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01"),
        scope: scope.parse().unwrap(),
        body,
        media_type,
        id,
    }
}

/// What has to be in the query, with its examples.
fn required_query(operation: &Value) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let required: Vec<String> = parameters
        .filter(|one| one["in"] == "query" && one["required"] == true)
        .map(|one| format!("{}={}", one["name"].as_str().unwrap(), one["example"]))
        .collect();
    if required.is_empty() {
        String::new()
    } else {
        format!("?{}", required.join("&"))
    }
}

#[tokio::test]
async fn every_operation_wants_a_key_with_its_scope_and_nothing_more() {
    let office = office().await;
    office.group(1, Some("maya")).await;
    let mut by_scope = Vec::new();
    for scope in Scope::ALL {
        by_scope.push((*scope, office.key_with(&[*scope]).await));
    }
    let revoked = office.key_with(&[Scope::Admin]).await;
    revoke(&office).await;

    let operations = operations(&office).await;
    assert!(operations.len() >= 18, "the document lists the routes");
    for operation in &operations {
        let id = &operation.id;
        assert!(
            !operation.path.contains('{'),
            "{id}: a path parameter that this test does not know"
        );
        for bad in [None, Some("hsk_AAAA"), Some(revoked.as_str())] {
            let answer = operation.ask(&office, bad).await;
            assert_eq!(answer.problem(), "unauthenticated", "{id} with {bad:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"), "{id}");
        }
        for (scope, key) in &by_scope {
            let answer = operation.ask(&office, Some(key)).await;
            if scope.covers(operation.scope) {
                let status = answer.status.as_u16();
                assert!(
                    [200, 201, 202, 204, 404, 409].contains(&status),
                    "{id} with {scope}: {answer:?}"
                );
            } else {
                assert_eq!(answer.problem(), "missing_scope", "{id} with {scope}");
                assert!(
                    answer.json()["detail"]
                        .as_str()
                        .unwrap()
                        .contains(operation.scope.as_str())
                );
            }
        }
    }
}

/// Revokes the key that was made last.
async fn revoke(office: &Office) {
    let mut conn = office.pool.acquire().await.unwrap();
    let last = auth::list(&mut conn).await.unwrap().pop().unwrap();
    assert!(
        auth::revoke(&mut conn, last.api_key_id, office.clock.now())
            .await
            .unwrap()
    );
    assert!(
        !auth::revoke(&mut conn, last.api_key_id, office.clock.now())
            .await
            .unwrap(),
        "it is revoked once"
    );
}

#[tokio::test]
async fn a_document_without_a_key_names_every_scope_and_every_problem() {
    let mut office = office().await;
    office.key = String::new();
    let document = office.get("/openapi.json").await.expect(200);
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let id = &operation["operationId"];
            assert!(
                operation["description"]
                    .as_str()
                    .unwrap()
                    .contains("Needs a key with the scope"),
                "{id}"
            );
            let problem =
                &operation["responses"]["401"]["content"]["application/problem+json"]["schema"]["$ref"];
            assert_eq!(problem, "#/components/schemas/ProblemBody", "{id}");
            assert_eq!(
                operation["responses"]["404"].is_object(),
                path.contains('{'),
                "{id}"
            );
            let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
            let names: Vec<&str> = parameters
                .iter()
                .map(|one| one["name"].as_str().unwrap())
                .collect();
            assert_eq!(names.contains(&"Idempotency-Key"), method == "post", "{id}");
            let mut unique = names.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(
                unique.len(),
                names.len(),
                "{id} names a parameter twice: {names:?}"
            );
        }
    }
    let text = document.to_string();
    for part in text.split("\"#/components/schemas/").skip(1) {
        let name = part.split('"').next().unwrap();
        assert!(
            document["components"]["schemas"][name].is_object(),
            "{name} is not described"
        );
    }
    assert_eq!(
        document["components"]["securitySchemes"]["api_key"]["scheme"],
        "bearer"
    );
}

#[tokio::test]
async fn what_a_key_did_is_in_the_log_and_the_key_is_nowhere() {
    let office = office().await;
    office.key_with(&[Scope::EventsRead, Scope::LedgerRead]).await;
    revoke(&office).await;
    office.settle().await;
    let events = office
        .get("/v1/events?types=api_key.created,api_key.revoked")
        .await
        .expect(200);
    insta::assert_json_snapshot!(events["items"], {
        "[].id" => "[id]",
        "[].subject" => "[key]",
        "[].data.api_key_id" => "[key]",
    }, @r#"
    [
      {
        "account_sid": null,
        "actor": null,
        "cause": null,
        "conversation_sid": null,
        "data": {
          "api_key_id": "[key]",
          "name": "test",
          "scopes": [
            "admin"
          ]
        },
        "id": "[id]",
        "occurred_at": "2026-03-01T14:00:00Z",
        "recorded_at": "2026-03-01T14:00:00Z",
        "subject": "[key]",
        "type": "api_key.created",
        "via": "cli"
      },
      {
        "account_sid": null,
        "actor": null,
        "cause": null,
        "conversation_sid": null,
        "data": {
          "api_key_id": "[key]",
          "name": "test",
          "scopes": [
            "events:read",
            "ledger:read"
          ]
        },
        "id": "[id]",
        "occurred_at": "2026-03-01T14:00:00Z",
        "recorded_at": "2026-03-01T14:00:00Z",
        "subject": "[key]",
        "type": "api_key.created",
        "via": "cli"
      },
      {
        "account_sid": null,
        "actor": null,
        "cause": null,
        "conversation_sid": null,
        "data": {
          "api_key_id": "[key]",
          "name": "test",
          "scopes": [
            "events:read",
            "ledger:read"
          ]
        },
        "id": "[id]",
        "occurred_at": "2026-03-01T14:00:00Z",
        "recorded_at": "2026-03-01T14:00:00Z",
        "subject": "[key]",
        "type": "api_key.revoked",
        "via": "cli"
      }
    ]
    "#);
    let rows = sqlx::query!("select key_hash from api_key")
        .fetch_all(&office.pool)
        .await
        .unwrap();
    assert!(rows.iter().all(|row| row.key_hash.len() == 32));
}

/// Runs `hookswitch key` on the test's database.
fn key_command(office: &Office, arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_hookswitch"))
        .arg("key")
        .args(arguments)
        .env("DATABASE_URL", office.database.url().expose_secret())
        .env_remove("HOOKSWITCH_CONFIG")
        .output()
        .unwrap();
    let said = if output.status.success() {
        output.stdout
    } else {
        output.stderr
    };
    (output.status.success(), String::from_utf8(said).unwrap())
}

#[tokio::test]
async fn a_key_is_made_listed_and_revoked_on_the_command_line() {
    let mut office = office().await;
    let (made, key) = key_command(
        &office,
        &[
            "create",
            "--name",
            "crm",
            "--scope",
            "events:read",
            "--scope",
            "ledger:read",
        ],
    );
    assert!(made, "{key}");
    office.key = key.trim().to_owned();
    assert!(office.key.starts_with("hsk_") && office.key.len() == 47);
    office.get("/v1/events").await.expect(200);
    assert_eq!(office.get("/v1/transfers").await.problem(), "missing_scope");

    let (_, listed) = key_command(&office, &["list"]);
    let line = listed.lines().find(|line| line.contains("crm")).unwrap();
    assert!(
        line.contains("events:read,ledger:read") && !line.contains("revoked"),
        "{line}"
    );
    assert!(!listed.contains(&office.key));

    let id = line.split_whitespace().next().unwrap();
    assert!(key_command(&office, &["revoke", id]).0);
    assert_eq!(office.get("/v1/events").await.problem(), "unauthenticated");
    let (again, said) = key_command(&office, &["revoke", id]);
    assert!(!again && said.contains("no such key"), "{said}");
    let (made, said) = key_command(&office, &["create", "--name", "x", "--scope", "everything"]);
    assert!(!made && said.contains("transfers:write"), "{said}");
}

#[tokio::test]
async fn the_use_of_a_key_is_noted_once_a_minute() {
    let office = office().await;
    let used = async || {
        office.get("/v1/group-texts").await.expect(200);
        let mut conn = office.pool.acquire().await.unwrap();
        auth::list(&mut conn).await.unwrap()[0]
            .last_used_at
            .unwrap()
            .to_string()
    };
    assert_eq!(used().await, "2026-03-01T14:00:00Z");
    office.clock.advance(SignedDuration::from_secs(59));
    assert_eq!(used().await, "2026-03-01T14:00:00Z");
    office.clock.advance(SignedDuration::from_secs(1));
    assert_eq!(used().await, "2026-03-01T14:01:00Z");
}

#[tokio::test]
async fn one_key_does_not_see_the_answers_of_another() {
    let mut office = office().await;
    let group = office.group(1, Some("maya")).await;
    let path = format!("/v1/conversations/{group}/messages");
    let first = office
        .post_as("same", &path, &json!({ "body": "one" }))
        .await
        .expect(202);
    office.key = office.key_with(&[Scope::MessagesWrite]).await;
    let second = office
        .post_as("same", &path, &json!({ "body": "two" }))
        .await
        .expect(202);
    assert_ne!(first["send_id"], second["send_id"]);
    assert_ne!(first["requested_by"], second["requested_by"]);
}

/// What every list takes: a document that leaves it out makes clients that read the first page only.
#[tokio::test]
async fn the_document_names_the_parameters_of_every_list() {
    let office = office().await;
    let document = office.get("/openapi.json").await.expect(200);
    let mut lists = 0;
    for (path, item) in document["paths"].as_object().unwrap() {
        let answer = &item["get"]["responses"]["200"]["content"]["application/json"]["schema"]["$ref"];
        // The members of a group are ten at most, and on one page.
        let is_paged = !path.ends_with("/participants");
        if !is_paged || !answer.as_str().is_some_and(|schema| schema.contains("/Page_")) {
            continue;
        }
        lists += 1;
        let parameters = item["get"]["parameters"].as_array();
        let named: Vec<&str> = parameters
            .into_iter()
            .flatten()
            .filter(|one| one["in"] == "query")
            .filter_map(|one| one["name"].as_str())
            .collect();
        for wanted in ["limit", "cursor"] {
            assert!(named.contains(&wanted), "{path}: {named:?}");
        }
    }
    assert!(lists >= 12, "{lists}");
}
