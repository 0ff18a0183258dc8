//! Sending through the API, as a CRM does it: media, what becomes of a message on each handset, and members who opted out.

mod delivery;
mod media;
mod opt_out;
mod unknown;

use hookswitch::api::auth::{self, Scope};
use hookswitch::ids::ConversationSid;
use jiff::SignedDuration;
use reqwest::{Method, RequestBuilder};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::app::{TestApp, Wanted, http, sid_of};
use crate::support::tables;

/// A CRM with a key, before the service with its sandbox.
struct Crm {
    app: TestApp,
    key: String,
    http: reqwest::Client,
}

/// What was answered.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    #[track_caller]
    fn expect(self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.body);
        self.body
    }

    /// The name of the problem.
    #[track_caller]
    fn problem(&self, status: u16) -> &str {
        assert_eq!(self.status, status, "{}", self.body);
        let kind = self.body["type"].as_str().unwrap();
        kind.strip_prefix("urn:hookswitch:problem:").unwrap()
    }

    /// The one thing that is wrong: where, and its code.
    #[track_caller]
    fn wrong(&self) -> (&str, &str) {
        assert_eq!(self.problem(400), "invalid");
        let error = &self.body["errors"][0];
        (error["field"].as_str().unwrap(), error["code"].as_str().unwrap())
    }
}

impl Crm {
    async fn start() -> Self {
        Self::start_with(Wanted::default()).await
    }

    async fn start_with(wanted: Wanted) -> Self {
        let app = TestApp::start_with(wanted).await;
        let key = key(&app, &[Scope::Admin]).await;
        Self {
            app,
            key,
            http: http(),
        }
    }

    async fn group(&self) -> ConversationSid {
        sid_of(&self.app.group(Some("maya")).await)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.app.url))
            .bearer_auth(&self.key)
    }

    async fn ask(&self, request: RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let body = response.json().await.unwrap_or(Value::Null);
        Answer { status, body }
    }

    async fn get(&self, path: &str) -> Value {
        self.ask(self.request(Method::GET, path)).await.expect(200)
    }

    async fn post(&self, path: &str, body: &Value) -> Answer {
        let request = self
            .request(Method::POST, path)
            .header("Idempotency-Key", hookswitch::ids::new_id().to_string())
            .json(body);
        self.ask(request).await
    }

    async fn upload(&self, sid: &ConversationSid, content_type: &str, bytes: &[u8]) -> Answer {
        self.upload_as(&hookswitch::ids::new_id().to_string(), sid, content_type, bytes)
            .await
    }

    async fn upload_as(&self, key: &str, sid: &ConversationSid, content_type: &str, bytes: &[u8]) -> Answer {
        let request = self
            .request(Method::POST, &format!("/v1/conversations/{sid}/media"))
            .header("Idempotency-Key", key)
            .header("Content-Type", content_type)
            .header("Content-Disposition", "attachment; filename=\"kitchen.png\"")
            .body(bytes.to_vec());
        self.ask(request).await
    }

    /// Asks for a message, and goes on until all that follows has come to its end.
    async fn message(&self, sid: &ConversationSid, body: &Value) -> Answer {
        self.post(&format!("/v1/conversations/{sid}/messages"), body)
            .await
    }

    async fn settle(&self) {
        for _ in 0..4 {
            self.app.settle_for(SignedDuration::from_secs(5)).await;
        }
    }

    /// What became of a message that was asked for.
    async fn send(&self, asked: &Value) -> Value {
        self.get(&format!("/v1/sends/{}", asked["send_id"].as_str().unwrap()))
            .await
    }

    /// The entries of the log whose types begin so, in their order. Not by the feed, which waits for the transactions of
    /// other tests.
    async fn told(&self, begin: &str) -> Vec<Value> {
        let sql = format!(
            "select jsonb_build_object('type', type, 'data', data::jsonb)::text from event
            where starts_with(type, '{begin}') order by commit_xid, event_id"
        );
        let rows = tables::rows(&self.app, &sql).await;
        rows.iter()
            .map(|row| serde_json::from_str(row).unwrap())
            .collect()
    }
}

async fn key(app: &TestApp, scopes: &[Scope]) -> String {
    let created = auth::create(&mut *app.conn().await, "crm", scopes, app.clock.now())
        .await
        .unwrap();
    created.key.expose_secret().to_owned()
}

fn words(body: &str) -> Value {
    json!({ "body": body })
}
