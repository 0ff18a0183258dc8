//! Random transfers, answered at random, while calls to Twilio fail and webhooks are lost, doubled and late: each comes
//! to one end, and the line has one holder, whom the ledger names.

use std::time::Duration;

use hookswitch::sandbox::{Effect, Faults, IdentityReplacement, RestFault, WebhookAction, WebhookFault};
use hookswitch::transfer::{Kind, State};
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};

use crate::support::app::{TestApp, Wanted, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::tables;

const AGENTS: [&str; 3] = ["maya", "jonas", "noor"];

#[derive(Debug, Clone, Copy)]
enum Answer {
    Accept,
    Decline,
    Cancel,
    Ignore,
}

#[derive(Debug, Clone)]
struct Case {
    kind: Kind,
    to: usize,
    answer: Answer,
    replacement: IdentityReplacement,
    seed: u64,
}

fn case() -> impl Strategy<Value = Case> {
    let kind = prop::sample::select(vec![Kind::Cold, Kind::Warm, Kind::Escalation]);
    let answer = prop_oneof![
        3 => Just(Answer::Accept),
        1 => Just(Answer::Decline),
        1 => Just(Answer::Cancel),
        1 => Just(Answer::Ignore),
    ];
    let replacement = prop::sample::select(vec![IdentityReplacement::Update, IdentityReplacement::Refuse]);
    (kind, 1..AGENTS.len(), answer, replacement, any::<u64>()).prop_map(
        |(kind, to, answer, replacement, seed)| Case {
            kind,
            to,
            answer,
            replacement,
            seed,
        },
    )
}

/// About a third of all calls fails, in every way; a third of the webhooks does not come as it should.
fn faults(seed: u64) -> Faults {
    let call = |status, effect, hold_ms| RestFault {
        method: None,
        path: None,
        status,
        effect,
        hold_ms,
        probability: 0.07,
        times: None,
    };
    let webhook = |action| WebhookFault {
        action,
        events: Vec::new(),
        ms: 20,
        probability: 0.1,
        times: None,
    };
    Faults {
        seed,
        rest: vec![
            call(None, Effect::Before, 0),
            call(None, Effect::After, 0),
            call(None, Effect::After, 250),
            call(Some(500), Effect::After, 0),
            call(Some(429), Effect::Before, 0),
        ],
        webhooks: vec![
            webhook(WebhookAction::Double),
            webhook(WebhookAction::Delay),
            webhook(WebhookAction::Reorder),
        ],
        failing_setups: 0,
    }
}

#[tokio::test]
async fn transfers_come_to_an_end_whatever_fails() {
    const CASES: usize = 20;
    let wanted = Wanted {
        call_timeout: Duration::from_millis(200),
        ..Wanted::default()
    };
    let app = TestApp::start_with(wanted).await;
    let sid = sid_of(&app.group(Some(AGENTS[0])).await);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let mut holder = 0;
    for number in 0..CASES {
        let case = case().new_tree(&mut runner).unwrap().current();
        let point = format!("{number}: {case:?}");
        app.sandbox.set_identity_replacement(case.replacement);
        app.sandbox.set_faults(faults(case.seed)).unwrap();
        let target = (holder + case.to) % AGENTS.len();
        let transfer = app.start_transfer(&sid, case.kind, AGENTS[target]).await;
        let (id, transfers) = (transfer.transfer_id, &app.app.api.transfers);
        let expected = match (case.kind.is_offered(), case.answer) {
            (false, _) => State::Completed,
            (true, Answer::Accept) => {
                transfers.accept(id, AGENTS[target]).await.unwrap();
                State::Completed
            }
            (true, Answer::Decline) => {
                transfers.decline(id, AGENTS[target]).await.unwrap();
                State::Declined
            }
            (true, Answer::Cancel) => {
                transfers.cancel(id, "crm").await.unwrap();
                State::Cancelled
            }
            (true, Answer::Ignore) => {
                app.clock.advance(SignedDuration::from_mins(20));
                State::Expired
            }
        };
        for _ in 0..40 {
            app.settle_for(SignedDuration::from_secs(30)).await;
            if app.transfer(id).await.state.is_final() {
                break;
            }
        }
        let ended = app.transfer(id).await;
        assert_eq!(
            ended.state, expected,
            "{point}: {:?} {:?}",
            ended.outcome_code, ended.outcome_detail
        );
        if ended.state == State::Completed {
            holder = target;
        }
        app.sandbox.set_faults(Faults::default()).unwrap();
        // Beyond the end of every offer, which comes and does nothing where it was answered.
        app.settle_for(SignedDuration::from_mins(20)).await;
        let held_by = Some(AGENTS[holder].to_owned());
        assert_eq!(
            app.holders_at_twilio(&sid),
            std::slice::from_ref(&held_by),
            "{point}"
        );
        assert_eq!(app.holders(&sid).await.pop().unwrap(), held_by, "{point}");
        tables::assert_queue_is_empty(&app).await;
        assert_mirror_equals_sandbox(&app).await;
    }
    assert_eq!(
        tables::count(&app, "transfer where finished_at is not null").await,
        i64::try_from(CASES).unwrap()
    );
}
