//! One run: through Twilio's list page by page, then through what the mirror has and the list did not.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use sqlx::PgConnection;
use tracing::{info, warn};

use crate::accounts::Account;
use crate::db::is_passing;
use crate::health::{Autocreating, SeenBy};
use crate::ids::ConversationSid;
use crate::mirror::{self, Observed, project};
use crate::sweep::compare::{self, Standing};
use crate::sweep::store::{self, Claim, Claimed, Ended, Known, Page};
use crate::sweep::{Error, Found, Run, RunState, Scope, Sweeper};
use crate::twilio;
use crate::twilio::conversations::ConversationFilter;
use crate::twilio::model;

/// How often a run shows that it is alive.
const BEAT: Duration = Duration::from_secs(10);
/// How often the log is told how far a run is.
const TELL: Duration = Duration::from_secs(30);
/// The most pages of conversations that one attempt follows, against a list that leads in a circle.
const PAGES_MAX: u32 = 20_000;
/// How many conversations that were not listed are taken at a time.
const BATCH: i64 = 100;

/// Told of every conversation that was looked at.
pub type Watch<'a> = &'a mut (dyn FnMut(&Run) + Send);

impl Sweeper {
    /// Sweeps an account to the end of the run: the one that was not finished, or a new one.
    ///
    /// With `everything`, all conversations are walked and all receipts read. An error leaves the run where it was, to be
    /// taken up again.
    pub async fn sweep(&self, account: &Account, everything: bool, watch: Watch<'_>) -> Result<Run, Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let claimed = store::claim(&mut transaction, &account.account_sid, everything, now).await?;
        transaction.commit().await?;
        let (claim, run) = match claimed {
            Claimed::Ours(claim, run) => (claim, *run),
            Claimed::Busy(left) => return Err(Error::Busy(left)),
        };
        info!(account.sid = %account.account_sid, sweep.id = %claim.sweep_run_id, "sweeping the account");
        let mut session = Session::new(self, account, claim, run);
        let outcome = session.go_to_the_end(watch).await;
        session.close(outcome).await
    }

    /// Walks some conversations of an account, whatever is known of them.
    pub async fn walk(
        &self,
        account: &Account,
        sids: &[ConversationSid],
        everything: bool,
        watch: Watch<'_>,
    ) -> Result<Run, Error> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let sid = &account.account_sid;
        let (claim, run) = store::begin(&mut transaction, sid, Scope::Conversations, everything, now).await?;
        transaction.commit().await?;
        let mut session = Session::new(self, account, claim, run);
        let outcome = session.walk_each(sids, watch).await;
        session.close(outcome).await
    }

    /// How many conversations of the account the mirror holds, for an estimate of how much there is to do.
    pub async fn held(&self, account: &Account) -> Result<i64, sqlx::Error> {
        store::held(&mut *self.pool.acquire().await?, account.account_sid.as_str()).await
    }
}

/// What to do about a listed conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Plan {
    Walk,
    Probe,
    LeaveAlone,
}

/// A run in the hands of this process.
pub(super) struct Session<'a> {
    pub(super) sweeper: &'a Sweeper,
    pub(super) account: &'a Account,
    pub(super) claim: Claim,
    pub(super) run: Run,
    /// Requests that are not yet written down.
    unwritten: i64,
    beaten: Instant,
    /// When the log was last told how far it is.
    told: Instant,
    /// What Twilio says of the account's numbers; asked once.
    autocreating: Option<Autocreating>,
}

impl<'a> Session<'a> {
    fn new(sweeper: &'a Sweeper, account: &'a Account, claim: Claim, run: Run) -> Self {
        Self {
            sweeper,
            account,
            claim,
            run,
            unwritten: 0,
            beaten: Instant::now(),
            told: Instant::now(),
            autocreating: None,
        }
    }

    /// Waits until a request may be made, alive all the while. Stands before every call to Twilio.
    pub(super) async fn request(&mut self) -> Result<(), Error> {
        while let Err(wait) = self
            .sweeper
            .budget
            .take(&self.account.account_sid, Instant::now())
        {
            tokio::time::sleep(wait.min(BEAT)).await;
            self.beat().await?;
        }
        self.unwritten += 1;
        metrics::counter!("hookswitch_sweep_requests_total").increment(1);
        self.beat().await
    }

