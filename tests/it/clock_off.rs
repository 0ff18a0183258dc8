//! The machine's clock is an hour off: what is stamped by Twilio and what is stamped by us meet all the same.

use hookswitch::outbox::NewOutboundMessage;
use hookswitch::transfer::{Kind, State};
use hookswitch::twilio::requests::MessageUpdate;
use jiff::SignedDuration;

use crate::support::app::{BUYER, LINE, PARTNER, TestApp, Wanted, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;

async fn all_goes_well_with_a_clock_off_by(clock_off: SignedDuration) {
    let app = TestApp::start_with(Wanted {
        clock_off,
        ..Wanted::default()
    })
    .await;
    let while_passes = SignedDuration::from_secs(3);
    let sid = sid_of(&app.group(Some("maya")).await);
    let new = NewOutboundMessage {
        conversation_sid: sid.clone(),
        line: None,
        as_holder: None,
        body: "Welcome!".to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    };
    app.app.api.outbox.send(new.clone()).await.unwrap();
    app.settle_for(while_passes).await;
    app.text(BUYER, &[LINE, PARTNER], "Hello!").await;
    app.settle_for(while_passes).await;

    let transfer = app.start_transfer(&sid, Kind::Cold, "noor").await;
    app.settle_for(while_passes).await;
    assert_eq!(app.transfer(transfer.transfer_id).await.state, State::Completed);
    let both = ["maya", "noor"].map(|holder| Some(holder.to_owned()));
    assert_eq!(app.holders(&sid).await, both);
    app.app.api.outbox.send(new).await.unwrap();
    app.settle_for(while_passes).await;
    assert_mirror_equals_sandbox(&app).await;

    // Unheard: an edit, a deletion, a message, and a handset that left.
    app.lose_webhooks();
    let client = &app.account().client;
    let messages = app.at_twilio(&sid).messages;
    let edit = MessageUpdate {
        body: Some("Welcome to you!".into()),
        ..MessageUpdate::default()
    };
    client
        .update_message(&sid, &messages[0].sid, &edit)
        .await
        .unwrap();
    client.delete_message(&sid, &messages[1].sid).await.unwrap();
    app.text(BUYER, &[LINE, PARTNER], "Are you there?").await;
    let participants = app.at_twilio(&sid).participants;
    let partner = participants
        .iter()
        .find(|one| {
            one.address
                .as_ref()
                .is_some_and(|address| address.as_str() == PARTNER)
        })
        .unwrap();
    client.delete_participant(&sid, &partner.sid).await.unwrap();
    app.sandbox.settled().await;
    app.deliver_webhooks();
    app.advance(while_passes);
    // What was gone before a sweep begins must not come back with a later one.
    for _ in 0..2 {
        app.sweep().await;
        app.settle_for(while_passes).await;
        assert_mirror_equals_sandbox(&app).await;
    }
}

#[tokio::test]
async fn an_hour_ahead_changes_nothing() {
    all_goes_well_with_a_clock_off_by(SignedDuration::from_hours(1)).await;
}

#[tokio::test]
async fn an_hour_behind_changes_nothing() {
    all_goes_well_with_a_clock_off_by(SignedDuration::from_hours(-1)).await;
}
