//! What went wrong with a call, sorted by what the caller may do next.
//!
//! Twilio's error body has a code, and the code decides; the status decides only where there is none. [`class_of`] is
//! the table of codes. Twilio's own sentences may hold phone numbers, so they are kept out of `Display` and `Debug`.

use std::time::Duration;

use serde_json::Value;

use super::model::Hidden;
use crate::ids::ConversationSid;

/// Why a call did not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not processed, by Twilio's word: may be repeated as it is, later.
    #[error("Twilio is throttling us{}", say(*.code, Some(*.status)))]
    Throttled {
        retry_after: Option<Duration>,
        code: Option<u32>,
        status: u16,
    },
    /// Nothing was changed: the call was not sent, or it was a read. May be repeated.
    #[error("Twilio cannot be reached{}", say(*.code, *.status))]
    Unavailable {
        code: Option<u32>,
        status: Option<u16>,
        source: Option<reqwest::Error>,
    },
    /// A write that may or may not have happened: read before anything is sent again.
    #[error("it is not known whether Twilio did what was asked{}", say(*.code, *.status))]
    OutcomeUnknown {
        code: Option<u32>,
        status: Option<u16>,
        source: Option<reqwest::Error>,
    },
    #[error("Twilio does not have it{}", say(*.code, Some(*.status)))]
    NotFound { code: Option<u32>, status: u16 },
    /// Twilio understood and said no; [`Rejection::class`] says what kind of no.
    #[error("Twilio refused{}", say(.0.code, Some(.0.status)))]
    Rejected(Rejection),
    /// Credentials, permissions or the account's set-up: a person has to look.
    #[error("the Twilio account is not set up for this{}", say(*.code, Some(*.status)))]
    Configuration { code: Option<u32>, status: u16 },
    /// Twilio's answer to a read could not be understood, or was not trusted.
    #[error("Twilio's answer cannot be used: {reason}")]
    Malformed { reason: String },
}

/// A refusal by code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    pub code: Option<u32>,
    pub status: u16,
    pub class: Class,
    /// The conversation that Twilio names in its sentence: with 50438, the one that has the same members.
    pub conversation_sid: Option<ConversationSid>,
    text: Hidden,
}

impl Rejection {
    /// What Twilio wrote, which may hold phone numbers: for a person with the right to see them, never for a log.
    pub fn text(&self) -> &str {
        self.text.as_str()
    }
}

/// What a code says to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Not processed for lack of capacity: wait and repeat.
    Throttled,
    /// Twilio's own failure: repeat a read, settle a write.
    Failed,
    /// Something else is changing the same object: read again, then repeat.
    Conflict,
    /// It is not there, or no longer.
    NotFound,
    /// What was asked for exists already or is done already: read it back and take it.
    AlreadySo,
    /// It broke on the way and was closed: start again, under a new unique name.
    StartAgain,
    /// The request is wrong or against a rule: do not repeat.
    Refused,
    /// The account's set-up: tell a person.
    Configuration,
    /// Our own webhook refused or was too slow.
    OwnWebhook,
}

