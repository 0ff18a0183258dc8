//! `hookswitch migrate`: the schema, brought up to date. `serve` does it too when it starts.

use crate::cli::database::Database;
use crate::cli::output;
use crate::config::Config;
use crate::db;

pub async fn run(config: Config) -> anyhow::Result<()> {
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    output::line("the schema is up to date");
    database.close().await
}
