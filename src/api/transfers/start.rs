//! Starting a transfer that anybody may ask for.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::TransferBody;
use super::begin::{Beginning, begin};
use crate::api::Api;
use crate::api::auth::{Caller, scope};
use crate::api::idempotency::Post;
use crate::api::words::{NOTE_MAX, words};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::outbox::BODY_MAX;
use crate::transfer::{IfOpen, Kind, NewTransfer, Turn};
use crate::web::field::{Errors, Field, Span, Text};
use crate::web::problem::Problem;

/// An offer may stand so long: a week.
const OFFER_SECONDS_MAX: i64 = 7 * 24 * 3600;
/// A list may have so many people.
const CANDIDATES_MAX: usize = 20;

/// How a line may be given by whoever asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", try_from = "String")]
pub(super) enum Asking {
    /// Nobody holds the line; somebody gets it at once.
    Assign,
    /// Somebody else gets it at once.
    Cold,
    /// Somebody else is offered it, and gets it on accepting.
    Warm,
    /// A supervisor is offered it, with less time to answer.
    Escalation,
}

impl TryFrom<String> for Asking {
    type Error = &'static str;

    fn try_from(word: String) -> Result<Self, Self::Error> {
        match word.as_str() {
            "assign" => Ok(Self::Assign),
            "cold" => Ok(Self::Cold),
            "warm" => Ok(Self::Warm),
            "escalation" => Ok(Self::Escalation),
            "force" => Err("expected another kind: a force is asked for at `POST /v1/transfers/force`"),
            "release" => Err("expected another kind: a release is asked for at `POST /v1/transfers/release`"),
            "handback" => {
                Err("expected another kind: a handback is asked for at `POST /v1/transfers/handback`")
            }
            _ => Err("expected one of `assign`, `cold`, `warm`, `escalation`"),
        }
    }
}

impl From<Asking> for Kind {
    fn from(asking: Asking) -> Self {
        match asking {
            Asking::Assign => Self::Assign,
            Asking::Cold => Self::Cold,
            Asking::Warm => Self::Warm,
            Asking::Escalation => Self::Escalation,
        }
    }
}

/// A transfer to be started.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "conversation_sid": "CH00000000000000000000000000000001",
    "kind": "warm",
    "to": "noor",
    "requested_by": "maya",
    "reason": "mortgage question",
    "offer_timeout": "5m",
}))]
pub(in crate::api) struct StartTransfer {
    #[serde(default)]
    #[schema(value_type = ConversationSid, required = true)]
    conversation_sid: Field<ConversationSid>,
    /// Which line; needed only where the conversation has several.
    #[serde(default)]
    #[schema(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    #[serde(default)]
    #[schema(value_type = Asking, required = true, inline)]
    kind: Field<Asking>,
    /// Who gets the line. This or `candidates`.
    #[serde(default)]
    #[schema(value_type = Option<Identity>)]
    to: Field<Identity>,
    /// Who is offered it, one after the other, until one accepts; only for `warm` and `escalation`. Who cannot take it when
    /// their turn comes is passed over.
    #[serde(default)]
    #[schema(value_type = Option<Vec<CandidateWanted>>, min_items = 1, max_items = 20)]
    candidates: Field<Vec<CandidateWanted>>,
    /// Who asks for it.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    requested_by: Field<Identity>,
    /// In a few words, for lists.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    reason: Field<Text<1, 200>>,
    /// What the next holder should know; at most 4 KiB. Customers never see it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    note: Field<Text<1, NOTE_MAX>>,
    /// What the new holder says to the group once the line is theirs; it is sent once, and only if it still is.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 1600)]
    introduction: Field<Text<1, BODY_MAX>>,
    /// How long an offer stands, like `5m`; only for `warm` and `escalation`.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "5m")]
    offer_timeout: Field<Span<OFFER_SECONDS_MAX>>,
    /// What becomes of an offer of the same line that still stands: `supersede`, if not given, ends it; `refuse` lets it
    /// stand and refuses this one.
    #[serde(default)]
    #[schema(value_type = Option<IfOpen>, inline)]
    if_open: Field<IfOpen>,
}

