//! Words of a member in any order, doubled, from several groups and with two replicas at work: what comes out is what they
//! said last.

use hookswitch::config::OptOutPolicy;
use hookswitch::events::Via;
use hookswitch::ids::ConversationSid;
use hookswitch::mirror::project;
use hookswitch::projection;
use hookswitch::sandbox::{Faults, WebhookAction, WebhookFault};
use hookswitch::twilio::form::Form;
use hookswitch::twilio::webhook;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, TestRunner};
use serde_json::{Value, json};

use super::{Crm, bodies, crm, open, words};
use crate::support::app::{ACCOUNT, BUYER, LINE, PARTNER, sid_of};
use crate::support::tables;
use crate::support::webhook::Webhook;

/// What a member says, or Twilio of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Stop,
    Start,
    Refused,
}

/// Said in one of two groups, so many seconds after what was said before.
#[derive(Debug, Clone, Copy)]
struct Saying {
    said: Said,
    group: usize,
    pause: i64,
}

/// What is said, and in which order it arrives: each twice.
#[derive(Debug, Clone)]
struct Case {
    sayings: Vec<Saying>,
    arrivals: Vec<usize>,
    /// What arrives is worked off before the next comes.
    settled: Vec<bool>,
    /// After so many arrivals the second group is closed.
    closed_after: Option<usize>,
}

fn case() -> impl Strategy<Value = Case> {
    let said = prop_oneof![2 => Just(Said::Stop), 2 => Just(Said::Start), 1 => Just(Said::Refused)];
    let saying = (said, 0usize..2, 0i64..3).prop_map(|(said, group, pause)| Saying { said, group, pause });
    prop::collection::vec(saying, 1..8).prop_flat_map(|sayings| {
        let arrivals: Vec<usize> = (0..sayings.len()).chain(0..sayings.len()).collect();
        let count = arrivals.len();
        (
            Just(sayings),
            Just(arrivals).prop_shuffle(),
            prop::collection::vec(any::<bool>(), count),
            prop::option::weighted(0.3, 0..count),
        )
            .prop_map(|(sayings, arrivals, settled, closed_after)| Case {
                sayings,
                arrivals,
                settled,
                closed_after,
            })
    })
}

fn cases(count: usize) -> Vec<Case> {
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::default()
    });
    (0..count)
        .map(|_| case().new_tree(&mut runner).unwrap().current())
        .collect()
}

/// A member of two groups.
struct Member {
    handset: String,
    number: usize,
    /// Each with the member there, and a message of ours.
    groups: Vec<(ConversationSid, String, String)>,
    began: Timestamp,
}

impl Member {
    async fn new(crm: &Crm, number: usize) -> Self {
        let handset = format!("+1555555{:04}", 2000 + number);
        let mut groups = Vec::new();
        for other in [3000, 4000] {
            let other = format!("+1555555{:04}", other + number);
            let sid = sid_of(&crm.app.group_of(&[&handset, &other]).await);
            let asked = crm.message(&sid, &words("welcome")).await.expect(202);
            crm.app.settle().await;
            let message_sid = crm.send(&asked).await["message_sid"].as_str().unwrap().to_owned();
            let members = crm.app.at_twilio(&sid).participants;
            let member = members.iter().find(|one| {
                one.address
                    .as_ref()
                    .is_some_and(|address| address.as_str() == handset)
            });
            groups.push((sid, member.unwrap().sid.to_string(), message_sid));
        }
        Self {
            handset,
            number,
            groups,
            began: crm.app.clock.now() - SignedDuration::from_hours(1),
        }
    }

    fn times(&self, sayings: &[Saying]) -> Vec<Timestamp> {
        let mut at = self.began;
        let mut later = |saying: &Saying| {
            at += SignedDuration::from_secs(saying.pause);
            at
        };
        sayings.iter().map(&mut later).collect()
    }

