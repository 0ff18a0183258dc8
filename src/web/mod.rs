//! The HTTP edge that the webhook endpoints and the API share.

pub mod edge;
pub mod problem;
pub mod server;
