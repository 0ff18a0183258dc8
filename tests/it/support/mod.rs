//! What the flow tests share.

pub(crate) mod database;
