//! The running server: started through its keeper (`launch.sh`), taken over from a dead owner, and started again when
//! it dies.

use std::io::{PipeReader, PipeWriter};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};

use super::account::Account;
use super::binaries::Binaries;
use super::cluster::{Cluster, Lock};
use super::postmaster::{Life, Postmaster, State};
use super::{Durability, EmbeddedError, connect_options};

const LAUNCH: &str = include_str!("launch.sh");
/// How often we look again at something that is about to change.
const GLANCE: Duration = Duration::from_millis(20);
/// A server whose owner has died is told so at once; one that is still serving after this has lost its keeper too.
const ORPHAN_AFTER: Duration = Duration::from_secs(1);
/// A start can fail for a port taken between our look and the server's, or for a predecessor's last children.
const START_RETRIES: u32 = 4;
const START_PAUSE: Duration = Duration::from_millis(200);
/// Between two starts of a server that does not stay up.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
/// One attempt to connect; a server in recovery refuses at once, one without memory may not answer.
const CONNECT_TIME_LIMIT: Duration = Duration::from_secs(5);
/// A fast shutdown writes a checkpoint, which takes as long as the disk takes.
const STOP_TIME_LIMIT: Duration = Duration::from_mins(1);

/// Everything it takes to start the server of one cluster, again and again.
#[derive(Debug)]
pub(super) struct Launcher {
    pub(super) cluster: Cluster,
    pub(super) binaries: Binaries,
    pub(super) account: Account,
    pub(super) durability: Durability,
    pub(super) max_connections: u16,
    pub(super) start_time_limit: Duration,
}

/// A server that runs until its lifeline is closed, by us or by the end of our process.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) port: u16,
    launcher: Arc<Launcher>,
    lifeline: PipeWriter,
    stopping: Arc<AtomicBool>,
    watcher: JoinHandle<()>,
}

impl Server {
    /// Starts the server, waits until it answers, and keeps it running from a thread of its own.
    pub(super) fn start(launcher: Launcher, lock: Lock) -> Result<Self, EmbeddedError> {
        let (leash, lifeline) =
            std::io::pipe().map_err(EmbeddedError::io("make a pipe for", &launcher.binaries.dir))?;
        let (keeper, port) = launcher.start(&leash)?;
        let launcher = Arc::new(launcher);
        let stopping = Arc::new(AtomicBool::new(false));
        let watch = Watch {
            launcher: Arc::clone(&launcher),
            port,
            leash,
            stopping: Arc::clone(&stopping),
            _lock: lock,
        };
        let watcher = thread::Builder::new()
            .name("postgres-watch".to_owned())
            .spawn(move || watch.run(keeper))
            .map_err(EmbeddedError::io("start a thread for", &launcher.binaries.dir))?;
        let major = launcher.binaries.major;
        tracing::info!(
            postgres.port = port,
            "PostgreSQL {major} serves on port {port} of 127.0.0.1"
        );
        Ok(Self {
            port,
            launcher,
            lifeline,
            stopping,
            watcher,
        })
    }

    pub(super) fn connect_options(&self) -> PgConnectOptions {
        self.launcher.connect_options(self.port)
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.launcher.cluster
    }

    pub(super) fn lifeline(&self) -> &PipeWriter {
        &self.lifeline
    }

    /// The server's process, unless it is just being started again.
    pub(super) fn pid(&self) -> Option<Pid> {
        self.launcher.running().map(|postmaster| postmaster.pid)
    }

    /// Asks for a fast shutdown and waits for it: sessions are cut, what is committed is on disk.
    pub(super) fn stop(self) -> Result<(), EmbeddedError> {
        let Self {
            launcher,
            lifeline,
            stopping,
            watcher,
            ..
        } = self;
        stopping.store(true, Ordering::SeqCst);
        drop(lifeline);
        let asked = Instant::now();
        let mut asked_directly = false;
        while !watcher.is_finished() {
            if asked.elapsed() > STOP_TIME_LIMIT {
                return Err(EmbeddedError::NotStopped {
                    log: launcher.cluster.log_path(),
                });
            }
            // The keeper asks for us. Where it cannot, since it was killed or somebody holds a copy of the lifeline,
            // we ask ourselves.
            if !asked_directly && asked.elapsed() > ORPHAN_AFTER {
                asked_directly = true;
                if let Some(postmaster) = launcher.running()
                    && let Err(error) = kill_process(postmaster.pid, Signal::INT)
                {
                    tracing::warn!(%error, "cannot ask PostgreSQL to stop");
                }
            }
            thread::sleep(GLANCE);
        }
        Ok(())
    }

    /// Lets the server go down by itself; the thread that watches it keeps the lock until it has.
    pub(super) fn release(self) {
        self.stopping.store(true, Ordering::SeqCst);
    }
}

