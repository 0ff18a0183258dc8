//! Agents as CSV: `identity,name,team,supervisor,skills,capacity,left_at,backup`, in any order of columns. Pure.

use std::collections::{BTreeMap, BTreeSet};

use csv::{ByteRecord, ReaderBuilder, StringRecord, WriterBuilder};
use jiff::Timestamp;

use crate::ids::Identity;
use crate::people::form::{CAPACITY_MAX, Name, SKILLS_MAX};
use crate::people::import::{File, Wrong};
use crate::people::{Agent, Slug};
use crate::web::field::Instant;

/// All columns. The first two have to be there; what another one says of agents stays where it is left out.
pub const COLUMNS: [&str; 8] = [
    "identity",
    "name",
    "team",
    "supervisor",
    "skills",
    "capacity",
    "left_at",
    "backup",
];
const REQUIRED: [&str; 2] = ["identity", "name"];

/// What a cell says, which may be nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said<T>(pub Option<T>);

/// One agent of the file. What is `None` has no column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Where it begins in the file.
    pub line: u64,
    pub identity: Identity,
    pub name: String,
    pub team: Option<Said<Slug>>,
    pub supervisor: Option<Said<Identity>>,
    pub skills: Option<BTreeSet<Slug>>,
    pub capacity: Option<Said<u32>>,
    pub left_at: Option<Said<Timestamp>>,
    pub backup: Option<Said<Identity>>,
}

/// Reads the file, or says of every place what is wrong with it.
pub fn read(bytes: &[u8]) -> Result<Vec<Row>, Vec<Wrong>> {
    let text = decode(bytes).map_err(|wrong| vec![wrong])?;
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut records = reader.byte_records();
    let Some(Ok(header)) = records.next() else {
        let problem = "is empty: the first line names the columns";
        return Err(vec![wrong(None, "", problem)]);
    };
    let columns = read_header(&strings(&header))?;
    let (mut rows, mut found) = (Vec::new(), Vec::new());
    let mut seen = BTreeMap::new();
    let mut lines = Lines { text, at: 0, line: 1 };
    for record in records {
        let record = match record {
            Ok(record) => record,
            Err(error) => {
                found.push(wrong(None, "", format!("cannot be read as CSV: {error}")));
                break;
            }
        };
        let line = lines.of(record.position().map_or(0, csv::Position::byte));
        let record = strings(&record);
        // Spreadsheets leave rows of nothing behind.
        if record.iter().all(|cell| cell.trim().is_empty()) {
            continue;
        }
        rows.extend(read_row(&columns, line, &record, &mut seen, &mut found));
    }
    if found.is_empty() { Ok(rows) } else { Err(found) }
}

/// Counts lines as editors do, `\r\n` as one end: the reader of CSV counts a record's as that of the end before it.
struct Lines<'a> {
    text: &'a str,
    /// Counted up to here.
    at: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of what begins at a byte, or after the line ends there. Bytes only grow from call to call.
    fn of(&mut self, byte: u64) -> u64 {
        let bytes = self.text.as_bytes();
        let begin = usize::try_from(byte).unwrap_or(usize::MAX);
        while let Some(one) = bytes
            .get(self.at)
            .filter(|one| self.at < begin || matches!(one, b'\r' | b'\n'))
        {
            let next = bytes.get(self.at + 1);
            if *one == b'\n' || (*one == b'\r' && next != Some(&b'\n')) {
                self.line += 1;
            }
            self.at += 1;
        }
        self.line
    }
}

fn wrong(line: Option<u64>, column: &str, problem: impl Into<String>) -> Wrong {
    Wrong {
        file: File::Agents,
        line,
        place: column.to_owned(),
        problem: problem.into(),
    }
}

/// UTF-8, with or without a byte-order mark.
fn decode(bytes: &[u8]) -> Result<&str, Wrong> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        let line = before.split(|byte| *byte == b'\n').count() as u64;
        wrong(Some(line), "", "is not UTF-8: save it as `CSV UTF-8`")
    })?;
    match text.find('\0') {
        Some(place) => {
            let line = text[..place].matches('\n').count() as u64 + 1;
            Err(wrong(Some(line), "", "has a NUL character: is it a text file?"))
        }
        None => Ok(text),
    }
}

