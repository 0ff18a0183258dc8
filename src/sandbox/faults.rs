//! Faults on demand: what goes wrong, how often, and for which requests and webhooks. All are off by default.
//!
//! Decides only; the connection is held and cut in [`super::server`], webhooks are lost and doubled in
//! [`super::sender`].

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::model::refusal::{INVALID_PARAMETER, Refusal};
use super::model::webhook::EventName;

/// The longest time that a fault holds anything, in milliseconds.
const HOLD_MS_MAX: u64 = 120_000;
/// The answers that a faulty REST API gives.
const STATUSES: &[u16] = &[429, 500, 502, 503, 504];

/// Everything that is to go wrong. `PUT /sandbox/v1/faults` takes it as JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Faults {
    /// Makes the dice fall the same way again.
    pub seed: u64,
    /// The first one that matches a request and whose dice say so is applied.
    pub rest: Vec<RestFault>,
    /// The first one that matches a webhook and whose dice say so is applied. Pre-action webhooks are left alone.
    pub webhooks: Vec<WebhookFault>,
    /// How many of the next conversations with participants fail while they are set up and end `closed` (50427).
    pub failing_setups: u32,
}

/// A fault of the REST API.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestFault {
    /// Any method, if none.
    #[serde(default)]
    pub method: Option<String>,
    /// A path such as `/v1/Services/*/Conversations/*/Messages`: `*` is one segment, `**` any number of them. Any
    /// path, if none.
    #[serde(default)]
    pub path: Option<String>,
    /// 429, 500, 502, 503 or 504. None: the connection is closed without an answer, which a client sees as a time-out
    /// or a reset.
    #[serde(default)]
    pub status: Option<u16>,
    /// Whether the request takes effect all the same.
    #[serde(default)]
    pub effect: Effect,
    /// How long the answer, or the silence, is held back, in milliseconds.
    #[serde(default)]
    pub hold_ms: u64,
    /// Between 0 and 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// How many times it still happens; without limit, if none.
    #[serde(default)]
    pub times: Option<u32>,
}

/// Whether a request has done its work when it fails.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    /// It fails before it has any effect.
    #[default]
    Before,
    /// It fails after its effect: the outcome is unknown to the caller, and real.
    After,
}

/// A fault of the delivery of webhooks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookFault {
    pub action: WebhookAction,
    /// Names like `onMessageAdded`; every event, if empty.
    #[serde(default)]
    pub events: Vec<String>,
    /// For `delay` and `reorder`, in milliseconds.
    #[serde(default = "half_a_second")]
    pub ms: u64,
    /// Between 0 and 1.
    #[serde(default = "always")]
    pub probability: f64,
    /// How many times it still happens; without limit, if none.
    #[serde(default)]
    pub times: Option<u32>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WebhookAction {
    /// It is never sent.
    Lose,
    /// It comes `ms` later, and everything after it in its conversation, too.
    Delay,
    /// It is sent twice, the second time as a request of its own.
    Double,
    /// It is held back until the next webhook of its conversation was sent, or for `ms`.
    Reorder,
}

fn always() -> f64 {
    1.0
}

fn half_a_second() -> u64 {
    500
}

/// What happens to one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RestPlan {
    pub(crate) status: Option<u16>,
    pub(crate) effect: Effect,
    pub(crate) hold: Duration,
}

/// What happens to one webhook.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WebhookPlan {
    pub(crate) action: WebhookAction,
    pub(crate) wait: Duration,
}

/// The faults in force, and the dice.
pub(crate) struct Dice(Mutex<(Faults, StdRng)>);

impl Faults {
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        let chances = self.rest.iter().map(|fault| fault.probability);
        let chances = chances.chain(self.webhooks.iter().map(|fault| fault.probability));
        for probability in chances {
            if !(0.0..=1.0).contains(&probability) {
                return Err(INVALID_PARAMETER.saying("probability must be between 0 and 1"));
            }
        }
        for fault in &self.rest {
            if fault.status.is_some_and(|status| !STATUSES.contains(&status)) {
                return Err(INVALID_PARAMETER.saying("status must be one of 429, 500, 502, 503, 504"));
            }
        }
        let holds = self.rest.iter().map(|fault| fault.hold_ms);
        if holds
            .chain(self.webhooks.iter().map(|fault| fault.ms))
            .any(|ms| ms > HOLD_MS_MAX)
        {
            return Err(INVALID_PARAMETER.saying("hold_ms and ms must not be more than 120000"));
        }
        let mut events = self.webhooks.iter().flat_map(|fault| &fault.events);
        if events.any(|name| EventName::parse(name).is_none()) {
            return Err(INVALID_PARAMETER.saying("events names something that is no event"));
        }
        Ok(())
    }
}

