//! What the phones of the world have received, and the words by which their owners opt out.

use jiff::Timestamp;

use crate::ids::PhoneNumber;

use super::Account;
use super::conversation::Media;

/// A text as a phone shows it.
#[derive(Clone)]
pub(crate) struct Text {
    /// The number it shows as the sender. A phone never learns of identities.
    pub(crate) from: PhoneNumber,
    /// Everyone in the group thread, this phone included; empty for 1:1.
    pub(crate) members: Vec<PhoneNumber>,
    pub(crate) body: Option<String>,
    pub(crate) media: Vec<Media>,
    pub(crate) at: Timestamp,
}

/// A word that Twilio acts upon wherever a handset sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keyword {
    Stop,
    Start,
    Help,
}

impl Keyword {
    pub(crate) fn of(body: Option<&str>) -> Option<Self> {
        match body?.trim().to_uppercase().as_str() {
            "STOP" | "STOPALL" | "UNSUBSCRIBE" | "CANCEL" | "END" | "QUIT" | "OPTOUT" | "REVOKE" => {
                Some(Self::Stop)
            }
            "START" | "YES" | "UNSTOP" => Some(Self::Start),
            "HELP" | "INFO" => Some(Self::Help),
            _ => None,
        }
    }

    /// What the sender, and nobody else, is answered.
    fn reply(self) -> &'static str {
        match self {
            Self::Stop => {
                "You have successfully been unsubscribed. You will not receive any more messages from this number. \
                 Reply START to resubscribe."
            }
            Self::Start => {
                "You have successfully been re-subscribed to messages from this number. Reply HELP for help. Reply \
                 STOP to unsubscribe."
            }
            Self::Help => "Reply STOP to unsubscribe.",
        }
    }
}

impl Account {
    /// Twilio's default handling of opt-out keywords. It holds for all numbers of the messaging service.
    pub(super) fn heed_keyword(&mut self, sender: &PhoneNumber, number: &PhoneNumber, body: Option<&str>) {
        let Some(keyword) = Keyword::of(body) else {
            return;
        };
        match keyword {
            Keyword::Stop => {
                self.opted_out.insert(sender.clone());
            }
            Keyword::Start => {
                self.opted_out.remove(sender);
            }
            Keyword::Help => {}
        }
        let reply = Text {
            from: number.clone(),
            members: Vec::new(),
            body: Some(keyword.reply().to_owned()),
            media: Vec::new(),
            at: self.now(),
        };
        self.handsets.entry(sender.clone()).or_default().push(reply);
    }
}
