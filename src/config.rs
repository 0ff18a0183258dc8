//! Settings: read once from the built-in defaults, a file and the environment, checked, and carried as types.
//!
//! A wrong value stops the start with one line that names the key and what is expected; never the value, which may be
//! a secret.

mod load;

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::SecretString;
use serde::de::Error as _;
use serde::{Deserialize, Serialize};
use url::Url;

use crate::ids::{AccountSid, ApiKeySid, Identity, MessagingServiceSid, PhoneNumber, ServiceSid};
use crate::queue::Concurrency;

pub use load::ConfigError;

/// The defaults, as shipped.
pub const DEFAULTS: &str = include_str!("../config/default.toml");

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub http: Http,
    pub database: Database,
    pub twilio: Twilio,
    pub projection: Projection,
    pub queue: Queue,
    pub transfer: Transfer,
    pub handover: Handover,
    pub escalation: Escalation,
    pub group_text: GroupText,
    pub media: Media,
    pub sweep: Sweep,
    pub health: Health,
    pub audit: Audit,
    pub retention: Retention,
    pub log: Log,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Http {
    pub listen: SocketAddr,
    pub public_base_url: PublicBaseUrl,
    pub max_connections: usize,
    #[serde(deserialize_with = "duration")]
    pub header_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub body_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub shutdown_grace: Duration,
    pub pre_action_hook: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    pub url: Option<SecretString>,
    pub data_dir: PathBuf,
    pub bin_dir: Option<PathBuf>,
    pub max_connections: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Twilio {
    pub base_url: Url,
    /// None: Twilio's own, or with the emulator, where that is.
    #[serde(default)]
    pub media_base_url: Option<Url>,
    #[serde(deserialize_with = "duration")]
    pub call_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub connect_timeout: Duration,
    #[serde(default)]
    pub accounts: Vec<Account>,
}

impl Twilio {
    /// Where files are uploaded.
    pub fn media_base_url(&self) -> Url {
        let theirs = "https://mcs.us1.twilio.com";
        match &self.media_base_url {
            Some(url) => url.clone(),
            None if self
                .base_url
                .domain()
                .is_some_and(|host| host.ends_with("twilio.com")) =>
            {
                theirs.parse().expect("it is a URL")
            }
            None => self.base_url.clone(),
        }
    }
}

/// One Twilio account or subaccount.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Account {
    pub account_sid: AccountSid,
    pub auth_tokens: Vec<SecretString>,
    pub api_key_sid: Option<ApiKeySid>,
    pub api_key_secret: Option<SecretString>,
    pub service_sid: ServiceSid,
    pub messaging_service_sid: MessagingServiceSid,
    #[serde(default)]
    pub numbers: Vec<PhoneNumber>,
    #[serde(default)]
    pub signatures: SignatureMode,
    #[serde(default)]
    pub transfer_method: TransferMethod,
    #[serde(default)]
    pub opt_out: OptOutPolicy,
    #[serde(default = "max_in_flight")]
    pub max_in_flight: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SignatureMode {
    /// What does not verify is refused.
    #[default]
    Enforce,
    /// What does not verify is answered 200 and kept in quarantine, never projected.
    Observe,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TransferMethod {
    /// Try to update the identity; where Twilio refuses that, add the new holder and remove the old one.
    #[default]
    Auto,
    Update,
    AddRemove,
}

/// What is to be done about a group with a member who has opted out of the number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OptOutPolicy {
    /// The others are written to; whoever holds the line is warned, and says that they know.
    #[default]
    CarryOn,
    /// Nothing is posted until a supervisor has decided.
    AskSupervisor,
    /// The conversation is closed at Twilio.
    Close,
}

impl OptOutPolicy {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::CarryOn => "carry_on",
            Self::AskSupervisor => "ask_supervisor",
            Self::Close => "close",
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Projection {
    pub workers: usize,
    pub batch: u16,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Queue {
    pub concurrency: Concurrency,
    #[serde(deserialize_with = "duration")]
    pub poll: Duration,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transfer {
    #[serde(deserialize_with = "duration")]
    pub offer_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub escalation_timeout: Duration,
    #[serde(deserialize_with = "duration")]
    pub swap_timeout: Duration,
    /// Zero for no limit.
    pub hops_per_hour: u32,
    /// None: a line that is released is left to nobody.
    #[serde(default)]
    pub release_to: Option<Identity>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handover {
    /// Of a plan that does not say it.
    #[serde(deserialize_with = "lines_per_minute")]
    pub lines_per_minute: u32,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Escalation {
    /// The longest sleep between two looks at what is due.
    #[serde(deserialize_with = "duration")]
    pub poll: Duration,
    /// Lines that are looked at together.
    pub batch: u16,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GroupText {
    #[serde(deserialize_with = "duration")]
    pub activation_timeout: Duration,
}

/// What is uploaded to be sent.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Media {
    /// How long what no message took is kept.
    #[serde(deserialize_with = "duration")]
    pub unused_after: Duration,
    /// How many bytes are kept at once.
    pub kept_max: u64,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sweep {
    /// Zero for no periodic sweeps.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    #[serde(deserialize_with = "duration")]
    pub full_after: Duration,
    pub requests_per_minute: u32,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Health {
    pub repair: RepairPolicy,
    /// Otherwise for some findings, by their code.
    #[serde(default)]
    pub repair_of: BTreeMap<String, RepairPolicy>,
}

/// What happens to a repair that is safe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RepairPolicy {
    /// A person starts it.
    Offer,
    /// It starts by itself, once.
    Start,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Audit {
    /// Zero for no seals.
    #[serde(deserialize_with = "duration")]
    pub seal_every: Duration,
    pub seal_batch: u32,
    pub seal_file: Option<PathBuf>,
    pub seal_url: Option<Url>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Retention {
    /// From one run of the rules to the next; zero for none.
    #[serde(deserialize_with = "duration")]
    pub every: Duration,
    /// How long forms of webhooks and recorded answers are kept; none: for good.
    #[serde(deserialize_with = "kept")]
    pub webhooks: Option<Duration>,
    /// How long the words of messages are kept, and what media they had; none: for good.
    #[serde(deserialize_with = "kept")]
    pub message_bodies: Option<Duration>,
    /// How long attributes are kept of what is over; none: for good.
    #[serde(deserialize_with = "kept")]
    pub attributes: Option<Duration>,
    /// How long the words and attributes of old versions are kept; none: for good.
    #[serde(deserialize_with = "kept")]
    pub versions: Option<Duration>,
    /// How long what did not verify is kept; none: for good.
    #[serde(deserialize_with = "kept")]
    pub quarantine: Option<Duration>,
    /// How long entries of the log are kept whole; none: for good.
    #[serde(deserialize_with = "kept")]
    pub log: Option<Duration>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    pub filter: String,
    pub format: LogFormat,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Text,
    Json,
}

/// The address under which Twilio reaches us, kept as it was written: signatures are over its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicBaseUrl(String);

impl PublicBaseUrl {
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<&str> for PublicBaseUrl {
    type Error = &'static str;

    fn try_from(text: &str) -> Result<Self, Self::Error> {
        const EXPECTED: &str =
            "expected scheme and host like https://hooks.example.com, without path, query or fragment";
        let rest = ["https://", "http://"]
            .iter()
            .find_map(|scheme| {
                text.get(..scheme.len())
                    .filter(|head| head.eq_ignore_ascii_case(scheme))
            })
            .map(|scheme| &text[scheme.len()..])
            .ok_or(EXPECTED)?;
        let plain = !rest.is_empty() && !rest.contains(['/', '?', '#', ' ']) && Url::parse(text).is_ok();
        if plain {
            Ok(Self(text.to_owned()))
        } else {
            Err(EXPECTED)
        }
    }
}

impl fmt::Display for PublicBaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for PublicBaseUrl {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::try_from(text.as_str()).map_err(D::Error::custom)
    }
}

fn max_in_flight() -> usize {
    10
}

fn duration<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse::<jiff::SignedDuration>()
        .ok()
        .and_then(|duration| Duration::try_from(duration).ok())
        .ok_or_else(|| D::Error::custom("expected a duration like \"10s\" or \"PT5M\""))
}

fn lines_per_minute<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u32, D::Error> {
    Some(u32::deserialize(deserializer)?)
        .filter(|lines| (1..=60_000).contains(lines))
        .ok_or_else(|| D::Error::custom("expected a whole number from 1 to 60000"))
}

/// How long something is kept: `keep`, or a number of days like `90d`.
fn kept<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text == "keep" {
        return Ok(None);
    }
    text.strip_suffix('d')
        .and_then(|days| days.parse::<u32>().ok())
        .filter(|days| *days > 0)
        .map(|days| Some(Duration::from_hours(24) * days))
        .ok_or_else(|| D::Error::custom("expected \"keep\", or days like \"90d\""))
}

#[cfg(test)]
mod tests;
