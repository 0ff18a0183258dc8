//! A line changes hands: every kind of transfer, both behaviours of Twilio, refusals, crashes.

use hookswitch::ids::ConversationSid;
use hookswitch::sandbox::IdentityReplacement;
use hookswitch::transfer::{DecideError, IfOpen, Kind, NewTransfer, StartTransferError, State, Transfer};
use jiff::SignedDuration;

use crate::support::app::{BUYER, LINE, PARTNER, TestApp, Wanted, sid_of};

fn some(holders: &[&str]) -> Vec<Option<String>> {
    holders.iter().map(|holder| Some((*holder).to_owned())).collect()
}

async fn finished(app: &TestApp, transfer: &Transfer) -> Transfer {
    app.settle_for(SignedDuration::from_secs(3)).await;
    app.transfer(transfer.transfer_id).await
}

async fn app_with_group(holder: Option<&str>) -> (TestApp, ConversationSid) {
    let app = TestApp::start().await;
    let group = app.group(holder).await;
    let sid = sid_of(&group);
    (app, sid)
}

#[tokio::test]
async fn a_cold_transfer_gives_the_line_to_somebody_else_at_once() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let transfer = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    assert_eq!(transfer.state, State::Swapping);
    let transfer = finished(&app, &transfer).await;
    assert_eq!(
        (transfer.state, transfer.method.as_deref()),
        (State::Completed, Some("update"))
    );
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas"]));
    assert_eq!(app.holders_at_twilio(&sid), some(&["jonas"]));
}

#[tokio::test]
async fn a_warm_transfer_waits_for_the_target() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let transfer = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    app.settle().await;
    assert_eq!(app.transfer(transfer.transfer_id).await.state, State::Offered);
    assert_eq!(app.holders_at_twilio(&sid), some(&["maya"]));

    let wrong = app
        .app
        .api
        .transfers
        .accept(transfer.transfer_id, "zoe")
        .await
        .unwrap_err();
    assert!(matches!(wrong, DecideError::NotTheTarget { to } if to == "jonas"));
    app.app
        .api
        .transfers
        .accept(transfer.transfer_id, "jonas")
        .await
        .unwrap();
    let transfer = finished(&app, &transfer).await;
    assert_eq!(transfer.state, State::Completed);
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas"]));

    let again = app
        .app
        .api
        .transfers
        .accept(transfer.transfer_id, "jonas")
        .await
        .unwrap_err();
    assert!(matches!(
        again,
        DecideError::NotOpen {
            state: State::Completed,
            ..
        }
    ));
}

#[tokio::test]
async fn declining_cancelling_and_expiry_leave_the_line_as_it_is() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let transfers = &app.app.api.transfers;

    let declined = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    transfers.decline(declined.transfer_id, "jonas").await.unwrap();
    assert_eq!(finished(&app, &declined).await.state, State::Declined);

    let cancelled = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    transfers.cancel(cancelled.transfer_id, "crm").await.unwrap();
    assert_eq!(finished(&app, &cancelled).await.state, State::Cancelled);

    let expired = app.start_transfer(&sid, Kind::Escalation, "noor").await;
    app.clock.advance(SignedDuration::from_mins(4));
    app.settle().await;
    assert_eq!(app.transfer(expired.transfer_id).await.state, State::Offered);
    app.clock.advance(SignedDuration::from_mins(2));
    // Too late to accept, even before the timer has run.
    let late = transfers.accept(expired.transfer_id, "noor").await.unwrap_err();
    assert!(matches!(
        late,
        DecideError::NotOpen {
            state: State::Expired,
            ..
        }
    ));
    app.settle().await;
    assert_eq!(app.transfer(expired.transfer_id).await.state, State::Expired);

    assert_eq!(app.holders(&sid).await, some(&["maya"]));
    assert_eq!(app.holders_at_twilio(&sid), some(&["maya"]));
}

