//! The bytes that are sealed, and their hashes. Pure.
//!
//! An entry's bytes are its fields in a fixed order, each with its length before it, so that no two entries have the
//! same. In place of what may be personal (subject, actor, cause, data) stands a hash over that and a salt of its own;
//! an erased field leaves its hash behind, and the entry's bytes stay what they were.

use jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::events::Position;

pub(super) type Hash = [u8; 32];

/// How much of an entry's hash is kept to find the entry that differs.
pub(super) const MARK: usize = 8;

/// An entry of the log, as it is sealed and exported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub position: Position,
    pub kind: String,
    pub account_sid: Option<String>,
    pub conversation_sid: Option<String>,
    pub subject: String,
    pub actor: Option<String>,
    pub via: String,
    pub cause: Option<String>,
    pub occurred_at: Timestamp,
    pub recorded_at: Timestamp,
    pub data: String,
    /// None once something of the entry was erased.
    pub(super) salt: Option<Uuid>,
    /// For each field that may be personal, its hash if it was erased, else its salt.
    pub(super) erased: Option<Value>,
}

impl Entry {
    /// None where what says of the erased fields cannot be read: somebody else wrote it.
    pub(super) fn hash(&self) -> Option<Hash> {
        let mut bytes = Bytes::of("hookswitch.event.v1");
        bytes.number(self.position.commit_xid);
        bytes.number(self.position.event_id);
        bytes.text(Some(&self.kind));
        bytes.text(self.account_sid.as_deref());
        bytes.text(self.conversation_sid.as_deref());
        bytes.field(&self.commitment("subject", Some(&self.subject))?);
        bytes.field(&self.commitment("actor", self.actor.as_deref())?);
        bytes.text(Some(&self.via));
        bytes.field(&self.commitment("cause", self.cause.as_deref())?);
        bytes.number(self.occurred_at.as_microsecond());
        bytes.number(self.recorded_at.as_microsecond());
        bytes.field(&self.commitment("data", Some(&self.data))?);
        Some(bytes.hash())
    }

    pub(super) fn is_erased(&self) -> bool {
        self.erased.is_some()
    }

    fn commitment(&self, name: &str, value: Option<&str>) -> Option<Hash> {
        let (Some(erased), None) = (&self.erased, self.salt) else {
            return Some(commitment(&field_salt(self.salt?, name), value));
        };
        let of_field = &erased[name];
        if let Some(digest) = of_field["digest"].as_str() {
            return hash_of_hex(digest);
        }
        Some(commitment(&hash_of_hex(of_field["salt"].as_str()?)?, value))
    }
}

/// The salt of one field: to know one does not tell the others.
fn field_salt(salt: Uuid, name: &str) -> Hash {
    Sha256::new()
        .chain_update(salt.as_bytes())
        .chain_update(name)
        .finalize()
        .into()
}

fn commitment(field_salt: &Hash, value: Option<&str>) -> Hash {
    let hash = Sha256::new().chain_update(field_salt);
    match value {
        None => hash.chain_update([0]),
        Some(value) => hash.chain_update([1]).chain_update(value),
    }
    .finalize()
    .into()
}

/// A seal: what is said of one batch of entries, and of the seal before.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seal {
    pub seal: i64,
    #[serde(with = "position")]
    pub first: Position,
    #[serde(with = "position")]
    pub last: Position,
    pub entries: i64,
    /// Over the hashes of the entries, in order.
    #[serde(with = "hexadecimal")]
    pub root: Hash,
    /// The beginnings of the entries' hashes, to find which one differs.
    #[serde(with = "hexadecimal")]
    pub marks: Vec<u8>,
    /// The hash of the seal before; zeros for the first.
    #[serde(with = "hexadecimal")]
    pub previous: Hash,
    #[serde(with = "hexadecimal")]
    pub hash: Hash,
    pub sealed_at: Timestamp,
}

impl Seal {
    /// What the hash of this seal has to be.
    pub(super) fn expected_hash(&self) -> Hash {
        let mut bytes = Bytes::of("hookswitch.seal.v1");
        for number in [
            self.seal,
            self.first.commit_xid,
            self.first.event_id,
            self.last.commit_xid,
            self.last.event_id,
            self.entries,
        ] {
            bytes.number(number);
        }
        bytes.field(&self.root);
        bytes.field(&self.marks);
        bytes.field(&self.previous);
        bytes.number(self.sealed_at.as_microsecond());
        bytes.hash()
    }

    /// The mark of one of its entries.
    pub(super) fn mark(&self, place: usize) -> Option<&[u8]> {
        self.marks.get(place * MARK..(place + 1) * MARK)
    }
}

/// The entries of a batch, hash by hash, in order.
#[derive(Debug, Clone)]
pub(super) struct Batch {
    root: Sha256,
    pub(super) marks: Vec<u8>,
    pub(super) entries: i64,
}

impl Batch {
    pub(super) fn new() -> Self {
        Self {
            root: Sha256::new().chain_update("hookswitch.root.v1"),
            marks: Vec::new(),
            entries: 0,
        }
    }

    pub(super) fn add(&mut self, hash: &Hash) {
        self.root.update(hash);
        self.marks.extend_from_slice(&hash[..MARK]);
        self.entries += 1;
    }

