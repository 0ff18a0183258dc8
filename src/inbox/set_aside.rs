//! Webhooks that could not be projected: listed, looked at, replayed.
//!
//! What a webhook says is not shown unless it is asked for, and that somebody asked is an entry of the log. Without it,
//! a value is shown where it is a SID, a time, a small number or a word under a key that never holds anybody's words.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};

use crate::clock::Clock;
use crate::events::{self, Kind, NewEvent, Via};
use crate::ids::{AccountSid, ConversationSid};
use crate::inbox::{Format, store};
use crate::twilio::form::Form;
use crate::twilio::model::SourceTime;

/// A webhook, without what it says.
#[derive(Debug, Clone)]
pub struct Summary {
    pub webhook_id: i64,
    /// `pending`, `projected` or `set_aside`.
    pub state: String,
    pub account_sid: String,
    pub conversation_sid: Option<String>,
    pub event_type: String,
    pub format: Format,
    pub reason: Option<String>,
    pub received_at: Timestamp,
    pub settled_at: Option<Timestamp>,
}

/// A field of a webhook: its key, its value where that may be shown, and how long the value is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownField {
    pub key: String,
    pub value: Option<String>,
    pub bytes: usize,
}

/// Those that are set aside now, the oldest first, after the webhook `after`.
pub async fn page(conn: &mut PgConnection, after: i64, limit: i64) -> Result<Vec<Summary>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- inbox.set_aside_page
        select webhook_id, account_sid, conversation_sid, event_type, format, reason, received_at, set_aside_at
        from webhook_set_aside join webhook using (webhook_id)
        where webhook_id > $1
        order by webhook_id limit $2",
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Summary {
            webhook_id: row.webhook_id,
            state: "set_aside".to_owned(),
            account_sid: row.account_sid,
            conversation_sid: row.conversation_sid,
            event_type: row.event_type,
            format: Format::from_column(&row.format),
            reason: Some(row.reason),
            received_at: row.received_at.to_jiff(),
            settled_at: Some(row.set_aside_at.to_jiff()),
        })
        .collect())
}

/// Who looks into what a webhook says.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    /// The API key; none at the command line.
    pub actor: Option<&'a str>,
    pub via: Via,
}

/// One webhook in whatever state, with its fields. With `reveal`, their values are given as they are, and the log says so
/// in the same transaction.
pub async fn look(
    pool: &PgPool,
    clock: &Clock,
    webhook_id: i64,
    reveal: Option<Reader<'_>>,
) -> Result<Option<(Summary, Vec<ShownField>)>, sqlx::Error> {
    let mut transaction = pool.begin().await?;
    let row = sqlx::query!(
        r#"-- inbox.look
        select webhook_id, state as "state!", account_sid, conversation_sid, event_type, format, webhook_state.reason,
               received_at, form,
               -- Mostly projected at once: the first batches since then are looked through, an hour of them at most.
               coalesce(set_aside_at, (select projected_at from projected_batch
                   where state = 'projected' and webhook_ids @> array[$1::bigint]
                     and projected_at between received_at - interval '1 minute' and received_at + interval '1 hour'
                   order by projected_at limit 1)) as settled_at
        from webhook join webhook_state using (webhook_id) left join webhook_set_aside using (webhook_id)
        where webhook_id = $1"#,
        webhook_id,
    )
    .fetch_optional(&mut *transaction)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    let summary = Summary {
        webhook_id: row.webhook_id,
        state: row.state,
        account_sid: row.account_sid,
        conversation_sid: row.conversation_sid,
        event_type: row.event_type,
        format: Format::from_column(&row.format),
        reason: row.reason,
        received_at: row.received_at.to_jiff(),
        settled_at: row.settled_at.map(jiff_sqlx::Timestamp::to_jiff),
    };
    if let Some(reader) = reveal {
        let event = revealed(&summary, reader, clock.now());
        events::append(&mut transaction, &[event]).await?;
        transaction.commit().await?;
    }
    let fields = fields(summary.format, &row.form)
        .into_iter()
        .map(|(key, text)| shown(key, text, reveal.is_some()))
        .collect();
    Ok(Some((summary, fields)))
}

