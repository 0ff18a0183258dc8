//! The command line: one file per command.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::config::Config;
use crate::telemetry;

pub mod audit;
pub mod check;
mod database;
pub mod demo;
pub mod dev;
pub mod erase;
pub mod escalation;
pub mod handover;
pub mod key;
pub mod migrate;
pub mod numbers;
pub mod opt_outs;
mod output;
pub mod people;
mod progress;
pub mod rebuild;
pub mod replay;
pub mod retention;
pub mod sandbox;
pub mod sends;
pub mod serve;
mod signals;
mod stage;
pub mod sweep;
pub mod verify_signature;

/// Group texts behind a business number: webhooks, mirror, transfers, record.
#[derive(Debug, Parser)]
#[command(name = "hookswitch", version, about)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,

    /// A file of settings; `config/default.toml` of the sources lists them all.
    #[arg(long, global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Play the home-buying story of Twilio's group-texting guide, through real HTTP, and end.
    Demo(demo::Args),
    /// Run everything at once on embedded defaults: PostgreSQL, sandbox, service; print what to open.
    Dev(dev::Args),
    /// Run the service with a configured Twilio account.
    Serve(serve::Args),
    /// Bring the database's schema up to date.
    Migrate,
    /// Make, list and revoke the keys of the API.
    Key(key::Args),
    /// Check settings, database and the Twilio account's set-up, and say what to do.
    Check(check::Args),
    /// Give webhooks that were set aside, or tasks that were buried, another chance.
    Replay(replay::Args),
    /// Compare the mirror with Twilio, and repair it.
    Sweep(sweep::Args),
    /// Make the mirror anew from its sources, compare it with the live one, and swap it in when asked.
    ///
    /// Webhooks and the recorded answers of our own calls are replayed into temporary tables, and mirror, ledger and the
    /// log's mirror entries compared with them row by row. The service goes on meanwhile.
    ///
    /// Ends with 0 if every row is what its sources say, 1 if some are not, 2 if that could not be found out. Rows of
    /// which a source was erased are counted apart, and are no difference.
    Rebuild(rebuild::Args),
    /// Seal the log, check it against its seals, and export it.
    Audit(audit::Args),
    /// Erase what is due by the rules of the settings; legal hold.
    Retention(retention::Args),
    /// Agents and teams: bring them in from files, look at them, say who is away.
    People(people::Args),
    /// Give all lines of a person to others by a plan, and back: for a leaver, or for a holiday.
    Handover(handover::Args),
    /// Our pool of numbers: what each is fit for, whose it is, who gets its lines; and lines that wait for somebody.
    Numbers(numbers::Args),
    /// Members who have opted out of a number of ours: list, set and clear them; what is done about it.
    OptOuts(opt_outs::Args),
    /// Messages that are not sent yet, and why; those of which nobody knows whether they were.
    Sends(sends::Args),
    /// Escalation policies: check and set them, see what is open, what would happen, what would have happened.
    Escalation(escalation::Args),
    /// Erase a person on request: at Twilio, and here.
    Erase(erase::Args),
    /// Run the Twilio Conversations emulator alone.
    Sandbox(sandbox::Args),
    /// Explain why a webhook's signature matches or not.
    VerifySignature(verify_signature::Args),
}

impl Cli {
    pub async fn run(self) -> anyhow::Result<()> {
        let file = self.config.as_deref();
        match self.command {
            Command::Demo(args) => demo::run(Config::load(file)?, &args).await,
            Command::Dev(args) => dev::run(settings(file)?, &args).await,
            Command::Serve(args) => serve::run(settings(file)?, &args).await,
            Command::Key(args) => key::run(settings(file)?, &args).await,
            Command::Migrate => migrate::run(settings(file)?).await,
            Command::Check(args) => check::run(settings(file)?, &args).await,
            Command::Replay(args) => replay::run(settings(file)?, &args).await,
            Command::Sweep(args) => sweep::run(settings(file)?, &args).await,
            Command::Rebuild(args) => rebuild::run(settings(file)?, &args).await,
            Command::Audit(args) => audit::run(settings(file)?, &args).await,
            Command::Retention(args) => retention::run(settings(file)?, &args).await,
            Command::People(args) => people::run(settings(file)?, &args).await,
            Command::Handover(args) => handover::run(settings(file)?, &args).await,
            Command::Numbers(args) => numbers::run(settings(file)?, &args).await,
            Command::OptOuts(args) => opt_outs::run(settings(file)?, &args).await,
            Command::Sends(args) => sends::run(settings(file)?, &args).await,
            Command::Escalation(args) => escalation::run(settings(file)?, &args).await,
            Command::Erase(args) => erase::run(settings(file)?, &args).await,
            Command::Sandbox(args) => sandbox::run(args).await,
            Command::VerifySignature(args) => verify_signature::run(&args),
        }
    }
}

/// What the process ends with after a failure.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<rebuild::NoResult>() {
        return ExitCode::from(2);
    }
    ExitCode::FAILURE
}

/// The settings of this process, with its log started as they say.
fn settings(file: Option<&Path>) -> anyhow::Result<Config> {
    let config = Config::load(file)?;
    telemetry::start(&config.log)?;
    Ok(config)
}
