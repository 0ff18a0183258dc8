//! Hookswitch: the backend for group texts behind a business number.
//!
//! Reading order: [`ids`], [`clock`] and [`config`] are what everything stands on; [`twilio`] is Twilio's wire;
//! [`inbox`] takes webhooks in, [`mirror`] and [`ledger`] hold what they say, [`events`] tells of it; [`queue`] runs
//! the durable work of [`group_text`], [`transfer`] and [`outbox`], and [`opt_out`] who wants no more; [`people`] says who may be given a line, [`numbers`]
//! which numbers are ours, [`assignment`] who gets a line that nobody holds, [`escalation`] what happens to one on which something is amiss, and
//! [`handover`] gives all of one person's; [`sweep`] compares all of it with Twilio, and [`health`]
//! says which lines cannot be written in; [`api`] is what a CRM back end sees, [`audit`] what an auditor relies on, and
//! [`retention`] what is erased when, and [`erasure`] who on request; [`app`] puts it together. [`sandbox`] is an emulator of Twilio that shares only the
//! wire with the rest.

pub mod accounts;
pub mod api;
pub mod app;
pub mod assignment;
pub mod audit;
pub mod cli;
pub mod clock;
pub mod config;
pub mod db;
pub mod erasure;
pub mod escalation;
pub mod events;
pub mod group_text;
pub mod handover;
pub mod health;
pub mod ids;
pub mod inbox;
pub mod ledger;
pub mod mirror;
pub mod numbers;
pub mod opt_out;
pub mod outbox;
pub mod people;
pub mod person;
pub mod projection;
pub mod queue;
pub mod rebuild;
pub mod retention;
pub mod sandbox;
pub mod setup;
pub mod sweep;
pub mod telemetry;
pub mod transfer;
pub mod twilio;
pub mod web;
