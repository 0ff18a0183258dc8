//! Twilio misbehaves while a plan runs, and the two do not agree to begin with.

use hookswitch::handover::{Finding, LineState, State};
use hookswitch::sandbox::{Effect, Faults, RestFault, WebhookAction, WebhookFault};
use jiff::SignedDuration;

use super::{Desk, to_ada};

fn rest(status: Option<u16>, effect: Effect, probability: f64) -> RestFault {
    RestFault {
        method: None,
        path: None,
        status,
        effect,
        hold_ms: 0,
        probability,
        times: None,
    }
}

#[tokio::test]
async fn under_faults_every_line_comes_to_an_end_and_the_ledger_is_as_twilio() {
    for seed in 1..4 {
        let desk = Desk::open().await;
        let sids = desk.groups(1_000, 6, "maya").await;
        let lose = WebhookFault {
            action: WebhookAction::Lose,
            events: Vec::new(),
            ms: 0,
            probability: 0.3,
            times: None,
        };
        let faults = Faults {
            seed,
            rest: vec![
                rest(Some(503), Effect::Before, 0.1),
                rest(Some(500), Effect::After, 0.1),
                rest(Some(429), Effect::Before, 0.1),
                rest(None, Effect::After, 0.05),
            ],
            webhooks: vec![lose],
            ..Faults::default()
        };
        desk.app.sandbox.set_faults(faults).unwrap();
        let id = desk.ask(to_ada()).await.handover_id;
        for _ in 0..300 {
            desk.app.settle().await;
            let plan = desk.plan(id).await;
            match plan.state {
                State::Draft => drop(desk.run(id).await),
                state if state.is_final() => break,
                _ => {}
            }
            desk.app.advance(SignedDuration::from_secs(20));
        }
        desk.app.sandbox.set_faults(Faults::default()).unwrap();
        assert_eq!(
            desk.plan(id).await.state,
            State::Completed,
            "seed {seed}: {:?}",
            desk.counts(id).await
        );
        desk.app.settle_for(SignedDuration::from_mins(15)).await;
        let holders = desk.holders(&sids).await;
        for (line, holder) in desk.lines(id).await.iter().zip(&holders) {
            match line.state {
                LineState::HandedOver => assert_eq!(holder, "ada", "seed {seed}: {line:?}"),
                LineState::Failed => assert!(line.outcome.is_some(), "seed {seed}: {line:?}"),
                _ => panic!("seed {seed}: {line:?}"),
            }
        }
    }
}

#[tokio::test]
async fn a_line_that_only_twilio_knows_is_read_and_handed_over() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 2, "zoe").await;
    desk.change_silently(&sids[1], "maya").await;
    let id = desk.draft(to_ada()).await.handover_id;
    let lines = desk.lines(id).await;
    assert_eq!(lines.len(), 1);
    assert_eq!(
        (lines[0].finding, lines[0].state),
        (Finding::OnlyAtTwilio, LineState::Waiting)
    );
    desk.run(id).await;
    desk.ended(id).await;
    assert_eq!(desk.holders(&sids).await, ["zoe", "ada"]);
}
