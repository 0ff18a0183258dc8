//! Sweeps that come by themselves: one loop for each account, in every process that works; the run's lease lets one of
//! them through.
//!
//! These are not tasks of the queue, whose runs are short and end: what a sweep has to keep is in its run.

use std::time::Duration;

use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::accounts::Account;
use crate::sweep::{Error, Run, RunState, Sweeper, store};
use crate::twilio;

/// Between two looks whether a sweep is due, and after a sweep that stopped, at first.
const PAUSE: Duration = Duration::from_secs(15);
/// After many that stopped.
const PAUSE_MAX: Duration = Duration::from_mins(5);

impl Sweeper {
    /// Sweeps an account whenever that is due, until cancelled. A sweep under way is left where it is, and goes on in the
    /// next process.
    pub async fn keep_sweeping(self, account: Account, cancel: CancellationToken) {
        if self.interval.is_zero() {
            return;
        }
        let mut pause = PAUSE;
        loop {
            let swept = cancel.run_until_cancelled(self.sweep_if_due(&account)).await;
            pause = match swept {
                None => return,
                Some(Ok(_)) => PAUSE,
                Some(Err(error)) => {
                    let next = pause_after(&error, pause);
                    let (account_sid, seconds) = (&account.account_sid, next.as_secs());
                    if matches!(error, Error::Busy(_)) {
                        info!(account.sid = %account_sid, "another process sweeps the account");
                    } else {
                        warn!(
                            account.sid = %account_sid,
                            error = &error as &dyn std::error::Error,
                            "the sweep of the account stopped, going on with it in {seconds} s"
                        );
                    }
                    next
                }
            };
            if cancel
                .run_until_cancelled(tokio::time::sleep(pause))
                .await
                .is_none()
            {
                return;
            }
        }
    }

    /// Goes on with the account's sweep if one was not finished, or begins one if the last is older than the interval.
    pub async fn sweep_if_due(&self, account: &Account) -> Result<Option<Run>, Error> {
        let mut conn = self.pool.acquire().await?;
        let newest = store::newest(&mut conn, account.account_sid.as_str()).await?;
        drop(conn);
        let is_due = newest.is_none_or(|run| {
            run.state == RunState::Running || run.started_at + self.interval <= self.clock.now()
        });
        if !is_due {
            return Ok(None);
        }
        let run = Box::pin(self.sweep(account, false, &mut |_| ())).await?;
        Ok(Some(run))
    }
}

fn pause_after(error: &Error, last: Duration) -> Duration {
    match error {
        Error::Busy(left) => positive(*left),
        Error::Twilio(twilio::Error::Throttled {
            retry_after: Some(asked),
            ..
        }) => (*asked).clamp(PAUSE, PAUSE_MAX),
        Error::Twilio(_) | Error::Database(_) | Error::LeaseLost => (last * 2).min(PAUSE_MAX),
    }
}

fn positive(left: SignedDuration) -> Duration {
    Duration::try_from(left)
        .unwrap_or(PAUSE)
        .clamp(Duration::from_secs(1), PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_five_minutes_and_a_throttle_says_how_long() {
        let lost = Error::LeaseLost;
        assert_eq!(pause_after(&lost, PAUSE), Duration::from_secs(30));
        assert_eq!(pause_after(&lost, PAUSE_MAX), PAUSE_MAX);
        let throttled = Error::Twilio(twilio::Error::Throttled {
            retry_after: Some(Duration::from_secs(40)),
            code: None,
            status: 429,
        });
        assert_eq!(pause_after(&throttled, PAUSE_MAX), Duration::from_secs(40));
        assert_eq!(
            pause_after(&Error::Busy(SignedDuration::from_secs(70)), PAUSE),
            Duration::from_secs(70)
        );
        assert_eq!(
            pause_after(&Error::Busy(SignedDuration::from_secs(-1)), PAUSE),
            PAUSE
        );
    }
}