impl Dice {
    pub(crate) fn new(faults: Faults) -> Self {
        let rng = StdRng::seed_from_u64(faults.seed);
        Self(Mutex::new((faults, rng)))
    }

    pub(crate) fn set(&self, faults: Faults) {
        let rng = StdRng::seed_from_u64(faults.seed);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = (faults, rng);
    }

    /// The faults with what is left of their `times`.
    pub(crate) fn get(&self) -> Faults {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0.clone()
    }

    pub(crate) fn for_request(&self, method: &str, path: &str) -> Option<RestPlan> {
        let (faults, rng) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut matching = faults.rest.iter_mut().filter(|fault| {
            let method_fits = fault
                .method
                .as_deref()
                .is_none_or(|wanted| wanted.eq_ignore_ascii_case(method));
            method_fits
                && fault
                    .path
                    .as_deref()
                    .is_none_or(|pattern| path_matches(pattern, path))
        });
        let fault =
            matching.find_map(|fault| happens(&mut fault.times, fault.probability, rng).then_some(fault))?;
        Some(RestPlan {
            status: fault.status,
            effect: fault.effect,
            hold: Duration::from_millis(fault.hold_ms),
        })
    }

    pub(crate) fn for_webhook(&self, event: EventName) -> Option<WebhookPlan> {
        let (faults, rng) = &mut *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut matching = faults.webhooks.iter_mut().filter(|fault| {
            fault.events.is_empty() || fault.events.iter().any(|name| name == event.as_str())
        });
        let fault =
            matching.find_map(|fault| happens(&mut fault.times, fault.probability, rng).then_some(fault))?;
        Some(WebhookPlan {
            action: fault.action,
            wait: Duration::from_millis(fault.ms),
        })
    }
}

fn happens(times: &mut Option<u32>, probability: f64, rng: &mut StdRng) -> bool {
    if *times == Some(0) || !rng.random_bool(probability) {
        return false;
    }
    if let Some(left) = times {
        *left -= 1;
    }
    true
}

fn path_matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.trim_matches('/').split('/').collect();
    let path: Vec<&str> = path.trim_matches('/').split('/').collect();
    segments_match(&pattern, &path)
}

fn segments_match(pattern: &[&str], path: &[&str]) -> bool {
    match pattern {
        [] => path.is_empty(),
        ["**", rest @ ..] => (0..=path.len()).any(|skipped| segments_match(rest, &path[skipped..])),
        [wanted, rest @ ..] => {
            let Some((segment, others)) = path.split_first() else {
                return false;
            };
            (*wanted == "*" || wanted == segment) && segments_match(rest, others)
        }
    }
}

/// What one request asks for itself, in the header `X-Sandbox-Fault`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct RequestFaults {
    pub(crate) rest: Option<RestPlan>,
    pub(crate) webhooks: Option<WebhookPlan>,
}

impl RequestFaults {
    pub(crate) const HEADER: &'static str = "x-sandbox-fault";

