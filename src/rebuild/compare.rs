//! Old rows against new ones, in ranges of conversations. The database does the comparing: what is equal on both sides
//! cancels itself out, and only what differs comes here, in the order of its keys.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::TryStreamExt as _;
use serde_json::{Map, Value};
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::query::Query;
use sqlx::{Postgres, Row as _};

use super::report::{Class, Counts, Example, TableReport, Where};
use super::shadow::{Session, dynamic};
use super::tables::{LOG_KINDS, Sort, TABLES, Table};
use crate::events::Kind;

/// Conversations of one range.
const RANGE: i64 = 500;

/// What is to be told of differences.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    /// Named for each table.
    pub(super) examples: usize,
    /// With what the rows say.
    pub(super) reveal: bool,
}

/// The part of all tables that one comparison, or one repair, is about.
#[derive(Debug, Clone)]
pub(super) enum Part {
    /// Conversations after the first SID, up to the second one if there is one.
    Range(String, Option<String>),
    /// What belongs to no conversation.
    NoConversation,
    Conversations(Vec<String>),
    /// What belongs to no conversation, of these accounts.
    Accounts(Vec<String>),
}

impl Part {
    /// The condition on a row, with parameters from `$1` on; none where the table has no such rows.
    pub(super) fn condition(&self, table: &Table, row: &str) -> Option<String> {
        let of_conversation = table.has("conversation_sid");
        let condition = match self {
            Self::Range(_, Some(_)) => {
                format!("{row}.conversation_sid > $1 and {row}.conversation_sid <= $2")
            }
            Self::Range(_, None) => format!("{row}.conversation_sid > $1"),
            Self::Conversations(_) => format!("{row}.conversation_sid = any($1)"),
            Self::NoConversation if table.name == "event" => format!("{row}.conversation_sid is null"),
            Self::Accounts(_) if table.name == "event" => {
                format!("{row}.conversation_sid is null and {row}.account_sid = any($1)")
            }
            Self::NoConversation => "true".to_owned(),
            Self::Accounts(_) => format!("{row}.account_sid = any($1)"),
        };
        let belongs = match self {
            Self::Range(..) | Self::Conversations(_) => of_conversation,
            Self::NoConversation | Self::Accounts(_) => !of_conversation || table.name == "event",
        };
        belongs.then(|| match table.sort {
            Sort::Log => format!("{condition} and {row}.type in ({})", kinds()),
            Sort::Resource | Sort::Derived => condition,
        })
    }

    pub(super) fn bind<'q>(
        &'q self,
        query: Query<'q, Postgres, PgArguments>,
    ) -> Query<'q, Postgres, PgArguments> {
        match self {
            Self::Range(after, Some(to)) => query.bind(after).bind(to),
            Self::Range(after, None) => query.bind(after),
            Self::NoConversation => query,
            Self::Conversations(sids) | Self::Accounts(sids) => query.bind(sids),
        }
    }
}

fn kinds() -> String {
    let quoted: Vec<String> = LOG_KINDS
        .iter()
        .map(|kind| format!("'{}'", kind.as_str()))
        .collect();
    quoted.join(", ")
}

/// Column names, each of a row, for SQL.
pub(super) fn listed<'a>(columns: impl Iterator<Item = &'a str>, row: &str) -> String {
    let prefix = match row {
        "" => String::new(),
        row => format!("{row}."),
    };
    columns
        .map(|column| format!("{prefix}\"{column}\""))
        .collect::<Vec<_>>()
        .join(", ")
}

/// How many rows.
pub(super) async fn count(session: &mut Session, from: &str) -> Result<u64, sqlx::Error> {
    let rows: i64 = dynamic(format!("select count(*) from {from}"))
        .fetch_one(&mut session.conn)
        .await?
        .get(0);
    Ok(u64::try_from(rows).unwrap_or(0))
}

