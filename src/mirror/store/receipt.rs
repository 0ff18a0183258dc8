//! Receipts' rows.

use std::collections::BTreeSet;

use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use super::column;
use crate::ids::{AccountSid, ConversationSid, MessageSid, ReceiptSid};
use crate::mirror::fold::{Receipt, State};
use crate::mirror::version::Version;

pub(super) async fn load_receipts(
    conn: &mut PgConnection,
    keys: &BTreeSet<(ConversationSid, MessageSid, ReceiptSid)>,
    state: &mut State,
) -> Result<(), sqlx::Error> {
    if keys.is_empty() {
        return Ok(());
    }
    let conversations: Vec<&str> = keys
        .iter()
        .map(|(conversation, _, _)| conversation.as_str())
        .collect();
    let messages: Vec<&str> = keys.iter().map(|(_, message, _)| message.as_str()).collect();
    let sids: Vec<&str> = keys.iter().map(|(_, _, sid)| sid.as_str()).collect();
    let rows = sqlx::query!(
        r#"-- mirror.load_receipts
        select conversation_sid as "conversation_sid: ConversationSid", message_sid as "message_sid: MessageSid",
               delivery_receipt_sid as "sid: ReceiptSid", account_sid as "account_sid: AccountSid", participant_sid,
               channel_message_sid, status, error_code, created_at, version_at,
               learnt_at
        from unnest($1::text[], $2::text[], $3::text[]) as wanted (conversation, message, sid)
        cross join lateral (select * from delivery_receipt
            where conversation_sid = wanted.conversation and message_sid = wanted.message
              and delivery_receipt_sid = wanted.sid offset 0) as delivery_receipt"#,
        &conversations as _,
        &messages as _,
        &sids as _,
    )
    .fetch_all(conn)
    .await?;
    for row in rows {
        let at = row.version_at.to_jiff();
        let receipt = Receipt {
            account_sid: row.account_sid,
            message_sid: row.message_sid,
            participant_sid: row.participant_sid,
            channel_message_sid: row.channel_message_sid,
            status: row.status,
            error_code: row.error_code,
            created_at: row.created_at.map(jiff_sqlx::Timestamp::to_jiff),
            version: Version {
                at,
                exact: at.subsec_nanosecond() != 0,
            },
            learnt_at: row
                .learnt_at
                .map(jiff_sqlx::Timestamp::to_jiff)
                .unwrap_or_default(),
            dirty: false,
        };
        state.receipts.insert((row.conversation_sid, row.sid), receipt);
    }
    Ok(())
}

pub(super) async fn save_receipts(conn: &mut PgConnection, state: &State) -> Result<(), sqlx::Error> {
    let rows: Vec<(&(ConversationSid, ReceiptSid), &Receipt)> =
        state.receipts.iter().filter(|(_, row)| row.dirty).collect();
    if rows.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "-- mirror.save_receipts
        insert into delivery_receipt (conversation_sid, message_sid, delivery_receipt_sid, account_sid, participant_sid,
            channel_message_sid, status, error_code, created_at, version_at, learnt_at)
        select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
            $9::timestamptz[], $10::timestamptz[], $11::timestamptz[])
        on conflict (conversation_sid, message_sid, delivery_receipt_sid) do update
        set participant_sid = excluded.participant_sid, channel_message_sid = excluded.channel_message_sid,
            status = excluded.status, error_code = excluded.error_code, created_at = excluded.created_at,
            version_at = excluded.version_at, learnt_at = excluded.learnt_at",
        column!(rows, |((conversation, _), _)| conversation.as_str()) as _,
        column!(rows, |(_, row)| row.message_sid.as_str()) as _,
        column!(rows, |((_, sid), _)| sid.as_str()) as _,
        column!(rows, |(_, row)| row.account_sid.as_str()) as _,
        column!(rows, |(_, row)| row.participant_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.channel_message_sid.as_deref()) as _,
        column!(rows, |(_, row)| row.status.as_str()) as _,
        column!(rows, |(_, row)| row.error_code.as_deref()) as _,
        column!(rows, |(_, row)| row.created_at.map(jiff_sqlx::ToSqlx::to_sqlx)) as _,
        column!(rows, |(_, row)| row.version.at.to_sqlx()) as _,
        column!(rows, |(_, row)| row.learnt_at.to_sqlx()) as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}
