//! What people write along with giving a line: why, what the next holder should know, and what they say to the group.

use crate::outbox::BODY_MAX;
use crate::web::field::{Errors, Field, Text};

/// A note may have so many bytes.
pub(super) const NOTE_MAX: usize = 4096;

/// What people write along with a transfer, or with all of a plan.
pub(super) struct Words {
    pub(super) reason: Option<String>,
    pub(super) note: Option<String>,
    pub(super) introduction: Option<String>,
}

/// Checks it.
pub(super) fn words(
    errors: &mut Errors,
    reason: Field<Text<1, 200>>,
    note: Field<Text<1, NOTE_MAX>>,
    introduction: Field<Text<1, BODY_MAX>>,
) -> Words {
    let reason = errors.optional("reason", reason).map(Text::into_string);
    let note = errors.optional("note", note).map(Text::into_string);
    if note.as_ref().is_some_and(|note| note.len() > NOTE_MAX) {
        errors.add("note", "malformed", format!("expected at most {NOTE_MAX} bytes"));
    }
    Words {
        reason,
        note,
        introduction: errors
            .optional("introduction", introduction)
            .map(Text::into_string),
    }
}
