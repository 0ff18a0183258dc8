//! How long to wait before the next attempt. Pure.

use jiff::SignedDuration;

const FIRST_MS: i64 = 500;
const MAX_MS: i64 = 10 * 60 * 1000;

/// The delay after the given number of attempts: doubling from half a second to ten minutes, of which a random part
/// between a half and the whole is taken. `jitter` is from 0 to 1.
pub fn backoff(attempts: i32, jitter: f64) -> SignedDuration {
    let doublings = u32::try_from(attempts.saturating_sub(1)).unwrap_or(0).min(20);
    let whole_ms = FIRST_MS.saturating_mul(1 << doublings).min(MAX_MS);
    let half = SignedDuration::from_millis(whole_ms / 2);
    half + half.mul_f64_or_whole(jitter)
}

trait Scale {
    fn mul_f64_or_whole(self, factor: f64) -> Self;
}

impl Scale for SignedDuration {
    fn mul_f64_or_whole(self, factor: f64) -> Self {
        SignedDuration::try_from_secs_f64(self.as_secs_f64() * factor.clamp(0.0, 1.0)).unwrap_or(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_up_to_ten_minutes_and_spread_over_their_upper_half() {
        assert_eq!(backoff(1, 1.0), SignedDuration::from_millis(500));
        assert_eq!(backoff(1, 0.0), SignedDuration::from_millis(250));
        assert_eq!(backoff(3, 1.0), SignedDuration::from_secs(2));
        assert_eq!(backoff(40, 1.0), SignedDuration::from_mins(10));
        assert_eq!(backoff(i32::MAX, 0.0), SignedDuration::from_mins(5));
        assert_eq!(backoff(0, 0.0), SignedDuration::from_millis(250));
    }
}
