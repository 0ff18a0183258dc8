//! The words by which people opt out of messages, and in again. Pure.

/// A message that is nothing but such a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keyword {
    Stop,
    Start,
}

/// Twilio's defaults ("Support for opt-out keywords"), with those that US carriers ask for since 2025. In any case, with space
/// around them, and nothing else.
pub const STOP: &[&str] = &[
    "stop",
    "stopall",
    "unsubscribe",
    "cancel",
    "end",
    "quit",
    "optout",
    "revoke",
];
pub const START: &[&str] = &["start", "yes", "unstop"];

/// All that is space to [`str::trim`], for SQL.
pub const SPACE: &str = "\u{9}\u{a}\u{b}\u{c}\u{d} \u{85}\u{a0}\u{1680}\u{2000}\u{2001}\u{2002}\u{2003}\u{2004}\u{2005}\u{2006}\u{2007}\u{2008}\u{2009}\u{200a}\u{2028}\u{2029}\u{202f}\u{205f}\u{3000}";

/// No word is longer: what has more is looked at no further.
const LONGEST: usize = 11;

impl Keyword {
    pub fn of(body: &str) -> Option<Self> {
        let word = body.trim();
        if word.len() > LONGEST || word.len() < 3 {
            return None;
        }
        let is_among = |words: &[&str]| words.iter().any(|known| known.eq_ignore_ascii_case(word));
        if is_among(STOP) {
            Some(Self::Stop)
        } else if is_among(START) {
            Some(Self::Start)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn space_is_what_is_trimmed() {
        let space: String = (0..=u32::from(char::MAX))
            .filter_map(char::from_u32)
            .filter(|one| one.is_whitespace())
            .collect();
        assert_eq!(space, SPACE);
    }

    #[test]
    fn a_keyword_stands_alone_in_any_case() {
        for word in [
            "STOP",
            " stop\n",
            "StopAll",
            "unsubscribe",
            "Cancel",
            "END",
            "quit",
            "OPTOUT",
            "revoke",
        ] {
            assert_eq!(Keyword::of(word), Some(Keyword::Stop), "{word:?}");
        }
        for word in ["START", "yes ", "Unstop"] {
            assert_eq!(Keyword::of(word), Some(Keyword::Start), "{word:?}");
        }
        for other in [
            "",
            "no",
            "stop.",
            "please stop",
            "stop it",
            "ends",
            "HELP",
            "ＳＴＯＰ",
            "yes!",
        ] {
            assert_eq!(Keyword::of(other), None, "{other:?}");
        }
    }

    #[test]
    fn no_keyword_is_longer_than_what_is_looked_at() {
        assert!(
            STOP.iter()
                .chain(START)
                .all(|word| (3..=LONGEST).contains(&word.len()))
        );
    }
}
