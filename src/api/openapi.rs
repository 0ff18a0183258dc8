//! The OpenAPI document. The routes generate it; what all operations share is added here, once, from what they say.

use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use utoipa::OpenApi as _;
use utoipa::openapi::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};

use crate::api::idempotency;
use crate::ids::{MessageSid, ParticipantSid};
use crate::web::problem::ProblemBody;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Hookswitch",
        description = "Group texts behind a business number: start them, write in them, hand a line from person to person, and ask who was behind it when. See docs/API.md for the conventions.",
    ),
    components(schemas(ProblemBody, MessageSid, ParticipantSid)),
    tags(
        (name = "Group texts", description = "Starting group texts"),
        (name = "Conversations", description = "Conversations as the mirror has them"),
        (name = "Messages", description = "Reading and sending"),
        (name = "Opt-outs", description = "Members who want no more messages, and what is done about it"),
        (name = "Transfers", description = "Giving a line to another holder"),
        (name = "Handovers", description = "Giving all lines of one person to others by a plan, and back"),
        (name = "Escalations", description = "What happens to a line on which something is amiss"),
        (name = "People", description = "Agents, teams, calendars, who is on call"),
        (name = "Numbers", description = "Our pool of numbers, and who gets lines of them that nobody holds"),
        (name = "Queue", description = "Lines that wait for somebody"),
        (name = "Ledger", description = "Who was behind which line when"),
        (name = "Audit", description = "What was said before, also what was edited and removed"),
        (name = "Health", description = "How complete the mirror is, and what is wrong with lines"),
        (name = "Erasures", description = "Erasing a person on request"),
        (name = "Webhooks", description = "What could not be projected"),
        (name = "Feed", description = "Everything that happened, in one order"),
    ),
)]
struct Document;

/// What the routes are added to.
pub(super) fn base() -> OpenApi {
    let mut document = Document::openapi();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A key made by `hookswitch key create`. Each operation names the scope that it needs.",
        ))
        .build();
    document
        .components
        .get_or_insert_default()
        .add_security_scheme("api_key", SecurityScheme::Http(bearer));
    document
}

/// The whole document, as it is served.
pub(super) fn complete(document: OpenApi) -> Box<RawValue> {
    let mut document = serde_json::to_value(document).expect("the document is made of strings and maps");
    let paths = document["paths"].as_object_mut();
    for (path, methods) in paths.into_iter().flatten() {
        for (method, operation) in methods.as_object_mut().into_iter().flatten() {
            complete_operation(path, method, operation);
        }
    }
    RawValue::from_string(document.to_string()).expect("a JSON value prints as JSON")
}

fn complete_operation(path: &str, method: &str, operation: &mut Value) {
    let Some(scope) = operation["security"][0]["api_key"][0].as_str() else {
        return;
    };
    let said = operation["description"].as_str().unwrap_or_default();
    let description = format!("{said}\n\nNeeds a key with the scope `{scope}` (or `admin`).");
    operation["description"] = Value::from(description.trim_start());

    let mut problems = vec![
        (
            400,
            "The request cannot be read, or has wrong values: all of them are listed.",
        ),
        (401, "No key, or one that is unknown or revoked."),
        (403, "The key lacks the scope."),
        (500, "Something went wrong here."),
        (503, "Not available for the moment: repeat the request."),
    ];
    if path.contains('{') {
        problems.push((404, "There is no such thing."));
    }
    if method == "post" {
        problems.extend([
            (
                409,
                "The present state does not allow it, or the idempotency key was used for another request.",
            ),
            (413, "The body is larger than 64 KiB."),
            (415, "The body is not `application/json`."),
        ]);
        add_idempotency_header(operation);
    }
    if method == "put" {
        problems.extend([
            (413, "The body is larger than 64 KiB."),
            (415, "The body is not `application/json`."),
        ]);
    }
    if let Some(responses) = operation["responses"].as_object_mut() {
        add_problems(responses, &problems);
    }
}

fn add_problems(responses: &mut Map<String, Value>, problems: &[(u16, &str)]) {
    for (status, description) in problems {
        let problem = json!({
            "description": description,
            "content": {
                "application/problem+json": { "schema": { "$ref": "#/components/schemas/ProblemBody" } },
            },
        });
        responses.entry(status.to_string()).or_insert(problem);
    }
}

fn add_idempotency_header(operation: &mut Value) {
    let header = json!({
        "name": idempotency::HEADER,
        "in": "header",
        "required": true,
        "description": "New for each new request, the same when it is repeated: then the same answer is given, and nothing is done twice. Kept for 24 hours at least.",
        "schema": { "type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$" },
        "example": "0190f5b0-4d5c-7e60-9f3a-2b1d7c8e9a01",
    });
    match operation["parameters"].as_array_mut() {
        Some(parameters) => parameters.push(header),
        None => operation["parameters"] = json!([header]),
    }
}
