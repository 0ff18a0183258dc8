use jiff::tz::AmbiguousOffset;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

fn calendar(zone: &str, week: Value, holidays: Value) -> Calendar {
    Calendar::new(
        &zone.parse().unwrap(),
        &serde_json::from_value(week).unwrap(),
        &serde_json::from_value(holidays).unwrap(),
    )
}

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The open stretches of some days, as text.
fn open(calendar: &Calendar, from: &str, to: &str) -> Vec<String> {
    let stretches = calendar.open_between(at(from), at(to));
    stretches
        .into_iter()
        .map(|open| format!("{} to {}", open.from, open.to))
        .collect()
}

/// Zone, day and hours; the days looked at; what is open in them.
const HARD: &[(&str, &str, &str, &str, &[&str])] = &[
    // Clocks go forward: 01:00 is followed by 02:00.
    (
        "Europe/London",
        r#"{"sunday": ["01:30-03:00"]}"#,
        "2026-03-28T12:00:00Z",
        "2026-03-30T00:00:00Z",
        &["2026-03-29T01:00:00Z to 2026-03-29T02:00:00Z"],
    ),
    (
        "Europe/London",
        r#"{"sunday": ["00:30-01:30"]}"#,
        "2026-03-28T12:00:00Z",
        "2026-03-30T00:00:00Z",
        &["2026-03-29T00:30:00Z to 2026-03-29T01:00:00Z"],
    ),
    // Hours that lie in the gap whole are not.
    (
        "Europe/London",
        r#"{"sunday": ["01:10-01:50"]}"#,
        "2026-03-28T12:00:00Z",
        "2026-03-30T00:00:00Z",
        &[],
    ),
    // A night shift is an hour shorter in spring, and an hour longer in autumn.
    (
        "Europe/London",
        r#"{"saturday": ["22:00-06:00"]}"#,
        "2026-03-28T12:00:00Z",
        "2026-03-30T00:00:00Z",
        &["2026-03-28T22:00:00Z to 2026-03-29T05:00:00Z"],
    ),
    (
        "Europe/London",
        r#"{"saturday": ["22:00-06:00"]}"#,
        "2026-10-24T12:00:00Z",
        "2026-10-26T00:00:00Z",
        &["2026-10-24T21:00:00Z to 2026-10-25T06:00:00Z"],
    ),
    // Clocks go back: what comes twice is meant the first time.
    (
        "Europe/London",
        r#"{"sunday": ["01:15-01:45"]}"#,
        "2026-10-24T12:00:00Z",
        "2026-10-26T00:00:00Z",
        &["2026-10-25T00:15:00Z to 2026-10-25T00:45:00Z"],
    ),
    (
        "Europe/London",
        r#"{"sunday": ["01:30-03:00"]}"#,
        "2026-10-24T12:00:00Z",
        "2026-10-26T00:00:00Z",
        &["2026-10-25T00:30:00Z to 2026-10-25T03:00:00Z"],
    ),
    (
        "America/New_York",
        r#"{"sunday": ["00:00-24:00"]}"#,
        "2026-10-31T12:00:00Z",
        "2026-11-03T00:00:00Z",
        &["2026-11-01T04:00:00Z to 2026-11-02T05:00:00Z"],
    ),
    (
        "America/New_York",
        r#"{"sunday": ["02:15-04:00", "04:00-05:00"]}"#,
        "2026-03-07T12:00:00Z",
        "2026-03-09T00:00:00Z",
        &["2026-03-08T07:00:00Z to 2026-03-08T09:00:00Z"],
    ),
    // Lord Howe moves its clocks by half an hour.
    (
        "Australia/Lord_Howe",
        r#"{"sunday": ["02:15-03:00"]}"#,
        "2026-10-03T00:00:00Z",
        "2026-10-05T00:00:00Z",
        &["2026-10-03T15:30:00Z to 2026-10-03T16:00:00Z"],
    ),
    (
        "Australia/Lord_Howe",
        r#"{"sunday": ["01:45-02:15"]}"#,
        "2026-04-04T00:00:00Z",
        "2026-04-06T00:00:00Z",
        &["2026-04-04T14:45:00Z to 2026-04-04T15:45:00Z"],
    ),
    // Apia had no Friday, 30 December 2011.
    (
        "Pacific/Apia",
        r#"{"thursday": ["22:00-06:00"], "friday": ["09:00-17:00"], "saturday": ["00:00-01:00"]}"#,
        "2011-12-29T12:00:00Z",
        "2012-01-01T00:00:00Z",
        &["2011-12-30T08:00:00Z to 2011-12-30T11:00:00Z"],
    ),
    (
        "Pacific/Apia",
        r#"{"friday": ["00:00-24:00"]}"#,
        "2011-12-28T00:00:00Z",
        "2012-01-06T12:00:00Z",
        &["2012-01-05T10:00:00Z to 2012-01-06T10:00:00Z"],
    ),
];

