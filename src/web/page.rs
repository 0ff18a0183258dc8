//! Pages of lists: `{"items": […], "next": "…" | null}`.
//!
//! A cursor holds the key of the last item that was given, so that items which come or go meanwhile neither repeat nor
//! hide others. Its text is opaque: nobody is to build one, and one of another list is refused.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};

use crate::web::field::{Errors, Field, Instant, Number};

pub const LIMIT_DEFAULT: u32 = 50;
pub const LIMIT_MAX: u32 = 200;

/// How many items a page may have, as asked for.
pub type Limit = Number<1, LIMIT_MAX>;

/// One page of a list.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct Page<T> {
    pub items: Vec<T>,
    /// What to send as `cursor` for the next page; null at the end.
    pub next: Option<String>,
}

/// What a list's items are ordered by, and the name of the list.
pub trait Key: Serialize + DeserializeOwned {
    const LIST: &'static str;
}

/// A place in a list, as its reader holds it.
#[derive(Clone, PartialEq, Eq)]
pub struct Cursor<K>(pub K);

impl<K> fmt::Debug for Cursor<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Cursor(…)")
    }
}

impl<K: Key> fmt::Display for Cursor<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = serde_json::to_vec(&(K::LIST, &self.0)).map_err(|_| fmt::Error)?;
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

impl<K: Key> Cursor<K> {
    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (list, key): (String, K) = serde_json::from_slice(&bytes).ok()?;
        (list == K::LIST).then_some(Self(key))
    }
}

impl<'de, K: Key> Deserialize<'de> for Cursor<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).ok_or_else(|| {
            D::Error::custom("expected a cursor that an earlier answer of this list gave as `next`")
        })
    }
}

/// A time within a cursor, checked like one that somebody writes, since somebody may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct At(pub Timestamp);

impl Serialize for At {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_i64(self.0.as_microsecond())
    }
}

impl<'de> Deserialize<'de> for At {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let micros = i64::deserialize(deserializer)?;
        Timestamp::from_microsecond(micros)
            .ok()
            .and_then(Instant::from_timestamp)
            .map(|instant| Self(instant.0))
            .ok_or_else(|| D::Error::custom("expected a time"))
    }
}

/// Which page is asked for.
#[derive(Debug, Clone)]
pub struct Wanted<K> {
    pub after: Option<K>,
    limit: usize,
}

impl<K: Key> Wanted<K> {
    /// Reads the two parameters that every list has.
    pub fn read(errors: &mut Errors, limit: Field<Limit>, cursor: Field<Cursor<K>>) -> Self {
        let limit = errors
            .optional("limit", limit)
            .map_or(LIMIT_DEFAULT, |limit| limit.0);
        Self {
            after: errors.optional("cursor", cursor).map(|cursor| cursor.0),
            limit: limit as usize,
        }
    }

    /// How many rows to read: one more than the page has, to see whether there is another page.
    pub fn rows(&self) -> i64 {
        i64::try_from(self.limit).expect("a limit is small") + 1
    }

    /// Cuts the rows to the page; `key` is that of an item in its list.
    pub fn page<R>(&self, mut rows: Vec<R>, key: impl Fn(&R) -> K) -> Page<R> {
        let more = rows.len() > self.limit;
        rows.truncate(self.limit);
        let next = rows
            .last()
            .filter(|_| more)
            .map(|row| Cursor(key(row)).to_string());
        Page { items: rows, next }
    }
}

impl<T> Page<T> {
    pub fn map<U>(self, shape: impl FnMut(T) -> U) -> Page<U> {
        Page {
            items: self.items.into_iter().map(shape).collect(),
            next: self.next,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    struct Letters(String, At);

    impl Key for Letters {
        const LIST: &'static str = "letters";
    }

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    struct Numbers(i64);

    impl Key for Numbers {
        const LIST: &'static str = "numbers";
    }

    fn letters() -> Letters {
        Letters("a".into(), At("2026-01-02T03:04:05.678901Z".parse().unwrap()))
    }

    #[test]
    fn a_cursor_survives_its_text_form_and_fits_one_list_only() {
        let text = Cursor(letters()).to_string();
        assert_eq!(Cursor::parse(&text), Some(Cursor(letters())));
        assert_eq!(Cursor::<Numbers>::parse(&text), None);
        for wrong in ["", "x", "AAAA", &text[1..], &format!("{text}=")] {
            assert!(Cursor::<Letters>::parse(wrong).is_none(), "{wrong}");
        }
    }

    #[test]
    fn a_forged_time_is_refused() {
        let forged = URL_SAFE_NO_PAD.encode(format!(r#"["letters",["a",{}]]"#, i64::MIN));
        assert!(Cursor::<Letters>::parse(&forged).is_none());
    }

    #[test]
    fn there_is_a_next_page_only_if_there_are_more_rows() {
        let wanted = Wanted::<Numbers> {
            after: None,
            limit: 2,
        };
        let page = |rows: Vec<i64>| wanted.page(rows, |number| Numbers(*number));
        assert_eq!(page(vec![1, 2]).next, None);
        let more = page(vec![1, 2, 3]);
        assert_eq!(more.items, [1, 2]);
        assert_eq!(more.next, Some(Cursor(Numbers(2)).to_string()));
    }
}
