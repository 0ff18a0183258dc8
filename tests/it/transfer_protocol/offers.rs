//! Offers: superseding, lists, supervisors who answer, the limit of hops, introductions.

use hookswitch::outbox;
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::transfer::{Actor, DecideError, IfOpen, Kind, NewTransfer, StartTransferError, State, Turn};
use jiff::SignedDuration;

use super::{answers, app_with_group, change_at_twilio, finished, force, list_of, some, told};
use crate::support::app::{BUYER, LINE, OTHER_LINE, PARTNER, TestApp, Wanted, new_group, sid_of};
use crate::support::tables;

#[tokio::test]
async fn a_new_offer_ends_the_old_one_and_its_target_hears_of_it() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let transfers = &app.app.api.transfers;
    let first = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    let second = app.start_transfer(&sid, Kind::Escalation, "noor").await;
    let first = app.transfer(first.transfer_id).await;
    assert_eq!(
        (first.state, first.superseded_by),
        (State::Superseded, Some(second.transfer_id))
    );
    assert_eq!(second.supersedes, Some(first.transfer_id));
    assert_eq!(told(&app, first.transfer_id).await, ["offered", "superseded"]);
    assert_eq!(answers(&app, &first).await, ["jonas withdrawn"]);

    // Who answers too late is told who was quicker, and when.
    let late = transfers.accept(first.transfer_id, "jonas").await.unwrap_err();
    assert!(
        matches!(&late, DecideError::NotOpen { state: State::Superseded, by: Some(by), at } if by == "crm" && *at == first.updated_at),
        "{late:?}"
    );

    // Somebody who gets the line at once ends an offer too; a swap that is under way is not interrupted by that.
    let third = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    assert_eq!(app.transfer(second.transfer_id).await.state, State::Superseded);
    let fourth = transfers
        .start(TestApp::new_transfer(&sid, Kind::Warm, "noor"))
        .await
        .unwrap_err();
    assert!(
        matches!(&fourth, StartTransferError::AlreadyOpen { transfer_id, state: State::Swapping, by, .. } if *transfer_id == third.transfer_id && by == "crm"),
        "{fourth:?}"
    );
    assert_eq!(finished(&app, &third).await.state, State::Completed);
    app.settle_for(SignedDuration::from_mins(20)).await;
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas"]));
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn two_who_offer_at_once_leave_one_offer_standing() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let start = |to: &'static str| {
        let (transfers, new) = (
            app.app.api.transfers.clone(),
            TestApp::new_transfer(&sid, Kind::Warm, to),
        );
        tokio::spawn(async move { transfers.start(new).await })
    };
    let both = [start("jonas"), start("noor"), start("ada")];
    for one in both {
        one.await.unwrap().unwrap();
    }
    assert_eq!(tables::count(&app, "transfer where state = 'offered'").await, 1);
    assert_eq!(
        tables::count(&app, "transfer where state = 'superseded'").await,
        2
    );
}

#[tokio::test]
async fn of_two_who_answer_at_once_one_wins_and_the_other_is_told_who_and_when() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    for _ in 0..5 {
        let to = if app.holders(&sid).await.last().unwrap().as_deref() == Some("maya") {
            "jonas"
        } else {
            "maya"
        };
        let transfer = app.start_transfer(&sid, Kind::Warm, to).await;
        let (id, transfers) = (transfer.transfer_id, app.app.api.transfers.clone());
        let (accepted, cancelled) = tokio::join!(transfers.accept(id, to), transfers.cancel(id, "crm"));
        let refused = match (&accepted, &cancelled) {
            (Ok(_), Err(refused)) | (Err(refused), Ok(_)) => refused,
            other => panic!("one of them wins: {other:?}"),
        };
        let winner = if accepted.is_ok() { to } else { "crm" };
        assert!(
            matches!(refused, DecideError::NotOpen { by: Some(by), .. } if by == winner),
            "{refused:?}"
        );
        let ended = finished(&app, &transfer).await;
        let expected = if accepted.is_ok() {
            State::Completed
        } else {
            State::Cancelled
        };
        assert_eq!(ended.state, expected);
    }
}

fn list(sid: &hookswitch::ids::ConversationSid, to: &[(&str, i64)]) -> NewTransfer {
    let timeout = |minutes| Some(SignedDuration::from_mins(minutes));
    let then = to[1..]
        .iter()
        .map(|(to, minutes)| Turn {
            to: to.parse().unwrap(),
            offer_timeout: timeout(*minutes),
        })
        .collect();
    NewTransfer {
        then,
        offer_timeout: timeout(to[0].1),
        ..TestApp::new_transfer(sid, Kind::Warm, to[0].0)
    }
}