/// The record as text: it was UTF-8 as a whole, and no cell ends within a character.
fn strings(record: &ByteRecord) -> StringRecord {
    StringRecord::from_byte_record_lossy(record.clone())
}

/// For each cell the column that it is of.
fn read_header(header: &StringRecord) -> Result<Vec<&'static str>, Vec<Wrong>> {
    let cells: Vec<String> = header
        .iter()
        .map(|cell| cell.trim().to_ascii_lowercase())
        .collect();
    if let [only] = cells.as_slice()
        && only.contains([';', '\t'])
    {
        let problem = "has its columns apart by something else than a comma: save it with commas";
        return Err(vec![wrong(Some(1), "", problem)]);
    }
    let (mut columns, mut found) = (Vec::new(), Vec::new());
    for (place, cell) in cells.iter().enumerate() {
        let number = place + 1;
        match COLUMNS.into_iter().find(|column| column == cell) {
            Some(column) if columns.contains(&column) => {
                found.push(wrong(Some(1), column, "is there twice: keep one of the two"));
            }
            Some(column) => columns.push(column),
            None => {
                let known = COLUMNS.join(", ");
                let problem = format!("is none that we know: expected some of {known}; leave others out");
                found.push(wrong(Some(1), &number.to_string(), problem));
            }
        }
    }
    for column in REQUIRED.into_iter().filter(|column| !columns.contains(column)) {
        found.push(wrong(
            Some(1),
            column,
            "is missing: the first line has to name it",
        ));
    }
    if found.is_empty() { Ok(columns) } else { Err(found) }
}

fn read_row(
    columns: &[&'static str],
    line: u64,
    record: &StringRecord,
    seen: &mut BTreeMap<Identity, u64>,
    found: &mut Vec<Wrong>,
) -> Option<Row> {
    if record.len() != columns.len() {
        let problem = format!(
            "has {} cells where the first line has {}: is there a comma that needs quotes around its cell?",
            record.len(),
            columns.len()
        );
        found.push(wrong(Some(line), "", problem));
        return None;
    }
    let cells: BTreeMap<&str, String> = columns.iter().copied().zip(record.iter().map(unescape)).collect();
    let before = found.len();
    let cell = |column: &'static str| Cell {
        line,
        column,
        text: cells.get(column).map(String::as_str),
    };
    let identity = cell("identity").required(found, exact::<Identity>);
    if let Some(identity) = &identity {
        let first = *seen.entry(identity.clone()).or_insert(line);
        if first != line {
            let problem = format!("is in line {first} already: keep one of the two");
            found.push(wrong(Some(line), "identity", problem));
        }
    }
    let name = cell("name").required(found, |text| {
        text.trim().parse::<Name>().map_err(|error| error.to_string())
    });
    let team = cell("team").optional(found, |text| {
        text.trim()
            .parse()
            .map_err(|error: crate::people::InvalidSlug| error.to_string())
    });
    let supervisor = cell("supervisor").optional(found, exact::<Identity>);
    let skills = cell("skills").optional(found, read_skills);
    let capacity = cell("capacity").optional(found, read_capacity);
    let left_at = cell("left_at").optional(found, read_time);
    let backup = cell("backup").optional(found, exact::<Identity>);
    match (identity, name) {
        (Some(identity), Some(name)) if found.len() == before => Some(Row {
            line,
            identity,
            name: name.into_string(),
            team,
            supervisor,
            skills: skills.map(|skills| skills.0.unwrap_or_default()),
            capacity,
            left_at,
            backup,
        }),
        _ => None,
    }
}

/// A cell; without text where its column is left out.
struct Cell<'a> {
    line: u64,
    column: &'static str,
    text: Option<&'a str>,
}

