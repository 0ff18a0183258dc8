//! `/Services/{IS}/Media`: what Twilio serves from the host of its media service, outside the Conversations API.
//!
//! Only type and size are kept, which is all that a message shows; the bytes are not.

use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use serde_json::{Value, json};

use super::call::limited;
use super::{Reply, Shared, created, ok};
use crate::ids::{MediaSid, ServiceSid};
use crate::sandbox::model::conversation::Media;
use crate::sandbox::model::refusal::{INVALID_PARAMETER, NOT_FOUND};

/// What handsets can be sent (Twilio: "Conversations Limits").
const MEDIA_BYTES_MAX: usize = 5 * 1024 * 1024;

pub(super) async fn upload(
    State(world): Shared,
    Path(service): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Reply {
    let service = ServiceSid::try_from(service.as_str()).map_err(|_| NOT_FOUND.refuse())?;
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let content_type = content_type
        .ok_or_else(|| INVALID_PARAMETER.saying("Content-Type is required"))?
        .to_owned();
    let size = limited(body, MEDIA_BYTES_MAX).await?.len() as u64;
    world.act(|account| {
        account.service(&service)?;
        let media = account.upload(content_type, size);
        Ok(created(render(account.sid.as_str(), &service, &media)))
    })
}

pub(super) async fn fetch(State(world): Shared, Path((service, media)): Path<(String, String)>) -> Reply {
    let service = ServiceSid::try_from(service.as_str()).map_err(|_| NOT_FOUND.refuse())?;
    let sid = MediaSid::try_from(media.as_str()).map_err(|_| NOT_FOUND.refuse())?;
    world.act(|account| {
        account.service(&service)?;
        let media = account.media(&sid).ok_or_else(|| NOT_FOUND.refuse())?;
        Ok(ok(render(account.sid.as_str(), &service, media)))
    })
}

fn render(account_sid: &str, service: &ServiceSid, media: &Media) -> Value {
    json!({
        "sid": media.sid,
        "account_sid": account_sid,
        "service_sid": service,
        "category": "media",
        "filename": media.filename,
        "content_type": media.content_type,
        "size": media.size,
    })
}