/// Everything. `watch` hears how many conversations were compared, of how many. Which conversations are damaged is noted in the session.
pub(super) async fn all(
    session: &mut Session,
    wanted: Wanted,
    watch: &mut (dyn FnMut(u64, u64) + Send),
) -> Result<Vec<TableReport>, sqlx::Error> {
    let mut comparison = Comparison::begin(session, wanted).await?;
    let total = count(session, "public.conversation").await?;
    let (mut after, mut done) = (String::new(), 0);
    loop {
        let (to, conversations) = end_of_range(session, &after).await?;
        let part = Part::Range(after, to.clone());
        comparison.part(session, &part).await?;
        done += conversations;
        watch(done, total);
        match to {
            Some(to) => after = to,
            None => break,
        }
    }
    comparison.part(session, &Part::NoConversation).await?;
    Ok(comparison.reports)
}

/// Some parts once more. Answers how many rows are damaged there.
pub(super) async fn damaged(session: &mut Session, parts: &[Part]) -> Result<u64, sqlx::Error> {
    let wanted = Wanted {
        examples: 0,
        reveal: false,
    };
    let mut comparison = Comparison::begin(session, wanted).await?;
    for part in parts {
        comparison.part(session, part).await?;
    }
    Ok(comparison
        .reports
        .iter()
        .map(|report| report.damaged.total())
        .sum())
}

/// The last conversation of the range that begins after one, none where it is the last range; and how many it has.
async fn end_of_range(session: &mut Session, after: &str) -> Result<(Option<String>, u64), sqlx::Error> {
    let of = |schema: &str| {
        format!(
            "(select conversation_sid from {schema}.conversation where conversation_sid > $1
              order by conversation_sid limit {RANGE})"
        )
    };
    let sql = format!(
        "select max(conversation_sid), count(*) from (
            select conversation_sid from ({} union {}) as both_sides order by conversation_sid limit {RANGE}) as range",
        of("public"),
        of("pg_temp"),
    );
    let row = dynamic(sql).bind(after).fetch_one(&mut session.conn).await?;
    let (last, conversations): (Option<String>, i64) = (row.get(0), row.get(1));
    // What lies after the last conversation belongs to none that is known, and is compared all the same.
    let last = last.filter(|_| conversations >= RANGE);
    Ok((last, u64::try_from(conversations).unwrap_or(0)))
}

struct Comparison {
    wanted: Wanted,
    /// Differences of the log up to here were left by a swap.
    left_up_to: Option<(i64, i64)>,
    reports: Vec<TableReport>,
}

impl Comparison {
    async fn begin(session: &mut Session, wanted: Wanted) -> Result<Self, sqlx::Error> {
        let sql = format!(
            "select commit_xid, event_id from public.event where type = '{}'
             order by commit_xid desc, event_id desc limit 1",
            Kind::MirrorRebuilt.as_str()
        );
        let row = dynamic(sql).fetch_optional(&mut session.conn).await?;
        Ok(Self {
            wanted,
            left_up_to: row.map(|row| (row.get(0), row.get(1))),
            reports: TABLES.iter().map(|table| TableReport::of(table.name)).collect(),
        })
    }

    async fn part(&mut self, session: &mut Session, part: &Part) -> Result<(), sqlx::Error> {
        for (place, table) in TABLES.iter().enumerate() {
            let Some(condition) = part.condition(table, "one") else {
                continue;
            };
            let old: i64 = part
                .bind(dynamic(format!(
                    "select count(*) from public.{} as one where {condition}",
                    table.name
                )))
                .fetch_one(&mut session.conn)
                .await?
                .get(0);
            let old = u64::try_from(old).unwrap_or(0);
            let mut found = Found {
                table,
                wanted: self.wanted,
                report: &mut self.reports[place],
                scopes: BTreeSet::new(),
            };
            let before = found.report.in_old();
            let sql = differences(table, &condition, self.left_up_to);
            let mut group = Group::default();
            let mut rows = part.bind(dynamic(sql)).fetch(&mut session.conn);
            while let Some(row) = rows.try_next().await? {
                let row = Different::read(table, &row)?;
                if group.key != row.key {
                    found.close(std::mem::take(&mut group));
                    group.key.clone_from(&row.key);
                }
                group.rows.push(row);
            }
            drop(rows);
            found.close(group);
            let differing = found.report.in_old() - before;
            found.report.same += old.saturating_sub(differing);
            let scopes = Vec::from_iter(found.scopes);
            note_damaged(session, &scopes).await?;
        }
        Ok(())
    }
}

