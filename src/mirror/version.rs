//! Which of two statements about one resource is the newer. Pure.
//!
//! Twilio gives no order of delivery, so every statement carries the source's own time: webhooks to the
//! millisecond, REST answers cut to the second. Two statements of the same second, of which one was cut, cannot be
//! ordered by looking at them; that is a [`Verdict::Tie`], and the caller reads the resource again.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};

/// When a statement about a resource became true at Twilio.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
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

    /// The version of a row that a read settled: the read came after what was stored, and its own time, cut to the
    /// second, cannot say so. Sources count milliseconds, so a microsecond collides with nothing.
    fn settled_by_read(stored: Self, read: Self) -> Self {
        Self {
            at: stored.at.max(read.at) + SignedDuration::from_micros(1),
            exact: false,
        }
    }

    fn is_settled_by_read(self) -> bool {
        !self.exact && self.at.subsec_microsecond() % 1000 != 0
    }

    /// By time, as far as both times are known: one that is not exact lies between its `at` and the end of the second.
    pub fn cmp_known(self, other: Self) -> Ordering {
        let by_second = self.at.as_second().cmp(&other.at.as_second());
        by_second.then_with(|| match (self.exact, other.exact) {
            (true, true) => self.at.cmp(&other.at),
            (true, false) if self.at < other.at => Ordering::Less,
            (false, true) if self.at > other.at => Ordering::Greater,
            _ => Ordering::Equal,
        })
    }
}

/// A statement, weighed against what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weighed {
    pub verdict: Verdict,
    /// The version of the row from now on, if it takes the statement or not.
    pub row: Version,
    /// Where the statement stands among all that were made about the resource.
    pub statement: Version,
}

impl Stamp {
    /// Judges this statement against what is stored, and says when it counts from.
    ///
    /// `same_content` says whether both state the same, `settles` that this was read after the row had become what it is.
    pub fn weigh(self, stored: Self, same_content: bool, settles: bool) -> Weighed {
        let (stated, stored_version) = (self.version, stored.version);
        let weighed = |verdict, row, statement| Weighed {
            verdict,
            row,
            statement,
        };
        match self.against(stored, same_content) {
            Verdict::Tie if settles => {
                let settled = Version::settled_by_read(stored_version, stated);
                weighed(Verdict::Newer, settled, settled)
            }
            // In doubt until the next read; the row remembers up to when.
            Verdict::Tie if stated.exact && !stored_version.exact => {
                weighed(Verdict::Tie, Version::to_the_second(stated.at), stated)
            }
            // The next read, which says that what is stored is so after all that was in doubt.
            Verdict::Same if settles && !stored_version.exact && stored_version.at > stated.at => {
                let settled = if stored_version.is_settled_by_read() {
                    stored_version
                } else {
                    Version::settled_by_read(stored_version, stated)
                };
                weighed(Verdict::Same, settled, settled)
            }
            verdict @ (Verdict::Newer | Verdict::Refines) => weighed(verdict, stated, stated),
            verdict @ (Verdict::Tie | Verdict::Same | Verdict::Older) => {
                weighed(verdict, stored_version, stated)
            }
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
        let just_after = stamp("2026-01-02T03:04:05.678001Z", false, false).version;
        let weighed = cut.weigh(exact, false, true);
        assert_eq!((weighed.verdict, weighed.row), (Verdict::Newer, just_after));
        assert_eq!(cut.weigh(exact, false, false).verdict, Verdict::Tie);
        // Reading it again says nothing new.
        let settled = Stamp {
            version: just_after,
            removed: false,
        };
        let again = cut.weigh(settled, true, true);
        assert_eq!(
            (again.verdict, again.row, again.statement),
            (Verdict::Same, just_after, just_after)
        );
    }

    #[test]
    fn a_read_is_later_than_what_it_settled_whatever_comes_late() {
        let settled = stamp("2026-01-02T03:04:05.678001Z", false, false);
        let older = stamp("2026-01-02T03:04:05.100Z", true, false);
        let newer = stamp("2026-01-02T03:04:05.900Z", true, false);
        assert_eq!(older.weigh(settled, true, false).verdict, Verdict::Older);
        assert_eq!(older.weigh(settled, false, false).verdict, Verdict::Older);
        assert_eq!(newer.weigh(settled, false, false).verdict, Verdict::Tie);
        let refined = newer.weigh(settled, true, false);
        assert_eq!((refined.verdict, refined.row), (Verdict::Refines, newer.version));
    }

    #[test]
    fn a_read_that_finds_what_was_doubted_as_it_was_stands_after_the_doubt() {
        let read = stamp("2026-01-02T03:04:05Z", false, false);
        let differs = stamp("2026-01-02T03:04:05.678Z", true, false);
        let doubted = differs.weigh(read, false, false);
        assert_eq!(doubted.verdict, Verdict::Tie);
        let stored = Stamp {
            version: doubted.row,
            removed: false,
        };
        let again = read.weigh(stored, true, true);
        assert_eq!(
            (again.verdict, again.statement),
            (
                Verdict::Same,
                stamp("2026-01-02T03:04:05.678001Z", false, false).version
            )
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
