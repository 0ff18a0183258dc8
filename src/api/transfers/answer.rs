//! Answering an offer.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::problem::{About, Asked, on_record};
use super::{TransferBody, actor};
use crate::api::Api;
use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Call, First, Post};
use crate::ids::Identity;
use crate::transfer::{Actor, DecideError, Transfer};
use crate::web::extract::Path;
use crate::web::field::{Errors, Field};
use crate::web::problem::Problem;

/// Who answers an offer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "by": "noor" }))]
pub(in crate::api) struct Decision {
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
    /// In whose place, where a supervisor answers for the one who was asked; the key needs the scope
    /// `transfers:supervise`.
    #[serde(default, rename = "as")]
    #[schema(value_type = Option<Identity>)]
    stands_in_for: Field<Identity>,
}

impl Decision {
    fn read<S>(self, caller: &Caller<S>) -> Result<Actor, Problem> {
        let mut errors = Errors::of_body();
        let by = errors.required("by", self.by);
        let stands_in_for = errors.optional("as", self.stands_in_for);
        let by = errors.finish(by)?;
        actor(caller, by, stands_in_for)
    }
}

/// Who takes an offer back.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({ "by": "maya" }))]
pub(in crate::api) struct Cancellation {
    #[serde(default)]
    #[schema(value_type = Identity, required = true)]
    by: Field<Identity>,
}

/// What one of the operations below does.
async fn decide(
    api: &Api,
    caller: &Caller<scope::TransfersWrite>,
    call: Call,
    transfer_id: Uuid,
    verb: Verb,
    actor: Actor,
) -> Result<Response, Problem> {
    match call.begin(api, caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => match run(api, &mut first, transfer_id, verb, &actor).await {
            Ok(transfer) => {
                first
                    .answer(StatusCode::OK, None, &TransferBody::for_caller(transfer, caller))
                    .await
            }
            Err(error) => {
                drop(first);
                let asked = Asked {
                    verb: verb.as_str(),
                    by: &actor.by,
                    about: About::Transfer(transfer_id),
                };
                Err(on_record(api, asked, error.into()).await)
            }
        },
    }
}

async fn run(
    api: &Api,
    first: &mut First,
    transfer_id: Uuid,
    verb: Verb,
    actor: &Actor,
) -> Result<Transfer, DecideError> {
    let transfers = &api.transfers;
    match verb {
        Verb::Accept => {
            transfers
                .accept_in(first.conn(), transfer_id, actor.clone())
                .await
        }
        Verb::Decline => {
            transfers
                .decline_in(first.conn(), transfer_id, actor.clone())
                .await
        }
        Verb::Cancel => transfers.cancel_in(first.conn(), transfer_id, &actor.by).await,
    }
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Accept,
    Decline,
    Cancel,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::Decline => "decline",
            Self::Cancel => "cancel",
        }
    }
}

/// Accept an offered transfer; only its target can, or a supervisor in their place
#[utoipa::path(
    post,
    path = "/v1/transfers/{transfer_id}/accept",
    operation_id = "accept_transfer",
    tag = "Transfers",
    params(("transfer_id" = Uuid, Path)),
    request_body = Decision,
    responses((status = 200, description = "Accepted; the swap begins.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(in crate::api) async fn accept(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Path(transfer_id): Path<Uuid>,
    Post { call, body }: Post<Decision>,
) -> Result<Response, Problem> {
    let actor = body.read(&caller)?;
    decide(&api, &caller, call, transfer_id, Verb::Accept, actor).await
}

/// Decline an offered transfer; only its target can, or a supervisor in their place
///
/// Where it is offered to a list, it is the next one's turn.
#[utoipa::path(
    post,
    path = "/v1/transfers/{transfer_id}/decline",
    operation_id = "decline_transfer",
    tag = "Transfers",
    params(("transfer_id" = Uuid, Path)),
    request_body = Decision,
    responses((status = 200, description = "Declined; the line stays as it is.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(in crate::api) async fn decline(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Path(transfer_id): Path<Uuid>,
    Post { call, body }: Post<Decision>,
) -> Result<Response, Problem> {
    let actor = body.read(&caller)?;
    decide(&api, &caller, call, transfer_id, Verb::Decline, actor).await
}

/// Cancel an offered transfer
#[utoipa::path(
    post,
    path = "/v1/transfers/{transfer_id}/cancel",
    operation_id = "cancel_transfer",
    tag = "Transfers",
    params(("transfer_id" = Uuid, Path)),
    request_body = Cancellation,
    responses((status = 200, description = "Cancelled; the line stays as it is.", body = TransferBody)),
    security(("api_key" = ["transfers:write"])),
)]
pub(in crate::api) async fn cancel(
    State(api): State<Api>,
    caller: Caller<scope::TransfersWrite>,
    Path(transfer_id): Path<Uuid>,
    Post { call, body }: Post<Cancellation>,
) -> Result<Response, Problem> {
    let mut errors = Errors::of_body();
    let by = errors.required("by", body.by);
    let by = errors.finish(by)?;
    decide(&api, &caller, call, transfer_id, Verb::Cancel, by.as_str().into()).await
}