async fn note_damaged(session: &mut Session, scopes: &[String]) -> Result<(), sqlx::Error> {
    if scopes.is_empty() {
        return Ok(());
    }
    dynamic("insert into pg_temp.damaged select unnest($1::text[]) on conflict do nothing".to_owned())
        .bind(scopes)
        .execute(&mut session.conn)
        .await
        .map(drop)
}

/// The rows that are not as often on one side as on the other.
fn differences(table: &Table, condition: &str, left_up_to: Option<(i64, i64)>) -> String {
    let name = table.name;
    let columns = listed(table.compared(), "");
    let key = listed(table.key(), "different");
    let scope = table.scope.of("different");
    let erased = table.is_erased("one").unwrap_or_else(|| "false".to_owned());
    let left = match (table.sort, left_up_to) {
        (Sort::Log, Some((xid, id))) => format!("(commit_xid, event_id) <= ({xid}, {id})"),
        (Sort::Log, None) | (Sort::Resource | Sort::Derived, _) => "false".to_owned(),
    };
    format!(
        "select to_jsonb(different) - array['surplus', 'is_erased', 'is_left'] as row, surplus, is_erased, is_left,
                {scope} as scope,
                exists (select from pg_temp.unsourced where unsourced.scope = {scope}) as is_unsourced
         from (select {columns}, sum(side)::bigint as surplus, bool_or(is_erased) as is_erased, bool_or(is_left) as is_left
               from (select {columns}, 1 as side, {erased} as is_erased, {left} as is_left
                     from public.{name} as one where {condition}
                     union all
                     select {columns}, -1, false, false from pg_temp.{name} as one where {condition}) as both_sides
               group by {columns}
               having sum(side) <> 0) as different
         order by {key}, surplus desc"
    )
}

/// One row that only one side has.
struct Different {
    key: Vec<Value>,
    row: Map<String, Value>,
    /// How often more in the old table than in the new one.
    surplus: i64,
    scope: String,
    marks: Marks,
}

/// What explains a difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Marks {
    is_erased: bool,
    is_left: bool,
    is_unsourced: bool,
}

impl Different {
    fn read(table: &Table, row: &PgRow) -> Result<Self, sqlx::Error> {
        let Value::Object(content) = row.try_get::<Value, _>("row")? else {
            return Err(sqlx::Error::Protocol("expected a row as an object".to_owned()));
        };
        Ok(Self {
            key: table.key().map(|column| content[column].clone()).collect(),
            row: content,
            surplus: row.try_get("surplus")?,
            scope: row.try_get::<Option<String>, _>("scope")?.unwrap_or_default(),
            marks: Marks {
                is_erased: row.try_get("is_erased")?,
                is_left: row.try_get("is_left")?,
                is_unsourced: row.try_get("is_unsourced")?,
            },
        })
    }
}

/// Rows of one key.
#[derive(Default)]
struct Group {
    key: Vec<Value>,
    rows: Vec<Different>,
}

/// What is found in one table.
struct Found<'a> {
    table: &'static Table,
    wanted: Wanted,
    report: &'a mut TableReport,
    scopes: BTreeSet<String>,
}