    /// As Twilio tells of it; told again, it is an update that changes nothing.
    fn webhook(&self, place: usize, saying: Saying, at: Timestamp, again: bool) -> Webhook {
        let (sid, participant_sid, message_sid) = &self.groups[saying.group];
        let count = self.number * 100 + place;
        let (created, updated) = (
            format!("{at:.3}"),
            format!("{:.3}", at + SignedDuration::from_mins(30)),
        );
        let told = match saying.said {
            Said::Stop | Said::Start => Webhook::new(
                if again {
                    "onMessageUpdated"
                } else {
                    "onMessageAdded"
                },
                &[
                    ("MessageSid", &format!("IM{count:032x}")),
                    ("Index", &(1_000 + place).to_string()),
                    ("Author", &self.handset),
                    (
                        "Body",
                        if saying.said == Said::Stop {
                            "Stop"
                        } else {
                            "START"
                        },
                    ),
                    ("Attributes", "{}"),
                    ("Source", "SMS"),
                ],
            ),
            Said::Refused => Webhook::new(
                "onDeliveryUpdated",
                &[
                    ("MessageSid", message_sid),
                    ("DeliveryReceiptSid", &format!("DY{count:032x}")),
                    ("ChannelMessageSid", "SM00000000000000000000000000000001"),
                    ("Status", "undelivered"),
                    ("ErrorCode", "21610"),
                ],
            ),
        };
        let told = told
            .with("ConversationSid", sid.as_str())
            .with("ParticipantSid", participant_sid)
            .with("DateCreated", &created);
        match (saying.said, again) {
            (Said::Refused, false) => told.with("DateUpdated", &created),
            (_, true) => told.with("DateUpdated", &updated),
            (Said::Stop | Said::Start, false) => told,
        }
    }
}

/// Whether who said this, has opted out: by the last word, and of two at one time by the one that stops.
fn has_opted_out(sayings: &[Saying], times: &[Timestamp]) -> bool {
    let last = times.last().unwrap();
    sayings
        .iter()
        .zip(times)
        .filter(|(_, at)| *at == last)
        .any(|(saying, _)| saying.said != Said::Start)
}

async fn is_open(crm: &Crm, handset: &str) -> bool {
    open(crm).await.iter().any(|one| one["address"] == handset)
}

/// Two replicas work at once.
async fn settle(crm: &Crm, other: &hookswitch::app::App) {
    for _ in 0..2 {
        tokio::join!(Box::pin(crm.app.settle()), Box::pin(crm.app.settle_with(other)));
    }
}

#[tokio::test]
async fn in_whatever_order_words_arrive_the_last_one_said_counts() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let other = crm.app.restarted();
    for (number, case) in cases(12).into_iter().enumerate() {
        let member = Member::new(&crm, number).await;
        let times = member.times(&case.sayings);
        let mut told = vec![false; case.sayings.len()];
        for (place, settled) in case.arrivals.iter().zip(&case.settled) {
            let webhook = member.webhook(*place, case.sayings[*place], times[*place], told[*place]);
            told[*place] = true;
            crm.app.deliver(&webhook.0).await;
            if *settled {
                settle(&crm, &other).await;
            }
        }
        settle(&crm, &other).await;
        let opted_out = has_opted_out(&case.sayings, &times);
        assert_eq!(is_open(&crm, &member.handset).await, opted_out, "{case:?}");
        for (sid, ..) in &member.groups {
            let shown = super::states(&crm, sid).await;
            let lasting = usize::from(opted_out);
            assert_eq!(
                shown.iter().filter(|state| *state == "warned").count(),
                lasting,
                "{shown:?} {case:?}"
            );
            assert!(
                shown[lasting.min(shown.len())..]
                    .iter()
                    .all(|state| matches!(state.as_str(), "over" | "none")),
                "{shown:?} {case:?}"
            );
            let posted = crm.message(sid, &words("and on we go")).await;
            assert_eq!(posted.status, if opted_out { 409 } else { 202 }, "{case:?}");
        }
    }
}

