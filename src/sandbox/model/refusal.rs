//! The closed list of refusals: Twilio's codes, with the HTTP status and the sentence that go with each.
//!
//! Codes and their meaning are the error dictionary's. Twilio publishes no HTTP status per code; those known from
//! the field are used (409 for what exists already, 404 for what is not there), the others are 400.

use std::fmt;

/// One rule of Twilio's: what a request that breaks it is answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) code: u32,
    pub(crate) status: u16,
    text: &'static str,
}

/// A request refused by a [`Rule`], in words that never hold a phone number or a message's text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: u32,
    pub(crate) status: u16,
    pub(crate) message: String,
}

impl Rule {
    pub(crate) fn refuse(self) -> Refusal {
        self.saying(self.text)
    }

    /// Refuses in other words than the rule's own.
    pub(crate) fn saying(self, message: impl Into<String>) -> Refusal {
        Refusal {
            code: self.code,
            status: self.status,
            message: message.into(),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code)
    }
}

macro_rules! rules {
    ($($name:ident = $code:literal, $status:literal, $text:literal;)*) => {
        $(pub(crate) const $name: Rule = Rule { code: $code, status: $status, text: $text };)*

        /// Every rule, for tests and for documentation.
        #[cfg(test)]
        const ALL: &[Rule] = &[$($name),*];
    };
}

