//! `application/x-www-form-urlencoded`, read strictly and without losing anything.
//!
//! Order, repeated keys, blank values and white space are kept, since all of them are signed. What signs and what the
//! fields mean is not known here.

use std::borrow::Cow;
use std::fmt;

/// The most fields a form may have. Twilio's largest webhook has about forty; the rest is room for a group's addresses.
pub const MAX_FIELDS: usize = 1000;

/// The fields of a form in the order of arrival; a key may come several times.
///
/// `Debug` prints the keys only: the values are people's numbers and words.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Form(Vec<(String, String)>);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FormError {
    #[error("the form is not UTF-8 once decoded")]
    NotUtf8,
    #[error("the form has more than {MAX_FIELDS} fields")]
    TooManyFields,
}

impl Form {
    /// Decodes a body or a raw query.
    ///
    /// Fields, `+` and percent-encoding are read as the WHATWG URL standard's urlencoded parser reads them: an empty
    /// piece between two `&` is no field, a piece without `=` is a key with a blank value, and a `%` that two
    /// hexadecimal digits do not follow stays as it is. Unlike there, bytes that are not UTF-8 are an error rather than
    /// U+FFFD: a replaced character would make two different bodies equal.
    pub fn parse(raw: &[u8]) -> Result<Self, FormError> {
        let mut fields = Vec::new();
        for piece in raw.split(|&byte| byte == b'&').filter(|piece| !piece.is_empty()) {
            if fields.len() == MAX_FIELDS {
                return Err(FormError::TooManyFields);
            }
            let (key, value) = split_once(piece, b'=');
            fields.push((decode(key)?, decode(value)?));
        }
        Ok(Self(fields))
    }

    /// The fields, in the order of arrival.
    pub fn fields(&self) -> &[(String, String)] {
        &self.0
    }

    /// The first value of `key`.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.get_all(key).next()
    }

    /// Every value of `key`, in the order of arrival.
    pub fn get_all<'a>(&'a self, key: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }

    /// The wire text of these fields, in their order.
    pub fn encode(&self) -> String {
        form_urlencoded::Serializer::new(String::new())
            .extend_pairs(&self.0)
            .finish()
    }
}

impl From<Vec<(String, String)>> for Form {
    fn from(fields: Vec<(String, String)>) -> Self {
        Self(fields)
    }
}

impl<K: Into<String>, V: Into<String>> FromIterator<(K, V)> for Form {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(fields: I) -> Self {
        Self(
            fields
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect(),
        )
    }
}

impl fmt::Debug for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Form")?;
        f.debug_list().entries(self.0.iter().map(|(key, _)| key)).finish()
    }
}

fn split_once(piece: &[u8], separator: u8) -> (&[u8], &[u8]) {
    match piece.iter().position(|&byte| byte == separator) {
        Some(at) => (&piece[..at], &piece[at + 1..]),
        None => (piece, &[]),
    }
}

fn decode(text: &[u8]) -> Result<String, FormError> {
    let spaced: Cow<'_, [u8]> = if text.contains(&b'+') {
        text.iter()
            .map(|&byte| if byte == b'+' { b' ' } else { byte })
            .collect()
    } else {
        text.into()
    };
    let bytes: Cow<'_, [u8]> = percent_encoding::percent_decode(&spaced).into();
    String::from_utf8(bytes.into_owned()).map_err(|_| FormError::NotUtf8)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn fields(raw: &str) -> Vec<(String, String)> {
        Form::parse(raw.as_bytes()).unwrap().0
    }

    fn pairs<const N: usize>(expected: [(&str, &str); N]) -> Vec<(String, String)> {
        expected
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn order_repeated_keys_blanks_and_spaces_are_kept() {
        assert_eq!(
            fields("b=2&a=+1++&b=1&c=&d&=e&a%3Db=%3D%26"),
            pairs([
                ("b", "2"),
                ("a", " 1  "),
                ("b", "1"),
                ("c", ""),
                ("d", ""),
                ("", "e"),
                ("a=b", "=&")
            ])
        );
    }

    #[test]
    fn only_the_first_equals_sign_separates() {
        assert_eq!(fields("a=b=c"), pairs([("a", "b=c")]));
    }

    #[test]
    fn empty_pieces_are_no_fields() {
        assert_eq!(fields(""), pairs([]));
        assert_eq!(fields("&&a=1&&"), pairs([("a", "1")]));
    }

    #[test]
    fn a_malformed_percent_sign_stays_as_it_is() {
        assert_eq!(
            fields("a=100%&b=%zz&c=%4&d=%%34"),
            pairs([("a", "100%"), ("b", "%zz"), ("c", "%4"), ("d", "%4")])
        );
    }

    #[test]
    fn an_encoded_plus_is_a_plus() {
        assert_eq!(fields("From=%2B15555550101"), pairs([("From", "+15555550101")]));
    }

    #[test]
    fn bytes_that_are_not_utf8_are_refused_in_values_and_in_keys() {
        for raw in [b"a=%FF".as_slice(), b"%C3=1", b"a=\xFF", b"a=%ED%A0%80"] {
            assert_eq!(Form::parse(raw), Err(FormError::NotUtf8));
        }
    }

    #[test]
    fn one_field_too_many_is_refused() {
        let full = vec!["a=1"; MAX_FIELDS].join("&");
        assert_eq!(Form::parse(full.as_bytes()).unwrap().fields().len(), MAX_FIELDS);
        assert_eq!(
            Form::parse(format!("{full}&a=1").as_bytes()),
            Err(FormError::TooManyFields)
        );
    }

    #[test]
    fn the_first_value_and_all_values_of_a_key_can_be_read() {
        let form = Form::parse(b"a=1&b=2&a=3").unwrap();
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get_all("a").collect::<Vec<_>>(), ["1", "3"]);
        assert_eq!(form.get("A"), None);
    }

    #[test]
    fn debug_prints_keys_and_no_values() {
        let form = Form::parse(b"Body=secret&From=%2B15555550101").unwrap();
        assert_eq!(format!("{form:?}"), r#"Form["Body", "From"]"#);
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_read_back(fields in prop::collection::vec((".*", ".*"), 0..8)) {
            let form = Form::from(fields);
            prop_assert_eq!(Form::parse(form.encode().as_bytes()).unwrap(), form);
        }
    }
}
