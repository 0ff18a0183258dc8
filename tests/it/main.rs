//! All flow tests, in one binary since linking is slow. Each file is one flow.

#![expect(
    clippy::unwrap_used,
    reason = "in what tests share, as in tests, a panic is how a failure is told"
)]

mod api;
mod as_of;
mod assignment;
mod audit;
mod clock_off;
mod convergence;
mod crash;
mod embedded;
mod erased_columns;
mod erasure;
mod erasure_meanwhile;
mod escalation;
mod group_text;
mod handover;
mod health;
mod mirror;
mod numbers;
mod outage;
mod outbox;
mod people;
mod queue;
mod rebuild;
mod retention;
mod retention_classes;
mod sandbox;
mod sending;
mod server;
mod sources;
mod support;
mod sweep;
mod tidy;
mod transactions;
mod transfer;
mod transfer_protocol;
mod transfers_under_faults;
mod twilio_client;
mod verify_signature;
mod webhooks;