#[test]
fn hours_are_wall_clock_time_also_where_clocks_change() {
    for (zone, week, from, to, expected) in HARD {
        let calendar = calendar(zone, serde_json::from_str(week).unwrap(), json!([]));
        assert_eq!(open(&calendar, from, to), *expected, "{zone} {week} from {from}");
    }
}

fn office() -> Calendar {
    let day = json!(["09:00-12:30", "13:30-17:00"]);
    calendar(
        "Europe/London",
        json!({ "monday": day, "tuesday": day, "wednesday": day, "thursday": day, "friday": day }),
        json!([{ "date": "2026-12-25" }, { "date": "2026-12-24", "hours": ["09:00-12:00"] }]),
    )
}

#[test]
fn time_counts_only_while_it_is_open() {
    let office = office();
    // From, minutes, until: Friday evening, lunch, closing time itself, the holidays, the change of clocks.
    for (from, minutes, until) in [
        ("2026-03-02T09:00:00Z", 30, "2026-03-02T09:30:00Z"),
        ("2026-03-06T16:50:00Z", 15, "2026-03-09T09:05:00Z"),
        ("2026-03-06T16:50:00Z", 10, "2026-03-06T17:00:00Z"),
        ("2026-03-07T12:00:00Z", 1, "2026-03-09T09:01:00Z"),
        ("2026-03-07T12:00:00Z", 0, "2026-03-07T12:00:00Z"),
        ("2026-03-02T12:00:00Z", 60, "2026-03-02T14:00:00Z"),
        ("2026-12-24T11:59:00Z", 2, "2026-12-28T09:01:00Z"),
        ("2026-03-27T16:59:00Z", 2, "2026-03-30T08:01:00Z"),
        ("2026-03-02T08:00:30Z", 7 * 60 + 1, "2026-03-03T09:01:00Z"),
    ] {
        let found = office.add_business_minutes(at(from), minutes);
        assert_eq!(found, Some(at(until)), "{minutes} minutes from {from}");
        assert_eq!(
            office.business_minutes_between(at(from), at(until)),
            i64::from(minutes),
            "from {from}"
        );
        assert_eq!(
            office.business_minutes_between(at(until), at(from)),
            -i64::from(minutes)
        );
    }
}

#[test]
fn opening_is_open_and_closing_is_not() {
    let office = office();
    let next = |text: &str| office.next_open(at(text)).unwrap().to_string();
    assert!(office.is_open(at("2026-03-02T09:00:00Z")));
    assert!(office.is_open(at("2026-03-02T12:29:59.999999Z")));
    assert!(!office.is_open(at("2026-03-02T12:30:00Z")));
    assert!(!office.is_open(at("2026-03-02T08:59:59.999999Z")));
    assert_eq!(next("2026-03-02T09:00:00Z"), "2026-03-02T09:00:00Z");
    assert_eq!(next("2026-03-02T12:30:00Z"), "2026-03-02T13:30:00Z");
    assert_eq!(next("2026-12-24T12:00:00Z"), "2026-12-28T09:00:00Z");
    let closes = |text: &str| office.closes_at(at(text)).map(|at| at.to_string());
    assert_eq!(
        closes("2026-03-02T09:00:00Z").as_deref(),
        Some("2026-03-02T12:30:00Z")
    );
    assert_eq!(closes("2026-03-02T12:30:00Z"), None);
}

#[test]
fn without_hours_it_is_always_open_but_for_holidays() {
    let always = calendar("Australia/Lord_Howe", json!({}), json!([]));
    let day = at("2026-04-04T12:00:00Z");
    assert!(always.is_open(day));
    assert_eq!(always.closes_at(day), None);
    assert_eq!(
        always.business_minutes_between(day, at("2026-04-05T12:00:00Z")),
        24 * 60
    );
    assert_eq!(
        always.add_business_minutes(day, 525_600),
        Some(day + SignedDuration::from_mins(525_600))
    );
    let but = calendar(
        "Europe/London",
        json!({}),
        json!([{ "date": "2026-12-25" }, { "date": "2026-12-26", "hours": ["10:00-11:00"] }]),
    );
    assert_eq!(
        open(&but, "2026-12-24T00:00:00Z", "2026-12-28T00:00:00Z"),
        [
            "2026-12-24T00:00:00Z to 2026-12-25T00:00:00Z",
            "2026-12-26T10:00:00Z to 2026-12-26T11:00:00Z",
            "2026-12-27T00:00:00Z to 2026-12-28T00:00:00Z",
        ]
    );
}

