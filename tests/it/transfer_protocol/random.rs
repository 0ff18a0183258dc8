//! Random verbs by random people at random times, done by two processes of which one now and then dies, while Twilio fails
//! in every way and webhooks are lost: each transfer ends once, the line has one holder, and the ledger is what Twilio has.

use std::collections::BTreeMap;
use std::time::Duration;

use hookswitch::app::App;
use hookswitch::ids::ConversationSid;
use hookswitch::sandbox::{Effect, Faults, IdentityReplacement, RestFault, WebhookAction, WebhookFault};
use hookswitch::transfer::{
    Actor, DecideError, Filter, GiveUp, IfOpen, Kind, NewForce, NewTransfer, StartTransferError, State,
    Transfer, Turn, page,
};
use jiff::SignedDuration;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use uuid::Uuid;

use super::{app_with_group, give_up};
use crate::support::app::{TestApp, Wanted};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::cut::work_and_die;
use crate::support::tables;

const PEOPLE: [&str; 4] = ["maya", "jonas", "noor", "ada"];
const CASES: usize = 10;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Act {
    Start {
        kind: Kind,
        to: Vec<usize>,
        introduces: bool,
        refuse: bool,
    },
    Accept(usize),
    /// By whoever's turn it is.
    AcceptDuly,
    DeclineDuly,
    SupervisorAccepts(usize),
    Cancel(usize),
    Force {
        to: usize,
        introduces: bool,
    },
    Release(usize),
    ReleaseDuly,
    HandBackDuly,
    Pass(i64),
    Work,
    /// Two processes at once.
    WorkBoth,
    /// A process works, and dies at this stop.
    Die(usize),
    Replacement(IdentityReplacement),
}

fn act() -> impl Strategy<Value = Act> {
    let who = 0..PEOPLE.len();
    let kind = prop::sample::select(vec![
        Kind::Assign,
        Kind::Cold,
        Kind::Warm,
        Kind::Warm,
        Kind::Escalation,
    ]);
    let list = prop::sample::subsequence((0..PEOPLE.len()).collect::<Vec<_>>(), 1..=3).prop_shuffle();
    let replacement = prop::sample::select(vec![IdentityReplacement::Update, IdentityReplacement::Refuse]);
    prop_oneof![
        5 => (kind, list, any::<bool>(), prop::bool::weighted(0.3)).prop_map(|(kind, to, introduces, refuse)| Act::Start {
            kind,
            to,
            introduces,
            refuse,
        }),
        1 => who.clone().prop_map(Act::Accept),
        4 => Just(Act::AcceptDuly),
        2 => Just(Act::DeclineDuly),
        1 => who.clone().prop_map(Act::SupervisorAccepts),
        1 => who.clone().prop_map(Act::Cancel),
        2 => (who.clone(), any::<bool>()).prop_map(|(to, introduces)| Act::Force { to, introduces }),
        1 => who.prop_map(Act::Release),
        1 => Just(Act::ReleaseDuly),
        1 => Just(Act::HandBackDuly),
        3 => prop::sample::select(vec![1, 5, 40, 130]).prop_map(Act::Pass),
        2 => Just(Act::Work),
        2 => Just(Act::WorkBoth),
        4 => (1..60_usize).prop_map(Act::Die),
        1 => replacement.prop_map(Act::Replacement),
    ]
}

/// About a third of all calls fails, in every way; a good part of the webhooks is lost, or does not come as it should.
fn faults(seed: u64) -> Faults {
    let call = |status, effect, hold_ms| RestFault {
        method: None,
        path: None,
        status,
        effect,
        hold_ms,
        probability: 0.06,
        times: None,
    };
    let webhook = |action| WebhookFault {
        action,
        events: Vec::new(),
        ms: 20,
        probability: 0.12,
        times: None,
    };
    Faults {
        seed,
        rest: vec![
            call(None, Effect::Before, 0),
            call(None, Effect::After, 0),
            call(None, Effect::Before, 250),
            call(None, Effect::After, 250),
            call(Some(503), Effect::Before, 0),
            call(Some(500), Effect::After, 0),
            call(Some(429), Effect::Before, 0),
        ],
        webhooks: vec![
            webhook(WebhookAction::Lose),
            webhook(WebhookAction::Double),
            webhook(WebhookAction::Delay),
            webhook(WebhookAction::Reorder),
        ],
        failing_setups: 0,
    }
}

