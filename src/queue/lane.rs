//! What a task waits for, by which tasks are kept out of each other's way.

use serde::Deserialize;
use tokio::sync::Notify;

/// What a task waits for while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lane {
    /// Twilio, for somebody who waits: a transfer, a message, a group text.
    Foreground,
    /// Twilio, or another service, for nobody in particular: what is read to heal the mirror, or erased.
    Background,
    /// Our database alone.
    Local,
}

impl Lane {
    pub const ALL: [Self; 3] = [Self::Foreground, Self::Background, Self::Local];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Foreground => "foreground",
            Self::Background => "background",
            Self::Local => "local",
        }
    }
}

/// A kind of task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TaskKind {
    /// As it is stored.
    pub name: &'static str,
    pub lane: Lane,
}

impl TaskKind {
    pub const fn new(name: &'static str, lane: Lane) -> Self {
        Self { name, lane }
    }
}

/// How many tasks one process runs at once, at least one in each lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concurrency {
    pub foreground: usize,
    pub background: usize,
    pub local: usize,
}

impl Concurrency {
    pub fn of(&self, lane: Lane) -> usize {
        match lane {
            Lane::Foreground => self.foreground,
            Lane::Background => self.background,
            Lane::Local => self.local,
        }
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Self {
            foreground: 16,
            background: 6,
            local: 3,
        }
    }
}

/// Wakes the worker's lanes.
#[derive(Debug, Default)]
pub struct Wake {
    foreground: Notify,
    background: Notify,
    local: Notify,
}

impl Wake {
    /// Wakes the lane of that name; all of them, if there is none of that name.
    pub fn wake(&self, name: &str) {
        match Lane::ALL.into_iter().find(|lane| lane.as_str() == name) {
            Some(lane) => self.of(lane).notify_waiters(),
            None => self.wake_all(),
        }
    }

    pub fn wake_all(&self) {
        for lane in Lane::ALL {
            self.of(lane).notify_waiters();
        }
    }

    pub(super) fn of(&self, lane: Lane) -> &Notify {
        match lane {
            Lane::Foreground => &self.foreground,
            Lane::Background => &self.background,
            Lane::Local => &self.local,
        }
    }
}
