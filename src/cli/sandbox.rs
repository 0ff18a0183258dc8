//! `hookswitch sandbox`: the emulator alone.

/// Settings of the emulator.
#[derive(Debug, clap::Args)]
pub struct Args {}

#[expect(clippy::unused_async, reason = "in the making")]
pub async fn run(_args: Args) -> anyhow::Result<()> {
    anyhow::bail!("in the making")
}
