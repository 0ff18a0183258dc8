//! What auditors rely on: the views of schema `audit` with the roles that may read them, and the seals of the log. Owns
//! `seal`.
//!
//! The views are a public contract, described in docs/AUDIT.md. The log is sealed in batches, off the path of those who
//! write it ([`sealer`]): a chain of hashes over the entries' canonical bytes ([`canonical`]), of which a copy may be kept
//! outside ([`mod@file`], [`endpoint`]), so that whoever rewrites log and seals is found too ([`mod@verify`]).

mod canonical;
mod endpoint;
mod export;
mod file;
mod roles;
mod sealer;
mod store;
mod verify;

pub use canonical::{Entry, Seal};
pub use endpoint::{POST_TASK, Post};
pub use export::{Span, export};
pub use file::{Copy, FileError};
pub use roles::ensure_roles;
pub use sealer::{SealError, Sealer};
pub use verify::{Difference, UNSEALED_COUNTED, Verified, VerifyError, verify};
