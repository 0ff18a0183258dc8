//! How far a plan has come, in numbers.

use std::collections::BTreeMap;

use sqlx::PgConnection;
use uuid::Uuid;

use super::plan::word;
use crate::handover::{BackState, Finding, LineState};

/// How many lines of a plan stand where.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = HandoverCounts)]
pub struct Counts {
    pub lines: i64,
    pub in_doubt: i64,
    pub waiting: i64,
    pub transferring: i64,
    pub handed_over: i64,
    pub stays: i64,
    pub skipped: i64,
    pub failed: i64,
    pub cancelled: i64,
    /// Of those handed over: not yet begun on their way back, where they go back.
    pub to_go_back: i64,
    pub going_back: i64,
    pub returned: i64,
    pub kept: i64,
    pub back_failed: i64,
}

impl Counts {
    /// Transfers of the plan that are under way, in either direction.
    pub fn under_way(&self) -> i64 {
        self.transferring + self.going_back
    }
}

pub async fn counts(conn: &mut PgConnection, handover_id: Uuid) -> Result<Counts, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- handover.counts
        select state, back_state, (asked_at is not null and settled_at is null) as "in_doubt!", count(*) as "lines!"
        from handover_line where handover_id = $1
        group by 1, 2, 3"#,
        handover_id,
    )
    .fetch_all(conn)
    .await?;
    let mut counts = Counts::default();
    for row in rows {
        counts.lines += row.lines;
        if row.in_doubt {
            counts.in_doubt += row.lines;
        }
        *match word::<LineState>(&row.state) {
            LineState::Waiting => &mut counts.waiting,
            LineState::Transferring => &mut counts.transferring,
            LineState::HandedOver => &mut counts.handed_over,
            LineState::Stays => &mut counts.stays,
            LineState::Skipped => &mut counts.skipped,
            LineState::Failed => &mut counts.failed,
            LineState::Cancelled => &mut counts.cancelled,
        } += row.lines;
        let back = match row.back_state.as_deref().map(word::<BackState>) {
            None if row.state == LineState::HandedOver.as_str() => &mut counts.to_go_back,
            None => continue,
            Some(BackState::Transferring) => &mut counts.going_back,
            Some(BackState::Returned) => &mut counts.returned,
            Some(BackState::Kept) => &mut counts.kept,
            Some(BackState::Failed) => &mut counts.back_failed,
        };
        *back += row.lines;
    }
    Ok(counts)
}

/// What a plan gives, and where it is not certain.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Given {
    /// To whom how many lines go, or went.
    pub to: BTreeMap<String, i64>,
    /// How many lines were found how.
    pub findings: BTreeMap<Finding, i64>,
}

pub async fn given(conn: &mut PgConnection, handover_id: Uuid) -> Result<Given, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- handover.given
        select to_holder, finding, count(*) as "lines!",
               count(*) filter (where state in ('waiting', 'transferring', 'handed_over')) as "given!"
        from handover_line where handover_id = $1 group by 1, 2"#,
        handover_id,
    )
    .fetch_all(conn)
    .await?;
    let mut given = Given::default();
    for row in rows {
        *given.findings.entry(word(&row.finding)).or_default() += row.lines;
        if let Some(to) = row.to_holder.filter(|_| row.given > 0) {
            *given.to.entry(to).or_default() += row.given;
        }
    }
    Ok(given)
}
