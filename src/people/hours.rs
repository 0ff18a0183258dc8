//! Hours as people write them: spans of a day, the week that they make, holidays, a time zone. Pure.
//!
//! What is read here is checked here, so that a [`crate::people::calendar::Calendar`] can be made of it without asking again.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use serde::de::Error as _;
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const DAY: u16 = 24 * 60;
/// A day may have so many spans.
const SPANS_MAX: usize = 12;
/// A team may have so many holidays.
pub const HOLIDAYS_MAX: usize = 500;

/// A span of a day in wall-clock time, like `09:00-17:30`; over midnight it ends on the next day, like `22:00-06:00`.
///
/// It belongs to the day on which it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Hours {
    /// Minutes after midnight, less than a day.
    from: u16,
    /// Minutes after the same midnight: more than `from`, by a day at most.
    to: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected hours like `09:00-17:30`; over midnight like `22:00-06:00`, a whole day is `00:00-24:00`")]
pub struct InvalidHours;

impl Hours {
    /// The whole day.
    pub const ALL_DAY: Self = Self { from: 0, to: DAY };

    /// Minutes after the midnight of the day that it belongs to.
    pub fn from_minute(self) -> u16 {
        self.from
    }

    /// Minutes after the same midnight; a day or more where it ends on the next day.
    pub fn to_minute(self) -> u16 {
        self.to
    }
}

impl FromStr for Hours {
    type Err = InvalidHours;

    fn from_str(text: &str) -> Result<Self, InvalidHours> {
        let (from, to) = text.split_once('-').ok_or(InvalidHours)?;
        let (from, to) = (minute(from.trim())?, minute(to.trim())?);
        // The same twice would be a whole day to one reader, and nothing to another.
        if from == DAY || from == to {
            return Err(InvalidHours);
        }
        let to = if to < from { to + DAY } else { to };
        Ok(Self { from, to })
    }
}

/// `00:00` to `24:00`, two digits each.
fn minute(text: &str) -> Result<u16, InvalidHours> {
    let digits = |text: &str| match text.len() {
        2 if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse::<u16>().map_err(|_| InvalidHours),
        _ => Err(InvalidHours),
    };
    let (hour, minute) = text.split_once(':').ok_or(InvalidHours)?;
    let (hour, minute) = (digits(hour)?, digits(minute)?);
    let total = hour * 60 + minute;
    if minute < 60 && total <= DAY {
        Ok(total)
    } else {
        Err(InvalidHours)
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let to = if self.to > DAY { self.to - DAY } else { self.to };
        let (from_hour, from_minute) = (self.from / 60, self.from % 60);
        write!(f, "{from_hour:02}:{from_minute:02}-{:02}:{:02}", to / 60, to % 60)
    }
}

impl Serialize for Hours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

/// The hours of each day of a week. None at all: always open.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "WeekText")]
pub struct Week([Vec<Hours>; 7]);

/// As it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct WeekText {
    #[serde(default)]
    monday: Vec<Hours>,
    #[serde(default)]
    tuesday: Vec<Hours>,
    #[serde(default)]
    wednesday: Vec<Hours>,
    #[serde(default)]
    thursday: Vec<Hours>,
    #[serde(default)]
    friday: Vec<Hours>,
    #[serde(default)]
    saturday: Vec<Hours>,
    #[serde(default)]
    sunday: Vec<Hours>,
}

const DAYS: [&str; 7] = [
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
];