    pub(super) fn root(self) -> Hash {
        self.root.finalize().into()
    }
}

/// Fields with their lengths before them.
struct Bytes(Sha256);

impl Bytes {
    fn of(what: &str) -> Self {
        let mut bytes = Self(Sha256::new());
        bytes.field(what.as_bytes());
        bytes
    }

    fn field(&mut self, bytes: &[u8]) {
        self.0.update((bytes.len() as u64).to_be_bytes());
        self.0.update(bytes);
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.field(text.as_bytes()),
            // A length that no text has.
            None => self.0.update(u64::MAX.to_be_bytes()),
        }
    }

    fn number(&mut self, number: i64) {
        self.field(&number.to_be_bytes());
    }

    fn hash(self) -> Hash {
        self.0.finalize().into()
    }
}

fn hash_of_hex(text: &str) -> Option<Hash> {
    hex::decode(text).ok()?.try_into().ok()
}

mod hexadecimal {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        bytes: impl AsRef<[u8]>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&hex::encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, T: TryFrom<Vec<u8>>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        let bytes = hex::decode(String::deserialize(deserializer)?).map_err(D::Error::custom)?;
        T::try_from(bytes).map_err(|_| D::Error::custom("expected another number of bytes"))
    }
}

mod position {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serializer};

    use crate::events::Position;

    pub(super) fn serialize<S: Serializer>(position: &Position, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(position)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Position, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry() -> Entry {
        Entry {
            position: Position {
                commit_xid: 7,
                event_id: 3,
            },
            kind: "line.holder_changed".to_owned(),
            account_sid: None,
            conversation_sid: Some("CH1".to_owned()),
            subject: "+15017122661".to_owned(),
            actor: Some("maya".to_owned()),
            via: "worker".to_owned(),
            cause: None,
            occurred_at: "2026-03-01T14:00:00.000001Z".parse().unwrap(),
            recorded_at: "2026-03-01T14:00:01Z".parse().unwrap(),
            data: r#"{"to":"maya"}"#.to_owned(),
            salt: Some(Uuid::from_u128(5)),
            erased: None,
        }
    }

    #[test]
    fn every_field_counts() {
        type Change = fn(&mut Entry);
        let changes: [Change; 13] = [
            |entry| entry.position.commit_xid += 1,
            |entry| entry.position.event_id += 1,
            |entry| entry.kind.push('x'),
            |entry| entry.account_sid = Some(String::new()),
            |entry| entry.conversation_sid = None,
            |entry| entry.subject.push('1'),
            |entry| entry.actor = None,
            |entry| entry.via = "cli".to_owned(),
            |entry| entry.cause = Some(String::new()),
            |entry| entry.occurred_at = entry.recorded_at,
            |entry| entry.recorded_at = entry.occurred_at,
            |entry| entry.data = r#"{"to":"noor"}"#.to_owned(),
            |entry| entry.salt = Some(Uuid::from_u128(6)),
        ];
        let mut hashes = vec![entry().hash().unwrap()];
        for change in changes {
            let mut other = entry();
            change(&mut other);
            hashes.push(other.hash().unwrap());
        }
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), 14);
    }

    #[test]
    fn what_was_erased_leaves_the_hash_as_it_was_and_no_other_value_fits() {
        let salt = |name| hex::encode(field_salt(Uuid::from_u128(5), name));
        let digest = hex::encode(commitment(
            &field_salt(Uuid::from_u128(5), "data"),
            Some(r#"{"to":"maya"}"#),
        ));
        let erased = Entry {
            data: r#"{"erased":true}"#.to_owned(),
            salt: None,
            erased: Some(json!({
                "subject": { "salt": salt("subject") },
                "actor": { "salt": salt("actor") },
                "cause": { "salt": salt("cause") },
                "data": { "digest": digest },
            })),
            ..entry()
        };
        assert_eq!(erased.hash(), entry().hash());
        let kept_and_changed = Entry {
            actor: Some("noor".to_owned()),
            ..erased.clone()
        };
        assert_ne!(kept_and_changed.hash(), entry().hash());
        let unreadable = Entry {
            erased: Some(json!({})),
            ..erased
        };
        assert_eq!(unreadable.hash(), None);
    }

    #[test]
    fn a_seal_survives_its_line() {
        let mut batch = Batch::new();
        batch.add(&[7; 32]);
        let mut seal = Seal {
            seal: 1,
            first: Position::default(),
            last: entry().position,
            entries: batch.entries,
            marks: batch.marks.clone(),
            root: batch.root(),
            previous: [0; 32],
            hash: [0; 32],
            sealed_at: "2026-03-01T14:00:00.5Z".parse().unwrap(),
        };
        seal.hash = seal.expected_hash();
        let line = serde_json::to_string(&seal).unwrap();
        assert_eq!(serde_json::from_str::<Seal>(&line).unwrap(), seal);
        assert_eq!(seal.mark(0), Some(&[7_u8; 8][..]));
        assert_eq!(seal.mark(1), None);
        let other = Seal {
            entries: 2,
            ..seal.clone()
        };
        assert_ne!(other.expected_hash(), seal.hash);
    }
}
