//! How a Twilio account has to be set up for us: what is there, what is wanted, and making it so.
//!
//! Sources: Twilio's pages "Conversations Webhooks" (scopes, filters), "Inbound Message Handling & Autocreation"
//! (address configurations) and "Group Texting in Conversations".

use crate::accounts::Account;
use crate::config::PublicBaseUrl;
use crate::ids::PhoneNumber;
use crate::twilio::Error;
use crate::twilio::model::{
    AddressConfiguration, AddressKind, AutoCreationKind, Hidden, WebhookConfiguration, WebhookMethod,
};
use crate::twilio::requests::{NewAddressConfiguration, WebhookConfigurationUpdate};

/// The events that the mirror needs. All are after the change, so that nobody waits for our answer.
pub const FILTERS: [&str; 11] = [
    "onConversationAdded",
    "onConversationUpdated",
    "onConversationRemoved",
    "onConversationStateUpdated",
    "onMessageAdded",
    "onMessageUpdated",
    "onMessageRemoved",
    "onParticipantAdded",
    "onParticipantUpdated",
    "onParticipantRemoved",
    "onDeliveryUpdated",
];

/// The path of the webhook endpoint below the public base URL.
pub const WEBHOOK_PATH: &str = "/webhooks/twilio/conversations";

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// What was looked at, like `service webhooks`.
    pub subject: String,
    /// What is there, and what to do about it.
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    Good,
    Warning,
    Bad,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Good => "ok",
            Self::Warning => "warning",
            Self::Bad => "wrong",
        }
    }
}

impl Finding {
    fn new(severity: Severity, subject: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            severity,
            subject: subject.into(),
            message: message.into(),
        }
    }
}

/// The URL that Twilio is to call.
pub fn webhook_url(base: &PublicBaseUrl) -> String {
    format!("{base}{WEBHOOK_PATH}")
}

/// Looks at an account's set-up. An account that cannot be read is a finding too.
pub async fn inspect(account: &Account, base: &PublicBaseUrl) -> Vec<Finding> {
    let mut findings = Vec::new();
    match account.client.fetch_webhook_configuration().await {
        Ok(found) => findings.extend(judge_service_webhooks(&found, base)),
        Err(error) => {
            findings.push(unreadable("service webhooks", &error));
            return findings;
        }
    }
    match account.client.fetch_account_webhook_configuration().await {
        Ok(found) => findings.push(judge_account_webhooks(&found)),
        Err(error) => findings.push(unreadable("account webhooks", &error)),
    }
    match account.client.list_address_configurations().all().await {
        Ok(found) => findings.extend(judge_addresses(account, &found)),
        Err(error) => findings.push(unreadable("address configurations", &error)),
    }
    findings
}

/// Makes what is missing: the service's webhooks, and autocreation for every number of ours. What is there already and
/// differs for an address is left alone and told by [`inspect`], since somebody may have wanted it so.
pub async fn apply(account: &Account, base: &PublicBaseUrl) -> Result<(), Error> {
    let update = WebhookConfigurationUpdate {
        method: Some(WebhookMethod::Post),
        filters: FILTERS.iter().map(|filter| (*filter).to_owned()).collect(),
        pre_webhook_url: None,
        post_webhook_url: Some(webhook_url(base).into()),
    };
    account.client.update_webhook_configuration(&update).await?;
    let present = account.client.list_address_configurations().all().await?;
    for number in &account.numbers {
        if find(&present, number).is_some() {
            continue;
        }
        let new = NewAddressConfiguration {
            kind: AddressKind::Sms,
            address: number.clone(),
            friendly_name: None,
            autocreate: true,
            auto_creation_kind: AutoCreationKind::Default,
            conversation_service_sid: account.client.settings().service_sid.clone(),
        };
        account.client.create_address_configuration(&new).await?;
    }
    Ok(())
}

