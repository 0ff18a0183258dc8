//! What PostgreSQL says about itself in `postmaster.pid`. We read that file and never write or delete it: it is
//! PostgreSQL's own defence against two servers on one set of files.

use std::io;
use std::path::Path;

use rustix::process::{Pid, test_kill_process};

/// The server that last claimed a data directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Postmaster {
    pub(super) pid: Pid,
    /// Absent while it is starting.
    pub(super) port: Option<u16>,
    pub(super) state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Starting,
    Ready,
    Stopping,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Gone,
    /// Killed, and its parent has not taken note yet.
    Zombie,
    Alive,
}

impl Postmaster {
    /// Reads `postmaster.pid`; `None` when there is none, or when it is being written.
    pub(super) fn read(pgdata: &Path) -> io::Result<Option<Self>> {
        match std::fs::read_to_string(pgdata.join("postmaster.pid")) {
            Ok(text) => Ok(Self::parse(&text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lines, by PostgreSQL's `pidfile.h`: pid, data directory, start time, port, socket directory, listen address,
    /// shared memory key, state. A server writes them one by one as it starts.
    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines().map(str::trim);
        // The bootstrap and single-user modes write their pid negated.
        let pid = Pid::from_raw(lines.next()?.parse::<i32>().ok()?.checked_abs()?)?;
        let port = lines.nth(2).and_then(|line| line.parse().ok());
        let state = match lines.nth(3) {
            Some("ready" | "standby") => State::Ready,
            Some("stopping") => State::Stopping,
            Some(_) | None => State::Starting,
        };
        Some(Self { pid, port, state })
    }

    /// Whether the server of `pgdata` still runs. A number that has since been given to another process counts as
    /// gone; whether that is in PostgreSQL's way is for PostgreSQL to say.
    pub(super) fn life(&self, pgdata: &Path) -> Life {
        match test_kill_process(self.pid) {
            Err(rustix::io::Errno::SRCH | rustix::io::Errno::PERM) => Life::Gone,
            _ if is_zombie(self.pid) => Life::Zombie,
            _ if is_elsewhere(self.pid, pgdata) => Life::Gone,
            _ => Life::Alive,
        }
    }
}

/// A server works in its data directory, so a process that works in another is none of ours. Where the system does not
/// tell, we believe the file.
fn is_elsewhere(pid: Pid, pgdata: &Path) -> bool {
    std::fs::read_link(format!("/proc/{}/cwd", pid.as_raw_nonzero())).is_ok_and(|cwd| cwd != pgdata)
}

/// Linux tells; elsewhere the answer is no, and a zombie looks alive until it is reaped.
fn is_zombie(pid: Pid) -> bool {
    std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()))
        .is_ok_and(|stat| state_of(&stat) == Some('Z'))
}

/// The state in `/proc/…/stat`: after the command in parentheses, which may itself hold parentheses and blanks.
fn state_of(stat: &str) -> Option<char> {
    stat.rsplit_once(')')?.1.trim_start().chars().next()
}

#[cfg(test)]
mod tests {
    use super::*;

    const READY: &str = "4711\n/srv/data\n1700000000\n54321\n\n127.0.0.1\n  5432001   3\nready   \n";

    #[test]
    fn a_serving_postmaster_is_read_whole() {
        let read = Postmaster::parse(READY).unwrap();
        assert_eq!(read.pid.as_raw_nonzero().get(), 4711);
        assert_eq!((read.port, read.state), (Some(54321), State::Ready));
        let stopping = Postmaster::parse(&READY.replace("ready   ", "stopping")).unwrap();
        assert_eq!(stopping.state, State::Stopping);
    }

    #[test]
    fn a_half_written_file_is_a_server_that_starts() {
        let read = Postmaster::parse("4711\n/srv/data\n1700000000\n").unwrap();
        assert_eq!((read.port, read.state), (None, State::Starting));
        assert_eq!(Postmaster::parse(""), None);
        assert_eq!(Postmaster::parse("zero\n"), None);
        assert_eq!(Postmaster::parse("0\n"), None);
    }

    #[test]
    fn a_process_that_works_elsewhere_is_not_the_server() {
        let own = Postmaster {
            pid: rustix::process::getpid(),
            port: None,
            state: State::Ready,
        };
        let cwd = std::env::current_dir().unwrap().canonicalize().unwrap();
        assert_eq!(own.life(&cwd), Life::Alive);
        assert_eq!(own.life(Path::new("/nowhere")), Life::Gone);
    }

    #[test]
    fn a_killed_child_is_a_zombie_until_it_is_waited_for() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        let server = Postmaster {
            pid,
            port: None,
            state: State::Ready,
        };
        child.kill().unwrap();
        let seen = (0..200).any(|_| {
            std::thread::sleep(std::time::Duration::from_millis(5));
            server.life(Path::new("/nowhere")) == Life::Zombie
        });
        assert!(seen, "never a zombie");
        child.wait().unwrap();
        assert_eq!(server.life(Path::new("/nowhere")), Life::Gone);
    }

    #[test]
    fn a_command_with_parentheses_does_not_hide_a_zombie() {
        assert_eq!(state_of("12 (sh) S 1 2"), Some('S'));
        assert_eq!(state_of("12 (odd) S) Z 1 2"), Some('Z'));
        assert_eq!(state_of(""), None);
    }
}
