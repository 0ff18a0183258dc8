//! What a client has to know before it can call: where, as whom, and with how much patience.

use std::time::Duration;

use secrecy::SecretString;
use url::{Host, Url};

use crate::ids::{AccountSid, ApiKeySid, ServiceSid};

#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Scheme, host and port, `https://conversations.twilio.com` or the sandbox; `/v1/…` is added here.
    pub base_url: Url,
    /// The same of the media service, `https://mcs.us1.twilio.com` or the sandbox.
    pub media_base_url: Url,
    pub account_sid: AccountSid,
    pub credentials: Credentials,
    pub service_sid: ServiceSid,
    /// Calls at once; Twilio limits them by account, and advises about 10.
    pub max_in_flight: usize,
    pub timeouts: Timeouts,
    pub retry: RetryPolicy,
}

/// How we say who we are. An API key is better: it can be revoked by itself.
#[derive(Clone, Debug)]
pub enum Credentials {
    ApiKey { sid: ApiKeySid, secret: SecretString },
    AuthToken(SecretString),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    pub connect: Duration,
    /// From sending to the last byte of the answer; also how long a call waits for its turn.
    pub call: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(3),
            call: Duration::from_secs(10),
        }
    }
}

/// How often a call is tried that may be repeated, with pauses that double, jittered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// All tries, the first one included; 1 never repeats.
    pub max_attempts: usize,
    pub first_pause: Duration,
    pub max_pause: Duration,
    /// The longest `Retry-After` that is waited out here; a longer one is cut to it.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            max_attempts: 4,
            first_pause: Duration::from_millis(250),
            max_pause: Duration::from_secs(4),
            max_retry_after: Duration::from_secs(10),
        }
    }
}

impl ClientSettings {
    pub(super) fn check(&self) -> Result<(), BuildError> {
        if !is_origin(&self.base_url) {
            return Err(BuildError::BaseUrl);
        }
        if !is_origin(&self.media_base_url) {
            return Err(BuildError::MediaBaseUrl);
        }
        if self.max_in_flight == 0 {
            return Err(BuildError::MaxInFlight);
        }
        Ok(())
    }

    /// The sandbox and tests: a proxy of the environment is not for them.
    pub(super) fn is_on_this_machine(&self) -> bool {
        match self.base_url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        }
    }

    /// A time within which every call ends, for leases that must outlive it: each try waits for its turn, then for its
    /// answer, and pauses at most as long as is allowed.
    pub fn longest_call(&self) -> Duration {
        // Jitter adds up to the pause itself.
        let pause = (self.retry.max_pause * 2).max(self.retry.max_retry_after);
        let tries = u32::try_from(self.retry.max_attempts.max(1)).unwrap_or(u32::MAX);
        (self.timeouts.call * 2 + pause).saturating_mul(tries)
    }
}

/// Why a client cannot be made; all of them are mistakes in the settings.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    #[error("expected a base URL like https://conversations.twilio.com: scheme, host and port, nothing else")]
    BaseUrl,
    #[error(
        "expected a base URL of the media service like https://mcs.us1.twilio.com: scheme, host and port, nothing else"
    )]
    MediaBaseUrl,
    #[error("expected at least one call in flight")]
    MaxInFlight,
    #[error("cannot set the HTTP client up")]
    Http(#[source] reqwest::Error),
}

/// Whether `url` is a place only: paging compares it, and paths are put behind it.
fn is_origin(url: &Url) -> bool {
    matches!(url.scheme(), "http" | "https")
        && url.has_host()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none()
        && url.username().is_empty()
        && url.password().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_call_covers_every_try_and_every_pause() {
        let settings = ClientSettings {
            base_url: "https://conversations.twilio.com".parse().unwrap(),
            media_base_url: "https://mcs.us1.twilio.com".parse().unwrap(),
            account_sid: "AC00000000000000000000000000000001".parse().unwrap(),
            credentials: Credentials::AuthToken("secret".into()),
            service_sid: "IS00000000000000000000000000000001".parse().unwrap(),
            max_in_flight: 10,
            timeouts: Timeouts::default(),
            retry: RetryPolicy::default(),
        };
        // Four tries of 10 s for the turn, 10 s for the answer and 10 s for what Twilio asks us to wait.
        assert_eq!(settings.longest_call(), Duration::from_mins(2));
    }
}
