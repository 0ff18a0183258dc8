//! All flow tests, in one binary since linking is slow. Each file is one flow.

#![expect(
    clippy::unwrap_used,
    reason = "in what tests share, as in tests, a panic is how a failure is told"
)]

mod api;
mod embedded;
mod outage;
mod sandbox;
mod server;
mod support;
mod tidy;
mod transfer;
mod twilio_client;
mod verify_signature;
mod webhooks;
