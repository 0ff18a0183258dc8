//! The files of the private server: where they lie, how they come to be, and who may use them.
//!
//! ```text
//! <base>/postgres.lock        held by the process that owns the cluster
//! <base>/postgres/data/       PostgreSQL's data directory
//! <base>/postgres/password    of the database user, readable by its owner alone
//! <base>/postgres/log         what the server says
//! ```

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rand::RngExt as _;
use rustix::fs::FlockOperation;
use secrecy::SecretString;
use sha2::{Digest as _, Sha256};

use super::account::Account;
use super::binaries::Binaries;
use super::{Durability, EmbeddedError, USER};

/// A log beyond this is set aside at the next start, one of them.
const LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;

/// The one process that may use the cluster of a data directory; given back when this is dropped or the process ends.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock, waiting up to `patience` for a process that is just ending.
    pub(super) fn take(data_dir: &Path, patience: Duration) -> Result<Self, EmbeddedError> {
        let path = data_dir.join("postgres.lock");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(EmbeddedError::io("open", &path))?;
        let deadline = Instant::now() + patience;
        loop {
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => break,
                Err(rustix::io::Errno::WOULDBLOCK | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                    thread::sleep(Duration::from_millis(50));
                }
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    let mut holder = String::new();
                    // Only for the sentence: whoever it is, the lock is held.
                    if file.read_to_string(&mut holder).is_err() || holder.trim().is_empty() {
                        "unknown".clone_into(&mut holder);
                    }
                    let holder = holder.trim().to_owned();
                    return Err(EmbeddedError::Locked {
                        data_dir: data_dir.to_owned(),
                        holder,
                    });
                }
                Err(error) => return Err(EmbeddedError::io("lock", &path)(error.into())),
            }
        }
        file.set_len(0)
            .and_then(|()| writeln!(file, "{}", std::process::id()))
            .map_err(EmbeddedError::io("write", &path))?;
        Ok(Self { _file: file })
    }
}

/// The directory that the cluster lies in: `data_dir`, or one below `/var/tmp` where the server's account cannot enter
/// `data_dir` (a checkout below a home directory that is closed to others).
pub(super) fn base(data_dir: &Path, account: Account) -> Result<PathBuf, EmbeddedError> {
    if account.can_enter(data_dir) {
        return Ok(data_dir.to_owned());
    }
    let name = hex::encode(&Sha256::digest(data_dir.as_os_str().as_encoded_bytes())[..8]);
    let base = Path::new("/var/tmp").join(format!("hookswitch-{name}"));
    match DirBuilder::new().mode(0o700).create(&base) {
        Ok(()) => account
            .own(&base)
            .map_err(EmbeddedError::io("change the owner of", &base))?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(EmbeddedError::io("create", &base)(error)),
    }
    // Anybody can write to /var/tmp, so what is there must be what we made: a directory (no link), closed to others.
    let found = fs::symlink_metadata(&base).map_err(EmbeddedError::io("read", &base))?;
    if !found.is_dir() || found.uid() != account.uid() || found.mode() & 0o077 != 0 {
        return Err(EmbeddedError::ForeignDirectory { dir: base });
    }
    tracing::info!(
        "the account that PostgreSQL runs as cannot enter {}: its files are in {}",
        data_dir.display(),
        base.display()
    );
    Ok(base)
}

/// A cluster on disk.
#[derive(Debug)]
pub(super) struct Cluster {
    home: PathBuf,
    password: SecretString,
}

impl Cluster {
    fn home_in(base: &Path) -> PathBuf {
        base.join("postgres")
    }

    /// The major version that made the cluster in `base`, if there is one.
    pub(super) fn major_in(base: &Path) -> Result<Option<u32>, EmbeddedError> {
        let home = Self::home_in(base);
        if !home.exists() {
            return Ok(None);
        }
        let path = home.join("data/PG_VERSION");
        let text = fs::read_to_string(&path).map_err(EmbeddedError::io("read", &path))?;
        let not_a_number =
            |error| EmbeddedError::io("read", &path)(io::Error::new(io::ErrorKind::InvalidData, error));
        text.trim().parse().map(Some).map_err(not_a_number)
    }

    /// Opens the cluster in `base`, and makes it first if there is none.
    pub(super) fn open_or_create(
        base: &Path,
        binaries: &Binaries,
        account: Account,
        durability: Durability,
    ) -> Result<Self, EmbeddedError> {
        let home = Self::home_in(base);
        if !home.exists() {
            create(base, &home, binaries, account, durability)?;
        }
        Self::read(home)
    }

    /// Opens the cluster in `base`, if there is one.
    pub(super) fn open(base: &Path) -> Result<Option<Self>, EmbeddedError> {
        let home = Self::home_in(base);
        home.exists().then(|| Self::read(home)).transpose()
    }

    fn read(home: PathBuf) -> Result<Self, EmbeddedError> {
        let path = home.join("password");
        let password = fs::read_to_string(&path).map_err(EmbeddedError::io("read", &path))?;
        Ok(Self {
            password: SecretString::from(password.trim()),
            home,
        })
    }

    pub(super) fn pgdata(&self) -> PathBuf {
        self.home.join("data")
    }

    pub(super) fn password(&self) -> &SecretString {
        &self.password
    }

    pub(super) fn log_path(&self) -> PathBuf {
        self.home.join("log")
    }

