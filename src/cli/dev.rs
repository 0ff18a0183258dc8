//! dev
#[derive(Debug, clap::Args)]
pub struct Args {}
pub async fn run(_c: crate::config::Config, _args: &Args) -> anyhow::Result<()> {
    Ok(())
}
