//! Event Streams as Twilio sends them: the events that say what a webhook says, and the requests that carry them.

use hookswitch::twilio::signature;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, RequestBuilder};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use super::app::TOKEN;
use super::webhook::SIGNATURE;

pub(crate) const PATH: &str = "/webhooks/twilio/events";

/// The event that says the same as a webhook; none where Twilio has no such event.
pub(crate) fn of(form: &[(String, String)]) -> Option<Value> {
    let mut data = Map::new();
    let mut event_type = "";
    for (key, text) in form {
        match key.as_str() {
            "EventType" => event_type = text,
            "Source" | "RetryCount" | "ChatServiceSid" | "ClientIdentity" => {}
            "Index" | "LastReadMessageIndex" => put(&mut data, key, text.parse::<i64>().unwrap().into()),
            "Attributes" => put(&mut data, key, serde_json::from_str(text).unwrap()),
            "Body" => put(&mut data, "MessageBody", text.as_str().into()),
            "Media" => put(&mut data, key, media(text)),
            _ => match key.strip_prefix("MessagingBinding.") {
                None => put(&mut data, key, text.as_str().into()),
                Some(name) => {
                    let binding = data.entry("MessagingBinding").or_insert_with(|| json!({}));
                    let text = match name {
                        "ProjectedAddress" => format!("[{text}]"),
                        _ => text.clone(),
                    };
                    put(binding.as_object_mut().unwrap(), name, text.into());
                }
            },
        }
    }
    let name = match event_type {
        "onConversationStateUpdated" => "conversation-state.updated".to_owned(),
        // The one that is discontinued, and the one that says less than the webhook: whether the user is online.
        "onDeliveryUpdated" | "onUserUpdated" => return None,
        other => {
            let name = other.strip_prefix("on")?;
            let at = name.rfind(char::is_uppercase)?;
            format!("{}.{}", name[..at].to_lowercase(), name[at..].to_lowercase())
        }
    };
    let id: [u8; 32] = Sha256::digest(format!("{form:?}")).into();
    Some(json!({
        "specversion": "1.0",
        "type": format!("com.twilio.conversations.{name}"),
        "source": "/v1/Conversations",
        "id": format!("EZ{}", &hex::encode(id)[..32]),
        "datacontenttype": "application/json",
        "data": data,
    }))
}

/// A key that comes twice is a list.
fn put(data: &mut Map<String, Value>, key: &str, value: Value) {
    match data.get_mut(key) {
        None => {
            data.insert(key.to_owned(), value);
        }
        Some(Value::Array(list)) => list.push(value),
        Some(one) => *one = json!([one, value]),
    }
}

fn media(text: &str) -> Value {
    let mut list: Vec<Map<String, Value>> = serde_json::from_str(text).unwrap();
    for item in &mut list {
        let sid = item.remove("Sid").unwrap();
        item.insert("MediaSid".to_owned(), sid);
    }
    json!(list)
}

/// The request of Twilio with that body.
pub(crate) fn request(client: &Client, base: &str, body: &str) -> RequestBuilder {
    let url = signature::url_with_body_hash(&format!("{base}{PATH}"), body.as_bytes());
    let signature = signature::sign(TOKEN, &url, &[]);
    client
        .post(url)
        .header(CONTENT_TYPE, "application/json")
        .header(SIGNATURE, signature)
        .body(body.to_owned())
}
