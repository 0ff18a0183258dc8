//! API keys: who calls, and what they may. Owns `api_key`.
//!
//! A key is 32 random bytes, shown once when it is made; what is kept is its SHA-256, by which it is found again. With
//! that many random bytes no slow hash is needed, and looking up a hash tells nothing by its time.

mod caller;
mod store;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::new_id;

pub use caller::Caller;
pub use store::list;

/// What every key begins with, so that one that leaked is recognized.
pub const PREFIX: &str = "hsk_";

macro_rules! scopes {
    ($($(#[$doc:meta])* $name:ident = $text:literal,)*) => {
        /// What a key may do.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Scope {
            $($(#[$doc])* $name,)*
        }

        impl Scope {
            pub const ALL: &[Self] = &[$(Self::$name),*];

            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }

        /// The scopes as types, so that a handler's signature says which one it needs.
        pub mod scope {
            use super::{Needs, Scope};

            $($(#[$doc])*
            #[derive(Debug)]
            pub enum $name {}

            impl Needs for $name {
                const SCOPE: Scope = Scope::$name;
            })*
        }
    };
}

/// A scope as a type.
pub trait Needs {
    const SCOPE: Scope;
}

scopes! {
    /// Conversations, their members and messages, group texts and sends.
    ConversationsRead = "conversations:read",
    GroupTextsWrite = "group_texts:write",
    MessagesWrite = "messages:write",
    TransfersRead = "transfers:read",
    TransfersWrite = "transfers:write",
    /// Forcing a line, and answering an offer in somebody else's place.
    TransfersSupervise = "transfers:supervise",
    EventsRead = "events:read",
    /// Who held which line when, and the timeline.
    LedgerRead = "ledger:read",
    /// All that was ever said, also what was edited and removed since.
    AuditRead = "audit:read",
    /// How complete the mirror is, and what is wrong with lines.
    HealthRead = "health:read",
    /// Starting repairs of lines.
    HealthWrite = "health:write",
    /// Agents, teams, calendars, who is on call.
    PeopleRead = "people:read",
    /// Changing them.
    PeopleWrite = "people:write",
    /// What policies did and would do.
    EscalationsRead = "escalations:read",
    /// Asking for an escalation, and stopping one.
    EscalationsWrite = "escalations:write",
    /// Deciding policies: by them, lines change hands.
    EscalationPoliciesWrite = "escalation_policies:write",
    /// Erasing a person on request, and reading what came of it.
    ErasuresWrite = "erasures:write",
    /// All of them.
    Admin = "admin",
}

impl Scope {
    /// Whether a key with this scope may do what needs the other.
    pub fn covers(self, needed: Self) -> bool {
        self == Self::Admin || self == needed
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected one of {}", Scope::ALL.iter().map(|scope| scope.as_str()).collect::<Vec<_>>().join(", "))]
pub struct UnknownScope;

impl std::str::FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, UnknownScope> {
        Self::ALL
            .iter()
            .copied()
            .find(|scope| scope.as_str() == text)
            .ok_or(UnknownScope)
    }
}

/// A key as it is listed. The key itself is nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    pub api_key_id: Uuid,
    pub name: String,
    pub scopes: Vec<Scope>,
    pub created_at: Timestamp,
    /// To the minute.
    pub last_used_at: Option<Timestamp>,
    pub revoked_at: Option<Timestamp>,
}

/// A key that was just made.
#[derive(Debug)]
pub struct CreatedKey {
    pub api_key_id: Uuid,
    /// To be shown once.
    pub key: SecretString,
}

/// Makes a key, and writes so in the log.
pub async fn create(
    conn: &mut PgConnection,
    name: &str,
    scopes: &[Scope],
    now: Timestamp,
) -> Result<CreatedKey, sqlx::Error> {
    let key = SecretString::from(format!(
        "{PREFIX}{}",
        URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
    ));
    let stored = ApiKey {
        api_key_id: new_id(),
        name: name.to_owned(),
        scopes: scopes.to_vec(),
        created_at: now,
        last_used_at: None,
        revoked_at: None,
    };
    let mut transaction = conn.begin().await?;
    store::insert(&mut transaction, &stored, &hash(key.expose_secret())).await?;
    tell(&mut transaction, Kind::ApiKeyCreated, &stored, now).await?;
    transaction.commit().await?;
    Ok(CreatedKey {
        api_key_id: stored.api_key_id,
        key,
    })
}

/// Makes a key useless, and writes so in the log. False: there is no such key that is not revoked.
pub async fn revoke(conn: &mut PgConnection, api_key_id: Uuid, now: Timestamp) -> Result<bool, sqlx::Error> {
    let mut transaction = conn.begin().await?;
    let Some(revoked) = store::revoke(&mut transaction, api_key_id, now).await? else {
        return Ok(false);
    };
    tell(&mut transaction, Kind::ApiKeyRevoked, &revoked, now).await?;
    transaction.commit().await?;
    Ok(true)
}

async fn tell(conn: &mut PgConnection, kind: Kind, key: &ApiKey, now: Timestamp) -> Result<(), sqlx::Error> {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let event = NewEvent {
        kind,
        account_sid: None,
        conversation_sid: None,
        subject: key.api_key_id.to_string(),
        actor: None,
        via: Via::Cli,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({ "api_key_id": key.api_key_id, "name": key.name, "scopes": scopes }),
    };
    events::append(conn, &[event]).await
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_parse_back_and_admin_covers_them_all() {
        for scope in Scope::ALL {
            assert_eq!(scope.as_str().parse(), Ok(*scope));
            assert!(Scope::Admin.covers(*scope) && scope.covers(*scope));
        }
        assert!(!Scope::TransfersWrite.covers(Scope::TransfersRead));
        assert!("transfers".parse::<Scope>().is_err());
    }
}