fn revealed(webhook: &Summary, reader: Reader<'_>, now: Timestamp) -> NewEvent {
    NewEvent {
        kind: Kind::WebhookRevealed,
        account_sid: AccountSid::try_from(webhook.account_sid.as_str()).ok(),
        conversation_sid: webhook
            .conversation_sid
            .as_deref()
            .and_then(|sid| ConversationSid::try_from(sid).ok()),
        subject: format!("webhook:{}", webhook.webhook_id),
        actor: reader.actor.map(str::to_owned),
        via: reader.via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: serde_json::json!({ "webhook_id": webhook.webhook_id }),
    }
}

/// What came of asking for a replay of one webhook.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replay {
    /// It waits to be projected again.
    Waits,
    /// It is not set aside, but in this state.
    NotSetAside(String),
    /// What it said was erased: there is nothing to project.
    Erased,
    NotFound,
}

/// Makes one webhook wait again, in the caller's transaction.
pub async fn replay_one(
    conn: &mut PgConnection,
    webhook_id: i64,
    by: Reader<'_>,
    now: Timestamp,
) -> Result<Replay, sqlx::Error> {
    if store::replay(conn, Some(&[webhook_id])).await? == 1 {
        tell_replay(conn, &format!("webhook:{webhook_id}"), 1, by, now).await?;
        return Ok(Replay::Waits);
    }
    let row = sqlx::query!(
        r#"-- inbox.state_of
        select state as "state!", erased_at is not null as "is_erased!"
        from webhook_state join webhook using (webhook_id) where webhook_id = $1"#,
        webhook_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(match row {
        None => Replay::NotFound,
        Some(row) if row.state == "set_aside" && row.is_erased => Replay::Erased,
        Some(row) => Replay::NotSetAside(row.state),
    })
}

/// Makes all that are set aside wait again, or those named, in the caller's transaction. Answers how many. Those whose
/// forms were erased stay where they are.
pub async fn replay_all(
    conn: &mut PgConnection,
    webhook_ids: Option<&[i64]>,
    by: Reader<'_>,
    now: Timestamp,
) -> Result<u64, sqlx::Error> {
    let replayed = store::replay(conn, webhook_ids).await?;
    if replayed > 0 {
        tell_replay(conn, "webhook", replayed, by, now).await?;
    }
    Ok(replayed)
}

async fn tell_replay(
    conn: &mut PgConnection,
    subject: &str,
    count: u64,
    by: Reader<'_>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let event = NewEvent {
        kind: Kind::WebhookReplayed,
        account_sid: None,
        conversation_sid: None,
        subject: subject.to_owned(),
        actor: by.actor.map(str::to_owned),
        via: by.via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: serde_json::json!({ "count": count }),
    };
    events::append(conn, &[event]).await
}

/// The keys with their values; of an event those of the envelope, of `data` and of the binding, with dots between.
fn fields(format: Format, stored: &[u8]) -> Vec<(String, String)> {
    match format {
        Format::Form => {
            Form::parse(stored).map_or_else(|_| vec![whole(stored)], |form| form.fields().to_vec())
        }
        Format::CloudEvent => match serde_json::from_slice(stored) {
            Ok(Value::Object(envelope)) => {
                let mut fields = Vec::new();
                flatten("", envelope, &mut fields);
                fields
            }
            _ => vec![whole(stored)],
        },
    }
}

fn whole(stored: &[u8]) -> (String, String) {
    ("(body)".to_owned(), String::from_utf8_lossy(stored).into_owned())
}

fn flatten(prefix: &str, object: serde_json::Map<String, Value>, fields: &mut Vec<(String, String)>) {
    for (key, value) in object {
        let path = format!("{prefix}{key}");
        match value {
            // The keys of attributes are the customer's own: they are one value.
            Value::Object(inner) if ["data", "MessagingBinding"].contains(&key.as_str()) => {
                flatten(&format!("{path}."), inner, fields);
            }
            Value::String(text) => fields.push((path, text)),
            other => fields.push((path, other.to_string())),
        }
    }
}

const KEY_MAX: usize = 100;

