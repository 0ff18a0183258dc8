//! Time of the processors, as the kernel counts it: what a webhook costs whom. It says more than a rate where others use
//! the machine too.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// What the kernel counts in: `USER_HZ`, which is 100 on every platform that we know of.
const TICK: Duration = Duration::from_millis(10);

/// Of one process: by itself, and by those children that it has seen end.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Used {
    pub(crate) own: Duration,
    pub(crate) ended_children: Duration,
}

pub(crate) fn of(pid: u32) -> Result<Used> {
    read(&fs::read_to_string(format!("/proc/{pid}/stat"))?)
        .map(|(_, used)| used)
        .context("the system does not tell what a process used")
}

pub(crate) fn of_us() -> Result<Used> {
    of(std::process::id())
}

/// Of a process with all its children, the living and the ended.
pub(crate) fn of_family(parent: u32) -> Result<Duration> {
    loop {
        let before = of(parent)?;
        let children = of_children(parent)?;
        let after = of(parent)?;
        // One that ends while we look would be missed, or counted twice.
        if before.ended_children == after.ended_children {
            return Ok(after.own + after.ended_children + children);
        }
    }
}

fn of_children(parent: u32) -> Result<Duration> {
    let mut sum = Duration::ZERO;
    for entry in fs::read_dir("/proc")? {
        let stat = entry?.path().join("stat");
        // Most entries are no processes, and some end while we look.
        let Ok(text) = fs::read_to_string(stat) else {
            continue;
        };
        if let Some((_, used)) = read(&text).filter(|(of, _)| *of == parent) {
            sum += used.own + used.ended_children;
        }
    }
    Ok(sum)
}

/// Of the whole machine, by whomever.
pub(crate) fn of_machine() -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat")?;
    let line = text.lines().next().context("the system does not tell its time")?;
    let ticks: Vec<u32> = line
        .split_whitespace()
        .skip(1)
        .filter_map(|number| number.parse().ok())
        .collect();
    // user, nice, system, idle, iowait, irq, softirq; what comes after is in these, or stolen.
    let busy: u32 = ticks
        .iter()
        .enumerate()
        .filter(|(place, _)| matches!(place, 0..=2 | 5..=6))
        .map(|(_, ticks)| ticks)
        .sum();
    Ok(TICK * busy)
}

/// The parent, and what was used, of a line of `/proc/PID/stat`.
fn read(stat: &str) -> Option<(u32, Used)> {
    // The name stands in parentheses and may hold any of them.
    let (_, fields) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = fields.split(' ').collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u32>().ok();
    let used = Used {
        own: TICK * (ticks(11)? + ticks(12)?),
        ended_children: TICK * (ticks(13)? + ticks(14)?),
    };
    Some((ticks(1)?, used))
}
