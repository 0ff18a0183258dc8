//! Making a plan.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;
use utoipa::ToSchema;

use super::HandoverBody;
use super::verbs::on_record;
use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Post};
use crate::api::words::{NOTE_MAX, words};
use crate::api::{Api, conflict};
use crate::events::Via;
use crate::handover::{Becomes, By, NewHandover, Otherwise, Rule, Spread, StartHandoverError};
use crate::ids::Identity;
use crate::outbox::BODY_MAX;
use crate::people::Slug;
use crate::web::field::{Errors, Field, Instant, Text};
use crate::web::problem::Problem;

/// A plan may have so many rules, and a rule so many people.
const RULES_MAX: usize = 10;
const PEOPLE_MAX: usize = 200;
const LINES_PER_MINUTE_MAX: u32 = 60_000;

/// All lines of one person, to be given to others.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "leaver": "maya",
    "rules": [{ "rule": "last_holder" }, { "rule": "team", "team": "sales", "spread": "least_loaded" }],
    "otherwise": "stay",
    "lines_per_minute": 60,
    "leaver_becomes": "left",
    "requested_by": "sam",
    "reason": "Maya leaves us",
}))]
pub(in crate::api) struct StartHandover {
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    leaver: Field<Identity>,
    /// To whom: of each line, the first rule that yields somebody who can take it decides.
    #[serde(default)]
    #[schema(value_type = Vec<RuleWanted>, required = true, min_items = 1, max_items = 10)]
    rules: Field<Vec<RuleWanted>>,
    /// What becomes of a line that nobody can take: it stays, if not given.
    #[serde(default)]
    #[schema(value_type = Option<Otherwise>, inline)]
    otherwise: Field<Otherwise>,
    /// How many lines begin in a minute at most; as the settings say, if not given.
    #[serde(default)]
    #[schema(value_type = Option<u32>, minimum = 1, maximum = 60000)]
    lines_per_minute: Field<u32>,
    /// The day of the return: what was handed over, and is still with whom it was given to, goes back.
    #[serde(default)]
    #[schema(value_type = Option<jiff::Timestamp>)]
    return_at: Field<Instant>,
    /// What the leaver is from the beginning of the run on, so that nothing new comes to them. Undone with the way back.
    #[serde(default)]
    #[schema(value_type = Option<Becomes>, inline)]
    leaver_becomes: Field<Becomes>,
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    requested_by: Field<Identity>,
    /// In a few words, for lists; every transfer carries it.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    reason: Field<Text<1, 200>>,
    /// What the next holders should know; at most 4 KiB. Every transfer carries it; customers never see it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    note: Field<Text<1, NOTE_MAX>>,
    /// What each new holder says to the group once the line is theirs; nobody says it on the way back, nor where a line is
    /// released.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 1600)]
    introduction: Field<Text<1, BODY_MAX>>,
}

