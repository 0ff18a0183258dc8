//! What holds a transfer up must not hold it for ever, and what a swap left half done can be put right.

use hookswitch::app::App;
use hookswitch::sandbox::{Effect, Faults, IdentityReplacement, RestFault};
use hookswitch::transfer::{DecideError, Kind, StartTransferError, State};
use jiff::SignedDuration;

use super::{app_with_group, finished, force, give_up, some};
use crate::support::app::{TestApp, Wanted};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::tables;

fn every(method: Option<&str>, effect: Effect, status: Option<u16>) -> Faults {
    Faults {
        rest: vec![RestFault {
            method: method.map(str::to_owned),
            path: None,
            status,
            effect,
            hold_ms: 0,
            probability: 1.0,
            times: None,
        }],
        ..Faults::default()
    }
}

#[tokio::test]
async fn a_force_does_not_wait_for_the_next_attempt_of_the_swap_that_it_ends() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    app.sandbox
        .set_faults(every(None, Effect::Before, Some(503)))
        .unwrap();
    let swap = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    for _ in 0..6 {
        app.settle_for(SignedDuration::from_mins(5)).await;
    }
    app.sandbox.set_faults(Faults::default()).unwrap();
    let forced = app.app.api.transfers.force(force(&sid, "noor")).await.unwrap();
    app.settle_for(SignedDuration::from_secs(1)).await;
    assert_eq!(app.transfer(forced.transfer_id).await.state, State::Completed);
    assert_eq!(app.transfer(swap.transfer_id).await.state, State::Superseded);
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn a_force_puts_right_a_line_that_two_are_on_and_ends_what_was_uncertain() {
    let (app, sid) = app_with_group(Wanted {
        identity_replacement: IdentityReplacement::Refuse,
        ..Wanted::default()
    })
    .await;
    for (to, back_to) in [("noor", "maya"), ("noor", "sam")] {
        let never_removed = every(Some("DELETE"), Effect::Before, Some(503));
        app.sandbox.set_faults(never_removed).unwrap();
        let swap = app.start_transfer(&sid, Kind::Cold, to).await;
        for _ in 0..15 {
            app.settle_for(SignedDuration::from_mins(10)).await;
        }
        let swap = app.transfer(swap.transfer_id).await;
        assert_eq!(
            (swap.state, swap.outcome_code.as_deref(), swap.contested_to),
            (State::NeedsAttention, Some("old_holder_remains"), None)
        );
        assert_eq!(app.holders_at_twilio(&sid).len(), 2);

        app.sandbox.set_faults(Faults::default()).unwrap();
        let forced = app.app.api.transfers.force(force(&sid, back_to)).await.unwrap();
        let forced = finished(&app, &forced).await;
        assert_eq!(forced.state, State::Completed, "{forced:?}");
        assert_eq!(app.holders_at_twilio(&sid), some(&[back_to]));
        let swap = app.transfer(swap.transfer_id).await;
        assert_eq!(swap.contested_to, forced.finished_at, "it is certain again");
        assert_mirror_equals_sandbox(&app).await;
    }
    tables::assert_ledger_is_whole(&app).await;
}

#[tokio::test]
async fn who_has_left_is_given_nothing() {
    let (app, sid) = app_with_group(Wanted {
        release_to: Some("front-desk".parse().unwrap()),
        ..Wanted::default()
    })
    .await;
    tables::execute(
        &app,
        "insert into agent (identity, name, skills, left_at, availability, availability_since, version, created_at, updated_at)
         select identity, 'Somebody', '{}', '2026-01-01Z', 'available', '2026-01-01Z', 1, '2026-01-01Z', '2026-01-01Z'
         from unnest(array['zoe', 'front-desk']) as identity",
    )
    .await;
    let refused = app.app.api.transfers.force(force(&sid, "zoe")).await.unwrap_err();
    assert!(
        matches!(&refused, StartTransferError::NobodyFree { passed } if passed[0].why == "left"),
        "{refused:?}"
    );
    let released = app
        .app
        .api
        .transfers
        .release(give_up(&sid, "maya"))
        .await
        .unwrap();
    assert_eq!(finished(&app, &released).await.state, State::Completed);
    assert_eq!(app.holders_at_twilio(&sid), [None], "seen to be nobody's");
}

