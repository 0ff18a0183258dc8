//! Parses the arguments and runs one command.

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;
use hookswitch::cli::{self, Cli};
use hookswitch::twilio;

#[tokio::main]
async fn main() -> ExitCode {
    twilio::install_tls();
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, with its causes; a backtrace would tell an operator nothing.
            writeln!(std::io::stderr(), "hookswitch: {error:#}").ok();
            cli::exit_code(&error)
        }
    }
}