/// What to do about `code`; `None` for a code that is not in Twilio's list as we know it.
///
/// The order is that of Twilio's error dictionary, so that it can be checked against it.
#[expect(
    clippy::match_same_arms,
    reason = "in the order of the dictionary, one subject an arm"
)]
pub fn class_of(code: u32) -> Option<Class> {
    Some(match code {
        // Unknown or invalid parameter.
        20001 | 20422 => Class::Refused,
        // Authentication, inactive account, no permission.
        20003 | 20005 | 20006 => Class::Configuration,
        // Method not allowed.
        20004 => Class::Refused,
        20404 => Class::NotFound,
        // Not in a modifiable state.
        20409 => Class::Conflict,
        20429 | 50063 | 50074 => Class::Throttled,
        20500 | 20503 => Class::Failed,
        // Webhook settings.
        50053..=50055 | 50065 => Class::Refused,
        // The pre-action webhook said no: a decision, not a failure of the webhook.
        50056 => Class::Refused,
        50057 | 50076 => Class::OwnWebhook,
        // Users.
        50200 => Class::NotFound,
        50201 => Class::AlreadySo,
        50202 | 50204 | 50207 | 50208 | 50211 | 50214 => Class::Refused,
        // Conflicting concurrent changes of a user, channel, conversation or member.
        50213 | 50349 | 50391 | 50419 | 50449 => Class::Conflict,
        // Attributes, author.
        50303 | 50304 | 50310 => Class::Refused,
        // Deletion in progress.
        50334 => Class::Conflict,
        // Messaging service.
        50340..=50342 => Class::Configuration,
        // Conversations.
        50350 => Class::NotFound,
        50351 => Class::Refused,
        50353 => Class::AlreadySo,
        50360..=50372 => Class::Refused,
        // No messaging service on the conversation.
        50373 => Class::Configuration,
        50374..=50380 | 50382 | 50384 => Class::Refused,
        // Not available in the region.
        50385 => Class::Configuration,
        50390 | 50392 | 50393 => Class::Refused,
        // Addresses.
        50407..=50409 | 50411 | 50412 | 50414 => Class::Refused,
        50413 => Class::Configuration,
        50416 => Class::AlreadySo,
        // Participants.
        50417 | 50418 | 50421 | 50422 => Class::Refused,
        // Conversation with participants.
        50425 => Class::AlreadySo,
        50426 => Class::Refused,
        50427 => Class::StartAgain,
        50430 | 50431 => Class::Refused,
        50432 => Class::NotFound,
        50433 => Class::AlreadySo,
        // Group rules; 50437 and 50438 name what is there already.
        50434..=50436 => Class::Refused,
        50437 | 50438 => Class::AlreadySo,
        50439 => Class::Configuration,
        // Nothing to remove.
        50440 | 50442 => Class::AlreadySo,
        // Bindings and identities that cannot be added. 50444 decides how a line changes hands.
        50441 | 50443 | 50444 | 50451 | 50453 => Class::Refused,
        // Group texting is not enabled.
        50452 => Class::Configuration,
        // Messages.
        50503 | 50504 | 50506..=50508 | 50510..=50513 | 50526..=50529 | 50540 | 50541 => Class::Refused,
        // The address configuration went with its number.
        50610 => Class::Configuration,
        _ => return None,
    })
}

impl Error {
    /// Twilio's error code, where it gave one.
    pub fn code(&self) -> Option<u32> {
        match self {
            Self::Throttled { code, .. }
            | Self::Unavailable { code, .. }
            | Self::OutcomeUnknown { code, .. }
            | Self::NotFound { code, .. }
            | Self::Configuration { code, .. } => *code,
            Self::Rejected(rejection) => rejection.code,
            Self::Malformed { .. } => None,
        }
    }

    /// Its class, with Twilio's code where it gave one: `throttled_20429`. For people who wait.
    pub fn label(&self) -> String {
        let class = match self {
            Self::Throttled { .. } => "throttled",
            Self::Unavailable { .. } => "unavailable",
            Self::OutcomeUnknown { .. } => "outcome_unknown",
            Self::NotFound { .. } => "not_found",
            Self::Configuration { .. } => "configuration",
            Self::Rejected(_) => "rejected",
            Self::Malformed { .. } => "malformed",
        };
        match self.code() {
            Some(code) => format!("{class}_{code}"),
            None => class.to_owned(),
        }
    }

    /// The HTTP status, where there was an answer.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Unavailable { status, .. } | Self::OutcomeUnknown { status, .. } => *status,
            Self::Throttled { status, .. }
            | Self::NotFound { status, .. }
            | Self::Configuration { status, .. } => Some(*status),
            Self::Rejected(rejection) => Some(rejection.status),
            Self::Malformed { .. } => None,
        }
    }

    /// Whether the same call may be made again as it is, since it changed nothing and may succeed later.
    pub fn may_repeat(&self) -> bool {
        matches!(self, Self::Throttled { .. } | Self::Unavailable { .. })
    }

    /// The kind of refusal, where Twilio refused.
    pub fn rejection(&self) -> Option<&Rejection> {
        match self {
            Self::Rejected(rejection) => Some(rejection),
            _ => None,
        }
    }

    /// What this failure means for a write whose earlier try had an unknown outcome.
    ///
    /// A later "no" cannot make it known, and may even come from the success of the earlier try. Only "not there" says
    /// how things stand.
    pub(super) fn after_unknown_outcome(self) -> Self {
        match self {
            Self::NotFound { .. } | Self::OutcomeUnknown { .. } => self,
            Self::Unavailable { code, status, source } => Self::OutcomeUnknown { code, status, source },
            Self::Throttled { .. }
            | Self::Rejected(_)
            | Self::Configuration { .. }
            | Self::Malformed { .. } => Self::OutcomeUnknown {
                code: self.code(),
                status: self.status(),
                source: None,
            },
        }
    }

    /// Sorts an answer that is not a success.
    ///
    /// `changes` says whether the call was a write: then a failure of Twilio's leaves the outcome unknown.
    pub(super) fn from_answer(
        status: u16,
        retry_after: Option<Duration>,
        body: &[u8],
        changes: bool,
    ) -> Self {
        let answer = ErrorBody::read(body);
        let code = answer.code;
        match code.and_then(class_of).unwrap_or_else(|| class_of_status(status)) {
            Class::Throttled => Self::Throttled {
                retry_after,
                code,
                status,
            },
            Class::Failed if changes => Self::OutcomeUnknown {
                code,
                status: Some(status),
                source: None,
            },
            Class::Failed => Self::Unavailable {
                code,
                status: Some(status),
                source: None,
            },
            Class::NotFound => Self::NotFound { code, status },
            Class::Configuration => Self::Configuration { code, status },
            class @ (Class::Conflict
            | Class::AlreadySo
            | Class::StartAgain
            | Class::Refused
            | Class::OwnWebhook) => Self::Rejected(Rejection {
                code,
                status,
                class,
                conversation_sid: conversation_named_in(&answer.text),
                text: Hidden::from(answer.text),
            }),
        }
    }
}