#[tokio::test]
async fn a_list_is_asked_one_after_the_other_each_for_their_own_time() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let transfers = &app.app.api.transfers;
    let transfer = transfers
        .start(list(&sid, &[("jonas", 10), ("noor", 2), ("ada", 30)]))
        .await
        .unwrap();
    let id = transfer.transfer_id;
    assert_eq!(
        answers(&app, &transfer).await,
        ["jonas offered", "noor waiting", "ada waiting"]
    );
    // Not their turn.
    let early = transfers.accept(id, "noor").await.unwrap_err();
    assert!(matches!(early, DecideError::NotTheTarget { to } if to == "jonas"));

    let declined = transfers.decline(id, "jonas").await.unwrap();
    assert_eq!((declined.state, declined.to()), (State::Offered, Some("noor")));
    assert_eq!(
        declined.offer_expires_at,
        Some(declined.updated_at + SignedDuration::from_mins(2))
    );
    let late = transfers.accept(id, "jonas").await.unwrap_err();
    assert!(matches!(late, DecideError::NotTheTarget { to } if to == "noor"));

    // Noor does not answer within her two minutes, and Jonas's ten have not passed yet.
    app.settle_for(SignedDuration::from_mins(3)).await;
    let transfer = app.transfer(id).await;
    assert_eq!(transfer.to(), Some("ada"));
    // The timer of Jonas's turn comes in the middle of Ada's, and does nothing.
    app.settle_for(SignedDuration::from_mins(10)).await;
    assert_eq!(
        answers(&app, &transfer).await,
        ["jonas declined", "noor expired", "ada offered"]
    );
    transfers.accept(id, "ada").await.unwrap();
    let transfer = finished(&app, &transfer).await;
    assert_eq!(transfer.state, State::Completed);
    assert_eq!(
        answers(&app, &transfer).await,
        ["jonas declined", "noor expired", "ada accepted"]
    );
    assert_eq!(
        told(&app, id).await,
        [
            "offered",
            "declined",
            "offered",
            "expired",
            "offered",
            "accepted",
            "completed"
        ]
    );
    assert_eq!(app.holders(&sid).await, some(&["maya", "ada"]));
    app.settle_for(SignedDuration::from_mins(60)).await;
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn the_end_of_a_list_is_an_end_with_everybody_s_answer() {
    let app = TestApp::start().await;
    let mut with_two_lines = new_group(&[BUYER, PARTNER], Some("maya"));
    with_two_lines.members.push(hookswitch::group_text::NewMember {
        line: Some(OTHER_LINE.to_owned()),
        holder: Some("zoe".to_owned()),
        address: None,
    });
    let group = app.app.api.group_texts.start(with_two_lines).await.unwrap();
    app.settle_for(SignedDuration::from_secs(3)).await;
    let sid = sid_of(&app.group_text(group.group_text_id).await);
    let new = NewTransfer {
        line: Some(LINE.parse().unwrap()),
        ..list(&sid, &[("zoe", 5), ("jonas", 5), ("maya", 5), ("noor", 5)])
    };
    let transfer = app.app.api.transfers.start(new).await.unwrap();
    let id = transfer.transfer_id;
    assert_eq!(
        transfer.to(),
        Some("jonas"),
        "zoe holds another line of the group"
    );
    app.app.api.transfers.decline(id, "jonas").await.unwrap();
    app.settle_for(SignedDuration::from_mins(6)).await;
    let transfer = app.transfer(id).await;
    assert_eq!(transfer.state, State::Exhausted);
    assert_eq!(
        answers(&app, &transfer).await,
        ["zoe skipped", "jonas declined", "maya skipped", "noor expired"]
    );
    let reasons: Vec<_> = list_of(&app, &transfer)
        .await
        .into_iter()
        .filter_map(|one| one.reason)
        .collect();
    assert_eq!(reasons, ["target_in_group", "already_holder"]);
    assert_eq!(
        told(&app, id).await,
        [
            "skipped",
            "offered",
            "declined",
            "skipped",
            "offered",
            "expired",
            "exhausted"
        ]
    );
    assert!(app.app.api.transfers.accept(id, "noor").await.is_err());

    // Where nobody at all can be asked, there is no transfer.
    let nobody = NewTransfer {
        line: Some(LINE.parse().unwrap()),
        ..list(&sid, &[("zoe", 5), ("maya", 5)])
    };
    let refused = app.app.api.transfers.start(nobody).await.unwrap_err();
    assert!(matches!(&refused, StartTransferError::NobodyFree { passed } if passed.len() == 2));
}

#[tokio::test]
async fn a_supervisor_answers_in_somebody_s_place_and_that_is_on_record() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let transfers = &app.app.api.transfers;
    let transfer = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    let id = transfer.transfer_id;
    let other = transfers.accept(id, Actor::in_place_of("sam", "noor")).await;
    assert!(matches!(other, Err(DecideError::NotTheTarget { to }) if to == "jonas"));
    transfers
        .accept(id, Actor::in_place_of("sam", "jonas"))
        .await
        .unwrap();
    let transfer = finished(&app, &transfer).await;
    assert_eq!(
        (
            transfer.state,
            transfer.decided_by.as_deref(),
            transfer.decided_as.as_deref()
        ),
        (State::Completed, Some("sam"), Some("jonas"))
    );
    let on_record = tables::rows(
        &app,
        "select actor || ' for ' || (data::jsonb ->> 'decided_as') from event where type = 'transfer.accepted'",
    );
    assert_eq!(on_record.await, ["sam for jonas"]);
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas"]));
}