    async fn beat(&mut self) -> Result<(), Error> {
        if self.beaten.elapsed() < BEAT {
            return Ok(());
        }
        let mut conn = self.sweeper.pool.acquire().await?;
        let now = self.sweeper.clock.now();
        if !store::beat(&mut conn, self.claim, self.unwritten, now).await? {
            return Err(Error::LeaseLost);
        }
        self.unwritten = 0;
        self.beaten = Instant::now();
        Ok(())
    }

    async fn go_to_the_end(&mut self, watch: Watch<'_>) -> Result<(), Error> {
        self.look_at_numbers().await?;
        self.through_the_list(watch).await?;
        self.through_the_unlisted(watch).await
    }

    /// What becomes of first messages to the account's numbers. Where Twilio does not tell, what was known stays.
    async fn look_at_numbers(&mut self) -> Result<(), Error> {
        let mut pages = self.account.client.list_address_configurations();
        let mut all = Vec::new();
        loop {
            self.request().await?;
            match pages.next().await {
                Ok(page) => all.extend(page.unwrap_or_default()),
                Err(error) if error.may_repeat() => return Err(error.into()),
                Err(error) => {
                    warn!(error = %error, "cannot read the account's address configurations");
                    return Ok(());
                }
            }
            if pages.position().is_none() {
                break;
            }
        }
        self.autocreating = Some(Autocreating::new(self.account, &all));
        Ok(())
    }

    async fn through_the_list(&mut self, watch: Watch<'_>) -> Result<(), Error> {
        let mut started_anew = false;
        for _ in 0..PAGES_MAX {
            let place = store::place(&mut *self.sweeper.pool.acquire().await?, self.claim).await?;
            if place.listed_all {
                return Ok(());
            }
            let resumed = place.position.is_some();
            match self.list(place.position.as_deref()).await {
                Ok((listed, next)) => {
                    self.look_at_page(&listed, watch).await?;
                    self.turn_to(next.as_deref().map_or(Page::None, Page::At)).await?;
                }
                // A place that was kept for long may no longer be one. What this run has looked at is not looked at again.
                Err(Error::Twilio(error)) if resumed && !started_anew && !error.may_repeat() => {
                    warn!(error = %error, "cannot go on in the list of conversations, reading it from its beginning");
                    started_anew = true;
                    self.turn_to(Page::First).await?;
                }
                Err(error) => return Err(error),
            }
        }
        let reason = "the list of conversations has more pages than can be".to_owned();
        Err(twilio::Error::Malformed { reason }.into())
    }

    async fn list(
        &mut self,
        position: Option<&str>,
    ) -> Result<(Vec<model::Conversation>, Option<String>), Error> {
        let mut pages = self
            .account
            .client
            .list_conversations(&ConversationFilter::default());
        if let Some(position) = position {
            pages = pages.resume(position)?;
        }
        self.request().await?;
        let listed = pages.next().await?.unwrap_or_default();
        Ok((listed, pages.position().map(str::to_owned)))
    }

    async fn turn_to(&mut self, page: Page<'_>) -> Result<(), Error> {
        let mut conn = self.sweeper.pool.acquire().await?;
        if store::turn_to(&mut conn, self.claim, page).await? {
            Ok(())
        } else {
            Err(Error::LeaseLost)
        }
    }

    async fn look_at_page(&mut self, listed: &[model::Conversation], watch: Watch<'_>) -> Result<(), Error> {
        let listed_at = self.sweeper.clock.now();
        let plans = self.plans(listed).await?;
        for (conversation, plan) in plans {
            let sid = &conversation.sid;
            let looked = match plan {
                Plan::Walk => Box::pin(self.walk(sid)).await,
                Plan::Probe => Box::pin(self.probe(conversation)).await,
                Plan::LeaveAlone => Ok(Some(Ended::LeftAlone { as_of: listed_at })),
            };
            self.record(sid, looked).await?;
            watch(&self.run);
        }
        Ok(())
    }

