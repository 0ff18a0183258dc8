//! The HTTP edge that the webhook endpoints and the API share.

pub mod extract;
pub mod fallback;
pub mod field;
pub mod page;
pub mod problem;
pub mod request;
pub mod server;
