//! `hookswitch sandbox`: the emulator alone.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context as _;
use secrecy::SecretString;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::ids::{AccountSid, ApiKeySid, MessagingServiceSid, PhoneNumber, ServiceSid};
use crate::sandbox::{IdentityReplacement, Sandbox, Settings};

/// Settings of the emulator.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Address to listen on; port 0 takes a free one.
    #[arg(long, env = "SANDBOX_LISTEN", default_value = "127.0.0.1:4010")]
    listen: SocketAddr,
    /// Account that the emulator stands for.
    #[arg(
        long,
        env = "SANDBOX_ACCOUNT_SID",
        default_value = "AC00000000000000000000000000000001"
    )]
    account_sid: AccountSid,
    /// Auth token: authenticates requests and signs webhooks.
    #[arg(
        long,
        env = "SANDBOX_AUTH_TOKEN",
        default_value = "sandbox-auth-token",
        hide_env_values = true
    )]
    auth_token: SecretString,
    /// API key that may call as well.
    #[arg(long, env = "SANDBOX_API_KEY_SID", requires = "api_key_secret")]
    api_key_sid: Option<ApiKeySid>,
    /// Secret of the API key.
    #[arg(
        long,
        env = "SANDBOX_API_KEY_SECRET",
        requires = "api_key_sid",
        hide_env_values = true
    )]
    api_key_secret: Option<SecretString>,
    /// Default conversation service.
    #[arg(
        long,
        env = "SANDBOX_SERVICE_SID",
        default_value = "IS00000000000000000000000000000001"
    )]
    service_sid: ServiceSid,
    /// Default messaging service, which all numbers belong to.
    #[arg(
        long,
        env = "SANDBOX_MESSAGING_SERVICE_SID",
        default_value = "MG00000000000000000000000000000001"
    )]
    messaging_service_sid: MessagingServiceSid,
    /// A number that the account owns; may be given several times.
    #[arg(
        long = "number",
        env = "SANDBOX_NUMBERS",
        value_delimiter = ',',
        default_values = ["+15017122661", "+15017122662"],
    )]
    numbers: Vec<PhoneNumber>,
    /// What happens to a new identity on a projected participant that has one already.
    #[arg(
        long,
        env = "SANDBOX_IDENTITY_REPLACEMENT",
        value_enum,
        default_value = "update"
    )]
    identity_replacement: IdentityReplacement,
    /// Milliseconds from the creation of a group to `active`.
    #[arg(long, env = "SANDBOX_ACTIVATION_DELAY_MS", default_value_t = 700)]
    activation_delay_ms: u64,
}

impl Args {
    fn into_settings(self) -> Settings {
        Settings {
            listen: self.listen,
            account_sid: self.account_sid,
            auth_token: self.auth_token,
            api_key: self.api_key_sid.zip(self.api_key_secret),
            service_sid: self.service_sid,
            messaging_service_sid: self.messaging_service_sid,
            numbers: self.numbers,
            identity_replacement: self.identity_replacement,
            activation_delay: Duration::from_millis(self.activation_delay_ms),
        }
    }
}

pub async fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.into_settings();
    let listen = settings.listen;
    let (account_sid, service_sid) = (settings.account_sid.clone(), settings.service_sid.clone());
    // Before anything is said, so that a signal right after it finds its handler.
    let mut terminated = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupted = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let sandbox = Sandbox::start(settings, Clock::system())
        .await
        .with_context(|| format!("cannot listen on {listen}"))?;
    say(&format!(
        "sandbox of {account_sid} ({service_sid}) listens on {}",
        sandbox.base_url()
    ))?;
    tokio::select! {
        _ = terminated.recv() => {}
        _ = interrupted.recv() => {}
    }
    sandbox.stop().await;
    Ok(())
}

fn say(line: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")
        .and_then(|()| out.flush())
        .context("cannot write to standard output")
}