fn judge_service_webhooks(found: &WebhookConfiguration, base: &PublicBaseUrl) -> Vec<Finding> {
    const SUBJECT: &str = "service webhooks";
    let mut findings = Vec::new();
    let url = found.post_webhook_url.as_ref().map(Hidden::as_str);
    let wanted = webhook_url(base);
    // What follows `#` are connection overrides, which are neither sent nor signed.
    if url.and_then(|url| url.split('#').next()) != Some(wanted.as_str()) {
        let message =
            format!("PostWebhookUrl is not {wanted}: no webhook reaches us; run `hookswitch check --fix`");
        findings.push(Finding::new(Severity::Bad, SUBJECT, message));
    }
    let missing: Vec<&str> = FILTERS
        .into_iter()
        .filter(|filter| !found.filters.iter().any(|has| has == filter))
        .collect();
    if !missing.is_empty() {
        let message = format!(
            "these events are not sent: {}; run `hookswitch check --fix`",
            missing.join(", ")
        );
        findings.push(Finding::new(Severity::Bad, SUBJECT, message));
    }
    if found.pre_webhook_url.is_some() {
        let message =
            "a PreWebhookUrl is set: every inbound message waits for it, and its refusal loses the message";
        findings.push(Finding::new(Severity::Warning, SUBJECT, message));
    }
    if findings.is_empty() {
        findings.push(Finding::new(Severity::Good, SUBJECT, "all events come to us"));
    }
    findings
}

fn judge_account_webhooks(found: &WebhookConfiguration) -> Finding {
    const SUBJECT: &str = "account webhooks";
    if found.post_webhook_url.is_some() || found.pre_webhook_url.is_some() {
        let message =
            "webhooks are set for the account too; those of the service silence them, so remove one of both";
        return Finding::new(Severity::Warning, SUBJECT, message);
    }
    Finding::new(Severity::Good, SUBJECT, "none, as it should be")
}

fn judge_addresses(account: &Account, found: &[AddressConfiguration]) -> Vec<Finding> {
    if account.numbers.is_empty() {
        let message =
            "no numbers are configured: set the account's `numbers`, or no group text can be started";
        return vec![Finding::new(Severity::Bad, "numbers", message)];
    }
    account
        .numbers
        .iter()
        .map(|number| judge_address(account, number, find(found, number)))
        .collect()
}

fn judge_address(account: &Account, number: &PhoneNumber, found: Option<&AddressConfiguration>) -> Finding {
    // The last four digits tell an operator which one is meant.
    let tail = &number.as_str()[number.as_str().len().saturating_sub(4)..];
    let subject = format!("number ending in {tail}");
    let Some(found) = found else {
        let message =
            "no address configuration: a group that a customer starts is lost; run `hookswitch check --fix`";
        return Finding::new(Severity::Bad, subject, message);
    };
    let auto = &found.auto_creation;
    let service = &account.client.settings().service_sid;
    if !auto.enabled {
        return Finding::new(
            Severity::Bad,
            subject,
            "autocreation is off: a group that a customer starts is lost",
        );
    }
    if auto.conversation_service_sid.as_ref() != Some(service) {
        let message = format!("autocreation is for another conversation service than {service}");
        return Finding::new(Severity::Bad, subject, message);
    }
    Finding::new(Severity::Good, subject, "groups that customers start come to us")
}

fn find<'a>(found: &'a [AddressConfiguration], number: &PhoneNumber) -> Option<&'a AddressConfiguration> {
    found.iter().find(|one| {
        one.address
            .as_ref()
            .is_some_and(|address| address.as_str() == number.as_str())
    })
}

fn unreadable(subject: &str, error: &Error) -> Finding {
    let hint = match error {
        Error::Configuration { .. } => "check the account's credentials",
        Error::NotFound { .. } => "check the account's `service_sid`",
        _ => "check `twilio.base_url` and the network",
    };
    Finding::new(Severity::Bad, subject, format!("cannot be read: {error}; {hint}"))
}
