//! What auditors rely on: the views of schema `audit` and the roles that may read them.
//!
//! The views are a public contract, described in docs/AUDIT.md.

mod roles;

pub use roles::ensure_roles;
