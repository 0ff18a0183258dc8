//! Address configuration (`/v1/Configuration/Addresses`): which numbers make conversations of inbound texts.

use jiff::Timestamp;

use crate::ids::{AddressSid, PhoneNumber, ServiceSid};

use super::conversation_webhooks::{conversation_filters, is_flow_sid};
use super::inbound::Outgoing;
use super::refusal::{ADDRESS_CONFIGURED, INVALID_PARAMETER, NOT_FOUND, Refusal};
use super::webhook::{ConversationWebhook, EventName, Method, Target, checked_url};
use super::{Account, checked_name, new_sid};

pub(crate) struct AddressConfiguration {
    pub(crate) serial: u64,
    pub(crate) sid: AddressSid,
    pub(crate) address: String,
    pub(crate) friendly_name: Option<String>,
    pub(crate) country: Option<String>,
    pub(crate) enabled: bool,
    pub(crate) kind: AutoCreation,
    /// None stands for the default service.
    pub(crate) service: Option<ServiceSid>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// What is attached to an autocreated conversation.
#[derive(Clone)]
pub(crate) enum AutoCreation {
    Default,
    Webhook {
        url: String,
        method: Method,
        filters: Vec<EventName>,
    },
    Studio {
        flow_sid: String,
        retry_count: u32,
    },
}

impl AutoCreation {
    pub(crate) fn as_str(&self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Webhook { .. } => "webhook",
            Self::Studio { .. } => "studio",
        }
    }
}

/// The parameters of an address configuration, as they came.
#[derive(Default)]
pub(crate) struct AddressFields {
    pub(crate) kind: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) friendly_name: Option<String>,
    pub(crate) country: Option<String>,
    pub(crate) enabled: Option<String>,
    pub(crate) auto_type: Option<String>,
    pub(crate) service: Option<String>,
    pub(crate) webhook_url: Option<String>,
    pub(crate) webhook_method: Option<String>,
    pub(crate) webhook_filters: Option<Vec<String>>,
    pub(crate) studio_flow_sid: Option<String>,
    pub(crate) studio_retry_count: Option<String>,
}

impl Account {
    pub(crate) fn address(&self, key: &str) -> Result<&AddressConfiguration, Refusal> {
        let found = self
            .addresses
            .iter()
            .find(|one| one.sid.as_str() == key || one.address == key);
        found.ok_or_else(|| NOT_FOUND.refuse())
    }

    /// The enabled configuration of one of our numbers.
    pub(super) fn autocreation(&self, number: &PhoneNumber) -> Option<&AddressConfiguration> {
        self.addresses
            .iter()
            .find(|one| one.enabled && one.address == number.as_str())
    }

    pub(crate) fn configure_address(&mut self, fields: &AddressFields) -> Result<AddressSid, Refusal> {
        let missing = |name: &str| INVALID_PARAMETER.saying(format!("{name} is required"));
        match fields.kind.as_deref().ok_or_else(|| missing("Type"))? {
            "sms" => {}
            "whatsapp" | "messenger" | "gbm" | "email" | "rcs" | "apple" | "chat" => {
                return Err(INVALID_PARAMETER.saying("only addresses of Type sms are emulated"));
            }
            _ => return Err(INVALID_PARAMETER.saying("Type is not valid")),
        }
        let address = fields.address.as_deref().ok_or_else(|| missing("Address"))?;
        let owned = PhoneNumber::try_from(address).is_ok_and(|number| self.numbers.contains(&number));
        if !owned {
            return Err(INVALID_PARAMETER.saying("Address is no number of this account"));
        }
        if self.addresses.iter().any(|one| one.address == address) {
            return Err(ADDRESS_CONFIGURED.refuse());
        }
        let now = self.now();
        let mut configuration = AddressConfiguration {
            serial: self.serial + 1,
            sid: new_sid(AddressSid::PREFIX),
            address: address.to_owned(),
            friendly_name: None,
            country: fields.country.clone(),
            enabled: false,
            kind: AutoCreation::Default,
            service: None,
            created: now,
            updated: now,
        };
        self.apply_address(&mut configuration, fields)?;
        self.next_serial();
        let sid = configuration.sid.clone();
        self.addresses.push(configuration);
        Ok(sid)
    }

