//! Text that PostgreSQL takes.
//!
//! A JSON or form text of Twilio's may hold what PostgreSQL refuses: NUL in `text`, `\u0000` and lone surrogates in
//! `jsonb`, numbers or a depth that overflow. Content must not lose an event, so what cannot be stored is replaced and
//! the replacement is reported.

use std::borrow::Cow;

/// A text that can be stored, and whether that took a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Safe<'a> {
    pub text: Cow<'a, str>,
    pub changed: bool,
}

/// Replaces NUL by U+FFFD, for columns of type `text`.
pub fn safe_text(text: &str) -> Safe<'_> {
    if text.contains('\0') {
        Safe {
            text: text.replace('\0', "\u{fffd}").into(),
            changed: true,
        }
    } else {
        Safe {
            text: text.into(),
            changed: false,
        }
    }
}

/// How deep arrays and objects may be nested; `serde_json` stops at 128, PostgreSQL where its stack ends.
const MAX_DEPTH: usize = 100;

/// How many characters a number may have and how large its exponent may be; `numeric` has 131,072 digits.
const MAX_NUMBER: usize = 400;
const MAX_EXPONENT: u32 = 1000;

/// Makes the source of a JSON value storable as `jsonb`: escapes of NUL and of lone surrogates become U+FFFD.
///
/// `None` where `text` is no JSON, or is nested or has numbers beyond what can be stored: it is then text, not JSON.
pub fn safe_json(text: &str) -> Option<Safe<'_>> {
    let repaired = repaired_escapes(text);
    serde_json::from_str::<serde::de::IgnoredAny>(&repaired).ok()?;
    if !fits(&repaired) {
        return None;
    }
    Some(Safe {
        changed: matches!(repaired, Cow::Owned(_)),
        text: repaired,
    })
}

/// A backslash stands in JSON only inside of strings, so escapes can be found without parsing.
fn repaired_escapes(text: &str) -> Cow<'_, str> {
    let mut repaired = String::new();
    let mut copied = 0;
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        let start = at + found;
        let escape = Escape::at(&text[start..]);
        let end = start + escape.length();
        if escape == Escape::Bad {
            repaired.push_str(&text[copied..start]);
            repaired.push_str("\\ufffd");
            copied = end;
        }
        at = end;
    }
    if copied == 0 {
        return text.into();
    }
    repaired.push_str(&text[copied..]);
    repaired.into()
}

#[derive(PartialEq, Eq)]
enum Escape {
    /// `\n`, `\\`, or what is no escape at all.
    Short(usize),
    /// `\u` with a character that can be stored.
    Good,
    /// `\ud83d\udc4d`: two that make one character.
    Pair,
    /// NUL or half a character.
    Bad,
}

impl Escape {
    /// The escape that `text` begins with.
    fn at(text: &str) -> Self {
        match code_unit(text) {
            None => {
                // The character after the backslash may be of several bytes where the text is no JSON.
                let next = text[1..].chars().next().map_or(0, char::len_utf8);
                Self::Short(1 + next)
            }
            Some(0xD800..0xDC00) if matches!(code_unit(&text[6..]), Some(0xDC00..0xE000)) => Self::Pair,
            Some(0 | 0xD800..0xE000) => Self::Bad,
            Some(_) => Self::Good,
        }
    }

    fn length(&self) -> usize {
        match self {
            Self::Short(length) => *length,
            Self::Good | Self::Bad => 6,
            Self::Pair => 12,
        }
    }
}

fn code_unit(text: &str) -> Option<u16> {
    let digits = text.strip_prefix("\\u")?.get(..4)?;
    // `from_str_radix` would take a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    u16::from_str_radix(digits, 16).ok()
}

/// Whether the depth and the numbers of a JSON text, known to be one, can be stored.
fn fits(json: &str) -> bool {
    let bytes = json.as_bytes();
    let mut depth = 0_usize;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => at = end_of_string(bytes, at),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            b'-' | b'0'..=b'9' => {
                let length = number_length(&bytes[at..]);
                if !number_fits(&json[at..at + length]) {
                    return false;
                }
                at += length - 1;
            }
            _ => {}
        }
        if depth > MAX_DEPTH {
            return false;
        }
        at += 1;
    }
    true
}