#[tokio::test]
async fn a_swap_of_an_account_that_is_configured_no_more_ends_in_time() {
    for asked_for_a_change in [false, true] {
        let (app, sid) = app_with_group(Wanted::default()).await;
        if asked_for_a_change {
            // The answer is lost after the effect.
            let lost = every(Some("POST"), Effect::After, None);
            app.sandbox.set_faults(lost).unwrap();
        }
        let swap = app.start_transfer(&sid, Kind::Cold, "jonas").await;
        if asked_for_a_change {
            app.app.worker.run_until_idle().await.unwrap();
        }
        let mut config = app.config.clone();
        config.twilio.accounts.clear();
        let without = App::new(config, app.database.options.clone(), app.clock.clone()).unwrap();
        without.worker.run_until_idle().await.unwrap();
        app.advance(SignedDuration::from_mins(1));
        without.worker.run_until_idle().await.unwrap();
        let waiting = app.transfer(swap.transfer_id).await.waiting.unwrap();
        assert_eq!(waiting.what, "account");

        app.advance(SignedDuration::from_hours(3));
        without.worker.run_until_idle().await.unwrap();
        let ended = app.transfer(swap.transfer_id).await;
        let expected = if asked_for_a_change {
            (State::NeedsAttention, Some("outcome_unknown"))
        } else {
            (State::Failed, Some("timed_out"))
        };
        assert_eq!((ended.state, ended.outcome_code.as_deref()), expected);
        assert_eq!(
            tables::count(&app, "line_lease where transfer_id is not null").await,
            0
        );
    }
}

#[tokio::test]
async fn of_an_accept_and_a_force_at_once_the_force_has_the_line_in_the_end() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    for round in 0..6 {
        let (to, forced_to) = if round % 2 == 0 {
            ("jonas", "noor")
        } else {
            ("maya", "ada")
        };
        let offered = app.start_transfer(&sid, Kind::Warm, to).await;
        let transfers = app.app.api.transfers.clone();
        let (accepted, forced) = tokio::join!(
            transfers.accept(offered.transfer_id, to),
            transfers.force(force(&sid, forced_to))
        );
        let forced = forced.unwrap();
        if let Err(refused) = &accepted {
            assert!(
                matches!(refused, DecideError::NotOpen { state: State::Superseded, by: Some(by), .. } if by == "sam"),
                "{refused:?}"
            );
        }
        assert_eq!(finished(&app, &forced).await.state, State::Completed);
        assert_eq!(app.transfer(offered.transfer_id).await.state, State::Superseded);
        assert_eq!(app.holders_at_twilio(&sid), some(&[forced_to]));
    }
    tables::assert_ledger_is_whole(&app).await;
}

/// What Twilio carries out after it gave no answer must not be asked for twice, nor come after the end.
#[tokio::test]
async fn a_change_without_an_answer_is_waited_for_before_the_next_look() {
    let (app, sid): (TestApp, _) = app_with_group(Wanted::default()).await;
    let swap = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    let lost = every(Some("POST"), Effect::After, None);
    app.sandbox.set_faults(lost).unwrap();
    app.app.worker.run_until_idle().await.unwrap();
    app.sandbox.set_faults(Faults::default()).unwrap();
    let waits = app.transfer(swap.transfer_id).await;
    assert_eq!(waits.state, State::Swapping);
    let waiting = waits.waiting.unwrap();
    assert_eq!(
        (waiting.what.as_str(), waiting.error.as_deref()),
        ("twilio", Some("outcome_unknown"))
    );
    let steps = format!("transfer_step where transfer_id = '{}'", swap.transfer_id);
    assert_eq!(tables::count(&app, &steps).await, 1, "it was asked once so far");
    app.settle_for(SignedDuration::from_secs(3)).await;
    let ended = app.transfer(swap.transfer_id).await;
    assert_eq!(ended.state, State::Completed, "{ended:?}");
    assert_eq!(tables::count(&app, &steps).await, 1, "and once in all");
}
