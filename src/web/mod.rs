//! The HTTP edge that the webhook endpoints and the API share.

pub mod problem;
pub mod server;
