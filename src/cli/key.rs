//! `hookswitch key`: making, listing and revoking API keys.

use std::io::{self, Write};

use anyhow::Context as _;
use clap::Subcommand;
use secrecy::ExposeSecret as _;
use sqlx::{ConnectOptions as _, PgConnection};
use uuid::Uuid;

use crate::api::auth::{self, ApiKey, Scope};
use crate::cli::database::Database;
use crate::clock::Clock;
use crate::config::Config;
use crate::db;

/// What to do with API keys.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Make a key and print it: the one time that it is shown
    Create {
        /// What it is for, to tell it from others
        #[arg(long, value_parser = name)]
        name: String,
        /// What it may do; may be repeated
        #[arg(long = "scope", value_name = "SCOPE", required = true)]
        scopes: Vec<Scope>,
    },
    /// List all keys, the revoked ones too
    List,
    /// Make a key useless, at once and for ever
    Revoke {
        /// The key's id, as listed
        id: Uuid,
    },
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let mut conn = database
        .options
        .connect()
        .await
        .context("cannot reach the database")?;
    let done = act(&mut conn, &Clock::system(), &args.action, io::stdout().lock()).await;
    drop(conn);
    database.close().await?;
    done
}

async fn act(
    conn: &mut PgConnection,
    clock: &Clock,
    action: &Action,
    mut out: impl Write,
) -> anyhow::Result<()> {
    match action {
        Action::Create { name, scopes } => {
            let created = auth::create(conn, name, scopes, clock.now()).await?;
            writeln!(out, "{}", created.key.expose_secret())?;
        }
        Action::List => {
            for key in auth::list(conn).await? {
                writeln!(out, "{}", line(&key))?;
            }
        }
        Action::Revoke { id } => {
            let revoked = auth::revoke(conn, *id, clock.now()).await?;
            anyhow::ensure!(revoked, "there is no such key that is not revoked already");
            writeln!(out, "revoked {id}")?;
        }
    }
    out.flush()?;
    Ok(())
}

fn line(key: &ApiKey) -> String {
    let scopes: Vec<&str> = key.scopes.iter().map(|scope| scope.as_str()).collect();
    let used = key
        .last_used_at
        .map_or_else(|| "never used".to_owned(), |at| format!("used {at:.0}"));
    let revoked = key
        .revoked_at
        .map(|at| format!("  revoked {at:.0}"))
        .unwrap_or_default();
    format!(
        "{}  {}  {}  created {:.0}  {used}{revoked}",
        key.api_key_id,
        key.name,
        scopes.join(","),
        key.created_at,
    )
}

/// One line of text, since it is listed in one.
fn name(text: &str) -> Result<String, &'static str> {
    let fits = !text.trim().is_empty() && text.chars().count() <= 100 && !text.chars().any(char::is_control);
    if fits {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 100 characters in one line")
    }
}
