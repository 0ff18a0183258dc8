//! Loading the settings: the shipped defaults, a file, the environment; and what is wrong with them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use config::{File, FileFormat};
use secrecy::{ExposeSecret as _, SecretString};

use super::{
    Account, Config, DEFAULTS, OptOutPolicy, Retention, SignatureMode, TransferMethod, max_in_flight,
};
use crate::ids::PhoneNumber;
use crate::queue::Lane;

/// What is wrong with the settings: the key, and what is expected there.
#[derive(Debug, thiserror::Error)]
#[error("setting {key}: {expected}")]
pub struct ConfigError {
    pub key: String,
    pub expected: String,
}

impl ConfigError {
    fn new(key: impl Into<String>, expected: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            expected: expected.into(),
        }
    }
}

impl Config {
    /// Reads the settings of this process.
    pub fn load(file: Option<&Path>) -> Result<Self, ConfigError> {
        #[expect(clippy::disallowed_methods, reason = "this is the one caller")]
        let environment: HashMap<String, String> = std::env::vars().collect();
        Self::load_from(file, &environment)
    }

    /// Reads the settings from a file (or the one that the environment names) and the given environment.
    pub fn load_from(
        file: Option<&Path>,
        environment: &HashMap<String, String>,
    ) -> Result<Self, ConfigError> {
        let mut builder = config::Config::builder().add_source(File::from_str(DEFAULTS, FileFormat::Toml));
        if let Some(path) = named_file(file, environment) {
            let text = std::fs::read_to_string(&path)
                .map_err(|error| ConfigError::new(format!("file {}", path.display()), error.to_string()))?;
            builder = builder.add_source(File::from_str(&text, FileFormat::Toml));
        }
        let ours = environment
            .iter()
            .filter(|(key, _)| key.starts_with("HOOKSWITCH__"));
        for (key, value) in ours {
            let path = key["HOOKSWITCH__".len()..].to_lowercase().replace("__", ".");
            builder = builder
                .set_override(&path, value.as_str())
                .map_err(|_| ConfigError::new(key, "expected HOOKSWITCH__SECTION__KEY"))?;
        }
        for (name, key) in [
            ("DATABASE_URL", "database.url"),
            ("PG_BIN_DIR", "database.bin_dir"),
        ] {
            if let Some(value) = environment.get(name).filter(|value| !value.is_empty()) {
                builder = builder
                    .set_override(key, value.as_str())
                    .map_err(|_| ConfigError::new(name, "unusable"))?;
            }
        }
        let settings = builder.build().map_err(|error| readable(&error))?;
        let mut config: Self = settings.try_deserialize().map_err(|error| readable(&error))?;
        apply_customary_names(&mut config, environment)?;
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        let at_most = |key: &str, value: Duration, limit: u64| {
            if value.is_zero() || value > Duration::from_secs(limit) {
                return Err(ConfigError::new(
                    key,
                    format!("expected more than 0 and at most {limit} s"),
                ));
            }
            Ok(())
        };
        at_most("http.header_timeout", self.http.header_timeout, 30)?;
        at_most("http.body_timeout", self.http.body_timeout, 30)?;
        at_most("http.shutdown_grace", self.http.shutdown_grace, 25)?;
        at_most("twilio.call_timeout", self.twilio.call_timeout, 60)?;
        at_most("twilio.connect_timeout", self.twilio.connect_timeout, 60)?;
        let at_least_one = |key: &str, value: usize| {
            if value == 0 {
                Err(ConfigError::new(key, "expected at least 1"))
            } else {
                Ok(())
            }
        };
        at_least_one("http.max_connections", self.http.max_connections)?;
        at_least_one("projection.workers", self.projection.workers)?;
        at_least_one("projection.batch", usize::from(self.projection.batch))?;
        for lane in Lane::ALL {
            let key = format!("queue.concurrency.{}", lane.as_str());
            at_least_one(&key, self.queue.concurrency.of(lane))?;
        }
        at_least_one(
            "sweep.requests_per_minute",
            usize::try_from(self.sweep.requests_per_minute).unwrap_or(usize::MAX),
        )?;
        at_least_one(
            "audit.seal_batch",
            usize::try_from(self.audit.seal_batch).unwrap_or(usize::MAX),
        )?;
        if let Some(url) = &self.audit.seal_url
            && (!matches!(url.scheme(), "http" | "https") || url.host().is_none())
        {
            return Err(ConfigError::new(
                "audit.seal_url",
                "expected an address like https://seals.example.com/hookswitch",
            ));
        }
        at_most("media.unused_after", self.media.unused_after, 7 * 24 * 3600)?;
        if self.media.kept_max < 5_000_000 {
            return Err(ConfigError::new(
                "media.kept_max",
                "expected at least 5000000, which is one file",
            ));
        }
        self.retention.check()?;
        if self.database.max_connections < 4 {
            return Err(ConfigError::new(
                "database.max_connections",
                "expected at least 4",
            ));
        }
        if !matches!(self.twilio.base_url.scheme(), "http" | "https") || self.twilio.base_url.host().is_none()
        {
            return Err(ConfigError::new(
                "twilio.base_url",
                "expected an address like https://conversations.twilio.com",
            ));
        }
        let media = self.twilio.media_base_url();
        if !matches!(media.scheme(), "http" | "https") || media.host().is_none() {
            return Err(ConfigError::new(
                "twilio.media_base_url",
                "expected an address like https://mcs.us1.twilio.com",
            ));
        }
        let mut seen = std::collections::BTreeSet::new();
        for (place, account) in self.twilio.accounts.iter().enumerate() {
            let key = |name: &str| format!("twilio.accounts[{place}].{name}");
            if !seen.insert(&account.account_sid) {
                return Err(ConfigError::new(
                    key("account_sid"),
                    "expected every account once",
                ));
            }
            if account
                .auth_tokens
                .iter()
                .all(|token| token.expose_secret().trim().is_empty())
            {
                return Err(ConfigError::new(
                    key("auth_tokens"),
                    "expected at least one auth token (or set TWILIO_AUTH_TOKEN): without it no webhook can be verified",
                ));
            }
            if account.api_key_sid.is_some() != account.api_key_secret.is_some() {
                return Err(ConfigError::new(
                    key("api_key_secret"),
                    "expected both api_key_sid and api_key_secret, or neither",
                ));
            }
            at_least_one(&key("max_in_flight"), account.max_in_flight)?;
        }
        Ok(())
    }
}

