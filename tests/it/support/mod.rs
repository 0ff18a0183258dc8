//! What the flow tests share.

pub(crate) mod app;
pub(crate) mod compare;
pub(crate) mod cut;
pub(crate) mod database;
pub(crate) mod event;
pub(crate) mod history;
pub(crate) mod sql;
pub(crate) mod sweep;
pub(crate) mod tables;
pub(crate) mod webhook;
