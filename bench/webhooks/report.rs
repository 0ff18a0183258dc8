//! What is printed.

use std::io::Write as _;
use std::time::Duration;

use anyhow::{Context as _, Result};

use crate::turn::Turn;

pub(crate) fn say(line: &str) -> Result<()> {
    writeln!(std::io::stdout().lock(), "{line}").context("nobody reads what is measured")
}

pub(crate) fn heading() -> Result<()> {
    say(
        "                          acked  mirrored      ack ms        CPU µs per webhook            WAL  commits  RSS MiB  others",
    )?;
    say(
        "                             /s        /s     p50    p99   program  postgres  sender  bytes per webhook     peak   cores",
    )
}

pub(crate) fn row(name: &str, turn: &Turn) -> Result<()> {
    say(&line(name, turn))?;
    if let Some(refusal) = &turn.first_refusal {
        say(&format!(
            "  {} were refused, the first with: {refusal}",
            turn.refused
        ))?;
    }
    Ok(())
}

fn line(name: &str, turn: &Turn) -> String {
    let each = |time: Duration| per(time.as_secs_f64() * 1e6, turn.count);
    let ms = |time: Duration| {
        if time.is_zero() {
            format!("{:>7}", "-")
        } else {
            format!("{:7.1}", time.as_secs_f64() * 1e3)
        }
    };
    let maybe = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let others = turn
        .cost
        .others
        .map(|time| format!("{:.2}", time.as_secs_f64() / turn.mirrored_in.as_secs_f64()));
    let statements = turn
        .statements
        .map(|count| format!("  {:.3} statements", per(to_f64(count), turn.count)));
    format!(
        "{name:22} {:8.0}  {:8.0}{}{}  {:>8}  {:>8}  {:6.0}  {:7.0} {:8.3}  {:>7}  {:>6}{}",
        turn.acked_rate(),
        turn.mirrored_rate(),
        ms(turn.p50),
        ms(turn.p99),
        if turn.cost.program.is_zero() {
            "-".to_owned()
        } else {
            format!("{:.0}", each(turn.cost.program))
        },
        maybe(turn.cost.postgres.map(|time| format!("{:.0}", each(time)))),
        each(turn.cost.sender),
        per(to_f64(turn.wal_bytes), turn.count),
        per(to_f64(turn.commits), turn.count),
        maybe(turn.memory.map(|memory| (memory.peak_kib / 1024).to_string())),
        maybe(others),
        statements.unwrap_or_default(),
    )
}

fn per(sum: f64, count: u64) -> f64 {
    sum / to_f64(count.max(1))
}

#[expect(clippy::cast_precision_loss, reason = "far below 2^52, and rounded")]
pub(crate) fn to_f64(number: u64) -> f64 {
    number as f64
}

/// Of numbers in any order; between the two in the middle where there are as many above as below.
pub(crate) fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    let middle = of.len() / 2;
    match of.len() {
        0 => f64::NAN,
        length if length % 2 == 1 => of[middle],
        _ => f64::midpoint(of[middle - 1], of[middle]),
    }
}