/// Somebody who is to be offered a line.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "to": "noor", "offer_timeout": "2m" }))]
pub(in crate::api) struct CandidateWanted {
    to: Identity,
    /// How long they have; the transfer's `offer_timeout`, if not given.
    #[serde(default)]
    #[schema(value_type = Option<String>, example = "2m")]
    offer_timeout: Option<Span<OFFER_SECONDS_MAX>>,
}

impl StartTransfer {
    fn read(self) -> Result<NewTransfer, Problem> {
        let mut errors = Errors::of_body();
        let conversation_sid = errors.required("conversation_sid", self.conversation_sid);
        let line = errors.optional("line", self.line);
        let kind = errors.required("kind", self.kind).map(Kind::from);
        let mut turns = turns(&mut errors, self.to, self.candidates);
        let requested_by = errors.required("requested_by", self.requested_by);
        let words = words(&mut errors, self.reason, self.note, self.introduction);
        let offer_timeout = errors.optional("offer_timeout", self.offer_timeout);
        let if_open = errors.optional("if_open", self.if_open).unwrap_or_default();
        if kind.is_some_and(|kind| !kind.is_offered()) {
            let message = "expected only for `warm` and `escalation`: the others are not offered";
            if offer_timeout.is_some() {
                errors.add("offer_timeout", "not_offered", message);
            }
            if turns.len() > 1 {
                errors.add("candidates", "not_offered", message);
            }
        }
        let first = (!turns.is_empty()).then(|| turns.remove(0));
        let new = match (conversation_sid, kind, first, requested_by) {
            (Some(conversation_sid), Some(kind), Some(first), Some(requested_by)) => Some(NewTransfer {
                conversation_sid,
                line,
                kind,
                to: first.to,
                then: turns
                    .into_iter()
                    .map(|turn| Turn {
                        offer_timeout: turn.offer_timeout.or(offer_timeout.map(|timeout| timeout.0)),
                        ..turn
                    })
                    .collect(),
                requested_by: requested_by.into_string(),
                reason: words.reason,
                note: words.note,
                introduction: words.introduction,
                offer_timeout: first.offer_timeout.or(offer_timeout.map(|timeout| timeout.0)),
                if_open,
            }),
            _ => None,
        };
        errors.finish(new)
    }
}

/// Everybody who is to be asked, in order.
fn turns(errors: &mut Errors, to: Field<Identity>, list: Field<Vec<CandidateWanted>>) -> Vec<Turn> {
    match (&to, &list) {
        (Field::Absent, Field::Absent) => errors.add("to", "missing", "expected a value, or `candidates`"),
        (Field::Absent, _) | (_, Field::Absent) => {}
        _ => errors.add("candidates", "not_both", "expected either `to` or `candidates`"),
    }
    let to = errors.optional("to", to).map(|to| Turn {
        to,
        offer_timeout: None,
    });
    let Some(list) = errors.optional("candidates", list) else {
        return to.into_iter().collect();
    };
    if !(1..=CANDIDATES_MAX).contains(&list.len()) {
        let message = format!("expected 1 to {CANDIDATES_MAX} people");
        errors.add("candidates", "malformed", message);
    }
    for (place, one) in list.iter().enumerate() {
        if list[..place].iter().any(|other| other.to == one.to) {
            let message = "expected everybody once";
            errors.add(&format!("candidates/{place}/to"), "duplicate", message);
        }
    }
    list.into_iter()
        .map(|one| Turn {
            to: one.to,
            offer_timeout: one.offer_timeout.map(|timeout| timeout.0),
        })
        .collect()
}

/// Start a transfer
///
/// `assign` gives an unstaffed line, `cold` a staffed one, at once; `warm` and `escalation` offer it first, to one person
/// or to one after the other of a list. An offer of the same line that still stands ends, `superseded`. A transfer always
/// ends: `completed`, `declined`, `cancelled`, `expired`, `exhausted`, `superseded`, `failed`, or `needs_attention`, each
/// told in the feed. Until the new holder is confirmed at Twilio, the old one keeps the line.
#[utoipa::path(
    post,
    path = "/v1/transfers",
    operation_id = "start_transfer",
    tag = "Transfers",
    request_body = StartTransfer,
    responses((status = 202, description = "Taken; `Location` names it.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(in crate::api) async fn start(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Post { call, body }: Post<StartTransfer>,
) -> Result<Response, Problem> {
    let new = body.read()?;
    begin(&api, &caller, call, Beginning::Start(new)).await
}
