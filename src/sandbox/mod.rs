//! An emulator of Twilio Conversations, as far as group texting uses it: its REST API at Twilio's own paths, its rules
//! and error codes, its signed webhooks; and besides, handsets to text from and faults on demand.
//!
//! It stands apart: nothing of the product knows it but the commands that start it, and it knows nothing of the
//! product but identifiers, the clock and how Twilio signs. The two meet on the wire, as the product and Twilio do.
//! `docs/SANDBOX.md` says how to use it and what it takes its rules from.
//!
//! `model` holds the account and its rules, and is pure; `world` runs it; `rest` and `admin` are what can be
//! asked; `server` is the connection, `sender` sends webhooks, `faults` spoils both.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::ids::{AccountSid, ApiKeySid, MessagingServiceSid, PhoneNumber, ServiceSid};

use self::faults::Dice;
use self::model::Account;
use self::pending::Pending;
use self::sender::Sender;
use self::world::{Credentials, Parts, World};

pub use self::faults::{Effect, Faults, RestFault, WebhookAction, WebhookFault};
pub use self::model::IdentityReplacement;
pub use self::sender::{Attempt, Outcome};

mod admin;
mod faults;
mod model;
mod overrides;
mod pending;
mod rest;
mod sender;
mod server;
pub mod snapshot;
mod world;

/// What the emulated account is.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Port 0 takes a free one.
    pub listen: SocketAddr,
    pub account_sid: AccountSid,
    /// Authenticates REST requests and signs webhooks.
    pub auth_token: SecretString,
    /// Authenticates REST requests as well; signs nothing.
    pub api_key: Option<(ApiKeySid, SecretString)>,
    /// The default conversation service.
    pub service_sid: ServiceSid,
    /// The default messaging service, which all numbers belong to.
    pub messaging_service_sid: MessagingServiceSid,
    /// The numbers that the account owns.
    pub numbers: Vec<PhoneNumber>,
    pub identity_replacement: IdentityReplacement,
    /// From the creation of a conversation with participants, or of an autocreated group, to `active`. Carriers take
    /// a tenth of it for each of their reports.
    pub activation_delay: Duration,
}

impl Default for Settings {
    /// The numbers of Twilio's guide to group texting, and SIDs that are plainly made up.
    fn default() -> Self {
        const PROVEN: &str = "the literal is well-formed, and a test reads it";
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            account_sid: "AC00000000000000000000000000000001".parse().expect(PROVEN),
            auth_token: SecretString::from("sandbox-auth-token"),
            api_key: None,
            service_sid: "IS00000000000000000000000000000001".parse().expect(PROVEN),
            messaging_service_sid: "MG00000000000000000000000000000001".parse().expect(PROVEN),
            numbers: vec![
                "+15017122661".parse().expect(PROVEN),
                "+15017122662".parse().expect(PROVEN),
            ],
            identity_replacement: IdentityReplacement::Update,
            activation_delay: Duration::from_millis(50),
        }
    }
}

/// A running emulator.
pub struct Sandbox {
    world: Arc<World>,
    closing: CancellationToken,
    serving: tokio::task::JoinHandle<()>,
}

impl Sandbox {
    /// Listens, and answers from then on.
    pub async fn start(settings: Settings, clock: Clock) -> io::Result<Self> {
        // Where a provider is installed already, as `main` does, that one stays.
        drop(rustls::crypto::ring::default_provider().install_default());
        let listener = TcpListener::bind(settings.listen).await?;
        let base_url = format!("http://{}", listener.local_addr()?);
        let dice = Arc::new(Dice::new(Faults::default()));
        let pending = Pending::new();
        let sender = Sender::new(
            settings.auth_token.clone(),
            clock.clone(),
            Arc::clone(&dice),
            pending.clone(),
        )
        .map_err(io::Error::other)?;
        let account = Account::new(
            clock,
            settings.account_sid.clone(),
            settings.service_sid,
            settings.messaging_service_sid,
            settings.numbers,
            settings.identity_replacement,
        );
        let world = World::new(Parts {
            account,
            sender: Arc::new(sender),
            dice,
            pending,
            credentials: Credentials {
                account: settings.account_sid,
                token: settings.auth_token,
                api_key: settings.api_key,
            },
            base_url,
            activation_delay: settings.activation_delay,
        });
        world.start_ticking();
        let closing = CancellationToken::new();
        let router = rest::router(Arc::clone(&world));
        let serving = tokio::spawn(server::serve(
            listener,
            Arc::clone(&world),
            router,
            closing.clone(),
        ));
        Ok(Self {
            world,
            closing,
            serving,
        })
    }

    /// `http://127.0.0.1:PORT`, without a slash at the end: what stands for `https://conversations.twilio.com`.
    pub fn base_url(&self) -> String {
        self.world.base_url.clone()
    }

    /// Everything that the account holds now, in the order of creation.
    pub fn conversations(&self) -> Vec<snapshot::Conversation> {
        self.world.act(|account| snapshot::conversations(account))
    }

    /// What a phone has received, oldest first.
    pub fn texts(&self, handset: &PhoneNumber) -> Vec<snapshot::Text> {
        self.world.act(|account| snapshot::texts(account, handset))
    }

    /// The attempts to deliver webhooks, oldest first; the newest 2000 are kept.
    pub fn attempts(&self) -> Vec<Attempt> {
        self.world.sender.attempts()
    }

    /// Puts `faults` in place of those in force.
    pub fn set_faults(&self, faults: Faults) -> Result<(), InvalidFaults> {
        admin::replace_faults(&self.world, faults).map_err(|refusal| InvalidFaults(refusal.message))
    }

    /// The faults in force, with what is left of their `times`.
    pub fn faults(&self) -> Faults {
        admin::current_faults(&self.world)
    }

    /// From now on, what `Identity=B` does where A is assigned.
    pub fn set_identity_replacement(&self, replacement: IdentityReplacement) {
        self.world.act(|account| account.replacement = replacement);
    }

    /// Waits until all webhooks are delivered or lost, no conversation is being set up and no receipt is outstanding.
    ///
    /// What the receivers of the webhooks ask for in their turn may begin new work after that.
    pub async fn settled(&self) {
        self.world.settled().await;
    }

    /// Stops listening, lets requests under way finish within a second, and drops what is not delivered.
    pub async fn stop(mut self) {
        self.closing.cancel();
        drop((&mut self.serving).await);
        self.world.ended.cancel();
        self.world.tasks.close();
        self.world.tasks.wait().await;
    }
}

impl Drop for Sandbox {
    /// Ends everything at once; [`Sandbox::stop`] is the orderly way.
    fn drop(&mut self) {
        self.closing.cancel();
        self.world.ended.cancel();
    }
}

/// Faults that cannot be put in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("faults cannot be set: {0}")]
pub struct InvalidFaults(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_account_owns_the_numbers_of_the_guide() {
        let settings = Settings::default();
        let numbers: Vec<&str> = settings.numbers.iter().map(PhoneNumber::as_str).collect();
        assert_eq!(numbers, ["+15017122661", "+15017122662"]);
        assert!(!format!("{settings:?}").contains("sandbox-auth-token"));
    }
}
