//! The CRM of the story: a client of our API like any other.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use reqwest::Client;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use uuid::Uuid;

pub(super) struct Crm {
    http: Client,
    base: String,
    key: SecretString,
    feed: RefCell<Feed>,
}

/// Where the CRM is in the feed: what it fetched and has not looked at yet, and where to go on.
#[derive(Default)]
struct Feed {
    unread: VecDeque<Value>,
    next: Option<String>,
}

impl Crm {
    pub(super) fn new(base: &str, key: SecretString) -> anyhow::Result<Self> {
        let http = Client::builder()
            .timeout(Duration::from_secs(30))
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            base: base.to_owned(),
            key,
            feed: RefCell::default(),
        })
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let request = self
            .http
            .post(format!("{}{path}", self.base))
            .header("Idempotency-Key", Uuid::now_v7().to_string())
            .json(body);
        self.answer(path, request).await
    }

    pub(super) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.answer(path, self.http.get(format!("{}{path}", self.base)))
            .await
    }

    async fn answer(&self, path: &str, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let response = request.bearer_auth(self.key.expose_secret()).send().await?;
        let status = response.status();
        let body: Value = response
            .json()
            .await
            .with_context(|| format!("{path} did not answer JSON"))?;
        if !status.is_success() {
            bail!("{path} answered {status}: {body}");
        }
        Ok(body)
    }

    /// Reads on in the feed until the event that is waited for comes.
    pub(super) async fn wait_for(
        &self,
        kind: &str,
        matches: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let until = Instant::now() + PATIENCE;
        while Instant::now() < until {
            while let Some(event) = self.next_event() {
                if event["type"] == kind && matches(&event) {
                    return Ok(event);
                }
            }
            self.read_on().await?;
        }
        bail!("the event {kind} did not come")
    }

    fn next_event(&self) -> Option<Value> {
        self.feed.borrow_mut().unread.pop_front()
    }

    async fn read_on(&self) -> anyhow::Result<()> {
        let after = self
            .feed
            .borrow()
            .next
            .as_ref()
            .map(|cursor| format!("&after={cursor}"))
            .unwrap_or_default();
        let page = self.get(&format!("/v1/events?limit=100&wait=5{after}")).await?;
        let mut feed = self.feed.borrow_mut();
        feed.next = page["next"].as_str().map(str::to_owned);
        feed.unread
            .extend(page["items"].as_array().cloned().unwrap_or_default());
        Ok(())
    }
}

/// How long the story waits for something to happen before it counts as not happening.
const PATIENCE: Duration = Duration::from_secs(30);
