//! How many requests sweeps may make: never more than the limit within any minute, for each account.
//!
//! Counted in the process. Sweeps of one account run in one process at a time, so that this is the account's budget;
//! a call that the client tries again counts once.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::ids::AccountSid;

/// What sweeps may ask of Twilio. Clones share what is spent.
#[derive(Debug, Clone)]
pub struct Budget {
    limit: usize,
    per: Duration,
    spent: Arc<Mutex<BTreeMap<AccountSid, Window>>>,
}

impl Budget {
    pub fn per_minute(limit: u32) -> Self {
        Self::new(limit, Duration::from_mins(1))
    }

    /// At most `limit` requests, and at least one, in any stretch of time of the length `per`.
    pub fn new(limit: u32, per: Duration) -> Self {
        Self {
            limit: usize::try_from(limit.max(1)).unwrap_or(usize::MAX),
            per,
            spent: Arc::default(),
        }
    }

    /// Takes one request if there is one to be had, or says how long to wait before asking again.
    pub(super) fn take(&self, account: &AccountSid, now: Instant) -> Result<(), Duration> {
        let mut spent = self.spent.lock().unwrap_or_else(PoisonError::into_inner);
        let window = spent.entry(account.clone()).or_default();
        window.take(self.limit, self.per, now)
    }
}

/// When the last requests were made, the oldest first; as many as the limit at most.
#[derive(Debug, Default)]
struct Window(VecDeque<Instant>);

impl Window {
    fn take(&mut self, limit: usize, per: Duration, now: Instant) -> Result<(), Duration> {
        if let Some(oldest) = self.0.front().copied().filter(|_| self.0.len() >= limit) {
            let age = now.saturating_duration_since(oldest);
            if age < per {
                return Err(per.saturating_sub(age));
            }
            self.0.pop_front();
        }
        self.0.push_back(now);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_minute_has_more_requests_than_the_limit() {
        let start = Instant::now();
        let mut window = Window::default();
        let mut made = Vec::new();
        let mut now = start;
        while made.len() < 50 {
            match window.take(7, Duration::from_mins(1), now) {
                Ok(()) => {
                    made.push(now);
                    now += Duration::from_millis(1_300);
                }
                Err(wait) => {
                    assert!(!wait.is_zero());
                    now += wait;
                }
            }
        }
        for pair in made.windows(8) {
            assert!(pair[7].duration_since(pair[0]) >= Duration::from_mins(1));
        }
        let least = Duration::from_mins(6);
        assert!(
            now.duration_since(start) < least + Duration::from_mins(2),
            "it waits no longer than it must"
        );
    }

    #[test]
    fn accounts_do_not_share_a_budget_and_clones_do() {
        let one = "AC00000000000000000000000000000001".parse().unwrap();
        let other = "AC00000000000000000000000000000002".parse().unwrap();
        let budget = Budget::per_minute(1);
        let now = Instant::now();
        assert!(budget.take(&one, now).is_ok());
        assert!(budget.clone().take(&one, now).is_err());
        assert!(budget.take(&other, now).is_ok());
    }
}