/// Why days do not make a week.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidWeek {
    #[error(
        "expected hours that do not overlap: those of {0} do, with each other or with what the day before leaves over midnight"
    )]
    Overlap(&'static str),
    #[error("expected at most 12 spans for {0}")]
    TooMany(&'static str),
}

impl Week {
    /// Checks that no hours overlap, also over midnight.
    pub fn new(mut days: [Vec<Hours>; 7]) -> Result<Self, InvalidWeek> {
        for (day, name) in days.iter_mut().zip(DAYS) {
            day.sort_unstable();
            if day.len() > SPANS_MAX {
                return Err(InvalidWeek::TooMany(name));
            }
            if !is_apart(day) {
                return Err(InvalidWeek::Overlap(name));
            }
        }
        for (index, name) in DAYS.into_iter().enumerate() {
            let left_over = days[(index + 6) % 7]
                .last()
                .map_or(0, |last| last.to.saturating_sub(DAY));
            if days[index].first().is_some_and(|first| first.from < left_over) {
                return Err(InvalidWeek::Overlap(name));
            }
        }
        Ok(Self(days))
    }

    /// Whether there are no hours at all.
    pub fn is_empty(&self) -> bool {
        self.0.iter().all(Vec::is_empty)
    }

    /// The hours that begin on such a day, in order.
    pub fn on(&self, day: Weekday) -> &[Hours] {
        let index = usize::try_from(day.to_monday_zero_offset()).expect("a day of the week is 0 to 6");
        &self.0[index]
    }
}

/// Whether sorted hours of one day leave each other alone.
fn is_apart(sorted: &[Hours]) -> bool {
    sorted.windows(2).all(|pair| pair[0].to <= pair[1].from)
}

impl TryFrom<WeekText> for Week {
    type Error = InvalidWeek;

    fn try_from(text: WeekText) -> Result<Self, InvalidWeek> {
        Self::new([
            text.monday,
            text.tuesday,
            text.wednesday,
            text.thursday,
            text.friday,
            text.saturday,
            text.sunday,
        ])
    }
}

/// Only the days that have hours.
impl Serialize for Week {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        for (name, hours) in DAYS.iter().zip(&self.0).filter(|(_, hours)| !hours.is_empty()) {
            map.serialize_entry(name, hours)?;
        }
        map.end()
    }
}

/// A date on which the week's hours do not count: other ones do, or none.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "HolidayText")]
pub struct Holiday {
    pub date: Date,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// None: closed all day.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hours: Vec<Hours>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HolidayText {
    #[serde(deserialize_with = "date")]
    date: Date,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    hours: Vec<Hours>,
}

impl TryFrom<HolidayText> for Holiday {
    type Error = &'static str;

    fn try_from(text: HolidayText) -> Result<Self, Self::Error> {
        let mut hours = text.hours;
        hours.sort_unstable();
        if hours.len() > SPANS_MAX || !is_apart(&hours) {
            return Err("expected at most 12 hours for a date, which do not overlap");
        }
        let fits = |name: &str| name.chars().count() <= 100 && !name.chars().any(char::is_control);
        if text.name.as_deref().is_some_and(|name| !fits(name)) {
            return Err("expected a name of at most 100 characters in one line");
        }
        Ok(Self {
            date: text.date,
            name: text.name.filter(|name| !name.is_empty()),
            hours,
        })
    }
}

fn date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Date, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .ok()
        .filter(|date: &Date| (1970..=9998).contains(&date.year()) && text.len() == 10)
        .ok_or_else(|| D::Error::custom("expected a date like 2026-12-25"))
}

/// The holidays of a team, in order, each date once.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Holiday>")]
pub struct Holidays(Vec<Holiday>);

impl Holidays {
    pub fn iter(&self) -> impl Iterator<Item = &Holiday> {
        self.0.iter()
    }
}

impl TryFrom<Vec<Holiday>> for Holidays {
    type Error = &'static str;

    fn try_from(mut holidays: Vec<Holiday>) -> Result<Self, Self::Error> {
        holidays.sort();
        if holidays.len() > HOLIDAYS_MAX {
            Err("expected at most 500 holidays: leave out those that have passed")
        } else if holidays.windows(2).any(|pair| pair[0].date == pair[1].date) {
            Err("expected each date once among the holidays")
        } else {
            Ok(Self(holidays))
        }
    }
}

/// A time zone by its IANA name, like `Europe/London`.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    name: String,
    zone: TimeZone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected the IANA name of a time zone, like `Europe/London` or `America/New_York`")]
pub struct InvalidZone;

impl Zone {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn time_zone(&self) -> &TimeZone {
        &self.zone
    }
}

impl FromStr for Zone {
    type Err = InvalidZone;

    fn from_str(text: &str) -> Result<Self, InvalidZone> {
        let zone = TimeZone::get(text).map_err(|_| InvalidZone)?;
        if zone.is_unknown() {
            return Err(InvalidZone);
        }
        // As the database of time zones spells it.
        let name = zone.iana_name().ok_or(InvalidZone)?.to_owned();
        Ok(Self { name, zone })
    }
}

