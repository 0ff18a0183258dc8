//! What was erased of a row stays erased: what a source says of it again is dropped as it enters. Pure.
//!
//! A mark names a field, and what stands in its place. Nothing here knows what was erased; of an identity a salted hash
//! is kept, since a seat may pass to somebody else, who is not to be hidden.

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::mirror::change::{ConversationChange, MessageChange, ParticipantChange, UserChange};

/// The marks of one row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Erased(BTreeMap<String, Mark>);

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Mark {
    instead: Option<String>,
    salt: Option<Uuid>,
    digest: Option<String>,
}

impl Mark {
    /// Whether this is what was erased.
    fn is_of(&self, value: &str) -> bool {
        let (Some(salt), Some(digest)) = (self.salt, &self.digest) else {
            return true;
        };
        digest_of(salt, value) == *digest
    }
}

/// As the database's `erasure_proof()` writes it.
fn digest_of(salt: Uuid, value: &str) -> String {
    let hash = Sha256::new()
        .chain_update(salt.as_bytes())
        .chain_update(value)
        .finalize();
    hash.iter()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

impl Erased {
    /// Reads the column; null where nothing was erased.
    pub fn read(column: Option<Value>) -> Self {
        let Some(Value::Object(marks)) = column else {
            return Self::default();
        };
        let text = |mark: &Value, name: &str| mark[name].as_str().map(str::to_owned);
        Self(
            marks
                .into_iter()
                .map(|(name, mark)| {
                    let mark = Mark {
                        instead: text(&mark, "as"),
                        salt: mark["salt"].as_str().and_then(|salt| salt.parse().ok()),
                        digest: text(&mark, "digest"),
                    };
                    (name, mark)
                })
                .collect(),
        )
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The change without what was erased; `None` where it says nothing of that.
    pub fn message(&self, change: &MessageChange) -> Option<MessageChange> {
        self.masked(change, |erased, change| {
            let Some(fields) = &mut change.fields else {
                return;
            };
            erased.put("body", &mut fields.body);
            erased.put("media", &mut fields.media);
            erased.put("attributes", &mut fields.attributes);
            erased.put("author", &mut fields.author);
        })
    }

    /// As [`Erased::message`].
    pub fn participant(&self, change: &ParticipantChange) -> Option<ParticipantChange> {
        self.masked(change, |erased, change| {
            let Some(fields) = &mut change.fields else {
                return;
            };
            erased.put("address", &mut fields.address);
            erased.put("attributes", &mut fields.attributes);
            erased.put_same("identity", &mut fields.identity);
        })
    }

    /// As [`Erased::message`].
    pub fn conversation(&self, change: &ConversationChange) -> Option<ConversationChange> {
        self.masked(change, |erased, change| {
            erased.put("attributes", &mut change.fields.attributes);
            erased.put("friendly_name", &mut change.fields.friendly_name);
            erased.put("unique_name", &mut change.fields.unique_name);
        })
    }

    /// As [`Erased::message`].
    pub fn user(&self, change: &UserChange) -> Option<UserChange> {
        self.masked(change, |erased, change| {
            erased.put("attributes", &mut change.fields.attributes);
            erased.put("friendly_name", &mut change.fields.friendly_name);
            erased.put_same("identity", &mut change.fields.identity);
        })
    }

    fn masked<C: Clone + PartialEq>(&self, change: &C, mask: impl FnOnce(&Self, &mut C)) -> Option<C> {
        if self.is_empty() {
            return None;
        }
        let mut masked = change.clone();
        mask(self, &mut masked);
        (masked != *change).then_some(masked)
    }

    fn put(&self, name: &str, stated: &mut Option<String>) {
        if let Some(mark) = self.0.get(name) {
            stated.clone_from(&mark.instead);
        }
    }

    /// Only where it is what was erased: the field may have come to say something else.
    fn put_same(&self, name: &str, stated: &mut Option<String>) {
        if let (Some(mark), Some(value)) = (self.0.get(name), stated.as_deref())
            && mark.is_of(value)
        {
            stated.clone_from(&mark.instead);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::mirror::change::{MessageFields, ParticipantFields};
    use crate::mirror::version::Version;

    fn version() -> Version {
        Version::exact("2026-01-02T03:04:05.678Z".parse().unwrap())
    }

    fn message() -> MessageChange {
        MessageChange {
            conversation_sid: "CH00000000000000000000000000000001".parse().unwrap(),
            message_sid: "IM00000000000000000000000000000001".parse().unwrap(),
            version: version(),
            removed: false,
            fields: Some(MessageFields {
                index: Some(3),
                author: Some("+15555550101".to_owned()),
                body: Some("Hi".to_owned()),
                attributes: Some("{}".to_owned()),
                ..MessageFields::default()
            }),
            created_at: None,
        }
    }

    fn seat(identity: Option<&str>) -> ParticipantChange {
        ParticipantChange {
            conversation_sid: "CH00000000000000000000000000000001".parse().unwrap(),
            participant_sid: "MB00000000000000000000000000000001".parse().unwrap(),
            version: version(),
            removed: false,
            fields: Some(ParticipantFields {
                identity: identity.map(str::to_owned),
                projected_address: Some("+15017122661".to_owned()),
                ..ParticipantFields::default()
            }),
            created_at: None,
        }
    }

    #[test]
    fn what_is_not_marked_passes_as_it_is() {
        assert_eq!(Erased::read(None).message(&message()), None);
        let other = Erased::read(Some(json!({ "media": {} })));
        assert_eq!(other.message(&message()), None, "it says nothing of the media");
    }

    #[test]
    fn a_marked_field_gives_way_to_what_stands_for_it() {
        let marks = json!({ "body": { "salt": "x", "digest": "y" }, "author": { "as": "erased:1" } });
        let masked = Erased::read(Some(marks)).message(&message()).unwrap();
        let fields = masked.fields.unwrap();
        assert_eq!(
            (
                fields.body,
                fields.author.as_deref(),
                fields.attributes.as_deref()
            ),
            (None, Some("erased:1"), Some("{}"))
        );
        assert_eq!(fields.index, Some(3));
    }

    #[test]
    fn an_identity_is_known_by_its_hash_and_another_one_passes() {
        let salt = Uuid::from_u128(7);
        let digest = digest_of(salt, "maya");
        let marks = json!({ "identity": { "salt": salt, "digest": digest, "as": "erased:1" } });
        let erased = Erased::read(Some(marks));
        let masked = erased.participant(&seat(Some("maya"))).unwrap();
        assert_eq!(masked.fields.unwrap().identity.as_deref(), Some("erased:1"));
        assert_eq!(erased.participant(&seat(Some("noor"))), None);
        assert_eq!(erased.participant(&seat(None)), None);
    }
}