rules! {
    // Of every Twilio API
    INVALID_PARAMETER = 20001, 400, "Invalid parameter";
    AUTHENTICATION = 20003, 401, "Authenticate";
    METHOD_NOT_ALLOWED = 20004, 405, "Method not allowed";
    NOT_FOUND = 20404, 404, "The requested resource was not found";
    NOT_MODIFIABLE = 20409, 409, "Conversation is initializing and cannot be changed yet";
    PAYLOAD_TOO_LARGE = 20413, 413, "Request body is too large";
    MEDIA_TYPE = 20415, 415, "Request body must be application/x-www-form-urlencoded";
    TOO_MANY_REQUESTS = 20429, 429, "Too many requests";
    SERVER_ERROR = 20500, 500, "Internal server error";
    BAD_GATEWAY = 20502, 502, "Bad gateway";
    UNAVAILABLE = 20503, 503, "Service unavailable";
    GATEWAY_TIMEOUT = 20504, 504, "Gateway timeout";
    // Webhooks
    WEBHOOK_METHOD = 50053, 400, "Webhook method must be GET or POST";
    WEBHOOK_URL = 50054, 400, "Webhook URL is not a valid http or https URL";
    WEBHOOK_REFUSED = 50056, 400, "Command rejected by webhook";
    WEBHOOK_LIMIT = 50361, 400, "Conversation has too many webhooks";
    WEBHOOK_TARGET = 50364, 400, "Webhook target must be webhook, trigger or studio";
    WEBHOOK_FILTER = 50365, 400, "Webhook filter names no post-action event";
    WEBHOOK_TRIGGERS = 50366, 400, "Webhook of type trigger needs triggers";
    WEBHOOK_FLOW = 50368, 400, "Webhook of type studio needs a flow SID";
    WEBHOOK_SCOPED_URL = 50372, 400, "Webhook URL is missing or no valid http or https URL";
    // Users
    USER_EXISTS = 50201, 409, "User already exists";
    IDENTITY_MISSING = 50204, 400, "Identity not provided";
    IDENTITY_TOO_LONG = 50207, 400, "Identity is longer than 256 characters";
    IDENTITY_UNACCEPTABLE = 50211, 400, "Identity is not acceptable for this participant";
    // Conversations
    ATTRIBUTES_TOO_LONG = 50303, 400, "Attributes are too long";
    ATTRIBUTES_NOT_JSON = 50304, 400, "Attributes are not valid JSON";
    MESSAGING_SERVICE_INVALID = 50341, 400, "Messaging Service SID is not valid";
    MESSAGING_SERVICE_NOT_OURS = 50342, 400, "Messaging Service does not belong to this account";
    UNIQUE_NAME_TAKEN = 50353, 409, "Conversation with provided unique name already exists";
    STATE_EMPTY = 50374, 400, "Conversation state may not be empty";
    TIMER_INACTIVE_SHORT = 50375, 400, "Inactive timer is shorter than 1 minute";
    TIMER_CLOSED_SHORT = 50376, 400, "Closed timer is shorter than 10 minutes";
    CLOSED = 50377, 400, "Conversation is closed, which is final";
    STATE_INVALID = 50378, 400, "Conversation state is not valid";
    TIMER_INACTIVE_FORMAT = 50379, 400, "Inactive timer is no ISO 8601 duration";
    TIMER_CLOSED_FORMAT = 50380, 400, "Closed timer is no ISO 8601 duration";
    TIMER_WITHOUT_STATE = 50382, 400, "Timers were given without a state";
    CREATED_CLOSED = 50384, 400, "Conversation cannot be created closed";
    UNIQUE_NAME_IS_SID = 50390, 400, "Unique name must not look like a SID";
    // Participants
    ADDRESS_INVALID = 50407, 400, "Address is not valid for a participant";
    PROXY_INVALID = 50408, 400, "Proxy address is not valid";
    ADDRESS_IS_PROXY = 50409, 400, "Address and proxy address are the same";
    ADDRESS_EMPTY = 50411, 400, "Address is empty";
    PROXY_EMPTY = 50412, 400, "Proxy address is empty";
    PROXY_NOT_OURS = 50413, 400, "Proxy address does not belong to this account";
    CHANNELS_DIFFER = 50414, 400, "Address and proxy address are of different channels";
    PAIR_BOUND = 50416, 409, "A binding for this participant and proxy address already exists";
    TOO_MANY_PARTICIPANTS = 50417, 400, "Conversation has 1000 participants already";
    TOO_MANY_NON_CHAT = 50418, 400, "Conversation has 50 non-chat participants already";
    READ_INDEX = 50421, 400, "Last read message index is not valid";
    PAIRS_IN_USE = 50425, 409, "A participant's address and proxy address are in use in another conversation";
    TOO_MANY_AT_ONCE = 50426, 400, "No more than 10 participants can be created with a conversation";
    IDENTITY_IN_CONVERSATION = 50433, 409, "Participant with this identity already exists";
    // Group MMS
    NO_PROJECTED_ADDRESS = 50434, 400,
        "Group MMS participant has neither an address nor a projected address";
    ACTIVATION_FAILED = 50435, 400, "Group MMS activation failed";
    GROUP_FULL = 50436, 400, "Group MMS has 10 participants already";
    PARTICIPANT_EXISTS = 50437, 409, "Group MMS participant already exists";
    GROUP_EXISTS = 50438, 409, "Group MMS with given participant list already exists";
    PROJECTED_NOT_OURS = 50439, 400, "Projected address does not belong to this account";
    NO_PROXY_TO_REMOVE = 50440, 400, "Participant has no proxy address to remove";
    PROXY_WITHOUT_ADDRESS = 50441, 400, "Proxy address cannot be added to a participant without an address";
    NO_PROJECTED_TO_REMOVE = 50442, 400, "Participant has no projected address to remove";
    ALREADY_BOUND = 50443, 400, "Projected address cannot be added to a participant that has a binding";
    IDENTITY_NOT_ADDABLE = 50444, 400,
        "Identity cannot be added: one is assigned already, or there is no projected address";
    IDENTITY_AND_ADDRESS = 50451, 400, "Identity and Address were both given";
    // Messages
    AUTHOR_TOO_LONG = 50310, 400, "Author is longer than 256 characters";
    BODY_MISSING = 50503, 400, "Message body is missing";
    BODY_TOO_LONG = 50504, 400, "Message body is too long";
    MEDIA_NOT_FOUND = 50507, 400, "Media not found";
    MEDIA_REUSED = 50508, 400, "Media is part of a message already";
    MEDIA_SID = 50510, 400, "Media SID is not valid";
    MEDIA_SIZE = 50512, 400, "Media size is not valid";
    AUTHOR_NOT_IN_GROUP = 50513, 400, "Message author should be among Group MMS participants";
    CONTENT_UNKNOWN = 50526, 400, "Content template not found";
    // Address configuration
    ADDRESS_CONFIGURED = 50355, 409, "Address is configured already";
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_code_stands_for_one_rule_with_an_error_status() {
        let codes: BTreeSet<u32> = ALL.iter().map(|rule| rule.code).collect();
        assert_eq!(codes.len(), ALL.len());
        assert!(ALL.iter().all(|rule| (400..=599).contains(&rule.status)));
    }
}
