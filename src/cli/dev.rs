//! `hookswitch dev`: everything at once, to be tried by hand.

use std::net::SocketAddr;

use anyhow::Context as _;
use secrecy::ExposeSecret as _;
use tokio::net::TcpListener;

use crate::api::auth::{self, Scope};
use crate::cli::database::Database;
use crate::cli::stage::Stage;
use crate::cli::{output, signals};
use crate::clock::Clock;
use crate::config::Config;
use crate::ids::PhoneNumber;
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
    let stage = Stage::start(config, database.options.clone(), listener, settings.clone()).await?;
    let key = auth::create(
        &mut *stage.pool.acquire().await?,
        "dev",
        &[Scope::Admin],
        Clock::system().now(),
    )
    .await?;
    greet(&stage, &key, &settings);
    shutdown.cancelled().await;
    output::line("ending");
    stage.stop().await?;
    database.close().await
}

fn greet(stage: &Stage, key: &auth::CreatedKey, sandbox: &sandbox::Settings) {
    let service = &stage.service_url;
    let key = key.key.expose_secret();
    output::line(format!(
        "\nHookswitch is ready.\n\n  service   {service}\n  API       {service}/openapi.json"
    ));
    if let Some(running) = &stage.sandbox {
        let url = running.base_url();
        let (account, token) = (&sandbox.account_sid, sandbox.auth_token.expose_secret());
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
        let (account, token) = (&sandbox.account_sid, sandbox.auth_token.expose_secret());
        output::line(format!(
            "  curl -s {url}/sandbox/v1/handsets/%2B15555550101/messages -u {account}:{token} \\\n    \
             --json '{{\"to\": [\"+15017122661\", \"+15555550102\"], \"body\": \"When can we see the house?\"}}'\n"
        ));
    }
    output::line(format!(
        "  curl -s '{service}/v1/events?limit=20' -H 'Authorization: Bearer {key}'\n"
    ));
    if let Some(running) = &stage.sandbox {
        output::line(for_commands(sandbox, service, &running.base_url()));
    }
    output::line("Ctrl-C ends it.");
}

/// What the commands that ask Twilio need to find the sandbox in its place.
fn for_commands(sandbox: &sandbox::Settings, service: &str, url: &str) -> String {
    let numbers: Vec<&str> = sandbox.numbers.iter().map(PhoneNumber::as_str).collect();
    format!(
        "Commands that ask Twilio (check, sweep, handover …) find the sandbox by\n\n  \
         export HOOKSWITCH__TWILIO__BASE_URL={url} HOOKSWITCH__HTTP__PUBLIC_BASE_URL={service} \\\n    \
         TWILIO_ACCOUNT_SID={} TWILIO_AUTH_TOKEN={} TWILIO_NUMBERS={} \\\n    \
         TWILIO_SERVICE_SID={} TWILIO_MESSAGING_SERVICE_SID={}\n",
        sandbox.account_sid,
        sandbox.auth_token.expose_secret(),
        numbers.join(","),
        sandbox.service_sid,
        sandbox.messaging_service_sid,
    )
}