    /// Opens the log for the server to write to.
    pub(super) fn open_log(&self) -> io::Result<File> {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
            fs::rename(&path, self.home.join("log.old"))?;
        }
        OpenOptions::new()
            .create(true)
            .append(true)
            .mode(0o600)
            .open(path)
    }

    /// The last lines of the log. It holds no statements and no values: see `server::settings`.
    pub(super) fn log_tail(&self) -> String {
        let text = fs::read(self.log_path()).unwrap_or_default();
        let text = String::from_utf8_lossy(&text[text.len().saturating_sub(4096)..]).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

/// Makes the cluster beside its place and moves it there when it is whole: a crash half way leaves nothing that looks
/// like one.
fn create(
    base: &Path,
    home: &Path,
    binaries: &Binaries,
    account: Account,
    durability: Durability,
) -> Result<(), EmbeddedError> {
    tracing::info!(
        "making a database with PostgreSQL {} in {}",
        binaries.major,
        home.display()
    );
    let aside = base.join("postgres.new");
    if aside.exists() {
        fs::remove_dir_all(&aside).map_err(EmbeddedError::io("remove", &aside))?;
    }
    DirBuilder::new()
        .mode(0o700)
        .create(&aside)
        .map_err(EmbeddedError::io("create", &aside))?;
    account
        .own(&aside)
        .map_err(EmbeddedError::io("change the owner of", &aside))?;
    write_password(&aside.join("password"), account)?;
    initdb(&aside, binaries, account, durability)?;
    // The rename is what makes it the cluster, so what is renamed and the rename itself must reach the disk.
    let sync = |dir: &Path| File::open(dir).and_then(|dir| dir.sync_all());
    sync(&aside).map_err(EmbeddedError::io("write", &aside))?;
    fs::rename(&aside, home).map_err(EmbeddedError::io("rename", &aside))?;
    sync(base).map_err(EmbeddedError::io("write", base))
}

fn write_password(path: &Path, account: Account) -> Result<(), EmbeddedError> {
    let password: [u8; 24] = rand::rng().random();
    let write = || {
        let mut file = OpenOptions::new()
            .create_new(true)
            .write(true)
            .mode(0o600)
            .open(path)?;
        writeln!(file, "{}", hex::encode(password))?;
        file.sync_all()?;
        account.own(path)
    };
    write().map_err(EmbeddedError::io("write", path))
}

fn initdb(
    dir: &Path,
    binaries: &Binaries,
    account: Account,
    durability: Durability,
) -> Result<(), EmbeddedError> {
    // Byte order for sorting, everywhere the same; letters beyond ASCII are known where the system has C.UTF-8. `C` sorts as
    // C.UTF-8 does and compares without asking the system's library, which indexes of texts notice.
    let mut output = String::new();
    for locale in ["C.UTF-8", "C"] {
        let data = dir.join("data");
        let mut command = account.command(binaries.dir.join("initdb"));
        command
            .arg("--pgdata")
            .arg(&data)
            .arg("--pwfile")
            .arg(dir.join("password"));
        command
            .arg(format!("--username={USER}"))
            .arg(format!("--locale={locale}"))
            .arg("--lc-collate=C");
        command.args(["--encoding=UTF8", "--auth=scram-sha-256", "--no-instructions"]);
        if durability == Durability::Throwaway {
            command.arg("--no-sync");
        }
        let answer = command
            .output()
            .map_err(EmbeddedError::io("run", &binaries.dir.join("initdb")))?;
        if answer.status.success() {
            return Ok(());
        }
        String::from_utf8_lossy(&answer.stderr)
            .trim()
            .clone_into(&mut output);
        if !output.contains("locale") {
            break;
        }
    }
    Err(EmbeddedError::InitDb {
        dir: dir.to_owned(),
        output,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_owner_is_told_who_the_first_is() {
        let dir = tempfile::tempdir().unwrap();
        let first = Lock::take(dir.path(), Duration::ZERO).unwrap();
        let second = Lock::take(dir.path(), Duration::from_millis(120))
            .unwrap_err()
            .to_string();
        assert!(
            second.contains(&format!("process {}", std::process::id())),
            "{second}"
        );
        drop(first);
        Lock::take(dir.path(), Duration::ZERO).unwrap();
    }

    #[test]
    fn the_log_is_told_by_its_last_lines() {
        let home = tempfile::tempdir().unwrap();
        let cluster = Cluster {
            home: home.path().to_owned(),
            password: SecretString::from(""),
        };
        assert_eq!(cluster.log_tail(), "");
        let lines: Vec<String> = (1..=2000).map(|n| format!("line {n}")).collect();
        fs::write(cluster.log_path(), lines.join("\n")).unwrap();
        assert_eq!(
            cluster.log_tail(),
            "line 1996\nline 1997\nline 1998\nline 1999\nline 2000"
        );
    }

    #[test]
    fn a_log_that_has_grown_long_is_set_aside() {
        let home = tempfile::tempdir().unwrap();
        let cluster = Cluster {
            home: home.path().to_owned(),
            password: SecretString::from(""),
        };
        cluster.open_log().unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        assert_eq!(cluster.open_log().unwrap().metadata().unwrap().len(), 0);
        assert_eq!(
            fs::metadata(home.path().join("log.old")).unwrap().len(),
            LOG_BYTES_MAX + 1
        );
    }
}
