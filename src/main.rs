//! Parses the arguments, starts telemetry and runs one command.

use clap::Parser as _;
use hookswitch::cli::Cli;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("a TLS provider is installed already"))?;
    cli.command.run().await
}