#[tokio::test]
async fn an_unstaffed_line_is_assigned() {
    let (app, sid) = app_with_group(None).await;
    assert_eq!(app.holders(&sid).await, [None]);
    let transfer = app.start_transfer(&sid, Kind::Assign, "maya").await;
    assert_eq!(finished(&app, &transfer).await.state, State::Completed);
    assert_eq!(app.holders(&sid).await, [None, Some("maya".to_owned())]);
}

#[tokio::test]
async fn where_twilio_refuses_to_replace_an_identity_the_new_holder_is_added_and_the_old_one_removed() {
    let wanted = Wanted {
        identity_replacement: IdentityReplacement::Refuse,
        ..Wanted::default()
    };
    let app = TestApp::start_with(wanted).await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let first = app.start_transfer(&sid, Kind::Cold, "jonas").await;
    let first = finished(&app, &first).await;
    assert_eq!(
        (first.state, first.method.as_deref()),
        (State::Completed, Some("add_remove"))
    );
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas"]));
    assert_eq!(app.holders_at_twilio(&sid), some(&["jonas"]));

    // What the account does is remembered: the second time nothing is tried in vain.
    let second = app.start_transfer(&sid, Kind::Cold, "noor").await;
    let second = finished(&app, &second).await;
    let steps = hookswitch::transfer::steps(&mut *app.conn().await, sid.as_str(), second.transfer_id)
        .await
        .unwrap();
    let actions: Vec<&str> = steps.iter().map(|step| step.action.as_str()).collect();
    assert_eq!(actions, ["add", "remove"]);
    assert_eq!(app.holders(&sid).await, some(&["maya", "jonas", "noor"]));

    // The customers still write to the same thread.
    app.text(BUYER, &[LINE, PARTNER], "Still there?").await;
    app.settle().await;
    assert_eq!(app.sandbox.conversations().len(), 1);
}

#[tokio::test]
async fn what_cannot_be_started_says_why() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let transfers = &app.app.api.transfers;
    let start = |kind, to: &str| transfers.start(TestApp::new_transfer(&sid, kind, to));

    assert!(matches!(
        start(Kind::Cold, "maya").await,
        Err(StartTransferError::AlreadyHolder)
    ));
    assert!(
        matches!(start(Kind::Assign, "noor").await, Err(StartTransferError::Staffed { holder }) if holder == "maya")
    );
    let other: ConversationSid = "CHffffffffffffffffffffffffffffffff".parse().unwrap();
    let missing = transfers
        .start(TestApp::new_transfer(&other, Kind::Cold, "noor"))
        .await;
    assert!(matches!(missing, Err(StartTransferError::ConversationNotFound)));
    let mut no_line = TestApp::new_transfer(&sid, Kind::Cold, "noor");
    no_line.line = Some("+15017122662".parse().unwrap());
    assert!(matches!(
        transfers.start(no_line).await,
        Err(StartTransferError::LineNotFound)
    ));

    let open = start(Kind::Warm, "jonas").await.unwrap();
    let second = NewTransfer {
        if_open: IfOpen::Refuse,
        ..TestApp::new_transfer(&sid, Kind::Warm, "noor")
    };
    let second = transfers.start(second).await.unwrap_err();
    assert!(
        matches!(second, StartTransferError::AlreadyOpen { transfer_id, to: Some(to), .. } if transfer_id == open.transfer_id && to == "jonas")
    );
}

#[tokio::test]
async fn two_who_start_at_once_end_with_one_open_transfer() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let start = |to: &'static str| {
        let new = NewTransfer {
            if_open: IfOpen::Refuse,
            ..TestApp::new_transfer(&sid, Kind::Warm, to)
        };
        let transfers = app.app.api.transfers.clone();
        tokio::spawn(async move { transfers.start(new).await })
    };
    let (one, other) = (start("jonas"), start("noor"));
    let (one, other) = (one.await.unwrap(), other.await.unwrap());
    assert_eq!(u8::from(one.is_ok()) + u8::from(other.is_ok()), 1);
    let refused = one.err().or(other.err()).unwrap();
    assert!(matches!(refused, StartTransferError::AlreadyOpen { .. }));
}

