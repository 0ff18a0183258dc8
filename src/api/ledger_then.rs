//! Who was behind each line of a conversation at a moment: the auditor's question. Pure once loaded.

use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use sqlx::PgConnection;
use utoipa::ToSchema;

use crate::ids::ConversationSid;
use crate::ledger::{self, Cause, Tenure};
use crate::mirror::as_of::Moment;
use crate::transfer;

/// Who was behind one line then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = LineThen)]
pub(super) struct LineThen {
    pub(super) line: String,
    /// Null: nobody; the line was unstaffed.
    pub(super) holder: Option<String>,
    /// The line changed hands about then, so that it is not certain who had it: `holder` had it before.
    pub(super) contested: bool,
}

/// The ledger of one conversation.
#[derive(Debug)]
pub(super) struct LedgerThen {
    tenures: Vec<Tenure>,
    /// Line, from, to: while the identity behind it was being replaced.
    swaps: Vec<(String, Timestamp, Option<Timestamp>)>,
}

impl LedgerThen {
    /// As it is believed now, or as it was then.
    pub(super) async fn load(
        conn: &mut PgConnection,
        sid: &ConversationSid,
        moment: Option<Moment>,
    ) -> Result<Self, sqlx::Error> {
        let tenures = match moment {
            None => ledger::tenures_of_conversation(conn, sid.as_str()).await?,
            Some(moment) => ledger::tenures_of_conversation_as_of(conn, sid, moment).await?,
        };
        let swaps = transfer::contested_windows(conn, sid.as_str()).await?;
        Ok(Self {
            tenures,
            swaps: swaps
                .into_iter()
                .filter_map(|(line, from, to)| begun_by((line, from, to), moment))
                .collect(),
        })
    }

    /// Oldest first.
    pub(super) fn tenures(&self) -> &[Tenure] {
        &self.tenures
    }

    /// The lines that the conversation had then, by number.
    ///
    /// A time to the second stands for its whole second, since REST answers are cut to it.
    pub(super) fn at(&self, moment: Timestamp) -> Vec<LineThen> {
        let end = moment + precision(moment);
        let mut then: Vec<LineThen> = Vec::new();
        for tenure in self.tenures.iter().filter(|tenure| touches(tenure, moment, end)) {
            match then.iter_mut().find(|one| one.line == tenure.line) {
                Some(one) => one.contested |= one.holder != tenure.holder,
                None => then.push(LineThen {
                    line: tenure.line.clone(),
                    holder: tenure.holder.clone(),
                    contested: self.is_in_swap(&tenure.line, moment, end),
                }),
            }
        }
        then.sort_by(|one, other| one.line.cmp(&other.line));
        then
    }

    fn is_in_swap(&self, line: &str, moment: Timestamp, end: Timestamp) -> bool {
        self.swaps
            .iter()
            .any(|(of, from, to)| of == line && *from < end && to.is_none_or(|to| moment <= to))
    }
}

/// A swap is ours, so that it happened when we knew of it.
fn begun_by(
    (line, from, to): (String, Timestamp, Option<Timestamp>),
    moment: Option<Moment>,
) -> Option<(String, Timestamp, Option<Timestamp>)> {
    let Some(moment) = moment else {
        return Some((line, from, to));
    };
    let end = moment.as_of.min(moment.known_at);
    (from <= end).then(|| (line, from, to.filter(|to| *to <= end)))
}

fn precision(moment: Timestamp) -> SignedDuration {
    match moment.subsec_nanosecond() {
        0 => SignedDuration::from_secs(1),
        _ => SignedDuration::from_micros(1),
    }
}

/// A number that was taken out of the conversation is no line of it.
fn touches(tenure: &Tenure, moment: Timestamp, end: Timestamp) -> bool {
    tenure.cause != Cause::Removed && tenure.from < end && tenure.to.is_none_or(|to| moment < to)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const LINE: &str = "+15017122661";

    fn at(second: &str) -> Timestamp {
        format!("2026-03-01T14:03:{second}Z").parse().unwrap()
    }

    fn tenure(holder: Option<&str>, from: &str, to: Option<&str>, cause: Cause) -> Tenure {
        Tenure {
            tenure_id: Uuid::nil(),
            conversation_sid: "CH00000000000000000000000000000001".to_owned(),
            line: LINE.to_owned(),
            holder: holder.map(str::to_owned),
            from: at(from),
            to: to.map(at),
            cause,
            transfer_id: None,
            via: "webhook".to_owned(),
            recorded_at: at("00"),
        }
    }

    fn ledger(swaps: &[(&str, Option<&str>)]) -> LedgerThen {
        LedgerThen {
            tenures: vec![
                tenure(Some("maya"), "10.5", Some("20.5"), Cause::Created),
                tenure(Some("noor"), "20.5", Some("30.5"), Cause::Transfer),
                tenure(None, "30.5", None, Cause::Removed),
            ],
            swaps: swaps
                .iter()
                .map(|(from, to)| (LINE.to_owned(), at(from), to.map(at)))
                .collect(),
        }
    }

    /// The one line that there was then: its holder, and whether that is contested.
    fn then(ledger: &LedgerThen, second: &str) -> Option<(String, bool)> {
        let mut lines = ledger.at(at(second));
        assert!(lines.len() <= 1);
        lines
            .pop()
            .map(|line| (line.holder.unwrap_or_default(), line.contested))
    }

    fn certainly(holder: &str) -> (String, bool) {
        (holder.to_owned(), false)
    }

    fn perhaps(holder: &str) -> (String, bool) {
        (holder.to_owned(), true)
    }

    #[test]
    fn a_tenure_has_its_first_instant_and_not_its_last() {
        let ledger = ledger(&[]);
        assert_eq!(then(&ledger, "10.4"), None);
        assert_eq!(then(&ledger, "10.5"), Some(certainly("maya")));
        assert_eq!(then(&ledger, "20.499999"), Some(certainly("maya")));
        assert_eq!(then(&ledger, "20.5"), Some(certainly("noor")));
    }

    #[test]
    fn a_number_that_was_taken_out_is_no_line() {
        assert_eq!(then(&ledger(&[]), "30.5"), None);
    }

    #[test]
    fn a_time_to_the_second_is_contested_where_the_line_changed_hands_within_it() {
        let ledger = ledger(&[]);
        assert_eq!(then(&ledger, "20"), Some(perhaps("maya")));
        assert_eq!(then(&ledger, "19"), Some(certainly("maya")));
        assert_eq!(then(&ledger, "21"), Some(certainly("noor")));
        assert_eq!(
            then(&ledger, "10"),
            Some(certainly("maya")),
            "nobody else had it before"
        );
    }

    #[test]
    fn what_was_written_during_a_swap_is_contested() {
        let ended = ledger(&[("19.9", Some("20.6"))]);
        assert_eq!(then(&ended, "19.8"), Some(certainly("maya")));
        assert_eq!(then(&ended, "19.9"), Some(perhaps("maya")));
        assert_eq!(then(&ended, "20.6"), Some(perhaps("noor")));
        assert_eq!(then(&ended, "20.7"), Some(certainly("noor")));
        let lasting = ledger(&[("25.1", None)]);
        assert_eq!(then(&lasting, "29.1"), Some(perhaps("noor")));
        assert_eq!(
            then(&lasting, "25"),
            Some(perhaps("noor")),
            "the second in which it began"
        );
    }
}
