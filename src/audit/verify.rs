//! Checking the log against its seals, entry by entry and in constant memory.

use sqlx::PgPool;

use crate::audit::canonical::{Batch, Entry, Seal};
use crate::audit::file::{Copy, FileError};
use crate::audit::sealer::PAGE;
use crate::audit::store;
use crate::events::Position;

/// What was found to be as it was sealed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Verified {
    pub seals: i64,
    pub entries: i64,
    /// Of these, entries of which something was erased by the rules. Their hashes are checked all the same.
    pub erased: i64,
    /// Entries after the last seal, up to [`UNSEALED_COUNTED`]. Nothing is said of them.
    pub unsealed: i64,
}

/// Up to here unsealed entries are counted.
pub const UNSEALED_COUNTED: i64 = 100_000;

/// The first thing that is not as it was sealed. Places and types, never what an entry says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Difference {
    #[error("entry {position} ({kind}) is not what was sealed (seal {seal})")]
    Altered {
        seal: i64,
        position: Position,
        kind: String,
    },
    #[error("an entry is missing after {after} (seal {seal})")]
    Missing { seal: i64, after: Position },
    #[error("entry {position} ({kind}) was not there when it was sealed (seal {seal})")]
    Extra {
        seal: i64,
        position: Position,
        kind: String,
    },
    #[error("entries between {first} and {last} are not what was sealed (seal {seal})")]
    Somewhere {
        seal: i64,
        first: Position,
        last: Position,
    },
    #[error("seal {0} itself was changed")]
    SealAltered(i64),
    #[error("seal {0} is missing in the database")]
    SealMissing(i64),
    #[error("seal {0} does not follow from the seal before")]
    ChainBroken(i64),
}

