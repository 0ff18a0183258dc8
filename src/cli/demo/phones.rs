//! The clients' handsets, which the sandbox plays.

use std::time::Duration;

use anyhow::bail;
use reqwest::Client;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};

use crate::ids::AccountSid;

pub(super) struct Phones {
    http: Client,
    base: String,
    account: AccountSid,
    token: SecretString,
}

impl Phones {
    pub(super) fn new(base: &str, account: AccountSid, token: SecretString) -> anyhow::Result<Self> {
        let http = Client::builder()
            .timeout(Duration::from_secs(10))
            .no_proxy()
            .build()?;
        Ok(Self {
            http,
            base: base.to_owned(),
            account,
            token,
        })
    }

    /// Texts from a handset to a set of numbers.
    pub(super) async fn text(&self, from: &str, to: &[&str], body: &str) -> anyhow::Result<()> {
        let request = self
            .http
            .post(self.url(from))
            .json(&json!({ "to": to, "body": body }));
        self.answer(request).await.map(|_| ())
    }

    /// What a handset has received, oldest first.
    pub(super) async fn inbox(&self, number: &str) -> anyhow::Result<Vec<Value>> {
        let answer = self.answer(self.http.get(self.url(number))).await?;
        Ok(answer["messages"].as_array().cloned().unwrap_or_default())
    }

    fn url(&self, number: &str) -> String {
        format!(
            "{}/sandbox/v1/handsets/{}/messages",
            self.base,
            number.replace('+', "%2B")
        )
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> anyhow::Result<Value> {
        let response = request
            .basic_auth(self.account.as_str(), Some(self.token.expose_secret()))
            .send()
            .await?;
        let status = response.status();
        let text = response.text().await?;
        if !status.is_success() {
            bail!("a handset could not text: {status} {text}");
        }
        Ok(serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}