#[tokio::test]
async fn a_line_changes_hands_only_so_often_in_an_hour() {
    let (app, sid) = app_with_group(Wanted {
        hops_per_hour: 2,
        ..Wanted::default()
    })
    .await;
    let mut first = None;
    for to in ["jonas", "noor"] {
        let transfer = app.start_transfer(&sid, Kind::Cold, to).await;
        let ended = finished(&app, &transfer).await;
        assert_eq!(ended.state, State::Completed);
        first = first.or(ended.finished_at);
    }
    let third = || {
        app.app
            .api
            .transfers
            .start(TestApp::new_transfer(&sid, Kind::Cold, "ada"))
    };
    let next = first.unwrap() + SignedDuration::from_hours(1);
    let refused = third().await.unwrap_err();
    assert!(
        matches!(refused, StartTransferError::TooManyHops { limit: 2, next_at } if next_at == next),
        "{refused:?}"
    );
    // A supervisor may, and it counts.
    let forced = app.app.api.transfers.force(force(&sid, "maya")).await.unwrap();
    assert_eq!(finished(&app, &forced).await.state, State::Completed);
    app.settle_for(next.duration_since(app.clock.now())).await;
    assert!(
        third().await.is_err(),
        "the second and the forced one are within the hour"
    );
    app.settle_for(SignedDuration::from_mins(59)).await;
    third().await.unwrap();
}

fn with_introduction(sid: &hookswitch::ids::ConversationSid, to: &str) -> NewTransfer {
    NewTransfer {
        introduction: Some("Hello, I am taking over from here.".to_owned()),
        note: Some("They are in a hurry.".to_owned()),
        reason: Some("knows the area".to_owned()),
        ..TestApp::new_transfer(sid, Kind::Warm, to)
    }
}

#[tokio::test]
async fn the_new_holder_introduces_themselves_once_and_the_note_stays_with_us() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let transfer = app
        .app
        .api
        .transfers
        .start(with_introduction(&sid, "jonas"))
        .await
        .unwrap();
    app.settle().await;
    assert_eq!(
        app.received(BUYER),
        [],
        "nothing is said before the line is theirs"
    );
    app.app
        .api
        .transfers
        .accept(transfer.transfer_id, "jonas")
        .await
        .unwrap();
    let transfer = finished(&app, &transfer).await;
    assert_eq!(transfer.state, State::Completed);
    for handset in [BUYER, PARTNER] {
        let expected = (LINE.to_owned(), "Hello, I am taking over from here.".to_owned());
        assert_eq!(app.received(handset), [expected]);
    }
    let messages = app.at_twilio(&sid).messages;
    assert_eq!(messages.len(), 1, "and nothing else is posted");
    assert_eq!(messages[0].author, "jonas");
    assert!(
        told(&app, transfer.transfer_id)
            .await
            .ends_with(&["completed".to_owned(), "introduced".to_owned()])
    );
    let words =
        "event where data ilike '%hurry%' or data ilike '%taking over%' or data ilike '%knows the area%'";
    assert_eq!(tables::count(&app, words).await, 0, "the log holds no words");
}

#[tokio::test]
async fn an_introduction_that_cannot_be_posted_does_not_fail_the_transfer_and_is_told() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    app.sandbox
        .set_faults(Faults {
            rest: vec![RestFault {
                method: Some("POST".to_owned()),
                path: Some("/v1/Services/*/Conversations/*/Messages".to_owned()),
                status: Some(503),
                effect: Effect::Before,
                hold_ms: 0,
                probability: 1.0,
                times: Some(1),
            }],
            ..Faults::default()
        })
        .unwrap();
    let transfer = app
        .app
        .api
        .transfers
        .start(NewTransfer {
            kind: Kind::Cold,
            if_open: IfOpen::Refuse,
            ..with_introduction(&sid, "jonas")
        })
        .await
        .unwrap();
    app.settle().await;
    // While it waits to be posted, the line goes to somebody else in Twilio's console.
    assert_eq!(app.transfer(transfer.transfer_id).await.state, State::Completed);
    change_at_twilio(&app, &sid, "zoe").await;
    let transfer = finished(&app, &transfer).await;
    assert_eq!(transfer.state, State::Completed);
    let send = transfer.introduction_send_id.unwrap();
    let message = outbox::find(&mut *app.conn().await, send).await.unwrap().unwrap();
    assert_eq!(
        (message.state, message.outcome_code.as_deref()),
        (outbox::State::Failed, Some("not_the_holder"))
    );
    assert_eq!(app.received(BUYER), [], "nobody speaks in somebody else's name");
    assert!(
        told(&app, transfer.transfer_id)
            .await
            .ends_with(&["completed".to_owned(), "introduction_failed".to_owned()])
    );
}