/// Why the check did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the database did not answer")]
    Database(#[from] sqlx::Error),
    #[error("the outside copy")]
    Copy(#[from] FileError),
    #[error("there is no seal {0}")]
    NoSuchSeal(i64),
}

/// Checks all entries from those of seal number `from` on. With an outside copy, its seals are what counts.
pub async fn verify(
    pool: &PgPool,
    mut copy: Option<Copy>,
    from: i64,
) -> Result<Result<Verified, Difference>, VerifyError> {
    let mut verified = Verified::default();
    let from = from.max(1);
    let mut before = None;
    if from > 1 {
        let mut conn = pool.acquire().await?;
        before = store::find(&mut conn, from - 1).await?;
        if before.is_none() {
            return Err(VerifyError::NoSuchSeal(from - 1));
        }
    }
    for number in from.. {
        let outside = match &mut copy {
            Some(copy) => next_from(copy, number)?,
            None => None,
        };
        let mut conn = pool.acquire().await?;
        let inside = store::find(&mut conn, number).await?;
        drop(conn);
        let seal = match (inside, outside) {
            (None, None) => {
                let mut conn = pool.acquire().await?;
                // A gap in the numbers is a seal that was taken away.
                if store::newest(&mut conn)
                    .await?
                    .is_some_and(|last| last.seal > number)
                {
                    return Ok(Err(Difference::SealMissing(number)));
                }
                break;
            }
            (inside, outside) => match checked(number, before.as_ref(), inside.as_ref(), outside) {
                // Whoever made the seals anew did it for the sake of an entry: the outside copy may name it. Where it
                // cannot, the seal is named.
                Ok(seal) => seal,
                Err(wrong) => {
                    let (difference, outside) = *wrong;
                    let Some(outside) = outside else {
                        return Ok(Err(difference));
                    };
                    let after = before.as_ref().map_or_else(Position::default, |seal| seal.last);
                    let entry = first_wrong_entry(pool, copy.as_mut(), after, outside).await?;
                    return Ok(Err(entry.unwrap_or(difference)));
                }
            },
        };
        let after = before.as_ref().map_or_else(Position::default, |seal| seal.last);
        match check_entries(pool, after, &seal).await? {
            Ok(erased) => verified.erased += erased,
            Err(difference) => return Ok(Err(difference)),
        }
        verified.seals += 1;
        verified.entries += seal.entries;
        before = Some(seal);
    }
    let last = before.map_or_else(Position::default, |seal| seal.last);
    let mut conn = pool.acquire().await?;
    verified.unsealed = store::entries_after(&mut conn, last, UNSEALED_COUNTED).await?;
    Ok(Ok(verified))
}

/// The first entry that is not as the outside copy has it, from a seal of that copy on.
async fn first_wrong_entry(
    pool: &PgPool,
    mut copy: Option<&mut Copy>,
    mut after: Position,
    mut seal: Seal,
) -> Result<Option<Difference>, VerifyError> {
    loop {
        if let Err(of_entry) = check_entries(pool, after, &seal).await? {
            return Ok(Some(of_entry));
        }
        let next = match &mut copy {
            Some(copy) => next_from(copy, seal.seal + 1)?,
            None => None,
        };
        let follows = |next: &Seal| next.previous == seal.hash && next.hash == next.expected_hash();
        match next {
            Some(next) if follows(&next) => {
                after = seal.last;
                seal = next;
            }
            _ => return Ok(None),
        }
    }
}

/// The seal of that number in the copy, if it has one.
fn next_from(copy: &mut Copy, number: i64) -> Result<Option<Seal>, FileError> {
    while let Some(seal) = copy.next_seal()? {
        if seal.seal >= number {
            return Ok(Some(seal));
        }
    }
    Ok(None)
}

/// The seal to check the entries with; or what is wrong with it, and the outside one to look closer with.
fn checked(
    number: i64,
    before: Option<&Seal>,
    inside: Option<&Seal>,
    outside: Option<Seal>,
) -> Result<Seal, Box<(Difference, Option<Seal>)>> {
    let previous = before.map_or([0; 32], |seal| seal.hash);
    for seal in [outside.as_ref(), inside].into_iter().flatten() {
        if seal.seal != number {
            return Err(Box::new((Difference::SealMissing(number), None)));
        }
    }
    if let Some(seal) = &outside
        && seal.hash != seal.expected_hash()
    {
        return Err(Box::new((Difference::SealAltered(number), None)));
    }
    let Some(inside) = inside else {
        return Err(Box::new((Difference::SealMissing(number), outside)));
    };
    if outside.as_ref().is_some_and(|outside| outside != inside) || inside.hash != inside.expected_hash() {
        return Err(Box::new((Difference::SealAltered(number), outside)));
    }
    if inside.previous != previous {
        return Err(Box::new((Difference::ChainBroken(number), None)));
    }
    Ok(inside.clone())
}

/// Compares the entries after one place with a seal. Answers how many of them have something erased.
async fn check_entries(
    pool: &PgPool,
    after: Position,
    seal: &Seal,
) -> Result<Result<i64, Difference>, sqlx::Error> {
    let (mut batch, mut place, mut last, mut erased) = (Batch::new(), 0, after, 0);
    loop {
        let mut conn = pool.acquire().await?;
        let page = store::entries(&mut conn, last, Some(seal.last), PAGE).await?;
        drop(conn);
        for (at, entry) in page.iter().enumerate() {
            let hash = entry.hash().unwrap_or_default();
            if seal.mark(place) != Some(&hash[..super::canonical::MARK]) {
                return Ok(Err(name(seal, place, last, entry, page.get(at + 1))));
            }
            batch.add(&hash);
            erased += i64::from(entry.is_erased());
            place += 1;
            last = entry.position;
        }
        if page.is_empty() {
            break;
        }
    }
    let seal_number = seal.seal;
    if batch.entries < seal.entries {
        return Ok(Err(Difference::Missing {
            seal: seal_number,
            after: last,
        }));
    }
    if batch.root() != seal.root {
        return Ok(Err(Difference::Somewhere {
            seal: seal_number,
            first: seal.first,
            last: seal.last,
        }));
    }
    Ok(Ok(erased))
}

/// What happened at the first place where an entry's hash is not the one that was sealed.
fn name(seal: &Seal, place: usize, after: Position, entry: &Entry, next: Option<&Entry>) -> Difference {
    let is_at = |entry: &Entry, place: usize| {
        entry
            .hash()
            .is_some_and(|hash| seal.mark(place) == Some(&hash[..super::canonical::MARK]))
    };
    if is_at(entry, place + 1) {
        return Difference::Missing {
            seal: seal.seal,
            after,
        };
    }
    let (position, kind) = (entry.position, entry.kind.clone());
    if seal.mark(place).is_none() || next.is_some_and(|next| is_at(next, place)) {
        return Difference::Extra {
            seal: seal.seal,
            position,
            kind,
        };
    }
    Difference::Altered {
        seal: seal.seal,
        position,
        kind,
    }
}
