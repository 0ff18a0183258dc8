//! All sources at once: each thing that happens is told by a webhook, by an event of Event Streams, by both, or by
//! nobody; reads and sweeps say it again. The mirror comes to what Twilio has.

use hookswitch::twilio::form::Form;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use crate::support::app::TestApp;
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::sql::{assert_webhooks_are_in_one_place, count};
use crate::support::sweep::Meddler;
use crate::support::{event, tables};

/// Takes what has come back out of the inbox, as forms.
async fn taken_back(app: &TestApp) -> Vec<Vec<(String, String)>> {
    let forms = tables::rows(
        app,
        "select convert_from(form, 'UTF8') from webhook join webhook_pending using (webhook_id) order by webhook_id",
    )
    .await;
    tables::execute(
        app,
        "delete from webhook using webhook_pending as pending where pending.webhook_id = webhook.webhook_id;
        truncate webhook_pending",
    )
    .await;
    forms
        .iter()
        .map(|form| Form::parse(form.as_bytes()).unwrap().fields().to_vec())
        .collect()
}

#[tokio::test]
async fn webhooks_events_reads_and_sweeps_in_any_mixture_come_to_what_twilio_has() {
    for seed in 1..=3 {
        let app = TestApp::start().await;
        let mut dice = StdRng::seed_from_u64(seed);
        let mut meddler = Meddler::new(&app, seed);
        let (mut by_webhook, mut by_event) = (0, 0);
        for round in 0..5 {
            meddler.make(20).await;
            let mut told = taken_back(&app).await;
            told.shuffle(&mut dice);
            for form in told {
                let event = event::of(&form);
                let roll = dice.random_range(0..10);
                // Some are told by both, some by nobody.
                if roll < 5 || (event.is_none() && roll < 9) {
                    app.deliver(&form).await;
                    by_webhook += 1;
                }
                if let Some(event) = event
                    && (4..9).contains(&roll)
                {
                    eprintln!("{event}");
                    app.deliver_events(&[event]).await;
                    by_event += 1;
                }
                if dice.random_bool(0.2) {
                    app.app.projector.run_until_idle().await.unwrap();
                }
                if dice.random_bool(0.05) {
                    app.clock.advance(jiff::SignedDuration::from_secs(3));
                    app.app.worker.run_until_idle().await.unwrap();
                }
            }
            app.app.projector.run_until_idle().await.unwrap();
            if round % 2 == 1 {
                app.sweep().await;
            }
        }
        assert!(by_webhook > 50 && by_event > 50, "{by_webhook} and {by_event}");
        app.settle_for(jiff::SignedDuration::from_secs(3)).await;
        app.sweep().await;
        assert_eq!(
            count(app.pool(), "webhook_state where state <> 'projected'").await,
            0
        );
        assert_webhooks_are_in_one_place(app.pool()).await;
        assert_mirror_equals_sandbox(&app).await;
        app.settle_for(jiff::SignedDuration::from_secs(3)).await;
        assert_mirror_equals_sandbox(&app).await;
        assert_eq!(
            app.sweep().await.found,
            hookswitch::sweep::Found::default(),
            "seed {seed}"
        );
    }
}
