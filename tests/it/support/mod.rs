//! What the flow tests share.

pub(crate) mod app;
pub(crate) mod database;
