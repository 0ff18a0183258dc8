//! `hookswitch serve`: the service with a configured Twilio account.

use anyhow::{Context as _, bail};
use clap::ValueEnum;
use tokio::net::TcpListener;

use crate::app::{App, Roles};
use crate::cli::database::Database;
use crate::cli::signals;
use crate::clock::Clock;
use crate::config::Config;

/// How to run the service.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What this process does: take webhooks and API calls, do the durable work, or both.
    #[arg(long, value_delimiter = ',', default_value = "web,worker")]
    role: Vec<Role>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    Web,
    Worker,
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    if config.twilio.accounts.is_empty() {
        bail!(
            "setting twilio.accounts: expected at least one account; set TWILIO_ACCOUNT_SID, TWILIO_AUTH_TOKEN, \
             TWILIO_SERVICE_SID and TWILIO_MESSAGING_SERVICE_SID, or use `hookswitch dev` to try it without one"
        );
    }
    let shutdown = signals::shutdown()?;
    let database = Database::open(&config.database).await?;
    let roles = Roles {
        web: args.role.contains(&Role::Web),
        worker: args.role.contains(&Role::Worker),
    };
    let listen = config.http.listen;
    let app = App::new(config, database.options.clone(), Clock::system())?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("setting http.listen: cannot listen on {listen}"))?;
    app.run(listener, roles, shutdown).await?;
    database.close().await
}