impl Cell<'_> {
    fn required<T>(self, found: &mut Vec<Wrong>, read: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match self.text.filter(|text| !text.trim().is_empty()).map(read) {
            Some(Ok(value)) => Some(value),
            Some(Err(problem)) => {
                found.push(wrong(Some(self.line), self.column, problem));
                None
            }
            None => {
                found.push(wrong(Some(self.line), self.column, "is empty: expected a value"));
                None
            }
        }
    }

    fn optional<T>(
        self,
        found: &mut Vec<Wrong>,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Said<T>> {
        let text = self.text?;
        if text.trim().is_empty() {
            return Some(Said(None));
        }
        match read(text) {
            Ok(value) => Some(Said(Some(value))),
            Err(problem) => {
                found.push(wrong(Some(self.line), self.column, problem));
                None
            }
        }
    }
}

/// Identities are compared to the letter, so that a space that nobody sees is somebody else.
fn exact<T: for<'a> TryFrom<&'a str, Error: std::fmt::Display>>(text: &str) -> Result<T, String> {
    if text.trim() != text {
        return Err("has space around it: remove that".to_owned());
    }
    T::try_from(text).map_err(|error| error.to_string())
}

fn read_skills(text: &str) -> Result<BTreeSet<Slug>, String> {
    let skills: BTreeSet<Slug> = text
        .split(';')
        .map(str::trim)
        .filter(|skill| !skill.is_empty())
        .map(|skill| {
            skill
                .parse()
                .map_err(|error| format!("{error}; several are apart by `;`"))
        })
        .collect::<Result<_, _>>()?;
    if skills.len() > SKILLS_MAX {
        return Err(format!("expected at most {SKILLS_MAX} skills"));
    }
    Ok(skills)
}

fn read_capacity(text: &str) -> Result<u32, String> {
    let text = text.trim();
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse()
        .ok()
        .filter(|capacity| is_plain && *capacity <= CAPACITY_MAX)
        .ok_or_else(|| format!("expected a whole number from 0 to {CAPACITY_MAX}, or nothing for no limit"))
}

fn read_time(text: &str) -> Result<Timestamp, String> {
    text.trim()
        .parse()
        .ok()
        .and_then(Instant::from_timestamp)
        .and_then(|at| Timestamp::from_microsecond(at.0.as_microsecond()).ok())
        .ok_or_else(|| "expected a time like 2026-03-01T14:03:00Z, or nothing".to_owned())
}

/// What a spreadsheet takes for a formula.
const FORMULA: [char; 6] = ['=', '+', '-', '@', '\t', '\r'];

/// Puts an apostrophe before what a spreadsheet would take for a formula, or for a formula with apostrophes.
fn escape(text: &str) -> String {
    if text.trim_start_matches('\'').starts_with(FORMULA) {
        format!("'{text}")
    } else {
        text.to_owned()
    }
}

/// Takes the apostrophe of [`escape`] away.
fn unescape(cell: &str) -> String {
    match cell.strip_prefix('\'') {
        Some(rest) if rest.trim_start_matches('\'').starts_with(FORMULA) => rest.to_owned(),
        _ => cell.to_owned(),
    }
}

