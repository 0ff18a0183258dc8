//! Since when a policy has what its newest version says: a version that adds a rule, a team or a number does not look back,
//! and one that leaves them as they are changes nothing about what waits. Pure.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::escalation::policy::{Policy, Scope, When};
use crate::people::Slug;

/// When parts of a policy were added to it. What is not here has been there from the beginning.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Since {
    /// By the name of the rule.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rules: BTreeMap<String, Timestamp>,
    /// When it became one for lines that it did not name.
    #[serde(skip_serializing_if = "Option::is_none")]
    everywhere: Option<Timestamp>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    teams: BTreeMap<String, Timestamp>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    lines: BTreeMap<String, Timestamp>,
}

impl Since {
    /// Of the version that follows another one now.
    #[must_use]
    pub fn after(&self, before: &Policy, policy: &Policy, now: Timestamp) -> Self {
        let rules = policy.rules.iter().filter_map(|rule| {
            let stood = before.rule(rule.name.as_str());
            let since = if stood.is_some_and(|stood| looks_for_the_same(&stood.when, &rule.when)) {
                self.rules.get(rule.name.as_str()).copied()?
            } else {
                now
            };
            Some((rule.name.to_string(), since))
        });
        let (old, new) = (&before.applies_to, &policy.applies_to);
        let mut after = Self {
            rules: rules.collect(),
            ..Self::default()
        };
        if !is_for_all(new) {
            let team = |team: &Slug| {
                if old.teams.is_empty() || old.teams.contains(team) {
                    self.of_team(old, team.as_str())
                } else {
                    Some(now)
                }
            };
            let teams = new.teams.iter().map(|one| (one.to_string(), team(one)));
            after.teams = teams.filter_map(|(one, since)| Some((one, since?))).collect();
            let line = |line: &str, is_old: bool| {
                if old.lines.is_empty() || is_old {
                    self.of_line(old, line)
                } else {
                    Some(now)
                }
            };
            let lines = new.lines.iter();
            let lines = lines.map(|one| {
                (
                    one.as_str().to_owned(),
                    line(one.as_str(), old.lines.contains(one)),
                )
            });
            after.lines = lines.filter_map(|(one, since)| Some((one, since?))).collect();
        } else if is_for_all(old) {
            after.everywhere = self.everywhere;
            after.teams.clone_from(&self.teams);
            after.lines.clone_from(&self.lines);
        } else {
            after.everywhere = Some(now);
            // Those that it had by one name alone go on as they were.
            let always = Timestamp::MIN;
            if old.lines.is_empty() {
                let teams = old
                    .teams
                    .iter()
                    .map(|one| (one.to_string(), self.teams.get(one.as_str())));
                after.teams = teams
                    .map(|(one, since)| (one, since.copied().unwrap_or(always)))
                    .collect();
            }
            if old.teams.is_empty() {
                let lines = old
                    .lines
                    .iter()
                    .map(|one| (one.as_str(), self.lines.get(one.as_str())));
                let lines = lines.map(|(one, since)| (one.to_owned(), since.copied().unwrap_or(always)));
                after.lines = lines.collect();
            }
        }
        after
    }

    /// Since when a line, whose holder is in this team, has been within the scope that it is within.
    pub fn of(&self, scope: &Scope, line: &str, team: Option<&Slug>) -> Timestamp {
        let of_team = || team.and_then(|team| self.teams.get(team.as_str())).copied();
        let of_line = || self.lines.get(line).copied();
        let found = if is_for_all(scope) {
            let earliest = [of_team(), of_line(), self.everywhere]
                .into_iter()
                .flatten()
                .min();
            self.everywhere.and(earliest)
        } else {
            of_team().max(of_line())
        };
        found.unwrap_or(Timestamp::MIN)
    }

    fn of_team(&self, scope: &Scope, team: &str) -> Option<Timestamp> {
        let own = self.teams.get(team).copied();
        if is_for_all(scope) {
            own.or(self.everywhere)
        } else {
            own
        }
    }

    fn of_line(&self, scope: &Scope, line: &str) -> Option<Timestamp> {
        let own = self.lines.get(line).copied();
        if is_for_all(scope) {
            own.or(self.everywhere)
        } else {
            own
        }
    }
}

fn is_for_all(scope: &Scope) -> bool {
    scope.teams.is_empty() && scope.lines.is_empty()
}

