//! Whose turn it is: an order of people, and how it goes round. Pure.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan as _};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::calendar::instant;

/// How often the next one is on call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Every {
    Day,
    Week,
}

impl Every {
    fn days(self) -> i64 {
        match self {
            Self::Day => 1,
            Self::Week => 7,
        }
    }
}

/// When the turns change: at the time of day of `start`, in the team's time zone, daylight saving or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    pub every: Every,
    /// When the first of the order begins; before that it is theirs too.
    #[serde(deserialize_with = "start")]
    pub start: DateTime,
}

fn start<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_plain = text.len() >= 16 && !text.ends_with('Z') && !text.contains(['+', '[']);
    text.parse()
        .ok()
        .filter(|at: &DateTime| is_plain && (1970..=9998).contains(&at.year()))
        .ok_or_else(|| D::Error::custom("expected a time of the team's clocks, like 2026-11-30T09:00"))
}

/// The turn that an instant is in, and when it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// 0 is the first.
    pub number: i64,
    pub ends_at: Timestamp,
}

impl Rotation {
    pub fn turn(&self, zone: &TimeZone, at: Timestamp) -> Turn {
        let days = self
            .start
            .date()
            .duration_until(zone.to_datetime(at).date())
            .as_hours()
            / 24;
        let mut number = (days / self.every.days()).max(0);
        while number > 0 && self.begins_at(zone, number) > at {
            number -= 1;
        }
        while self.begins_at(zone, number + 1) <= at && self.begins_at(zone, number + 1) < Timestamp::MAX {
            number += 1;
        }
        Turn {
            number,
            ends_at: self.begins_at(zone, number + 1),
        }
    }

    fn begins_at(&self, zone: &TimeZone, number: i64) -> Timestamp {
        let days = number.saturating_mul(self.every.days());
        match self.start.checked_add(days.days()) {
            Ok(at) => instant(zone, at),
            Err(_) => Timestamp::MAX,
        }
    }
}

/// The order as it is in a turn: who is on call, then who is next, all the way round.
pub fn in_turn<T: Clone>(order: &[T], turn: i64) -> Vec<T> {
    let mut order = order.to_vec();
    if let Ok(length) = i64::try_from(order.len())
        && length > 0
    {
        let first = usize::try_from(turn.rem_euclid(length)).expect("less than a length");
        order.rotate_left(first);
    }
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rotation(every: Every, start: &str) -> Rotation {
        Rotation {
            every,
            start: start.parse().unwrap(),
        }
    }

    fn turn(rotation: &Rotation, zone: &str, at: &str) -> (i64, String) {
        let turn = rotation.turn(&TimeZone::get(zone).unwrap(), at.parse().unwrap());
        (turn.number, turn.ends_at.to_string())
    }

    #[test]
    fn turns_change_by_the_clock_of_the_team_through_daylight_saving() {
        // New York's clocks go forward on 8 March 2026.
        let weekly = rotation(Every::Week, "2026-03-02T09:00");
        let zone = "America/New_York";
        let first = (0, "2026-03-09T13:00:00Z".to_owned());
        assert_eq!(turn(&weekly, zone, "2026-03-02T14:00:00Z"), first);
        assert_eq!(turn(&weekly, zone, "2026-03-09T12:59:59Z"), first);
        let second = (1, "2026-03-16T13:00:00Z".to_owned());
        assert_eq!(turn(&weekly, zone, "2026-03-09T13:00:00Z"), second);
        assert_eq!(
            turn(&weekly, zone, "2026-02-01T00:00:00Z"),
            first,
            "before it starts"
        );
        // A turn that would change within the gap changes with the clocks.
        let daily = rotation(Every::Day, "2026-03-07T02:30");
        assert_eq!(
            turn(&daily, zone, "2026-03-08T06:59:59Z"),
            (0, "2026-03-08T07:00:00Z".to_owned())
        );
        assert_eq!(
            turn(&daily, zone, "2026-03-08T07:00:00Z"),
            (1, "2026-03-09T06:30:00Z".to_owned())
        );
    }

    #[test]
    fn a_day_that_the_zone_skips_is_a_turn_of_nobody() {
        // Apia had no 30 December 2011: its turn is as short as the day.
        let daily = rotation(Every::Day, "2011-12-29T00:00");
        let before = turn(&daily, "Pacific/Apia", "2011-12-30T09:59:59Z");
        assert_eq!(before, (0, "2011-12-30T10:00:00Z".to_owned()));
        let after = turn(&daily, "Pacific/Apia", "2011-12-30T10:00:00Z");
        assert_eq!(after, (2, "2011-12-31T10:00:00Z".to_owned()));
    }

    #[test]
    fn an_order_goes_round() {
        let order = ["a", "b", "c"];
        assert_eq!(in_turn(&order, 0), ["a", "b", "c"]);
        assert_eq!(in_turn(&order, 4), ["b", "c", "a"]);
        assert_eq!(in_turn::<&str>(&[], 4), [""; 0]);
    }
}
