//! Which of two statements about one resource is the newer. Pure.
//!
//! Twilio gives no order of delivery, so every statement carries the source's own time: webhooks to the
//! millisecond, REST answers cut to the second. Two statements of the same second, of which one was cut, cannot be
//! ordered by looking at them; that is a [`Verdict::Tie`], and the caller reads the resource again.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};

/// When a statement about a resource became true at Twilio.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Version {
    pub at: Timestamp,
    /// False when the source cut the time to whole seconds.
    pub exact: bool,
}

/// What a statement says, as far as ordering is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    pub version: Version,
    /// The statement says that the resource is gone.
    pub removed: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Take it.
    Newer,
    /// It says what is known already, with a better time.
    Refines,
    /// It says what is known already.
    Same,
    /// What is stored is newer.
    Older,
    /// They differ, and their times do not tell which is newer.
    Tie,
}

impl Version {
    pub fn exact(at: Timestamp) -> Self {
        Self { at, exact: true }
    }

    pub fn to_the_second(at: Timestamp) -> Self {
        Self { at, exact: false }
    }

    /// The version of a row that a read settled: the read came after what was stored and differed from it, and its own
    /// time, cut to the second, cannot say so. Sources count milliseconds, so a microsecond collides with nothing.
    pub fn settled_by_read(stored: Self, read: Self) -> Self {
        Self {
            at: stored.at.max(read.at) + SignedDuration::from_micros(1),
            exact: false,
        }
    }

    /// By time, as far as both times are known.
    pub fn cmp_known(self, other: Self) -> Ordering {
        if self.exact && other.exact {
            self.at.cmp(&other.at)
        } else {
            self.at.as_second().cmp(&other.at.as_second())
        }
    }
}

impl Stamp {
    /// Judges this statement against what is stored, and says which version the row has if it is taken.
    ///
    /// `same_content` says whether both state the same, `settles` that this was read after the row had become what it is.
    pub fn weigh(self, stored: Self, same_content: bool, settles: bool) -> (Verdict, Version) {
        match self.against(stored, same_content) {
            Verdict::Tie if settles => (
                Verdict::Newer,
                Version::settled_by_read(stored.version, self.version),
            ),
            // An older statement of what became so again later must not move the row back in time.
            Verdict::Refines if self.version.at < stored.version.at => (Verdict::Same, stored.version),
            verdict => (verdict, self.version),
        }
    }

    /// Judges this statement against what is stored; `same_content` says whether both state the same.
    pub fn against(self, stored: Self, same_content: bool) -> Verdict {
        match self.version.cmp_known(stored.version) {
            Ordering::Greater => Verdict::Newer,
            Ordering::Less => Verdict::Older,
            // A SID never comes back, so of two statements of one instant the removal is the later.
            Ordering::Equal if self.removed != stored.removed => {
                if self.removed {
                    Verdict::Newer
                } else {
                    Verdict::Older
                }
            }
            Ordering::Equal if same_content && self.version.exact && !stored.version.exact => {
                Verdict::Refines
            }
            Ordering::Equal if same_content => Verdict::Same,
            Ordering::Equal => Verdict::Tie,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(at: &str, exact: bool, removed: bool) -> Stamp {
        Stamp {
            version: Version {
                at: at.parse().unwrap(),
                exact,
            },
            removed,
        }
    }

    #[test]
    fn the_source_s_time_decides() {
        let early = stamp("2026-01-02T03:04:05.100Z", true, false);
        let late = stamp("2026-01-02T03:04:05.200Z", true, false);
        assert_eq!(late.against(early, false), Verdict::Newer);
        assert_eq!(early.against(late, false), Verdict::Older);
    }

    #[test]
    fn times_cut_to_the_second_tie_within_it_and_only_there() {
        let exact = stamp("2026-01-02T03:04:05.678Z", true, false);
        let cut = stamp("2026-01-02T03:04:05Z", false, false);
        let next = stamp("2026-01-02T03:04:06Z", false, false);
        assert_eq!(cut.against(exact, false), Verdict::Tie);
        assert_eq!(exact.against(cut, false), Verdict::Tie);
        assert_eq!(next.against(exact, false), Verdict::Newer);
        assert_eq!(exact.against(next, false), Verdict::Older);
    }

    #[test]
    fn the_same_statement_with_a_better_time_refines() {
        let exact = stamp("2026-01-02T03:04:05.678Z", true, false);
        let cut = stamp("2026-01-02T03:04:05Z", false, false);
        assert_eq!(exact.against(cut, true), Verdict::Refines);
        assert_eq!(cut.against(exact, true), Verdict::Same);
    }

    #[test]
    fn a_read_that_settles_a_tie_stands_just_after_what_it_settles() {
        let exact = stamp("2026-01-02T03:04:05.678Z", true, false);
        let cut = stamp("2026-01-02T03:04:05Z", false, false);
        let (verdict, version) = cut.weigh(exact, false, true);
        assert_eq!(verdict, Verdict::Newer);
        assert_eq!(
            version,
            stamp("2026-01-02T03:04:05.678001Z", false, false).version
        );
        assert_eq!(cut.weigh(exact, false, false).0, Verdict::Tie);
    }

    #[test]
    fn an_older_statement_of_the_same_does_not_move_a_settled_row_back() {
        let settled = stamp("2026-01-02T03:04:05.678001Z", false, false);
        let older = stamp("2026-01-02T03:04:05.100Z", true, false);
        let newer = stamp("2026-01-02T03:04:05.900Z", true, false);
        assert_eq!(
            older.weigh(settled, true, false),
            (Verdict::Same, settled.version)
        );
        assert_eq!(
            newer.weigh(settled, true, false),
            (Verdict::Refines, newer.version)
        );
    }

    #[test]
    fn a_removal_beats_a_statement_of_the_same_instant_and_no_older_one_undoes_it() {
        let gone = stamp("2026-01-02T03:04:05.678Z", true, true);
        let there = stamp("2026-01-02T03:04:05.678Z", true, false);
        let before = stamp("2026-01-02T03:04:05.677Z", true, false);
        assert_eq!(gone.against(there, false), Verdict::Newer);
        assert_eq!(there.against(gone, false), Verdict::Older);
        assert_eq!(before.against(gone, false), Verdict::Older);
    }
}
