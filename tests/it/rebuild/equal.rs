//! Histories of every source, after which what is made anew is what is there, to the times at which it was learnt.

use hookswitch::sandbox::{Faults, IdentityReplacement, WebhookAction, WebhookFault};
use hookswitch::transfer::{Kind, State};
use jiff::SignedDuration;

use super::{assert_equal, assert_nothing_differs, of};
use crate::convergence::PAUSES;
use crate::support::app::{BUYER, LINE, PARTNER, TestApp, Wanted, sid_of};
use crate::support::event;
use crate::support::history::{ops, play};
use crate::support::sql;
use crate::support::sweep::Meddler;
use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;

#[tokio::test]
async fn a_group_with_transfers_and_messages() {
    for replacement in [IdentityReplacement::Update, IdentityReplacement::Refuse] {
        let app = TestApp::start_with(Wanted {
            identity_replacement: replacement,
            ..Wanted::default()
        })
        .await;
        let group = app.group(Some("maya")).await;
        let sid = sid_of(&group);
        app.text(BUYER, &[LINE, PARTNER], "Is it still there?").await;
        app.settle().await;
        for (kind, to) in [(Kind::Cold, "jonas"), (Kind::Warm, "noor")] {
            let transfer = app.start_transfer(&sid, kind, to).await;
            if kind == Kind::Warm {
                let accepted = app.app.api.transfers.accept(transfer.transfer_id, to).await;
                accepted.unwrap();
            }
            app.settle_for(SignedDuration::from_secs(3)).await;
            let ended = app.transfer(transfer.transfer_id).await;
            assert_eq!(ended.state, State::Completed);
        }
        let report = assert_equal(&app).await;
        assert_nothing_differs(&report);
        assert!(
            report.replayed.answers > 0 && report.replayed.webhooks > 5,
            "{report}"
        );
        let by_transfer = "tenure where cause = 'transfer' and superseded_at is null";
        // Where an identity cannot be replaced, the removal that ends a tenure may come after the lease.
        if replacement == IdentityReplacement::Update {
            assert_eq!(sql::count(app.pool(), by_transfer).await, 2);
        }
        for table in [
            "conversation",
            "participant",
            "message",
            "holding",
            "tenure",
            "event",
        ] {
            assert!(of(&report, table).same > 0, "{table}: {report}");
        }
    }
}

#[tokio::test]
async fn an_account_in_which_much_happens_with_webhooks_lost_doubled_and_late_and_sweeps_between() {
    for seed in [31, 32] {
        let app = TestApp::start().await;
        let fault = |action, probability| WebhookFault {
            action,
            events: Vec::new(),
            ms: 40,
            probability,
            times: None,
        };
        let faults = Faults {
            seed,
            webhooks: vec![
                fault(WebhookAction::Lose, 0.2),
                fault(WebhookAction::Double, 0.2),
                fault(WebhookAction::Reorder, 0.3),
            ],
            ..Faults::default()
        };
        app.sandbox.set_faults(faults).unwrap();
        let mut meddler = Meddler::new(&app, seed);
        for _ in 0..5 {
            meddler.make(25).await;
            app.app.projector.run_until_idle().await.unwrap();
            app.sweep().await;
            app.settle_for(SignedDuration::from_secs(3)).await;
        }
        let report = assert_equal(&app).await;
        assert_nothing_differs(&report);
        assert!(report.replayed.answers > 8, "the sweeps found much: {report}");

        // Once more a sweep, which finds nothing: then nothing is recorded of it.
        app.deliver_webhooks();
        app.sweep().await;
        app.settle_for(SignedDuration::from_secs(3)).await;
        let recorded = sql::count(app.pool(), "answer").await;
        app.clock.advance(SignedDuration::from_hours(2));
        app.sweep().await;
        app.settle_for(SignedDuration::from_secs(3)).await;
        assert_eq!(sql::count(app.pool(), "answer").await, recorded);
        assert_nothing_differs(&assert_equal(&app).await);
    }
}

/// Forms and events of random histories, in batches, some in the same millisecond: doubts, and the reads that settle them.
#[tokio::test]
async fn webhooks_and_event_streams_of_random_histories_with_ties() {
    let mut runner = TestRunner::new(crate::convergence::cases(1));
    let (mut versions, mut users) = (0, 0);
    for _ in 0..3 {
        // Of its own each: the SIDs of two histories are the same, and mean something else.
        let app = TestApp::start().await;
        let ops = ops(PAUSES, 30..40).new_tree(&mut runner).unwrap().current();
        let told = play(&ops, 3);
        for (place, one) in told.iter().enumerate().rev() {
            match event::of(&one.form).filter(|_| place % 3 == 0) {
                Some(event) => app.deliver_events(&[event]).await,
                None => app.deliver(&one.form).await,
            }
            if place % 4 == 0 {
                app.app.projector.run_until_idle().await.unwrap();
            }
        }
        app.app.projector.run_until_idle().await.unwrap();
        // The sandbox has none of it: what is read says that it is gone.
        app.clock.advance(SignedDuration::from_secs(3));
        app.app.worker.run_until_idle().await.unwrap();
        let report = assert_equal(&app).await;
        assert_nothing_differs(&report);
        versions += sql::count(app.pool(), "message_version").await;
        users += sql::count(app.pool(), "chat_user").await;
    }
    assert!(versions > 0 && users > 0);
}