impl Found<'_> {
    /// Pairs the rows of one key, old with new, and tells of them.
    fn close(&mut self, group: Group) {
        let (old, mut new): (Vec<_>, Vec<_>) = group.rows.into_iter().partition(|row| row.surplus > 0);
        let (erased, kept): (Vec<_>, Vec<_>) = old.into_iter().partition(|row| row.marks.is_erased);
        for row in kept {
            let same_subject = |one: &Different| one.row.get("subject") == row.row.get("subject");
            let partner = new.iter().position(same_subject).map(|at| new.swap_remove(at));
            self.tell(Some(row), partner);
        }
        // Of an erased entry it is not known what it was about.
        for row in erased {
            let partner = new.pop();
            self.tell(Some(row), partner);
        }
        for row in new {
            self.tell(None, Some(row));
        }
    }

    fn tell(&mut self, old: Option<Different>, new: Option<Different>) {
        let place = match (&old, &new) {
            (Some(_), Some(_)) => Where::Different,
            (Some(_), None) => Where::OnlyInOld,
            (None, Some(_)) => Where::OnlyInNew,
            (None, None) => return,
        };
        let Some(one) = old.as_ref().or(new.as_ref()) else {
            return;
        };
        let class = class_of(self.table.sort, place, one.marks);
        if class == Class::Damaged {
            self.scopes.insert(one.scope.clone());
        }
        self.report.count(class, place, one.surplus.unsigned_abs());
        let named = self.report.examples.iter();
        if named.filter(|example| example.class == class).count() >= self.wanted.examples {
            return;
        }
        let columns = match (&old, &new) {
            (Some(old), Some(new)) => self
                .table
                .content()
                .filter(|column| old.row[*column] != new.row[*column])
                .collect(),
            _ => Vec::new(),
        };
        let key: BTreeMap<&'static str, Value> = self
            .table
            .shown_key()
            .map(|column| (column, one.row[column].clone()))
            .collect();
        let reveal = self.wanted.reveal;
        self.report.examples.push(Example {
            class,
            place,
            key,
            columns,
            old: old.filter(|_| reveal).map(|row| row.row),
            new: new.filter(|_| reveal).map(|row| row.row),
        });
    }
}

/// What a difference is. A resource that some source names must be there, whatever sources are gone.
fn class_of(sort: Sort, place: Where, marks: Marks) -> Class {
    if place == Where::OnlyInNew && sort == Sort::Resource {
        Class::Damaged
    } else if marks.is_erased || marks.is_unsourced {
        Class::Unsourced
    } else if marks.is_left {
        Class::Left
    } else {
        Class::Damaged
    }
}

/// A report without a table's counts and examples.
impl TableReport {
    fn of(table: &'static str) -> Self {
        Self {
            table,
            same: 0,
            damaged: Counts::default(),
            unsourced: Counts::default(),
            left: Counts::default(),
            examples: Vec::new(),
        }
    }

    fn count(&mut self, class: Class, place: Where, rows: u64) {
        let counts = match class {
            Class::Damaged => &mut self.damaged,
            Class::Unsourced => &mut self.unsourced,
            Class::Left => &mut self.left,
        };
        match place {
            Where::OnlyInOld => counts.only_in_old += rows,
            Where::OnlyInNew => counts.only_in_new += rows,
            Where::Different => counts.different += rows,
        }
    }

    /// Differing rows of the old table.
    fn in_old(&self) -> u64 {
        [self.damaged, self.unsourced, self.left]
            .iter()
            .map(|counts| counts.only_in_old + counts.different)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_source_is_no_damage_unless_a_source_names_it() {
        let marked = |is_erased, is_left, is_unsourced| Marks {
            is_erased,
            is_left,
            is_unsourced,
        };
        let none = Marks::default();
        let unsourced = marked(false, false, true);
        let cases = [
            (Sort::Resource, Where::OnlyInOld, none, Class::Damaged),
            (Sort::Resource, Where::OnlyInOld, unsourced, Class::Unsourced),
            (Sort::Resource, Where::Different, unsourced, Class::Unsourced),
            (Sort::Resource, Where::OnlyInNew, unsourced, Class::Damaged),
            (Sort::Derived, Where::OnlyInNew, unsourced, Class::Unsourced),
            (
                Sort::Log,
                Where::Different,
                marked(true, false, false),
                Class::Unsourced,
            ),
            (
                Sort::Log,
                Where::Different,
                marked(false, true, false),
                Class::Left,
            ),
            (Sort::Log, Where::OnlyInNew, none, Class::Damaged),
        ];
        for (sort, place, marks, expected) in cases {
            assert_eq!(
                class_of(sort, place, marks),
                expected,
                "{sort:?} {place:?} {marks:?}"
            );
        }
    }

    #[test]
    fn each_part_names_each_table_once() {
        let parts = |table: &Table, parts: &[Part]| {
            parts
                .iter()
                .filter(|part| part.condition(table, "one").is_some())
                .count()
        };
        let all = [Part::Range(String::new(), None), Part::NoConversation];
        for table in TABLES {
            let expected = if table.name == "event" { 2 } else { 1 };
            assert_eq!(parts(table, &all), expected, "{}", table.name);
        }
    }
}
