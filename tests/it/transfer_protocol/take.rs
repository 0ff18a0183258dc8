//! What is done without asking: force, release, handback.

use hookswitch::ids::ConversationSid;
use hookswitch::outbox::NewOutboundMessage;
use hookswitch::sandbox::IdentityReplacement;
use hookswitch::transfer::{Actor, DecideError, GiveUp, Kind, StartTransferError, State};
use jiff::SignedDuration;

use super::{app_with_group, finished, force, give_up, some, told};
use crate::support::app::{BUYER, LINE, PARTNER, TestApp, Wanted};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::cut::{Points, work_and_die};
use crate::support::tables;

#[tokio::test]
async fn a_supervisor_forces_a_line_over_an_offer() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let transfers = &app.app.api.transfers;
    let offered = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    let forced = transfers.force(force(&sid, "noor")).await.unwrap();
    assert_eq!(
        (forced.state, forced.supersedes),
        (State::Swapping, Some(offered.transfer_id))
    );
    let late = transfers.accept(offered.transfer_id, "jonas").await.unwrap_err();
    assert!(
        matches!(&late, DecideError::NotOpen { state: State::Superseded, by: Some(by), .. } if by == "sam"),
        "{late:?}"
    );
    let forced = finished(&app, &forced).await;
    assert_eq!(forced.state, State::Completed);
    assert_eq!(told(&app, forced.transfer_id).await, ["started", "completed"]);
    assert_eq!(app.holders(&sid).await, some(&["maya", "noor"]));
    let again = transfers.force(force(&sid, "noor")).await.unwrap_err();
    assert!(matches!(again, StartTransferError::AlreadyHolder));
}

#[tokio::test]
async fn of_two_supervisors_who_force_at_once_one_wins() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let first = app.app.api.transfers.force(force(&sid, "noor")).await.unwrap();
    let second = app
        .app
        .api
        .transfers
        .force(force(&sid, "jonas"))
        .await
        .unwrap_err();
    assert!(
        matches!(&second, StartTransferError::AlreadyOpen { transfer_id, by, since, .. }
            if *transfer_id == first.transfer_id && by == "sam" && *since == first.updated_at),
        "{second:?}"
    );
    assert_eq!(finished(&app, &first).await.state, State::Completed);
}

/// The process that does an accepted swap dies somewhere in it; a supervisor forces the line to somebody else.
async fn force_over_a_swap(replacement: IdentityReplacement, step: usize) {
    let (app, sid) = app_with_group(Wanted::default()).await;
    app.sandbox.set_identity_replacement(replacement);
    let process = app.restarted();
    let mut points = Points::default();
    for polls in (1..2_000).step_by(step) {
        let point = format!("{replacement:?}, force at {polls}");
        let before = app.holders_at_twilio(&sid)[0].clone().unwrap();
        let mut others = ["maya", "jonas", "noor"].into_iter().filter(|one| *one != before);
        let (to, forced_to) = (others.next().unwrap(), others.next().unwrap());
        let swap = app.start_transfer(&sid, Kind::Warm, to).await;
        app.app.api.transfers.accept(swap.transfer_id, to).await.unwrap();
        let alive = work_and_die(&app, &process, polls).await;
        let forced = match app.app.api.transfers.force(force(&sid, forced_to)).await {
            Ok(forced) => forced,
            Err(error) => panic!("{point}: {error:?}"),
        };
        app.settle_for(SignedDuration::from_mins(10)).await;
        app.settle_for(SignedDuration::from_mins(10)).await;
        let swap = app.transfer(swap.transfer_id).await;
        let expected = if swap.superseded_by.is_some() {
            State::Superseded
        } else {
            State::Completed
        };
        assert_eq!(swap.state, expected, "{point}");
        let forced = app.transfer(forced.transfer_id).await;
        assert_eq!(forced.state, State::Completed, "{point}: {forced:?}");
        assert_eq!(app.holders_at_twilio(&sid), some(&[forced_to]), "{point}");
        assert_eq!(
            app.holders(&sid).await.pop().unwrap().as_deref(),
            Some(forced_to),
            "{point}"
        );
        assert_eq!(
            tables::count(&app, "line_lease where transfer_id is not null").await,
            0
        );
        tables::assert_queue_is_empty(&app).await;
        tables::assert_ledger_is_whole(&app).await;
        assert_mirror_equals_sandbox(&app).await;
        if points.note("force", alive) {
            return;
        }
    }
    panic!("no process came to the end alive");
}

