//! `hookswitch verify-signature`: explains the signature of one request, or judges many.

/// What to verify.
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(_args: &Args) -> anyhow::Result<()> {
    anyhow::bail!("in the making")
}
