//! Which of two statements about one resource counts, and since when.

use jiff::Timestamp;

use crate::mirror::version::{Stamp, Verdict, Version, Weighed};

/// The change, its attributes spelled as in the row or the row's as in the change, where that is the only difference.
macro_rules! agree_on_spelling {
    ($row:ident, $change:ident) => {{
        let stated = $change
            .fields
            .as_ref()
            .and_then(|fields| fields.attributes.as_deref());
        let text = spelling::agreed(
            ($row.fields.attributes.as_deref(), Some($row.version)),
            (stated, $change.version),
        );
        if text.is_some() && $row.fields.attributes != text {
            $row.fields.attributes.clone_from(&text);
            $row.dirty = true;
        }
        spelling::respelled($change, text, |change, text| {
            if let Some(fields) = &mut change.fields {
                fields.attributes = Some(text);
            }
        })
    }};
}

/// Writes a verdict into the row of a participant or a message, and what it says no longer into its versions.
macro_rules! apply_judged {
    ($row:ident, $change:ident, $judged:ident, $key:expr, $versions:expr, $now:expr) => {
        let version_moves = $row.version != $judged.version;
        let removal_moves = $row.removed_at != $judged.removed_at;
        match ($judged.verdict, &$change.fields) {
            (_, Some(_)) if $judged.taken => {
                // Nothing was said where only the removal is known.
                if let Some(told) = $row.told.replace(Told::new($judged.version, $now))
                    && $row.fields != Default::default()
                {
                    $versions.push(Past {
                        key: $key.clone(),
                        version_at: $row.version.at,
                        told,
                        says: Says::Content($row.fields.clone()),
                    });
                }
            }
            (Verdict::Refines, _) => $row.told = $row.told.map(|told| told.refined($judged.version)),
            // What a read says of a moment that it cannot place is not kept, as in the ledger.
            (verdict @ (Verdict::Older | Verdict::Tie), Some(fields))
                if verdict == Verdict::Older || $change.version.exact =>
            {
                let says = Says::Content(fields.clone());
                $versions.push(Past::late($key.clone(), $change.version, $now, says));
            }
            (Verdict::Newer | Verdict::Same | Verdict::Older | Verdict::Tie, _) => {}
        }
        let known = note_removal(
            &mut $row.removed_at,
            &mut $row.removal_learnt_at,
            $judged.removed_at,
            $now,
        );
        if let Some(told) = known {
            $versions.push(Past {
                key: $key.clone(),
                version_at: told.stated_at,
                told,
                says: Says::Removed,
            });
        }
        $row.version = $judged.version;
        if let (true, Some(fields)) = ($judged.taken, &$change.fields) {
            $row.fields.clone_from(fields);
        }
        // A read that began before a doubt arose cannot settle it, so that the doubt is a new revision too.
        if $judged.taken || removal_moves || ($judged.doubt && $change.version.exact) {
            // Every change of content is a new revision, so that a reader can tell whether it read before it.
            $row.revision += 1;
            $row.dirty = true;
        } else if version_moves {
            $row.dirty = true;
        }
    };
}
pub(super) use {agree_on_spelling, apply_judged};

pub(super) fn stamp(version: Version) -> Stamp {
    Stamp {
        version,
        removed: false,
    }
}

/// What is stored of a resource that can be removed.
pub(super) struct Known<'a, F> {
    pub(super) fields: &'a F,
    pub(super) version: Version,
    pub(super) removed_at: Option<Timestamp>,
}

/// What a source says of it. A removal may come without the fields, where a read did not find it.
pub(super) struct Stated<'a, F> {
    pub(super) fields: Option<&'a F>,
    pub(super) version: Version,
    pub(super) removed: bool,
    pub(super) settles: bool,
}

/// What becomes of the row.
pub(super) struct Judged {
    pub(super) verdict: Verdict,
    /// The stated fields replace the stored ones.
    pub(super) taken: bool,
    pub(super) version: Version,
    pub(super) removed_at: Option<Timestamp>,
    /// Which is newer cannot be told, and a read has to.
    pub(super) doubt: bool,
    /// Where the statement stands among all others.
    pub(super) fact_version: Version,
}

/// The fields follow the newest statement of them; the removal is apart from that, and final: a SID never comes back, so
/// the earliest time of it counts, in whatever order both come.
pub(super) fn judge<F: Ord + Default>(known: &Known<'_, F>, stated: &Stated<'_, F>) -> Judged {
    let removed_at = match (known.removed_at, stated.removed) {
        (Some(at), true) => Some(earlier_of(at, stated.version.at)),
        (None, true) => Some(stated.version.at),
        (at, false) => at,
    };
    let judged = |weighed: Weighed| Judged {
        verdict: weighed.verdict,
        taken: weighed.verdict == Verdict::Newer,
        version: weighed.row,
        removed_at,
        doubt: false,
        fact_version: weighed.statement,
    };
    let Some(fields) = stated.fields else {
        return judged(Weighed {
            verdict: Verdict::Same,
            row: known.version,
            statement: stated.version,
        });
    };
    if *known.fields == F::default() {
        // Known by its removal alone.
        return judged(first(stated.version));
    }
    let weighed = Stamp {
        version: stated.version,
        removed: stated.removed,
    }
    .weigh(
        Stamp {
            version: known.version,
            removed: known.removed_at == Some(known.version.at),
        },
        known.fields == fields,
        stated.settles,
    );
    if weighed.verdict != Verdict::Tie {
        return judged(weighed);
    }
    Judged {
        taken: stated.version.exact && known.version.exact && fields > known.fields,
        doubt: removed_at.is_none(),
        ..judged(weighed)
    }
}

/// The first statement about a resource.
pub(super) fn first(version: Version) -> Weighed {
    Weighed {
        verdict: Verdict::Newer,
        row: version,
        statement: version,
    }
}

/// The earlier of two times of one thing, of which one may be cut to the second.
pub(super) fn earlier_of(one: Timestamp, other: Timestamp) -> Timestamp {
    if refines_time(Some(one), Some(other)) {
        other
    } else if refines_time(Some(other), Some(one)) {
        one
    } else {
        one.min(other)
    }
}

/// Webhooks give a time to the millisecond, REST to the second: whether `stated` says more than `stored`.
pub(super) fn refines_time(stored: Option<Timestamp>, stated: Option<Timestamp>) -> bool {
    match (stored, stated) {
        (None, Some(_)) => true,
        (Some(stored), Some(stated)) => {
            stored.as_second() == stated.as_second() && stored.subsec_nanosecond() == 0 && stated != stored
        }
        (_, None) => false,
    }
}
