//! Members of a request, read one by one, so that all that is wrong is told at once. Pure.
//!
//! A request type has [`Field`]s, which take anything; [`Errors`] then asks each for its value and collects what is
//! wrong, with its place. What an error says never repeats the value, which may be somebody's number or words.

use std::fmt;

use jiff::{SignedDuration, Timestamp};
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use crate::web::problem::{FieldError, Problem};

/// A member that may be absent or wrong; `null` counts as absent.
#[derive(Clone, Default)]
pub enum Field<T> {
    #[default]
    Absent,
    Wrong {
        /// Where below this member, as a JSON pointer; empty for the member itself.
        below: String,
        message: String,
    },
    Given(T),
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if value.is_null() {
            return Ok(Self::Absent);
        }
        Ok(match serde_path_to_error::deserialize(value) {
            Ok(given) => Self::Given(given),
            Err(error) => Self::Wrong {
                below: pointer(error.path()),
                message: without_values(&error.inner().to_string()),
            },
        })
    }
}

impl<T> fmt::Debug for Field<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absent => "Absent",
            Self::Wrong { .. } => "Wrong",
            Self::Given(_) => "Given",
        })
    }
}

/// Collects what is wrong with a request.
#[derive(Debug)]
pub struct Errors {
    /// Before each name: `/` in a body, where names are JSON pointers; nothing in a query.
    prefix: &'static str,
    found: Vec<FieldError>,
}

impl Errors {
    pub fn of_body() -> Self {
        Self {
            prefix: "/",
            found: Vec::new(),
        }
    }

    pub fn of_query() -> Self {
        Self {
            prefix: "",
            found: Vec::new(),
        }
    }

    /// What `read` makes of a body, or all that is wrong with it.
    pub fn read_body<T>(read: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, Problem> {
        let mut errors = Self::of_body();
        let value = read(&mut errors);
        errors.finish(value)
    }

    /// The value of a member that has to be there.
    pub fn required<T>(&mut self, name: &str, field: Field<T>) -> Option<T> {
        if matches!(field, Field::Absent) {
            self.add(name, "missing", "expected a value");
        }
        self.optional(name, field)
    }

    /// The value of a member that may be left out.
    pub fn optional<T>(&mut self, name: &str, field: Field<T>) -> Option<T> {
        match field {
            Field::Given(value) => Some(value),
            Field::Absent => None,
            Field::Wrong { below, message } => {
                self.add(&format!("{name}{below}"), "malformed", message);
                None
            }
        }
    }

    pub fn add(&mut self, name: &str, code: &'static str, message: impl Into<String>) {
        let field = format!("{}{name}", self.prefix);
        self.found.push(FieldError::new(field, code, message));
    }

    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// The value if nothing is wrong; it is `None` only where something is.
    pub fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(Problem::Invalid { errors: self.found }),
        }
    }
}

/// Text of at least `MIN` and at most `MAX` characters, without NUL, which PostgreSQL cannot keep. Where `MIN` is not 0
/// it must not be blank.
#[derive(Clone, PartialEq, Eq)]
pub struct Text<const MIN: usize, const MAX: usize>(String);

impl<const MIN: usize, const MAX: usize> Text<MIN, MAX> {
    pub fn into_string(self) -> String {
        self.0
    }
}

impl<const MIN: usize, const MAX: usize> fmt::Debug for Text<MIN, MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Text(…)")
    }
}

impl<'de, const MIN: usize, const MAX: usize> Deserialize<'de> for Text<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let length = text.chars().count();
        if length > MAX {
            Err(D::Error::custom(format!("expected at most {MAX} characters")))
        } else if length < MIN || (MIN > 0 && text.trim().is_empty()) {
            Err(D::Error::custom("expected text that is not blank"))
        } else if text.contains('\0') {
            Err(D::Error::custom("expected no NUL characters"))
        } else {
            Ok(Self(text))
        }
    }
}

