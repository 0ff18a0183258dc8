//! Comparing what was done about opt-outs with what the policies say: after a policy was changed, and once in a while,
//! since the settings may say something else than when the process ran last, and for whatever was missed.

use futures_util::future::BoxFuture;
use serde::Deserialize;
use sqlx::PgPool;
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::opt_out::tasks::put_apply;
use crate::opt_out::{Policy, store};
use crate::queue::{self, Handler, Outcome, Task};

/// So many are looked at in one transaction.
const PAGE: i64 = 500;

/// Runs [`super::REVIEW_TASK`].
#[derive(Debug, Clone)]
pub struct Review {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

#[derive(Debug, Deserialize)]
struct Payload {
    /// An account and a number; none: all.
    of: Option<(String, String)>,
}

impl Handler for Review {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let payload: Payload = match serde_json::from_value(task.payload.clone()) {
                Ok(payload) => payload,
                Err(error) => return Outcome::Bury(error.into()),
            };
            match self.review(task, &payload).await {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Retry(error.into()),
            }
        })
    }
}

impl Review {
    async fn review(&self, task: &Task, payload: &Payload) -> Result<Outcome, sqlx::Error> {
        let of = payload
            .of
            .as_ref()
            .map(|(account_sid, line)| (account_sid.as_str(), line.as_str()));
        let of_accounts: Vec<(String, Policy)> = self
            .accounts
            .iter()
            .map(|account| (account.account_sid.to_string(), account.opt_out))
            .collect();
        let mut after = Uuid::nil();
        loop {
            let mut transaction = self.pool.begin().await?;
            let page = store::astray(&mut transaction, of, &of_accounts, after, PAGE).await?;
            if !queue::is_held(&mut transaction, task.lease).await? {
                return Ok(Outcome::Finished);
            }
            for (opt_out_id, _) in page.iter().filter(|(_, is_astray)| *is_astray) {
                put_apply(&mut transaction, *opt_out_id, self.clock.now()).await?;
            }
            transaction.commit().await?;
            match page.last() {
                Some((last, _)) => after = *last,
                None => return Ok(Outcome::Done),
            }
        }
    }
}
