//! Connection overrides: the fragment of a webhook's URL, such as `#rc=3&rp=all`, says how often to try again.
//!
//! Twilio: "Webhooks (HTTP callbacks): Connection Overrides". The fragment is neither sent nor signed.

use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Overrides {
    pub(crate) read: Duration,
    /// Over all attempts.
    pub(crate) total: Duration,
    pub(crate) retries: u32,
    /// The words of the retry policy, between commas.
    policy: String,
}

/// Why an attempt has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Failure {
    Connect,
    Read,
    Status(u16),
}

impl Overrides {
    /// Without a fragment nothing is tried twice: Conversations documents no retries. Values out of range count as
    /// absent.
    pub(crate) fn of(url: &str) -> Self {
        let fragment = url.split_once('#').map_or("", |(_, fragment)| fragment);
        let value = |wanted: &str| {
            fragment
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == wanted)
        };
        let millis = |key: &str, default: u64| {
            let given = value(key).and_then(|(_, text)| text.parse().ok());
            Duration::from_millis(given.filter(|ms| (100..=15_000).contains(ms)).unwrap_or(default))
        };
        let retries = value("rc")
            .and_then(|(_, text)| text.parse().ok())
            .filter(|&count| count <= 5);
        let policy = value("rp").map_or("ct", |(_, policy)| policy);
        Self {
            read: millis("rt", 15_000),
            total: millis("tt", 15_000),
            retries: retries.unwrap_or(0),
            policy: policy.to_owned(),
        }
    }

    pub(crate) fn retry_on(&self, failure: Failure) -> bool {
        let word = match failure {
            Failure::Connect => "ct",
            Failure::Read => "rt",
            Failure::Status(400..=499) => "4xx",
            Failure::Status(500..) => "5xx",
            Failure::Status(_) => return false,
        };
        self.policy
            .split(',')
            .any(|covered| covered == word || covered == "all")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_fragment_nothing_is_tried_twice() {
        assert_eq!(Overrides::of("https://example.com/hook").retries, 0);
        assert_eq!(Overrides::of("https://example.com/hook#rc=9").retries, 0);
    }

    #[test]
    fn the_policy_says_which_failures_are_tried_again() {
        let all = Overrides::of("https://example.com/#rc=3&rp=all&tt=2000");
        assert_eq!((all.retries, all.total), (3, Duration::from_secs(2)));
        assert!(all.retry_on(Failure::Status(503)) && all.retry_on(Failure::Read));
        let default = Overrides::of("https://example.com/#rc=1");
        assert!(default.retry_on(Failure::Connect));
        assert!(!default.retry_on(Failure::Status(500)));
        let some = Overrides::of("https://example.com/#rc=1&rp=5xx,rt");
        assert!(some.retry_on(Failure::Status(500)) && some.retry_on(Failure::Read));
        assert!(!some.retry_on(Failure::Status(429)) && !some.retry_on(Failure::Connect));
    }
}
