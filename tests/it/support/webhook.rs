//! Webhooks as Twilio sends them: forms, their signatures, and the requests that carry them.

use std::time::Duration;

use hookswitch::twilio::signature;
use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Method, RequestBuilder};

use super::app::{ACCOUNT, BUYER, TOKEN};

pub(crate) const PATH: &str = "/webhooks/twilio/conversations";
pub(crate) const FORM: &str = "application/x-www-form-urlencoded";
pub(crate) const SIGNATURE: &str = "x-twilio-signature";

/// A SID of the kind, for tests that count.
pub(crate) fn sid(prefix: &str, number: usize) -> String {
    format!("{prefix}{number:032x}")
}

/// The fields of a webhook, in the order in which they are sent.
#[derive(Clone)]
pub(crate) struct Webhook(pub(crate) Vec<(String, String)>);

impl Webhook {
    pub(crate) fn new(event_type: &str, fields: &[(&str, &str)]) -> Self {
        let common = [
            ("AccountSid", ACCOUNT),
            ("ChatServiceSid", "IS00000000000000000000000000000001"),
            ("EventType", event_type),
            ("RetryCount", "0"),
        ];
        let fields = common.iter().chain(fields);
        Self(
            fields
                .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
                .collect(),
        )
    }

    /// A text from a handset: the `index`th message of a conversation.
    pub(crate) fn message(conversation: usize, index: usize) -> Self {
        Self::new(
            "onMessageAdded",
            &[
                ("ConversationSid", &sid("CH", conversation)),
                ("MessageSid", &sid("IM", conversation * 100_000 + index)),
                ("Index", &index.to_string()),
                ("Author", BUYER),
                ("Body", &format!("Is the garden south-facing? ({index})")),
                ("Attributes", "{}"),
                ("Source", "SMS"),
                ("DateCreated", "2026-01-02T03:04:05.678Z"),
            ],
        )
    }

    /// With another value, or with one more field.
    pub(crate) fn with(mut self, key: &str, value: &str) -> Self {
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => value.clone_into(old),
            None => self.0.push((key.to_owned(), value.to_owned())),
        }
        self
    }

    pub(crate) fn without(mut self, key: &str) -> Self {
        self.0.retain(|(name, _)| name != key);
        self
    }

    pub(crate) fn encoded(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.0)
            .finish()
    }

    /// The signature of a POST to `url`.
    pub(crate) fn signature(&self, url: &str) -> String {
        signature::sign(TOKEN, url, &self.0)
    }

    /// The request as Twilio would send it to the service at `base`.
    pub(crate) fn request(&self, base: &str) -> RequestBuilder {
        let url = format!("{base}{PATH}");
        let signature = self.signature(&url);
        self.unsigned(base).header(SIGNATURE, signature)
    }

    pub(crate) fn unsigned(&self, base: &str) -> RequestBuilder {
        client()
            .post(format!("{base}{PATH}"))
            .header(CONTENT_TYPE, FORM)
            .body(self.encoded())
    }

    /// The request of a Twilio that is set up to use GET.
    pub(crate) fn get(&self, base: &str) -> RequestBuilder {
        let url = format!("{base}{PATH}?{}", self.encoded());
        let signature = signature::sign(TOKEN, &url, &[]);
        client().request(Method::GET, url).header(SIGNATURE, signature)
    }

    pub(crate) async fn send(&self, base: &str) -> Answer {
        answer(self.request(base)).await
    }
}

/// What a request was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    /// The code of the problem that it tells.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.headers[CONTENT_TYPE], "application/problem+json");
        let body: serde_json::Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(body["status"], self.status);
        let kind = body["type"].as_str().unwrap();
        kind.strip_prefix("urn:hookswitch:problem:").unwrap().to_owned()
    }
}

pub(crate) async fn answer(request: RequestBuilder) -> Answer {
    let response = request.send().await.unwrap();
    Answer {
        status: response.status().as_u16(),
        headers: response.headers().clone(),
        body: response.text().await.unwrap(),
    }
}

fn client() -> Client {
    hookswitch::twilio::install_tls();
    Client::builder()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}
