//! Projects stored webhooks: parse, then mirror, ledger, log and signals, in one transaction with the mark that says so.
//!
//! A worker takes lanes by locking their rows and works through the oldest webhooks in them. It may die anywhere: the
//! transaction is rolled back, the lanes are free, and the webhooks still wait.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use sqlx::{Connection as _, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use crate::clock::Clock;
use crate::db::{self, Notices, Topic, is_passing};
use crate::events::{self as log, Kind, NewEvent, Via};
use crate::ids::ConversationSid;
use crate::inbox::pace::Pace;
use crate::inbox::store::{self, Pending};
use crate::inbox::{Format, LANES, erase, events};
use crate::mirror::{Observed, project};
use crate::projection;
use crate::twilio::form::Form;
use crate::twilio::webhook::Webhook;

/// Projects what waits, lane by lane. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Projector {
    pub pool: PgPool,
    pub clock: Clock,
    /// Webhooks taken at a time.
    pub batch: u16,
    /// Who waits for what the webhooks bring.
    pub notices: Notices,
    pub pace: Pace,
}

/// The longest sleep between two looks, where a notice was lost.
const POLL: Duration = Duration::from_secs(1);

/// Lanes that one batch is taken from: what a batch costs is shared by all that waits in them, and as many are left to
/// another worker.
const LANES_AT_ONCE: i64 = (LANES / 2) as i64;

/// How long a lane is left alone at first whose oldest webhook the database did not take, and at most.
const TROUBLED_PAUSE: Duration = Duration::from_secs(2);
const TROUBLED_PAUSE_MAX: Duration = Duration::from_mins(1);

/// After a batch that failed.
const PAUSE: Duration = Duration::from_millis(200);

impl Projector {
    /// Works until cancelled. A batch under way is finished first, unless the database is lost meanwhile.
    pub async fn run(self, cancel: CancellationToken) {
        let mut reach = Reach::whole(self.batch);
        while !cancel.is_cancelled() {
            let woken = self.notices.webhooks.notified();
            tokio::pin!(woken);
            woken.as_mut().enable();
            self.pace.turn().await;
            match self.project_unless_lost(&mut reach).await {
                Ok(settled) => {
                    self.pace.ended(settled);
                    if reach.succeeded(settled) {
                        continue;
                    }
                }
                Err(error) => {
                    warn!(
                        error = &error as &dyn std::error::Error,
                        "cannot project webhooks, trying again"
                    );
                    reach.failed();
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            }
            tokio::select! {
                () = cancel.cancelled() => {}
                () = woken => {}
                () = tokio::time::sleep(POLL) => {}
            }
        }
    }

    /// A batch takes as long as it takes, but nothing comes of one whose database is gone.
    async fn project_unless_lost(&self, reach: &mut Reach) -> Result<usize, sqlx::Error> {
        let lost = self.notices.lost.notified();
        tokio::pin!(lost);
        lost.as_mut().enable();
        tokio::select! {
            settled = self.project_lanes(reach) => settled,
            () = lost => Err(db::lost()),
        }
    }

    /// Projects until nothing waits. Answers how many webhooks that settled.
    pub async fn run_until_idle(&self) -> Result<usize, sqlx::Error> {
        let mut settled = 0;
        let mut reach = Reach::whole(self.batch);
        loop {
            match self.project_lanes(&mut reach).await? {
                0 => return Ok(settled),
                some => settled += some,
            }
        }
    }

    /// Settles the oldest webhooks of some lanes. 0: nothing waits that nobody works on.
    async fn project_lanes(&self, reach: &mut Reach) -> Result<usize, sqlx::Error> {
        let now = self.clock.now();
        // What a crash of the server forgets of it is derived anew: the webhooks are on disk, and wait again.
        let mut transaction = self.pool.begin_with(db::BEGIN_RELAXED).await?;
        let (limit, but, only) = reach.begin();
        reach.taken = store::lock_waiting_lanes(&mut transaction, limit, &but, only).await?;
        if reach.taken.is_empty() {
            return Ok(0);
        }
        let pending = store::pending(&mut transaction, &reach.taken, reach.webhooks()).await?;
        let mut batch = Batch::read(&pending);
        batch.commit_changes(&mut transaction, now).await?;
        batch.settle(&mut transaction, now).await?;
        transaction.commit().await?;
        self.announce(batch.projected.len());
        Ok(pending.len())
    }

    /// Projects webhooks within the caller's transaction, all or none: where the database refuses one of them, this is an
    /// error, and the transaction has to be given up. Those of `stored` were stored in it, and do not wait.
    pub(super) async fn project_at_once(
        &self,
        conn: &mut PgConnection,
        pending: &[Pending],
        stored: &[Pending],
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let (mut before, mut batch) = (Batch::read(pending), Batch::read(stored));
        let all = before
            .take_observed()
            .chain(batch.take_observed())
            .collect::<Vec<_>>();
        let said_erased = projection::commit(conn, &all, Via::Webhook, None, now).await?;
        erase::empty(conn, &said_erased, now).await?;
        before.set_aside_what_is_ill_formed(conn, now).await?;
        batch.set_aside_what_is_ill_formed(conn, now).await?;
        store::mark_projected(conn, before.settled().chain(batch.settled()), now).await
    }

    /// Tells of what a committed transaction projected.
    pub(super) fn announce(&self, projected: usize) {
        metrics::counter!("hookswitch_webhooks_projected_total").increment(projected as u64);
        self.notices.announce(Topic::Events);
    }
}

/// How much a worker takes at a time.
///
/// After a batch that the database did not take it takes less: it may have been too much for the time that a statement
/// has. What fails alone, too, waits for a lock that does not come: its lane is left alone, and tried again by itself
/// after a growing pause, so that the other lanes do not wait behind it.
#[derive(Debug)]
struct Reach {
    batch: u16,
    webhooks: u16,
    lanes: i64,
    troubled: Vec<Troubled>,
    /// Of the batch under way.
    taken: Vec<i16>,
    /// The batch under way is of this lane alone, which was left alone before.
    only: Option<i16>,
}

/// A lane whose oldest webhook the database did not take.
#[derive(Debug)]
struct Troubled {
    lane: i16,
    pause: Duration,
    again_at: Instant,
}

impl Reach {
    fn whole(batch: u16) -> Self {
        Self {
            batch,
            webhooks: batch,
            lanes: LANES_AT_ONCE,
            troubled: Vec::new(),
            taken: Vec::new(),
            only: None,
        }
    }

