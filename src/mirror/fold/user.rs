//! Statements about a person of ours.

use jiff::Timestamp;
use serde_json::json;

use super::Fold;
use crate::events::Kind;
use crate::mirror::change::{UserChange, UserFields};
use crate::mirror::erased::Erased;
use crate::mirror::version::Version;

#[derive(Debug, Clone, PartialEq)]
pub struct User {
    pub fields: UserFields,
    pub created_at: Option<Timestamp>,
    pub version: Version,
    /// What stays erased.
    pub erased: Erased,
    pub dirty: bool,
}

impl Fold<'_> {
    pub(super) fn user(&mut self, change: &UserChange) {
        let key = (self.observed.account_sid.clone(), change.user_sid.clone());
        let erased = self
            .state
            .users
            .get(&key)
            .map(|row| row.erased.clone())
            .unwrap_or_default();
        let newer = self
            .state
            .users
            .get(&key)
            .is_none_or(|row| (change.version.at, &change.fields) > (row.version.at, &row.fields));
        if !newer {
            return;
        }
        let created_at = self
            .state
            .users
            .get(&key)
            .and_then(|row| row.created_at)
            .or(change.created_at);
        self.state.users.insert(
            key,
            User {
                fields: change.fields.clone(),
                created_at,
                version: change.version,
                erased,
                dirty: true,
            },
        );
        let data = json!({ "identity": change.fields.identity, "is_online": change.fields.is_online });
        self.tell(
            Kind::UserUpdated,
            None,
            change.user_sid.as_str(),
            change.version.at,
            data,
        );
    }
}
