//! A person who asked to be forgotten: how they are found in what is stored, and what stands in their place. Pure.

use std::fmt;

use serde_json::Value;

use crate::ids::{Identity, PhoneNumber};

/// Whom to look for: a customer by the number of a handset, or one of ours by the identity.
/// Does not print.
#[derive(Clone, PartialEq, Eq)]
pub enum Subject {
    Number(PhoneNumber),
    Identity(Identity),
}

impl fmt::Debug for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({})", self.kind())
    }
}

/// Whether what is stored in the place of somebody's identity stands for a person who was erased: there is nobody behind it.
pub fn is_pseudonym(identity: &str) -> bool {
    identity
        .strip_prefix("erased:")
        .is_some_and(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

/// Whom to look for, and the pseudonym that stands for them. Does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Person {
    subject: Subject,
    pseudonym: String,
}

impl fmt::Debug for Person {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Person")
            .field("pseudonym", &self.pseudonym)
            .finish_non_exhaustive()
    }
}

impl Subject {
    /// `number` or `identity`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Number(_) => "number",
            Self::Identity(_) => "identity",
        }
    }

    pub fn as_str(&self) -> &str {
        match self {
            Self::Number(number) => number.as_str(),
            Self::Identity(identity) => identity.as_str(),
        }
    }

    /// Of its two columns.
    pub fn read(kind: &str, text: &str) -> Option<Self> {
        match kind {
            "number" => PhoneNumber::try_from(text).ok().map(Self::Number),
            "identity" => Identity::try_from(text).ok().map(Self::Identity),
            _ => None,
        }
    }
}

impl Person {
    pub fn new(subject: Subject, pseudonym: String) -> Self {
        Self { subject, pseudonym }
    }

    pub fn subject(&self) -> &Subject {
        &self.subject
    }

    /// As it stands alone in a column.
    pub fn exact(&self) -> &str {
        self.subject.as_str()
    }

    /// As it stands within a text. A number tells by itself; an identity may be an everyday word, and counts only where
    /// it is a whole string of JSON.
    pub fn needle(&self) -> String {
        match &self.subject {
            Subject::Number(number) => number.as_str().to_owned(),
            Subject::Identity(identity) => Value::from(identity.as_str()).to_string(),
        }
    }

    /// What stands for the person.
    pub fn pseudonym(&self) -> &str {
        &self.pseudonym
    }

    /// What stands for [`Person::needle`].
    pub fn instead_of_needle(&self) -> String {
        match &self.subject {
            Subject::Number(_) => self.pseudonym.clone(),
            Subject::Identity(_) => Value::from(self.pseudonym.as_str()).to_string(),
        }
    }

    /// [`Person::needle`] in all its spellings: JSON may escape what is not ASCII, and may itself stand in a string of JSON.
    pub fn needles(&self) -> Vec<String> {
        let Subject::Identity(identity) = &self.subject else {
            return vec![self.needle()];
        };
        let quoted = spelled(identity.as_str()).map(|text| format!("\"{text}\""));
        let mut all: Vec<String> = quoted
            .into_iter()
            .flat_map(|text| [within_json(&text), text])
            .collect();
        all.sort();
        all.dedup();
        all
    }

    /// [`Person::needles`] as patterns for `like any`.
    pub fn patterns(&self) -> Vec<String> {
        self.needles().iter().map(|text| pattern(text)).collect()
    }

    /// What bytes of a form or an event have to hold if they name the person, each in one of the spellings: to look at
    /// few of them. [`Person::is_named_in`] decides.
    pub fn spellings(&self) -> Vec<Vec<u8>> {
        match &self.subject {
            Subject::Number(number) => vec![number.as_str().trim_start_matches('+').as_bytes().to_vec()],
            Subject::Identity(identity) => {
                let text = identity.as_str();
                let mut plain = vec![text.to_owned()];
                for text in spelled(text) {
                    plain.push(within_json(&text));
                    plain.push(text);
                }
                let encoded = plain.iter().flat_map(|text| {
                    let encoded: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
                    let spaced = encoded.replace('+', "%20");
                    [lower_hex(&encoded), lower_hex(&spaced), encoded, spaced]
                });
                let mut all: Vec<Vec<u8>> = encoded.map(String::into_bytes).collect();
                all.extend(plain.into_iter().map(String::into_bytes));
                all.sort();
                all.dedup();
                all
            }
        }
    }

    /// Whether a form, or an event of Event Streams, names the person: as a value, or within one.
    pub fn is_named_in(&self, bytes: &[u8]) -> bool {
        if let Ok(json) = serde_json::from_slice::<Value>(bytes)
            && (json.is_object() || json.is_array())
        {
            return self.is_named_in_json(&json);
        }
        form_urlencoded::parse(bytes).any(|(_, value)| self.is_named_in_text(&value))
    }

    /// Whether a sentence has the number or the identity as a word: not within a longer one.
    pub fn is_word_of(&self, text: &str) -> bool {
        let name = self.exact();
        let goes_on = |next: Option<char>| next.is_some_and(char::is_alphanumeric);
        text.match_indices(name).any(|(at, _)| {
            let before = text[..at].chars().next_back();
            let after = text[at + name.len()..].chars().next();
            !goes_on(before) && !goes_on(after)
        })
    }

    fn is_named_in_json(&self, json: &Value) -> bool {
        match json {
            Value::String(text) => self.is_named_in_text(text),
            Value::Array(items) => items.iter().any(|item| self.is_named_in_json(item)),
            Value::Object(members) => members.values().any(|item| self.is_named_in_json(item)),
            Value::Null | Value::Bool(_) | Value::Number(_) => false,
        }
    }