/// The position of the quote that closes the string opened at `start`.
fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at
}

fn number_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .position(|byte| !matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
        .unwrap_or(bytes.len())
}

fn number_fits(number: &str) -> bool {
    let exponent = number
        .split_once(['e', 'E'])
        .map_or("0", |(_, exponent)| exponent);
    let digits = exponent.trim_start_matches(['+', '-']);
    number.len() <= MAX_NUMBER && digits.parse().is_ok_and(|exponent: u32| exponent <= MAX_EXPONENT)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn repaired(text: &str) -> (String, bool) {
        let safe = safe_json(text).unwrap();
        (safe.text.into_owned(), safe.changed)
    }

    #[test]
    fn nul_in_text_is_replaced_and_reported() {
        assert_eq!(safe_text("a\0b").text, "a\u{fffd}b");
        assert!(safe_text("a\0b").changed);
        assert!(!safe_text("a\u{1}b").changed);
    }

    #[test]
    fn escaped_nul_and_lone_surrogates_are_replaced_and_reported() {
        assert_eq!(
            repaired(r#"{"a":"x\u0000y"}"#),
            (r#"{"a":"x\ufffdy"}"#.to_owned(), true)
        );
        assert_eq!(repaired(r#""\ud800""#), (r#""\ufffd""#.to_owned(), true));
        assert_eq!(
            repaired(r#""\udc4d\ud83d""#),
            (r#""\ufffd\ufffd""#.to_owned(), true)
        );
        assert_eq!(
            repaired(r#""\ud83d\u0041""#),
            (r#""\ufffd\u0041""#.to_owned(), true)
        );
        assert_eq!(
            repaired(r#""\uD83D\uD83D\uDC4D""#),
            (r#""\ufffd\uD83D\uDC4D""#.to_owned(), true)
        );
    }

    #[test]
    fn what_only_looks_like_such_an_escape_stays() {
        for json in [
            r#""\\u0000""#,
            r#""\\\\ud800""#,
            r#""\ud83d\udc4d""#,
            r#""\n\t\"\\""#,
            "{}",
            "null",
        ] {
            assert_eq!(repaired(json), (json.to_owned(), false));
        }
    }

    #[test]
    fn a_backslash_before_a_bad_escape_does_not_hide_it() {
        assert_eq!(repaired(r#""\\\u0000""#), (r#""\\\ufffd""#.to_owned(), true));
    }

    #[test]
    fn what_is_no_json_or_cannot_be_stored_is_none() {
        let deep = format!("{}{}", "[".repeat(MAX_DEPTH + 1), "]".repeat(MAX_DEPTH + 1));
        let long = "1".repeat(MAX_NUMBER + 1);
        for text in [
            "",
            "{",
            "{a:1}",
            "é\\é",
            "\\u12",
            "\"a\0\"",
            "1e9999",
            "[-1E-99999999999]",
            &deep,
            &long,
        ] {
            assert_eq!(safe_json(text), None, "{text}");
        }
    }

    #[test]
    fn brackets_and_numbers_inside_of_strings_do_not_count() {
        let json = format!(r#"{{"a":"{}1e9999\"{}"}}"#, "[".repeat(200), "[".repeat(200));
        assert!(safe_json(&json).is_some());
        assert!(safe_json("[1e10,-0.5,12345678901234567890]").is_some());
        let wide = format!("[{}[]]", "[],".repeat(500));
        assert!(safe_json(&wide).is_some());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_safe_stays_as_it_is(text in r#"["\\ud80cDef0{}\[\]:,1-9é.+ -]{0,40}"#) {
            if let Some(safe) = safe_json(&text) {
                let again = safe_json(&safe.text).expect("it was safe before");
                prop_assert!(!again.changed);
                prop_assert!(serde_json::from_str::<serde_json::Value>(&safe.text).is_ok());
            }
        }
    }
}
