//! Identifiers, checked where they enter and carried as types from there on.
//!
//! Twilio's SIDs are two letters that name the kind and 32 hexadecimal digits. Our own ids are UUID v7, which sort
//! by the time they were made. Phone numbers are here too: they identify people, so [`PhoneNumber`] does not print.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

/// A new id of ours: UUID v7.
pub fn new_id() -> Uuid {
    Uuid::now_v7()
}

/// Why a text is no SID of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a SID like {prefix}0123456789abcdef0123456789abcdef ({prefix} and 32 hexadecimal digits)")]
pub struct InvalidSid {
    pub prefix: &'static str,
}

macro_rules! sid {
    ($(#[$doc:meta])* $name:ident, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
        #[sqlx(transparent)]
        pub struct $name(String);

        impl $name {
            pub const PREFIX: &'static str = $prefix;

            pub fn as_str(&self) -> &str {
                &self.0
            }

            pub fn into_string(self) -> String {
                self.0
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<&str> for $name {
            type Error = InvalidSid;

            fn try_from(text: &str) -> Result<Self, InvalidSid> {
                if is_sid(text, $prefix) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(InvalidSid { prefix: $prefix })
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidSid;

            fn from_str(text: &str) -> Result<Self, InvalidSid> {
                Self::try_from(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                Self::try_from(text.as_str()).map_err(serde::de::Error::custom)
            }
        }

        impl utoipa::PartialSchema for $name {
            fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
                utoipa::openapi::ObjectBuilder::new()
                    .schema_type(utoipa::openapi::schema::Type::String)
                    .pattern(Some(concat!("^", $prefix, "[0-9a-fA-F]{32}$")))
                    .into()
            }
        }

        impl utoipa::ToSchema for $name {}
    };
}

fn is_sid(text: &str, prefix: &str) -> bool {
    text.strip_prefix(prefix)
        .is_some_and(|digits| digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

sid!(/// A Twilio account or subaccount.
    AccountSid, "AC");
sid!(/// A conversation service: the "chat service" of older names.
    ServiceSid, "IS");
sid!(ConversationSid, "CH");
sid!(ParticipantSid, "MB");
sid!(/// A message of a conversation (never the carrier's `SM…`/`MM…`).
    MessageSid, "IM");
sid!(/// A delivery receipt: one recipient of one message.
    ReceiptSid, "DY");
sid!(UserSid, "US");
sid!(RoleSid, "RL");
sid!(MessagingServiceSid, "MG");
sid!(MediaSid, "ME");
sid!(/// A conversation-scoped webhook.
    WebhookSid, "WH");
sid!(/// An address configuration, which is what autocreates conversations.
    AddressSid, "IG");
sid!(/// A REST API key; its secret signs nothing, it only authenticates our calls.
    ApiKeySid, "SK");

/// A phone number in E.164 form: `+` and 7 to 15 digits, the first not 0.
///
/// `Debug` hides all but the last two digits, since a number is personal; `Display` gives it in full, for the wire.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct PhoneNumber(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a phone number in E.164 form, like +15555550101")]
pub struct InvalidPhoneNumber;

impl PhoneNumber {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<&str> for PhoneNumber {
    type Error = InvalidPhoneNumber;

    fn try_from(text: &str) -> Result<Self, InvalidPhoneNumber> {
        let digits = text.strip_prefix('+').ok_or(InvalidPhoneNumber)?;
        let fits = (7..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidPhoneNumber)
        }
    }
}

impl FromStr for PhoneNumber {
    type Err = InvalidPhoneNumber;

    fn from_str(text: &str) -> Result<Self, InvalidPhoneNumber> {
        Self::try_from(text)
    }
}

impl fmt::Display for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for PhoneNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PhoneNumber(…{})", &self.0[self.0.len() - 2..])
    }
}

impl Serialize for PhoneNumber {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PhoneNumber {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text.as_str()).map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for PhoneNumber {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .pattern(Some(r"^\+[1-9][0-9]{6,14}$"))
            .examples([serde_json::json!("+15555550101")])
            .into()
    }
}

impl utoipa::ToSchema for PhoneNumber {}

/// The name of a person of ours as Twilio knows it: 1 to 256 characters, case-sensitive, no control characters.
///
/// Twilio advises against characters that have a meaning in a path, but takes them; so do we, and encode them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, sqlx::Type)]
#[sqlx(transparent)]
pub struct Identity(String);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected an identity: 1 to 256 characters, no control characters, not a phone number")]
pub struct InvalidIdentity;

impl Identity {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl TryFrom<&str> for Identity {
    type Error = InvalidIdentity;

    fn try_from(text: &str) -> Result<Self, InvalidIdentity> {
        let fits = !text.trim().is_empty()
            && text.chars().count() <= 256
            && !text.chars().any(char::is_control)
            && PhoneNumber::try_from(text).is_err();
        if fits {
            Ok(Self(text.to_owned()))
        } else {
            Err(InvalidIdentity)
        }
    }
}

impl FromStr for Identity {
    type Err = InvalidIdentity;

    fn from_str(text: &str) -> Result<Self, InvalidIdentity> {
        Self::try_from(text)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for Identity {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Identity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text.as_str()).map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Identity {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::schema::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .min_length(Some(1))
            .max_length(Some(256))
            .examples([serde_json::json!("agent-7")])
            .into()
    }
}

impl utoipa::ToSchema for Identity {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sid_is_its_prefix_and_32_hexadecimal_digits() {
        assert!(ConversationSid::try_from("CH00000000000000000000000000000001").is_ok());
        for wrong in [
            "",
            "CH",
            "IM00000000000000000000000000000001",
            "CH0000000000000000000000000000000",
            "CH0000000000000000000000000000000g",
        ] {
            assert_eq!(
                ConversationSid::try_from(wrong),
                Err(InvalidSid { prefix: "CH" }),
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_phone_number_is_e164_and_does_not_print_when_debugged() {
        let number = PhoneNumber::try_from("+15555550101").unwrap();
        assert_eq!(format!("{number:?}"), "PhoneNumber(…01)");
        for wrong in [
            "",
            "+",
            "15555550101",
            "+05555550101",
            "+1555555010a",
            "+1 555 555 0101",
            "+1234567890123456",
        ] {
            assert!(PhoneNumber::try_from(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_identity_is_not_a_phone_number() {
        assert!(Identity::try_from("agent-7").is_ok());
        for wrong in ["", "  ", "+15555550101", "a\u{0}b"] {
            assert!(Identity::try_from(wrong).is_err(), "{wrong:?}");
        }
    }
}
