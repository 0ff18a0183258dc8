//! Reads a document, member by member.

use std::collections::BTreeSet;

use jiff::SignedDuration;
use serde_json::{Map, Value};

use super::{
    DOCUMENT_MAX, Hours, How, Known, Policy, RULES_MAX, Rule, SCOPE_MAX, SECONDS_MAX, STEPS_MAX, Scope, Step,
    Then, WORD_MAX, WORDS_MAX, When, Whom,
};
use crate::escalation::words;
use crate::ids::{Identity, PhoneNumber};
use crate::people::Slug;
use crate::web::field::Object;
use crate::web::problem::FieldError;

pub(super) fn read(document: &Value, known: Option<&Known>) -> Result<Policy, Vec<FieldError>> {
    let mut reader = Reader {
        known,
        found: Vec::new(),
    };
    match reader.policy(document) {
        Some(policy) if reader.found.is_empty() => Ok(policy),
        _ => Err(reader.found),
    }
}

/// Collects what is wrong, with its place as a JSON pointer, and never what stands there.
struct Reader<'a> {
    known: Option<&'a Known>,
    found: Vec<FieldError>,
}

impl Reader<'_> {
    fn wrong(&mut self, at: &str, code: &str, message: impl Into<String>) {
        self.found.push(FieldError::new(at, code, message));
    }

    fn object<'v>(&mut self, value: &'v Value, at: &str, members: &[&str]) -> Option<&'v Map<String, Value>> {
        let Some(object) = value.as_object() else {
            self.wrong(
                at,
                "malformed",
                format!("expected an object with {}", members.join(", ")),
            );
            return None;
        };
        for name in object.keys().filter(|name| !members.contains(&name.as_str())) {
            let place = format!("{at}/{}", escape(name));
            let expected = members.join("`, `");
            self.wrong(&place, "unknown", format!("expected one of `{expected}`"));
        }
        Some(object)
    }

    fn list<'v>(&mut self, value: &'v Value, at: &str, least: usize, most: usize) -> &'v [Value] {
        match value.as_array() {
            Some(items) if (least..=most).contains(&items.len()) => items,
            Some(items) => {
                self.wrong(at, "malformed", format!("expected {least} to {most} items"));
                items
            }
            None => {
                self.wrong(
                    at,
                    "malformed",
                    format!("expected a list of {least} to {most} items"),
                );
                &[]
            }
        }
    }

    fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(&mut self, value: &Value, at: &str) -> Option<T> {
        let Some(text) = value.as_str() else {
            self.wrong(at, "malformed", "expected a string");
            return None;
        };
        match text.parse() {
            Ok(parsed) => Some(parsed),
            Err(error) => {
                self.wrong(at, "malformed", error.to_string());
                None
            }
        }
    }

    fn flag(&mut self, object: &Map<String, Value>, at: &str, name: &str, usual: bool) -> bool {
        match object.get(name) {
            None | Some(Value::Null) => usual,
            Some(Value::Bool(flag)) => *flag,
            Some(_) => {
                self.wrong(&format!("{at}/{name}"), "malformed", "expected `true` or `false`");
                usual
            }
        }
    }

    fn time(&mut self, value: &Value, at: &str, least: i64) -> Option<SignedDuration> {
        let time = value
            .as_str()
            .and_then(|text| text.parse::<SignedDuration>().ok())
            .filter(|time| time.subsec_nanos() == 0 && (least..=SECONDS_MAX).contains(&time.as_secs()));
        if time.is_none() {
            let message = format!("expected a duration like `90s`, `15m` or `2h`, of {least} s to 90 days");
            self.wrong(at, "malformed", message);
        }
        time
    }

    fn policy(&mut self, document: &Value) -> Option<Policy> {
        if serde_json::from_value::<Object<DOCUMENT_MAX>>(document.clone()).is_err() && document.is_object() {
            let message = format!("expected at most {DOCUMENT_MAX} bytes of JSON, without NUL characters");
            self.wrong("", "malformed", message);
            return None;
        }
        let object = self.object(document, "", &["name", "enabled", "applies_to", "rules"])?;
        let name = self.name(object.get("name"));
        let enabled = self.flag(object, "", "enabled", true);
        let applies_to = match object.get("applies_to") {
            None | Some(Value::Null) => Scope::default(),
            Some(value) => self.scope(value),
        };
        if !object.contains_key("rules") {
            self.wrong("/rules", "missing", "expected a value");
        }
        let rules = object.get("rules").map(|value| self.rules(value));
        Some(Policy {
            name: name?,
            enabled,
            applies_to,
            rules: rules?,
        })
    }

    fn name(&mut self, value: Option<&Value>) -> Option<String> {
        let Some(value) = value else {
            self.wrong("/name", "missing", "expected a value");
            return None;
        };
        let name = value.as_str().filter(|name| {
            !name.is_empty()
                && name.trim() == *name
                && name.chars().count() <= 100
                && !name.chars().any(char::is_control)
        });
        if name.is_none() {
            let message = "expected 1 to 100 characters in one line, without space around them";
            self.wrong("/name", "malformed", message);
        }
        name.map(str::to_owned)
    }

    fn scope(&mut self, value: &Value) -> Scope {
        let mut scope = Scope::default();
        let Some(object) = self.object(value, "/applies_to", &["teams", "lines"]) else {
            return scope;
        };
        if let Some(teams) = object.get("teams").filter(|teams| !teams.is_null()) {
            let teams = self.list(teams, "/applies_to/teams", 1, SCOPE_MAX);
            for (place, team) in teams.iter().enumerate() {
                scope
                    .teams
                    .extend(self.team(team, &format!("/applies_to/teams/{place}")));
            }
        }
        if let Some(lines) = object.get("lines").filter(|lines| !lines.is_null()) {
            let lines = self.list(lines, "/applies_to/lines", 1, SCOPE_MAX);
            for (place, line) in lines.iter().enumerate() {
                scope
                    .lines
                    .extend(self.parsed::<PhoneNumber>(line, &format!("/applies_to/lines/{place}")));
            }
        }
        scope
    }

    fn team(&mut self, value: &Value, at: &str) -> Option<Slug> {
        let team: Slug = self.parsed(value, at)?;
        if self.known.is_some_and(|known| !known.teams.contains(&team)) {
            self.wrong(
                at,
                "team_unknown",
                "there is no such team: add it first, or correct it",
            );
        }
        Some(team)
    }

    fn person(&mut self, value: &Value, at: &str) -> Option<Identity> {
        let person: Identity = self.parsed(value, at)?;
        if self.known.is_some_and(|known| !known.agents.contains(&person)) {
            let message = "nobody of ours has this identity: add them first, or correct it";
            self.wrong(at, "person_unknown", message);
        }
        Some(person)
    }

    fn rules(&mut self, value: &Value) -> Vec<Rule> {
        let mut rules: Vec<Rule> = Vec::new();
        let mut names = BTreeSet::new();
        for (place, value) in self.list(value, "/rules", 1, RULES_MAX).iter().enumerate() {
            let at = format!("/rules/{place}");
            if let Some(name) = value["name"].as_str()
                && !names.insert(name)
            {
                let message = "expected a name that no other rule of the policy has";
                self.wrong(&format!("{at}/name"), "duplicate", message);
            }
            rules.extend(self.rule(value, &at));
        }
        rules
    }

    fn rule(&mut self, value: &Value, at: &str) -> Option<Rule> {
        const MEMBERS: [&str; 6] = ["name", "when", "hours", "answer_stops", "steps", "then"];
        let object = self.object(value, at, &MEMBERS)?;
        for name in ["name", "when", "steps"] {
            if object.get(name).is_none_or(Value::is_null) {
                self.wrong(&format!("{at}/{name}"), "missing", "expected a value");
            }
        }
        let given = |name: &str| object.get(name).filter(|value| !value.is_null());
        let name = given("name").and_then(|value| self.parsed::<Slug>(value, &format!("{at}/name")));
        let when = given("when").and_then(|value| self.when(value, &format!("{at}/when")));
        let hours = match given("hours") {
            Some(value) => self.hours(value, &format!("{at}/hours")),
            None => Some(Hours::Holder),
        };
        let answer_stops = self.flag(object, at, "answer_stops", true);
        let steps = match given("steps") {
            Some(value) => self.steps(value, &format!("{at}/steps")),
            None => Vec::new(),
        };
        let then = match given("then") {
            Some(value) => self.then(value, &format!("{at}/then")),
            None => Some(Then::Stop),
        };
        Some(Rule {
            name: name?,
            when: when?,
            hours: hours?,
            answer_stops,
            steps,
            then: then?,
        })
    }

    fn when(&mut self, value: &Value, at: &str) -> Option<When> {
        const EXPECTED: &str = "expected {\"no_answer\": \"15m\"}, {\"unavailable\": \"5m\"}, {\"words\": [\"…\"]}, \"delivery_failure\" or \"asked\"";
        if let Some(text) = value.as_str() {
            return match text {
                "delivery_failure" => Some(When::DeliveryFailure),
                "asked" => Some(When::Asked),
                _ => {
                    self.wrong(at, "malformed", EXPECTED);
                    None
                }
            };
        }
        let only = value.as_object().filter(|object| object.len() == 1);
        match only.and_then(|object| object.iter().next()) {
            Some((name, value)) if name == "no_answer" => {
                let at = format!("{at}/no_answer");
                self.time(value, &at, 1).map(When::NoAnswer)
            }
            Some((name, value)) if name == "unavailable" => {
                let at = format!("{at}/unavailable");
                self.time(value, &at, 0).map(When::Unavailable)
            }
            Some((name, value)) if name == "words" => Some(self.words(value, &format!("{at}/words"))),
            _ => {
                self.wrong(at, "malformed", EXPECTED);
                None
            }
        }
    }

    fn words(&mut self, value: &Value, at: &str) -> When {
        let mut phrases = Vec::new();
        for (place, value) in self.list(value, at, 1, WORDS_MAX).iter().enumerate() {
            let phrase = value
                .as_str()
                .filter(|text| text.chars().count() <= WORD_MAX)
                .and_then(words::phrase);
            if phrase.is_none() {
                let message = format!("expected a word or some words, of {WORD_MAX} characters at most");
                self.wrong(&format!("{at}/{place}"), "malformed", message);
            }
            phrases.extend(phrase);
        }
        When::Words(phrases)
    }

    fn hours(&mut self, value: &Value, at: &str) -> Option<Hours> {
        match value {
            Value::String(text) if text == "holder" => return Some(Hours::Holder),
            Value::String(text) if text == "always" => return Some(Hours::Always),
            Value::Object(object) if object.len() == 1 => {
                if let Some(team) = object.get("team") {
                    return self.team(team, &format!("{at}/team")).map(Hours::Team);
                }
            }
            _ => {}
        }
        let message = "expected \"holder\", \"always\" or {\"team\": \"…\"}";
        self.wrong(at, "malformed", message);
        None
    }

    fn steps(&mut self, value: &Value, at: &str) -> Vec<Step> {
        let mut steps = Vec::new();
        for (place, value) in self.list(value, at, 1, STEPS_MAX).iter().enumerate() {
            steps.extend(self.step(value, &format!("{at}/{place}")));
        }
        steps
    }

    fn step(&mut self, value: &Value, at: &str) -> Option<Step> {
        let object = self.object(value, at, &["how", "to", "for"])?;
        for name in ["how", "to", "for"] {
            if !object.contains_key(name) {
                self.wrong(&format!("{at}/{name}"), "missing", "expected a value");
            }
        }
        let how = object.get("how").and_then(|value| {
            let how = value.as_str().and_then(How::parse);
            if how.is_none() {
                self.wrong(
                    &format!("{at}/how"),
                    "malformed",
                    "expected `nudge`, `offer` or `force`",
                );
            }
            how
        });
        let to = object
            .get("to")
            .and_then(|value| self.whom(value, &format!("{at}/to")));
        let lasts = object
            .get("for")
            .and_then(|value| self.time(value, &format!("{at}/for"), 1));
        if matches!(how, Some(How::Offer | How::Force)) && to == Some(Whom::Holder) {
            let message = "the holder has the line already: `nudge` them, or name somebody else";
            self.wrong(&format!("{at}/to"), "holder", message);
        }
        Some(Step {
            how: how?,
            to: to?,
            lasts: lasts?,
        })
    }

    fn whom(&mut self, value: &Value, at: &str) -> Option<Whom> {
        match value {
            Value::String(text) => match text.as_str() {
                "holder" => return Some(Whom::Holder),
                "backup" => return Some(Whom::Backup),
                "supervisor" => return Some(Whom::Supervisor),
                _ => {}
            },
            Value::Object(object) if object.len() == 1 => {
                if let Some(team) = object.get("on_call") {
                    return self.team(team, &format!("{at}/on_call")).map(Whom::OnCall);
                }
                if let Some(person) = object.get("person") {
                    return self.person(person, &format!("{at}/person")).map(Whom::Person);
                }
            }
            _ => {}
        }
        let message = "expected \"holder\", \"backup\", \"supervisor\", {\"on_call\": \"team\"} or {\"person\": \"identity\"}";
        self.wrong(at, "malformed", message);
        None
    }

    fn then(&mut self, value: &Value, at: &str) -> Option<Then> {
        match value.as_str() {
            Some("stop") => Some(Then::Stop),
            Some("repeat_last") => Some(Then::RepeatLast),
            Some("needs_person") => Some(Then::NeedsPerson),
            _ => {
                let message = "expected `stop`, `repeat_last` or `needs_person`";
                self.wrong(at, "malformed", message);
                None
            }
        }
    }
}

/// A name within a JSON pointer. What somebody wrote is cut, since it is repeated.
fn escape(name: &str) -> String {
    name.chars()
        .take(64)
        .collect::<String>()
        .replace('~', "~0")
        .replace('/', "~1")
}
