//! Parses the arguments and runs one command.

use clap::Parser as _;
use hookswitch::cli::Cli;
use hookswitch::twilio;

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    twilio::install_tls();
    Cli::parse().run().await
}
