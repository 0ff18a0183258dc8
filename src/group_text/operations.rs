//! Asking for a group text.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::events::{self, Kind, NewEvent, Via};
use crate::group_text::{CREATE_TASK, GroupText, NewMember, Origin, State, Violation, store, validate};
use crate::ids::{AccountSid, ConversationSid, new_id};
use crate::queue::{self, NewTask};

/// The operations, with what they need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GroupTexts {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

/// A group text that somebody asks for.
#[derive(Clone)]
pub struct NewGroupText {
    pub friendly_name: Option<String>,
    /// A JSON object.
    pub attributes: Option<serde_json::Value>,
    pub members: Vec<NewMember>,
    pub requested_by: String,
}

/// Why a group text cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartGroupTextError {
    #[error("the request has wrong values")]
    Invalid(Vec<Violation>),
    #[error("a group text of the same numbers is being made")]
    InTheMaking { group_text_id: Uuid },
    #[error("cannot record the group text")]
    Database(#[from] sqlx::Error),
}

/// Twilio takes at most 256 characters of a name, and 16 KB of attributes.
const NAME_MAX: usize = 256;
const ATTRIBUTES_MAX: usize = 16 * 1024;

impl GroupTexts {
    /// Validates the request whole, and queues the call to Twilio.
    pub async fn start(&self, new: NewGroupText) -> Result<GroupText, StartGroupTextError> {
        let mut transaction = self.pool.begin().await?;
        let group = self.start_in(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(group)
    }

    /// As [`GroupTexts::start`], within the caller's transaction.
    pub async fn start_in(
        &self,
        conn: &mut PgConnection,
        new: NewGroupText,
    ) -> Result<GroupText, StartGroupTextError> {
        let now = self.clock.now();
        let valid = self.validate(&new).map_err(StartGroupTextError::Invalid)?;
        let group = GroupText {
            group_text_id: new_id(),
            account_sid: valid.account_sid.into_string(),
            origin: Origin::Requested,
            conversation_sid: None,
            adopted: false,
            state: State::Requested,
            failure_code: None,
            failure_detail: None,
            friendly_name: new.friendly_name,
            attributes: new.attributes.map(|attributes| attributes.to_string()),
            roster: Some(valid.roster),
            members: valid.members,
            create_attempt: 1,
            requested_by: Some(new.requested_by.clone()),
            created_at: now,
            updated_at: now,
        };
        insert_unless_in_the_making(conn, &group).await?;
        put_create(conn, &group, now).await?;
        tell(
            conn,
            &group,
            Kind::GroupTextRequested,
            Some(&new.requested_by),
            Via::Api,
            now,
        )
        .await?;
        Ok(group)
    }

    fn validate(&self, new: &NewGroupText) -> Result<validate::Valid, Vec<Violation>> {
        let mut violations = describe(new);
        match validate::members(&new.members, &self.own_numbers()) {
            Ok(valid) if violations.is_empty() => Ok(valid),
            Ok(_) => Err(violations),
            Err(more) => {
                violations.extend(more);
                Err(violations)
            }
        }
    }

    fn own_numbers(&self) -> BTreeMap<String, AccountSid> {
        self.accounts
            .iter()
            .flat_map(|account| {
                account
                    .numbers
                    .iter()
                    .map(|number| (number.as_str().to_owned(), account.account_sid.clone()))
            })
            .collect()
    }
}

/// Of two requests for the same roster the database lets one in; the other is told which. One that was in the making
/// and no longer is, is no obstacle: then it is tried again.
async fn insert_unless_in_the_making(
    conn: &mut PgConnection,
    group: &GroupText,
) -> Result<(), StartGroupTextError> {
    let roster = group.roster.as_deref().unwrap_or_default();
    loop {
        if store::insert(conn, group).await? {
            return Ok(());
        }
        if let Some(group_text_id) = store::in_the_making(conn, &group.account_sid, roster).await? {
            return Err(StartGroupTextError::InTheMaking { group_text_id });
        }
    }
}

/// What is wrong with a group text besides its members.
fn describe(new: &NewGroupText) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut wrong = |field: &str, code, message: String| {
        violations.push(Violation {
            field: field.to_owned(),
            code,
            message,
        });
    };
    if new
        .friendly_name
        .as_ref()
        .is_some_and(|name| name.chars().count() > NAME_MAX)
    {
        wrong(
            "/friendly_name",
            "too_long",
            format!("expected at most {NAME_MAX} characters"),
        );
    }
    if new
        .friendly_name
        .as_ref()
        .is_some_and(|name| name.chars().any(char::is_control))
    {
        wrong(
            "/friendly_name",
            "control",
            "expected no control characters".to_owned(),
        );
    }
    if let Some(attributes) = &new.attributes {
        if !attributes.is_object() {
            wrong("/attributes", "object", "expected a JSON object".to_owned());
        }
        if attributes.to_string().len() > ATTRIBUTES_MAX {
            wrong(
                "/attributes",
                "too_long",
                format!("expected at most {ATTRIBUTES_MAX} bytes of JSON"),
            );
        }
        if attributes.to_string().contains("\\u0000") {
            wrong("/attributes", "nul", "expected no NUL characters".to_owned());
        }
    }
    violations
}

pub(super) async fn put_create(
    conn: &mut PgConnection,
    group: &GroupText,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: CREATE_TASK,
        order_key: format!("group_text:{}", group.group_text_id),
        unique_key: Some(group.group_text_id.to_string()),
        payload: json!({ "group_text_id": group.group_text_id }),
        run_at: now,
        attempts_max: 20,
    };
    queue::put(conn, &task, now).await
}

/// Writes the log entry of a group text's change.
pub(super) async fn tell(
    conn: &mut PgConnection,
    group: &GroupText,
    kind: Kind,
    actor: Option<&str>,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let event = NewEvent {
        kind,
        account_sid: AccountSid::try_from(group.account_sid.as_str()).ok(),
        conversation_sid: group
            .conversation_sid
            .as_deref()
            .and_then(|sid| ConversationSid::try_from(sid).ok()),
        subject: group.group_text_id.to_string(),
        actor: actor.map(str::to_owned),
        via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({
            "group_text_id": group.group_text_id,
            "origin": group.origin,
            "state": group.state,
            "friendly_name": group.friendly_name,
            "adopted": group.adopted,
            "failure_code": group.failure_code,
        }),
    };
    events::append(conn, &[event]).await
}
