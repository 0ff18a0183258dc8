//! `/v1/health/lines`: what is wrong with lines, and starting the repairs that are safe.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Post};
use crate::api::{Api, conflict, conversations};
use crate::health::{
    self, Code, Filter, Finding, LineSend, NewRepair, Repair, RepairState, SeenBy, Severity, StartRepairError,
};
use crate::ids::{AccountSid, ConversationSid, Identity, PhoneNumber};
use crate::ledger;
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// How many findings of a conversation are shown, those that are open first.
const SHOWN_MAX: i64 = 100;

/// Something that is wrong with a line, or was.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LineFinding)]
pub(super) struct FindingBody {
    finding_id: Uuid,
    conversation_sid: String,
    account_sid: String,
    /// Null: it is about the conversation as such.
    line: Option<String>,
    #[schema(inline)]
    code: Code,
    #[schema(inline)]
    severity: Severity,
    /// When it was found first.
    since: Timestamp,
    #[schema(inline)]
    seen_by: SeenBy,
    seen_at: Timestamp,
    /// SIDs, codes, times and counts.
    #[schema(value_type = Object)]
    evidence: serde_json::Value,
    /// Null: it is still so.
    resolved_at: Option<Timestamp>,
    /// The one safe repair, to be started with `POST …/repairs`. Null: none is safe, and `advice` says what to do.
    #[schema(inline)]
    repair: Option<Repair>,
    /// What a person should do where no repair is offered, or where it did not help.
    advice: &'static str,
    /// The repair that was started last; null: none was.
    last_repair: Option<RepairBody>,
}

/// A repair that was started.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LineRepair)]
pub(super) struct RepairBody {
    #[schema(inline)]
    state: RepairState,
    /// `policy` where nobody asked.
    requested_by: String,
    requested_at: Timestamp,
    finished_at: Option<Timestamp>,
    /// `repaired`, `already_so`, `read_again`; or why it failed: `twilio_<code>`, `not_confirmed`, `no_longer_safe`, `given_up`.
    outcome: Option<String>,
}

impl From<Finding> for FindingBody {
    fn from(finding: Finding) -> Self {
        let asked = finding.repair_requested_by.zip(finding.repair_requested_at);
        let last_repair = finding
            .repair_state
            .zip(asked)
            .map(|(state, (requested_by, requested_at))| RepairBody {
                state,
                requested_by,
                requested_at,
                finished_at: finding.repair_finished_at,
                outcome: finding.repair_outcome,
            });
        Self {
            finding_id: finding.line_finding_id,
            conversation_sid: finding.conversation_sid,
            account_sid: finding.account_sid,
            line: finding.line,
            code: finding.code,
            severity: finding.severity,
            since: finding.since,
            seen_by: finding.seen_by,
            seen_at: finding.seen_at,
            evidence: finding.evidence,
            resolved_at: finding.resolved_at,
            // A finding that is gone needs none.
            repair: finding.repair.filter(|_| finding.resolved_at.is_none()),
            advice: finding.code.advice(),
            last_repair,
        }
    }
}

/// The lines of a conversation, and what is or was wrong with them.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConversationHealth)]
pub(super) struct HealthBody {
    conversation_sid: ConversationSid,
    lines: Vec<LineBody>,
    /// Those that are open first, then the newest; a hundred at most.
    findings: Vec<FindingBody>,
}

/// How messages through one line fare.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LineHealth)]
pub(super) struct LineBody {
    line: String,
    /// Null: the line is unstaffed, or no longer there.
    holder: Option<String>,
    /// When Twilio last took a message of ours.
    accepted_at: Option<Timestamp>,
    /// How many messages Twilio refused since, and why.
    refused_in_a_row: i64,
    refused_code: Option<String>,
    refused_at: Option<Timestamp>,
}

