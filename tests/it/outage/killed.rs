//! Processes that are killed while people write in groups at Twilio and change them: a sweep afterwards makes the mirror
//! what Twilio has.

use std::time::{Duration, Instant};

use hookswitch::config::PublicBaseUrl;
use hookswitch::sandbox::Outcome;
use hookswitch::setup;

use super::process::{Process, free_url};
use super::{alone, is_well};
use crate::support::app::TestApp;
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::sql::count;
use crate::support::sweep::{Meddler, differences};
use crate::support::webhook::client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kills_under_webhooks_a_sweep_makes_the_mirror_what_twilio_has() {
    let _turn = alone().await;
    let app = TestApp::start().await;
    let url = free_url();
    let twilio = app.sandbox.base_url();
    let start = || {
        let others = [
            ("HOOKSWITCH__TWILIO__BASE_URL", twilio.as_str()),
            ("HOOKSWITCH__SWEEP__INTERVAL", "0s"),
        ];
        Process::start_with(&app.database.url(), &url, &others)
    };
    let (client, patience) = (client(), Duration::from_secs(15));
    let mut process = start();
    is_well(&client, &url, Instant::now(), patience).await;
    // From here on Twilio tells that process, and not the one of the test.
    let theirs = PublicBaseUrl::try_from(url.as_str()).unwrap();
    setup::apply(app.account(), &theirs).await.unwrap();

    let mut meddler = Meddler::new(&app, 20_261_127);
    for _ in 0..4 {
        meddler.make(25).await;
        process.kill();
        // Nobody hears of these.
        meddler.make(5).await;
        process = start();
        is_well(&client, &url, Instant::now(), patience).await;
    }
    meddler.make(25).await;
    app.sandbox.settled().await;
    drop(process);

    let attempts = app.sandbox.attempts();
    let with = |outcome| attempts.iter().filter(|one| one.outcome == outcome).count();
    let (delivered, unreachable) = (with(Outcome::Delivered), with(Outcome::Unreachable));
    assert!(
        delivered > 100 && unreachable > 10,
        "{delivered} and {unreachable}"
    );
    // Those that asked whether all is well are of a conversation that Twilio does not have.
    let probes = "webhook where conversation_sid = 'CH00000000000000000000000000000999'";
    let kept = count(app.pool(), "webhook").await - count(app.pool(), probes).await;
    assert!(
        kept >= delivered,
        "{kept} are kept of {delivered} that were acked"
    );

    app.app.projector.run_until_idle().await.unwrap();
    assert!(!differences(&app).await.is_empty(), "webhooks were lost");
    app.sweep().await;
    app.settle_for(jiff::SignedDuration::from_secs(3)).await;
    assert_eq!(differences(&app).await, [] as [&str; 0]);
    assert_mirror_equals_sandbox(&app).await;
}