impl Launcher {
    /// Starts a server, or takes over the one that serves, and waits until it answers.
    fn start(&self, leash: &PipeReader) -> Result<(Child, u16), EmbeddedError> {
        let deadline = Instant::now() + self.start_time_limit;
        let mut failures = 0;
        loop {
            let (mut keeper, port) = self.launch(leash, None, deadline)?;
            match self.await_answer(&mut keeper, port, deadline) {
                Err(EmbeddedError::NotStarted { .. }) if failures < START_RETRIES => {
                    failures += 1;
                    thread::sleep(START_PAUSE * failures);
                }
                result => return result.map(|()| (keeper, port)),
            }
        }
    }

    /// Gives the server a keeper: a new server on `port` (or a free one), or the one that has lost its own.
    fn launch(
        &self,
        leash: &PipeReader,
        port: Option<u16>,
        deadline: Instant,
    ) -> Result<(Child, u16), EmbeddedError> {
        let mut keeper = self.account.command("/bin/sh");
        keeper.args(["-c", LAUNCH, "hookswitch-postgres"]);
        let port = if let Some((pid, port)) = self.predecessor(deadline)? {
            tracing::info!(
                "taking over the PostgreSQL that runs as process {}",
                pid.as_raw_nonzero()
            );
            keeper.arg(pid.as_raw_nonzero().to_string());
            port
        } else {
            let port = port.map_or_else(free_port, Ok)?;
            keeper
                .arg("0")
                .arg(self.binaries.dir.join("postgres"))
                .arg("-D")
                .arg(self.cluster.pgdata());
            keeper.arg("-p").arg(port.to_string()).args(self.settings());
            port
        };
        let log = self.cluster.log_path();
        let child = self
            .cluster
            .open_log()
            .and_then(|output| {
                keeper.stdin(Stdio::from(leash.try_clone()?));
                keeper.stdout(output.try_clone()?).stderr(output);
                // A group of its own: Ctrl-C is for us, and we want the database until we are done.
                keeper.process_group(0).spawn()
            })
            .map_err(EmbeddedError::io("start PostgreSQL with its log at", &log))?;
        Ok((child, port))
    }

    /// The server that an earlier owner left behind and that nobody stops, with its port. One that is on its way down
    /// is waited for.
    fn predecessor(&self, deadline: Instant) -> Result<Option<(Pid, u16)>, EmbeddedError> {
        let pgdata = self.cluster.pgdata();
        let mut serving_since = None;
        loop {
            let Some(found) = Postmaster::read(&pgdata).map_err(EmbeddedError::io("read", &pgdata))? else {
                return Ok(None);
            };
            match (found.life(&pgdata), found.state, found.port) {
                (Life::Gone, ..) => return Ok(None),
                (Life::Alive, State::Ready, Some(port))
                    if serving_since.get_or_insert_with(Instant::now).elapsed() > ORPHAN_AFTER =>
                {
                    return Ok(Some((found.pid, port)));
                }
                _ => {}
            }
            if Instant::now() > deadline {
                let pid = found.pid.as_raw_nonzero().get();
                return Err(EmbeddedError::StillThere { pid, pgdata });
            }
            thread::sleep(GLANCE);
        }
    }

    fn running(&self) -> Option<Postmaster> {
        let pgdata = self.cluster.pgdata();
        let found = Postmaster::read(&pgdata).ok().flatten()?;
        (found.life(&pgdata) == Life::Alive).then_some(found)
    }

    /// What we set on the command line rather than in the cluster, so that an upgrade of ours takes effect.
    fn settings(&self) -> Vec<String> {
        let max_connections = self.max_connections;
        let mut settings = vec![
            "listen_addresses=127.0.0.1".to_owned(),
            "unix_socket_directories=".to_owned(),
            format!("shared_buffers={}MB", self.buffers_mb()),
            // A checkpoint makes the next change of each page a whole page in the write-ahead log: not too often, then.
            "max_wal_size=2GB".to_owned(),
            "checkpoint_timeout=15min".to_owned(),
            format!("max_connections={max_connections}"),
            "timezone=UTC".to_owned(),
            "log_timezone=UTC".to_owned(),
            // Statements, details and contexts quote rows, and rows hold numbers and messages of people.
            "log_error_verbosity=terse".to_owned(),
            "log_min_error_statement=panic".to_owned(),
            "log_statement=none".to_owned(),
            "log_destination=stderr".to_owned(),
            "logging_collector=off".to_owned(),
        ];
        let (sync, commit) = match self.durability {
            Durability::Durable => ("on", "on"),
            Durability::Throwaway => ("off", "off"),
        };
        settings.push(format!("fsync={sync}"));
        settings.push(format!("full_page_writes={sync}"));
        settings.push(format!("synchronous_commit={commit}"));
        settings
            .into_iter()
            .flat_map(|setting| ["-c".to_owned(), setting])
            .collect()
    }

