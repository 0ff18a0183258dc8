//! Who the server runs as: PostgreSQL refuses root, so root lends it another account.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::EmbeddedError;

/// Debian's account for PostgreSQL, then the one that every system has.
const CANDIDATES: [&str; 2] = ["postgres", "nobody"];

/// The account that runs `initdb` and `postgres` and owns what they write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Account {
    /// Our own; we are not root.
    Own,
    /// Another, since we are root.
    Other { uid: u32, gid: u32 },
}

impl Account {
    pub(super) fn choose() -> Result<Self, EmbeddedError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Own);
        }
        CANDIDATES
            .iter()
            .find_map(|name| look_up(name))
            .map(|(uid, gid)| Self::Other { uid, gid })
            .ok_or(EmbeddedError::NoAccount)
    }

    /// A command that runs as this account, with none of our environment: it may hold credentials.
    pub(super) fn command(self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LC_ALL", "C")
            .current_dir("/")
            .stdin(Stdio::null());
        if let Self::Other { uid, gid } = self {
            command.uid(uid).gid(gid);
        }
        command
    }

    /// Hands `path` to this account.
    pub(super) fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self::Own => Ok(()),
            Self::Other { uid, gid } => chown(path, Some(uid), Some(gid)),
        }
    }

    /// Whether this account gets into `dir`: asked of the kernel, since modes of every parent, access lists and mounts
    /// have a say.
    pub(super) fn can_enter(self, dir: &Path) -> bool {
        self == Self::Own
            || self
                .command("/bin/sh")
                .args(["-c", r#"cd -- "$1""#, "sh"])
                .arg(dir)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    }

    pub(super) fn uid(self) -> u32 {
        match self {
            Self::Own => rustix::process::geteuid().as_raw(),
            Self::Other { uid, .. } => uid,
        }
    }
}

fn look_up(name: &str) -> Option<(u32, u32)> {
    let local = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    ids_of(name, &local).or_else(|| {
        // Accounts of a directory service are not in the file.
        let answer = Command::new("getent").args(["passwd", name]).output().ok()?;
        ids_of(name, &String::from_utf8_lossy(&answer.stdout))
    })
}

/// User and group of `name` in lines like `postgres:x:101:104:…`; root under another name does not count.
fn ids_of(name: &str, passwd: &str) -> Option<(u32, u32)> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (found, _password) = (fields.next()?, fields.next()?);
        let (uid, gid) = (fields.next()?.parse().ok()?, fields.next()?.parse().ok()?);
        (found == name && uid != 0).then_some((uid, gid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken line\npostgres2:x:7:7::/:/bin/sh\n\
        postgres:x:101:104:PostgreSQL administrator,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn an_account_is_found_by_its_whole_name() {
        assert_eq!(ids_of("postgres", PASSWD), Some((101, 104)));
        assert_eq!(ids_of("post", PASSWD), None);
        assert_eq!(ids_of("nobody", PASSWD), None);
    }

    #[test]
    fn root_is_not_lent_to_the_server_under_any_name() {
        assert_eq!(ids_of("root", PASSWD), None);
        assert_eq!(ids_of("postgres", "postgres:x:0:0::/:/bin/sh"), None);
    }
}
