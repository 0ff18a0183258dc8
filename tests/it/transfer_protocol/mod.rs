//! Transfers as a protocol: offers that end each other and go through a list, what supervisors and holders do without
//! asking, what the new holder says, and every way in which a transfer ends.

mod deaths;
mod ends;
mod offers;
mod random;
mod repairs;
mod take;

use hookswitch::ids::ConversationSid;
use hookswitch::transfer::{Candidate, GiveUp, IfOpen, NewForce, Transfer, candidates};
use hookswitch::twilio::requests::ParticipantUpdate;
use jiff::SignedDuration;
use uuid::Uuid;

use crate::support::app::{ACCOUNT, LINE, TestApp, Wanted, sid_of};
use crate::support::tables;

async fn app_with_group(wanted: Wanted) -> (TestApp, ConversationSid) {
    let app = TestApp::start_with(wanted).await;
    let sid = sid_of(&app.group(Some("maya")).await);
    (app, sid)
}

fn some(holders: &[&str]) -> Vec<Option<String>> {
    holders.iter().map(|holder| Some((*holder).to_owned())).collect()
}

async fn finished(app: &TestApp, transfer: &Transfer) -> Transfer {
    app.settle_for(SignedDuration::from_secs(5)).await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    app.transfer(transfer.transfer_id).await
}

async fn list_of(app: &TestApp, transfer: &Transfer) -> Vec<Candidate> {
    let sid = transfer.conversation_sid.as_str();
    candidates(&mut *app.conn().await, sid, transfer.transfer_id)
        .await
        .unwrap()
}

/// Everybody on a list with what became of them, like `jonas declined`.
async fn answers(app: &TestApp, transfer: &Transfer) -> Vec<String> {
    let list = list_of(app, transfer).await;
    list.into_iter()
        .map(|one| format!("{} {}", one.identity, one.state))
        .collect()
}

/// What the log tells of a transfer, in order.
async fn told(app: &TestApp, transfer_id: Uuid) -> Vec<String> {
    let sql = format!(
        "select replace(type, 'transfer.', '') from event where subject = '{transfer_id}' order by commit_xid, event_id"
    );
    tables::rows(app, &sql).await
}

fn force(sid: &ConversationSid, to: &str) -> NewForce {
    NewForce {
        conversation_sid: sid.clone(),
        line: None,
        to: to.parse().unwrap(),
        by: "sam".to_owned(),
        reason: Some("is needed elsewhere".to_owned()),
        note: None,
        introduction: None,
    }
}

fn give_up(sid: &ConversationSid, by: &str) -> GiveUp {
    GiveUp {
        conversation_sid: sid.clone(),
        line: None,
        by: by.into(),
        reason: None,
        note: None,
        introduction: None,
        if_open: IfOpen::default(),
    }
}

/// Somebody gives the line to somebody else in Twilio's console.
async fn change_at_twilio(app: &TestApp, sid: &ConversationSid, to: &str) {
    let account = app.app.accounts.get(ACCOUNT).unwrap().clone();
    let update = ParticipantUpdate {
        identity: Some(to.parse().unwrap()),
        ..Default::default()
    };
    let seat = seat_at_twilio(app, sid);
    account
        .client
        .update_participant(sid, &seat, &update)
        .await
        .unwrap();
}

/// Somebody takes the line's participant out of the group in Twilio's console.
async fn remove_at_twilio(app: &TestApp, sid: &ConversationSid) {
    let account = app.app.accounts.get(ACCOUNT).unwrap().clone();
    let seat = seat_at_twilio(app, sid);
    account.client.delete_participant(sid, &seat).await.unwrap();
}

/// The participant that came to the line first.
fn seat_at_twilio(app: &TestApp, sid: &ConversationSid) -> hookswitch::ids::ParticipantSid {
    let members = app.at_twilio(sid).participants;
    let on_line = members.iter().find(|member| {
        member
            .projected_address
            .as_ref()
            .is_some_and(|line| line.as_str() == LINE)
    });
    on_line.unwrap().sid.to_string().parse().unwrap()
}