#[test]
fn a_night_shift_runs_into_a_holiday_and_is_counted_once() {
    let nights = calendar(
        "Europe/London",
        json!({ "thursday": ["22:00-06:00"], "friday": ["22:00-06:00"] }),
        json!([{ "date": "2026-12-25", "hours": ["05:00-08:00"] }]),
    );
    assert_eq!(
        open(&nights, "2026-12-24T00:00:00Z", "2026-12-27T00:00:00Z"),
        ["2026-12-24T22:00:00Z to 2026-12-25T08:00:00Z"]
    );
    let both = nights.business_minutes_between(at("2026-12-24T00:00:00Z"), at("2026-12-27T00:00:00Z"));
    assert_eq!(both, 10 * 60);
}

#[test]
fn the_ends_of_time_are_no_panic() {
    let office = office();
    assert_eq!(office.add_business_minutes(Timestamp::MAX, 1), None);
    assert_eq!(office.next_open(Timestamp::MAX), None);
    assert!(office.next_open(Timestamp::MIN).is_some());
    assert_eq!(office.closes_at(Timestamp::MAX), None);
}

const ZONES: [&str; 6] = [
    "Europe/London",
    "America/New_York",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "America/Sao_Paulo",
    "UTC",
];
/// Instants about which clocks change in one of them.
const CHANGES: [&str; 9] = [
    "2026-03-29T01:00:00Z",
    "2026-10-25T01:00:00Z",
    "2026-03-08T07:00:00Z",
    "2026-11-01T06:00:00Z",
    "2026-04-04T15:00:00Z",
    "2026-10-03T15:30:00Z",
    "2011-12-30T10:00:00Z",
    "2018-02-18T02:00:00Z",
    "2018-11-04T03:00:00Z",
];

prop_compose! {
    /// A moment within nine days of one of the changes.
    fn moment()(change in 0..CHANGES.len(), minutes in -13_000_i64..13_000, seconds in 0_i64..60) -> Timestamp {
        at(CHANGES[change]) + SignedDuration::from_secs(minutes * 60 + seconds)
    }
}

/// Hours as text: a quarter of an hour here and there, so that edges meet.
fn hours() -> impl Strategy<Value = String> {
    (0..96_u32, 1..96_u32).prop_map(|(from, length)| {
        let to = (from + length) % 96;
        let text = |quarter: u32| format!("{:02}:{:02}", quarter / 4, quarter % 4 * 15);
        format!("{}-{}", text(from), text(to))
    })
}

fn week() -> impl Strategy<Value = Week> {
    let day = || prop::collection::vec(hours(), 0..=2);
    prop::array::uniform7(day()).prop_map(|texts| {
        let mut days: [Vec<Hours>; 7] =
            texts.map(|day| day.iter().map(|text| text.parse().unwrap()).collect());
        // Where they overlap, days are emptied until they do not.
        for day in 0..7 {
            match Week::new(days.clone()) {
                Ok(week) => return week,
                Err(_) => days[day].clear(),
            }
        }
        Week::default()
    })
}

fn any_calendar() -> impl Strategy<Value = Calendar> {
    let holiday = (0..CHANGES.len(), -9_i64..9, prop::option::of(hours()));
    (0..ZONES.len(), week(), prop::collection::vec(holiday, 0..4)).prop_map(|(zone, week, holidays)| {
        let zone: Zone = ZONES[zone].parse().unwrap();
        let holidays: BTreeMap<Date, Value> = holidays
            .into_iter()
            .map(|(change, days, hours)| {
                let near = at(CHANGES[change]) + SignedDuration::from_hours(24 * days);
                let date = zone.time_zone().to_datetime(near).date();
                (
                    date,
                    json!({ "date": date, "hours": hours.into_iter().collect::<Vec<_>>() }),
                )
            })
            .collect();
        let holidays: Vec<Value> = holidays.into_values().collect();
        Calendar::new(&zone, &week, &serde_json::from_value(json!(holidays)).unwrap())
    })
}

/// Whether a clock on the wall shows a time within the hours: what is meant wherever clocks do not change.
fn shows_open(calendar: &Calendar, moment: Timestamp) -> bool {
    let shown = calendar.zone.to_datetime(moment);
    let minute = u16::try_from(i32::from(shown.hour()) * 60 + i32::from(shown.minute())).unwrap();
    let within = |date: Date, minute: u16| {
        let hours = calendar.hours_on(date).iter();
        hours
            .filter(|hours| (hours.from_minute()..hours.to_minute()).contains(&minute))
            .count()
            > 0
    };
    within(shown.date(), minute) || within(shown.date().yesterday().unwrap(), minute + 24 * 60)
}