impl Serialize for Zone {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.name)
    }
}

impl<'de> Deserialize<'de> for Zone {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn week(value: serde_json::Value) -> Result<Week, String> {
        serde_json::from_value(value).map_err(|error| error.to_string())
    }

    #[test]
    fn hours_survive_their_text_form() {
        for text in [
            "09:00-17:30",
            "00:00-24:00",
            "22:00-06:00",
            "18:00-24:00",
            "12:00-11:59",
            "00:00-00:01",
        ] {
            assert_eq!(text.parse::<Hours>().unwrap().to_string(), text);
        }
        assert_eq!("18:00-00:00".parse::<Hours>().unwrap().to_string(), "18:00-24:00");
        for wrong in [
            "",
            "09:00",
            "9:00-17:00",
            "09:00-09:00",
            "24:00-25:00",
            "09:60-10:00",
            "24:00-06:00",
            "00:00-00:00",
            "09:00-17:00-18:00",
            "09:00–17:00",
            "+9:00-10:00",
            "09:00-24:01",
        ] {
            assert_eq!(wrong.parse::<Hours>(), Err(InvalidHours), "{wrong}");
        }
    }

    #[test]
    fn hours_that_overlap_are_refused_also_over_midnight_and_over_the_weekend() {
        let whole = week(json!({ "monday": ["13:00-17:00", "09:00-13:00"] })).unwrap();
        assert_eq!(
            serde_json::to_string(&whole).unwrap(),
            r#"{"monday":["09:00-13:00","13:00-17:00"]}"#,
            "in order, and only days that have some"
        );
        let told = |value| week(value).unwrap_err();
        assert!(told(json!({ "monday": ["09:00-13:00", "12:59-17:00"] })).contains("those of monday"));
        assert!(
            told(json!({ "monday": ["22:00-06:00"], "tuesday": ["05:00-09:00"] }))
                .contains("those of tuesday")
        );
        assert!(
            told(json!({ "sunday": ["22:00-06:00"], "monday": ["05:59-09:00"] })).contains("those of monday")
        );
        assert!(week(json!({ "sunday": ["22:00-06:00"], "monday": ["06:00-09:00"] })).is_ok());
        assert!(told(json!({ "mondays": [] })).contains("unknown field"));
        assert!(week(json!({})).unwrap().is_empty());
    }

    #[test]
    fn holidays_are_sorted_and_each_date_comes_once() {
        let read = |value| serde_json::from_value::<Holidays>(value).map_err(|error| error.to_string());
        let two = json!([
            { "date": "2026-12-25", "name": "Christmas Day" },
            { "date": "2026-12-24", "hours": ["09:00-12:00"] },
        ]);
        let sorted = serde_json::to_string(&read(two).unwrap()).unwrap();
        assert_eq!(
            sorted,
            r#"[{"date":"2026-12-24","hours":["09:00-12:00"]},{"date":"2026-12-25","name":"Christmas Day"}]"#
        );
        let twice = json!([{ "date": "2026-12-25" }, { "date": "2026-12-25", "name": "again" }]);
        assert!(read(twice).unwrap_err().contains("each date once"));
        for wrong in [
            "2026-12-32",
            "25.12.2026",
            "2026-12-25T00:00",
            "20261225",
            "0001-01-01",
        ] {
            let told = read(json!([{ "date": wrong }])).unwrap_err();
            assert!(told.contains("expected a date like"), "{wrong}: {told}");
        }
    }

    #[test]
    fn a_zone_is_named_as_the_database_spells_it() {
        assert_eq!("europe/london".parse::<Zone>().unwrap().name(), "Europe/London");
        assert_eq!("UTC".parse::<Zone>().unwrap().name(), "UTC");
        for wrong in [
            "",
            "GMT+25",
            "Europe/Atlantis",
            "+02:00",
            "Etc/Unknown",
            "../etc/passwd",
        ] {
            assert!(wrong.parse::<Zone>().is_err(), "{wrong}");
        }
    }
}