    /// Reads words divided by commas: a status, `timeout`; with them `after` and `hold=<ms>`; `lose-webhooks`,
    /// `double-webhooks`, `delay-webhooks=<ms>`, `reorder-webhooks=<ms>`.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let wrong = || INVALID_PARAMETER.saying("X-Sandbox-Fault has a word that is no fault");
        let mut faults = Self::default();
        let (mut effect, mut hold) = (Effect::Before, Duration::ZERO);
        for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let (name, ms) = word
                .split_once('=')
                .map_or((word, None), |(name, ms)| (name, Some(ms)));
            let ms = ms.map(|ms| ms.parse::<u64>().map_err(|_| wrong())).transpose()?;
            let wait = Duration::from_millis(ms.unwrap_or_else(half_a_second).min(HOLD_MS_MAX));
            let webhook = |action| Some(WebhookPlan { action, wait });
            match name {
                "timeout" => {
                    faults.rest = Some(RestPlan {
                        status: None,
                        effect,
                        hold,
                    });
                }
                "after" => effect = Effect::After,
                "hold" => hold = wait,
                "lose-webhooks" => faults.webhooks = webhook(WebhookAction::Lose),
                "double-webhooks" => faults.webhooks = webhook(WebhookAction::Double),
                "delay-webhooks" => faults.webhooks = webhook(WebhookAction::Delay),
                "reorder-webhooks" => faults.webhooks = webhook(WebhookAction::Reorder),
                status => {
                    let status = status
                        .parse()
                        .ok()
                        .filter(|status| STATUSES.contains(status))
                        .ok_or_else(wrong)?;
                    faults.rest = Some(RestPlan {
                        status: Some(status),
                        effect,
                        hold,
                    });
                }
            }
        }
        faults.rest = faults.rest.map(|plan| RestPlan { effect, hold, ..plan });
        Ok(faults)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(json: &str) -> Dice {
        let faults: Faults = serde_json::from_str(json).unwrap();
        faults.check().unwrap();
        Dice::new(faults)
    }

    #[test]
    fn a_fault_happens_as_often_as_it_says() {
        let dice = rest(r#"{"rest": [{"status": 503, "times": 2}]}"#);
        assert!(dice.for_request("GET", "/v1/Services").is_some());
        assert!(dice.for_request("POST", "/v1/Services").is_some());
        assert!(dice.for_request("POST", "/v1/Services").is_none());
        assert_eq!(dice.get().rest[0].times, Some(0));
    }

    #[test]
    fn the_same_seed_makes_the_same_faults() {
        let fall = || {
            let dice = rest(r#"{"seed": 7, "webhooks": [{"action": "lose", "probability": 0.5}]}"#);
            (0..64)
                .map(|_| dice.for_webhook(EventName::MessageAdded).is_some())
                .collect::<Vec<_>>()
        };
        assert_eq!(fall(), fall());
        assert!(fall().contains(&true) && fall().contains(&false));
    }

    #[test]
    fn a_path_pattern_knows_one_segment_and_many() {
        assert!(path_matches("**/Messages", "/v1/Conversations/CH1/Messages"));
        assert!(path_matches(
            "/v1/Services/*/Conversations",
            "/v1/Services/IS1/Conversations"
        ));
        assert!(!path_matches(
            "/v1/Services/*/Conversations",
            "/v1/Services/IS1/Conversations/CH1"
        ));
        assert!(!path_matches("**/Messages", "/v1/Conversations/CH1/Messages/IM1"));
    }

    #[test]
    fn a_request_can_ask_for_its_own_fault() {
        let faults = RequestFaults::parse("timeout, after, hold=20, double-webhooks").unwrap();
        let hold = Duration::from_millis(20);
        assert_eq!(
            faults.rest,
            Some(RestPlan {
                status: None,
                effect: Effect::After,
                hold
            })
        );
        assert_eq!(faults.webhooks.unwrap().action, WebhookAction::Double);
        assert_eq!(
            RequestFaults::parse("429").unwrap().rest.unwrap().status,
            Some(429)
        );
        assert_eq!(RequestFaults::parse("").unwrap(), RequestFaults::default());
        for wrong in ["404", "explode", "hold=soon"] {
            assert!(RequestFaults::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn faults_that_cannot_be_are_refused() {
        for wrong in [
            r#"{"rest": [{"probability": 1.5}]}"#,
            r#"{"rest": [{"status": 418}]}"#,
            r#"{"webhooks": [{"action": "lose", "events": ["onNothing"]}]}"#,
        ] {
            assert!(
                serde_json::from_str::<Faults>(wrong).unwrap().check().is_err(),
                "{wrong}"
            );
        }
        assert!(serde_json::from_str::<Faults>(r#"{"rests": []}"#).is_err());
    }
}
