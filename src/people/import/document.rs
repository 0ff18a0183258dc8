//! Teams as JSON: `{"teams": {"sales": {…}}}`, each as the API has it. Pure.

use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::people::form::TeamForm;
use crate::people::import::{File, Wrong};
use crate::people::{Slug, Team, TeamPlan};
use crate::web::field::{Errors, pointer, without_values};
use crate::web::problem::Problem;

/// One team of the file.
#[derive(Debug, Clone)]
pub struct TeamEntry {
    pub team_id: Slug,
    pub plan: TeamPlan,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    teams: Entries,
}

/// In their order, since a map would hide that one comes twice.
struct Entries(Vec<(String, TeamForm)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(EntriesVisitor)
    }
}

struct EntriesVisitor;

impl<'de> Visitor<'de> for EntriesVisitor {
    type Value = Entries;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object with a team for each id")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Entries(entries))
    }
}

/// Reads the file, or says of every place what is wrong with it. What is no JSON, or has members that we do not know, is told
/// one at a time.
pub fn read(bytes: &[u8]) -> Result<Vec<TeamEntry>, Vec<Wrong>> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let document: Document = serde_path_to_error::deserialize(&mut deserializer)
        .map_err(|error| vec![wrong(error.inner(), pointer(error.path()))])?;
    deserializer
        .end()
        .map_err(|error| vec![wrong(&error, String::new())])?;
    let (mut entries, mut found) = (Vec::<TeamEntry>::new(), Vec::new());
    for (id, form) in document.teams.0 {
        let place = format!("/teams/{}", id.replace('~', "~0").replace('/', "~1"));
        let mut complain = |place: String, problem: String| {
            found.push(Wrong {
                file: File::Teams,
                line: None,
                place,
                problem,
            });
        };
        let team_id: Option<Slug> = match id.parse() {
            Ok(team_id) => Some(team_id),
            Err(error) => {
                complain(place.clone(), format!("{error}, as its id"));
                None
            }
        };
        if entries
            .iter()
            .any(|entry| Some(&entry.team_id) == team_id.as_ref())
        {
            complain(place.clone(), "comes twice: keep one of the two".to_owned());
        }
        let mut errors = Errors::of_body();
        let plan = form.read(&mut errors);
        match errors.finish(plan) {
            Ok((_, Some(_))) => complain(
                format!("{place}/version"),
                "is not for a file: remove it".to_owned(),
            ),
            Ok((plan, None)) => entries.extend(team_id.map(|team_id| TeamEntry { team_id, plan })),
            Err(Problem::Invalid { errors }) => {
                for error in errors {
                    complain(format!("{place}{}", error.field), error.message);
                }
            }
            Err(_) => complain(place, "cannot be read".to_owned()),
        }
    }
    if found.is_empty() { Ok(entries) } else { Err(found) }
}

fn wrong(error: &serde_json::Error, place: String) -> Wrong {
    let problem = if error.is_data() {
        without_values(&error.to_string())
    } else {
        format!("is not JSON: see column {}", error.column())
    };
    Wrong {
        file: File::Teams,
        line: Some(error.line() as u64),
        place: if error.is_data() { place } else { String::new() },
        problem,
    }
}

/// Writes teams so that [`read`] gives the same.
pub fn write(teams: &[Team]) -> Result<String, serde_json::Error> {
    let mut entries = Map::new();
    for team in teams {
        entries.insert(team.team_id.to_string(), serde_json::to_value(&team.plan)?);
    }
    let mut text = serde_json::to_string_pretty(&json!({ "teams": Value::Object(entries) }))?;
    text.push('\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(text: &str) -> Vec<String> {
        let found = read(text.as_bytes()).unwrap_err();
        found.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_bad_place_is_named_at_once() {
        let text = r#"{ "teams": {
            "sales": { "name": "Sales", "time_zone": "Mars/Base", "hours": { "monday": ["9-5"] } },
            "Night": { "name": "Night", "time_zone": "UTC" },
            "late": { "name": "", "time_zone": "UTC", "version": 3 },
            "lunch": { "name": "Lunch", "time_zone": "UTC" },
            "lunch": { "name": "Lunch", "time_zone": "UTC", "version": 3 }
        } }"#;
        insta::assert_snapshot!(told(text).join("\n"), @r"
        teams, /teams/sales/time_zone: expected the IANA name of a time zone, like `Europe/London` or `America/New_York`
        teams, /teams/sales/hours/monday/0: expected hours like `09:00-17:30`; over midnight like `22:00-06:00`, a whole day is `00:00-24:00`
        teams, /teams/Night: expected 1 to 64 of `a-z`, `0-9`, `.`, `_` and `-`, beginning with a letter or a digit, as its id
        teams, /teams/late/name: expected 1 to 100 characters in one line, without space around them
        teams, /teams/lunch: comes twice: keep one of the two
        teams, /teams/lunch/version: is not for a file: remove it
        ");
    }

    #[test]
    fn what_is_no_such_document_is_told_by_its_place() {
        insta::assert_snapshot!(
            [
                told("{ \"teams\": {\n\"sales\": { \"nam\": \"Sales\" } } }"),
                told(r#"{ "teams": { "sales": { "name": "a", "name": "b" } } }"#),
                told(r#"{ "teams": [] }"#),
                told(r#"{ "team": {} }"#),
                told("{}"),
                told("{ \"teams\":\n"),
                told(r#"{ "teams": {} } x"#),
            ]
            .concat()
            .join("\n"),
            @r"
        teams, line 2, /teams/sales/nam: unknown field `nam`, expected one of `name`, `time_zone`, `hours`, `holidays`, `on_call`, `rotation`, `version`
        teams, line 1, /teams/sales: duplicate field `name`
        teams, line 1, /teams: expected an object with a team for each id
        teams, line 1, /team: unknown field `team`, expected `teams`
        teams, line 1: missing field `teams`
        teams, line 2: is not JSON: see column 0
        teams, line 1: is not JSON: see column 17
        "
        );
        assert!(read(b"\xef\xbb\xbf{\"teams\": {}}").unwrap().is_empty());
    }
}
