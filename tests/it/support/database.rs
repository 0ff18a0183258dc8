//! A database for each test, on a throw-away PostgreSQL that one run of the tests shares.
//!
//! The first test that asks starts the server, below `target/`; it ends with the run, and its files are kept so that
//! the next run starts faster. Each test gets a copy of a template that holds the migrated schema. A copy is dropped
//! after its test, or, where the process has ended before that, by the next run.
//!
//! `cargo test` runs all tests in one process, and the server ends with that. `cargo nextest` runs each test in a
//! process of its own: there the server is shared by all processes of the run, and ends with nextest.

use std::fs::{self, File};
use std::os::unix::process::{CommandExt as _, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, Result};
use hookswitch::db::MIGRATOR;
use hookswitch::db::embedded::{self, Durability, Embedded, Options};
use rustix::fs::FlockOperation;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};
use tokio::sync::{mpsc, oneshot};

/// An empty database with the current schema, for one test alone.
pub(crate) struct TestDatabase {
    /// For sqlx.
    pub(crate) options: PgConnectOptions,
    url: SecretString,
    name: String,
}

/// Makes a database for the calling test.
pub(crate) async fn database() -> TestDatabase {
    let (tell, told) = oneshot::channel();
    administrator()
        .send(Order::Create(tell))
        .expect("the administrator never stops listening");
    told.await
        .expect("the administrator answers")
        .expect("a database can be made")
}

impl TestDatabase {
    /// `postgres://…`, for what is configured by a URL.
    pub(crate) fn url(&self) -> SecretString {
        self.url.clone()
    }

    /// A pool of at most `connections`, on the caller's runtime.
    pub(crate) async fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .connect_with(self.options.clone())
            .await
            .expect("the test server takes connections")
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        // Not waited for: what is left over is dropped by the next run.
        drop(administrator().send(Order::Drop(std::mem::take(&mut self.name))));
    }
}

enum Order {
    Create(oneshot::Sender<Result<TestDatabase, String>>),
    Drop(String),
}

/// The thread that holds the server and makes the databases. It has a runtime of its own, since a test's runtime ends
/// with the test.
fn administrator() -> &'static mpsc::UnboundedSender<Order> {
    static ADMINISTRATOR: OnceLock<mpsc::UnboundedSender<Order>> = OnceLock::new();
    ADMINISTRATOR.get_or_init(|| {
        let (orders, inbox) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime can be made")
                .block_on(administrate(inbox));
        });
        orders
    })
}

async fn administrate(mut inbox: mpsc::UnboundedReceiver<Order>) {
    let mut started = Administration::start()
        .await
        .map_err(|error| format!("{error:#}"));
    while let Some(order) = inbox.recv().await {
        match (&mut started, order) {
            (Ok(administration), Order::Create(tell)) => {
                let made = administration
                    .create()
                    .await
                    .map_err(|error| format!("{error:#}"));
                // A test that has given up does not want its database.
                drop(tell.send(made));
            }
            (Ok(administration), Order::Drop(name)) => {
                // What cannot be dropped now is dropped by the next run.
                drop(
                    administration
                        .execute(format!("drop database {name} with (force)"))
                        .await,
                );
            }
            (Err(error), Order::Create(tell)) => drop(tell.send(Err(error.clone()))),
            (Err(_), Order::Drop(_)) => {}
        }
    }
}

struct Administration {
    url: SecretString,
    connection: PgConnection,
    template: String,
    /// If it is ours; it runs until the process ends.
    server: Option<(Embedded, File)>,
}

impl Administration {
    async fn start() -> Result<Self> {
        let base = Path::new(env!("CARGO_TARGET_TMPDIR")).join("postgres");
        fs::create_dir_all(&base)?;
        // One at a time, so that of nextest's many processes one starts the server and the others find it.
        let starting = File::create(base.join("starting.lock"))?;
        rustix::fs::flock(&starting, FlockOperation::LockExclusive)?;

        let run = std::env::var_os("NEXTEST_RUN_ID").map(|id| id.to_string_lossy().into_owned());
        let (url, server) = match find_or_start(&base, run.as_deref()).await? {
            Found::Shared(url) => (url, None),
            Found::Started(server, slot) => (server.url(), Some((server, slot))),
        };
        let options: PgConnectOptions = url.expose_secret().parse()?;
        let connection = options.database("postgres").connect().await?;
        let template = format!("template_{}", schema_digest());
        let mut administration = Self {
            url,
            connection,
            template,
            server,
        };
        if administration.server.is_some() {
            administration.drop_leftovers().await?;
        }
        administration.ensure_template().await?;
        Ok(administration)
    }

