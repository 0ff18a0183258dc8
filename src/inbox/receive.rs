//! The webhook endpoints: verify, have it committed, answer.
//!
//! 200 is said only once the webhook is in the database. What cannot be verified is refused with one and the same
//! answer and never stored as trusted; why goes to the log and the metrics.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{any, post};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use secrecy::SecretString;
use sqlx::PgPool;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::{PublicBaseUrl, SignatureMode};
use crate::ids::{AccountSid, ConversationSid};
use crate::inbox::writer::Writer;
use crate::inbox::{Format, NewWebhook, Stored, events, store};
use crate::twilio::form::Form;
use crate::twilio::signature::{self, Match, Payload, Refusal};
use crate::twilio::text::safe_text;
use crate::twilio::webhook::dedupe_key;
use crate::web::problem::Problem;

/// A webhook's body, or query, may have so many bytes. The largest that Twilio sends are about 100 KiB.
pub const BODY_LIMIT: usize = 256 * 1024;

/// Twilio gives up after 5 s; we answer before, so that both sides know what became of the webhook.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_millis(3_500);

/// What is kept of unverified webhooks in mode `observe`, at most.
pub(super) const QUARANTINE_MAX: i64 = 10_000;

const SIGNATURE_HEADER: &str = "x-twilio-signature";
const IDEMPOTENCY_HEADER: &str = "i-twilio-idempotency-token";

/// What the endpoints need.
#[derive(Clone)]
pub struct Inbox {
    pub accounts: Arc<HashMap<AccountSid, Signer>>,
    pub public_base_url: PublicBaseUrl,
    pub writer: Writer,
    pub pool: PgPool,
    pub clock: Clock,
}

/// How webhooks of one account are verified.
#[derive(Debug, Clone)]
pub struct Signer {
    pub tokens: Vec<SecretString>,
    pub mode: SignatureMode,
}

/// The endpoints. `pre_action` adds the one that Twilio may ask before a change.
pub fn router(inbox: Inbox, pre_action: bool) -> Router {
    let mut router = Router::new()
        .route("/webhooks/twilio/conversations", any(receive))
        .route("/webhooks/twilio/events", any(events::receive));
    if pre_action {
        router = router.route("/webhooks/twilio/pre-action", post(proceed).get(proceed));
    }
    router.with_state(inbox)
}

/// Lets every change proceed, from memory: any other answer would destroy what the customer wrote.
async fn proceed(request: Request) -> StatusCode {
    metrics::counter!("hookswitch_pre_action_total").increment(1);
    // Read to its end, so that the connection can be used again; what it says does not matter.
    Limited::new(request.into_body(), BODY_LIMIT).collect().await.ok();
    StatusCode::OK
}

