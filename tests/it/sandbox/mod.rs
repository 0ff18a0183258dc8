//! Flows of the emulator, over real HTTP: a [`Twin`] of an account to talk to, and a [`Receiver`] of its webhooks.

#![expect(
    clippy::unwrap_used,
    reason = "a test fails by panicking, in what its functions share as well"
)]

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use base64::Engine as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use hookswitch::clock::Clock;
use hookswitch::sandbox::{Sandbox, Settings};
use serde_json::Value;
use sha1::Sha1;

mod cli;
mod faults;
mod group;
mod inbound;
mod rest;
mod webhooks;

pub(crate) const ACCOUNT: &str = "AC00000000000000000000000000000001";
pub(crate) const SERVICE: &str = "IS00000000000000000000000000000001";
const TOKEN: &str = "sandbox-auth-token";
pub(crate) const LINE: &str = "+15017122661";
pub(crate) const ANN: &str = "+15555550101";
pub(crate) const BOB: &str = "+15555550102";
pub(crate) const CYD: &str = "+15555550103";

/// An emulated account, and a client of its API.
pub(crate) struct Twin {
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: Clock,
    http: reqwest::Client,
}

impl Twin {
    pub(crate) async fn start() -> Self {
        Self::start_with(Settings {
            activation_delay: Duration::from_millis(10),
            ..Settings::default()
        })
        .await
    }

    /// Groups take a second to be set up, so that a test can come in between.
    pub(crate) async fn start_slow() -> Self {
        Self::start_with(Settings {
            activation_delay: Duration::from_secs(1),
            ..Settings::default()
        })
        .await
    }

    pub(crate) async fn start_with(settings: Settings) -> Self {
        let clock = Clock::fixed("2026-01-02T03:04:05.678Z".parse().unwrap());
        let sandbox = Sandbox::start(settings, clock.clone()).await.unwrap();
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(20))
            .no_proxy()
            .build()
            .unwrap();
        Self { sandbox, clock, http }
    }

    /// A request of the service's form of a path, such as `/Conversations`; paths from `/v1` or `/sandbox` are whole.
    pub(crate) fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let whole = path.starts_with("/v1") || path.starts_with("/sandbox");
        let path = if whole {
            path.to_owned()
        } else {
            format!("/v1/Services/{SERVICE}{path}")
        };
        let url = format!("{}{path}", self.sandbox.base_url());
        self.http.request(method, url).basic_auth(ACCOUNT, Some(TOKEN))
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        answer(self.request(Method::GET, path)).await.expect_ok(200)
    }

    pub(crate) async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        answer(self.request(Method::POST, path).form(form)).await
    }

    /// As `post`, with `X-Twilio-Webhook-Enabled: true`.
    pub(crate) async fn post_told(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header("X-Twilio-Webhook-Enabled", "true");
        answer(request.form(form)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        answer(self.request(Method::DELETE, path)).await
    }

    /// The conversation of Ann, Bob and the agent behind the line, active.
    pub(crate) async fn group(&self, agent: &str) -> String {
        let conversation = self.found(&[ANN, BOB], agent).await.expect_ok(202);
        self.sandbox.settled().await;
        sid(&conversation)
    }

    pub(crate) async fn found(&self, natives: &[&str], agent: &str) -> Answer {
        let mut form: Vec<(&str, String)> = natives
            .iter()
            .map(|native| {
                (
                    "Participant",
                    format!(r#"{{"messaging_binding":{{"address":"{native}"}}}}"#),
                )
            })
            .collect();
        let projected =
            format!(r#"{{"identity":"{agent}","messaging_binding":{{"projected_address":"{LINE}"}}}}"#);
        form.push(("Participant", projected));
        answer(
            self.request(Method::POST, "/ConversationWithParticipants")
                .form(&form),
        )
        .await
    }

    /// The participant on the line.
    pub(crate) async fn line(&self, conversation: &str) -> Value {
        let all = self
            .get(&format!("/Conversations/{conversation}/Participants"))
            .await;
        let on_line = |one: &&Value| one["messaging_binding"]["projected_address"] == LINE;
        all["participants"]
            .as_array()
            .unwrap()
            .iter()
            .find(on_line)
            .expect("someone is on the line")
            .clone()
    }

    pub(crate) async fn text(&self, from: &str, to: &[&str], body: &str) -> Value {
        let path = format!("/sandbox/v1/handsets/{}/messages", from.replace('+', "%2B"));
        let text = serde_json::json!({"to": to, "body": body});
        answer(self.request(Method::POST, &path).json(&text))
            .await
            .expect_ok(202)
    }

    pub(crate) async fn received(&self, number: &str) -> Vec<Value> {
        let path = format!("/sandbox/v1/handsets/{}/messages", number.replace('+', "%2B"));
        self.get(&path).await["messages"].as_array().unwrap().clone()
    }

    pub(crate) async fn configure_address(&self, number: &str) {
        let form = [
            ("Type", "sms"),
            ("Address", number),
            ("AutoCreation.Enabled", "true"),
        ];
        self.post("/v1/Configuration/Addresses", &form)
            .await
            .expect_ok(201);
    }

    /// Sends the service's post-action events named to `receiver`.
    pub(crate) async fn tell(&self, receiver: &Receiver, filters: &[&str]) {
        let mut form = vec![("PostWebhookUrl", receiver.url.as_str()), ("Method", "POST")];
        form.extend(filters.iter().map(|&name| ("Filters", name)));
        self.post("/Configuration/Webhooks", &form).await.expect_ok(200);
    }

    /// Sends the service's pre-action events named to `receiver`.
    pub(crate) async fn ask(&self, receiver: &Receiver, filters: &[&str]) {
        let mut form = vec![("PreWebhookUrl", receiver.url.as_str())];
        form.extend(filters.iter().map(|&name| ("Filters", name)));
        self.post("/Configuration/Webhooks", &form).await.expect_ok(200);
    }
}

/// Status and JSON body; null where there is no body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect_ok(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The code of a refusal.
    #[track_caller]
    pub(crate) fn code(&self) -> u64 {
        assert!(self.status >= 400, "not refused: {}", self.body);
        assert_eq!(self.body["status"], self.status);
        self.body["code"].as_u64().expect("a refusal has a code")
    }
}

pub(crate) async fn answer(request: reqwest::RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).unwrap()
    };
    Answer { status, body }
}

