//! Whether a text has one of some words: whole words, upper or lower case, in any script. Pure.

/// A word, or several that follow each other.
#[derive(Clone, PartialEq, Eq)]
pub struct Phrase(Vec<String>);

/// Somebody's words do not print.
impl std::fmt::Debug for Phrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Phrase(…)")
    }
}

/// None: there is no word in it.
pub fn phrase(text: &str) -> Option<Phrase> {
    let words = words(text);
    (!words.is_empty()).then_some(Phrase(words))
}

/// Whether one of the phrases is in the text: which, by its place.
pub fn find(text: &str, phrases: &[Phrase]) -> Option<usize> {
    let words = words(text);
    phrases
        .iter()
        .position(|Phrase(phrase)| words.windows(phrase.len()).any(|some| some == phrase))
}

/// The words of a text, each folded. A script that is written without spaces has no words that could be told apart: there,
/// each letter counts as one.
fn words(text: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    let mut inside = false;
    for letter in text.chars() {
        if stands_alone(letter) {
            words.push(letter.to_string());
            inside = false;
        } else if letter.is_alphanumeric() || is_mark(letter) {
            // In capitals, ß is SS, and final sigma is no other letter.
            let folded = letter.to_uppercase().flat_map(char::to_lowercase);
            match words.last_mut().filter(|_| inside) {
                Some(word) => word.extend(folded),
                None => words.push(folded.collect()),
            }
            inside = true;
        } else if !matches!(
            letter,
            '\u{ad}' | '\u{200b}'..='\u{200d}' | '\u{2060}' | '\u{feff}'
        ) {
            inside = false;
        }
    }
    words
}

/// An accent that is written after its letter.
fn is_mark(letter: char) -> bool {
    matches!(letter, '\u{300}'..='\u{36f}' | '\u{1ab0}'..='\u{1aff}' | '\u{20d0}'..='\u{20ff}')
}

/// Han, Kana, Thai, Lao, Khmer and Burmese letters.
fn stands_alone(letter: char) -> bool {
    matches!(letter, '\u{e01}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1780}'..='\u{17ff}'
        | '\u{3041}'..='\u{30ff}' | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3134f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(text: &str, wanted: &str) -> bool {
        find(text, &[phrase(wanted).unwrap()]).is_some()
    }

    #[test]
    fn whole_words_are_found_in_any_case() {
        assert!(has("I will call my LAWYER!", "lawyer"));
        assert!(has("lawyer's", "Lawyer"));
        assert!(!has("lawyers", "lawyer"), "not a part of one");
        assert!(!has("outlawyer", "lawyer"));
        assert!(has("Can I speak\nto a... manager?", "speak to a manager"));
        assert!(!has("speak to manager", "speak to a manager"));
        assert!(has("don’t", "don't"), "however an apostrophe is written");
    }

    #[test]
    fn other_scripts_have_words_too() {
        assert!(has("Звоню АДВОКАТУ", "адвокату"));
        assert!(has("SCHLIESSEN Sie die STRASSE", "straße"));
        assert!(has("ο ΔΙΚΗΓΟΡΟΣ", "δικηγορος"));
        assert!(
            has("我要找律师。", "律师"),
            "between letters, where there are no spaces"
        );
        assert!(!has("我要找律。师", "律师x"));
        assert!(has("caf\u{e9}", "CAF\u{c9}"));
        assert!(has("law\u{ad}yer", "lawyer"), "a hyphen that is not seen");
    }

    #[test]
    fn no_word_is_no_phrase_and_which_one_was_found_is_told() {
        assert!(phrase("?! …").is_none());
        let both = [phrase("refund").unwrap(), phrase("court").unwrap()];
        assert_eq!(find("see you in court", &both), Some(1));
        assert_eq!(find("", &both), None);
    }
}
