//! The endpoint of Event Streams: verify the body, have each of its events committed, answer.
//!
//! An event is kept as a webhook of its own, so that it has its key, its lane and its fate; one that says nothing
//! sensible is set aside and takes no other with it. 200 is said once all are in the database. Twilio repeats a body
//! that was refused, and what of it had been kept then counts as a duplicate.

use std::collections::BTreeMap;

use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::future::join_all;
use tracing::{info, warn};

use crate::config::SignatureMode;
use crate::ids::{AccountSid, ConversationSid};
use crate::inbox::receive::{
    Inbox, QUARANTINE_MAX, Refused, STORE_TIMEOUT, Signer, expect_media_type, read_body, reason_of,
    signature_of,
};
use crate::inbox::{Format, NewWebhook, Stored, store};
use crate::twilio::event_stream::{self, CloudEvent, EventError};
use crate::twilio::signature::{self, Match, Payload, Refusal};
use crate::twilio::text::safe_text;
use crate::twilio::webhook::Webhook;
use crate::web::problem::Problem;

pub(super) async fn receive(State(inbox): State<Inbox>, request: Request) -> Response {
    match inbox.accept_events(request).await {
        Ok(kept) => {
            let count = |outcome, number: usize| {
                metrics::counter!("hookswitch_webhooks_total", "outcome" => outcome).increment(number as u64);
            };
            count("new", kept.new);
            count("duplicate", kept.duplicate);
            count("quarantined", kept.quarantined);
            StatusCode::OK.into_response()
        }
        Err(refused) => {
            metrics::counter!("hookswitch_webhooks_refused_total", "reason" => refused.reason).increment(1);
            if refused.problem == Problem::MethodNotAllowed {
                return ([(header::ALLOW, "POST")], refused.problem.into_response()).into_response();
            }
            refused.problem.into_response()
        }
    }
}

/// Reads a stored event as the webhook that says the same.
pub(super) fn parse(stored: &[u8]) -> Result<Webhook, EventError> {
    let text = std::str::from_utf8(stored).map_err(|_| EventError::NotAnObject)?;
    CloudEvent::read(text)?.webhook()
}

#[derive(Debug, Default)]
struct Kept {
    new: usize,
    duplicate: usize,
    quarantined: usize,
}

/// An event with the text that it was read from.
struct Read<'a> {
    text: &'a str,
    event: Option<CloudEvent>,
}

impl Inbox {
    async fn accept_events(&self, request: Request) -> Result<Kept, Refused> {
        let (parts, body) = request.into_parts();
        if parts.method != Method::POST {
            return Err(Refused::new(Problem::MethodNotAllowed, "method"));
        }
        expect_media_type(&parts.headers, "application/json")?;
        let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
        let url = format!("{}{target}", self.public_base_url);
        let body = read_body(body).await?;
        let events: Vec<Read<'_>> = event_stream::split(&body)
            .map_err(|error| {
                let detail = error.to_string();
                Refused::new(Problem::Malformed { detail }, "malformed")
            })?
            .into_iter()
            .map(|text| Read {
                text,
                event: CloudEvent::read(text).ok(),
            })
            .collect();

        let signers = self.signers(&events)?;
        let mut verified = BTreeMap::new();
        let mut refusals = BTreeMap::new();
        for (account_sid, signer) in &signers {
            let judged = signature_of(&parts.headers)
                .and_then(|header| signature::verify(&signer.tokens, &url, Payload::Raw(&body), header));
            match judged {
                Ok(matched) => verified.insert(*account_sid, matched).map(drop),
                Err(refusal) => refusals.insert(*account_sid, refusal).map(drop),
            };
        }
        if let Some((account_sid, refusal)) = refusals.first_key_value() {
            let observed = signers
                .values()
                .all(|signer| signer.mode == SignatureMode::Observe);
            if observed && verified.is_empty() {
                return self.quarantine_events(account_sid, &body, *refusal).await;
            }
            warn!(account.sid = %account_sid, reason = reason_of(*refusal), "refused events: {refusal}");
            return Err(Refused::new(Problem::SignatureRefused, reason_of(*refusal)));
        }
        self.keep_events(&events, &verified).await
    }

    /// The accounts of the events, all of which have to be known. An event that names none belongs to those beside it.
    fn signers(&self, events: &[Read<'_>]) -> Result<BTreeMap<&AccountSid, &Signer>, Refused> {
        let unknown = || {
            warn!("refused events of an account that is not configured");
            Refused::new(Problem::SignatureRefused, "unknown_account")
        };
        let signers = events
            .iter()
            .filter_map(|one| one.event.as_ref()?.account_sid())
            .map(|sid| self.accounts.get_key_value(&sid).ok_or_else(unknown))
            .collect::<Result<BTreeMap<_, _>, _>>()?;
        if signers.is_empty() {
            return Err(unknown());
        }
        Ok(signers)
    }

    async fn keep_events(
        &self,
        events: &[Read<'_>],
        verified: &BTreeMap<&AccountSid, Match>,
    ) -> Result<Kept, Refused> {
        let unnamed = verified
            .first_key_value()
            .expect("one account at least was verified");
        let received_at = self.clock.now();
        let writes = events.iter().map(|one| {
            let event = one.event.as_ref();
            let named = event.and_then(CloudEvent::account_sid);
            let (account_sid, matched) = named
                .and_then(|sid| verified.get_key_value(&sid))
                .unwrap_or(unnamed);
            self.writer.store(NewWebhook {
                received_at,
                account_sid: (*account_sid).clone(),
                conversation_sid: event
                    .and_then(CloudEvent::conversation_sid)
                    .map(ConversationSid::into_string),
                event_type: safe_text(event.map_or("", CloudEvent::event_type))
                    .text
                    .into_owned(),
                dedupe_key: event_stream::dedupe_key(account_sid, one.text, event),
                method: "POST",
                format: Format::CloudEvent,
                form: one.text.as_bytes().to_vec(),
                idempotency_token: None,
                token_index: i16::try_from(matched.token_index).unwrap_or(i16::MAX),
                url_candidate: matched.candidate.to_string(),
            })
        });
        let stored = tokio::time::timeout(STORE_TIMEOUT, join_all(writes))
            .await
            .map_err(|_| {
                warn!("events were not stored in time");
                Refused::new(Problem::Unavailable, "not_stored_in_time")
            })?;
        let mut kept = Kept::default();
        for one in stored {
            match one {
                Ok(Stored::New) => kept.new += 1,
                Ok(Stored::Duplicate) => kept.duplicate += 1,
                Err(error) => {
                    warn!("events were not stored: {error}");
                    return Err(Refused::new(Problem::Unavailable, "not_stored"));
                }
            }
        }
        Ok(kept)
    }

    async fn quarantine_events(
        &self,
        account_sid: &AccountSid,
        body: &[u8],
        refusal: Refusal,
    ) -> Result<Kept, Refused> {
        let unavailable = || Refused::new(Problem::Unavailable, "not_stored");
        let keep = async {
            let mut conn = self.pool.acquire().await?;
            let now = self.clock.now();
            let reason = reason_of(refusal);
            store::quarantine(&mut conn, account_sid, "POST", body, reason, now, QUARANTINE_MAX).await
        };
        let kept = tokio::time::timeout(STORE_TIMEOUT, keep)
            .await
            .map_err(|_| unavailable())?
            .map_err(|_| unavailable())?;
        info!(account.sid = %account_sid, reason = reason_of(refusal), kept, "quarantined events that do not verify");
        Ok(Kept {
            quarantined: 1,
            ..Kept::default()
        })
    }
}
