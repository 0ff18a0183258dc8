//! Twilio's wire and nothing of ours: signatures, webhooks, and the REST calls that we make.

pub mod conversations;
pub mod error;
pub mod form;
pub mod model;
pub mod signature;
pub mod webhook;
