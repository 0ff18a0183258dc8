//! Who may do what with a line, and who can be given one. The one place that asks about people.
//!
//! Everybody is taken at their word, for the key says which program calls and the program knows who is logged in. A
//! supervisor is whoever calls with a key that has the scope `transfers:supervise`.

use std::collections::HashSet;

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::ids::Identity;
use crate::people::judge::{Needs, Unavailable};
use crate::people::questions;
use crate::person::is_pseudonym;
use crate::transfer::store;

/// Who does something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actor {
    pub by: String,
    /// The person in whose place they do it.
    pub stands_in_for: Option<String>,
    pub is_supervisor: bool,
}

impl From<&str> for Actor {
    fn from(by: &str) -> Self {
        Self {
            by: by.to_owned(),
            stands_in_for: None,
            is_supervisor: false,
        }
    }
}

impl Actor {
    /// A supervisor who does it in somebody's place.
    pub fn in_place_of(by: &str, person: &str) -> Self {
        Self {
            by: by.to_owned(),
            stands_in_for: Some(person.to_owned()),
            is_supervisor: true,
        }
    }
}

/// They are neither that person, nor a supervisor who says to stand in for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotTheirs;

/// Whether the actor may do what is up to `person`. Answers with the person whom a supervisor overrode, for the record.
pub fn may_act_for(actor: &Actor, person: &str) -> Result<Option<String>, NotTheirs> {
    let stands_in = actor.is_supervisor && actor.stands_in_for.as_deref() == Some(person);
    if actor.by == person {
        Ok(None)
    } else if stands_in {
        Ok(Some(person.to_owned()))
    } else {
        Err(NotTheirs)
    }
}

/// Those of these to whom no line can be given, whoever names them: they have left, or were erased. Nothing stands against
/// somebody whom nobody has added to the people.
pub async fn gone(
    conn: &mut PgConnection,
    people: &[&Identity],
    now: Timestamp,
) -> Result<HashSet<Identity>, sqlx::Error> {
    let identities: Vec<&str> = people.iter().map(|person| person.as_str()).collect();
    let mut gone = questions::left(conn, &identities, now).await?;
    let erased = people.iter().filter(|person| is_pseudonym(person.as_str()));
    gone.extend(erased.map(|person| (*person).clone()));
    Ok(gone)
}

/// As [`gone`], of one.
pub async fn is_gone(
    conn: &mut PgConnection,
    person: &Identity,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    Ok(!gone(conn, &[person], now).await?.is_empty())
}

/// Why somebody on a list, of which those are asked that can take a line now, is passed over: `left`, `away` or `at_capacity`.
pub async fn unavailable(
    conn: &mut PgConnection,
    person: &Identity,
    now: Timestamp,
) -> Result<Option<&'static str>, sqlx::Error> {
    if is_pseudonym(person.as_str()) {
        return Ok(Some(LEFT));
    }
    let needs = Needs {
        capacity: true,
        ..Needs::default()
    };
    let judged = questions::candidate(conn, person.as_str(), now, &needs).await?;
    match judged.skipped {
        Some(
            why @ (Unavailable::Left { .. } | Unavailable::Away { .. } | Unavailable::AtCapacity { .. }),
        ) => Ok(Some(why.code())),
        Some(_) => Ok(None),
        None => {
            let Some(one) = judged.person else {
                return Ok(None);
            };
            let Some(capacity) = one.agent.profile.capacity else {
                return Ok(None);
            };
            // What they are being asked for now may become theirs.
            let coming = store::coming_to(conn, person.as_str()).await?;
            let is_full = i64::from(one.load) + coming >= i64::from(capacity);
            Ok(is_full.then_some(AT_CAPACITY))
        }
    }
}

const AT_CAPACITY: &str = "at_capacity";
/// Who was erased is nobody any more.
pub(super) const LEFT: &str = "left";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_person_or_a_supervisor_who_says_so_may_act() {
        assert_eq!(may_act_for(&Actor::from("noor"), "noor"), Ok(None));
        assert_eq!(may_act_for(&Actor::from("zoe"), "noor"), Err(NotTheirs));
        let supervisor = Actor::in_place_of("sam", "noor");
        assert_eq!(may_act_for(&supervisor, "noor"), Ok(Some("noor".to_owned())));
        assert_eq!(may_act_for(&supervisor, "ada"), Err(NotTheirs));
        let pretends = Actor {
            is_supervisor: false,
            ..supervisor
        };
        assert_eq!(may_act_for(&pretends, "noor"), Err(NotTheirs));
    }
}