pub(crate) fn sid(resource: &Value) -> String {
    resource["sid"].as_str().expect("a resource has a sid").to_owned()
}

/// A webhook as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Hook {
    pub(crate) method: Method,
    pub(crate) params: Vec<(String, String)>,
    pub(crate) idempotency_token: String,
    pub(crate) content_type: String,
    /// Whether Twilio's algorithm, computed here anew, gives the signature that came.
    pub(crate) signed: bool,
}

impl Hook {
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    pub(crate) fn all(&self, key: &str) -> Vec<&str> {
        self.params
            .iter()
            .filter(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
            .collect()
    }

    pub(crate) fn event(&self) -> &str {
        self.get("EventType").expect("every webhook names its event")
    }

    pub(crate) fn keys(&self) -> Vec<&str> {
        let mut keys: Vec<&str> = self.params.iter().map(|(name, _)| name.as_str()).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }
}

/// What a receiver answers once; without any it answers 200 with an empty body.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) body: &'static str,
    pub(crate) after: Duration,
}

/// A web server that keeps the webhooks it gets.
pub(crate) struct Receiver {
    pub(crate) url: String,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    origin: Mutex<String>,
    hooks: Mutex<Vec<Hook>>,
    replies: Mutex<VecDeque<Reply>>,
}

impl Receiver {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .unwrap();
        let origin = format!("http://{}", listener.local_addr().unwrap());
        let shared = Arc::new(Shared::default());
        origin.clone_into(&mut shared.origin.lock().unwrap());
        let router = Router::new().fallback(receive).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self {
            url: format!("{origin}/twilio/conversations"),
            shared,
        }
    }

    pub(crate) fn reply(&self, status: u16, body: &'static str) {
        self.reply_after(status, body, Duration::ZERO);
    }

    pub(crate) fn reply_after(&self, status: u16, body: &'static str, after: Duration) {
        self.shared
            .replies
            .lock()
            .unwrap()
            .push_back(Reply { status, body, after });
    }

    /// Those that have come since the last call, in the order of their arrival.
    pub(crate) fn take(&self) -> Vec<Hook> {
        std::mem::take(&mut self.shared.hooks.lock().unwrap())
    }

    pub(crate) fn take_events(&self) -> Vec<String> {
        self.take().iter().map(|hook| hook.event().to_owned()).collect()
    }
}

async fn receive(
    State(shared): State<Arc<Shared>>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, &'static str) {
    let hook = read(&shared.origin.lock().unwrap(), method, &uri, &headers, &body);
    shared.hooks.lock().unwrap().push(hook);
    let reply = shared.replies.lock().unwrap().pop_front();
    match reply {
        None => (StatusCode::OK, ""),
        Some(reply) => {
            tokio::time::sleep(reply.after).await;
            (StatusCode::from_u16(reply.status).unwrap(), reply.body)
        }
    }
}

fn read(origin: &str, method: Method, uri: &Uri, headers: &HeaderMap, body: &[u8]) -> Hook {
    let header = |name: &str| {
        headers
            .get(name)
            .map(|value| value.to_str().unwrap().to_owned())
            .unwrap_or_default()
    };
    let url = format!("{origin}{uri}");
    let (params, signed_params) = if method == Method::GET {
        (form(uri.query().unwrap_or_default().as_bytes()), Vec::new())
    } else {
        (form(body), form(body))
    };
    Hook {
        method,
        signed: header("x-twilio-signature") == signature(&url, signed_params),
        params,
        idempotency_token: header("i-twilio-idempotency-token"),
        content_type: header("content-type"),
    }
}

fn form(raw: &[u8]) -> Vec<(String, String)> {
    form_urlencoded::parse(raw).into_owned().collect()
}

/// Twilio: "Validating requests are coming from Twilio".
fn signature(url: &str, mut params: Vec<(String, String)>) -> String {
    params.sort();
    params.dedup();
    let mut mac = Hmac::<Sha1>::new_from_slice(TOKEN.as_bytes()).unwrap();
    mac.update(url.as_bytes());
    for (key, value) in params {
        mac.update(key.as_bytes());
        mac.update(value.as_bytes());
    }
    base64::prelude::BASE64_STANDARD.encode(mac.finalize().into_bytes())
}
