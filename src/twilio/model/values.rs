//! The words and times of Twilio's wire that REST and webhooks share.

use std::fmt;

use jiff::Timestamp;
use serde::{Deserialize, Deserializer, Serialize};

/// Text by or about a person, or a URL that may carry credentials: `Debug` hides it, and there is no `Display`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Hidden(String);

impl Hidden {
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub fn into_string(self) -> String {
        self.0
    }
}

impl From<&str> for Hidden {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<String> for Hidden {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl PartialEq<str> for Hidden {
    fn eq(&self, other: &str) -> bool {
        self.0 == other
    }
}

impl PartialEq<&str> for Hidden {
    fn eq(&self, other: &&str) -> bool {
        self.0 == *other
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// A time as Twilio states it: webhooks have milliseconds, REST answers about the same change are cut to the second.
///
/// Two times of different precision are therefore not comparable within one second; [`SourceTime::same_second`] tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceTime {
    pub at: Timestamp,
    pub precision: Precision,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Precision {
    Second,
    Millisecond,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected a time like 2026-01-02T03:04:05Z or 2026-01-02T03:04:05.678Z")]
pub struct InvalidTime;

impl SourceTime {
    pub fn same_second(self, other: Self) -> bool {
        self.at.as_second() == other.at.as_second()
    }
}

impl TryFrom<&str> for SourceTime {
    type Error = InvalidTime;

    /// ISO 8601 with an offset; what is finer than a millisecond is cut.
    fn try_from(text: &str) -> Result<Self, InvalidTime> {
        let at: Timestamp = text.parse().map_err(|_| InvalidTime)?;
        let at = Timestamp::from_millisecond(at.as_millisecond()).map_err(|_| InvalidTime)?;
        let precision = if text.contains(['.', ',']) {
            Precision::Millisecond
        } else {
            Precision::Second
        };
        Ok(Self { at, precision })
    }
}

impl fmt::Debug for SourceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// As Twilio writes it, with the digits of its precision.
impl fmt::Display for SourceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.precision {
            Precision::Second => write!(f, "{:.0}", self.at),
            Precision::Millisecond => write!(f, "{:.3}", self.at),
        }
    }
}

impl<'de> Deserialize<'de> for SourceTime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text.as_str()).map_err(serde::de::Error::custom)
    }
}

/// An enum of Twilio's words. They are compared without regard to case, since Twilio's pages and its wire differ in it,
/// and an unknown word is kept: the list grows without us.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum $name {
            $($variant,)+
            Other(String),
        }

        impl $name {
            /// Twilio's word.
            pub fn as_str(&self) -> &str {
                match self {
                    $(Self::$variant => $word,)+
                    Self::Other(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> Self {
                $(if word.eq_ignore_ascii_case($word) {
                    return Self::$variant;
                })+
                Self::Other(word.to_owned())
            }
        }

        impl Default for $name {
            /// No word at all.
            fn default() -> Self {
                Self::Other(String::new())
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                Ok(Self::from(String::deserialize(deserializer)?.as_str()))
            }
        }
    };
}

words!(ConversationState {
    Initializing = "initializing",
    Active = "active",
    Inactive = "inactive",
    Closed = "closed",
});

words!(/// Why a conversation changed its state: by a request, a timer, or an event such as a message or finished setup.
    StateReason {
    Api = "API",
    Timer = "TIMER",
    Event = "EVENT",
});

words!(/// Who caused a webhook: a client library, a REST call, or an inbound message of a channel.
    Source {
    Sdk = "SDK",
    Api = "API",
    Sms = "SMS",
    Whatsapp = "WHATSAPP",
    Email = "EMAIL",
});

words!(/// The channel of an address.
    AddressKind {
    Sms = "sms",
    Chat = "chat",
    Whatsapp = "whatsapp",
    Messenger = "messenger",
    Gbm = "gbm",
    Email = "email",
    Rcs = "rcs",
    Apple = "apple",
});

words!(/// How far a message has come to one recipient. Undelivered and failed are final.
    DeliveryStatus {
    Queued = "queued",
    Accepted = "accepted",
    Scheduled = "scheduled",
    Sending = "sending",
    Sent = "sent",
    Delivered = "delivered",
    Read = "read",
    Undelivered = "undelivered",
    Failed = "failed",
});

words!(/// How many of a message's recipients.
    DeliveryAmount {
    All = "all",
    Some = "some",
    None = "none",
});

words!(AutoCreationKind {
    Webhook = "webhook",
    Studio = "studio",
    Default = "default",
});

words!(WebhookMethod {
    Get = "GET",
    Post = "POST",
});

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_with_and_without_milliseconds_are_read_and_told_apart() {
        let fine = SourceTime::try_from("2026-01-02T03:04:05.678Z").unwrap();
        let coarse = SourceTime::try_from("2026-01-02T03:04:05Z").unwrap();
        assert_eq!(fine.precision, Precision::Millisecond);
        assert_eq!(coarse.precision, Precision::Second);
        assert!(fine.at > coarse.at);
        assert!(fine.same_second(coarse));
        assert_eq!(fine.to_string(), "2026-01-02T03:04:05.678Z");
        assert_eq!(coarse.to_string(), "2026-01-02T03:04:05Z");
    }

    #[test]
    fn a_round_millisecond_is_still_a_millisecond() {
        let time = SourceTime::try_from("2026-01-02T03:04:05.000Z").unwrap();
        assert_eq!(time.precision, Precision::Millisecond);
        assert_eq!(time.to_string(), "2026-01-02T03:04:05.000Z");
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for wrong in ["", "yesterday", "2026-01-02", "2026-01-02T03:04:05", "1767323045"] {
            assert_eq!(SourceTime::try_from(wrong), Err(InvalidTime), "{wrong}");
        }
    }

    #[test]
    fn words_are_read_in_any_case_and_unknown_ones_are_kept() {
        assert_eq!(AddressKind::from("SMS"), AddressKind::Sms);
        assert_eq!(AddressKind::from("sms"), AddressKind::Sms);
        assert_eq!(
            ConversationState::from("Archived"),
            ConversationState::Other("Archived".to_owned())
        );
        assert_eq!(ConversationState::from("Archived").as_str(), "Archived");
        assert_eq!(StateReason::Timer.to_string(), "TIMER");
    }

    #[test]
    fn hidden_text_does_not_print() {
        assert_eq!(format!("{:?}", Hidden::from("+15555550101")), "…");
    }
}
