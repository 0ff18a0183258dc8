//! The one PostgreSQL of a run, its databases, and what it counts.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use hookswitch::db::embedded::{self, Embedded, Options};
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};
use url::Url;

use crate::cpu;

pub(crate) struct Server {
    /// `None`: one that we were given.
    embedded: Option<Embedded>,
    url: SecretString,
    conn: PgConnection,
    made: Vec<String>,
}

/// What a database and its server have done until now.
pub(crate) struct Counters {
    pub(crate) wal_bytes: u64,
    pub(crate) commits: u64,
    /// Known only where the server has `pg_stat_statements`.
    pub(crate) statements: Option<u64>,
    /// Known only of a server of our own.
    pub(crate) cpu: Option<Duration>,
}

impl Server {
    pub(crate) async fn start(given: Option<&SecretString>, dir: &Path) -> Result<Self> {
        let embedded = match given {
            Some(_) => None,
            None => Some(embedded::start(Options::new(dir)).await?),
        };
        let url = match (given, &embedded) {
            (Some(url), _) => url.clone(),
            (None, Some(server)) => server.url(),
            (None, None) => unreachable!("it was started where none was given"),
        };
        let mut conn = PgConnection::connect(url.expose_secret()).await?;
        for setting in ["fsync", "synchronous_commit"] {
            let on = text(&mut conn, &format!("show {setting}")).await?;
            ensure!(on == "on", "`{setting}` is {on}: what is acked has to be durable");
        }
        Ok(Self {
            embedded,
            url,
            conn,
            made: Vec::new(),
        })
    }

    /// An empty database.
    pub(crate) async fn fresh(&mut self, purpose: &str) -> Result<SecretString> {
        let name = format!("bench_{}_{purpose}", std::process::id());
        execute(&mut self.conn, &format!("create database {name}")).await?;
        let mut url = Url::parse(self.url.expose_secret())?;
        url.set_path(&name);
        self.made.push(name);
        Ok(url.as_str().to_owned().into())
    }

    pub(crate) async fn version(&mut self) -> Result<String> {
        text(&mut self.conn, "show server_version").await
    }

    /// As if nothing were owed from before.
    pub(crate) async fn checkpoint(&mut self) -> Result<()> {
        execute(&mut self.conn, "checkpoint").await
    }

    pub(crate) async fn counters(&mut self, database: &SecretString) -> Result<Counters> {
        let of = Url::parse(database.expose_secret())?;
        let name = of.path().trim_start_matches('/');
        let conn = &mut self.conn;
        let wal = "select pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::bigint";
        let commits = format!("select xact_commit from pg_stat_database where datname = '{name}'");
        let has = "select count(*) from pg_extension where extname = 'pg_stat_statements'";
        let calls = format!(
            "select coalesce(sum(calls), 0)::bigint from pg_stat_statements \
             where dbid = (select oid from pg_database where datname = '{name}')"
        );
        Ok(Counters {
            wal_bytes: number(conn, wal).await?,
            commits: number(conn, &commits).await?,
            statements: match number(conn, has).await? {
                0 => None,
                _ => Some(number(conn, &calls).await?),
            },
            cpu: match self.embedded.as_ref().and_then(Embedded::pid) {
                Some(pid) => Some(cpu::of_family(pid)?),
                None => None,
            },
        })
    }

    /// Leaves nothing behind on a server that is not ours.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(server) = self.embedded {
            self.conn.close().await?;
            server.stop().await?;
            return Ok(());
        }
        for name in &self.made {
            execute(&mut self.conn, &format!("drop database {name} with (force)")).await?;
        }
        self.conn.close().await?;
        Ok(())
    }
}

/// What the server's processes used between the two.
pub(crate) fn spent(before: &Counters, after: &Counters) -> Option<Duration> {
    Some(after.cpu?.saturating_sub(before.cpu?))
}

pub(crate) async fn connect(database: &SecretString) -> Result<PgConnection> {
    Ok(PgConnection::connect(database.expose_secret()).await?)
}

pub(crate) async fn execute(conn: &mut PgConnection, sql: &str) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(conn).await?;
    Ok(())
}

pub(crate) async fn number(conn: &mut PgConnection, sql: &str) -> Result<u64> {
    let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_one(conn)
        .await?;
    Ok(u64::try_from(row.try_get::<i64, _>(0)?)?)
}

/// The first column of every row.
pub(crate) async fn texts(conn: &mut PgConnection, sql: &str) -> Result<Vec<String>> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_all(conn)
        .await?;
    rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
}

async fn text(conn: &mut PgConnection, sql: &str) -> Result<String> {
    let found = texts(conn, sql).await?;
    found.into_iter().next().context("no answer")
}
