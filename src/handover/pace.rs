//! When the next line may begin. Pure.
//!
//! The times are data: each line has the one at which it was due, and the plan the one of the next. A worker that comes a
//! little late catches up, so that the rate holds exactly; one that comes much later, after a pause, a restart or an outage,
//! does not: the time that nobody worked is lost, and nothing comes in a burst. Nor does it where Twilio does not get on: so
//! many lines are under way at most.

use jiff::{SignedDuration, Timestamp};

/// How late a line may begin without moving those after it.
pub const SLACK: SignedDuration = SignedDuration::from_secs(1);

/// So many lines may be under way at once, whatever the rate.
const UNDER_WAY_MIN: i64 = 5;

/// A rate, and how far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    pub lines_per_minute: u32,
    /// None: nothing has begun yet, or not since a pause.
    pub next_due_at: Option<Timestamp>,
}

impl Pace {
    /// From one line to the next.
    pub fn interval(self) -> SignedDuration {
        SignedDuration::from_micros(60_000_000 / i64::from(self.lines_per_minute.max(1)))
    }

    /// When the line is due that may begin now; none where none may.
    pub fn due(self, now: Timestamp) -> Option<Timestamp> {
        match self.next_due_at {
            None => Some(now),
            Some(at) if at <= now => Some(at.max(now - SLACK)),
            Some(_) => None,
        }
    }

    /// After a line has begun that was due at this time.
    #[must_use]
    pub fn after(self, due_at: Timestamp) -> Self {
        Self {
            next_due_at: Some(due_at + self.interval()),
            ..self
        }
    }

    /// How many lines may be under way at once: as many as begin in a quarter of a minute, which is several times as long as a
    /// transfer takes. While Twilio does not answer no more begin, so that afterwards no more than these come at once.
    pub fn under_way_max(self) -> i64 {
        i64::from(self.lines_per_minute / 4).max(UNDER_WAY_MIN)
    }

    /// The earliest end of so many lines.
    pub fn end_of(self, lines: i64, now: Timestamp) -> Timestamp {
        let from = self.next_due_at.map_or(now, |at| at.max(now));
        let rest = i32::try_from(lines.saturating_sub(1).max(0)).unwrap_or(i32::MAX);
        from.checked_add(self.interval() * rest).unwrap_or(from)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_microsecond(1_700_000_000_000_000 + micros).unwrap()
    }

    /// Works as a worker does that looks at these times: what began, and when it was due.
    fn work(rate: u32, looks: &[i64]) -> Vec<(i64, Timestamp)> {
        let mut pace = Pace {
            lines_per_minute: rate,
            next_due_at: None,
        };
        let mut begun = Vec::new();
        for look in looks {
            while let Some(due) = pace.due(at(*look)) {
                begun.push((*look, due));
                pace = pace.after(due);
            }
        }
        begun
    }

    #[test]
    fn a_worker_that_is_a_little_late_keeps_the_rate_to_the_line() {
        // It looks every 0.7 s at a rate of one in 0.5 s, for a minute.
        let looks: Vec<i64> = (0..=85).map(|look| look * 700_000).collect();
        let begun = work(120, &looks);
        assert_eq!(begun.len(), 120);
        for pair in begun.windows(2) {
            assert_eq!(
                pair[1].1.duration_since(pair[0].1),
                SignedDuration::from_millis(500)
            );
        }
    }

    #[test]
    fn after_an_hour_without_work_no_more_begins_at_once_than_in_the_slack() {
        let begun = work(600, &[0, 3_600_000_000]);
        assert_eq!(begun.len(), 1 + 11, "the one that is due, and a second's worth");
    }

    #[test]
    fn a_slow_rate_does_not_catch_up_on_a_line() {
        let begun = work(1, &[0, 119_000_000, 120_000_000, 177_000_000, 179_000_000]);
        let looks: Vec<i64> = begun.iter().map(|(look, _)| *look).collect();
        assert_eq!(looks, [0, 119_000_000, 179_000_000]);
    }

    proptest! {
        #[test]
        fn no_stretch_has_more_than_the_rate_and_the_slack(
            rate in 1_u32..600,
            steps in proptest::collection::vec(0_i64..5_000_000, 1..60),
        ) {
            let mut now = 0;
            let looks: Vec<i64> = steps.into_iter().map(|step| { now += step; now }).collect();
            let begun = work(rate, &looks);
            let interval = 60_000_000 / i64::from(rate);
            for (first, one) in begun.iter().enumerate() {
                for (count, other) in (0_i64..).zip(&begun[first..]) {
                    let stretch = other.0 - one.0 + SLACK.as_secs() * 1_000_000;
                    prop_assert!(count <= stretch / interval + 1);
                }
            }
        }
    }
}