/// A JSON object of at most `MAX` bytes, without NUL in its names and texts.
#[derive(Clone)]
pub struct Object<const MAX: usize>(Value);

impl<const MAX: usize> Object<MAX> {
    pub fn into_value(self) -> Value {
        self.0
    }
}

impl<const MAX: usize> fmt::Debug for Object<MAX> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Object(…)")
    }
}

impl<'de, const MAX: usize> Deserialize<'de> for Object<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        if !value.is_object() {
            Err(D::Error::custom("expected a JSON object"))
        } else if has_nul(&value) {
            Err(D::Error::custom("expected no NUL characters"))
        } else if value.to_string().len() > MAX {
            Err(D::Error::custom(format!("expected at most {MAX} bytes of JSON")))
        } else {
            Ok(Self(value))
        }
    }
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(members) => members
            .iter()
            .any(|(name, member)| name.contains('\0') || has_nul(member)),
    }
}

/// An instant that PostgreSQL can keep and that somebody can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instant(pub Timestamp);

impl Instant {
    /// Only of the years 1970 to 9998: far outside of it, PostgreSQL refuses what is a timestamp elsewhere.
    pub fn from_timestamp(at: Timestamp) -> Option<Self> {
        const LAST: i64 = 253_370_764_799;
        (0..=LAST).contains(&at.as_second()).then_some(Self(at))
    }
}

impl<'de> Deserialize<'de> for Instant {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .ok()
            .and_then(Self::from_timestamp)
            .ok_or_else(|| {
                D::Error::custom("expected a time like 2026-03-01T14:03:00Z, of the years 1970 to 9998")
            })
    }
}

/// A duration of whole seconds from one second to `MAX` seconds, written like `90s`, `5m` or `PT5M`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span<const MAX: i64>(pub SignedDuration);

impl<'de, const MAX: i64> Deserialize<'de> for Span<MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse::<SignedDuration>()
            .ok()
            .filter(|span| span.subsec_nanos() == 0 && (1..=MAX).contains(&span.as_secs()))
            .map(Self)
            .ok_or_else(|| {
                D::Error::custom(format!(
                    "expected a duration like `90s` or `5m`, of 1 s to {MAX} s"
                ))
            })
    }
}

/// A whole number from `MIN` to `MAX`, written in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<const MIN: u32, const MAX: u32>(pub u32);

impl<'de, const MIN: u32, const MAX: u32> Deserialize<'de> for Number<MIN, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .ok()
            .filter(|number| (MIN..=MAX).contains(number))
            .map(Self)
            .ok_or_else(|| D::Error::custom(format!("expected a whole number from {MIN} to {MAX}")))
    }
}

/// `true` or `false`, written in a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Flag(pub bool);

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map(Self)
            .map_err(|_| D::Error::custom("expected `true` or `false`"))
    }
}

/// A path through a document as a JSON pointer (RFC 6901); empty for the whole.
pub(crate) fn pointer(path: &Path) -> String {
    path.iter()
        .map(|segment| match segment {
            Segment::Seq { index } => format!("/{index}"),
            Segment::Map { key } => format!("/{}", key.replace('~', "~0").replace('/', "~1")),
            Segment::Enum { variant } => format!("/{variant}"),
            Segment::Unknown => "/?".to_owned(),
        })
        .collect()
}

