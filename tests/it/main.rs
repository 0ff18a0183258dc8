//! All flow tests, in one binary since linking is slow. Each file is one flow.

mod support;
mod twilio_client;
mod verify_signature;
