//! Every end that a transfer may come to without anybody's wish.

use std::time::Duration;

use hookswitch::outbox::NewOutboundMessage;
use hookswitch::sandbox::{Effect, Faults, IdentityReplacement, RestFault};
use hookswitch::transfer::{Kind, NewTransfer, StartTransferError, State, Turn};
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::{ConversationUpdate, Member};
use jiff::SignedDuration;

use super::{answers, app_with_group, change_at_twilio, finished, list_of, remove_at_twilio, some, told};
use crate::support::app::{ACCOUNT, LINE, OTHER_LINE, TestApp, Wanted, new_group, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::tables;

fn fault(method: &str, path: &str, status: Option<u16>, times: Option<u32>) -> Faults {
    Faults {
        rest: vec![RestFault {
            method: (!method.is_empty()).then(|| method.to_owned()),
            path: (!path.is_empty()).then(|| path.to_owned()),
            status,
            effect: Effect::Before,
            hold_ms: 0,
            probability: 1.0,
            times,
        }],
        ..Faults::default()
    }
}

#[tokio::test]
async fn a_target_who_comes_into_the_group_on_another_line_ends_it() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let offered = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    let account = app.app.accounts.get(ACCOUNT).unwrap().clone();
    let joins = Member::Projected {
        identity: "jonas".parse().unwrap(),
        projected_address: OTHER_LINE.parse().unwrap(),
    };
    account
        .client
        .create_participant(&sid, &joins.into())
        .await
        .unwrap();
    app.app
        .api
        .transfers
        .accept(offered.transfer_id, "jonas")
        .await
        .unwrap();
    let ended = finished(&app, &offered).await;
    assert_eq!(
        (ended.state, ended.outcome_code.as_deref()),
        (State::Failed, Some("target_in_group"))
    );
    let mut new = TestApp::new_transfer(&sid, Kind::Cold, "jonas");
    new.line = Some(LINE.parse().unwrap());
    let refused = app.app.api.transfers.start(new).await.unwrap_err();
    assert!(matches!(refused, StartTransferError::TargetInGroup));
    assert_eq!(app.holders_at_twilio(&sid), some(&["maya"]));
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn a_line_that_is_removed_at_twilio_ends_it() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let offered = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    remove_at_twilio(&app, &sid).await;
    app.app
        .api
        .transfers
        .accept(offered.transfer_id, "jonas")
        .await
        .unwrap();
    let ended = finished(&app, &offered).await;
    assert_eq!(
        (ended.state, ended.outcome_code.as_deref()),
        (State::Failed, Some("line_gone"))
    );
    assert_eq!(
        told(&app, ended.transfer_id).await,
        ["offered", "accepted", "failed"]
    );
    let refused = app
        .app
        .api
        .transfers
        .start(TestApp::new_transfer(&sid, Kind::Cold, "noor"))
        .await
        .unwrap_err();
    assert!(matches!(refused, StartTransferError::LineNotFound));
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn an_old_holder_who_is_gone_already_is_not_missed() {
    let (app, sid) = app_with_group(Wanted {
        identity_replacement: IdentityReplacement::Refuse,
        ..Wanted::default()
    })
    .await;
    let path = "/v1/Services/*/Conversations/*/Participants/*";
    app.sandbox
        .set_faults(fault("DELETE", path, Some(503), None))
        .unwrap();
    let transfer = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    app.settle().await;
    assert_eq!(app.holders_at_twilio(&sid), some(&["maya", "jonas"]));
    app.sandbox.set_faults(Faults::default()).unwrap();
    remove_at_twilio(&app, &sid).await;
    let ended = finished(&app, &transfer).await;
    assert_eq!(ended.state, State::Completed);
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas"]));
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn a_target_to_whom_somebody_gave_the_line_at_twilio_has_it() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let offered = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    change_at_twilio(&app, &sid, "jonas").await;
    app.app
        .api
        .transfers
        .accept(offered.transfer_id, "jonas")
        .await
        .unwrap();
    let ended = finished(&app, &offered).await;
    assert_eq!(
        (ended.state, ended.method.as_deref()),
        (State::Completed, Some("none"))
    );
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas"]));
}

/// Where identities are replaced, a full group is no matter; where they are added, there is no place.
#[tokio::test]
async fn a_group_of_ten_has_no_place_beside_the_holder() {
    let app = TestApp::start().await;
    let handsets: Vec<String> = (1..=9).map(|place| format!("+155555501{place:02}")).collect();
    let handsets: Vec<&str> = handsets.iter().map(String::as_str).collect();
    let group = app
        .app
        .api
        .group_texts
        .start(new_group(&handsets, Some("maya")))
        .await
        .unwrap();
    app.settle_for(SignedDuration::from_secs(3)).await;
    let sid = sid_of(&app.group_text(group.group_text_id).await);
    assert_eq!(app.at_twilio(&sid).participants.len(), 10);
    let updated = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    assert_eq!(finished(&app, &updated).await.state, State::Completed);
    app.sandbox.set_identity_replacement(IdentityReplacement::Refuse);
    let refused = app.start_transfer(&sid, Kind::Cold, "noor").await;
    let refused = finished(&app, &refused).await;
    assert_eq!(
        (refused.state, refused.outcome_code.as_deref()),
        (State::Failed, Some("group_full"))
    );
    assert_eq!(app.holders_at_twilio(&sid), some(&["jonas"]));
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas"]));
    assert_mirror_equals_sandbox(&app).await;
}

/// Before a group is active nobody knows of its lines; then they can be given.
#[tokio::test]
async fn a_conversation_that_is_being_set_up_has_no_line_to_give_yet() {
    let app = TestApp::start_with(Wanted {
        activation_delay: Duration::from_secs(3),
        ..Wanted::default()
    })
    .await;
    let group = app.ask_for_group(Some("maya")).await;
    app.app.worker.run_until_idle().await.unwrap();
    let known = app.group_text(group.group_text_id).await;
    let sid = sid_of(&known);
    let early = app
        .app
        .api
        .transfers
        .start(TestApp::new_transfer(&sid, Kind::Cold, "jonas"))
        .await
        .unwrap_err();
    assert!(
        matches!(
            early,
            StartTransferError::LineNotFound | StartTransferError::ConversationNotFound
        ),
        "{early:?}"
    );
    app.settle_for(SignedDuration::from_secs(3)).await;
    let transfer = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    assert_eq!(finished(&app, &transfer).await.state, State::Completed);
}

#[tokio::test]
async fn while_twilio_is_down_everything_waits_and_says_why() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    app.sandbox.set_faults(fault("", "", Some(503), None)).unwrap();
    let offered = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    app.app
        .api
        .transfers
        .accept(offered.transfer_id, "jonas")
        .await
        .unwrap();
    app.settle().await;
    let began = app.clock.now();
    for _ in 0..60 {
        app.settle_for(SignedDuration::from_mins(1)).await;
        let waits = app.transfer(offered.transfer_id).await;
        assert_eq!(waits.state, State::Swapping);
        let waiting = waits.waiting.unwrap();
        assert_eq!(waiting.what, "twilio");
        assert_eq!(waiting.error.as_deref(), Some("unavailable_20503"));
        assert!(
            waiting.since <= began,
            "since the first time that it could not go on"
        );
    }
    assert_eq!(
        told(&app, offered.transfer_id).await,
        ["offered", "accepted", "waiting"],
        "it is told once"
    );
    // A message that somebody sends meanwhile comes after the swap, in its order: it is in the new holder's name.
    let meanwhile = NewOutboundMessage {
        conversation_sid: sid.clone(),
        line: None,
        as_holder: None,
        body: "See you on Friday".to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    };
    app.app.api.outbox.send(meanwhile).await.unwrap();
    app.sandbox.set_faults(Faults::default()).unwrap();
    // The longest pause between two attempts, and the message after it.
    app.settle_for(SignedDuration::from_mins(10)).await;
    app.settle_for(SignedDuration::from_mins(1)).await;
    let author = "select author from message where body = 'See you on Friday'";
    assert_eq!(tables::rows(&app, author).await, ["jonas"]);
    let ended = app.transfer(offered.transfer_id).await;
    assert_eq!((ended.state, ended.waiting), (State::Completed, None));
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas"]));
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn a_twilio_that_never_comes_back_ends_it_in_time() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    app.sandbox.set_faults(fault("", "", Some(503), None)).unwrap();
    let transfer = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    for _ in 0..15 {
        app.settle_for(SignedDuration::from_mins(10)).await;
    }
    let ended = app.transfer(transfer.transfer_id).await;
    assert_eq!(
        (ended.state, ended.outcome_code.as_deref()),
        (State::Failed, Some("timed_out"))
    );
    app.sandbox.set_faults(Faults::default()).unwrap();
    app.settle_for(SignedDuration::from_mins(10)).await;
    assert_eq!(app.holders_at_twilio(&sid), some(&["maya"]));
    tables::assert_queue_is_empty(&app).await;
}