#[tokio::test]
async fn in_whatever_order_words_arrive_what_was_taken_is_sent_once_or_fails() {
    let crm = crm(OptOutPolicy::AskSupervisor).await;
    let other = crm.app.restarted();
    for (number, case) in cases(8).into_iter().enumerate() {
        let member = Member::new(&crm, number).await;
        let times = member.times(&case.sayings);
        let mut told = vec![false; case.sayings.len()];
        let mut taken: Vec<Vec<Value>> = vec![Vec::new(); 2];
        let mut is_closed = false;
        for (step, (place, settled)) in case.arrivals.iter().zip(&case.settled).enumerate() {
            let group = step % 2;
            let posted = crm
                .message(&member.groups[group].0, &words(&format!("message {step}")))
                .await;
            if posted.status == 202 {
                taken[group].push(posted.body);
            }
            let webhook = member.webhook(*place, case.sayings[*place], times[*place], told[*place]);
            told[*place] = true;
            crm.app.deliver(&webhook.0).await;
            if case.closed_after == Some(step) {
                super::held::close(&crm, &member.groups[1].0).await;
                is_closed = true;
            }
            if *settled {
                settle(&crm, &other).await;
            }
        }
        settle(&crm, &other).await;
        let opted_out = has_opted_out(&case.sayings, &times);
        assert_eq!(is_open(&crm, &member.handset).await, opted_out, "{case:?}");
        if opted_out {
            // What waits, waits for this alone.
            super::decide(&crm, &member.groups[0].0, "allow")
                .await
                .expect(200);
            if !is_closed {
                super::decide(&crm, &member.groups[1].0, "allow")
                    .await
                    .expect(200);
            }
        }
        settle(&crm, &other).await;
        for (group, (sid, ..)) in member.groups.iter().enumerate() {
            let mut expected = vec!["welcome".to_owned()];
            for asked in &taken[group] {
                let send = crm.send(asked).await;
                if is_closed && group == 1 && send["state"] == "failed" {
                    continue;
                }
                assert_eq!(send["state"], "sent", "{send} {case:?}");
                expected.push(send["body"].as_str().unwrap().to_owned());
            }
            let mut found = bodies(&crm, sid);
            // What was held may be sent after what was asked for later.
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{case:?}");
        }
    }
}

/// Two processes learn of a word each, from two groups, and neither has committed when the other begins.
#[tokio::test]
async fn words_that_two_processes_learn_of_at_once_do_not_pass_each_other() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    for (number, first) in [Said::Stop, Said::Start].into_iter().enumerate() {
        let member = Member::new(&crm, number).await;
        let second = if first == Said::Stop {
            Said::Start
        } else {
            Said::Stop
        };
        // In whatever order they are learnt, it ends with START.
        let at = |said| {
            let late = SignedDuration::from_secs(i64::from(said == Said::Start));
            member.began + late
        };
        let observed = |group: usize, said: Said| {
            let saying = Saying {
                said,
                group,
                pause: 0,
            };
            let form = member.webhook(group, saying, at(said), false).encoded();
            let webhook = webhook::Webhook::parse(&Form::parse(form.as_bytes()).unwrap()).unwrap();
            project::webhook(&ACCOUNT.parse().unwrap(), &webhook, "webhook:1").unwrap()
        };
        let now = crm.app.clock.now();
        let mut one = crm.app.pool().begin().await.unwrap();
        projection::commit(&mut one, &observed(0, first), Via::Webhook, None, now)
            .await
            .unwrap();
        let (pool, told) = (crm.app.restarted().pool, observed(1, second));
        let other = tokio::spawn(async move {
            let mut two = pool.begin().await.unwrap();
            projection::commit(&mut two, &told, Via::Webhook, None, now)
                .await
                .unwrap();
            two.commit().await.unwrap();
        });
        // Until it waits for the first, or does not.
        while !other.is_finished()
            && tables::count(&crm.app, "pg_locks where locktype = 'advisory' and not granted and database = (select oid from pg_database where datname = current_database())").await == 0
        {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        one.commit().await.unwrap();
        other.await.unwrap();
        assert!(!is_open(&crm, &member.handset).await, "{first:?} first");
        let ended = tables::count(
            &crm.app,
            &format!(
                "opt_out where address = '{}' and cleared_at is not null",
                member.handset
            ),
        )
        .await;
        assert_eq!(ended, 1, "{first:?} first");
    }
}