impl LineBody {
    fn new(line: String, holder: Option<String>, send: Option<&LineSend>) -> Self {
        let refusal = send.and_then(|send| send.refusal.as_ref());
        Self {
            line,
            holder,
            accepted_at: send.and_then(|send| send.accepted_at),
            refused_in_a_row: refusal.map_or(0, |refusal| refusal.in_a_row),
            refused_code: refusal.map(|refusal| refusal.code.clone()),
            refused_at: refusal.map(|refusal| refusal.at),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "line_findings";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListFindings {
    /// Only this finding.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    code: Field<Code>,
    /// Only `bad`, or only `warning`.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    severity: Field<Severity>,
    /// Only those of this number; its `+` is written `%2B`.
    #[serde(default)]
    #[param(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// Only those of this account.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    account_sid: Field<AccountSid>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List what is wrong with lines, newest first
///
/// Found by sweeps, and by Twilio's answers to our messages. A line without a finding is not listed, nor one of which all
/// findings are resolved.
#[utoipa::path(
    get,
    path = "/v1/health/lines",
    operation_id = "list_line_findings",
    tag = "Health",
    params(ListFindings),
    responses((status = 200, description = "A page of them.", body = Page<FindingBody>)),
    security(("api_key" = ["health:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::HealthRead>,
    Query(query): Query<ListFindings>,
) -> Result<Json<Page<FindingBody>>, Problem> {
    let mut errors = Errors::of_query();
    let filter = Filter {
        code: errors.optional("code", query.code),
        severity: errors.optional("severity", query.severity),
        line: errors.optional("line", query.line).map(PhoneNumber::into_string),
        account_sid: errors
            .optional("account_sid", query.account_sid)
            .map(AccountSid::into_string),
    };
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let before = wanted.after.as_ref().map(|Place(at, id)| (at.0, *id));
    let rows = health::page(&mut conn, &filter, before, wanted.rows()).await?;
    let page = wanted.page(rows, |finding| Place(At(finding.since), finding.line_finding_id));
    Ok(Json(page.map(FindingBody::from)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct NoParameters {}

/// Show the health of a conversation's lines
#[utoipa::path(
    get,
    path = "/v1/health/lines/{conversation_sid}",
    operation_id = "show_line_health",
    tag = "Health",
    params(("conversation_sid" = ConversationSid, Path)),
    responses((status = 200, description = "Its lines, and what is or was wrong with them.", body = HealthBody)),
    security(("api_key" = ["health:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::HealthRead>,
    Path(sid): Path<ConversationSid>,
    Query(NoParameters {}): Query<NoParameters>,
) -> Result<Json<HealthBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    conversations::expect(&mut conn, &sid).await?;
    let sends = health::sends_of(&mut conn, sid.as_str()).await?;
    let now = ledger::lines_of(&mut conn, sid.as_str()).await?;
    let gone: Vec<_> = sends
        .iter()
        .filter(|send| now.iter().all(|(line, _)| *line != send.line))
        .map(|send| (send.line.clone(), None))
        .collect();
    let lines = now.into_iter().chain(gone).map(|(line, holder)| {
        let send = sends.iter().find(|send| send.line == line);
        LineBody::new(line, holder, send)
    });
    let findings = health::findings_of_conversation(&mut conn, sid.as_str(), SHOWN_MAX, false).await?;
    Ok(Json(HealthBody {
        lines: lines.collect(),
        findings: findings.into_iter().map(FindingBody::from).collect(),
        conversation_sid: sid,
    }))
}

/// Which finding to repair.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "code": "projected_participant_missing", "requested_by": "maya" }))]
pub(super) struct StartRepair {
    /// The finding, which has to be open and to offer a repair.
    #[serde(default)]
    #[schema(value_type = Code, required = true, inline)]
    code: Field<Code>,
    /// Which line; needed only where several have the finding.
    #[serde(default)]
    #[schema(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// Who asks for it.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    requested_by: Field<Identity>,
}

impl StartRepair {
    fn read(self, conversation_sid: ConversationSid) -> Result<NewRepair, Problem> {
        let mut errors = Errors::of_body();
        let code = errors.required("code", self.code);
        let line = errors.optional("line", self.line);
        let requested_by = errors.required("requested_by", self.requested_by);
        let new = code.zip(requested_by).map(|(code, requested_by)| NewRepair {
            conversation_sid,
            code,
            line,
            requested_by: requested_by.into_string(),
        });
        errors.finish(new)
    }
}

/// Start the repair that a finding offers
///
/// It is made as durable work: Twilio is read before and after, and `last_repair` says what came of it, as does the feed. A
/// repair that waits already is not started twice.
#[utoipa::path(
    post,
    path = "/v1/health/lines/{conversation_sid}/repairs",
    operation_id = "start_line_repair",
    tag = "Health",
    params(("conversation_sid" = ConversationSid, Path)),
    request_body = StartRepair,
    responses((status = 202, description = "Taken.", body = FindingBody)),
    security(("api_key" = ["health:write"])),
)]
pub(super) async fn repair(
    State(api): State<Api>,
    caller: Caller<scope::HealthWrite>,
    Path(sid): Path<ConversationSid>,
    Post { call, body }: Post<StartRepair>,
) -> Result<Response, Problem> {
    let location = format!("/v1/health/lines/{sid}");
    let new = body.read(sid)?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let finding = api.health.start_repair_in(first.conn(), new).await?;
            first
                .answer(StatusCode::ACCEPTED, Some(location), &FindingBody::from(finding))
                .await
        }
    }
}

impl From<StartRepairError> for Problem {
    fn from(error: StartRepairError) -> Self {
        match error {
            StartRepairError::ConversationNotFound => Self::NotFound { what: "conversation" },
            StartRepairError::NotOpen => Self::conflict(
                "finding_not_open",
                "the conversation has no such finding now: see its health",
            ),
            StartRepairError::LineAmbiguous { lines } => conflict(
                "line_ambiguous",
                "several lines have the finding: say which in `line`",
                json!({ "lines": lines }),
            ),
            StartRepairError::NoSafeRepair { advice } => conflict("no_safe_repair", advice, json!({})),
            StartRepairError::Database(error) => error.into(),
        }
    }
}
