//! Taking a line, or giving it up, without asking anybody.

use axum::extract::State;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;

use super::begin::{Beginning, begin};
use super::{TransferBody, actor};
use crate::api::Api;
use crate::api::auth::{Caller, scope};
use crate::api::idempotency::Post;
use crate::api::words::{NOTE_MAX, words};
use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::outbox::BODY_MAX;
use crate::transfer::{GiveUp, IfOpen, NewForce};
use crate::web::field::{Errors, Field, Text};
use crate::web::problem::Problem;

/// A line that a supervisor gives to somebody.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "conversation_sid": "CH00000000000000000000000000000001",
    "to": "sam",
    "by": "sam",
    "reason": "maya is not well",
}))]
pub(in crate::api) struct ForceTransfer {
    #[serde(default)]
    #[schema(value_type = ConversationSid, required = true)]
    conversation_sid: Field<ConversationSid>,
    /// Which line; needed only where the conversation has several.
    #[serde(default)]
    #[schema(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// Who gets the line; the supervisor too, if they want it.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    to: Field<Identity>,
    /// The supervisor.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
    /// In a few words, for lists.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    reason: Field<Text<1, 200>>,
    /// What the next holder should know; at most 4 KiB. Customers never see it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    note: Field<Text<1, NOTE_MAX>>,
    /// What the new holder says to the group once the line is theirs.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 1600)]
    introduction: Field<Text<1, BODY_MAX>>,
}

impl ForceTransfer {
    fn read(self) -> Result<NewForce, Problem> {
        let mut errors = Errors::of_body();
        let conversation_sid = errors.required("conversation_sid", self.conversation_sid);
        let line = errors.optional("line", self.line);
        let to = errors.required("to", self.to);
        let by = errors.required("by", self.by);
        let words = words(&mut errors, self.reason, self.note, self.introduction);
        let new = match (conversation_sid, to, by) {
            (Some(conversation_sid), Some(to), Some(by)) => Some(NewForce {
                conversation_sid,
                line,
                to,
                by: by.into_string(),
                reason: words.reason,
                note: words.note,
                introduction: words.introduction,
            }),
            _ => None,
        };
        errors.finish(new)
    }
}

/// A line that its holder gives up.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "conversation_sid": "CH00000000000000000000000000000001",
    "by": "maya",
    "reason": "done for today",
}))]
pub(in crate::api) struct GiveUpLine {
    #[serde(default)]
    #[schema(value_type = ConversationSid, required = true)]
    conversation_sid: Field<ConversationSid>,
    /// Which line; needed only where the conversation has several.
    #[serde(default)]
    #[schema(value_type = Option<PhoneNumber>)]
    line: Field<PhoneNumber>,
    /// The line's holder, or a supervisor.
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
    /// The line's holder, where a supervisor does it in their place; the key needs the scope `transfers:supervise`.
    #[serde(default, rename = "as")]
    #[schema(value_type = Option<Identity>)]
    stands_in_for: Field<Identity>,
    /// In a few words, for lists.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 200)]
    reason: Field<Text<1, 200>>,
    /// What the next holder should know; at most 4 KiB. Customers never see it.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    note: Field<Text<1, NOTE_MAX>>,
    /// What the new holder says to the group once the line is theirs; of no use where it is left to nobody.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 1600)]
    introduction: Field<Text<1, BODY_MAX>>,
    /// What becomes of an offer of the same line that still stands: `supersede`, if not given, ends it; `refuse` lets it
    /// stand and refuses this one.
    #[serde(default)]
    #[schema(value_type = Option<IfOpen>, inline)]
    if_open: Field<IfOpen>,
}

impl GiveUpLine {
    fn read<S>(self, caller: &Caller<S>) -> Result<GiveUp, Problem> {
        let mut errors = Errors::of_body();
        let conversation_sid = errors.required("conversation_sid", self.conversation_sid);
        let line = errors.optional("line", self.line);
        let by = errors.required("by", self.by);
        let stands_in_for = errors.optional("as", self.stands_in_for);
        let words = words(&mut errors, self.reason, self.note, self.introduction);
        let if_open = errors.optional("if_open", self.if_open).unwrap_or_default();
        let (conversation_sid, by) = errors.finish(conversation_sid.zip(by))?;
        Ok(GiveUp {
            conversation_sid,
            line,
            by: actor(caller, by, stands_in_for)?,
            reason: words.reason,
            note: words.note,
            introduction: words.introduction,
            if_open,
        })
    }
}

/// Give a line to somebody without asking them
///
/// For supervisors. An offer that stands ends, `superseded`, and so does a transfer that is under way at Twilio: it is
/// taken over from wherever it is. Only another force is not: then 409, with who and since when. The limit of hops does
/// not count for it.
#[utoipa::path(
    post,
    path = "/v1/transfers/force",
    operation_id = "force_transfer",
    tag = "Transfers",
    request_body = ForceTransfer,
    responses((status = 202, description = "Taken; `Location` names it.", body = TransferBody)),
    security(("api_key" = ["transfers:supervise"])),
)]
pub(in crate::api) async fn force(
    State(api): State<Api>,
    caller: Caller<scope::TransfersSupervise>,
    Post { call, body }: Post<ForceTransfer>,
) -> Result<Response, Problem> {
    let new = body.read()?;
    begin(&api, &caller, call, Beginning::Force(new)).await
}

/// Give a line up
///
/// Nobody has it then: the number stays in the group by itself, messages still come, and what is sent through it is sent
/// in the number's own name. Where the setting `transfer.release_to` names somebody, they get it.
#[utoipa::path(
    post,
    path = "/v1/transfers/release",
    operation_id = "release_line",
    tag = "Transfers",
    request_body = GiveUpLine,
    responses((status = 202, description = "Taken; `Location` names it.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(in crate::api) async fn release(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Post { call, body }: Post<GiveUpLine>,
) -> Result<Response, Problem> {
    let give_up = body.read(&caller)?;
    begin(&api, &caller, call, Beginning::Release(give_up)).await
}

/// Give a line back to whoever held it before
#[utoipa::path(
    post,
    path = "/v1/transfers/handback",
    operation_id = "hand_line_back",
    tag = "Transfers",
    request_body = GiveUpLine,
    responses((status = 202, description = "Taken; `Location` names it.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(in crate::api) async fn hand_back(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Post { call, body }: Post<GiveUpLine>,
) -> Result<Response, Problem> {
    let give_up = body.read(&caller)?;
    begin(&api, &caller, call, Beginning::HandBack(give_up)).await
}
