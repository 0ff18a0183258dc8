//! Media on its way: uploaded, waiting for the message that takes it, and the bytes to be fetched again.

use std::collections::VecDeque;

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::ids::MediaSid;

use super::conversation::Media;
use super::{Account, new_sid};

/// Seen in the field: media that no message has taken is removed after some five minutes.
const WAITS_FOR: SignedDuration = SignedDuration::from_mins(5);

/// How long a link to the bytes works.
const LINK_LASTS: SignedDuration = SignedDuration::from_mins(5);

/// Bytes kept at most, of all media together; the oldest are forgotten first.
const CONTENT_MAX: usize = 64 * 1024 * 1024;

#[derive(Default)]
pub(crate) struct Uploads {
    waiting: Vec<(Media, Timestamp)>,
    content: VecDeque<(MediaSid, Vec<u8>)>,
    links: Vec<(String, MediaSid, Timestamp)>,
}

impl Uploads {
    /// What a message may take.
    pub(super) fn waiting(&self, sid: &MediaSid, now: Timestamp) -> Option<&Media> {
        self.waiting
            .iter()
            .find(|(media, at)| media.sid == *sid && now.duration_since(*at) < WAITS_FOR)
            .map(|(media, _)| media)
    }

    /// A message has taken these.
    pub(super) fn take(&mut self, media: &[Media]) {
        self.waiting.retain(|(waiting, _)| !media.contains(waiting));
    }

    fn keep(&mut self, sid: MediaSid, content: Vec<u8>) {
        self.content.push_back((sid, content));
        while self.content.iter().map(|(_, bytes)| bytes.len()).sum::<usize>() > CONTENT_MAX {
            self.content.pop_front();
        }
    }
}

impl Account {
    /// Keeps media until a message takes it.
    pub(crate) fn upload(
        &mut self,
        content_type: String,
        filename: Option<String>,
        content: Vec<u8>,
    ) -> Media {
        let now = self.now();
        let media = Media {
            sid: new_sid(MediaSid::PREFIX),
            filename,
            content_type,
            size: content.len() as u64,
        };
        self.uploads
            .waiting
            .retain(|(_, at)| now.duration_since(*at) < WAITS_FOR);
        self.uploads.waiting.push((media.clone(), now));
        self.uploads.keep(media.sid.clone(), content);
        media
    }

    /// Media that waits for its message, or belongs to one.
    pub(crate) fn media(&self, sid: &MediaSid) -> Option<&Media> {
        let of_messages = self
            .register
            .iter()
            .flat_map(|conversation| &conversation.messages);
        let mut taken = of_messages.flat_map(|message| &message.media);
        self.uploads
            .waiting(sid, self.now())
            .or_else(|| taken.find(|media| media.sid == *sid))
    }

    /// A link to the bytes, which whoever has it may follow for a while. None where there are no bytes: media of a handset
    /// is a type and a size.
    pub(crate) fn link_to_media(&mut self, sid: &MediaSid) -> Option<String> {
        let now = self.now();
        if !self.uploads.content.iter().any(|(kept, _)| kept == sid) {
            return None;
        }
        let token = Uuid::new_v4().simple().to_string();
        self.uploads.links.retain(|(_, _, until)| *until > now);
        self.uploads
            .links
            .push((token.clone(), sid.clone(), now + LINK_LASTS));
        Some(token)
    }

    /// What a link that still works leads to: type and bytes.
    pub(crate) fn follow_link(&self, token: &str) -> Option<(String, Vec<u8>)> {
        let now = self.now();
        let (_, sid, _) = self
            .uploads
            .links
            .iter()
            .find(|(known, _, until)| known == token && *until > now)?;
        let (_, content) = self.uploads.content.iter().find(|(kept, _)| kept == sid)?;
        let media = self.media(sid)?;
        Some((media.content_type.clone(), content.clone()))
    }
}