fn say(code: Option<u32>, status: Option<u16>) -> String {
    match (code, status) {
        (Some(code), Some(status)) => format!(" (code {code}, status {status})"),
        (None, Some(status)) => format!(" (status {status})"),
        (Some(code), None) => format!(" (code {code})"),
        (None, None) => String::new(),
    }
}

fn class_of_status(status: u16) -> Class {
    match status {
        401 | 403 => Class::Configuration,
        404 | 410 => Class::NotFound,
        429 => Class::Throttled,
        // Twilio gave up waiting for the rest of our request, or for itself.
        408 | 500..=599 => Class::Failed,
        _ => Class::Refused,
    }
}

/// Twilio's sentence with 50438 names the conversation: `… already exists as Conversation CH…`.
fn conversation_named_in(text: &str) -> Option<ConversationSid> {
    let (_, after) = text.split_once("already exists as Conversation ")?;
    ConversationSid::try_from(after.get(..34)?).ok()
}

/// The three shapes of Twilio's error bodies, read at once; an HTML page or nothing at all is kept as text.
struct ErrorBody {
    code: Option<u32>,
    text: String,
}

/// Enough for every sentence of Twilio's, and not a whole page of a proxy.
const KEPT_TEXT: usize = 2000;

impl ErrorBody {
    fn read(body: &[u8]) -> Self {
        let Ok(Value::Object(json)) = serde_json::from_slice::<Value>(body) else {
            let text = String::from_utf8_lossy(&body[..body.len().min(KEPT_TEXT)]).into_owned();
            return Self { code: None, text };
        };
        let sentence = |key: &str| json.get(key).and_then(Value::as_str).map(str::to_owned);
        Self {
            code: json.get("code").and_then(number),
            text: sentence("message")
                .or_else(|| sentence("detail"))
                .or_else(|| sentence("title"))
                .unwrap_or_default()
                .chars()
                .take(KEPT_TEXT)
                .collect(),
        }
    }
}