#[tokio::test]
async fn a_force_takes_over_a_swap_by_update_from_wherever_it_stands() {
    Box::pin(force_over_a_swap(IdentityReplacement::Update, 2)).await;
}

#[tokio::test]
async fn a_force_takes_over_a_swap_by_adding_and_removing_from_wherever_it_stands() {
    Box::pin(force_over_a_swap(IdentityReplacement::Refuse, 3)).await;
}

/// The same while the worker lives and goes on, in the middle of its call.
#[tokio::test]
async fn a_force_takes_over_a_swap_whose_call_is_on_its_way() {
    use hookswitch::sandbox::{Effect, Faults, RestFault};
    let (app, sid) = app_with_group(Wanted::default()).await;
    let mut holder = "maya";
    for effect in [Effect::Before, Effect::After] {
        app.sandbox
            .set_faults(Faults {
                rest: vec![RestFault {
                    method: Some("POST".to_owned()),
                    path: Some("/v1/Services/*/Conversations/*/Participants/*".to_owned()),
                    status: None,
                    effect,
                    hold_ms: 400,
                    probability: 1.0,
                    times: Some(1),
                }],
                ..Faults::default()
            })
            .unwrap();
        let mut others = ["maya", "jonas", "noor"].into_iter().filter(|one| *one != holder);
        let (to, forced_to) = (others.next().unwrap(), others.next().unwrap());
        let swap = app.start_transfer(&sid, Kind::Cold, to).await;
        let worker = app.app.worker.clone();
        let working = tokio::spawn(async move { worker.run_until_idle().await });
        while app.sandbox.faults().rest[0].times != Some(0) {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        let forced = app.app.api.transfers.force(force(&sid, forced_to)).await.unwrap();
        assert_eq!(forced.supersedes, Some(swap.transfer_id));
        working.await.unwrap().unwrap();
        let forced = finished(&app, &forced).await;
        assert_eq!(forced.state, State::Completed, "{effect:?}: {forced:?}");
        let swap = app.transfer(swap.transfer_id).await;
        assert_eq!(swap.state, State::Superseded);
        assert_eq!(swap.contested_to, Some(swap.updated_at));
        assert_eq!(forced.contested_from, swap.contested_from);
        assert_eq!(app.holders_at_twilio(&sid), some(&[forced_to]));
        assert_eq!(app.holders(&sid).await.pop().unwrap().as_deref(), Some(forced_to));
        tables::assert_queue_is_empty(&app).await;
        assert_mirror_equals_sandbox(&app).await;
        holder = forced_to;
    }
}

/// A supervisor who changes their mind: the line stays with whoever has it.
#[tokio::test]
async fn a_force_back_to_the_holder_stops_a_swap() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let swap = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    let forced = app.app.api.transfers.force(force(&sid, "maya")).await.unwrap();
    let forced = finished(&app, &forced).await;
    assert_eq!(
        (forced.state, forced.method.as_deref()),
        (State::Completed, Some("none"))
    );
    assert_eq!(app.transfer(swap.transfer_id).await.state, State::Superseded);
    assert_eq!(app.holders(&sid).await, some(&["maya"]));
}