    pub(crate) fn update_address(
        &mut self,
        key: &str,
        fields: &AddressFields,
    ) -> Result<AddressSid, Refusal> {
        let found = self.address(key)?;
        let mut next = AddressConfiguration {
            sid: found.sid.clone(),
            address: found.address.clone(),
            friendly_name: found.friendly_name.clone(),
            country: found.country.clone(),
            kind: found.kind.clone(),
            service: found.service.clone(),
            updated: self.now(),
            ..*found
        };
        self.apply_address(&mut next, fields)?;
        let sid = next.sid.clone();
        if let Some(place) = self.addresses.iter_mut().find(|one| one.sid == sid) {
            *place = next;
        }
        Ok(sid)
    }

    fn apply_address(
        &self,
        address: &mut AddressConfiguration,
        fields: &AddressFields,
    ) -> Result<(), Refusal> {
        if let Some(name) = &fields.friendly_name {
            address.friendly_name = checked_name("FriendlyName", name)?;
        }
        match fields.enabled.as_deref() {
            None => {}
            Some("true") => address.enabled = true,
            Some("false") => address.enabled = false,
            Some(_) => return Err(INVALID_PARAMETER.saying("AutoCreation.Enabled must be true or false")),
        }
        if let Some(text) = &fields.service {
            let sid = ServiceSid::try_from(text.as_str()).map_err(|_| {
                INVALID_PARAMETER.saying("AutoCreation.ConversationServiceSid is no service SID")
            })?;
            self.service(&sid)?;
            address.service = Some(sid);
        }
        let auto_type = fields.auto_type.as_deref().unwrap_or(address.kind.as_str());
        address.kind = match auto_type {
            "default" => AutoCreation::Default,
            "webhook" => webhook_kind(&address.kind, fields)?,
            "studio" => studio_kind(&address.kind, fields)?,
            _ => return Err(INVALID_PARAMETER.saying("AutoCreation.Type must be webhook, studio or default")),
        };
        Ok(())
    }

    pub(crate) fn remove_address(&mut self, key: &str) -> Result<(), Refusal> {
        let sid = self.address(key)?.sid.clone();
        self.addresses.retain(|one| one.sid != sid);
        Ok(())
    }

    /// What the configuration of the receiving number attaches to the conversation that `text` makes.
    pub(super) fn autocreation_webhooks(&mut self, text: &Outgoing) -> Vec<ConversationWebhook> {
        let kind = text
            .to
            .iter()
            .find_map(|number| self.autocreation(number))
            .map(|one| one.kind.clone());
        let target = match kind {
            None | Some(AutoCreation::Default) => return Vec::new(),
            Some(AutoCreation::Webhook { url, method, filters }) => Target::Webhook { url, method, filters },
            Some(AutoCreation::Studio { flow_sid, .. }) => Target::Studio { flow_sid },
        };
        vec![self.new_webhook(target)]
    }
}

fn webhook_kind(present: &AutoCreation, fields: &AddressFields) -> Result<AutoCreation, Refusal> {
    let (mut url, mut method, mut filters) = match present {
        AutoCreation::Webhook { url, method, filters } => (Some(url.clone()), *method, filters.clone()),
        AutoCreation::Default | AutoCreation::Studio { .. } => (None, Method::Post, Vec::new()),
    };
    if let Some(text) = &fields.webhook_url {
        url = checked_url(text.clone(), INVALID_PARAMETER)?;
    }
    if let Some(text) = &fields.webhook_method {
        method = Method::parse(text, INVALID_PARAMETER)?;
    }
    if let Some(names) = &fields.webhook_filters {
        filters = conversation_filters(names, INVALID_PARAMETER)?;
    }
    let url =
        url.ok_or_else(|| INVALID_PARAMETER.saying("AutoCreation.WebhookUrl is required for type webhook"))?;
    Ok(AutoCreation::Webhook { url, method, filters })
}

fn studio_kind(present: &AutoCreation, fields: &AddressFields) -> Result<AutoCreation, Refusal> {
    let (mut flow_sid, mut retry_count) = match present {
        AutoCreation::Studio {
            flow_sid,
            retry_count,
        } => (Some(flow_sid.clone()), *retry_count),
        AutoCreation::Default | AutoCreation::Webhook { .. } => (None, 0),
    };
    if let Some(text) = &fields.studio_flow_sid {
        flow_sid = Some(text.clone()).filter(|text| is_flow_sid(text));
    }
    if let Some(text) = &fields.studio_retry_count {
        retry_count = text
            .parse()
            .map_err(|_| INVALID_PARAMETER.saying("AutoCreation.StudioRetryCount is no number"))?;
    }
    let flow_sid = flow_sid
        .ok_or_else(|| INVALID_PARAMETER.saying("AutoCreation.StudioFlowSid is required for type studio"))?;
    Ok(AutoCreation::Studio {
        flow_sid,
        retry_count,
    })
}
