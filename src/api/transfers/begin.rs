//! What all calls that begin a transfer share.

use axum::http::StatusCode;
use axum::response::Response;

use super::TransferBody;
use super::problem::{About, Asked, on_record};
use crate::api::Api;
use crate::api::auth::Caller;
use crate::api::idempotency::{Begun, Call};
use crate::ids::ConversationSid;
use crate::transfer::{GiveUp, NewForce, NewTransfer, StartTransferError, Transfer};
use crate::web::problem::Problem;

/// How a transfer begins.
pub(super) enum Beginning {
    Start(NewTransfer),
    Force(NewForce),
    Release(GiveUp),
    HandBack(GiveUp),
}

impl Beginning {
    fn asked(&self) -> (&'static str, String, ConversationSid) {
        match self {
            Self::Start(new) => ("start", new.requested_by.clone(), new.conversation_sid.clone()),
            Self::Force(new) => ("force", new.by.clone(), new.conversation_sid.clone()),
            Self::Release(give_up) => ("release", give_up.by.by.clone(), give_up.conversation_sid.clone()),
            Self::HandBack(give_up) => (
                "handback",
                give_up.by.by.clone(),
                give_up.conversation_sid.clone(),
            ),
        }
    }
}

/// Begins a transfer, once for one idempotency key. A refusal is on record, too.
pub(super) async fn begin<S>(
    api: &Api,
    caller: &Caller<S>,
    call: Call,
    beginning: Beginning,
) -> Result<Response, Problem> {
    let mut first = match call.begin(api, caller).await? {
        Begun::Again(answer) => return Ok(answer),
        Begun::First(first) => first,
    };
    let (verb, by, sid) = beginning.asked();
    let taken: Result<Transfer, StartTransferError> = match beginning {
        Beginning::Start(new) => api.transfers.start_in(first.conn(), new).await,
        Beginning::Force(new) => api.transfers.force_in(first.conn(), new).await,
        Beginning::Release(give_up) => api.transfers.release_in(first.conn(), give_up).await,
        Beginning::HandBack(give_up) => api.transfers.hand_back_in(first.conn(), give_up).await,
    };
    match taken {
        Ok(transfer) => {
            let location = format!("/v1/transfers/{}", transfer.transfer_id);
            let body = TransferBody::for_caller(transfer, caller);
            first.answer(StatusCode::ACCEPTED, Some(location), &body).await
        }
        Err(error) => {
            drop(first);
            let asked = Asked {
                verb,
                by: &by,
                about: About::Conversation(&sid),
            };
            Err(on_record(api, asked, error.into()).await)
        }
    }
}
