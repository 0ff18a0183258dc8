//! What a run found, for people and for programs. Names, numbers and messages are in it only where they were asked for.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};

/// What a run found.
#[derive(Debug, Serialize)]
pub struct Report {
    pub replayed: Replayed,
    pub sources: Sources,
    pub tables: Vec<TableReport>,
    /// What was written, where that was asked for and needed.
    pub swapped: Option<Swapped>,
}

/// How much was replayed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Replayed {
    pub webhooks: u64,
    pub answers: u64,
}

/// What was found of the sources. Numbers are of webhooks and answers, up to a hundred each.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Sources {
    /// Projected once; retention has erased what they said.
    pub erased_webhooks: u64,
    pub erased_answers: u64,
    /// Projected once, and gone.
    pub missing_webhooks: u64,
    /// Projected once; now they cannot be.
    pub not_projecting_any_more: Vec<i64>,
    /// In words that are not known any more.
    pub unreadable_answers: Vec<i64>,
    pub set_aside: u64,
    /// Set aside, and would be projected now: see `hookswitch replay`.
    pub projecting_now: Vec<i64>,
    /// Conversations, and accounts, of which some source is gone or was never kept.
    pub unsourced: u64,
}

/// What a difference is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Class {
    /// The live row is not what its sources say.
    Damaged,
    /// A source of it is gone, so that it cannot be said what it should be.
    Unsourced,
    /// An entry of the log that a swap has left as it is.
    Left,
}

/// Where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Where {
    OnlyInOld,
    OnlyInNew,
    Different,
}

/// Rows by where they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    pub only_in_old: u64,
    pub only_in_new: u64,
    pub different: u64,
}

impl Counts {
    pub fn total(self) -> u64 {
        self.only_in_old + self.only_in_new + self.different
    }
}

/// What was found in one table.
#[derive(Debug, Serialize)]
pub struct TableReport {
    pub table: &'static str,
    pub same: u64,
    pub damaged: Counts,
    pub unsourced: Counts,
    pub left: Counts,
    pub examples: Vec<Example>,
}

/// One difference.
#[derive(Debug, Serialize)]
pub struct Example {
    pub class: Class,
    #[serde(rename = "where")]
    pub place: Where,
    /// Without what is personal in it.
    pub key: BTreeMap<&'static str, Value>,
    /// Those that differ.
    pub columns: Vec<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Map<String, Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Map<String, Value>>,
}

/// What a swap wrote.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub struct Swapped {
    pub conversations: u64,
    pub tables: BTreeMap<&'static str, Written>,
    /// How long writers of the service waited.
    pub locked_ms: u64,
}

/// Rows of one table that a swap wrote.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Written {
    pub added: u64,
    pub changed: u64,
    pub removed: u64,
}

impl Report {
    /// Rows that are not what their sources say.
    pub fn damaged(&self) -> u64 {
        self.tables.iter().map(|table| table.damaged.total()).sum()
    }

    fn explained(&self) -> (u64, u64) {
        let unsourced = self.tables.iter().map(|table| table.unsourced.total()).sum();
        let left = self.tables.iter().map(|table| table.left.total()).sum();
        (unsourced, left)
    }

    /// The result in a sentence.
    pub fn verdict(&self) -> String {
        let damaged = self.damaged();
        let found = match (damaged, &self.swapped) {
            (0, _) => "equal".to_owned(),
            (rows, None) => format!("{} not what the sources say", are(rows)),
            (rows, Some(_)) => format!("{} not what the sources said; all agree now", were(rows)),
        };
        let (unsourced, left) = self.explained();
        let unsourced = match unsourced {
            0 => String::new(),
            rows => format!("; {rows} that differ have no source any more"),
        };
        let left = match left {
            0 => String::new(),
            entries => format!("; {entries} entries of the log are as a swap left them"),
        };
        format!("{found}{unsourced}{left}")
    }
}

fn are(rows: u64) -> String {
    match rows {
        1 => "1 row is".to_owned(),
        rows => format!("{rows} rows are"),
    }
}

fn were(rows: u64) -> String {
    match rows {
        1 => "1 row was".to_owned(),
        rows => format!("{rows} rows were"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Replayed { webhooks, answers } = self.replayed;
        writeln!(f, "replayed {webhooks} webhooks and {answers} recorded answers")?;
        write_sources(f, &self.sources)?;
        writeln!(
            f,
            "{:22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}",
            "", "same", "only old", "only new", "different", "no source", "left"
        )?;
        for table in &self.tables {
            writeln!(
                f,
                "{:22} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6}",
                table.table,
                table.same,
                table.damaged.only_in_old,
                table.damaged.only_in_new,
                table.damaged.different,
                table.unsourced.total(),
                table.left.total(),
            )?;
        }
        for table in &self.tables {
            for example in &table.examples {
                write_example(f, table.table, example)?;
            }
        }
        if let Some(swapped) = &self.swapped {
            writeln!(
                f,
                "swapped in: {} conversations and accounts, writers waited {} ms",
                swapped.conversations, swapped.locked_ms
            )?;
            for (table, written) in &swapped.tables {
                let Written {
                    added,
                    changed,
                    removed,
                } = written;
                writeln!(
                    f,
                    "  {table}: {added} added, {changed} changed, {removed} removed"
                )?;
            }
        }
        write!(f, "{}", self.verdict())
    }
}

fn write_sources(f: &mut fmt::Formatter<'_>, sources: &Sources) -> fmt::Result {
    let counted = [
        (sources.erased_webhooks, "webhooks were erased"),
        (sources.erased_answers, "recorded answers were erased"),
        (sources.missing_webhooks, "projected webhooks are gone"),
        (
            sources.unsourced,
            "conversations have statements without a source",
        ),
        (sources.set_aside, "webhooks are set aside"),
    ];
    for (number, what) in counted.iter().filter(|(number, _)| *number > 0) {
        writeln!(f, "{number} {what}")?;
    }
    let named = [
        (
            &sources.projecting_now,
            "webhooks are set aside and would be projected now (hookswitch replay)",
        ),
        (
            &sources.not_projecting_any_more,
            "webhooks were projected and could not be now",
        ),
        (
            &sources.unreadable_answers,
            "recorded answers cannot be replayed any more",
        ),
    ];
    for (numbers, what) in named.iter().filter(|(numbers, _)| !numbers.is_empty()) {
        let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
        writeln!(f, "{what}: {}", numbers.join(" "))?;
    }
    Ok(())
}

fn write_example(f: &mut fmt::Formatter<'_>, table: &str, example: &Example) -> fmt::Result {
    let place = match example.place {
        Where::OnlyInOld => "only in the old",
        Where::OnlyInNew => "only in the new",
        Where::Different => "different",
    };
    let class = match example.class {
        Class::Damaged => "",
        Class::Unsourced => " (no source any more)",
        Class::Left => " (left by a swap)",
    };
    write!(f, "  {table} {place}{class}:")?;
    for (column, value) in &example.key {
        // A text without its quotes: these are SIDs, times and words of ours.
        match value {
            Value::String(text) => write!(f, " {column}={}", text.escape_debug())?,
            other => write!(f, " {column}={other}")?,
        }
    }
    if !example.columns.is_empty() {
        write!(f, "; differs in {}", example.columns.join(", "))?;
    }
    writeln!(f)?;
    for (side, row) in [("old", &example.old), ("new", &example.new)] {
        if let Some(row) = row {
            // As JSON, so that what somebody wrote cannot steer a terminal.
            writeln!(f, "    {side} {}", Value::Object(row.clone()))?;
        }
    }
    Ok(())
}
