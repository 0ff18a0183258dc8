//! `as_of` and `known_at`: which past moment a reading is about, also over the pages of a list.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::mirror::as_of::Moment;
use crate::web::field::{Errors, Field, Instant};
use crate::web::page::{At, Key};

/// A place in a list that may be read as it was: the moment goes with the cursor, so that all pages are of one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum Dated<K> {
    Then { after: K, as_of: At, known_at: At },
    Now(K),
}

impl<K: Key> Key for Dated<K> {
    const LIST: &'static str = K::LIST;
}

impl<K> Dated<K> {
    pub(super) fn new(key: K, moment: Option<Moment>) -> Self {
        match moment {
            None => Self::Now(key),
            Some(moment) => Self::Then {
                after: key,
                as_of: At(moment.as_of),
                known_at: At(moment.known_at),
            },
        }
    }

    pub(super) fn key(&self) -> &K {
        match self {
            Self::Then { after, .. } | Self::Now(after) => after,
        }
    }

    /// It is of what was so at one time, and not only of what was known at one.
    pub(super) fn has_as_of(&self) -> bool {
        self.moment().is_some_and(|moment| moment.as_of != ANY_TIME)
    }

    fn moment(&self) -> Option<Moment> {
        match self {
            Self::Now(_) => None,
            Self::Then { as_of, known_at, .. } => Some(Moment {
                as_of: as_of.0,
                known_at: known_at.0,
            }),
        }
    }
}

/// The moment that is asked for; `None` where the present is, which is read without it.
///
/// A later page is of the moment of the first one: its cursor says which. Parameters that say something else are wrong.
pub(super) fn moment<K>(
    errors: &mut Errors,
    as_of: Field<Instant>,
    known_at: Field<Instant>,
    cursor: Option<&Dated<K>>,
    now: Timestamp,
) -> Option<Moment> {
    let as_of = past(errors, "as_of", as_of, now);
    let known_at = past(errors, "known_at", known_at, now);
    let Some(cursor) = cursor else {
        return (as_of.is_some() || known_at.is_some()).then(|| Moment {
            as_of: as_of.unwrap_or(ANY_TIME),
            known_at: known_at.unwrap_or(now),
        });
    };
    let of_cursor = cursor.moment();
    let agrees = |asked: Option<Timestamp>, began: Option<Timestamp>| asked.is_none() || asked == began;
    if !agrees(as_of, of_cursor.map(|moment| moment.as_of))
        || !agrees(known_at, of_cursor.map(|moment| moment.known_at))
    {
        errors.add(
            "cursor",
            "another_moment",
            "expected the `as_of` and `known_at` of the page that gave this cursor, or none: the cursor holds them",
        );
    }
    of_cursor
}

/// As [`moment`], for what comes in one piece.
pub(super) fn moment_of_one(
    errors: &mut Errors,
    as_of: Field<Instant>,
    known_at: Field<Instant>,
    now: Timestamp,
) -> Option<Moment> {
    moment::<()>(errors, as_of, known_at, None, now)
}

/// The end of what [`Instant`] takes: all that is so by now, whatever the clocks of both sides say.
const ANY_TIME: Timestamp = Timestamp::constant(253_370_764_799, 0);

fn past(errors: &mut Errors, name: &str, field: Field<Instant>, now: Timestamp) -> Option<Timestamp> {
    let at = errors.optional(name, field)?.0;
    if at > now {
        errors.add(
            name,
            "in_the_future",
            "expected a time that has passed: what will be then is not known yet",
        );
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::web::page::Cursor;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Place(Option<i64>, String);

    impl Key for Place {
        const LIST: &'static str = "places";
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn field(text: Option<&str>) -> Field<Instant> {
        text.map_or(Field::Absent, |text| Field::Given(Instant(at(text))))
    }

    /// The moment, and the parameter that is wrong.
    fn read(
        as_of: Option<&str>,
        known_at: Option<&str>,
        cursor: Option<&Dated<Place>>,
    ) -> (Option<Moment>, bool) {
        let mut errors = Errors::of_query();
        let now = at("2026-03-01T15:00:00Z");
        let moment = moment(&mut errors, field(as_of), field(known_at), cursor, now);
        (moment, errors.is_empty())
    }

    const NOON: &str = "2026-03-01T12:00:00Z";
    const LATER: &str = "2026-03-01T12:05:00Z";

    #[test]
    fn without_parameters_it_is_the_present() {
        assert_eq!(read(None, None, None), (None, true));
    }

    #[test]
    fn each_alone_leaves_the_other_open() {
        let (moment, _) = read(Some(NOON), None, None);
        assert_eq!(moment.unwrap().known_at, at("2026-03-01T15:00:00Z"));
        let (moment, _) = read(None, Some(NOON), None);
        assert_eq!(moment.unwrap().as_of, ANY_TIME);
        assert_eq!(Instant::from_timestamp(ANY_TIME), Some(Instant(ANY_TIME)));
    }

    #[test]
    fn the_future_is_refused() {
        assert!(read(Some("2026-03-01T15:00:00Z"), None, None).1);
        assert!(!read(Some("2026-03-01T15:00:00.000001Z"), None, None).1);
        assert!(!read(None, Some("2027-03-01T15:00:00Z"), None).1);
    }

    #[test]
    fn a_cursor_keeps_its_moment_and_no_other_goes_with_it() {
        let moment = Moment {
            as_of: at(NOON),
            known_at: at(LATER),
        };
        let then = Dated::new(Place(None, "a".to_owned()), Some(moment));
        assert_eq!(read(None, None, Some(&then)), (Some(moment), true));
        assert_eq!(read(Some(NOON), None, Some(&then)), (Some(moment), true));
        assert_eq!(read(Some(NOON), Some(LATER), Some(&then)), (Some(moment), true));
        assert!(!read(Some(LATER), None, Some(&then)).1);
        let now = Dated::Now(Place(Some(1), "a".to_owned()));
        assert_eq!(read(None, None, Some(&now)), (None, true));
        assert!(
            !read(Some(NOON), None, Some(&now)).1,
            "the first page was of the present"
        );
        for place in [then, now] {
            let text = format!("\"{}\"", Cursor(place.clone()));
            let read: Cursor<Dated<Place>> = serde_json::from_str(&text).unwrap();
            assert_eq!(read.0, place, "a cursor keeps all of it");
        }
    }
}