    /// Which lanes to lock: so many, none of those, and only this one.
    fn begin(&mut self) -> (i64, Vec<i16>, Option<i16>) {
        let now = Instant::now();
        let due = self.troubled.iter().find(|one| one.again_at <= now);
        self.only = due.map(|one| one.lane);
        self.taken.clear();
        let but = self.troubled.iter().map(|one| one.lane);
        (
            self.lanes,
            but.filter(|lane| self.only != Some(*lane)).collect(),
            self.only,
        )
    }

    fn webhooks(&self) -> i64 {
        i64::from(if self.only.is_some() { 1 } else { self.webhooks })
    }

    /// Answers whether to look again at once, although nothing was there.
    fn succeeded(&mut self, settled: usize) -> bool {
        if let Some(lane) = self.only.take() {
            self.troubled.retain(|one| one.lane != lane);
            return true;
        }
        if settled > 0 {
            self.webhooks = self.webhooks.saturating_mul(2).min(self.batch);
            self.lanes = (self.lanes * 2).min(LANES_AT_ONCE);
        }
        settled > 0
    }

    fn failed(&mut self) {
        let now = Instant::now();
        if let Some(lane) = self.only.take() {
            for one in self.troubled.iter_mut().filter(|one| one.lane == lane) {
                one.pause = (one.pause * 2).min(TROUBLED_PAUSE_MAX);
                one.again_at = now + one.pause;
            }
            return;
        }
        if self.webhooks == 1 && self.lanes == 1 {
            self.troubled.extend(self.taken.drain(..).map(|lane| Troubled {
                lane,
                pause: TROUBLED_PAUSE,
                again_at: now + TROUBLED_PAUSE,
            }));
        }
        self.webhooks = (self.webhooks / 16).max(1);
        self.lanes = 1;
    }
}

pub(super) fn read(webhook: &Pending) -> Result<Vec<Observed>, String> {
    let parsed = parse(webhook)?;
    let cause = format!("webhook:{}", webhook.webhook_id);
    project::webhook(&webhook.account_sid, &parsed, &cause).map_err(|error| error.to_string())
}

fn parse(webhook: &Pending) -> Result<Webhook, String> {
    match webhook.format {
        Format::Form => {
            let form = Form::parse(&webhook.form).map_err(|error| error.to_string())?;
            Webhook::parse(&form).map_err(|error| error.to_string())
        }
        Format::CloudEvent => events::parse(&webhook.form).map_err(|error| error.to_string()),
    }
}

#[derive(Default)]
struct Batch<'a> {
    projected: Vec<(&'a Pending, Vec<Observed>)>,
    set_aside: Vec<(&'a Pending, String)>,
}

impl<'a> Batch<'a> {
    fn read(webhooks: &'a [Pending]) -> Self {
        let mut batch = Self::default();
        for webhook in webhooks {
            match read(webhook) {
                Ok(observed) => batch.projected.push((webhook, observed)),
                Err(reason) => batch.set_aside.push((webhook, reason)),
            }
        }
        batch
    }

    fn take_observed(&mut self) -> impl Iterator<Item = Observed> {
        self.projected
            .iter_mut()
            .flat_map(|(_, observed)| std::mem::take(observed))
    }

    /// All at once; where the database refuses that, one by one, so that one bad webhook does not stop the others.
    async fn commit_changes(&mut self, conn: &mut PgConnection, now: Timestamp) -> Result<(), sqlx::Error> {
        let all: Vec<Observed> = self.take_observed().collect();
        match in_savepoint(conn, &all, now).await {
            Ok(()) => return Ok(()),
            Err(error) if is_passing(&error) => return Err(error),
            Err(_) => {}
        }
        let mut projected = Vec::with_capacity(self.projected.len());
        for (webhook, _) in self.projected.drain(..) {
            let refused = match read(webhook) {
                Ok(observed) => match in_savepoint(conn, &observed, now).await {
                    Ok(()) => None,
                    Err(error) if is_passing(&error) => return Err(error),
                    Err(error) => Some(refusal(&error)),
                },
                Err(reason) => Some(reason),
            };
            match refused {
                None => projected.push((webhook, Vec::new())),
                Some(reason) => self.set_aside.push((webhook, reason)),
            }
        }
        self.projected = projected;
        Ok(())
    }

    async fn settle(&self, conn: &mut PgConnection, now: Timestamp) -> Result<(), sqlx::Error> {
        self.set_aside_what_is_ill_formed(conn, now).await?;
        store::mark_projected(conn, self.settled(), now).await
    }

    fn settled(&self) -> impl Iterator<Item = &Pending> {
        self.projected.iter().map(|(webhook, _)| *webhook)
    }

    async fn set_aside_what_is_ill_formed(
        &self,
        conn: &mut PgConnection,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let mut entries = Vec::new();
        for (webhook, reason) in &self.set_aside {
            error!(webhook.id = webhook.webhook_id, reason = %reason, "set a webhook aside, a person has to look");
            metrics::counter!("hookswitch_webhooks_set_aside_total").increment(1);
            store::set_aside(conn, webhook, reason, now).await?;
            entries.push(set_aside_event(webhook, reason, now));
        }
        log::append(conn, &entries).await
    }
}

async fn in_savepoint(
    conn: &mut PgConnection,
    observed: &[Observed],
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if observed.is_empty() {
        return Ok(());
    }
    let mut savepoint = conn.begin().await?;
    let said_erased = projection::commit(&mut savepoint, observed, Via::Webhook, None, now).await?;
    erase::empty(&mut savepoint, &said_erased, now).await?;
    savepoint.commit().await
}

/// The database's reason without the values that it may quote.
fn refusal(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(error) => format!(
            "the database refused it: SQLSTATE {}{}",
            error.code().unwrap_or_default(),
            error
                .constraint()
                .map(|name| format!(", constraint {name}"))
                .unwrap_or_default(),
        ),
        _ => "the database refused it".to_owned(),
    }
}

fn set_aside_event(webhook: &Pending, reason: &str, now: Timestamp) -> NewEvent {
    NewEvent {
        kind: Kind::WebhookSetAside,
        account_sid: Some(webhook.account_sid.clone()),
        conversation_sid: webhook
            .conversation_sid
            .as_deref()
            .and_then(|sid| ConversationSid::try_from(sid).ok()),
        subject: format!("webhook:{}", webhook.webhook_id),
        actor: None,
        via: Via::Webhook,
        cause: Some(format!("webhook:{}", webhook.webhook_id)),
        occurred_at: now,
        recorded_at: now,
        data: serde_json::json!({ "event_type": webhook.event_type, "reason": reason }),
    }
}
