//! Taking typed values out of a form, and remembering what was not taken and what could not be read.

use std::collections::BTreeSet;

use super::ParseError;
use crate::ids::{
    AccountSid, ConversationSid, MessageSid, MessagingServiceSid, ParticipantSid, ReceiptSid, RoleSid,
    ServiceSid, UserSid,
};
use crate::twilio::form::Form;
use crate::twilio::model::Media;
use crate::twilio::model::values::{
    AddressKind, ConversationState, DeliveryStatus, Hidden, Source, SourceTime, StateReason,
};

/// A value that a form field may hold.
pub(super) trait FieldValue: Sized {
    /// `None` where the text, which is not blank, is no such value.
    fn read(text: &str) -> Option<Self>;
}

macro_rules! field_values {
    (checked: $($checked:ty),+; total: $($total:ty),+; parsed: $($parsed:ty),+) => {
        $(impl FieldValue for $checked {
            fn read(text: &str) -> Option<Self> {
                Self::try_from(text).ok()
            }
        })+
        $(impl FieldValue for $total {
            fn read(text: &str) -> Option<Self> {
                Some(Self::from(text))
            }
        })+
        $(impl FieldValue for $parsed {
            fn read(text: &str) -> Option<Self> {
                text.parse().ok()
            }
        })+
    };
}

field_values! {
    checked: AccountSid, ServiceSid, ConversationSid, ParticipantSid, MessageSid, ReceiptSid, UserSid, RoleSid,
        MessagingServiceSid, SourceTime;
    total: String, Hidden, ConversationState, StateReason, Source, AddressKind, DeliveryStatus;
    parsed: bool, i64, u32
}

pub(super) struct Fields<'a> {
    form: &'a Form,
    known: BTreeSet<&'static str>,
    unread: Vec<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(form: &'a Form) -> Self {
        Self {
            form,
            known: BTreeSet::new(),
            unread: Vec::new(),
        }
    }

    /// The value of a key that makes the event what it is.
    pub(super) fn required<T: FieldValue>(
        &mut self,
        field: &'static str,
        expected: &'static str,
    ) -> Result<T, ParseError> {
        self.known.insert(field);
        self.form
            .get(field)
            .filter(|text| !text.is_empty())
            .and_then(T::read)
            .ok_or(ParseError { field, expected })
    }

    /// The value of a key that may be missing or blank, which mean the same.
    pub(super) fn optional<T: FieldValue>(&mut self, field: &'static str) -> Option<T> {
        self.known.insert(field);
        let text = self.form.get(field).filter(|text| !text.is_empty())?;
        let value = T::read(text);
        if value.is_none() {
            self.unread.push(field);
        }
        value
    }

    /// A text of which blank and missing mean different things.
    pub(super) fn as_it_is(&mut self, field: &'static str) -> Option<Hidden> {
        self.known.insert(field);
        self.form.get(field).map(Hidden::from)
    }

    /// A list in any of the encodings that Twilio was seen to use: the key repeated, commas, commas in brackets.
    pub(super) fn addresses(&mut self, field: &'static str) -> Vec<Hidden> {
        self.known.insert(field);
        self.form
            .get_all(field)
            .flat_map(listed)
            .map(Hidden::from)
            .collect()
    }

    /// One address. A list of one is one, too; a list of several is not to be guessed from.
    pub(super) fn only_address(&mut self, field: &'static str) -> Option<Hidden> {
        let mut addresses = self.addresses(field);
        if addresses.len() > 1 {
            self.unread.push(field);
            return None;
        }
        addresses.pop()
    }

    /// JSON text of a list, `null` or nothing.
    pub(super) fn media(&mut self, field: &'static str) -> Vec<Media> {
        self.known.insert(field);
        let Some(text) = self.form.get(field).filter(|text| !text.is_empty()) else {
            return Vec::new();
        };
        if let Ok(media) = serde_json::from_str::<Option<Vec<Media>>>(text) {
            return media.unwrap_or_default();
        }
        self.unread.push(field);
        Vec::new()
    }

    /// The keys that could not be read, and the fields that nobody asked for.
    pub(super) fn rest(self) -> (Vec<&'static str>, Form) {
        let extra = self
            .form
            .fields()
            .iter()
            .filter(|(key, _)| !self.known.contains(key.as_str()))
            .cloned()
            .collect();
        (self.unread, extra)
    }
}

fn listed(value: &str) -> impl Iterator<Item = &str> {
    let value = value.trim();
    let inner = value
        .strip_prefix('[')
        .and_then(|value| value.strip_suffix(']'))
        .unwrap_or(value);
    inner
        .split(',')
        .map(|address| address.trim().trim_matches('"'))
        .filter(|address| !address.is_empty())
}
