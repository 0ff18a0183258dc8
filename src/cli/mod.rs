//! The command line: one file per command.

use clap::{Parser, Subcommand};

pub mod key;
pub mod sandbox;
pub mod verify_signature;

/// Group texts behind a business number: webhooks, mirror, transfers, record.
#[derive(Debug, Parser)]
#[command(name = "hookswitch", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make, list and revoke the keys of the API.
    Key(key::Args),
    /// Run the Twilio Conversations emulator alone.
    Sandbox(sandbox::Args),
    /// Explain why a webhook's signature matches or not.
    VerifySignature(verify_signature::Args),
}

impl Command {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Key(args) => key::run(&args).await,
            Self::Sandbox(args) => sandbox::run(args).await,
            Self::VerifySignature(args) => verify_signature::run(&args),
        }
    }
}
