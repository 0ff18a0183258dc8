//! What is stored of a conversation, for those who compare it with Twilio.

use std::collections::BTreeSet;

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::ids::{ConversationSid, MessageSid, ParticipantSid};
use crate::mirror::fold::Revisions;

/// How a conversation stands in the mirror, for who is about to read it at Twilio.
#[derive(Debug, Clone, Default)]
pub struct Standing {
    /// Twilio's word; none where only members of the conversation are known.
    pub state: Option<String>,
    /// The members who are not gone, with the lines that they are on.
    pub members: Vec<(String, Option<String>)>,
    /// Of the conversation and of all who ever were members, to be read before a read at Twilio: see [`Revisions`].
    pub revisions: Revisions,
}

/// How a conversation and its participants stand.
pub async fn standing(conn: &mut PgConnection, conversation_sid: &str) -> Result<Standing, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.standing
        select conversation_sid as "sid!", revision as "revision!", false as "is_member!", state, null as line, false as "is_gone!"
        from conversation where conversation_sid = $1
        union all
        select participant_sid, revision, true, null, projected_address, removed_at is not null
        from participant where conversation_sid = $1"#,
        conversation_sid,
    )
    .fetch_all(conn)
    .await?;
    let mut standing = Standing::default();
    for row in rows {
        standing.revisions.insert(row.sid.clone(), row.revision);
        if !row.is_member {
            standing.state = row.state;
        } else if !row.is_gone {
            standing.members.push((row.sid, row.line));
        }
    }
    Ok(standing)
}

/// The revision of one message, as those of [`Standing`].
pub async fn revision_of_message(
    conn: &mut PgConnection,
    conversation_sid: &str,
    message_sid: &str,
) -> Result<Revisions, sqlx::Error> {
    let rows = sqlx::query!(
        "-- mirror.revision_of_message
        select message_sid, revision from message where conversation_sid = $1 and message_sid = $2",
        conversation_sid,
        message_sid,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.message_sid, row.revision))
        .collect())
}

/// Records that a conversation and its members were read at Twilio, by a reading that began at `began_at`: doubts about
/// them are settled, but for one that arose later.
pub async fn mark_verified_as_of(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    began_at: Timestamp,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- mirror.mark_verified_as_of
        update conversation
        set verified_at = greatest(verified_at, $2),
            unverified_since = case when unverified_since > $2 then unverified_since end
        where conversation_sid = $1",
        conversation_sid.as_str(),
        began_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// What is stored of a conversation before it is read at Twilio whole.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Of the conversation, its participants and its messages.
    pub revisions: Revisions,
    /// Those that are not removed.
    pub participants: BTreeSet<ParticipantSid>,
    /// Those that are not removed.
    pub messages: BTreeSet<MessageSid>,
}

/// Everything that is stored of a conversation, by SID.
pub async fn inventory(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
) -> Result<Inventory, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.inventory
        select conversation_sid as "sid!", revision as "revision!", false as "live!"
        from conversation where conversation_sid = $1
        union all
        select participant_sid, revision, removed_at is null from participant where conversation_sid = $1
        union all
        select message_sid, revision, removed_at is null from message where conversation_sid = $1"#,
        conversation_sid.as_str(),
    )
    .fetch_all(conn)
    .await?;
    let mut inventory = Inventory::default();
    for row in rows {
        if let (true, Ok(sid)) = (row.live, ParticipantSid::try_from(row.sid.as_str())) {
            inventory.participants.insert(sid);
        } else if let (true, Ok(sid)) = (row.live, MessageSid::try_from(row.sid.as_str())) {
            inventory.messages.insert(sid);
        }
        inventory.revisions.insert(row.sid, row.revision);
    }
    Ok(inventory)
}

/// As [`inventory`], of the participants and of the messages from the index `from` on, those without an index included.
pub async fn inventory_from(
    conn: &mut PgConnection,
    conversation_sid: &ConversationSid,
    from: Option<i64>,
) -> Result<Inventory, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- mirror.inventory_from
        select participant_sid as "sid!", revision as "revision!"
        from participant where conversation_sid = $1 and removed_at is null
        union all
        select message_sid, revision from message
        where conversation_sid = $1 and removed_at is null and message_index >= coalesce($2, message_index)
        union all
        select message_sid, revision from message
        where conversation_sid = $1 and removed_at is null and message_index is null"#,
        conversation_sid.as_str(),
        from,
    )
    .fetch_all(conn)
    .await?;
    let mut inventory = Inventory::default();
    for row in rows {
        if let Ok(sid) = ParticipantSid::try_from(row.sid.as_str()) {
            inventory.participants.insert(sid);
        } else if let Ok(sid) = MessageSid::try_from(row.sid.as_str()) {
            inventory.messages.insert(sid);
        }
        inventory.revisions.insert(row.sid, row.revision);
    }
    Ok(inventory)
}
