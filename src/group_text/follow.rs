//! What becomes of a group text when its conversation changes its state, whoever told us of that.

use std::collections::BTreeMap;

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::events::{Kind, Via};
use crate::group_text::{GroupText, Origin, State, operations, store};
use crate::ids::{ConversationSid, new_id};
use crate::mirror::StateNow;

/// Why a group text failed that Twilio had not finished in time.
pub(super) const ACTIVATION_TIMEOUT: &str = "activation_timeout";

/// How often Twilio is asked to make one group, where it fails while adding the members.
pub(super) const CREATE_ATTEMPTS_MAX: i16 = 3;

/// Follows the conversations whose state changed, within the transaction that changed the mirror.
pub async fn follow(
    conn: &mut PgConnection,
    changed: &BTreeMap<ConversationSid, StateNow>,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if changed.is_empty() {
        return Ok(());
    }
    let sids: Vec<&str> = changed.keys().map(ConversationSid::as_str).collect();
    let mut groups: BTreeMap<String, GroupText> = store::lock_by_conversations(conn, &sids)
        .await?
        .into_iter()
        .filter_map(|group| Some((group.conversation_sid.clone()?, group)))
        .collect();
    for (sid, state) in changed {
        match groups.remove(sid.as_str()) {
            Some(group) => step(conn, group, state, via, now).await?,
            None if state.autocreated => adopt(conn, sid, state, via, now).await?,
            None => {}
        }
    }
    Ok(())
}

/// Moves a group text to what its conversation has come to.
pub(super) async fn step(
    conn: &mut PgConnection,
    mut group: GroupText,
    now_is: &StateNow,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let over = now_is.removed || now_is.state.as_deref() == Some("closed");
    let open = matches!(now_is.state.as_deref(), Some("active" | "inactive"));
    group.updated_at = now;
    match group.state {
        State::Requested | State::Initializing if over && group.origin == Origin::Requested => {
            start_again(conn, group, via, now).await
        }
        State::Requested | State::Initializing | State::Active if over => {
            group.state = State::Closed;
            store::update(conn, &group).await?;
            operations::tell(conn, &group, Kind::GroupTextClosed, None, via, now).await
        }
        State::Requested | State::Initializing if open => {
            group.state = State::Active;
            store::update(conn, &group).await?;
            operations::tell(conn, &group, Kind::GroupTextActive, None, via, now).await
        }
        State::Requested => {
            group.state = State::Initializing;
            store::update(conn, &group).await?;
            operations::tell(conn, &group, Kind::GroupTextInitializing, None, via, now).await
        }
        // Twilio has finished after all, after we had ceased to wait.
        State::Failed if open && group.failure_code.as_deref() == Some(ACTIVATION_TIMEOUT) => {
            group.state = State::Active;
            group.failure_code = None;
            group.failure_detail = None;
            store::update(conn, &group).await?;
            operations::tell(conn, &group, Kind::GroupTextActive, None, via, now).await
        }
        State::Initializing | State::Active | State::Failed | State::Closed => Ok(()),
    }
}

/// Twilio closes a conversation whose members it could not add (50427), and lets go of the numbers: it can be asked
/// again, under another unique name.
pub(super) async fn start_again(
    conn: &mut PgConnection,
    mut group: GroupText,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if group.create_attempt >= CREATE_ATTEMPTS_MAX {
        let detail =
            format!("Twilio closed the conversation while adding its members, {CREATE_ATTEMPTS_MAX} times");
        return fail(conn, group, "activation_failed", &detail, via, now).await;
    }
    group.create_attempt += 1;
    group.state = State::Requested;
    group.conversation_sid = None;
    group.updated_at = now;
    store::update(conn, &group).await?;
    operations::put_create(conn, &group, now).await
}

pub(super) async fn fail(
    conn: &mut PgConnection,
    mut group: GroupText,
    code: &str,
    detail: &str,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    group.state = State::Failed;
    group.failure_code = Some(code.to_owned());
    group.failure_detail = Some(detail.to_owned());
    group.updated_at = now;
    store::update(conn, &group).await?;
    operations::tell(conn, &group, Kind::GroupTextFailed, None, via, now).await
}

/// A group that a customer started is ours from its first webhook on.
async fn adopt(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    state: &StateNow,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let group = GroupText {
        group_text_id: new_id(),
        account_sid: state.account_sid.as_str().to_owned(),
        origin: Origin::Autocreated,
        conversation_sid: Some(sid.as_str().to_owned()),
        adopted: true,
        state: match state.state.as_deref() {
            Some("active" | "inactive") => State::Active,
            Some("closed") => State::Closed,
            _ if state.removed => State::Closed,
            _ => State::Initializing,
        },
        failure_code: None,
        failure_detail: None,
        friendly_name: state.friendly_name.clone(),
        attributes: None,
        roster: None,
        members: Vec::new(),
        create_attempt: 1,
        requested_by: None,
        created_at: now,
        updated_at: now,
    };
    if store::insert(conn, &group).await? {
        store::update(conn, &group).await?;
        operations::tell(conn, &group, Kind::GroupTextAdopted, None, via, now).await?;
        if group.state == State::Active {
            operations::tell(conn, &group, Kind::GroupTextActive, None, via, now).await?;
        }
    }
    Ok(())
}
