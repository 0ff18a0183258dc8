//! Sends webhooks as Twilio does: signed, form-encoded, in order within a conversation, with five seconds to answer.
//!
//! A post-action webhook that fails is gone unless the fragment of its URL says otherwise. A pre-action webhook that
//! does not answer lets the change proceed.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use uuid::Uuid;

use crate::clock::Clock;
use crate::ids::ConversationSid;
use crate::twilio::signature;

use super::faults::{Dice, WebhookAction, WebhookPlan};
use super::model::webhook::{Event, Hook, Method};
use super::overrides::{Failure, Overrides};
use super::pending::{Guard, Pending};

/// Twilio: "Conversations Webhooks": five seconds to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const OPEN_REQUESTS_MAX: usize = 256;
/// How many attempts the log keeps.
const LOG_LENGTH: usize = 2000;
/// As much of a pre-action answer as is read.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// One attempt to deliver a webhook, as `GET /sandbox/v1/webhooks` shows it.
#[derive(Debug, Clone, Serialize)]
pub struct Attempt {
    pub at: Timestamp,
    pub event: &'static str,
    pub conversation_sid: Option<ConversationSid>,
    /// Without user name and password.
    pub url: String,
    /// What the receiver answered, if it did.
    pub status: Option<u16>,
    /// 0 for the first; the value of `RetryCount`.
    pub attempt: u32,
    pub outcome: Outcome,
    pub elapsed_ms: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Answered with 2xx.
    Delivered,
    /// Answered with another status. A pre-action webhook with 4xx or 5xx rejects the change.
    Refused,
    TimedOut,
    Unreachable,
    /// Lost by a fault, and never sent.
    Lost,
}

/// What a pre-action webhook has decided.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Proceed,
    Revise(Revision),
    Reject,
}

/// Values that a pre-action webhook puts in place of the request's own.
#[derive(Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub(crate) struct Revision {
    pub(crate) friendly_name: Option<String>,
    pub(crate) body: Option<String>,
    pub(crate) author: Option<String>,
    pub(crate) attributes: Option<String>,
}

pub(crate) struct Sender {
    client: reqwest::Client,
    token: SecretString,
    clock: Clock,
    dice: Arc<Dice>,
    pending: Pending,
    permits: Semaphore,
    lanes: Mutex<HashMap<Option<ConversationSid>, Arc<Lane>>>,
    log: Mutex<VecDeque<Attempt>>,
}

/// The webhooks of one conversation, of which one is sent at a time. It lives while there are any.
#[derive(Default)]
struct Lane {
    queue: Mutex<VecDeque<Parcel>>,
    arrived: Notify,
}

struct Parcel {
    hook: Hook,
    event: Event,
    plan: Option<WebhookPlan>,
    _pending: Guard,
}