    async fn execute(&mut self, sql: String) -> Result<()> {
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&mut self.connection)
            .await?;
        Ok(())
    }

    async fn databases(&mut self, pattern: &'static str) -> Result<Vec<String>> {
        let sql = format!("select datname from pg_database where datname like '{pattern}'");
        let rows = sqlx::raw_sql(AssertSqlSafe(sql))
            .fetch_all(&mut self.connection)
            .await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Databases of tests whose process ended too early, and templates of other schemas.
    async fn drop_leftovers(&mut self) -> Result<()> {
        let mut names = self.databases(r"test\_%").await?;
        names.extend(
            self.databases(r"template\__%")
                .await?
                .into_iter()
                .filter(|name| *name != self.template),
        );
        names.retain(|name| name != "template0" && name != "template1");
        for name in names {
            self.execute(format!("drop database {name} with (force)")).await?;
        }
        Ok(())
    }

    /// Migrated once for each set of migrations, under a name that it gets when it is whole.
    async fn ensure_template(&mut self) -> Result<()> {
        let template = self.template.clone();
        if self.databases(r"template\__%").await?.contains(&template) {
            return Ok(());
        }
        self.execute("drop database if exists test_template".to_owned())
            .await?;
        self.execute("create database test_template".to_owned()).await?;
        let options: PgConnectOptions = self.url.expose_secret().parse()?;
        let mut connection = options.database("test_template").connect().await?;
        MIGRATOR
            .run(&mut connection)
            .await
            .context("the migrations cannot be applied")?;
        connection.close().await?;
        self.execute(format!("alter database test_template rename to {template}"))
            .await
    }

    async fn create(&mut self) -> Result<TestDatabase> {
        let name = format!("test_{}", hookswitch::ids::new_id().simple());
        self.execute(format!("create database {name} template {}", self.template))
            .await?;
        let mut url = url::Url::parse(self.url.expose_secret())?;
        url.set_path(&name);
        let url = SecretString::from(String::from(url));
        Ok(TestDatabase {
            options: url.expose_secret().parse()?,
            url,
            name,
        })
    }
}

enum Found {
    /// Another process of this run of nextest has started it.
    Shared(SecretString),
    /// Ours, with the lock on its place.
    Started(Embedded, File),
}

/// The server of this run: shared if there is one, else started in the first place that no other run has.
async fn find_or_start(base: &Path, run: Option<&str>) -> Result<Found> {
    for number in 0.. {
        let place = base.join(format!("{number}"));
        fs::create_dir_all(&place)?;
        let slot = File::create(place.join("slot.lock"))?;
        match rustix::fs::flock(&slot, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return start(&place, run, slot).await,
            Err(rustix::io::Errno::WOULDBLOCK) => {}
            Err(error) => return Err(error.into()),
        }
        if let Some(url) = run.and_then(|run| shared_url(&place, run)) {
            return Ok(Found::Shared(url));
        }
    }
    unreachable!("there is always another place")
}

async fn start(place: &Path, run: Option<&str>, slot: File) -> Result<Found> {
    let options = Options {
        durability: Durability::Throwaway,
        max_connections: 300,
        bin_dir: std::env::var_os("PG_BIN_DIR").map(PathBuf::from),
        ..Options::new(place)
    };
    let server = embedded::start(options).await?;
    if let Some(run) = run {
        outlive_this_process(&server, &slot)?;
        fs::write(
            place.join("shared"),
            format!("{run}\n{}", server.url().expose_secret()),
        )?;
    }
    Ok(Found::Started(server, slot))
}

fn shared_url(place: &Path, run: &str) -> Option<SecretString> {
    let shared = fs::read_to_string(place.join("shared")).ok()?;
    let (found, url) = shared.split_once('\n')?;
    (found == run).then(|| SecretString::from(url))
}

/// Hands the server and the lock on its place to a process that lives as long as the one that runs the tests.
fn outlive_this_process(server: &Embedded, slot: &File) -> Result<()> {
    Command::new("sh")
        .args(["-c", r#"while kill -0 "$1"; do sleep 0.2; done"#, "sh"])
        .arg(parent_id().to_string())
        .stdin(Stdio::from(slot.try_clone()?))
        .stdout(Stdio::from(server.keep_running()?))
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    Ok(())
}

/// Tells one set of migrations from another.
fn schema_digest() -> String {
    let mut digest = Sha256::new();
    for migration in MIGRATOR.iter() {
        digest.update(migration.version.to_be_bytes());
        digest.update(&migration.checksum);
    }
    hex::encode(&digest.finalize()[..8])
}
