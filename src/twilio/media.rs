//! Twilio's media service: what a message is to show is uploaded there first, and named by its SID after.
//!
//! It is another host than the Conversations API, with the same credentials. An upload that is repeated leaves one
//! that no message takes, which Twilio removes by itself after some minutes.

use std::time::Duration;

use serde::Deserialize;
use url::Url;

use super::{Call, Client, Error, Payload, Repeat};
use crate::ids::MediaSid;

const MEDIA: &str = "/v1/Services/{IS}/Media";
const MEDIUM: &str = "/v1/Services/{IS}/Media/{ME}";

/// Several megabytes take longer than a form: so many times as long as another call.
const UPLOAD_TIMES: u32 = 3;

/// What the media service knows of one upload.
#[derive(Debug, Clone, Deserialize)]
pub struct StoredMedia {
    pub sid: MediaSid,
    #[serde(default)]
    pub links: Links,
}

/// Where the bytes are.
#[derive(Clone, Default, Deserialize)]
pub struct Links {
    /// Open to whoever has it, for a short time: never to be kept, nor logged.
    pub content_direct_temporary: Option<String>,
}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Links(…)")
    }
}

/// Bytes to be uploaded. Does not print.
#[derive(Clone)]
pub struct NewMedia {
    pub content_type: String,
    pub filename: Option<String>,
    pub content: Vec<u8>,
}

impl std::fmt::Debug for NewMedia {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewMedia")
            .field("content_type", &self.content_type)
            .field("size", &self.content.len())
            .finish_non_exhaustive()
    }
}

impl Client {
    /// Uploads what a message may then name, once.
    pub async fn upload_media(&self, new: NewMedia) -> Result<StoredMedia, Error> {
        let mut url = self.media_url(&[]);
        if let Some(filename) = &new.filename {
            url.query_pairs_mut().append_pair("Filename", filename);
        }
        let call = Call {
            method: reqwest::Method::POST,
            template: MEDIA,
            url,
            payload: Payload::Bytes {
                content_type: new.content_type,
                content: new.content,
                time_limit: self.upload_time(),
            },
            repeat: Repeat::SafeWrite,
        };
        self.json(&call).await
    }

    /// Where the bytes of media can be had now.
    pub async fn fetch_media(&self, sid: &MediaSid) -> Result<StoredMedia, Error> {
        self.read(MEDIUM, self.media_url(&[sid.as_str()])).await
    }

    fn upload_time(&self) -> Duration {
        self.settings().timeouts.call * UPLOAD_TIMES
    }

    fn media_url(&self, below: &[&str]) -> Url {
        let settings = self.settings();
        let mut url = settings.media_base_url.clone();
        url.path_segments_mut()
            .expect("an http URL has a path")
            .clear()
            .extend(["v1", "Services", settings.service_sid.as_str(), "Media"])
            .extend(below);
        url
    }
}