async fn release_and_assign(app: &TestApp, sid: &ConversationSid) {
    let transfers = &app.app.api.transfers;
    let other = transfers.release(give_up(sid, "jonas")).await.unwrap_err();
    assert!(matches!(other, StartTransferError::NotTheHolder { holder } if holder == "maya"));
    let released = transfers.release(give_up(sid, "maya")).await.unwrap();
    let released = finished(app, &released).await;
    assert_eq!(
        (released.state, released.to(), released.method.as_deref()),
        (State::Completed, None, Some("add_remove")),
        "{released:?}"
    );
    assert_eq!(app.holders_at_twilio(sid), [None]);
    assert_eq!(app.holders(sid).await, [Some("maya".to_owned()), None]);
    assert_eq!(
        tables::count(
            app,
            "tenure where holder is null and superseded_at is null and cause = 'transfer'"
        )
        .await,
        1
    );
    let again = transfers.release(give_up(sid, "maya")).await.unwrap_err();
    assert!(matches!(again, StartTransferError::Unstaffed));

    // Health tells of it, and offers to put nobody back who let go on purpose.
    app.sweep().await;
    let found = "select code || ' ' || coalesce(repair, 'none') from line_finding where resolved_at is null";
    assert_eq!(tables::rows(app, found).await, ["line_unstaffed none"]);

    // The thread lives on: customers write to it, and the number answers in its own name.
    app.text(BUYER, &[LINE, PARTNER], "Anybody there?").await;
    let message = NewOutboundMessage {
        conversation_sid: sid.clone(),
        line: None,
        as_holder: None,
        body: "We will be back".to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    };
    app.app.api.outbox.send(message).await.unwrap();
    app.settle().await;
    assert_eq!(app.sandbox.conversations().len(), 1);
    assert!(
        app.received(PARTNER)
            .contains(&(LINE.to_owned(), "We will be back".to_owned()))
    );

    let assigned = app.start_transfer(sid, Kind::Assign, "noor").await;
    assert_eq!(finished(app, &assigned).await.state, State::Completed);
    assert_eq!(app.holders_at_twilio(sid), some(&["noor"]));
    tables::assert_ledger_is_whole(app).await;
    assert_mirror_equals_sandbox(app).await;
}

#[tokio::test]
async fn a_released_line_is_nobody_s_and_stays_in_the_group() {
    for identity_replacement in [IdentityReplacement::Update, IdentityReplacement::Refuse] {
        let (app, sid) = app_with_group(Wanted {
            identity_replacement,
            ..Wanted::default()
        })
        .await;
        release_and_assign(&app, &sid).await;
    }
}

#[tokio::test]
async fn a_released_line_goes_to_whom_the_settings_say() {
    let (app, sid) = app_with_group(Wanted {
        release_to: Some("front-desk".parse().unwrap()),
        ..Wanted::default()
    })
    .await;
    let by_supervisor = GiveUp {
        by: Actor::in_place_of("sam", "maya"),
        ..give_up(&sid, "sam")
    };
    let released = app.app.api.transfers.release(by_supervisor).await.unwrap();
    let released = finished(&app, &released).await;
    assert_eq!(
        (released.state, released.decided_as.as_deref()),
        (State::Completed, Some("maya"))
    );
    assert_eq!(app.holders(&sid).await, some(&["maya", "front-desk"]));
}

#[tokio::test]
async fn a_line_is_handed_back_to_whom_it_came_from() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let transfers = &app.app.api.transfers;
    let first = transfers.hand_back(give_up(&sid, "maya")).await.unwrap_err();
    assert!(matches!(first, StartTransferError::NoPreviousHolder));

    let there = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    assert_eq!(finished(&app, &there).await.state, State::Completed);
    let stranger = transfers.hand_back(give_up(&sid, "noor")).await.unwrap_err();
    assert!(matches!(stranger, StartTransferError::NotTheHolder { holder } if holder == "jonas"));
    let back = transfers.hand_back(give_up(&sid, "jonas")).await.unwrap();
    assert_eq!((back.kind, back.to()), (Kind::Handback, Some("maya")));
    assert_eq!(finished(&app, &back).await.state, State::Completed);
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas", "maya"]));

    // Before the present holder nobody had it.
    let released = transfers.release(give_up(&sid, "maya")).await.unwrap();
    finished(&app, &released).await;
    let assigned = app.start_transfer(&sid, Kind::Assign, "noor").await;
    finished(&app, &assigned).await;
    let nobody = transfers.hand_back(give_up(&sid, "noor")).await.unwrap_err();
    assert!(matches!(nobody, StartTransferError::NoPreviousHolder));
}