/// Whether the clocks of a zone stood still, in their way, for two days before and one after.
fn is_calm(zone: &TimeZone, moment: Timestamp) -> bool {
    let day = SignedDuration::from_hours(24);
    let calm = |at: DateTime| {
        matches!(
            zone.to_ambiguous_timestamp(at).offset(),
            AmbiguousOffset::Unambiguous { .. }
        )
    };
    let changes = zone.following(moment - day - day).next();
    calm(zone.to_datetime(moment)) && changes.is_none_or(|change| change.timestamp() > moment + day)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn where_clocks_do_not_change_it_is_what_the_wall_shows(calendar in any_calendar(), moment in moment()) {
        if is_calm(&calendar.zone, moment) {
            prop_assert_eq!(calendar.is_open(moment), shows_open(&calendar, moment));
        }
    }

    #[test]
    fn time_between_is_every_open_minute(calendar in any_calendar(), change in 0..CHANGES.len(), start in -2_000_i64..500) {
        let from = at(CHANGES[change]) + SignedDuration::from_mins(start);
        let minute = SignedDuration::from_mins(1);
        let minutes = 1_600;
        let counted = (0..minutes).filter(|past| calendar.is_open(from + minute * *past)).count();
        let to = from + minute * minutes;
        prop_assert_eq!(calendar.business_minutes_between(from, to), i64::try_from(counted).unwrap());
    }

    #[test]
    fn time_between_adds_up(calendar in any_calendar(), mut moments in prop::array::uniform3(moment())) {
        let [a, b, c] = moments;
        let sum = calendar.business_time_between(a, b) + calendar.business_time_between(b, c);
        prop_assert_eq!(sum, calendar.business_time_between(a, c));
        moments.sort_unstable();
        let [a, b, c] = moments;
        let (inner, outer) = (calendar.business_time_between(a, b), calendar.business_time_between(a, c));
        prop_assert!(SignedDuration::ZERO <= inner && inner <= outer && outer <= a.duration_until(c));
    }

    #[test]
    fn adding_is_the_inverse_of_between(calendar in any_calendar(), from in moment(), minutes in 0_u32..10_000) {
        let until = calendar.add_business_minutes(from, minutes).unwrap();
        prop_assert!(until >= from);
        prop_assert_eq!(calendar.business_time_between(from, until), SignedDuration::from_mins(i64::from(minutes)));
        if minutes > 0 {
            // The first such instant: one tick before, the time has not passed.
            let before = until - SignedDuration::from_nanos(1);
            let passed = calendar.business_time_between(from, before);
            prop_assert!(passed < SignedDuration::from_mins(i64::from(minutes)));
        }
    }

    #[test]
    fn adding_is_monotonic(
        calendar in any_calendar(), moments in prop::array::uniform2(moment()), minutes in prop::array::uniform2(0_u32..10_000),
    ) {
        let (early, late) = (moments[0].min(moments[1]), moments[0].max(moments[1]));
        let (less, more) = (minutes[0].min(minutes[1]), minutes[0].max(minutes[1]));
        let added = |from, minutes| calendar.add_business_minutes(from, minutes).unwrap();
        prop_assert!(added(early, less) <= added(late, less));
        prop_assert!(added(early, less) <= added(early, more));
        // In two steps it is the same as in one.
        prop_assert_eq!(added(added(early, less), more), added(early, less + more));
    }

    #[test]
    fn the_next_opening_is_the_first(calendar in any_calendar(), moment in moment()) {
        let next = calendar.next_open(moment).unwrap();
        prop_assert!(calendar.is_open(next));
        prop_assert_eq!(calendar.business_time_between(moment, next), SignedDuration::ZERO);
        if let Some(closes) = calendar.closes_at(next) {
            prop_assert!(!calendar.is_open(closes));
            prop_assert_eq!(calendar.business_time_between(next, closes), next.duration_until(closes));
        }
    }

    #[test]
    fn stretches_are_apart_and_hold_all_open_time(calendar in any_calendar(), moments in prop::array::uniform2(moment())) {
        let (from, to) = (moments[0].min(moments[1]), moments[0].max(moments[1]));
        let stretches = calendar.open_between(from, to);
        prop_assert!(stretches.windows(2).all(|pair| pair[0].to < pair[1].from));
        prop_assert!(stretches.iter().all(|open| from <= open.from && open.from < open.to && open.to <= to));
        let sum = stretches.iter().fold(SignedDuration::ZERO, |sum, open| sum + open.duration());
        prop_assert_eq!(sum, calendar.business_time_between(from, to));
    }
}
