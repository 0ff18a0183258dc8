//! The process dies at every step of every verb, and the next one dies too.

use hookswitch::ids::ConversationSid;
use hookswitch::sandbox::IdentityReplacement;
use hookswitch::transfer::{Kind, NewForce, NewTransfer, State, Transfer, Turn};
use jiff::SignedDuration;

use super::{app_with_group, force, give_up};
use crate::support::app::{BUYER, LINE, TestApp, Wanted};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::cut::{Points, work_and_die};
use crate::support::tables;

const LEASES: SignedDuration = SignedDuration::from_mins(10);

async fn holder(app: &TestApp, sid: &ConversationSid) -> Option<String> {
    app.holders(sid).await.pop().unwrap()
}

fn other_than(holder: Option<&str>) -> &'static str {
    if holder == Some("maya") { "jonas" } else { "maya" }
}

#[derive(Debug, Clone, Copy)]
enum Verb {
    Introduced,
    Force,
    HandBack,
    /// And then it is assigned.
    Release,
    /// The second on a list accepts.
    List,
}

/// One that has not been worked on; and who has the line after it.
async fn begun(app: &TestApp, sid: &ConversationSid, verb: Verb, text: &str) -> Transfer {
    let transfers = &app.app.api.transfers;
    let holder = holder(app, sid).await;
    let to = other_than(holder.as_deref());
    let introduction = Some(text.to_owned());
    match verb {
        Verb::Introduced => {
            let new = NewTransfer {
                introduction,
                ..TestApp::new_transfer(sid, Kind::Cold, to)
            };
            transfers.start(new).await.unwrap()
        }
        Verb::Force => {
            let new = NewForce {
                introduction,
                ..force(sid, to)
            };
            transfers.force(new).await.unwrap()
        }
        Verb::HandBack => {
            let mut back = give_up(sid, holder.as_deref().unwrap());
            back.introduction = introduction;
            transfers.hand_back(back).await.unwrap()
        }
        Verb::Release if holder.is_none() => {
            let new = NewTransfer {
                introduction,
                ..TestApp::new_transfer(sid, Kind::Assign, "noor")
            };
            transfers.start(new).await.unwrap()
        }
        Verb::Release => transfers
            .release(give_up(sid, holder.as_deref().unwrap()))
            .await
            .unwrap(),
        Verb::List => {
            let new = NewTransfer {
                introduction,
                then: vec![Turn {
                    to: to.parse().unwrap(),
                    offer_timeout: None,
                }],
                ..TestApp::new_transfer(sid, Kind::Warm, "zoe")
            };
            let offered = transfers.start(new).await.unwrap();
            transfers.decline(offered.transfer_id, "zoe").await.unwrap();
            transfers.accept(offered.transfer_id, to).await.unwrap()
        }
    }
}

async fn verb_survives_two_deaths(replacement: IdentityReplacement, verb: Verb, step: usize) {
    let (app, sid) = app_with_group(Wanted::default()).await;
    app.sandbox.set_identity_replacement(replacement);
    if let Verb::HandBack = verb {
        app.start_transfer(&sid, Kind::Cold, "jonas").await;
        app.settle_for(SignedDuration::from_secs(5)).await;
    }
    let process = app.restarted();
    let mut points = Points::default();
    for polls in (1..2_000).step_by(step) {
        let second = 1 + (polls * 13) % 47;
        let point = format!("{verb:?} with {replacement:?}, deaths at {polls} and {second}");
        let transfer = begun(&app, &sid, verb, &format!("{verb:?} {polls}")).await;
        let alive = work_and_die(&app, &process, polls).await;
        app.advance(LEASES);
        work_and_die(&app, &process, second).await;
        app.settle_for(LEASES).await;
        app.settle_for(LEASES).await;
        let ended = app.transfer(transfer.transfer_id).await;
        assert_eq!(ended.state, State::Completed, "{point}: {ended:?}");
        let to = ended.to().map(str::to_owned);
        assert_eq!(app.holders_at_twilio(&sid), std::slice::from_ref(&to), "{point}");
        assert_eq!(holder(&app, &sid).await, to, "{point}");
        let copies = app
            .received(BUYER)
            .into_iter()
            .filter(|(from, body)| from == LINE && Some(body) == ended.introduction.as_ref())
            .count();
        assert_eq!(copies, usize::from(ended.introduction.is_some()), "{point}");
        let done = format!(
            "event where type = 'transfer.completed' and subject = '{}'",
            ended.transfer_id
        );
        assert_eq!(tables::count(&app, &done).await, 1, "{point}");
        tables::assert_queue_is_empty(&app).await;
        assert_mirror_equals_sandbox(&app).await;
        if points.note("verb", alive) {
            return;
        }
    }
    panic!("no process came to the end alive");
}

#[tokio::test]
async fn an_introduced_transfer_survives_two_deaths() {
    Box::pin(verb_survives_two_deaths(
        IdentityReplacement::Update,
        Verb::Introduced,
        3,
    ))
    .await;
}

#[tokio::test]
async fn a_force_survives_two_deaths() {
    Box::pin(verb_survives_two_deaths(
        IdentityReplacement::Refuse,
        Verb::Force,
        5,
    ))
    .await;
}

#[tokio::test]
async fn a_handback_survives_two_deaths() {
    Box::pin(verb_survives_two_deaths(
        IdentityReplacement::Update,
        Verb::HandBack,
        5,
    ))
    .await;
}

#[tokio::test]
async fn a_release_survives_two_deaths() {
    Box::pin(verb_survives_two_deaths(
        IdentityReplacement::Update,
        Verb::Release,
        4,
    ))
    .await;
}

#[tokio::test]
async fn the_second_of_a_list_survives_two_deaths() {
    Box::pin(verb_survives_two_deaths(
        IdentityReplacement::Update,
        Verb::List,
        6,
    ))
    .await;
}