fn number(value: &Value) -> Option<u32> {
    match value {
        Value::Number(number) => number.as_u64()?.try_into().ok(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_failed(status: u16, body: &str) -> Error {
        Error::from_answer(status, None, body.as_bytes(), false)
    }

    fn class(status: u16, body: &str) -> Option<Class> {
        read_failed(status, body)
            .rejection()
            .map(|rejection| rejection.class)
    }

    #[test]
    fn an_existing_group_is_named_by_its_sid() {
        let error = read_failed(
            409,
            r#"{"code":50438,"message":"Group MMS with given participant list already exists as Conversation CH0000000000000000000000000000abcd","more_info":"x","status":409}"#,
        );
        let rejection = error.rejection().unwrap();
        assert_eq!(rejection.class, Class::AlreadySo);
        assert_eq!(
            rejection.conversation_sid.as_ref().map(ConversationSid::as_str),
            Some("CH0000000000000000000000000000abcd")
        );
    }

    #[test]
    fn a_sentence_that_names_no_conversation_gives_none() {
        for message in [
            "already exists",
            "already exists as Conversation CH123",
            "already exists as Conversation é0000000000000000000000000000000000",
        ] {
            let error = read_failed(409, &format!(r#"{{"code":50438,"message":"{message}"}}"#));
            assert_eq!(error.rejection().unwrap().conversation_sid, None);
        }
    }

    #[test]
    fn the_code_decides_whatever_the_status() {
        assert_eq!(class(500, r#"{"code":50377}"#), Some(Class::Refused));
        assert!(matches!(
            read_failed(400, r#"{"code":20429}"#),
            Error::Throttled { .. }
        ));
        assert!(matches!(
            read_failed(400, r#"{"code":20404}"#),
            Error::NotFound { .. }
        ));
        assert!(matches!(
            read_failed(400, r#"{"code":50452}"#),
            Error::Configuration { .. }
        ));
    }

    #[test]
    fn the_three_shapes_of_error_bodies_are_read() {
        let rfc9457 =
            r#"{"type":"x","title":"Bad","status":400,"code":50407,"detail":"Invalid","errors":[]}"#;
        assert_eq!(read_failed(400, rfc9457).code(), Some(50407));
        assert_eq!(read_failed(400, rfc9457).rejection().unwrap().text(), "Invalid");
        let other = r#"{"code":"50407","message":"Invalid","httpStatusCode":400,"userError":true}"#;
        assert_eq!(read_failed(400, other).code(), Some(50407));
        let classic = r#"{"code":50407,"message":"Invalid","more_info":"x","status":400}"#;
        assert_eq!(
            read_failed(400, classic).rejection().unwrap().class,
            Class::Refused
        );
    }

    #[test]
    fn without_a_code_the_status_decides() {
        let html = "<html><body>502 Bad Gateway</body></html>";
        assert!(matches!(
            read_failed(502, html),
            Error::Unavailable {
                status: Some(502),
                ..
            }
        ));
        assert!(matches!(read_failed(503, ""), Error::Unavailable { .. }));
        assert!(matches!(read_failed(401, ""), Error::Configuration { .. }));
        assert!(matches!(
            read_failed(404, html),
            Error::NotFound { code: None, .. }
        ));
        assert!(matches!(read_failed(429, html), Error::Throttled { .. }));
        assert_eq!(class(400, "[]"), Some(Class::Refused));
        assert_eq!(class(400, r#"{"code":99999}"#), Some(Class::Refused));
        assert_eq!(class(409, r#"{"code":-1}"#), Some(Class::Refused));
    }

    #[test]
    fn a_failed_write_has_an_unknown_outcome_and_a_refused_one_has_not() {
        let write = |status, body: &str| Error::from_answer(status, None, body.as_bytes(), true);
        assert!(matches!(write(500, ""), Error::OutcomeUnknown { .. }));
        assert!(matches!(
            write(503, r#"{"code":20503}"#),
            Error::OutcomeUnknown { .. }
        ));
        assert!(matches!(write(400, r#"{"code":50513}"#), Error::Rejected(_)));
        assert!(matches!(write(429, ""), Error::Throttled { .. }));
        assert!(!write(500, "").may_repeat());
        assert!(write(429, "").may_repeat());
    }

    #[test]
    fn nothing_but_not_found_settles_an_unknown_outcome() {
        let after = |status, body: &str| read_failed(status, body).after_unknown_outcome();
        assert!(matches!(
            after(400, r#"{"code":50444}"#),
            Error::OutcomeUnknown {
                code: Some(50444),
                ..
            }
        ));
        assert!(matches!(
            after(429, ""),
            Error::OutcomeUnknown {
                status: Some(429),
                ..
            }
        ));
        assert!(matches!(after(503, ""), Error::OutcomeUnknown { .. }));
        assert!(matches!(after(404, ""), Error::NotFound { .. }));
    }

    #[test]
    fn neither_display_nor_debug_repeats_twilios_sentence() {
        let error = read_failed(400, r#"{"code":50407,"message":"Invalid address +15555550101"}"#);
        assert_eq!(error.to_string(), "Twilio refused (code 50407, status 400)");
        assert!(!format!("{error:?}").contains("5555550101"));
        assert_eq!(error.rejection().unwrap().text(), "Invalid address +15555550101");
    }

    #[test]
    fn a_code_we_do_not_know_has_no_class() {
        assert_eq!(class_of(50444), Some(Class::Refused));
        assert_eq!(class_of(99999), None);
    }
}
