//! `hookswitch demo`: the home-buying story of Twilio's page "Group Texting in Conversations", played through real HTTP in
//! every direction: the CRM talks to our API, handsets text through the sandbox, the sandbox calls our webhooks.
//!
//! The story checks itself: what does not come out as told ends the command with an error.

mod cast;
mod crm;
mod phones;
mod story;

use std::time::Instant;

use tokio::net::TcpListener;

use crate::api::auth::{self, Scope};
use crate::cli::database::Database;
use crate::cli::output;
use crate::cli::stage::Stage;
use crate::clock::Clock;
use crate::config::{Config, LogFormat};
use crate::{db, sandbox, telemetry};

use crm::Crm;
use phones::Phones;

/// The demo needs nothing and takes nothing from the environment but where PostgreSQL's programs are.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Show the service's log as well, as `RUST_LOG` would: "info", "hookswitch=debug", …
    #[arg(long, default_value = "error")]
    log: String,
}

/// The demo's own database: made anew each time, beside whatever else is in the data directory.
const DATABASE: &str = "demo";

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let begun = Instant::now();
    let config = apart(config, args);
    telemetry::start(&config.log)?;
    // A server of its own, so that it plays beside a running `dev`.
    let database = Database::embedded(config.database.data_dir.join("demo"), &config.database).await?;
    let options = db::recreate(&database.options, DATABASE).await?;
    let listener = TcpListener::bind(config.http.listen).await?;
    let stage = Stage::start(config, options, listener, sandbox::Settings::default()).await?;
    let told = tell(&stage).await;
    stage.stop().await?;
    database.close().await?;
    told?;
    output::line(format!(
        "\nThe end, after {:.1} s. Nothing is left running.",
        begun.elapsed().as_secs_f64()
    ));
    Ok(())
}

async fn tell(stage: &Stage) -> anyhow::Result<()> {
    let key = auth::create(
        &mut *stage.pool.acquire().await?,
        "demo",
        &[Scope::Admin],
        Clock::system().now(),
    )
    .await?;
    let sandbox = stage
        .sandbox
        .as_ref()
        .expect("the demo configures no Twilio account, so there is one");
    let settings = sandbox::Settings::default();
    output::line(format!(
        "A home-buying journey\n\nThe service listens on {}, Twilio's sandbox on {}; everything below goes through them.",
        stage.service_url,
        sandbox.base_url()
    ));
    let crm = Crm::new(&stage.service_url, key.key)?;
    let phones = Phones::new(&sandbox.base_url(), settings.account_sid, settings.auth_token)?;
    story::play(&crm, &phones).await
}

/// The settings as they are, but for what must be apart from a service that may be running: Twilio, ports, log.
fn apart(mut config: Config, args: &Args) -> Config {
    config.twilio.accounts.clear();
    config.http.listen = std::net::SocketAddr::from((std::net::Ipv4Addr::LOCALHOST, 0));
    config.log.filter.clone_from(&args.log);
    config.log.format = LogFormat::Text;
    config
}
