//! What the flow tests share.

pub(crate) mod app;
pub(crate) mod database;
pub(crate) mod sql;
pub(crate) mod webhook;
