//! One function per endpoint of Conversations v1 that we call, in the form that names the service.
//!
//! Creates are sent once: where it is not known what came of them, the caller reads before it sends again. Updates and
//! deletes are repeated by themselves, since twice is as good as once; a delete that is repeated may therefore answer
//! `NotFound` for what it deleted itself, so `NotFound` means "gone" to whoever deletes.

use url::Url;

use super::model::{
    AddressConfiguration, Conversation, ConversationState, Message, Participant, ParticipantConversation,
    Receipt, ServiceConfiguration, WebhookConfiguration,
};
use super::requests::{
    ConversationUpdate, MessageUpdate, NewAddressConfiguration, NewConversation, NewMessage, NewParticipant,
    ParticipantUpdate, WebhookConfigurationUpdate,
};
use super::{Client, Error, Pages, Repeat};
use crate::ids::{ConversationSid, Identity, MessageSid, ParticipantSid, PhoneNumber};

/// The page sizes that Twilio grants at most; of messages, which are large, only half of it.
const LARGE_PAGE: &str = "100";
const SMALL_PAGE: &str = "50";

/// Which conversations to list.
#[derive(Debug, Clone, Default)]
pub struct ConversationFilter {
    pub state: Option<ConversationState>,
    /// The first day of creation, inclusive.
    pub created_from: Option<jiff::civil::Date>,
    /// The last day of creation, inclusive.
    pub created_to: Option<jiff::civil::Date>,
}

/// The order of messages by their index.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    OldestFirst,
    NewestFirst,
}

