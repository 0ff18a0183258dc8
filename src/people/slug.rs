//! Names that people give to teams and skills, spelt in one way only.

use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// 1 to 64 of `a-z 0-9 . _ -`, the first a letter or a digit: `Spanish` and `spanish ` cannot be two skills.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Slug(String);

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter or a digit")]
pub struct InvalidSlug;

impl Slug {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Slug {
    type Err = InvalidSlug;

    fn from_str(text: &str) -> Result<Self, InvalidSlug> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let fits = text.len() <= 64
            && text.bytes().next().is_some_and(is_plain)
            && text.bytes().all(|byte| is_plain(byte) || b"._-".contains(&byte));
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidSlug)
        }
    }
}

impl fmt::Display for Slug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Slug {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(D::Error::custom)
    }
}

impl utoipa::PartialSchema for Slug {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some("^[a-z0-9][a-z0-9._-]{0,63}$"))
            .examples([serde_json::json!("sales")])
            .into()
    }
}

impl utoipa::ToSchema for Slug {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slug_has_one_spelling() {
        for right in ["a", "7", "sales-emea", "c_2.x", &"a".repeat(64)] {
            assert_eq!(right.parse::<Slug>().unwrap().as_str(), right);
        }
        for wrong in ["", "Sales", "-a", ".a", "a b", " a", "é", "a;b", &"a".repeat(65)] {
            assert_eq!(wrong.parse::<Slug>(), Err(InvalidSlug), "{wrong}");
        }
    }
}
