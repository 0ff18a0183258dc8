//! The copy of the seals at an address outside: each is posted there by a task of the queue, in order, until it is
//! taken. The receiver may get one twice and knows it by its number.

use std::sync::Arc;

use anyhow::Context as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde_json::json;
use sqlx::PgPool;

use crate::audit::sealer::{POST_ATTEMPTS, POST_LIMIT};
use crate::audit::store;
use crate::config;
use crate::queue::{Handler, Lane, NewTask, Outcome, Task, TaskKind};

/// The kind of the task that posts one seal.
pub const POST_TASK: TaskKind = TaskKind::new("audit.post_seal", Lane::Background);

/// Posts seals.
pub struct Post {
    pool: PgPool,
    settings: Arc<config::Audit>,
    /// None where it cannot be made.
    client: Option<reqwest::Client>,
}

pub(super) fn task(seal: i64, now: Timestamp) -> NewTask {
    NewTask {
        kind: POST_TASK,
        order_key: "audit.seal_url".to_owned(),
        unique_key: Some(seal.to_string()),
        payload: json!({ "seal": seal }),
        run_at: now,
        attempts_max: POST_ATTEMPTS,
    }
}

impl Post {
    pub fn new(pool: PgPool, settings: Arc<config::Audit>) -> Self {
        crate::twilio::install_tls();
        let client = reqwest::Client::builder()
            .timeout(POST_LIMIT)
            .redirect(reqwest::redirect::Policy::none())
            .build();
        Self {
            pool,
            settings,
            client: client.ok(),
        }
    }

    async fn post(&self, task: &Task) -> anyhow::Result<Outcome> {
        let Some(number) = task.payload["seal"].as_i64() else {
            return Ok(Outcome::Bury(anyhow::anyhow!("the task names no seal")));
        };
        let Some(url) = self.settings.seal_url.clone() else {
            // Nobody wants it any more.
            return Ok(Outcome::Done);
        };
        let mut conn = self.pool.acquire().await?;
        let Some(seal) = store::find(&mut conn, number).await? else {
            return Ok(Outcome::Bury(anyhow::anyhow!("there is no seal {number}")));
        };
        drop(conn);
        let client = self
            .client
            .as_ref()
            .context("the client for calls cannot be made")?;
        let answer = client
            .post(url)
            .json(&seal)
            .send()
            .await
            .map_err(reqwest::Error::without_url)?;
        anyhow::ensure!(
            answer.status().is_success(),
            "setting audit.seal_url: the receiver answered {}",
            answer.status().as_u16()
        );
        Ok(Outcome::Done)
    }
}

impl Handler for Post {
    fn run<'a>(&'a self, task: &'a Task) -> BoxFuture<'a, Outcome> {
        Box::pin(async move { self.post(task).await.unwrap_or_else(Outcome::Retry) })
    }
}
