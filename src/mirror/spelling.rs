//! Attributes are JSON, and sources spell one JSON in several ways: webhooks and REST give the text that was stored at
//! Twilio, Event Streams an object. Pure.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use crate::mirror::version::Version;

/// Of two spellings of one JSON, stated of one instant, the one to keep; `None` where there is nothing to decide.
///
/// The text that an object gives when it is written out is the less telling one. Which one is kept does not depend on
/// the order in which they come.
pub(super) fn agreed(
    stored: (Option<&str>, Option<Version>),
    stated: (Option<&str>, Version),
) -> Option<String> {
    let ((Some(one), Some(stored)), (Some(other), stated)) = (stored, stated) else {
        return None;
    };
    if one == other || stored.cmp_known(stated) != Ordering::Equal {
        return None;
    }
    let (one_value, other_value) = (parsed(one)?, parsed(other)?);
    if one_value != other_value {
        return None;
    }
    let (one_plain, other_plain) = (one_value.to_string(), other_value.to_string());
    Some(if (one != one_plain, one) > (other != other_plain, other) {
        one.to_owned()
    } else {
        other.to_owned()
    })
}

fn parsed(text: &str) -> Option<Value> {
    serde_json::from_str(text).ok()
}

/// A change whose attributes are spelled otherwise.
pub(super) fn respelled<C: Clone>(
    change: &C,
    text: Option<String>,
    set: impl FnOnce(&mut C, String),
) -> Cow<'_, C> {
    let Some(text) = text else {
        return Cow::Borrowed(change);
    };
    let mut change = change.clone();
    set(&mut change, text);
    Cow::Owned(change)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Version {
        Version::exact(text.parse().unwrap())
    }

    fn agreed_at_once(one: &str, other: &str) -> Option<String> {
        let now = at("2026-01-02T03:04:05.678Z");
        let there = agreed((Some(one), Some(now)), (Some(other), now));
        let back = agreed((Some(other), Some(now)), (Some(one), now));
        assert_eq!(there, back);
        there
    }

    #[test]
    fn the_spelling_that_was_stored_at_twilio_is_kept_in_either_order() {
        let spelled = "{ \"a\": 1,\n \"b\": [2] }";
        assert_eq!(
            agreed_at_once(spelled, r#"{"a":1,"b":[2]}"#).as_deref(),
            Some(spelled)
        );
    }

    #[test]
    fn of_two_orders_of_the_keys_the_same_is_kept_whichever_comes_first() {
        let (one, other) = (r#"{"a":1,"b":2}"#, r#"{"b":2,"a":1}"#);
        assert_eq!(agreed_at_once(one, other).as_deref(), Some(other));
    }

    #[test]
    fn other_content_and_text_that_is_no_json_is_left_alone() {
        assert_eq!(agreed_at_once(r#"{"a":1}"#, r#"{"a":2}"#), None);
        assert_eq!(agreed_at_once("a", "b"), None);
        assert_eq!(agreed_at_once("{}", "{}"), None);
    }

    #[test]
    fn statements_of_different_times_are_left_alone() {
        let (early, late) = (at("2026-01-02T03:04:05.678Z"), at("2026-01-02T03:04:05.679Z"));
        assert_eq!(agreed((Some("{}"), Some(early)), (Some("{ }"), late)), None);
    }
}
