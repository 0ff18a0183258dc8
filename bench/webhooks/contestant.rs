//! Who takes the webhooks: the service, or a receiver as people write them in Node. Each is a process of its own, so that
//! what it uses can be told from what we use.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::cpu;
use crate::server::{self, Server};
use crate::traffic::{ACCOUNT, HOST, MESSAGING_SERVICE, SERVICE, TOKEN};

/// Where the Node contestants lie; the sources are there wherever `cargo run --example` works.
pub(crate) const NODE_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/bench/node");

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ours,
    NodeNaive,
    NodeTuned,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Ours => "hookswitch",
            Self::NodeNaive => "node, naive",
            Self::NodeTuned => "node, tuned",
        }
    }
}

/// One who takes webhooks, with a database that is its own and the place that it has come to in the traffic.
pub(crate) struct Contestant {
    pub(crate) kind: Kind,
    pub(crate) database: SecretString,
    program: PathBuf,
    dir: PathBuf,
    /// The next webhook that its database has not seen.
    pub(crate) next: u64,
    pub(crate) opened: bool,
}

impl Contestant {
    /// With an empty database; `purpose` is a part of its name.
    pub(crate) async fn new(
        kind: Kind,
        server: &mut Server,
        purpose: &str,
        program: Option<&Path>,
        dir: &Path,
    ) -> Result<Self> {
        let database = server.fresh(purpose).await?;
        let program = match (kind, program) {
            (Kind::Ours, Some(program)) => program
                .canonicalize()
                .with_context(|| format!("no {}", program.display()))?,
            (Kind::Ours, None) => beside_us()?,
            (Kind::NodeNaive | Kind::NodeTuned, _) => "node".into(),
        };
        let contestant = Self {
            kind,
            database,
            program,
            dir: dir.to_owned(),
            next: 1,
            opened: false,
        };
        if kind == Kind::Ours {
            contestant.migrate(&contestant.database)?;
        } else {
            create_node_schema(&contestant.database).await?;
        }
        Ok(contestant)
    }

    /// Gives another database the service's tables.
    pub(crate) fn migrate(&self, database: &SecretString) -> Result<()> {
        let status = self
            .command()
            .arg("migrate")
            .env("DATABASE_URL", database.expose_secret())
            .stdout(Stdio::null())
            .status()?;
        ensure!(status.success(), "`hookswitch migrate` ended with {status}");
        Ok(())
    }

    /// Runs a command of the service to its end; answers what it printed.
    pub(crate) fn run(&self, args: &[&str]) -> Result<String> {
        let output = self.command().args(args).stdin(Stdio::null()).output()?;
        ensure!(
            output.status.success(),
            "`hookswitch {}` failed: {}",
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command
            .current_dir(&self.dir)
            .env("DATABASE_URL", self.database.expose_secret())
            .env("TWILIO_ACCOUNT_SID", ACCOUNT)
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env("TWILIO_SERVICE_SID", SERVICE)
            .env("TWILIO_MESSAGING_SERVICE_SID", MESSAGING_SERVICE)
            .env("HOOKSWITCH__TWILIO__BASE_URL", "http://127.0.0.1:1")
            .env("HOOKSWITCH__LOG__FILTER", "error");
        command
    }

    /// Starts the process and waits until it is ready.
    pub(crate) async fn start(&self) -> Result<Process> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let base = format!("https://{HOST}");
        let mut command = self.command();
        match self.kind {
            Kind::Ours => command
                .arg("serve")
                .env("HOOKSWITCH__HTTP__LISTEN", address.to_string())
                .env("HOOKSWITCH__HTTP__PUBLIC_BASE_URL", &base),
            Kind::NodeNaive | Kind::NodeTuned => {
                let script = if self.kind == Kind::NodeNaive {
                    "express.js"
                } else {
                    "tuned.js"
                };
                command
                    .arg(Path::new(NODE_DIR).join(script))
                    .env("NODE_ENV", "production")
                    .env("PORT", address.port().to_string())
                    .env("PUBLIC_BASE_URL", &base)
            }
        };
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let mut process = Process { address, child };
        process.until_ready().await?;
        Ok(process)
    }
}

pub(crate) async fn create_node_schema(database: &SecretString) -> Result<()> {
    let mut conn = server::connect(database).await?;
    server::execute(&mut conn, include_str!("../node/schema.sql")).await
}

/// Installs what the Node contestants need, as it is pinned; answers why there will be none of them, if so.
pub(crate) fn install_node() -> Option<String> {
    if Command::new("node").arg("--version").output().is_err() {
        return Some("there is no `node` here".to_owned());
    }
    let lock = Path::new(NODE_DIR).join("package-lock.json");
    // npm writes down what it has installed; it is as new as the last installation.
    let installed = Path::new(NODE_DIR).join("node_modules/.package-lock.json");
    let modified = |path: &Path| path.metadata().and_then(|of| of.modified());
    if let (Ok(installed), Ok(locked)) = (modified(&installed), modified(&lock))
        && installed >= locked
    {
        return None;
    }
    let output = Command::new("npm")
        .args(["ci", "--no-audit", "--no-fund"])
        .current_dir(NODE_DIR)
        .output();
    match output {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(format!(
            "`npm ci` failed: {}",
            String::from_utf8_lossy(&output.stderr)
        )),
        Err(error) => Some(format!("`npm` does not start: {error}")),
    }
}

/// Killed when it is dropped.
pub(crate) struct Process {
    pub(crate) address: SocketAddr,
    child: Child,
}

/// Resident memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) now_kib: u64,
    pub(crate) peak_kib: u64,
}

impl Process {
    pub(crate) fn cpu(&self) -> Result<Duration> {
        Ok(cpu::of(self.child.id())?.own)
    }

    async fn until_ready(&mut self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let begun = Instant::now();
        while !matches!(self.is_ready().await, Ok(true)) {
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended as it was started: {status}");
            }
            ensure!(begun.elapsed() < PATIENCE, "it does not become ready");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    async fn is_ready(&self) -> Result<bool> {
        let mut stream = TcpStream::connect(self.address).await?;
        stream
            .write_all(b"GET /readyz HTTP/1.1\r\nhost: bench\r\nconnection: close\r\n\r\n")
            .await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer.starts_with("HTTP/1.1 200 "))
    }

    pub(crate) fn memory(&self) -> Result<Memory> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key)?.split_whitespace().next()?.parse().ok())
                .with_context(|| format!("the system does not tell {key}"))
        };
        Ok(Memory {
            now_kib: kib("VmRSS:")?,
            peak_kib: kib("VmHWM:")?,
        })
    }

    pub(crate) fn stop(mut self) -> Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.context("no process has this number")?, Signal::TERM)?;
        let status = self.child.wait()?;
        ensure!(status.success(), "it ended with {status}");
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Nothing to do where it has ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn beside_us() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let program = own
        .parent()
        .and_then(Path::parent)
        .context("we lie in no directory of cargo's")?
        .join("hookswitch");
    ensure!(
        program.exists(),
        "{} is missing: run `cargo build --release` first",
        program.display()
    );
    Ok(program)
}