/// What serde says, without the value that it found and without the place, which is told otherwise.
pub(crate) fn without_values(message: &str) -> String {
    let message = match message.rfind(" at line ") {
        Some(end) => &message[..end],
        None => message,
    };
    let keeps_values_out = ["unknown field", "missing field", "duplicate field", "expected "]
        .iter()
        .any(|start| message.starts_with(start));
    if keeps_values_out {
        return message.chars().take(500).collect();
    }
    // `invalid type: string "…", expected a map`: what was found may hold the same words, what was expected is last.
    match message.rfind("expected ") {
        Some(start) => message[start..].chars().take(500).collect(),
        None => "expected something else".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ids::{ConversationSid, PhoneNumber};

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[serde(default)]
        sid: Field<ConversationSid>,
        #[serde(default)]
        line: Field<PhoneNumber>,
        #[serde(default)]
        lines: Field<Vec<PhoneNumber>>,
        #[serde(default)]
        text: Field<Text<1, 5>>,
    }

    fn errors_of(value: Value) -> Vec<(String, String)> {
        let sample: Sample = serde_json::from_value(value).unwrap();
        let mut errors = Errors::of_body();
        errors.required("sid", sample.sid);
        errors.optional("line", sample.line);
        errors.optional("lines", sample.lines);
        errors.optional("text", sample.text);
        let Err(Problem::Invalid { errors }) = errors.finish(Some(())) else {
            return Vec::new();
        };
        errors
            .into_iter()
            .map(|error| (error.field, error.message))
            .collect()
    }

    #[test]
    fn everything_wrong_is_told_at_once_with_its_place_and_without_its_value() {
        let wrong = json!({ "line": "secret", "lines": ["+15555550101", 7], "text": "\u{0}" });
        insta::assert_debug_snapshot!(errors_of(wrong), @r#"
    [
        (
            "/sid",
            "expected a value",
        ),
        (
            "/line",
            "expected a phone number in E.164 form, like +15555550101",
        ),
        (
            "/lines/1",
            "expected a string",
        ),
        (
            "/text",
            "expected no NUL characters",
        ),
    ]
    "#);
    }

    #[test]
    fn null_is_absent_and_what_is_right_is_not_complained_of() {
        let right = json!({ "sid": "CH00000000000000000000000000000001", "line": null, "text": "five!" });
        assert_eq!(errors_of(right), []);
    }

    #[test]
    fn a_value_that_looks_like_an_expectation_is_not_repeated() {
        let message = r#"invalid type: string "expected my secret", expected a map at line 1 column 9"#;
        assert_eq!(without_values(message), "expected a map");
        assert_eq!(without_values("key must be a string"), "expected something else");
    }

    #[test]
    fn a_text_is_counted_in_characters_and_is_not_blank() {
        let read = |text: &str| serde_json::from_value::<Text<1, 2>>(json!(text)).is_ok();
        assert!(read("éé"));
        for wrong in ["", "  ", "abc", "a\u{0}"] {
            assert!(!read(wrong), "{wrong:?}");
        }
    }

    #[test]
    fn an_object_has_no_nul_however_deep_and_a_backslash_is_none() {
        let read = |value: Value| serde_json::from_value::<Object<40>>(value).is_ok();
        assert!(read(json!({ "a": [1, { "b": "\\u0000" }] })));
        assert!(!read(json!({ "a": [{ "b": "\u{0}" }] })));
        assert!(!read(json!({ "a\u{0}": 1 })));
        assert!(!read(json!([1])));
        assert!(!read(json!({ "a": "x".repeat(40) })));
    }

    #[test]
    fn times_spans_and_numbers_have_bounds() {
        let instant = |text: &str| serde_json::from_value::<Instant>(json!(text)).is_ok();
        assert!(instant("2026-03-01T14:03:00Z"));
        for wrong in [
            "2026-03-01",
            "-009999-01-02T00:00:00Z",
            "1969-12-31T23:59:59Z",
            "9999-06-01T00:00:00Z",
        ] {
            assert!(!instant(wrong), "{wrong}");
        }
        let span = |text: &str| serde_json::from_value::<Span<3600>>(json!(text)).is_ok();
        assert!(span("5m") && span("PT1H") && span("90s"));
        for wrong in ["0s", "-5m", "61m", "500ms", "soon", ""] {
            assert!(!span(wrong), "{wrong}");
        }
        let number = |text: &str| serde_json::from_value::<Number<1, 200>>(json!(text)).is_ok();
        assert!(number("1") && number("200"));
        for wrong in ["0", "201", "-1", "1.5", "", "99999999999999999999"] {
            assert!(!number(wrong), "{wrong}");
        }
    }
}