    fn is_named_in_text(&self, text: &str) -> bool {
        text == self.exact() || self.needles().iter().any(|needle| text.contains(needle))
    }
}

/// As it stands between the quotes of a string of JSON: with what is not ASCII as it is, or escaped in either case.
fn spelled(text: &str) -> [String; 3] {
    let raw = within_json(text);
    let escaped = |unit: fn(u16) -> String| {
        let mut buffer = [0; 2];
        raw.chars().fold(String::new(), |mut all, character| {
            if character.is_ascii() {
                all.push(character);
            } else {
                let units = character.encode_utf16(&mut buffer).iter();
                all.extend(units.map(|one| unit(*one)));
            }
            all
        })
    };
    [
        escaped(|unit| format!("\\u{unit:04x}")),
        escaped(|unit| format!("\\u{unit:04X}")),
        raw.clone(),
    ]
}

/// A text as it stands within a string of JSON.
fn within_json(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted[1..quoted.len() - 1].to_owned()
}

/// A pattern of SQL for texts that hold this one.
fn pattern(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

/// With the hexadecimal digits of `%C3` in lower case.
fn lower_hex(encoded: &str) -> String {
    let mut left = 0;
    encoded
        .chars()
        .map(|character| match (character, left) {
            ('%', _) => {
                left = 2;
                character
            }
            (_, 0) => character,
            _ => {
                left -= 1;
                character.to_ascii_lowercase()
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number() -> Person {
        let subject = Subject::Number("+15555550101".parse().unwrap());
        Person::new(subject, "erased:1".to_owned())
    }

    fn identity(text: &str) -> Person {
        let subject = Subject::Identity(text.parse().unwrap());
        Person::new(subject, "erased:2".to_owned())
    }

    fn may_be_in(person: &Person, bytes: &[u8]) -> bool {
        person
            .spellings()
            .iter()
            .any(|spelling| bytes.windows(spelling.len()).any(|part| part == spelling))
    }

    #[test]
    fn a_form_names_a_person_by_a_value_or_within_its_json() {
        for (person, form) in [
            (number(), "EventType=onMessageAdded&Author=%2B15555550101&Body=Hi"),
            (number(), "Body=call+me+at+%2B15555550101%21"),
            (number(), r#"{"data":{"author":"+15555550101"}}"#),
            (identity("maya"), "Author=maya&Body=Hi"),
            (identity("maya"), "Attributes=%7B%22by%22%3A%22maya%22%7D"),
            (identity("maya"), r#"{"data":{"identity":"maya"}}"#),
            (identity("maya b@x"), "Identity=maya+b%40x"),
            (identity("maya b@x"), "Identity=maya%20b%40x"),
            (identity("Maya@x"), "Identity=Maya%40x"),
            (identity("zoë"), "Author=zo%C3%AB"),
            (identity("Zoë"), "Author=Zo%c3%ab"),
            (identity("zoë"), r"Attributes=%7B%22by%22%3A%22zo%5Cu00eb%22%7D"),
            (identity("zoë"), r"Attributes=%7B%22by%22%3A%22zo%5Cu00EB%22%7D"),
            (identity("zoë"), r#"{"data":{"author":"zo\u00eb"}}"#),
            (
                identity("zoë"),
                r#"{"data":{"attributes":"{\"by\":\"zo\\u00eb\"}"}}"#,
            ),
            (identity("👋"), r#"{"data":{"author":"\ud83d\udc4b"}}"#),
        ] {
            assert!(person.is_named_in(form.as_bytes()), "{form}");
            assert!(may_be_in(&person, form.as_bytes()), "{form}");
        }
    }

    #[test]
    fn patterns_hold_every_spelling_and_no_wildcard_of_the_name() {
        assert_eq!(number().patterns(), ["%+15555550101%"]);
        assert_eq!(
            identity("a_b%").patterns(),
            [r#"%"a\_b\%"%"#, r#"%\\"a\_b\%\\"%"#]
        );
        assert_eq!(
            identity("zoë").needles(),
            [
                r#""zo\u00EB""#,
                r#""zo\u00eb""#,
                r#""zoë""#,
                r#"\"zo\\u00EB\""#,
                r#"\"zo\\u00eb\""#,
                r#"\"zoë\""#,
            ]
        );
    }

    #[test]
    fn others_are_not_taken_for_the_person() {
        for (person, form) in [
            (number(), "Author=%2B15555550102"),
            (identity("maya"), "Author=noor&Body=Hi+maya"),
            (identity("maya"), "Author=maya2"),
            (identity("a"), r#"{"data":{"identity":"maya"}}"#),
        ] {
            assert!(!person.is_named_in(form.as_bytes()), "{form}");
        }
    }

    #[test]
    fn a_sentence_names_a_person_by_a_whole_word() {
        for (person, text) in [
            (number(), "+15555550101 asked"),
            (number(), "by letter of (+15555550101)"),
            (identity("al"), "al, by letter"),
            (identity("maya b@x"), "left: maya b@x"),
        ] {
            assert!(person.is_word_of(text), "{text}");
        }
        for (person, text) in [
            (number(), "+155555501012 asked"),
            (identity("al"), "the legal department"),
            (identity("al"), "also Val"),
            (identity("zoë"), "zoës manager"),
        ] {
            assert!(!person.is_word_of(text), "{text}");
        }
    }

    #[test]
    fn a_person_does_not_print() {
        assert_eq!(
            format!("{:?}", number()),
            r#"Person { pseudonym: "erased:1", .. }"#
        );
    }
}
