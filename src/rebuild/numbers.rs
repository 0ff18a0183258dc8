//! Which numbers of statements have been seen. Pure.
//!
//! A number is drawn before its transaction commits, so a higher one may be seen first; and one whose transaction was
//! rolled back is never seen. Between the numbers that were seen there are gaps, each looked into again at every reading,
//! until no transaction is left that could fill it.

/// The numbers seen so far: all up to `to`, but for the gaps.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    to: i64,
    /// First and last, in order.
    gaps: Vec<(i64, i64)>,
}

impl Seen {
    /// The highest number seen.
    pub(super) fn to(&self) -> i64 {
        self.to
    }

    pub(super) fn gaps(&self) -> (Vec<i64>, Vec<i64>) {
        self.gaps.iter().copied().unzip()
    }

    /// Notes a number, wherever it lies.
    pub(super) fn note(&mut self, number: i64) {
        if number > self.to {
            if number > self.to + 1 {
                self.gaps.push((self.to + 1, number - 1));
            }
            self.to = number;
            return;
        }
        let Some(at) = self
            .gaps
            .iter()
            .position(|(first, last)| (*first..=*last).contains(&number))
        else {
            return;
        };
        let (first, last) = self.gaps[at];
        let rest = [(first, number - 1), (number + 1, last)];
        self.gaps
            .splice(at..=at, rest.into_iter().filter(|(first, last)| first <= last));
    }

    /// Nothing comes any more at or below `decided`.
    pub(super) fn close_gaps(&mut self, decided: i64) {
        self.gaps.retain(|(_, last)| *last > decided);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn gaps_open_fill_and_close() {
        let mut seen = Seen::default();
        for number in [1, 2, 5, 9] {
            seen.note(number);
        }
        assert_eq!((seen.to(), seen.gaps()), (9, (vec![3, 6], vec![4, 8])));
        seen.note(7);
        assert_eq!(seen.gaps(), (vec![3, 6, 8], vec![4, 6, 8]));
        seen.note(3);
        seen.note(4);
        assert_eq!(seen.gaps(), (vec![6, 8], vec![6, 8]));
        seen.close_gaps(6);
        assert_eq!(seen.gaps(), (vec![8], vec![8]));
        seen.note(9);
        assert_eq!(seen.gaps(), (vec![8], vec![8]), "known already");
    }

    proptest! {
        #[test]
        fn what_was_not_seen_is_in_a_gap_or_above(numbers in prop::collection::vec(1i64..60, 0..40)) {
            let mut seen = Seen::default();
            for number in &numbers {
                seen.note(*number);
            }
            let (first, last) = seen.gaps();
            for number in 1..60 {
                let open = number > seen.to() || first.iter().zip(&last).any(|(first, last)| (*first..=*last).contains(&number));
                prop_assert_eq!(open, !numbers.contains(&number));
            }
        }
    }
}