/// Writes agents so that [`read`] gives the same.
pub fn write(agents: &[Agent]) -> Result<Vec<u8>, csv::Error> {
    let mut writer = WriterBuilder::new().from_writer(Vec::new());
    writer.write_record(COLUMNS)?;
    for agent in agents {
        let profile = &agent.profile;
        let skills: Vec<&str> = profile.skills.iter().map(Slug::as_str).collect();
        writer.write_record([
            escape(agent.identity.as_str()),
            escape(&profile.name),
            profile.team.as_ref().map(ToString::to_string).unwrap_or_default(),
            escape(profile.supervisor.as_ref().map_or("", Identity::as_str)),
            skills.join(";"),
            profile
                .capacity
                .map(|capacity| capacity.to_string())
                .unwrap_or_default(),
            profile.left_at.map(|at| at.to_string()).unwrap_or_default(),
            escape(profile.backup.as_ref().map_or("", Identity::as_str)),
        ])?;
    }
    writer.into_inner().map_err(|error| error.into_error().into())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> Vec<String> {
        let found = read(text.as_bytes()).unwrap_err();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_of_a_spreadsheet_is_read() {
        let text = "\u{feff}Name,identity,skills,capacity\r\n\"Lopez, Maya\",maya,spanish; loans ,3\r\n,,,\r\n\r\n'=Noor,noor,,\r\n";
        let rows = read(text.as_bytes()).unwrap();
        let [maya, noor] = rows.as_slice() else {
            panic!("{rows:?}");
        };
        assert_eq!(
            (maya.line, maya.name.as_str(), maya.capacity),
            (2, "Lopez, Maya", Some(Said(Some(3))))
        );
        assert_eq!(maya.skills.as_ref().unwrap().len(), 2);
        assert_eq!(
            (maya.team.clone(), maya.left_at),
            (None, None),
            "columns that are left out"
        );
        assert_eq!(
            (noor.line, noor.name.as_str(), noor.capacity),
            (5, "=Noor", Some(Said(None)))
        );
    }

    #[test]
    fn every_bad_place_is_named_at_once() {
        let text = "identity,name,team,supervisor,skills,capacity,left_at\n\
                    maya,Maya,Sales,,spanish,1,\n\
                    +15555550101,,,,,-1,soon\n\
                    noor,Noor,,\" maya\",Not Ok,1.5,\n\
                    maya,Maya again,,,,,\n\
                    zoe,Zoe\n";
        insta::assert_snapshot!(told(text).join("\n"), @r"
        agents, line 2, column team: expected 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter or a digit
        agents, line 3, column identity: expected an identity: 1 to 256 characters, no control characters, not a phone number
        agents, line 3, column name: is empty: expected a value
        agents, line 3, column capacity: expected a whole number from 0 to 10000, or nothing for no limit
        agents, line 3, column left_at: expected a time like 2026-03-01T14:03:00Z, or nothing
        agents, line 4, column supervisor: has space around it: remove that
        agents, line 4, column skills: expected 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter or a digit; several are apart by `;`
        agents, line 4, column capacity: expected a whole number from 0 to 10000, or nothing for no limit
        agents, line 5, column identity: is in line 2 already: keep one of the two
        agents, line 6: has 2 cells where the first line has 7: is there a comma that needs quotes around its cell?
        ");
    }

    #[test]
    fn lines_are_counted_as_editors_do_whatever_ends_them() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["identity,name", "a,A", "", "b,\"B", "C\"", "c,", "d,D"].join(end);
            let told = told(&text);
            // Within a cell, a line end is a control character.
            assert!(
                told[0].starts_with("agents, line 4, column name: expected"),
                "{end:?} {told:?}"
            );
            assert!(
                told[1].starts_with("agents, line 6, column name: is empty"),
                "{end:?} {told:?}"
            );
        }
    }

    #[test]
    fn the_first_line_is_checked() {
        insta::assert_snapshot!(told("identity,name,phone,Name\nx,y,z,w").join("\n"), @r"
        agents, line 1, column 3: is none that we know: expected some of identity, name, team, supervisor, skills, capacity, left_at, backup; leave others out
        agents, line 1, column name: is there twice: keep one of the two
        ");
        assert_eq!(
            told("name\nx"),
            ["agents, line 1, column identity: is missing: the first line has to name it"]
        );
        assert!(told("identity;name\nx;y")[0].contains("save it with commas"));
        assert!(told("")[0].contains("is empty"));
        let latin = read(b"identity,name\nmaya,L\xf3pez\n").unwrap_err();
        assert_eq!(
            latin[0].to_string(),
            "agents, line 2: is not UTF-8: save it as `CSV UTF-8`"
        );
        assert!(read(b"identity,name\n").unwrap().is_empty());
        // A quote that nobody closes takes the rest of the file with it.
        assert!(!told("identity,name\nmaya,\"Maya\nnoor,Noor\n").is_empty());
    }

    #[test]
    fn what_looks_like_a_formula_is_made_harmless_and_comes_back() {
        for text in ["=1+1", "'=1", "''@x", "-", "\tx", "'x", "x'", ""] {
            let cell = escape(text);
            assert!(!cell.starts_with(FORMULA), "{text}");
            assert_eq!(unescape(&cell), text);
        }
        assert_eq!(escape("O'Neil"), "O'Neil");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            drop(read(&bytes));
        }

        #[test]
        fn what_is_escaped_comes_back(text in "['=+@a-]{0,6}") {
            prop_assert_eq!(unescape(&escape(&text)), text);
        }
    }
}