impl Retention {
    /// Forms say what messages say, so they cannot be kept for longer.
    fn check(&self) -> Result<(), ConfigError> {
        for (key, kept) in [
            ("retention.message_bodies", self.message_bodies),
            ("retention.attributes", self.attributes),
        ] {
            if let Some(kept) = kept
                && self.webhooks.is_none_or(|webhooks| webhooks > kept)
            {
                return Err(ConfigError::new(
                    "retention.webhooks",
                    format!("expected at most {key}, since the forms of webhooks say the same"),
                ));
            }
        }
        Ok(())
    }
}

fn named_file(file: Option<&Path>, environment: &HashMap<String, String>) -> Option<PathBuf> {
    let local = Path::new("hookswitch.toml");
    file.map(Path::to_path_buf)
        .or_else(|| {
            environment
                .get("HOOKSWITCH_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        })
        .or_else(|| local.exists().then(|| local.to_path_buf()))
}

/// The customary names describe the first account: they make it, or change it where a file describes it.
fn apply_customary_names(
    config: &mut Config,
    environment: &HashMap<String, String>,
) -> Result<(), ConfigError> {
    let given = |name: &str| {
        environment
            .get(name)
            .map(String::as_str)
            .filter(|value| !value.is_empty())
    };
    let accounts = &mut config.twilio.accounts;
    if accounts.is_empty() && given("TWILIO_ACCOUNT_SID").is_none() {
        return Ok(());
    }
    if accounts.is_empty() {
        for name in [
            "TWILIO_AUTH_TOKEN",
            "TWILIO_SERVICE_SID",
            "TWILIO_MESSAGING_SERVICE_SID",
        ] {
            given(name).ok_or_else(|| {
                ConfigError::new(name, "expected beside TWILIO_ACCOUNT_SID, and is not set")
            })?;
        }
        accounts.push(Account {
            account_sid: sid(
                given("TWILIO_ACCOUNT_SID").unwrap_or_default(),
                "TWILIO_ACCOUNT_SID",
            )?,
            auth_tokens: Vec::new(),
            api_key_sid: None,
            api_key_secret: None,
            service_sid: sid(
                given("TWILIO_SERVICE_SID").unwrap_or_default(),
                "TWILIO_SERVICE_SID",
            )?,
            messaging_service_sid: sid(
                given("TWILIO_MESSAGING_SERVICE_SID").unwrap_or_default(),
                "TWILIO_MESSAGING_SERVICE_SID",
            )?,
            numbers: Vec::new(),
            signatures: SignatureMode::default(),
            transfer_method: TransferMethod::default(),
            opt_out: OptOutPolicy::default(),
            max_in_flight: max_in_flight(),
        });
    }
    let Some(account) = accounts.first_mut() else {
        return Ok(());
    };
    if let Some(value) = given("TWILIO_ACCOUNT_SID") {
        account.account_sid = sid(value, "TWILIO_ACCOUNT_SID")?;
    }
    if let Some(value) = given("TWILIO_SERVICE_SID") {
        account.service_sid = sid(value, "TWILIO_SERVICE_SID")?;
    }
    if let Some(value) = given("TWILIO_MESSAGING_SERVICE_SID") {
        account.messaging_service_sid = sid(value, "TWILIO_MESSAGING_SERVICE_SID")?;
    }
    if let Some(value) = given("TWILIO_AUTH_TOKEN") {
        account.auth_tokens = list(value)
            .map(|token| SecretString::from(token.to_owned()))
            .collect();
    }
    if let Some(value) = given("TWILIO_API_KEY") {
        account.api_key_sid = Some(sid(value, "TWILIO_API_KEY")?);
    }
    if let Some(value) = given("TWILIO_API_SECRET") {
        account.api_key_secret = Some(SecretString::from(value.to_owned()));
    }
    if let Some(value) = given("TWILIO_NUMBERS") {
        account.numbers = list(value)
            .map(|number| {
                PhoneNumber::try_from(number)
                    .map_err(|error| ConfigError::new("TWILIO_NUMBERS", error.to_string()))
            })
            .collect::<Result<_, _>>()?;
    }
    Ok(())
}

fn sid<T: std::str::FromStr<Err = crate::ids::InvalidSid>>(text: &str, name: &str) -> Result<T, ConfigError> {
    text.parse()
        .map_err(|error: crate::ids::InvalidSid| ConfigError::new(name, error.to_string()))
}

fn list(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|piece| !piece.is_empty())
}

/// The error with its key and without the value, which may be a secret.
fn readable(error: &config::ConfigError) -> ConfigError {
    match error {
        config::ConfigError::Type { expected, key, .. } => ConfigError::new(
            key.clone().unwrap_or_else(|| "(file)".to_owned()),
            format!("expected {expected}"),
        ),
        config::ConfigError::At { error, key, .. } => within(key.as_deref(), readable(error)),
        config::ConfigError::NotFound(key) => ConfigError::new(key, "expected a value"),
        // The first line says where; what follows would show the file's text.
        config::ConfigError::FileParse { cause, .. } => {
            let place = cause.to_string().lines().next().unwrap_or_default().to_owned();
            ConfigError::new("(file)", format!("expected TOML: {place}"))
        }
        config::ConfigError::Message(text) => of_message(text),
        _ => ConfigError::new("(file)", "cannot be read"),
    }
}

/// An error below `key`: a field's own name, where the error has one, is added to it.
fn within(key: Option<&str>, inner: ConfigError) -> ConfigError {
    let key = match (key, inner.key.as_str()) {
        (Some(key), "") => key
            .replace(']', "].")
            .replace("].[", "][")
            .trim_end_matches('.')
            .to_owned(),
        (Some(key), name) if key.ends_with(name) => key.to_owned(),
        (Some(key), name) => format!("{key}.{name}"),
        (None, name) => name.to_owned(),
    };
    ConfigError {
        key,
        expected: inner.expected,
    }
}

/// What `serde` says, without the value that it repeats.
fn of_message(text: &str) -> ConfigError {
    let quoted = |after: &str| {
        let rest = text.split_once(after)?.1;
        rest.split_once('`')
    };
    if let Some((name, rest)) = quoted("unknown field `") {
        return ConfigError::new(name, format!("is not a setting{rest}"));
    }
    if let Some((name, _)) = quoted("missing field `") {
        return ConfigError::new(name, "expected a value");
    }
    if text.contains("socket address") {
        return ConfigError::new("", "expected an address and port like 127.0.0.1:8080");
    }
    let expected = text
        .find("expected ")
        .map_or("expected another value", |at| &text[at..]);
    ConfigError::new("", expected)
}