/// One read of the members, one change, one read of the members: the conversation itself is read only in doubt.
#[tokio::test]
async fn a_swap_that_goes_well_reads_nothing_but_the_members() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let conversation = fault("GET", "/v1/Services/*/Conversations/*", Some(503), Some(1));
    let mut doubtful = conversation.clone();
    let update = RestFault {
        method: Some("POST".to_owned()),
        path: Some("/v1/Services/*/Conversations/*/Participants/*".to_owned()),
        status: None,
        effect: Effect::After,
        times: None,
        ..doubtful.rest[0].clone()
    };
    doubtful.rest.push(update);
    app.sandbox.set_faults(doubtful).unwrap();
    let transfer = app.start_transfer(&sid, Kind::Cold, "noor").await;
    app.settle().await;
    app.settle_for(SignedDuration::from_secs(3)).await;
    assert_eq!(app.sandbox.faults().rest[0].times, Some(0), "in doubt it is");
    app.sandbox.set_faults(Faults::default()).unwrap();
    assert_eq!(finished(&app, &transfer).await.state, State::Completed);
    for replacement in [IdentityReplacement::Update, IdentityReplacement::Refuse] {
        app.sandbox.set_identity_replacement(replacement);
        app.sandbox.set_faults(conversation.clone()).unwrap();
        for to in ["jonas", "maya"] {
            let transfer = app.start_transfer(&sid, Kind::Cold, to).await;
            app.settle().await;
            assert_eq!(app.transfer(transfer.transfer_id).await.state, State::Completed);
        }
        assert_eq!(app.sandbox.faults().rest[0].times, Some(1), "{replacement:?}");
    }
}

/// Nobody else is asked about a conversation that is over.
#[tokio::test]
async fn a_list_ends_with_the_conversation() {
    let (app, sid) = app_with_group(Wanted::default()).await;
    let new = NewTransfer {
        then: vec![Turn {
            to: "noor".parse().unwrap(),
            offer_timeout: None,
        }],
        ..TestApp::new_transfer(&sid, Kind::Warm, "jonas")
    };
    let transfer = app.app.api.transfers.start(new).await.unwrap();
    let account = app.app.accounts.get(ACCOUNT).unwrap().clone();
    let close = ConversationUpdate {
        state: Some(ConversationState::Closed),
        ..Default::default()
    };
    account.client.update_conversation(&sid, &close).await.unwrap();
    app.settle().await;
    let ended = app
        .app
        .api
        .transfers
        .decline(transfer.transfer_id, "jonas")
        .await
        .unwrap();
    assert_eq!(ended.state, State::Exhausted);
    assert_eq!(answers(&app, &ended).await, ["jonas declined", "noor skipped"]);
    let list = list_of(&app, &ended).await;
    assert_eq!(list[1].reason.as_deref(), Some("conversation_closed"));
}
