//! Finding the lines of a plan: asks Twilio, compares with the ledger, has read what is in doubt, and decides.

use jiff::SignedDuration;

use crate::events::Kind;
use crate::handover::assign::assign;
use crate::handover::tell::tell_counts;
use crate::handover::work::Next;
use crate::handover::{Handover, Handovers, Phase, State, US, enumerate, store};
use crate::ids::AccountSid;
use crate::projection::read::Failure;
use crate::{ledger, mirror, twilio};

/// Between two looks whether what is in doubt has been read.
const LOOK_AGAIN: SignedDuration = SignedDuration::from_secs(1);
/// After so long a read is asked for anew.
const ASK_AGAIN: SignedDuration = SignedDuration::from_mins(1);
/// What a plan waits for then, in place of an error of its own.
const UNREAD: &str = "conversations_unread";

impl Handovers {
    /// Asks Twilio for the lines, and takes those that the plan does not have yet.
    pub(super) async fn list(&self, plan: &Handover) -> Result<Next, Failure> {
        let seats = match enumerate::seats(&self.accounts, &plan.leaver).await {
            Ok(seats) => seats,
            Err(error) => {
                self.note_waiting(plan, &error).await?;
                return Err(error.into());
            }
        };
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let Some(mut plan) = self.still(&mut transaction, plan).await? else {
            return Ok(Next::Again);
        };
        let held = ledger::held_by(&mut transaction, plan.leaver.as_str()).await?;
        let mut found = enumerate::compare(held, &seats);
        for one in &mut found {
            // Nobody can read it; it stays, and is named.
            one.is_in_doubt &= self.accounts.get(&one.account_sid).is_some();
        }
        let is_later = plan.state == State::Running;
        let new = store::insert_found(&mut transaction, plan.handover_id, &found, is_later, now).await?;
        for one in new.iter().filter(|one| one.is_in_doubt) {
            if let Ok(account_sid) = AccountSid::try_from(one.account_sid.as_str()) {
                let sid = &one.conversation_sid;
                mirror::put_read(&mut transaction, &account_sid, sid, None, now, now).await?;
            }
        }
        plan.phase = Phase::Reading;
        plan.listed_at = Some(now);
        plan.updated_at = now;
        (plan.waiting_error, plan.waiting_since) = (None, None);
        store::update(&mut transaction, &plan).await?;
        transaction.commit().await?;
        Ok(Next::Again)
    }

    /// Waits until what is in doubt has been read, then decides to whom each line goes.
    pub(super) async fn read(&self, plan: &Handover) -> Result<Next, Failure> {
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        let Some(mut plan) = self.still(&mut transaction, plan).await? else {
            return Ok(Next::Again);
        };
        let accounts: Vec<&str> = self
            .accounts
            .iter()
            .map(|account| account.account_sid.as_str())
            .collect();
        let doubts = store::settle_doubts(&mut transaction, plan.handover_id, &accounts, now).await?;
        if doubts > 0 {
            if now.duration_since(plan.updated_at) >= ASK_AGAIN {
                for (account_sid, sid) in store::ask_again(&mut transaction, plan.handover_id).await? {
                    if let Ok(account_sid) = AccountSid::try_from(account_sid.as_str()) {
                        mirror::put_read(&mut transaction, &account_sid, &sid, None, now, now).await?;
                    }
                }
                plan.waiting_since = plan.waiting_since.or(plan.listed_at).or(Some(now));
                plan.waiting_error = Some(UNREAD.to_owned());
                plan.updated_at = now;
                store::update(&mut transaction, &plan).await?;
            }
            transaction.commit().await?;
            return Ok(Next::Wait(LOOK_AGAIN));
        }
        (plan.waiting_error, plan.waiting_since) = (None, None);
        assign(&mut transaction, &plan, &self.accounts, now).await?;
        let counts = store::counts(&mut transaction, plan.handover_id).await?;
        plan.phase = Phase::Giving;
        plan.updated_at = now;
        let reached = if plan.state == State::Planning {
            Some((State::Draft, Kind::HandoverPlanned))
        } else if counts.waiting == 0 && counts.under_way() == 0 {
            // It looked again at its end, and there is nothing more to give.
            plan.finished_at = Some(now);
            Some((State::Completed, Kind::HandoverCompleted))
        } else {
            None
        };
        if let Some((state, kind)) = reached {
            plan.state = state;
            plan.change(US, now);
            tell_counts(&mut transaction, &plan, kind, plan.by_worker(), now).await?;
        }
        store::update(&mut transaction, &plan).await?;
        transaction.commit().await?;
        Ok(Next::Again)
    }

    /// The plan, locked, if nothing was done about it since it was looked at.
    async fn still(
        &self,
        conn: &mut sqlx::PgConnection,
        seen: &Handover,
    ) -> Result<Option<Handover>, sqlx::Error> {
        let plan = store::lock(conn, seen.handover_id).await?;
        Ok(plan.filter(|plan| {
            (plan.state, plan.direction, plan.phase) == (seen.state, seen.direction, seen.phase)
        }))
    }

    /// Writes down what Twilio answered, so that the people concerned see why nothing goes on.
    async fn note_waiting(&self, seen: &Handover, error: &twilio::Error) -> Result<(), sqlx::Error> {
        let label = error.label();
        if seen.waiting_error.as_deref() == Some(label.as_str()) {
            return Ok(());
        }
        let mut transaction = self.pool.begin().await?;
        if let Some(mut plan) = self.still(&mut transaction, seen).await? {
            plan.waiting_since = plan.waiting_since.or(Some(self.clock.now()));
            plan.waiting_error = Some(label);
            store::update(&mut transaction, &plan).await?;
        }
        transaction.commit().await
    }
}
