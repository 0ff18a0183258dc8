//! Twilio's wire and nothing of ours: signatures, webhooks, and the REST calls that we make.
//!
//! Here is the [`Client`], which sends one call: its turn, its tries, its limits, its span. [`settings`] says where
//! Twilio is, who we are and how long to wait; [`conversations`] has one function per endpoint, [`requests`] what they
//! send, [`media`] the service that files are uploaded to, [`model`] what comes back, [`error`] what the caller may do when nothing does. [`form`], [`signature`],
//! [`webhook`] and [`text`] are pure and know no client.

use std::sync::{Arc, Once};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use secrecy::ExposeSecret as _;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;
use tracing::Instrument as _;
use url::Url;

pub mod conversations;
pub mod error;
pub mod event_stream;
pub mod form;
pub mod media;
pub mod model;
pub mod pages;
pub mod requests;
pub mod settings;
pub mod signature;
pub mod text;
pub mod webhook;

pub use error::{Class, Error};
pub use pages::Pages;
pub use settings::{BuildError, ClientSettings, Credentials, RetryPolicy, Timeouts};

/// What is read of an answer at most, in bytes. The largest true one is a page of 50 messages with 32 KB of text each,
/// which escapes in JSON can make three times as long.
const MAX_ANSWER: usize = 8 * 1024 * 1024;

/// Without this header Twilio is silent about what REST calls change.
const WEBHOOK_ENABLED: &str = "x-twilio-webhook-enabled";

/// One account and conversation service at Twilio. Cheap to clone; clones share connections and the limit of calls.
#[derive(Clone, Debug)]
pub struct Client(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: reqwest::Client,
    settings: ClientSettings,
    in_flight: Semaphore,
}

/// Chooses the TLS implementation of this process, once; whoever calls later changes nothing.
pub fn install_tls() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // An error means that there is one already, and then that one is meant.
        rustls::crypto::ring::default_provider().install_default().ok();
    });
}

/// Whether a call may be repeated when it is not known what came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Repeat {
    /// It changes nothing.
    Read,
    /// Twice is as good as once.
    SafeWrite,
    /// Twice may be one too many.
    Once,
}

/// One call, ready to be tried.
struct Call {
    method: Method,
    /// The path for people and spans: no identity and no name of a person in it.
    template: &'static str,
    url: Url,
    payload: Payload,
    repeat: Repeat,
}