/// Other times leave it the same matter; other words do not.
fn looks_for_the_same(one: &When, other: &When) -> bool {
    match (one, other) {
        (When::Words(one), When::Words(other)) => one == other,
        (When::NoAnswer(_), When::NoAnswer(_))
        | (When::Unavailable(_), When::Unavailable(_))
        | (When::DeliveryFailure, When::DeliveryFailure)
        | (When::Asked, When::Asked) => true,
        (
            When::NoAnswer(_) | When::Unavailable(_) | When::Words(_) | When::DeliveryFailure | When::Asked,
            _,
        ) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn policy(applies_to: &Value, rules: &[(&str, Value)]) -> Policy {
        let rules: Vec<Value> = rules
            .iter()
            .map(|(name, when)| {
                json!({ "name": name, "when": when, "steps": [{ "how": "nudge", "to": "holder", "for": "5m" }] })
            })
            .collect();
        let document = json!({ "name": "x", "applies_to": applies_to, "rules": rules });
        Policy::read(&document, None).unwrap()
    }

    fn at(hour: i8) -> Timestamp {
        format!("2026-03-02T{hour:02}:00:00Z").parse().unwrap()
    }

    #[test]
    fn a_rule_counts_from_when_it_came_and_other_times_or_steps_leave_it_so() {
        let slow = |time: &str| ("slow", json!({ "no_answer": time }));
        let words = |word: &str| ("legal", json!({ "words": [word] }));
        let first = policy(&json!({}), &[slow("15m")]);
        let second = policy(&json!({}), &[slow("5m"), words("court")]);
        let since = Since::default().after(&first, &second, at(1));
        assert_eq!(since.rules, BTreeMap::from([("legal".to_owned(), at(1))]));
        let third = policy(
            &json!({}),
            &[slow("5m"), words("court"), ("hand", json!("asked"))],
        );
        let since = since.after(&second, &third, at(2));
        assert_eq!(since.rules.get("legal"), Some(&at(1)));
        let fourth = policy(&json!({}), &[slow("5m"), words("lawyer")]);
        let since = since.after(&third, &fourth, at(3));
        assert_eq!(
            since.rules,
            BTreeMap::from([("legal".to_owned(), at(3))]),
            "other words"
        );
        assert_eq!(Since::default(), serde_json::from_value(json!({})).unwrap());
        let stored = serde_json::to_value(&since).unwrap();
        assert_eq!(stored, json!({ "rules": { "legal": "2026-03-02T03:00:00Z" } }));
        assert_eq!(serde_json::from_value::<Since>(stored).unwrap(), since);
    }

    #[test]
    fn a_team_or_a_number_counts_from_when_it_came() {
        let rule = [("slow", json!({ "no_answer": "15m" }))];
        let of = |applies_to: Value| policy(&applies_to, &rule);
        let (sales, support): (Slug, Slug) = ("sales".parse().unwrap(), "support".parse().unwrap());
        let line = "+15017122661";
        let one = of(json!({ "teams": ["sales"] }));
        let two = of(json!({ "teams": ["sales", "support"] }));
        let since = Since::default().after(&one, &two, at(1));
        assert_eq!(since.of(&two.applies_to, line, Some(&sales)), Timestamp::MIN);
        assert_eq!(since.of(&two.applies_to, line, Some(&support)), at(1));
        // Then for all: those that it had go on as they were.
        let all = of(json!({}));
        let since = since.after(&two, &all, at(2));
        assert_eq!(since.of(&all.applies_to, line, Some(&sales)), Timestamp::MIN);
        assert_eq!(since.of(&all.applies_to, line, Some(&support)), at(1));
        assert_eq!(since.of(&all.applies_to, line, None), at(2));
        // And for one number of all.
        let number = of(json!({ "lines": [line] }));
        let since = since.after(&all, &number, at(3));
        assert_eq!(since.of(&number.applies_to, line, None), at(2));
        let numbers = of(json!({ "lines": [line, "+15017122662"] }));
        let since = since.after(&number, &numbers, at(4));
        assert_eq!(since.of(&numbers.applies_to, "+15017122662", None), at(4));
        // From the beginning for all, and then for a team of them.
        let since = Since::default().after(&all, &one, at(1));
        assert_eq!(since.of(&one.applies_to, line, Some(&sales)), Timestamp::MIN);
    }
}