#[tokio::test]
async fn a_change_in_twilio_s_console_is_in_the_ledger_as_upstream() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let account = app
        .app
        .accounts
        .get(crate::support::app::ACCOUNT)
        .unwrap()
        .clone();
    let participants = account.client.list_participants(&sid).all().await.unwrap();
    let on_line = participants
        .iter()
        .find(|one| one.messaging_binding.projected_address.is_some())
        .unwrap();
    let update = hookswitch::twilio::requests::ParticipantUpdate {
        identity: Some("zoe".parse().unwrap()),
        ..Default::default()
    };
    account
        .client
        .update_participant(&sid, &on_line.sid, &update)
        .await
        .unwrap();
    app.settle().await;

    let tenures = hookswitch::ledger::tenures_of_conversation(&mut *app.conn().await, sid.as_str())
        .await
        .unwrap();
    let told: Vec<_> = tenures
        .iter()
        .map(|tenure| (tenure.holder.as_deref(), tenure.cause.as_str()))
        .collect();
    assert_eq!(told, [(Some("maya"), "created"), (Some("zoe"), "upstream")]);

    // And a transfer that had been offered by the old holder's leave is refused, with the facts.
    let transfer = app.start_transfer(&sid, Kind::Cold, "noor").await;
    assert_eq!(transfer.from_holder.as_deref(), Some("zoe"));
}

#[tokio::test]
async fn a_holder_who_is_changed_at_twilio_while_an_offer_stands_makes_the_transfer_fail() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let transfer = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    let account = app
        .app
        .accounts
        .get(crate::support::app::ACCOUNT)
        .unwrap()
        .clone();
    let participants = account.client.list_participants(&sid).all().await.unwrap();
    let on_line = participants
        .iter()
        .find(|one| one.messaging_binding.projected_address.is_some())
        .unwrap();
    let update = hookswitch::twilio::requests::ParticipantUpdate {
        identity: Some("zoe".parse().unwrap()),
        ..Default::default()
    };
    account
        .client
        .update_participant(&sid, &on_line.sid, &update)
        .await
        .unwrap();
    app.app
        .api
        .transfers
        .accept(transfer.transfer_id, "jonas")
        .await
        .unwrap();
    let transfer = finished(&app, &transfer).await;
    assert_eq!(
        (transfer.state, transfer.outcome_code.as_deref()),
        (State::Failed, Some("holder_changed"))
    );
    assert_eq!(app.holders(&sid).await, some(&["maya", "zoe"]));
}

#[tokio::test]
async fn a_closed_conversation_is_not_transferred_and_its_ledger_has_ended() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let transfer = app.start_transfer(&sid, Kind::Warm, "jonas").await;
    let account = app
        .app
        .accounts
        .get(crate::support::app::ACCOUNT)
        .unwrap()
        .clone();
    let close = hookswitch::twilio::requests::ConversationUpdate {
        state: Some(hookswitch::twilio::model::ConversationState::Closed),
        ..Default::default()
    };
    account.client.update_conversation(&sid, &close).await.unwrap();
    app.settle().await;
    app.app
        .api
        .transfers
        .accept(transfer.transfer_id, "jonas")
        .await
        .unwrap();
    let transfer = finished(&app, &transfer).await;
    assert_eq!(
        (transfer.state, transfer.outcome_code.as_deref()),
        (State::Failed, Some("conversation_closed"))
    );
    let tenures = hookswitch::ledger::tenures_of_conversation(&mut *app.conn().await, sid.as_str())
        .await
        .unwrap();
    assert!(tenures.iter().all(|tenure| tenure.to.is_some()));
    let refused = app
        .app
        .api
        .transfers
        .start(TestApp::new_transfer(&sid, Kind::Cold, "noor"))
        .await;
    assert!(matches!(refused, Err(StartTransferError::ConversationClosed)));
}
