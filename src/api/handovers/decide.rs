//! Deciding about single lines of a draft by hand.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::HandoverBody;
use super::verbs::{by_api, on_record};
use crate::api::Api;
use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Post};
use crate::handover::{Override, OverrideError, Wish};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::web::extract::Path;
use crate::web::field::{Errors, Field};
use crate::web::problem::Problem;

/// So many lines in one call.
const LINES_MAX: usize = 200;

/// Lines to be decided about.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "lines": [{ "conversation_sid": "CH00000000000000000000000000000001", "action": "give", "to": "noor" }],
    "by": "sam",
}))]
pub(in crate::api) struct DecideLines {
    #[serde(default)]
    #[schema(value_type = Vec<LineDecision>, required = true, min_items = 1, max_items = 200)]
    lines: Field<Vec<LineDecision>>,
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

/// One line, and what becomes of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct LineDecision {
    conversation_sid: ConversationSid,
    /// Needed only where the leaver has several in this conversation.
    #[serde(default)]
    line: Option<PhoneNumber>,
    #[schema(inline)]
    action: ActionWanted,
    /// Of `give`.
    #[serde(default)]
    to: Option<Identity>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum ActionWanted {
    Give,
    Release,
    Stay,
    /// The rules of the plan decide again.
    Rules,
}

impl DecideLines {
    fn read(self) -> Result<(Vec<Override>, Identity), Problem> {
        let mut errors = Errors::of_body();
        let lines = errors.required("lines", self.lines);
        let by = errors.required("by", self.by);
        let mut overrides = Vec::new();
        for (place, line) in lines.iter().flatten().enumerate() {
            let member = format!("lines/{place}/to");
            let action = match (line.action, &line.to) {
                (ActionWanted::Give, Some(to)) => Wish::Give(to.clone()),
                (ActionWanted::Give, None) => {
                    errors.add(&member, "missing", "expected a value");
                    continue;
                }
                (_, Some(_)) => {
                    errors.add(&member, "not_of_this_action", "expected only with `give`");
                    continue;
                }
                (ActionWanted::Release, None) => Wish::Release,
                (ActionWanted::Stay, None) => Wish::Stay,
                (ActionWanted::Rules, None) => Wish::Rules,
            };
            overrides.push(Override {
                conversation_sid: line.conversation_sid.clone(),
                line: line.line.clone(),
                action,
            });
        }
        if lines.is_some_and(|lines| !(1..=LINES_MAX).contains(&lines.len())) {
            errors.add("lines", "malformed", format!("expected 1 to {LINES_MAX} lines"));
        }
        errors.finish(by.map(|by| (overrides, by)))
    }
}

fn wrong(error: &OverrideError) -> Option<Problem> {
    let (place, member, code) = match error {
        OverrideError::Handover(_) => return None,
        OverrideError::NoSuchLine { place } => (place, "conversation_sid", "no_such_line"),
        OverrideError::Ambiguous { place } => (place, "line", "line_ambiguous"),
        OverrideError::PersonUnknown { place } => (place, "to", "unknown_person"),
        OverrideError::LeaverNamed { place } => (place, "to", "is_the_leaver"),
    };
    let mut errors = Errors::of_body();
    errors.add(&format!("lines/{place}/{member}"), code, error.to_string());
    errors.finish::<()>(None).err()
}

/// Decide about lines of a draft by hand
///
/// What is decided by hand stands; the rules decide anew about the other lines, since everybody's load is another then.
#[utoipa::path(
    post,
    path = "/v1/handovers/{handover_id}/lines",
    operation_id = "decide_handover_lines",
    tag = "Handovers",
    params(("handover_id" = Uuid, Path)),
    request_body = DecideLines,
    responses((status = 200, description = "It is decided.", body = HandoverBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn decide(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Path(handover_id): Path<Uuid>,
    Post { call, body }: Post<DecideLines>,
) -> Result<Response, Problem> {
    let (overrides, by) = body.read()?;
    let mut first = match call.begin(&api, &caller).await? {
        Begun::Again(answer) => return Ok(answer),
        Begun::First(first) => first,
    };
    let decided = api
        .handovers
        .override_in(first.conn(), handover_id, &overrides, by_api(&by))
        .await;
    match decided {
        Ok(plan) => {
            first
                .answer(StatusCode::OK, None, &HandoverBody::from(plan))
                .await
        }
        Err(OverrideError::Handover(error)) => {
            drop(first);
            let subject = handover_id.to_string();
            Err(on_record(&api, "decide", &subject, by_api(&by), error.into()).await)
        }
        Err(error) => Err(wrong(&error).unwrap_or(Problem::Internal)),
    }
}
