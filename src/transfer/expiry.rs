//! Ends offers that nobody answered in time.

use futures_util::future::BoxFuture;
use serde::Deserialize;
use uuid::Uuid;

use crate::queue::{Handler, Outcome, Task};
use crate::transfer::Transfers;

/// Runs [`super::EXPIRE_TASK`].
#[derive(Debug, Clone)]
pub struct Expiry(pub Transfers);

#[derive(Debug, Deserialize)]
struct Payload {
    transfer_id: Uuid,
}

impl Handler for Expiry {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            match self.0.expire(payload.transfer_id).await {
                Ok(()) => Outcome::Done,
                Err(error) => Outcome::Retry(error.into()),
            }
        })
    }
}
