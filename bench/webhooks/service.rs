//! The service as a process of its own, so that its memory can be told from ours.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::traffic::{ACCOUNT, SERVICE, TOKEN};

/// `hookswitch serve`. Killed when it is dropped.
pub(crate) struct Service {
    pub(crate) url: String,
    pub(crate) address: SocketAddr,
    child: Child,
}

/// Resident memory.
pub(crate) struct Memory {
    pub(crate) now_kib: u64,
    pub(crate) peak_kib: u64,
}

impl Service {
    /// Starts the program and waits until it is ready.
    pub(crate) async fn start(program: Option<&Path>, database: &SecretString, dir: &Path) -> Result<Self> {
        let program = program.map_or_else(beside_us, |program| Ok(program.to_owned()))?;
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let url = format!("http://{address}");
        let child = Command::new(&program)
            .arg("serve")
            .current_dir(dir)
            .env("DATABASE_URL", database.expose_secret())
            .env("HOOKSWITCH__HTTP__LISTEN", address.to_string())
            .env("HOOKSWITCH__HTTP__PUBLIC_BASE_URL", &url)
            .env("HOOKSWITCH__TWILIO__BASE_URL", "http://127.0.0.1:1")
            .env("HOOKSWITCH__LOG__FILTER", "warn")
            .env("TWILIO_ACCOUNT_SID", ACCOUNT)
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env("TWILIO_SERVICE_SID", SERVICE)
            .env(
                "TWILIO_MESSAGING_SERVICE_SID",
                "MG00000000000000000000000000000001",
            )
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("cannot start {}", program.display()))?;
        let mut service = Self { url, address, child };
        service.until_ready().await?;
        Ok(service)
    }

    async fn until_ready(&mut self) -> Result<()> {
        const PATIENCE: Duration = Duration::from_secs(30);
        let begun = Instant::now();
        while !matches!(self.is_ready().await, Ok(true)) {
            if let Some(status) = self.child.try_wait()? {
                bail!("the service ended as it was started: {status}");
            }
            ensure!(begun.elapsed() < PATIENCE, "the service does not become ready");
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
        ensure!(status.success(), "the service ended with {status}");
        Ok(())
    }
}

impl Drop for Service {
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
