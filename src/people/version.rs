//! Replacing the version that somebody has seen, and no other. Pure.

use jiff::Timestamp;

/// Another version stands than the one that was to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("another version stands")]
pub struct VersionConflict {
    /// 0: there is none.
    pub version: i64,
    pub updated_at: Option<Timestamp>,
}

/// What a change comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replace<T> {
    /// It is so already: a repeat gets the answer of the first time, whatever version it was to replace.
    AlreadySo(T),
    /// What stands is to be replaced; none: it is added.
    Before(Option<T>),
}

/// Whether what stands may be replaced by somebody who has seen the version `seen`; `None`: whatever stands. `stands` tells a
/// version and since when it is.
pub fn replace<T>(
    before: Option<T>,
    is_so: impl FnOnce(&T) -> bool,
    seen: Option<i64>,
    stands: impl FnOnce(&T) -> (i64, Timestamp),
) -> Result<Replace<T>, VersionConflict> {
    match before {
        Some(before) if is_so(&before) => Ok(Replace::AlreadySo(before)),
        before => {
            let stands = before.as_ref().map(stands);
            let version = stands.map_or(0, |(version, _)| version);
            if seen.is_some_and(|seen| seen != version) {
                return Err(VersionConflict {
                    version,
                    updated_at: stands.map(|(_, at)| at),
                });
            }
            Ok(Replace::Before(before))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_version_that_was_seen_is_replaced_and_a_repeat_is_none() {
        let at: Timestamp = "2026-03-01T14:00:00Z".parse().unwrap();
        let put = |before: Option<&'static str>, seen| {
            replace(before, |before| *before == "new", seen, |_| (3, at))
        };
        assert_eq!(put(Some("old"), Some(3)), Ok(Replace::Before(Some("old"))));
        assert_eq!(put(Some("old"), None), Ok(Replace::Before(Some("old"))));
        assert_eq!(put(Some("new"), Some(2)), Ok(Replace::AlreadySo("new")));
        assert_eq!(put(None, Some(0)), Ok(Replace::Before(None)));
        let conflict = |version, updated_at| Err(VersionConflict { version, updated_at });
        assert_eq!(put(Some("old"), Some(2)), conflict(3, Some(at)));
        assert_eq!(put(None, Some(1)), conflict(0, None));
    }
}