impl Sender {
    pub(crate) fn new(
        token: SecretString,
        clock: Clock,
        dice: Arc<Dice>,
        pending: Pending,
    ) -> reqwest::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(ANSWER_WITHIN)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent("TwilioProxy/1.1")
            .build()?;
        Ok(Self {
            client,
            token,
            clock,
            dice,
            pending,
            permits: Semaphore::new(OPEN_REQUESTS_MAX),
            lanes: Mutex::default(),
            log: Mutex::default(),
        })
    }

    /// The newest attempts, oldest first.
    pub(crate) fn attempts(&self) -> Vec<Attempt> {
        self.log
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .cloned()
            .collect()
    }

    /// Queues a post-action webhook behind the others of its conversation. `plan` is what the request that caused it
    /// asked for; otherwise the dice decide. Where this opens a lane, it is returned to be run.
    #[must_use]
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        hook: Hook,
        event: Event,
        plan: Option<WebhookPlan>,
    ) -> Option<Drive> {
        let plan = plan.or_else(|| self.dice.for_webhook(event.name));
        if plan.is_some_and(|plan| plan.action == WebhookAction::Lose) {
            self.note(&hook, &event, 0, None, Outcome::Lost, Instant::now());
            return None;
        }
        let key = event.conversation.clone();
        let parcel = Parcel {
            hook,
            event,
            plan,
            _pending: self.pending.begin(),
        };
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lanes.get(&key).cloned();
        let lane = known.clone().unwrap_or_default();
        lane.queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push_back(parcel);
        lane.arrived.notify_one();
        if known.is_some() {
            return None;
        }
        lanes.insert(key.clone(), Arc::clone(&lane));
        Some(Drive {
            sender: Arc::clone(self),
            key,
            lane,
        })
    }

    /// The next parcel of a lane; the lane is taken away when it is empty and `or_close` says so.
    fn take(&self, key: Option<&ConversationSid>, lane: &Lane, or_close: bool) -> Option<Parcel> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let parcel = lane
            .queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        if parcel.is_none() && or_close {
            lanes.remove(&key.cloned());
        }
        parcel
    }

    async fn deliver(&self, parcel: &Parcel) {
        let times = if parcel
            .plan
            .is_some_and(|plan| plan.action == WebhookAction::Double)
        {
            2
        } else {
            1
        };
        for _ in 0..times {
            self.send_with_retries(&parcel.hook, &parcel.event).await;
        }
    }

    async fn send_with_retries(&self, hook: &Hook, event: &Event) {
        let overrides = Overrides::of(&hook.url);
        let token = Uuid::new_v4();
        let give_up_at = Instant::now() + overrides.total;
        for attempt in 0..=overrides.retries {
            let left = give_up_at.saturating_duration_since(Instant::now());
            let within = overrides.read.min(ANSWER_WITHIN).min(left);
            let failure = match self.send(hook, event, token, attempt, within).await {
                Ok((status, _)) if (200..300).contains(&status) => return,
                Ok((status, _)) => Failure::Status(status),
                Err(failure) => failure,
            };
            if !overrides.retry_on(failure) || Instant::now() >= give_up_at {
                return;
            }
        }
    }

    /// Asks a pre-action webhook, which has five seconds. Whatever goes wrong with asking, the change proceeds.
    pub(crate) async fn ask(&self, hook: &Hook, event: &Event) -> Verdict {
        let _pending = self.pending.begin();
        match self.send(hook, event, Uuid::new_v4(), 0, ANSWER_WITHIN).await {
            Ok((status, _)) if status >= 400 => Verdict::Reject,
            Ok((200, answer)) => revision(&answer),
            Ok(_) | Err(_) => Verdict::Proceed,
        }
    }

    async fn send(
        &self,
        hook: &Hook,
        event: &Event,
        token: Uuid,
        attempt: u32,
        within: Duration,
    ) -> Result<(u16, Vec<u8>), Failure> {
        let _permit = self
            .permits
            .acquire()
            .await
            .expect("the semaphore is never closed");
        let begun = Instant::now();
        let request = self.request(hook, event, token, attempt);
        let answered = tokio::time::timeout(within, exchange(request)).await;
        let (outcome, status, result) = match answered {
            Ok(Ok((status, body))) if (200..300).contains(&status) => {
                (Outcome::Delivered, Some(status), Ok((status, body)))
            }
            Ok(Ok((status, body))) => (Outcome::Refused, Some(status), Ok((status, body))),
            Ok(Err(error)) if error.is_timeout() => (Outcome::TimedOut, None, Err(Failure::Read)),
            Ok(Err(error)) if error.is_connect() => (Outcome::Unreachable, None, Err(Failure::Connect)),
            Ok(Err(_)) => (Outcome::Unreachable, None, Err(Failure::Read)),
            Err(_) => (Outcome::TimedOut, None, Err(Failure::Read)),
        };
        self.note(hook, event, attempt, status, outcome, begun);
        result
    }

    fn request(&self, hook: &Hook, event: &Event, token: Uuid, attempt: u32) -> reqwest::RequestBuilder {
        let mut params = event.params.clone();
        params.push(("RetryCount".to_owned(), attempt.to_string()));
        let form = form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&params)
            .finish();
        let url = without_fragment(&hook.url);
        let secret = self.token.expose_secret();
        let (builder, signed) = match hook.method {
            Method::Post => {
                let content_type =
                    HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8");
                let builder = self
                    .client
                    .post(url)
                    .header(CONTENT_TYPE, content_type)
                    .body(form);
                (builder, signature::sign(secret, url, &params))
            }
            Method::Get => {
                let separator = if url.contains('?') { '&' } else { '?' };
                let url = format!("{url}{separator}{form}");
                let signed = signature::sign(secret, &url, &[]);
                (self.client.get(url), signed)
            }
        };
        let mut headers = HeaderMap::new();
        headers.insert(
            "X-Twilio-Signature",
            HeaderValue::from_str(&signed).expect("base64 is ASCII"),
        );
        let token = HeaderValue::from_str(&token.to_string()).expect("a UUID is ASCII");
        headers.insert("I-Twilio-Idempotency-Token", token);
        builder.headers(headers)
    }

    fn note(
        &self,
        hook: &Hook,
        event: &Event,
        attempt: u32,
        status: Option<u16>,
        outcome: Outcome,
        begun: Instant,
    ) {
        let entry = Attempt {
            at: self.clock.now(),
            event: event.name.as_str(),
            conversation_sid: event.conversation.clone(),
            url: without_credentials(&hook.url),
            status,
            attempt,
            outcome,
            elapsed_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
        };
        let mut log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
        if log.len() == LOG_LENGTH {
            log.pop_front();
        }
        log.push_back(entry);
    }
}

