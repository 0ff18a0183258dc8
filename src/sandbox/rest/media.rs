//! `/Services/{IS}/Media`: what Twilio serves from the host of its media service, outside the Conversations API.
//!
//! The bytes are kept in memory, up to a limit, and can be had by a link that works for some minutes, as at Twilio.

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::call::limited;
use super::{Reply, Shared, created, ok};
use crate::ids::{MediaSid, ServiceSid};
use crate::sandbox::model::conversation::Media;
use crate::sandbox::model::refusal::{INVALID_PARAMETER, MEDIA_SIZE, NOT_FOUND};

/// What handsets can be sent (Twilio: "Conversations Limits").
const MEDIA_BYTES_MAX: usize = 5 * 1024 * 1024;

#[derive(Deserialize)]
pub(super) struct Named {
    #[serde(rename = "Filename")]
    filename: Option<String>,
}

pub(super) async fn upload(
    State(world): Shared,
    Path(service): Path<String>,
    Query(named): Query<Named>,
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
    let content = limited(body, MEDIA_BYTES_MAX).await?;
    if content.is_empty() {
        return Err(MEDIA_SIZE.saying("Media is empty"));
    }
    world.act(|account| {
        account.service(&service)?;
        let media = account.upload(content_type, named.filename, content.into());
        Ok(created(render(account.sid.as_str(), &service, &media, None)))
    })
}

pub(super) async fn fetch(State(world): Shared, Path((service, media)): Path<(String, String)>) -> Reply {
    let service = ServiceSid::try_from(service.as_str()).map_err(|_| NOT_FOUND.refuse())?;
    let sid = MediaSid::try_from(media.as_str()).map_err(|_| NOT_FOUND.refuse())?;
    let base = world.base_url.clone();
    world.act(|account| {
        account.service(&service)?;
        let token = account.link_to_media(&sid);
        let link = token.map(|token| format!("{base}/sandbox/v1/media/{token}"));
        let media = account.media(&sid).ok_or_else(|| NOT_FOUND.refuse())?;
        Ok(ok(render(account.sid.as_str(), &service, media, link.as_deref())))
    })
}

/// The bytes, for whoever has the link.
pub(super) async fn follow(State(world): Shared, Path(token): Path<String>) -> Response {
    match world.act(|account| account.follow_link(&token)) {
        Some((content_type, content)) => ([(header::CONTENT_TYPE, content_type)], content).into_response(),
        None => StatusCode::FORBIDDEN.into_response(),
    }
}

fn render(account_sid: &str, service: &ServiceSid, media: &Media, link: Option<&str>) -> Value {
    json!({
        "sid": media.sid,
        "account_sid": account_sid,
        "service_sid": service,
        "category": "media",
        "filename": media.filename,
        "content_type": media.content_type,
        "size": media.size,
        "links": { "content_direct_temporary": link },
    })
}