/// To whom lines go.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "rule": "people", "people": ["noor", "jonas"] }))]
pub(in crate::api) struct RuleWanted {
    #[schema(inline)]
    rule: RuleName,
    /// Of `people`: the first of them who can take it.
    #[serde(default)]
    people: Option<Vec<Identity>>,
    /// Of `team`: spread over its members.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    team: Option<Slug>,
    /// Of `team`: `least_loaded`, if not given.
    #[serde(default)]
    #[schema(inline)]
    spread: Option<Spread>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum RuleName {
    /// The first of these people who can.
    People,
    /// Whoever of a team is next.
    Team,
    /// Whoever held the line last, besides the leaver.
    LastHolder,
    /// The leaver's supervisor, or the next one up who can.
    Supervisor,
}

impl StartHandover {
    fn read(self, api: &Api) -> Result<NewHandover, Problem> {
        let mut errors = Errors::of_body();
        let leaver = errors.required("leaver", self.leaver);
        let rules = errors.required("rules", self.rules);
        let rules = rules.map(|rules| read_rules(&mut errors, rules));
        let otherwise = errors.optional("otherwise", self.otherwise);
        let rate = errors.optional("lines_per_minute", self.lines_per_minute);
        if rate.is_some_and(|rate| !(1..=LINES_PER_MINUTE_MAX).contains(&rate)) {
            let message = format!("expected a whole number from 1 to {LINES_PER_MINUTE_MAX}");
            errors.add("lines_per_minute", "malformed", message);
        }
        let return_at = errors.optional("return_at", self.return_at).map(|at| at.0);
        let leaver_becomes = errors.optional("leaver_becomes", self.leaver_becomes);
        let requested_by = errors.required("requested_by", self.requested_by);
        let words = words(&mut errors, self.reason, self.note, self.introduction);
        let new = match (leaver, rules, requested_by) {
            (Some(leaver), Some(rules), Some(requested_by)) => Some(NewHandover {
                leaver,
                rules,
                otherwise: otherwise.unwrap_or(Otherwise::Stay),
                lines_per_minute: rate.unwrap_or(api.handovers.settings.lines_per_minute),
                return_at,
                leaver_becomes,
                reason: words.reason,
                note: words.note,
                introduction: words.introduction,
                requested_by: requested_by.into_string(),
            }),
            _ => None,
        };
        errors.finish(new)
    }
}

fn read_rules(errors: &mut Errors, rules: Vec<RuleWanted>) -> Vec<Rule> {
    if !(1..=RULES_MAX).contains(&rules.len()) {
        errors.add("rules", "malformed", format!("expected 1 to {RULES_MAX} rules"));
    }
    let mut read = Vec::new();
    for (place, wanted) in rules.into_iter().enumerate() {
        let at = |member: &str| format!("rules/{place}/{member}");
        let is_people = wanted.rule == RuleName::People;
        let is_team = wanted.rule == RuleName::Team;
        for (member, is_given, belongs) in [
            ("people", wanted.people.is_some(), is_people),
            ("team", wanted.team.is_some(), is_team),
            ("spread", wanted.spread.is_some(), is_team),
        ] {
            if is_given && !belongs {
                errors.add(
                    &at(member),
                    "not_of_this_rule",
                    "expected only of the rule that it belongs to",
                );
            }
        }
        match (wanted.rule, wanted.people, wanted.team) {
            (RuleName::People, Some(people), _) => {
                if !(1..=PEOPLE_MAX).contains(&people.len()) {
                    let message = format!("expected 1 to {PEOPLE_MAX} people");
                    errors.add(&at("people"), "malformed", message);
                }
                for (number, person) in people.iter().enumerate() {
                    if people[..number].contains(person) {
                        let member = at(&format!("people/{number}"));
                        errors.add(&member, "duplicate", "expected everybody once");
                    }
                }
                read.push(Rule::People(people));
            }
            (RuleName::People, None, _) => errors.add(&at("people"), "missing", "expected a value"),
            (RuleName::Team, _, Some(team)) => read.push(Rule::Team {
                team,
                spread: wanted.spread.unwrap_or(Spread::LeastLoaded),
            }),
            (RuleName::Team, _, None) => errors.add(&at("team"), "missing", "expected a value"),
            (RuleName::LastHolder, _, _) => read.push(Rule::LastHolder),
            (RuleName::Supervisor, _, _) => read.push(Rule::Supervisor),
        }
    }
    read
}

impl From<StartHandoverError> for Problem {
    fn from(error: StartHandoverError) -> Self {
        let (detail, code) = (error.to_string(), error.refusal().unwrap_or_default());
        let wrong = |field: &str, code| {
            let mut errors = Errors::of_body();
            errors.add(field, code, detail.as_str());
            errors.finish::<()>(None).err().unwrap_or(Self::Internal)
        };
        match error {
            StartHandoverError::LeaverNamed => wrong("rules", "is_the_leaver"),
            StartHandoverError::ReturnPassed => wrong("return_at", "passed"),
            StartHandoverError::LeaverUnknown => Self::conflict(
                code,
                "nobody has the identity of the leaver, here or at Twilio as far as we know: correct it",
            ),
            StartHandoverError::LeaverNoAgent => Self::conflict(
                code,
                "the leaver is none of our agents, so that they cannot be set away or as having left: add them, or leave out `leaver_becomes`",
            ),
            StartHandoverError::PersonUnknown { identity } => conflict(
                code,
                "somebody named has an identity that nobody has, here or at Twilio as far as we know: add them, or correct it",
                json!({ "identities": [identity] }),
            ),
            StartHandoverError::TeamUnknown { team } => conflict(
                code,
                "there is no such team: add it, or correct it",
                json!({ "team": team }),
            ),
            StartHandoverError::Database(error) => error.into(),
        }
    }
}

/// Plan the handover of all lines of a person
///
/// Nothing is handed over by this. Which lines they hold is asked of the ledger and of Twilio; what the two do not agree on is
/// read again; then it is decided to whom each line goes, and why. Until that is done the plan is `planning`, afterwards it is
/// a `draft`: look at it, decide about single lines by hand, and run it.
#[utoipa::path(
    post,
    path = "/v1/handovers",
    operation_id = "start_handover",
    tag = "Handovers",
    request_body = StartHandover,
    responses((status = 202, description = "Taken; `Location` names it.", body = HandoverBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn start(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Post { call, body }: Post<StartHandover>,
) -> Result<Response, Problem> {
    let new = body.read(&api)?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let (leaver, by) = (new.leaver.clone(), new.requested_by.clone());
            match api.handovers.create_in(first.conn(), new, Via::Api).await {
                Ok(plan) => {
                    let location = format!("/v1/handovers/{}", plan.handover_id);
                    let body = HandoverBody::from(plan);
                    first.answer(StatusCode::ACCEPTED, Some(location), &body).await
                }
                Err(error) => {
                    drop(first);
                    let by = By {
                        name: &by,
                        via: Via::Api,
                    };
                    Err(on_record(&api, "plan", leaver.as_str(), by, error.into()).await)
                }
            }
        }
    }
}
