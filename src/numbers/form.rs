//! What people write of a number, as JSON: read member by member, so that all that is wrong is told at once.

use serde::Deserialize;
use utoipa::ToSchema;

use crate::ids::{AccountSid, Identity, MessagingServiceSid};
use crate::numbers::{NumberKind, Plan, Rule};
use crate::people::Slug;
use crate::people::form::{Name, Version};
use crate::web::field::{Errors, Field};

/// A number of the pool, as somebody decides. What is left out is none.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = PutNumber, example = json!({
    "label": "Sales, London", "kind": "long_code", "mms_capable": true, "team": "sales", "rule": "least_loaded",
}))]
pub struct NumberForm {
    /// The account that it belongs to; may be left out where the settings name the number.
    #[serde(default)]
    #[schema(value_type = Option<AccountSid>)]
    account_sid: Field<AccountSid>,
    /// What you call it.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 100)]
    label: Field<Name>,
    /// What sort of number it is. Only a `long_code` takes part in group texts.
    #[serde(default)]
    #[schema(value_type = NumberKind, required = true, inline)]
    kind: Field<NumberKind>,
    /// Whether it sends and receives MMS, as Twilio's console shows it. Group texts are MMS.
    #[serde(default)]
    #[schema(value_type = bool, required = true)]
    mms_capable: Field<bool>,
    /// The messaging service that it is in. One that is in another than the account's is not chosen.
    #[serde(default)]
    #[schema(value_type = Option<MessagingServiceSid>)]
    messaging_service_sid: Field<MessagingServiceSid>,
    /// Whose it is: for this team it is chosen, and in this team's queue its lines wait.
    #[serde(default)]
    #[schema(value_type = Option<Slug>)]
    team: Field<Slug>,
    /// Who gets a line of it that nobody holds, when a customer writes; null: nobody, it is left alone.
    #[serde(default)]
    #[schema(value_type = Option<Rule>, inline)]
    rule: Field<Rule>,
    /// The person, where `rule` is `person`.
    #[serde(default)]
    #[schema(value_type = Option<Identity>)]
    person: Field<Identity>,
    /// `false`: not chosen for new group texts. `true`, if not given.
    #[serde(default)]
    #[schema(value_type = Option<bool>)]
    enabled: Field<bool>,
    /// The version that you have seen, 0 for none: if another one stands that differs, nothing is changed (409). Null: whatever
    /// stands is replaced.
    #[serde(default)]
    #[schema(value_type = Option<u32>)]
    version: Field<Version>,
}

/// A plan whose account may have to be found, and the version that it is to replace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub account_sid: Option<AccountSid>,
    pub label: Option<String>,
    pub kind: NumberKind,
    pub mms_capable: bool,
    pub messaging_service_sid: Option<MessagingServiceSid>,
    pub team: Option<Slug>,
    pub rule: Option<Rule>,
    pub person: Option<Identity>,
    pub enabled: bool,
    pub replaces: Option<i64>,
}

impl NumberForm {
    pub fn read(self, errors: &mut Errors) -> Option<Wanted> {
        let account_sid = errors.optional("account_sid", self.account_sid);
        let label = errors.optional("label", self.label).map(Name::into_string);
        let kind = errors.required("kind", self.kind);
        let mms_capable = errors.required("mms_capable", self.mms_capable);
        let messaging_service_sid = errors.optional("messaging_service_sid", self.messaging_service_sid);
        let team = errors.optional("team", self.team);
        let rule = errors.optional("rule", self.rule);
        let person = errors.optional("person", self.person);
        let enabled = errors.optional("enabled", self.enabled).unwrap_or(true);
        let version = errors.optional("version", self.version);
        let wanted = Wanted {
            account_sid,
            label,
            kind: kind?,
            mms_capable: mms_capable?,
            messaging_service_sid,
            team,
            rule,
            person,
            enabled,
            replaces: version.map(|version| i64::from(version.0)),
        };
        for (field, code, message) in wanted.wrong() {
            errors.add(field, code, message);
        }
        errors.is_empty().then_some(wanted)
    }
}

impl Wanted {
    /// What of it does not go together.
    pub fn wrong(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let mut wrong = Vec::new();
        match (self.rule, &self.person, &self.team) {
            (Some(Rule::Person), None, _) => {
                wrong.push(("person", "missing", "expected whom the rule `person` means"));
            }
            (rule, Some(_), _) if rule != Some(Rule::Person) => {
                wrong.push(("person", "not_by_rule", "expected only with the rule `person`"));
            }
            (Some(rule), _, None) if rule != Rule::Person => {
                wrong.push(("team", "missing", "expected the team that the rule chooses from"));
            }
            _ => {}
        }
        wrong
    }

    pub(super) fn plan(self, account_sid: AccountSid) -> Plan {
        Plan {
            account_sid,
            label: self.label,
            kind: self.kind,
            mms_capable: self.mms_capable,
            messaging_service_sid: self.messaging_service_sid,
            team: self.team,
            rule: self.rule,
            person: self.person,
            enabled: self.enabled,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(body: serde_json::Value) -> Result<Wanted, crate::web::problem::Problem> {
        let form: NumberForm = serde_json::from_value(body).unwrap();
        let mut errors = Errors::of_body();
        let read = form.read(&mut errors);
        errors.finish(read)
    }

    #[test]
    fn a_rule_needs_whom_it_chooses_from() {
        let whole =
            serde_json::json!({ "kind": "long_code", "mms_capable": true, "team": "sales", "rule": "queue" });
        let wanted = read(whole).unwrap();
        assert_eq!((wanted.rule, wanted.enabled), (Some(Rule::Queue), true));
        for (wrong, field) in [
            (serde_json::json!({ "rule": "round_robin" }), "/team"),
            (
                serde_json::json!({ "rule": "person", "team": "sales" }),
                "/person",
            ),
            (
                serde_json::json!({ "rule": "queue", "team": "sales", "person": "maya" }),
                "/person",
            ),
            (serde_json::json!({ "person": "maya" }), "/person"),
        ] {
            let mut body = serde_json::json!({ "kind": "long_code", "mms_capable": true });
            body.as_object_mut()
                .unwrap()
                .extend(wrong.as_object().unwrap().clone());
            let crate::web::problem::Problem::Invalid { errors } = read(body.clone()).unwrap_err() else {
                panic!("{body} is invalid");
            };
            assert_eq!(errors[0].field, field, "{body}");
        }
    }
}