/// Whose conversations to list. Twilio takes one of the two.
#[derive(Debug, Clone, Copy)]
pub enum Of<'a> {
    Address(&'a PhoneNumber),
    Identity(&'a Identity),
}

const CONVERSATIONS: &str = "/v1/Services/{IS}/Conversations";
const CONVERSATION: &str = "/v1/Services/{IS}/Conversations/{CH}";
const CONVERSATION_BY_NAME: &str = "/v1/Services/{IS}/Conversations/{UniqueName}";
const WITH_PARTICIPANTS: &str = "/v1/Services/{IS}/ConversationWithParticipants";
const PARTICIPANTS: &str = "/v1/Services/{IS}/Conversations/{CH}/Participants";
const PARTICIPANT: &str = "/v1/Services/{IS}/Conversations/{CH}/Participants/{MB}";
const MESSAGES: &str = "/v1/Services/{IS}/Conversations/{CH}/Messages";
const MESSAGE: &str = "/v1/Services/{IS}/Conversations/{CH}/Messages/{IM}";
const RECEIPTS: &str = "/v1/Services/{IS}/Conversations/{CH}/Messages/{IM}/Receipts";
const PARTICIPANT_CONVERSATIONS: &str = "/v1/Services/{IS}/ParticipantConversations";
const USER: &str = "/v1/Services/{IS}/Users/{Identity}";
const SERVICE_CONFIGURATION: &str = "/v1/Services/{IS}/Configuration";
const SERVICE_WEBHOOKS: &str = "/v1/Services/{IS}/Configuration/Webhooks";
const ACCOUNT_WEBHOOKS: &str = "/v1/Configuration/Webhooks";
const ADDRESSES: &str = "/v1/Configuration/Addresses";

/// Conversations.
impl Client {
    pub async fn fetch_conversation(&self, sid: &ConversationSid) -> Result<Conversation, Error> {
        self.read(CONVERSATION, self.conversation_url(sid, &[])).await
    }

    pub async fn fetch_conversation_by_unique_name(&self, name: &str) -> Result<Conversation, Error> {
        // A URL cannot say these names: they mean "here" and "above".
        if matches!(name, "" | "." | "..") {
            return Err(Error::Malformed {
                reason: "such a unique name cannot stand in a path".to_owned(),
            });
        }
        let url = self.service_url(&["Conversations", name]);
        self.read(CONVERSATION_BY_NAME, url).await
    }

    /// Conversations by their time of creation. There is no "changed since" at Twilio.
    pub fn list_conversations(&self, filter: &ConversationFilter) -> Pages<Conversation> {
        let mut url = with_page_size(self.service_url(&["Conversations"]), LARGE_PAGE);
        if let Some(state) = &filter.state {
            url.query_pairs_mut().append_pair("State", state.as_str());
        }
        if let Some(day) = filter.created_from {
            url.query_pairs_mut().append_pair("StartDate", &day.to_string());
        }
        if let Some(day) = filter.created_to {
            url.query_pairs_mut().append_pair("EndDate", &day.to_string());
        }
        Pages::new(self, CONVERSATIONS, "conversations", url)
    }

    /// Creates an empty conversation.
    pub async fn create_conversation(&self, new: &NewConversation) -> Result<Conversation, Error> {
        let url = self.service_url(&["Conversations"]);
        self.write(CONVERSATIONS, url, new.form(), Repeat::Once).await
    }

    /// Creates a conversation with its members. It comes back `initializing`, becomes `active` when the members are in,
    /// and `closed` where that failed; the members' SIDs are to be listed after.
    pub async fn create_conversation_with_participants(
        &self,
        new: &NewConversation,
        participants: &[NewParticipant],
    ) -> Result<Conversation, Error> {
        let url = self.service_url(&["ConversationWithParticipants"]);
        self.write(WITH_PARTICIPANTS, url, new.form_with(participants), Repeat::Once)
            .await
    }

    pub async fn update_conversation(
        &self,
        sid: &ConversationSid,
        update: &ConversationUpdate,
    ) -> Result<Conversation, Error> {
        // Closing twice is refused the second time (50377), and would look as if the first had failed.
        let repeat = match update.state {
            Some(ConversationState::Closed) => Repeat::Once,
            _ => Repeat::SafeWrite,
        };
        let url = self.conversation_url(sid, &[]);
        self.write(CONVERSATION, url, update.form(), repeat).await
    }

    /// Deletes a conversation with its participants and messages, for good.
    pub async fn delete_conversation(&self, sid: &ConversationSid) -> Result<(), Error> {
        self.delete(CONVERSATION, self.conversation_url(sid, &[])).await
    }

    /// The conversations that a number or an identity takes part in.
    pub fn list_participant_conversations(&self, of: Of<'_>) -> Pages<ParticipantConversation> {
        let mut url = with_page_size(self.service_url(&["ParticipantConversations"]), SMALL_PAGE);
        let (key, value) = match of {
            Of::Address(number) => ("Address", number.as_str()),
            Of::Identity(identity) => ("Identity", identity.as_str()),
        };
        url.query_pairs_mut().append_pair(key, value);
        Pages::new(self, PARTICIPANT_CONVERSATIONS, "conversations", url)
    }

    fn conversation_url(&self, sid: &ConversationSid, below: &[&str]) -> Url {
        let mut segments = vec!["Conversations", sid.as_str()];
        segments.extend_from_slice(below);
        self.service_url(&segments)
    }
}

/// Participants.
impl Client {
    pub fn list_participants(&self, conversation: &ConversationSid) -> Pages<Participant> {
        let url = with_page_size(self.conversation_url(conversation, &["Participants"]), LARGE_PAGE);
        Pages::new(self, PARTICIPANTS, "participants", url)
    }

    pub async fn fetch_participant(
        &self,
        conversation: &ConversationSid,
        sid: &ParticipantSid,
    ) -> Result<Participant, Error> {
        let url = self.conversation_url(conversation, &["Participants", sid.as_str()]);
        self.read(PARTICIPANT, url).await
    }

    pub async fn create_participant(
        &self,
        conversation: &ConversationSid,
        new: &NewParticipant,
    ) -> Result<Participant, Error> {
        let url = self.conversation_url(conversation, &["Participants"]);
        self.write(PARTICIPANTS, url, new.form(), Repeat::Once).await
    }

    pub async fn update_participant(
        &self,
        conversation: &ConversationSid,
        sid: &ParticipantSid,
        update: &ParticipantUpdate,
    ) -> Result<Participant, Error> {
        let url = self.conversation_url(conversation, &["Participants", sid.as_str()]);
        self.write(PARTICIPANT, url, update.form(), Repeat::SafeWrite)
            .await
    }

    pub async fn delete_participant(
        &self,
        conversation: &ConversationSid,
        sid: &ParticipantSid,
    ) -> Result<(), Error> {
        let url = self.conversation_url(conversation, &["Participants", sid.as_str()]);
        self.delete(PARTICIPANT, url).await
    }
}

/// Messages and their receipts.
impl Client {
    pub fn list_messages(&self, conversation: &ConversationSid, order: Order) -> Pages<Message> {
        let mut url = with_page_size(self.conversation_url(conversation, &["Messages"]), SMALL_PAGE);
        let order = match order {
            Order::OldestFirst => "asc",
            Order::NewestFirst => "desc",
        };
        url.query_pairs_mut().append_pair("Order", order);
        Pages::new(self, MESSAGES, "messages", url)
    }

    pub async fn fetch_message(
        &self,
        conversation: &ConversationSid,
        sid: &MessageSid,
    ) -> Result<Message, Error> {
        let url = self.conversation_url(conversation, &["Messages", sid.as_str()]);
        self.read(MESSAGE, url).await
    }

    /// Sends a message, once. With [`Error::OutcomeUnknown`] list the newest and look for it before sending again.
    pub async fn create_message(
        &self,
        conversation: &ConversationSid,
        new: &NewMessage,
    ) -> Result<Message, Error> {
        let url = self.conversation_url(conversation, &["Messages"]);
        self.write(MESSAGES, url, new.form(), Repeat::Once).await
    }

    pub async fn update_message(
        &self,
        conversation: &ConversationSid,
        sid: &MessageSid,
        update: &MessageUpdate,
    ) -> Result<Message, Error> {
        let url = self.conversation_url(conversation, &["Messages", sid.as_str()]);
        self.write(MESSAGE, url, update.form(), Repeat::SafeWrite).await
    }

    pub async fn delete_message(
        &self,
        conversation: &ConversationSid,
        sid: &MessageSid,
    ) -> Result<(), Error> {
        let url = self.conversation_url(conversation, &["Messages", sid.as_str()]);
        self.delete(MESSAGE, url).await
    }

    pub fn list_receipts(&self, conversation: &ConversationSid, message: &MessageSid) -> Pages<Receipt> {
        let url = self.conversation_url(conversation, &["Messages", message.as_str(), "Receipts"]);
        Pages::new(
            self,
            RECEIPTS,
            "delivery_receipts",
            with_page_size(url, SMALL_PAGE),
        )
    }
}

/// Users.
impl Client {
    /// Deletes a user, and with it its seats.
    pub async fn delete_user(&self, identity: &Identity) -> Result<(), Error> {
        // A URL cannot say these names: they mean "here" and "above".
        if matches!(identity.as_str(), "." | "..") {
            return Err(Error::Malformed {
                reason: "such an identity cannot stand in a path".to_owned(),
            });
        }
        let url = self.service_url(&["Users", identity.as_str()]);
        self.delete(USER, url).await
    }
}

/// How the account and the service are set up.
impl Client {
    pub async fn fetch_service_configuration(&self) -> Result<ServiceConfiguration, Error> {
        self.read(SERVICE_CONFIGURATION, self.service_url(&["Configuration"]))
            .await
    }

    pub async fn fetch_webhook_configuration(&self) -> Result<WebhookConfiguration, Error> {
        let url = self.service_url(&["Configuration", "Webhooks"]);
        self.read(SERVICE_WEBHOOKS, url).await
    }

    pub async fn update_webhook_configuration(
        &self,
        update: &WebhookConfigurationUpdate,
    ) -> Result<WebhookConfiguration, Error> {
        let url = self.service_url(&["Configuration", "Webhooks"]);
        self.write(SERVICE_WEBHOOKS, url, update.form(), Repeat::SafeWrite)
            .await
    }

    /// The account's own webhooks, which those of the service appear to silence.
    pub async fn fetch_account_webhook_configuration(&self) -> Result<WebhookConfiguration, Error> {
        let url = self.account_url(&["Configuration", "Webhooks"]);
        self.read(ACCOUNT_WEBHOOKS, url).await
    }

    pub fn list_address_configurations(&self) -> Pages<AddressConfiguration> {
        let url = with_page_size(self.account_url(&["Configuration", "Addresses"]), SMALL_PAGE);
        Pages::new(self, ADDRESSES, "address_configurations", url)
    }

    pub async fn create_address_configuration(
        &self,
        new: &NewAddressConfiguration,
    ) -> Result<AddressConfiguration, Error> {
        let url = self.account_url(&["Configuration", "Addresses"]);
        self.write(ADDRESSES, url, new.form(), Repeat::Once).await
    }
}

fn with_page_size(mut url: Url, rows: &str) -> Url {
    url.query_pairs_mut().append_pair("PageSize", rows);
    url
}