fn shown(key: String, text: String, reveal: bool) -> ShownField {
    let bytes = text.len();
    let value = (reveal || is_nobodys(&key, &text)).then_some(text);
    let key = if reveal {
        key
    } else {
        key.chars().take(KEY_MAX).collect()
    };
    ShownField { key, value, bytes }
}

/// Keys, by their last part, whose values are Twilio's words and not anybody's.
const TECHNICAL: &[&str] = &[
    "EventType",
    "Source",
    "RetryCount",
    "Index",
    "State",
    "StateFrom",
    "StateTo",
    "StateUpdated",
    "Reason",
    "Status",
    "ErrorCode",
    "DateCreated",
    "DateUpdated",
    "DateRemoved",
    "Type",
    "Level",
    "specversion",
    "time",
    "type",
    "id",
];

/// Whether a value may be shown: by its key, and by its shape too, since it may be in the wrong place.
fn is_nobodys(key: &str, text: &str) -> bool {
    let name = key.rsplit('.').next().unwrap_or(key);
    if name.ends_with("Sid") || name == "id" {
        return text.len() == 34
            && text.bytes().take(2).all(|byte| byte.is_ascii_uppercase())
            && text.bytes().skip(2).all(|byte| byte.is_ascii_hexdigit());
    }
    let is_number = text.len() <= 6 && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_word = text.len() <= 60
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphabetic() || b"._-".contains(&byte));
    TECHNICAL.contains(&name) && (text == "1.0" || is_number || is_word || SourceTime::try_from(text).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(format: Format, stored: &str) -> Vec<(String, Option<String>)> {
        fields(format, stored.as_bytes())
            .into_iter()
            .map(|(key, text)| shown(key, text, false))
            .map(|field| (field.key, field.value))
            .collect()
    }

    fn hidden(key: &str) -> (String, Option<String>) {
        (key.to_owned(), None)
    }

    fn open(key: &str, value: &str) -> (String, Option<String>) {
        (key.to_owned(), Some(value.to_owned()))
    }

    #[test]
    fn technical_values_are_shown_and_words_names_and_numbers_are_not() {
        let form = "EventType=onMessageAdded&MessageSid=IM00000000000000000000000000000001&Index=7&Body=secret\
            &Author=%2B15555550101&FriendlyName=Maya&DateCreated=2026-01-02T03:04:05.678Z&Attributes=%7B%7D";
        assert_eq!(
            values(Format::Form, form),
            [
                open("EventType", "onMessageAdded"),
                open("MessageSid", "IM00000000000000000000000000000001"),
                open("Index", "7"),
                hidden("Body"),
                hidden("Author"),
                hidden("FriendlyName"),
                open("DateCreated", "2026-01-02T03:04:05.678Z"),
                hidden("Attributes"),
            ]
        );
    }

    #[test]
    fn what_stands_in_the_wrong_place_is_not_shown_either() {
        for text in [
            "Index=%2B15555550101",
            "Index=15555550101",
            "MessageSid=hello",
            "Status=see you",
            "State=1-555-0101",
        ] {
            let [(_, value)] = values(Format::Form, text).try_into().unwrap();
            assert_eq!(value, None, "{text}");
        }
    }

    #[test]
    fn an_event_is_shown_by_its_paths_and_its_attributes_are_one_value() {
        let event = r#"{"type":"com.twilio.conversations.message.added","data":{"Index":7,"MessageBody":"secret",
            "Attributes":{"Maya":1},"MessagingBinding":{"Type":"sms","Address":"+15555550101"}}}"#;
        let mut found = values(Format::CloudEvent, event);
        found.sort();
        assert_eq!(
            found,
            [
                hidden("data.Attributes"),
                open("data.Index", "7"),
                hidden("data.MessageBody"),
                hidden("data.MessagingBinding.Address"),
                open("data.MessagingBinding.Type", "sms"),
                open("type", "com.twilio.conversations.message.added"),
            ]
        );
        assert_eq!(values(Format::CloudEvent, "[\"secret\"]"), [hidden("(body)")]);
    }

    #[test]
    fn revealed_is_all_of_it() {
        let field = shown("Body".to_owned(), "secret".to_owned(), true);
        assert_eq!(field.value.as_deref(), Some("secret"));
    }
}
