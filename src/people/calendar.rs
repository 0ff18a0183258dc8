//! A team's calendar: when it is open, and time that counts only while it is. Pure.
//!
//! Hours are wall-clock time. A wall-clock time stands for the **first instant at which clocks show it or a later one**:
//! one that is skipped when clocks go forward is the moment of the change, one that comes twice when they go back is its
//! first. So hours never change places; those within a gap are empty, those around a change last as long as it really is.
//!
//! Hours belong to the date on which they begin. A holiday replaces those of its date: a night shift that began on the
//! eve runs to its end.

use std::collections::BTreeMap;

use jiff::civil::{Date, DateTime, time};
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan as _};

use super::hours::{Holidays, Hours, Week, Zone};

/// How far [`Calendar::closes_at`] looks for an end: who is open for longer is open for good.
const OPEN_DAYS_MAX: i64 = 400;

/// When a team is open.
#[derive(Debug, Clone)]
pub struct Calendar {
    zone: TimeZone,
    /// None: always open, but for the holidays.
    week: Option<Week>,
    holidays: BTreeMap<Date, Vec<Hours>>,
}

/// A stretch of time in which a team is open; `to` is not included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Open {
    pub from: Timestamp,
    pub to: Timestamp,
}

impl Open {
    fn duration(self) -> SignedDuration {
        self.from.duration_until(self.to)
    }
}

impl Calendar {
    pub fn new(zone: &Zone, week: &Week, holidays: &Holidays) -> Self {
        Self {
            zone: zone.time_zone().clone(),
            week: (!week.is_empty()).then(|| week.clone()),
            holidays: holidays
                .iter()
                .map(|holiday| (holiday.date, holiday.hours.clone()))
                .collect(),
        }
    }

    pub fn is_open(&self, at: Timestamp) -> bool {
        self.next_open(at) == Some(at)
    }

    /// The first instant from `at` on at which it is open: `at` itself, if it is. None: not before the end of time.
    pub fn next_open(&self, at: Timestamp) -> Option<Timestamp> {
        self.open_from(at).next().map(|open| open.from)
    }

    /// When it closes that is open at `at`. None: it is closed then, or does not close for a year.
    pub fn closes_at(&self, at: Timestamp) -> Option<Timestamp> {
        let limit = at
            .saturating_add(SignedDuration::from_hours(24 * OPEN_DAYS_MAX))
            .ok()?;
        let mut end = at;
        for open in self.open_from(at) {
            if open.from > end {
                break;
            }
            end = open.to;
            if end > limit {
                return None;
            }
        }
        (end > at).then_some(end)
    }

    /// The first instant at which so much business time has passed since `at`; `at` itself for none. An end that falls on
    /// closing time is that, not the next morning. None: not before the end of time.
    pub fn add_business_time(&self, at: Timestamp, time: SignedDuration) -> Option<Timestamp> {
        let mut left = time;
        if !left.is_positive() {
            return Some(at);
        }
        for open in self.open_from(at) {
            if left <= open.duration() {
                return open.from.checked_add(left).ok();
            }
            left -= open.duration();
        }
        None
    }

    pub fn add_business_minutes(&self, at: Timestamp, minutes: u32) -> Option<Timestamp> {
        self.add_business_time(at, SignedDuration::from_mins(i64::from(minutes)))
    }

    /// How long it is open between two instants; negative where `to` is before `from`.
    pub fn business_time_between(&self, from: Timestamp, to: Timestamp) -> SignedDuration {
        if to < from {
            return -self.business_time_between(to, from);
        }
        self.open_from(from)
            .take_while(|open| open.from < to)
            .fold(SignedDuration::ZERO, |sum, open| {
                sum + open.from.duration_until(open.to.min(to))
            })
    }

    /// As [`Calendar::business_time_between`], in whole minutes, cut.
    pub fn business_minutes_between(&self, from: Timestamp, to: Timestamp) -> i64 {
        self.business_time_between(from, to).as_mins()
    }

    /// The stretches between two instants in which it is open, those that touch made one.
    pub fn open_between(&self, from: Timestamp, to: Timestamp) -> Vec<Open> {
        let mut stretches: Vec<Open> = Vec::new();
        for open in self.open_from(from).take_while(|open| open.from < to) {
            let open = Open {
                to: open.to.min(to),
                ..open
            };
            match stretches.last_mut() {
                Some(last) if last.to == open.from => last.to = open.to,
                _ => stretches.push(open),
            }
        }
        stretches
    }

    /// Everything that is open from `at` on, in order, apart from each other, piece by piece.
    fn open_from(&self, at: Timestamp) -> impl Iterator<Item = Open> {
        let today = self.zone.to_datetime(at).date();
        // What began yesterday may last over midnight. What began before that ended by then.
        let first = today.yesterday().unwrap_or(today);
        let mut floor = at;
        first
            .series(1.day())
            .flat_map(move |date| {
                self.hours_on(date)
                    .iter()
                    .map(move |hours| self.open_on(date, *hours))
            })
            .filter_map(move |open| {
                let from = open.from.max(floor);
                (open.to > from).then(|| {
                    floor = open.to;
                    Open { from, to: open.to }
                })
            })
    }

    fn hours_on(&self, date: Date) -> &[Hours] {
        match (self.holidays.get(&date), &self.week) {
            (Some(hours), _) => hours,
            (None, Some(week)) => week.on(date.weekday()),
            (None, None) => &[Hours::ALL_DAY],
        }
    }

    fn open_on(&self, date: Date, hours: Hours) -> Open {
        Open {
            from: instant(&self.zone, at_minute(date, hours.from_minute())),
            to: instant(&self.zone, at_minute(date, hours.to_minute())),
        }
    }
}

/// So many minutes after the midnight that begins a date: less than two days.
fn at_minute(date: Date, minute: u16) -> DateTime {
    let date = match minute / (24 * 60) {
        0 => date,
        _ => date.tomorrow().unwrap_or(Date::MAX),
    };
    let part = |value: u16| i8::try_from(value).expect("hours and minutes are small");
    date.to_datetime(time(part(minute / 60 % 24), part(minute % 60), 0, 0))
}

/// The first instant at which clocks of a zone show this time or a later one.
pub(super) fn instant(zone: &TimeZone, at: DateTime) -> Timestamp {
    let found = match zone.to_ambiguous_timestamp(at).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(at),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(at),
        // With the later offset it is before the change, with the earlier one after it.
        AmbiguousOffset::Gap { before, after } => after
            .to_timestamp(at)
            .map(|lower| zone.following(lower).next().map(|change| change.timestamp()))
            .and_then(|change| match change {
                Some(change) => Ok(change),
                None => before.to_timestamp(at),
            }),
    };
    found.unwrap_or(if at.year() > 0 {
        Timestamp::MAX
    } else {
        Timestamp::MIN
    })
}

#[cfg(test)]
mod tests;
