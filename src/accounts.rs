//! The Twilio accounts that we work for: their settings and a client for each.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{self, OptOutPolicy, TransferMethod};
use crate::ids::{AccountSid, MessagingServiceSid, PhoneNumber};
use crate::twilio::{self, Client, ClientSettings};

/// All accounts, by SID. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Accounts(Arc<BTreeMap<AccountSid, Account>>);

#[derive(Debug, Clone)]
pub struct Account {
    pub account_sid: AccountSid,
    pub client: Client,
    pub messaging_service_sid: MessagingServiceSid,
    pub numbers: Vec<PhoneNumber>,
    pub transfer_method: TransferMethod,
    pub opt_out: OptOutPolicy,
}

impl Accounts {
    pub fn new(settings: &config::Twilio) -> Result<Self, twilio::BuildError> {
        let accounts = settings
            .accounts
            .iter()
            .map(|account| {
                let client = Client::new(client_settings(settings, account))?;
                let account = Account {
                    account_sid: account.account_sid.clone(),
                    client,
                    messaging_service_sid: account.messaging_service_sid.clone(),
                    numbers: account.numbers.clone(),
                    transfer_method: account.transfer_method,
                    opt_out: account.opt_out,
                };
                Ok((account.account_sid.clone(), account))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self(Arc::new(accounts)))
    }

    pub fn get(&self, sid: &str) -> Option<&Account> {
        self.0.get(sid)
    }

    pub fn iter(&self) -> impl Iterator<Item = &Account> {
        self.0.values()
    }
}

fn client_settings(settings: &config::Twilio, account: &config::Account) -> ClientSettings {
    let credentials = match (
        &account.api_key_sid,
        &account.api_key_secret,
        account.auth_tokens.first(),
    ) {
        (Some(sid), Some(secret), _) => twilio::Credentials::ApiKey {
            sid: sid.clone(),
            secret: secret.clone(),
        },
        (_, _, Some(token)) => twilio::Credentials::AuthToken(token.clone()),
        (_, _, None) => twilio::Credentials::AuthToken(String::new().into()),
    };
    ClientSettings {
        base_url: settings.base_url.clone(),
        media_base_url: settings.media_base_url(),
        account_sid: account.account_sid.clone(),
        credentials,
        service_sid: account.service_sid.clone(),
        max_in_flight: account.max_in_flight,
        timeouts: twilio::Timeouts {
            connect: settings.connect_timeout,
            call: settings.call_timeout,
        },
        // The queue repeats too, and later; a task must end within its lease.
        retry: twilio::RetryPolicy {
            max_attempts: 2,
            first_pause: Duration::from_millis(250),
            max_pause: Duration::from_secs(1),
            max_retry_after: Duration::from_secs(3),
        },
    }
}
