//! `hookswitch dev`: everything at once, to be tried by hand.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::api::auth::{self, Scope};
use crate::cli::database::Database;
use crate::cli::stage::Stage;
use crate::cli::{output, signals};
use crate::clock::Clock;
use crate::config::Config;
use crate::sandbox;

/// Where to listen.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where the sandbox listens, if it is needed.
    #[arg(long, default_value = "127.0.0.1:8081")]
    sandbox_listen: SocketAddr,
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let shutdown = signals::shutdown()?;
    let listen = config.http.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("setting http.listen: cannot listen on {listen}"))?;
    let database = Database::open(&config.database).await?;
    let settings = sandbox::Settings {
        listen: args.sandbox_listen,
        ..sandbox::Settings::default()
    };
    let (token, account) = (settings.auth_token.clone(), settings.account_sid.clone());
    let stage = Stage::start(config, database.options.clone(), listener, settings).await?;
    let key = auth::create(
        &mut *stage.pool.acquire().await?,
        "dev",
        &[Scope::Admin],
        Clock::system().now(),
    )
    .await?;
    greet(
        &stage,
        &key,
        &Sandbox {
            account: account.as_str(),
            token: &token,
        },
    );
    shutdown.cancelled().await;
    output::line("ending");
    stage.stop().await?;
    database.close().await
}

/// How to reach the sandbox.
struct Sandbox<'a> {
    account: &'a str,
    token: &'a secrecy::SecretString,
}

fn greet(stage: &Stage, key: &auth::CreatedKey, sandbox: &Sandbox<'_>) {
    use secrecy::ExposeSecret as _;
    let service = &stage.service_url;
    let key = key.key.expose_secret();
    output::line(format!(
        "\nHookswitch is ready.\n\n  service   {service}\n  API       {service}/openapi.json"
    ));
    if let Some(running) = &stage.sandbox {
        let url = running.base_url();
        let (account, token) = (sandbox.account, sandbox.token.expose_secret());
        output::line(format!(
            "  sandbox   {url}  (account {account}, token {token}, owns +15017122661 and +15017122662)"
        ));
    }
    output::line(format!("  API key   {key}\n\nTry it, in another terminal:\n"));
    output::line(format!(
        "  curl -s {service}/v1/group-texts -H 'Authorization: Bearer {key}' -H 'Idempotency-Key: first' \\\n    \
         --json '{{\"friendly_name\": \"Home-buying journey\", \"members\": [{{\"address\": \"+15555550101\"}}, \
         {{\"address\": \"+15555550102\"}}, {{\"line\": \"+15017122661\", \"holder\": \"maya\"}}]}}'\n"
    ));
    if let Some(running) = &stage.sandbox {
        let url = running.base_url();
        let (account, token) = (sandbox.account, sandbox.token.expose_secret());
        output::line(format!(
            "  curl -s {url}/sandbox/v1/handsets/%2B15555550101/messages -u {account}:{token} \\\n    \
             --json '{{\"to\": [\"+15017122661\", \"+15555550102\"], \"body\": \"When can we see the house?\"}}'\n"
        ));
    }
    output::line(format!(
        "  curl -s '{service}/v1/events?limit=20' -H 'Authorization: Bearer {key}'\n\nCtrl-C ends it."
    ));
}