/// Whoever sets one by hand after the member opted in by a clock that is ahead of ours.
#[tokio::test]
async fn an_opt_out_is_set_by_hand_whatever_twilio_s_clock_says() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let mut member = Member::new(&crm, 0).await;
    member.began = crm.app.clock.now() + SignedDuration::from_mins(1);
    for (place, said) in [Said::Stop, Said::Start].into_iter().enumerate() {
        let saying = Saying {
            said,
            group: 0,
            pause: 0,
        };
        let at = member.began + SignedDuration::from_secs(i64::try_from(place).unwrap());
        crm.app.deliver(&member.webhook(place, saying, at, false).0).await;
        crm.app.settle().await;
    }
    assert!(!is_open(&crm, &member.handset).await);
    let set = json!({ "line": LINE, "address": member.handset, "by": "sam" });
    let set = crm.post("/v1/opt-outs", &set).await.expect(201);
    assert!(is_open(&crm, &member.handset).await);
    let clear = format!("/v1/opt-outs/{}/clear", set["opt_out_id"].as_str().unwrap());
    let cleared = crm.post(&clear, &json!({ "by": "sam" })).await.expect(200);
    let time = |member: &str| cleared[member].as_str().unwrap().parse::<Timestamp>().unwrap();
    assert!(time("cleared_at") > time("since"));
    // Told again, the old word begins nothing.
    let saying = Saying {
        said: Said::Stop,
        group: 0,
        pause: 0,
    };
    crm.app
        .deliver(&member.webhook(0, saying, member.began, true).0)
        .await;
    crm.app.settle().await;
    assert!(!is_open(&crm, &member.handset).await);
}

#[tokio::test]
async fn the_order_in_which_words_arrive_does_not_matter() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let sid = crm.group().await;
    let handset = crm.app.at_twilio(&sid).participants;
    let handset = handset
        .iter()
        .find(|one| {
            one.address
                .as_ref()
                .is_some_and(|address| address.as_str() == BUYER)
        })
        .unwrap();
    let wrote = |number: usize, body: &str, at: &str| {
        Webhook::message(1, number)
            .with("ConversationSid", sid.as_str())
            .with("ParticipantSid", handset.sid.as_str())
            .with("Body", body)
            .with("DateCreated", at)
            .0
    };
    let (stop, start) = (
        wrote(1, "STOP", "2026-12-01T10:00:00.000Z"),
        wrote(2, "START", "2026-12-01T10:05:00.000Z"),
    );
    for form in [&start, &stop, &stop, &start] {
        crm.app.deliver(form).await;
        crm.app.settle().await;
    }
    let all = crm.get("/v1/opt-outs").await;
    let all = all["items"].as_array().unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(all[0]["since"], "2026-12-01T10:00:00Z");
    assert_eq!(all[0]["cleared_at"], "2026-12-01T10:05:00Z");
    // And a word of ours is none.
    let client = &crm.app.account().client;
    let ours = hookswitch::twilio::requests::NewMessage {
        author: Some("maya".into()),
        body: Some("stop".into()),
        ..Default::default()
    };
    client.create_message(&sid, &ours).await.unwrap();
    crm.settle().await;
    assert_eq!(open(&crm).await.len(), 0);
}

#[tokio::test]
async fn a_word_that_comes_before_the_members_is_not_lost() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    // Nothing of the group has come but what a member wrote; the rest is lost, and read at Twilio.
    let deaf = Faults {
        webhooks: vec![WebhookFault {
            action: WebhookAction::Lose,
            events: vec!["onConversationAdded".to_owned(), "onParticipantAdded".to_owned()],
            ms: 0,
            probability: 1.0,
            times: None,
        }],
        ..Faults::default()
    };
    crm.app.sandbox.set_faults(deaf).unwrap();
    crm.app.text(BUYER, &[LINE, PARTNER], "stop").await;
    crm.app.sandbox.settled().await;
    crm.app.app.projector.run_until_idle().await.unwrap();
    let waiting = tables::count(&crm.app, "task where kind = 'opt_out.resolve'").await;
    assert_eq!(waiting, 1);
    crm.settle().await;
    for _ in 0..4 {
        crm.app.settle_for(SignedDuration::from_secs(30)).await;
    }
    let known = open(&crm).await;
    assert_eq!(known.len(), 1);
    assert_eq!(
        (&known[0]["address"], &known[0]["line"]),
        (&json!(BUYER), &json!(LINE))
    );
}