    /// An eighth of the machine's memory, 128 MB at least and 1 GB at most; it is taken as it is used. What is looked for by
    /// keys lies all over its indexes, and is slow to find where they do not fit.
    fn buffers_mb(&self) -> u64 {
        const LEAST_MB: u64 = 128;
        const MOST_MB: u64 = 1024;
        let memory_mb = match self.durability {
            Durability::Durable => memory_kb().unwrap_or(0) / 1024,
            Durability::Throwaway => 0,
        };
        (memory_mb / 8).clamp(LEAST_MB, MOST_MB)
    }

    fn connect_options(&self, port: u16) -> PgConnectOptions {
        connect_options(self.cluster.password(), port)
    }

    /// Waits until the server takes a connection to our database, which is created when it is missing.
    fn await_answer(&self, keeper: &mut Child, port: u16, deadline: Instant) -> Result<(), EmbeddedError> {
        let log = self.cluster.log_path();
        // A runtime of our own, on a thread of our own: the server outlives the runtime it is started from.
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(EmbeddedError::io(
                "watch the start of PostgreSQL with its log at",
                &log,
            ))?;
        let options = self.connect_options(port);
        loop {
            if let Some(status) = keeper.try_wait().map_err(EmbeddedError::io("wait for", &log))? {
                let tail = self.cluster.log_tail();
                return Err(EmbeddedError::NotStarted { status, log, tail });
            }
            let late = Instant::now() > deadline;
            match runtime.block_on(ensure_database(&options)) {
                Ok(()) => return Ok(()),
                Err(error) if late || !is_passing(&error) => {
                    return Err(EmbeddedError::NotReady { log, source: error });
                }
                Err(_) => thread::sleep(GLANCE),
            }
        }
    }
}

/// The thread that waits for the keeper's end, and starts a server that died again on its port.
struct Watch {
    launcher: Arc<Launcher>,
    port: u16,
    leash: PipeReader,
    stopping: Arc<AtomicBool>,
    _lock: Lock,
}

impl Watch {
    fn run(self, mut keeper: Child) {
        loop {
            let started = Instant::now();
            let ended = keeper.wait();
            if self.stopping.load(Ordering::SeqCst) {
                return;
            }
            tracing::warn!(
                "PostgreSQL ended by itself ({}), and is started again; its log is {}",
                ended.map_or_else(|error| error.to_string(), |status| status.to_string()),
                self.launcher.cluster.log_path().display()
            );
            match self.restart(started.elapsed()) {
                Some(next) => keeper = next,
                None => return,
            }
        }
    }

    /// Starts the server again, soon if it had been up for a while; `None` once nobody wants it any more.
    fn restart(&self, ran: Duration) -> Option<Child> {
        let mut pause = if ran < RESTART_PAUSE {
            RESTART_PAUSE
        } else {
            START_PAUSE
        };
        loop {
            let resume = Instant::now() + pause;
            while Instant::now() < resume {
                if self.stopping.load(Ordering::SeqCst) {
                    return None;
                }
                thread::sleep(GLANCE);
            }
            let deadline = Instant::now() + self.launcher.start_time_limit;
            match self.launcher.launch(&self.leash, Some(self.port), deadline) {
                Ok((keeper, _port)) => return Some(keeper),
                Err(error) => tracing::error!(%error, "PostgreSQL does not start"),
            }
            pause = RESTART_PAUSE;
        }
    }
}

/// A port that nobody listens on at this moment.
fn free_port() -> Result<u16, EmbeddedError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .and_then(|listener| listener.local_addr())
        .map(|address| address.port())
        .map_err(|source| EmbeddedError::Io {
            action: "find a free port on",
            path: "127.0.0.1".into(),
            source,
        })
}

async fn ensure_database(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    let connection = match connect(options).await {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(UNKNOWN_DATABASE) => {
            let mut connection = connect(&options.clone().database("postgres")).await?;
            sqlx::raw_sql("create database hookswitch")
                .execute(&mut connection)
                .await?;
            connection
        }
        result => result?,
    };
    connection.close().await
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, sqlx::Error> {
    tokio::time::timeout(CONNECT_TIME_LIMIT, options.connect())
        .await
        .unwrap_or_else(|_| {
            Err(sqlx::Error::Io(std::io::Error::new(
                std::io::ErrorKind::TimedOut,
                "no answer to a connection attempt",
            )))
        })
}

const UNKNOWN_DATABASE: &str = "3D000";
const STARTING_OR_STOPPING: &str = "57P03";

/// Whether a server that is starting answers so.
fn is_passing(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        sqlx::Error::Database(error) => error.code().as_deref() == Some(STARTING_OR_STOPPING),
        _ => false,
    }
}

/// The machine's memory, where the system tells of it as Linux does.
fn memory_kb() -> Option<u64> {
    let told = std::fs::read_to_string("/proc/meminfo").ok()?;
    let total = told.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    total.trim().strip_suffix(" kB")?.trim().parse().ok()
}