/// What a call sends.
enum Payload {
    Nothing,
    Form(Vec<(&'static str, String)>),
    /// A file, which may take longer than other calls.
    Bytes {
        content_type: String,
        content: Vec<u8>,
        time_limit: Duration,
    },
}

impl Call {
    fn changes(&self) -> bool {
        self.repeat != Repeat::Read
    }

    fn may_repeat_after(&self, failure: &Error) -> bool {
        failure.may_repeat()
            || (matches!(failure, Error::OutcomeUnknown { .. }) && self.repeat == Repeat::SafeWrite)
    }

    /// The request left, or may have left, and no usable answer came.
    fn lost(&self, status: Option<u16>, source: Option<reqwest::Error>) -> Error {
        // Its text has the whole URL, with identities and numbers in the query.
        let source = source.map(reqwest::Error::without_url);
        if self.changes() {
            Error::OutcomeUnknown {
                code: None,
                status,
                source,
            }
        } else {
            Error::Unavailable {
                code: None,
                status,
                source,
            }
        }
    }

    /// An answer came, a success by its status, and is not to be understood. What was asked for was done.
    fn not_understood(&self, status: Option<u16>, reason: String) -> Error {
        if self.changes() {
            self.lost(status, None)
        } else {
            Error::Malformed { reason }
        }
    }
}

struct Answer {
    status: u16,
    body: Vec<u8>,
}

impl Client {
    pub fn new(settings: ClientSettings) -> Result<Self, BuildError> {
        settings.check()?;
        install_tls();
        let mut http = reqwest::Client::builder()
            .user_agent(concat!("hookswitch/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(settings.timeouts.connect)
            .timeout(settings.timeouts.call)
            // A redirect would carry our credentials to wherever it points.
            .redirect(reqwest::redirect::Policy::none())
            .referer(false);
        if settings.is_on_this_machine() {
            http = http.no_proxy();
        }
        Ok(Self(Arc::new(Inner {
            http: http.build().map_err(BuildError::Http)?,
            in_flight: Semaphore::new(settings.max_in_flight.min(Semaphore::MAX_PERMITS)),
            settings,
        })))
    }

    pub fn settings(&self) -> &ClientSettings {
        &self.0.settings
    }

    /// `/v1/Services/{IS}/…segments`, each segment encoded.
    fn service_url(&self, segments: &[&str]) -> Url {
        let service = self.0.settings.service_sid.as_str();
        let mut all = vec!["Services", service];
        all.extend_from_slice(segments);
        self.account_url(&all)
    }

    /// `/v1/…segments`, for what belongs to the account and not to a service.
    fn account_url(&self, segments: &[&str]) -> Url {
        let mut url = self.0.settings.base_url.clone();
        url.path_segments_mut()
            .expect("an http URL has a path")
            .clear()
            .push("v1")
            .extend(segments);
        url
    }

    async fn read<T: DeserializeOwned>(&self, template: &'static str, url: Url) -> Result<T, Error> {
        let call = Call {
            method: Method::GET,
            template,
            url,
            payload: Payload::Nothing,
            repeat: Repeat::Read,
        };
        self.json(&call).await
    }

    async fn write<T: DeserializeOwned>(
        &self,
        template: &'static str,
        url: Url,
        form: Vec<(&'static str, String)>,
        repeat: Repeat,
    ) -> Result<T, Error> {
        let call = Call {
            method: Method::POST,
            template,
            url,
            payload: Payload::Form(form),
            repeat,
        };
        self.json(&call).await
    }

    async fn delete(&self, template: &'static str, url: Url) -> Result<(), Error> {
        let call = Call {
            method: Method::DELETE,
            template,
            url,
            payload: Payload::Nothing,
            repeat: Repeat::SafeWrite,
        };
        self.send(&call).await.map(|_| ())
    }

    async fn json<T: DeserializeOwned>(&self, call: &Call) -> Result<T, Error> {
        let answer = self.send(call).await?;
        from_json(&answer.body).map_err(|reason| call.not_understood(Some(answer.status), reason))
    }

    /// Tries until there is an answer that trying again would not change, or the tries are used up.
    async fn send(&self, call: &Call) -> Result<Answer, Error> {
        let retry = self.0.settings.retry;
        let mut pauses = ExponentialBuilder::new()
            .with_min_delay(retry.first_pause)
            .with_max_delay(retry.max_pause)
            .with_max_times(retry.max_attempts.saturating_sub(1))
            .with_jitter()
            .build();
        let mut attempt = 1;
        let mut may_have_happened = false;
        loop {
            let failure = match self.attempt(call, attempt).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let pause = if call.may_repeat_after(&failure) {
                pauses.next()
            } else {
                None
            };
            let Some(pause) = pause else {
                return Err(if may_have_happened {
                    failure.after_unknown_outcome()
                } else {
                    failure
                });
            };
            may_have_happened |= matches!(failure, Error::OutcomeUnknown { .. });
            tokio::time::sleep(pause.max(asked_pause(&failure, retry))).await;
            attempt += 1;
        }
    }

    async fn attempt(&self, call: &Call, attempt: u32) -> Result<Answer, Error> {
        let span = tracing::info_span!(
            "twilio.call",
            method = %call.method,
            path = call.template,
            attempt,
            status = tracing::field::Empty,
            code = tracing::field::Empty,
        );
        let result = self.exchange(call).instrument(span.clone()).await;
        let status = match &result {
            Ok(answer) => Some(answer.status),
            Err(failure) => failure.status(),
        };
        span.record("status", status);
        if let Err(failure) = &result {
            span.record("code", failure.code());
            span.in_scope(|| tracing::debug!("{} {}: {failure}", call.method, call.template));
        }
        result
    }

    async fn exchange(&self, call: &Call) -> Result<Answer, Error> {
        let not_sent = |source| Error::Unavailable {
            code: None,
            status: None,
            source,
        };
        let turn = tokio::time::timeout(self.0.settings.timeouts.call, self.0.in_flight.acquire());
        // The semaphore is never closed, so what ends the wait early is its time.
        let Ok(Ok(_turn)) = turn.await else {
            return Err(not_sent(None));
        };
        let mut response = match self.request(call).send().await {
            Ok(response) => response,
            Err(error) if error.is_connect() => return Err(not_sent(Some(error.without_url()))),
            Err(error) => return Err(call.lost(None, Some(error))),
        };
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers().get(RETRY_AFTER));
        let succeeded = response.status().is_success();
        let (body, complete) = match read_body(&mut response).await {
            Ok(read) => read,
            // The status alone says enough of a failure; a success without its body is lost.
            Err(_) if !succeeded => (Vec::new(), true),
            Err(error) => return Err(call.lost(Some(status), Some(error))),
        };
        if !succeeded {
            return Err(Error::from_answer(status, retry_after, &body, call.changes()));
        }
        if !complete {
            return Err(call.not_understood(Some(status), "it is too large".to_owned()));
        }
        Ok(Answer { status, body })
    }

    fn request(&self, call: &Call) -> reqwest::RequestBuilder {
        let mut request = self.0.http.request(call.method.clone(), call.url.clone());
        request = match &self.0.settings.credentials {
            Credentials::ApiKey { sid, secret } => {
                request.basic_auth(sid.as_str(), Some(secret.expose_secret()))
            }
            Credentials::AuthToken(token) => {
                request.basic_auth(self.0.settings.account_sid.as_str(), Some(token.expose_secret()))
            }
        };
        if call.changes() {
            request = request.header(WEBHOOK_ENABLED, "true");
        }
        match &call.payload {
            Payload::Nothing => request,
            Payload::Form(form) => request.form(form),
            Payload::Bytes {
                content_type,
                content,
                time_limit,
            } => request
                .header(CONTENT_TYPE, content_type)
                .timeout(*time_limit)
                .body(content.clone()),
        }
    }
}

/// The body and whether it is all of it: reading stops at the limit.
async fn read_body(response: &mut reqwest::Response) -> Result<(Vec<u8>, bool), reqwest::Error> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Ok((body, false));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, true))
}

/// `Retry-After` in whole seconds. Its other form, a date, is not known of Twilio and counts as none.
fn retry_after(header: Option<&HeaderValue>) -> Option<Duration> {
    header?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()
        .map(Duration::from_secs)
}

fn asked_pause(failure: &Error, retry: RetryPolicy) -> Duration {
    match failure {
        Error::Throttled {
            retry_after: Some(asked),
            ..
        } => (*asked).min(retry.max_retry_after),
        _ => Duration::ZERO,
    }
}

/// Reads JSON, or says where it differs. Never with the value that stands there: it may be anyone's number.
fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, String> {
    let mut json = serde_json::Deserializer::from_slice(body);
    serde_path_to_error::deserialize(&mut json)
        .map_err(|error| format!("not what is expected at `{}`", error.path()))
}