    /// What to do about each conversation of a page that this run has not looked at.
    async fn plans<'p>(
        &mut self,
        listed: &'p [model::Conversation],
    ) -> Result<Vec<(&'p model::Conversation, Plan)>, Error> {
        let now = self.sweeper.clock.now();
        let mut transaction = self.sweeper.pool.begin().await?;
        let sids: Vec<&str> = listed.iter().map(|one| one.sid.as_str()).collect();
        let known = store::known(&mut transaction, &sids).await?;
        let stored = listed
            .iter()
            .filter(|one| known.get(one.sid.as_str()).is_some_and(|known| known.stored));
        let heads = self.heads(stored);
        let standings = standings(&mut transaction, &heads, now).await?;
        // What was locked to be compared.
        transaction.rollback().await?;
        let this_run = Some(self.claim.sweep_run_id);
        let unknown = Known::default();
        Ok(listed
            .iter()
            .map(|one| (one, known.get(one.sid.as_str()).unwrap_or(&unknown)))
            .filter(|(_, known)| known.sweep_run_id != this_run)
            .map(|(one, known)| {
                let standing = standings.get(&one.sid).copied().unwrap_or(Standing::Missing);
                (one, self.plan(one, known, standing, now))
            })
            .collect())
    }

    fn plan(
        &self,
        listed: &model::Conversation,
        known: &Known,
        standing: Standing,
        now: jiff::Timestamp,
    ) -> Plan {
        let head_agrees = matches!(standing, Standing::Same | Standing::SameOfEarlier);
        let Some(walked_at) = known
            .walked_at
            .filter(|_| head_agrees && !known.in_doubt && !self.run.everything)
        else {
            return Plan::Walk;
        };
        // Receipts may come for a while after the end.
        let closed_for_good = listed.state == model::ConversationState::Closed
            && standing == Standing::Same
            && known
                .closed_at
                .is_some_and(|closed_at| walked_at.duration_since(closed_at) >= self.sweeper.full_after);
        if closed_for_good {
            Plan::LeaveAlone
        } else if now.duration_since(walked_at) >= self.sweeper.full_after {
            Plan::Walk
        } else {
            Plan::Probe
        }
    }

    fn heads<'l>(&self, listed: impl Iterator<Item = &'l model::Conversation>) -> Vec<Observed> {
        self.observed(listed.flat_map(project::conversation))
    }

    /// The conversations that the mirror has and the list did not: gone, or passed over while pages were turned.
    async fn through_the_unlisted(&mut self, watch: Watch<'_>) -> Result<(), Error> {
        let service_sid = self.account.client.settings().service_sid.clone();
        loop {
            let mut conn = self.sweeper.pool.acquire().await?;
            let sids = store::not_listed(&mut conn, &self.run, service_sid.as_str(), BATCH).await?;
            drop(conn);
            if sids.is_empty() {
                return Ok(());
            }
            self.walk_each(&sids, &mut *watch).await?;
        }
    }

    async fn walk_each(&mut self, sids: &[ConversationSid], watch: Watch<'_>) -> Result<(), Error> {
        for sid in sids {
            let looked = Box::pin(self.walk(sid)).await;
            self.record(sid, looked).await?;
            watch(&self.run);
        }
        Ok(())
    }

    /// Writes down what came of a look. What is wrong with one conversation alone does not stop the run; what is wrong
    /// with Twilio, the account or the database does.
    async fn record(
        &mut self,
        sid: &ConversationSid,
        looked: Result<Option<Ended>, Error>,
    ) -> Result<(), Error> {
        let ended = match looked {
            // It came and went between the list and the look.
            Ok(None) => return Ok(()),
            Ok(Some(ended)) => ended,
            Err(error) if concerns_one(&error) => {
                warn!(
                    conversation.sid = %sid,
                    error = &error as &dyn std::error::Error,
                    "cannot compare a conversation with Twilio"
                );
                Ended::Failed
            }
            Err(error) => return Err(error),
        };
        let mut transaction = self.sweeper.pool.begin().await?;
        if let Ended::Verified { as_of, .. } = ended {
            mirror::mark_verified_as_of(&mut transaction, sid, as_of).await?;
        }
        let numbers = self.autocreating.as_ref();
        let now = self.sweeper.clock.now();
        // One that is left alone was judged when its end was seen.
        if !matches!(ended, Ended::LeftAlone { .. }) {
            let health = &self.sweeper.health;
            health
                .examine_in(&mut transaction, sid, SeenBy::Sweep, numbers, now)
                .await?;
        }
        let account_sid = &self.account.account_sid;
        let run = store::record(&mut transaction, self.claim, account_sid, sid, ended).await?;
        self.run = run.ok_or(Error::LeaseLost)?;
        transaction.commit().await?;
        self.tell_progress();
        Ok(())
    }

    /// A line in the log now and then, so that a long sweep is seen to get on.
    fn tell_progress(&mut self) {
        if self.told.elapsed() < TELL {
            return;
        }
        self.told = Instant::now();
        let (run, conversations) = (&self.run, self.run.conversations());
        info!(
            account.sid = %run.account_sid, sweep.id = %run.sweep_run_id, conversations, run.requests, run.walked,
            run.failed, "swept {conversations} conversations so far, repaired {}", run.found.repaired()
        );
    }

    /// Ends the run, or lets go of it so that it can be taken up again at once.
    async fn close(&mut self, outcome: Result<(), Error>) -> Result<Run, Error> {
        let mut conn = self.sweeper.pool.acquire().await?;
        let now = self.sweeper.clock.now();
        match outcome {
            Ok(()) => {
                let run = store::finish(&mut conn, self.claim, self.unwritten, now).await?;
                let run = run.ok_or(Error::LeaseLost)?;
                tell(&run);
                Ok(run)
            }
            Err(error) => {
                let said = described(&error);
                store::release(&mut conn, self.claim, self.unwritten, Some(&said)).await?;
                Err(error)
            }
        }
    }

    /// What a read said, as the mirror takes it.
    pub(super) fn observed(&self, changes: impl IntoIterator<Item = mirror::Change>) -> Vec<Observed> {
        let cause = format!("sweep:{}", self.claim.sweep_run_id);
        changes
            .into_iter()
            .map(|change| Observed {
                account_sid: self.account.account_sid.clone(),
                change,
                cause: cause.clone(),
                source: None,
            })
            .collect()
    }
}

