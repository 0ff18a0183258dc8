//! The only place that asks what time it is.
//!
//! Everything else is handed a [`Clock`], so that a test can stand still or move on by hand.

use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};

/// A source of the current time, cheap to clone; all clones of a fixed clock move together.
///
/// Times are cut to microseconds, which is what PostgreSQL keeps: a value read back equals the value written.
#[derive(Clone, Debug)]
pub struct Clock(Source);

#[derive(Clone, Debug)]
enum Source {
    System,
    Fixed(Arc<Mutex<Timestamp>>),
    /// The machine's clock and what it is ahead.
    Ahead(Arc<Mutex<SignedDuration>>),
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that stands at `at` until [`Clock::advance`] moves it.
    pub fn fixed(at: Timestamp) -> Self {
        Self(Source::Fixed(Arc::new(Mutex::new(to_micros(at)))))
    }

    /// The machine's clock, until [`Clock::advance`] puts it ahead. For tests in which two changes of one thing must
    /// not fall into one instant.
    pub fn ahead() -> Self {
        Self(Source::Ahead(Arc::new(Mutex::new(SignedDuration::ZERO))))
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => machine_now(),
            Source::Fixed(at) => *at.lock().expect("no holder of this lock panics"),
            Source::Ahead(by) => machine_now() + *by.lock().expect("no holder of this lock panics"),
        }
    }

    /// Moves the clock on; the system clock is not ours to move, and stays.
    pub fn advance(&self, by: SignedDuration) {
        match &self.0 {
            Source::System => {}
            Source::Fixed(at) => *at.lock().expect("no holder of this lock panics") += by,
            Source::Ahead(ahead) => *ahead.lock().expect("no holder of this lock panics") += by,
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "this is the one caller")]
fn machine_now() -> Timestamp {
    to_micros(Timestamp::now())
}

fn to_micros(at: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(at.as_microsecond()).expect("a timestamp's own microseconds are in range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clones_of_a_fixed_clock_move_together() {
        let clock = Clock::fixed("2026-01-02T03:04:05.678Z".parse().unwrap());
        let other = clock.clone();
        clock.advance(SignedDuration::from_secs(2));
        assert_eq!(other.now().to_string(), "2026-01-02T03:04:07.678Z");
    }

    #[test]
    fn the_system_clock_has_microseconds() {
        assert_eq!(Clock::system().now().subsec_nanosecond() % 1000, 0);
    }
}