/// The work of one lane: sends its parcels, one at a time, until there are none.
pub(crate) struct Drive {
    sender: Arc<Sender>,
    key: Option<ConversationSid>,
    lane: Arc<Lane>,
}

impl Drive {
    pub(crate) async fn run(self) {
        while let Some(parcel) = self.sender.take(self.key.as_ref(), &self.lane, true) {
            self.deliver_in_turn(parcel).await;
        }
    }

    /// Delivers a parcel as its plan says; one that is to be overtaken waits for the next one and follows it.
    async fn deliver_in_turn(&self, parcel: Parcel) {
        match parcel.plan {
            Some(WebhookPlan {
                action: WebhookAction::Delay,
                wait,
            }) => tokio::time::sleep(wait).await,
            Some(WebhookPlan {
                action: WebhookAction::Reorder,
                wait,
            }) => {
                if let Some(next) = self.next_within(wait).await {
                    self.sender.deliver(&next).await;
                }
            }
            Some(_) | None => {}
        }
        self.sender.deliver(&parcel).await;
    }

    async fn next_within(&self, wait: Duration) -> Option<Parcel> {
        let arrival = async {
            loop {
                if let Some(parcel) = self.sender.take(self.key.as_ref(), &self.lane, false) {
                    return parcel;
                }
                self.lane.arrived.notified().await;
            }
        };
        tokio::time::timeout(wait, arrival).await.ok()
    }
}

async fn exchange(request: reqwest::RequestBuilder) -> reqwest::Result<(u16, Vec<u8>)> {
    let mut response = request.send().await?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > ANSWER_BYTES_MAX {
            break;
        }
    }
    Ok((status, body))
}

/// A JSON object in an answer of 200 replaces what it names; anything else changes nothing.
fn revision(answer: &[u8]) -> Verdict {
    match serde_json::from_slice::<Revision>(answer) {
        Ok(revision) if revision != Revision::default() => Verdict::Revise(revision),
        Ok(_) | Err(_) => Verdict::Proceed,
    }
}

fn without_fragment(url: &str) -> &str {
    url.split_once('#').map_or(url, |(url, _)| url)
}

fn without_credentials(url: &str) -> String {
    let url = without_fragment(url);
    let Some((scheme, rest)) = url.split_once("://") else {
        return url.to_owned();
    };
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    format!("{scheme}://{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_revises_what_it_names_and_nothing_else() {
        let revised = |text: &str| revision(text.as_bytes());
        assert_eq!(revised(""), Verdict::Proceed);
        assert_eq!(revised("{}"), Verdict::Proceed);
        assert_eq!(revised("<html>"), Verdict::Proceed);
        let expected = Revision {
            body: Some("hi".to_owned()),
            ..Revision::default()
        };
        assert_eq!(revised(r#"{"body": "hi"}"#), Verdict::Revise(expected));
    }

    #[test]
    fn the_log_shows_no_credentials() {
        assert_eq!(
            without_credentials("https://user:pass@example.com/hook?a=b@c#rc=2"),
            "https://example.com/hook?a=b@c"
        );
        assert_eq!(without_credentials("https://example.com"), "https://example.com");
    }
}