/// A refusal is an answer; that the database fails is not.
fn answered<T>(result: Result<T, StartTransferError>) -> Option<T> {
    match result {
        Err(StartTransferError::Database(error)) => panic!("{error}"),
        result => result.ok(),
    }
}

fn decided<T>(result: Result<T, DecideError>) -> Option<T> {
    match result {
        Err(DecideError::Database(error)) => panic!("{error}"),
        result => result.ok(),
    }
}

struct Play<'a> {
    app: &'a TestApp,
    /// Another process on the same database.
    other: App,
    sid: &'a ConversationSid,
    introductions: usize,
}

impl Play<'_> {
    async fn all(&self) -> Vec<Transfer> {
        page(&mut *self.app.conn().await, &Filter::default(), None, 1_000)
            .await
            .unwrap()
    }

    /// The transfer that is open, and whose turn it is.
    async fn open(&self) -> Option<(Uuid, String)> {
        let newest = self.all().await.into_iter().next()?;
        let to = newest.to().unwrap_or("nobody").to_owned();
        Some((newest.transfer_id, to))
    }

    fn introduction(&mut self, wanted: bool) -> Option<String> {
        self.introductions += 1;
        wanted.then(|| format!("introduction {}", self.introductions))
    }

    async fn holder(&self) -> Option<String> {
        self.app.holders(self.sid).await.pop().unwrap()
    }

    async fn act(&mut self, act: Act) {
        let transfers = &self.app.app.api.transfers.clone();
        match act {
            Act::Start {
                kind,
                to,
                introduces,
                refuse,
            } => {
                let timeout = |place: usize| {
                    Some(SignedDuration::from_secs(
                        100 + 30 * i64::try_from(place).unwrap(),
                    ))
                };
                let then = if kind.is_offered() { &to[1..] } else { &[] };
                let new = NewTransfer {
                    then: then
                        .iter()
                        .map(|who| Turn {
                            to: PEOPLE[*who].parse().unwrap(),
                            offer_timeout: timeout(*who),
                        })
                        .collect(),
                    introduction: self.introduction(introduces),
                    offer_timeout: timeout(to[0]).filter(|_| kind.is_offered()),
                    if_open: if refuse { IfOpen::Refuse } else { IfOpen::Supersede },
                    ..TestApp::new_transfer(self.sid, kind, PEOPLE[to[0]])
                };
                answered(transfers.start(new).await);
            }
            Act::Accept(who) => {
                if let Some((id, _)) = self.open().await {
                    decided(transfers.accept(id, PEOPLE[who]).await);
                }
            }
            Act::AcceptDuly => {
                if let Some((id, to)) = self.open().await {
                    decided(transfers.accept(id, to.as_str()).await);
                }
            }
            Act::DeclineDuly => {
                if let Some((id, to)) = self.open().await {
                    decided(transfers.decline(id, to.as_str()).await);
                }
            }
            Act::SupervisorAccepts(who) => {
                if let Some((id, _)) = self.open().await {
                    decided(transfers.accept(id, Actor::in_place_of("sam", PEOPLE[who])).await);
                }
            }
            Act::Cancel(who) => {
                if let Some((id, _)) = self.open().await {
                    decided(transfers.cancel(id, PEOPLE[who]).await);
                }
            }
            Act::Force { to, introduces } => {
                let new = NewForce {
                    introduction: self.introduction(introduces),
                    ..super::force(self.sid, PEOPLE[to])
                };
                answered(transfers.force(new).await);
            }
            Act::Release(who) => {
                answered(transfers.release(give_up(self.sid, PEOPLE[who])).await);
            }
            Act::ReleaseDuly => {
                if let Some(holder) = self.holder().await {
                    answered(transfers.release(give_up(self.sid, &holder)).await);
                }
            }
            Act::HandBackDuly => {
                if let Some(holder) = self.holder().await {
                    let back = GiveUp {
                        introduction: self.introduction(true),
                        ..give_up(self.sid, &holder)
                    };
                    answered(transfers.hand_back(back).await);
                }
            }
            Act::Pass(seconds) => self.app.advance(SignedDuration::from_secs(seconds)),
            Act::Work => {
                self.app.app.worker.run_until_idle().await.unwrap();
                self.app.app.projector.run_until_idle().await.unwrap();
            }
            Act::WorkBoth => {
                let (one, other, projected) = tokio::join!(
                    self.app.app.worker.run_until_idle(),
                    self.other.worker.run_until_idle(),
                    self.app.app.projector.run_until_idle(),
                );
                for ended in [one, other, projected] {
                    ended.unwrap();
                }
            }
            Act::Die(polls) => {
                work_and_die(self.app, &self.other, polls).await;
            }
            Act::Replacement(replacement) => self.app.sandbox.set_identity_replacement(replacement),
        }
    }

    /// All faults end, and time passes.
    async fn come_to_rest(&self) {
        self.app.sandbox.set_faults(Faults::default()).unwrap();
        for _ in 0..12 {
            self.app.settle_for(SignedDuration::from_secs(60)).await;
        }
        // What no webhook told, a sweep finds.
        self.app.sweep().await;
        self.app.settle_for(SignedDuration::from_secs(5)).await;
    }

    async fn assert_all_is_well(&self, point: &str) {
        let all = self.all().await;
        for transfer in &all {
            assert!(transfer.state.is_final(), "{point}: {transfer:?}");
            assert_eq!(transfer.waiting, None, "{point}: {transfer:?}");
            // There was time enough, and Twilio could be asked in the end.
            assert_ne!(transfer.state, State::NeedsAttention, "{point}: {transfer:?}");
            let end = format!(
                "event where type = 'transfer.{}' and subject = '{}'",
                transfer.state.as_str(),
                transfer.transfer_id
            );
            assert!(tables::count(self.app, &end).await >= 1, "{point}: {transfer:?}");
        }
        let ends = "event where type in ('transfer.completed', 'transfer.cancelled', 'transfer.exhausted', 'transfer.superseded',
            'transfer.failed', 'transfer.needs_attention') group by subject having count(*) > 1";
        let twice = tables::rows(self.app, &format!("select subject from {ends}")).await;
        assert_eq!(twice, Vec::<String>::new(), "{point}: these have two ends");
        let open = "transfer_candidate where state in ('waiting', 'offered')";
        assert_eq!(tables::count(self.app, open).await, 0, "{point}");
        let leases = "line_lease where transfer_id is not null";
        assert_eq!(tables::count(self.app, leases).await, 0, "{point}");
        let at_twilio = self.app.holders_at_twilio(self.sid);
        assert_eq!(at_twilio, [self.holder().await], "{point}");
        tables::assert_queue_is_empty(self.app).await;
        assert_mirror_equals_sandbox(self.app).await;
        self.assert_introductions(&all, point).await;
    }

    /// What was posted is the introductions of those who got the line, once each, in their name.
    async fn assert_introductions(&self, all: &[Transfer], point: &str) {
        let mut expected = BTreeMap::new();
        for transfer in all {
            let Some(id) = transfer.introduction_send_id else {
                continue;
            };
            let sent = hookswitch::outbox::find(&mut *self.app.conn().await, id)
                .await
                .unwrap()
                .unwrap();
            if sent.state == hookswitch::outbox::State::Sent {
                let body = transfer.introduction.clone().unwrap();
                expected.insert(body, transfer.to().unwrap().to_owned());
            }
        }
        let messages = self.app.at_twilio(self.sid).messages;
        let posted: BTreeMap<String, String> = messages
            .iter()
            .map(|message| (message.body.clone().unwrap(), message.author.clone()))
            .collect();
        assert_eq!(posted.len(), messages.len(), "{point}: one was posted twice");
        assert_eq!(posted, expected, "{point}");
    }
}

#[tokio::test]
async fn whatever_people_do_and_whatever_fails_it_ends_well() {
    let (app, sid) = app_with_group(Wanted {
        call_timeout: Duration::from_millis(200),
        ..Wanted::default()
    })
    .await;
    let mut play = Play {
        other: app.restarted(),
        app: &app,
        sid: &sid,
        introductions: 0,
    };
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    let case = (prop::collection::vec(act(), 8..30), any::<u64>());
    for number in 0..CASES {
        let (acts, seed) = case.new_tree(&mut runner).unwrap().current();
        let point = format!("{number}: seed {seed}, {acts:?}");
        app.sandbox.set_faults(faults(seed)).unwrap();
        for act in acts {
            Box::pin(play.act(act)).await;
        }
        play.come_to_rest().await;
        play.assert_all_is_well(&point).await;
    }
    let completed = tables::count(&app, "transfer where state = 'completed'").await;
    assert!(completed >= 5, "only {completed} completed: this proves little");
}
