//! The log as lines of JSON, for a span of time. Without the salts: who has those could try values against hashes.

use std::io::{self, Write};

use jiff::Timestamp;
use serde_json::json;
use serde_json::value::RawValue;
use sqlx::PgPool;

use crate::audit::canonical::Entry;
use crate::audit::sealer::PAGE;
use crate::audit::store;
use crate::events::Position;

/// By the time at which the entries were recorded; from the first one on, up to the second and without it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Span {
    pub from: Option<Timestamp>,
    pub until: Option<Timestamp>,
}

/// Why an export stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
    #[error("cannot write")]
    Io(#[from] io::Error),
}

/// Writes the entries of a span, in the log's order. Answers how many.
pub async fn export(pool: &PgPool, span: Span, mut out: impl Write) -> Result<u64, ExportError> {
    let (mut last, mut written) = (Position::default(), 0);
    loop {
        let mut conn = pool.acquire().await?;
        let page = store::entries(&mut conn, last, None, PAGE).await?;
        drop(conn);
        let Some(end) = page.last() else {
            out.flush()?;
            return Ok(written);
        };
        last = end.position;
        for entry in page.iter().filter(|entry| span.has(entry.recorded_at)) {
            writeln!(out, "{}", line(entry))?;
            written += 1;
        }
    }
}

impl Span {
    fn has(self, at: Timestamp) -> bool {
        self.from.is_none_or(|from| from <= at) && self.until.is_none_or(|until| at < until)
    }
}

fn line(entry: &Entry) -> String {
    let data = serde_json::from_str::<&RawValue>(&entry.data).ok();
    json!({
        "id": entry.position.to_string(),
        "type": entry.kind,
        "account_sid": entry.account_sid,
        "conversation_sid": entry.conversation_sid,
        "subject": entry.subject,
        "actor": entry.actor,
        "via": entry.via,
        "cause": entry.cause,
        "occurred_at": entry.occurred_at,
        "recorded_at": entry.recorded_at,
        "erased": entry.is_erased(),
        "data": data,
    })
    .to_string()
}