async fn receive(State(inbox): State<Inbox>, request: Request) -> Response {
    match inbox.accept(request).await {
        Ok(accepted) => {
            metrics::counter!("hookswitch_webhooks_total", "outcome" => accepted.as_str()).increment(1);
            StatusCode::OK.into_response()
        }
        Err(refused) => {
            metrics::counter!("hookswitch_webhooks_refused_total", "reason" => refused.reason).increment(1);
            if refused.problem == Problem::MethodNotAllowed {
                return ([(header::ALLOW, "GET, POST")], refused.problem.into_response()).into_response();
            }
            refused.problem.into_response()
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Accepted {
    New,
    Duplicate,
    Quarantined,
}

impl Accepted {
    fn as_str(self) -> &'static str {
        match self {
            Self::New => "new",
            Self::Duplicate => "duplicate",
            Self::Quarantined => "quarantined",
        }
    }
}

/// A refusal: what the caller is told, and what is counted.
pub(super) struct Refused {
    pub(super) problem: Problem,
    pub(super) reason: &'static str,
}

impl Refused {
    pub(super) fn new(problem: Problem, reason: &'static str) -> Self {
        Self { problem, reason }
    }
}

/// A request whose form could be read; nothing of it is trusted yet.
struct Read {
    method: &'static str,
    raw: Vec<u8>,
    form: Form,
    url: String,
    headers: HeaderMap,
}

impl Inbox {
    async fn accept(&self, request: Request) -> Result<Accepted, Refused> {
        let read = self.read(request).await?;
        // The account picks the tokens; whether it is true is what they decide.
        let account = read
            .form
            .get("AccountSid")
            .and_then(|text| AccountSid::try_from(text).ok());
        let Some((account_sid, signer)) = account.and_then(|sid| self.accounts.get_key_value(&sid)) else {
            warn!("refused a webhook of an account that is not configured");
            return Err(Refused::new(Problem::SignatureRefused, "unknown_account"));
        };
        match read.verify(signer) {
            Ok(matched) => self.keep(account_sid, read, matched).await,
            Err(refusal) => match signer.mode {
                SignatureMode::Enforce => {
                    warn!(account.sid = %account_sid, reason = reason_of(refusal), "refused a webhook: {refusal}");
                    Err(Refused::new(Problem::SignatureRefused, reason_of(refusal)))
                }
                SignatureMode::Observe => self.quarantine(account_sid, &read, refusal).await,
            },
        }
    }

    async fn read(&self, request: Request) -> Result<Read, Refused> {
        let (parts, body) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let url = format!("{}{target}", self.public_base_url);
        let body = read_body(body).await?;
        let (method, raw) = match parts.method {
            Method::POST => {
                expect_form(&parts.headers)?;
                ("POST", body)
            }
            Method::GET if body.is_empty() => {
                ("GET", parts.uri.query().unwrap_or_default().as_bytes().to_vec())
            }
            Method::GET => {
                let detail = "a GET has its parameters in the query and no body".to_owned();
                return Err(Refused::new(Problem::Malformed { detail }, "get_with_body"));
            }
            _ => return Err(Refused::new(Problem::MethodNotAllowed, "method")),
        };
        let form = Form::parse(&raw).map_err(|error| {
            Refused::new(
                Problem::Malformed {
                    detail: error.to_string(),
                },
                "malformed",
            )
        })?;
        Ok(Read {
            method,
            raw,
            form,
            url,
            headers: parts.headers,
        })
    }

    async fn keep(&self, account_sid: &AccountSid, read: Read, matched: Match) -> Result<Accepted, Refused> {
        let webhook = NewWebhook {
            received_at: self.clock.now(),
            account_sid: account_sid.clone(),
            conversation_sid: conversation_of(&read.form),
            event_type: safe_text(read.form.get("EventType").unwrap_or_default())
                .text
                .into_owned(),
            dedupe_key: dedupe_key(&read.form).id,
            method: read.method,
            format: Format::Form,
            form: read.raw,
            idempotency_token: header_text(&read.headers, IDEMPOTENCY_HEADER).map(str::to_owned),
            token_index: i16::try_from(matched.token_index).unwrap_or(i16::MAX),
            url_candidate: matched.candidate.to_string(),
        };
        match tokio::time::timeout(STORE_TIMEOUT, self.writer.store(webhook)).await {
            Ok(Ok(Stored::New)) => Ok(Accepted::New),
            Ok(Ok(Stored::Duplicate)) => Ok(Accepted::Duplicate),
            Ok(Err(error)) => {
                warn!("a webhook was not stored: {error}");
                Err(Refused::new(Problem::Unavailable, "not_stored"))
            }
            Err(_) => {
                warn!("a webhook was not stored in time");
                Err(Refused::new(Problem::Unavailable, "not_stored_in_time"))
            }
        }
    }

    async fn quarantine(
        &self,
        account_sid: &AccountSid,
        read: &Read,
        refusal: Refusal,
    ) -> Result<Accepted, Refused> {
        let unavailable = || Refused::new(Problem::Unavailable, "not_stored");
        let keep = async {
            let mut conn = self.pool.acquire().await?;
            let now = self.clock.now();
            store::quarantine(
                &mut conn,
                account_sid,
                read.method,
                &read.raw,
                reason_of(refusal),
                now,
                QUARANTINE_MAX,
            )
            .await
        };
        let kept = tokio::time::timeout(STORE_TIMEOUT, keep)
            .await
            .map_err(|_| unavailable())?
            .map_err(|_| unavailable())?;
        info!(account.sid = %account_sid, reason = reason_of(refusal), kept, "quarantined a webhook that does not verify");
        Ok(Accepted::Quarantined)
    }
}

impl Read {
    fn verify(&self, signer: &Signer) -> Result<Match, Refusal> {
        let payload = if self.method == "GET" {
            Payload::None
        } else {
            Payload::Form(self.form.fields())
        };
        signature::verify(&signer.tokens, &self.url, payload, signature_of(&self.headers)?)
    }
}

/// The signature; of two nobody knows which one counts.
pub(super) fn signature_of(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut signatures = headers.get_all(SIGNATURE_HEADER).iter();
    let header = signatures.next().and_then(|value| value.to_str().ok());
    if signatures.next().is_some() {
        return Err(Refusal::MalformedHeader);
    }
    Ok(header)
}

pub(super) async fn read_body(body: Body) -> Result<Vec<u8>, Refused> {
    let too_large = || {
        Refused::new(
            Problem::TooLarge {
                limit_bytes: BODY_LIMIT,
            },
            "too_large",
        )
    };
    match Limited::new(body, BODY_LIMIT).collect().await {
        Ok(collected) => Ok(collected.to_bytes().into()),
        Err(error) if error.is::<LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Refused::new(Problem::RequestTimeout, "body_not_received")),
    }
}

fn expect_form(headers: &HeaderMap) -> Result<(), Refused> {
    expect_media_type(headers, "application/x-www-form-urlencoded")
}

pub(super) fn expect_media_type(headers: &HeaderMap, expected: &'static str) -> Result<(), Refused> {
    let media_type = header_text(headers, header::CONTENT_TYPE.as_str()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case(expected) {
        Ok(())
    } else {
        Err(Refused::new(
            Problem::UnsupportedMediaType { expected },
            "media_type",
        ))
    }
}

/// What decides the lane: webhooks of one conversation are projected in the order in which they came.
fn conversation_of(form: &Form) -> Option<String> {
    form.get("ConversationSid")
        .and_then(|text| ConversationSid::try_from(text).ok())
        .map(ConversationSid::into_string)
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

pub(super) fn reason_of(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::MissingHeader => "signature_missing",
        Refusal::MalformedHeader => "signature_malformed",
        Refusal::NoToken => "no_token",
        Refusal::MissingBodyHash => "body_hash_missing",
        Refusal::BodyHashMismatch => "body_hash_mismatch",
        Refusal::NoMatch => "signature_mismatch",
    }
}