async fn standings(
    conn: &mut PgConnection,
    heads: &[Observed],
    now: jiff::Timestamp,
) -> Result<BTreeMap<ConversationSid, Standing>, sqlx::Error> {
    let stored = mirror::stored(conn, heads, now).await?;
    Ok(heads
        .iter()
        .filter_map(|head| {
            let sid = head.change.conversation_sid()?.clone();
            Some((sid, compare::standing(&stored, &head.change)))
        })
        .collect())
}

/// Whether the trouble is with one conversation, and others can be read all the same.
fn concerns_one(error: &Error) -> bool {
    match error {
        Error::Twilio(error) => matches!(
            error,
            twilio::Error::Malformed { .. } | twilio::Error::Rejected(_) | twilio::Error::NotFound { .. }
        ),
        Error::Database(error) => !is_passing(error),
        Error::Busy(_) | Error::LeaseLost => false,
    }
}

/// The error with its cause, for a person: neither has anybody's words or numbers.
fn described(error: &Error) -> String {
    match error {
        Error::Twilio(cause) => format!("{error}: {cause}"),
        // PostgreSQL may quote values.
        Error::Database(_) | Error::Busy(_) | Error::LeaseLost => error.to_string(),
    }
}

fn tell(run: &Run) {
    let Found {
        missing,
        stale,
        gone,
        extra,
    } = run.found;
    let (account, conversations) = (&run.account_sid, run.conversations());
    info!(
        account.sid = %account, sweep.id = %run.sweep_run_id, conversations, run.requests, run.walked, run.unsettled,
        run.failed, missing, stale, gone, extra,
        "swept {conversations} conversations, repaired {}", run.found.repaired()
    );
    for (kind, count) in [
        ("missing", missing),
        ("stale", stale),
        ("gone", gone),
        ("extra", extra),
    ] {
        metrics::counter!("hookswitch_sweep_found_total", "kind" => kind).increment(count.unsigned_abs());
    }
    if run.state == RunState::Incomplete {
        warn!(account.sid = %account, run.failed, "the sweep could not read every conversation, and does not count");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_conversation_that_cannot_be_read_does_not_stop_the_run_and_a_throttle_does() {
        let malformed = twilio::Error::Malformed {
            reason: "not what is expected".to_owned(),
        };
        let throttled = twilio::Error::Throttled {
            retry_after: None,
            code: Some(20429),
            status: 429,
        };
        let configuration = twilio::Error::Configuration {
            code: Some(20003),
            status: 401,
        };
        assert!(concerns_one(&malformed.into()));
        assert!(!concerns_one(&throttled.into()));
        assert!(!concerns_one(&configuration.into()));
        assert!(!concerns_one(&sqlx::Error::PoolTimedOut.into()));
        assert!(concerns_one(&sqlx::Error::RowNotFound.into()));
    }
}
