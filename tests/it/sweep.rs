//! Sweeps against the sandbox: whatever was not heard of, and wherever the sweep was stopped, the mirror comes to what
//! Twilio has, and says how far it is verified.

use std::time::{Duration, Instant};

use hookswitch::accounts::Account;
use hookswitch::ids::ConversationSid;
use hookswitch::sandbox::{Faults, RestFault, WebhookAction, WebhookFault};
use hookswitch::sweep::completeness;
use hookswitch::sweep::{Budget, By, Error, Found, Run, RunState, Scope, Sweeper, last_completed, newest};
use hookswitch::twilio;
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::{
    ConversationUpdate, Member, MessageUpdate, NewConversation, NewMessage, NewParticipant,
};
use jiff::SignedDuration;
use serde_json::Value;

use crate::support::app::{ACCOUNT, LINE, TestApp, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::cut::{cut, nothing_is_open};
use crate::support::sql;
use crate::support::sweep::{Interposer, Meddler, differences};

const DAY: SignedDuration = SignedDuration::from_hours(24);

fn account_of(sweeper: &Sweeper) -> &Account {
    sweeper.accounts.iter().next().unwrap()
}

async fn sweep(sweeper: &Sweeper, everything: bool) -> Result<Run, Error> {
    Box::pin(sweeper.sweep(account_of(sweeper), everything, &mut |_| ())).await
}

/// Everything, through somebody who holds an answer back; a stop that is never reached is a failure and no wait.
async fn sweep_with_a_stop(sweeper: &Sweeper, interposer: &Interposer) -> Result<Run, Error> {
    let run = sweep(sweeper, true).await;
    interposer.stop_nowhere();
    run
}

/// A process that dies while it waits for Twilio's list.
async fn die_while_sweeping(app: &TestApp) {
    let interposer = Interposer::start(app).await;
    let sweeper = app.sweeper_through(&interposer);
    let (reached, _go) = interposer.stop_at("/Conversations");
    tokio::select! {
        ended = sweep(&sweeper, false) => panic!("it did not wait: {ended:?}"),
        reached = reached => reached.unwrap(),
    }
}

async fn write(
    app: &TestApp,
    sid: &ConversationSid,
    author: &str,
    body: &str,
) -> hookswitch::ids::MessageSid {
    let new = NewMessage {
        author: Some(author.into()),
        body: Some(body.into()),
        media_sid: None,
        attributes: None,
    };
    app.account().client.create_message(sid, &new).await.unwrap().sid
}

async fn edit(app: &TestApp, sid: &ConversationSid, message: &hookswitch::ids::MessageSid, body: &str) {
    let update = MessageUpdate {
        body: Some(body.into()),
        ..MessageUpdate::default()
    };
    app.account()
        .client
        .update_message(sid, message, &update)
        .await
        .unwrap();
}

async fn conversation(app: &TestApp, name: &str) -> ConversationSid {
    let new = NewConversation {
        friendly_name: Some(name.into()),
        ..NewConversation::default()
    };
    app.account().client.create_conversation(&new).await.unwrap().sid
}

async fn close(app: &TestApp, sid: &ConversationSid) {
    let update = ConversationUpdate {
        state: Some(ConversationState::Closed),
        ..ConversationUpdate::default()
    };
    app.account()
        .client
        .update_conversation(sid, &update)
        .await
        .unwrap();
}

async fn body_of(app: &TestApp, message: &hookswitch::ids::MessageSid) -> Option<String> {
    let query = format!("select body from message where message_sid = '{message}' and removed_at is null");
    sql::value(app.pool(), &query).await
}

#[tokio::test]
async fn after_a_day_without_webhooks_one_sweep_makes_the_mirror_what_twilio_has() {
    let app = TestApp::start().await;
    let mut meddler = Meddler::new(&app, 20_261_102);
    meddler.make(180).await;
    app.settle_for(SignedDuration::from_secs(3)).await;
    app.sweep().await;
    assert_eq!(differences(&app).await, [] as [&str; 0]);

    app.lose_webhooks();
    meddler.make(240).await;
    app.sandbox.settled().await;
    assert!(
        meddler.made.len() >= 13,
        "every kind of change was made: {:?}",
        meddler.made
    );
    assert!(differences(&app).await.len() > 150, "nobody has heard of it");

    app.clock.advance(SignedDuration::from_hours(2));
    let run = app.sweep().await;
    assert_eq!(differences(&app).await, [] as [&str; 0]);
    assert_mirror_equals_sandbox(&app).await;
    assert_eq!(run.state, RunState::Completed);
    assert_eq!((run.unsettled, run.failed, run.found.extra), (0, 0, 0));
    assert!(
        run.found.missing > 50 && run.found.stale >= 5 && run.found.gone >= 2,
        "{:?}",
        run.found
    );

    // Nothing is left to be read by anyone else, and the ledger is without holes and overlaps by its constraint.
    app.settle_for(SignedDuration::from_secs(3)).await;
    assert_eq!(differences(&app).await, [] as [&str; 0]);
    assert_eq!(sql::count(app.pool(), "task where state = 'dead'").await, 0);

    let again = app.sweep().await;
    assert_eq!(again.found, Found::default());
    assert_eq!(again.walked, 0, "everything was walked a moment ago");
    assert_eq!(
        again.requests,
        2 + 2 * again.probed,
        "the numbers, the list, and two calls for each conversation"
    );
}

#[tokio::test]
async fn whatever_part_of_the_webhooks_is_lost_doubled_or_late_one_sweep_settles_it() {
    for seed in 1..=4 {
        let app = TestApp::start().await;
        let fault = |action, probability| WebhookFault {
            action,
            events: Vec::new(),
            ms: 40,
            probability,
            times: None,
        };
        let faults = Faults {
            seed,
            webhooks: vec![
                fault(WebhookAction::Lose, 0.4),
                fault(WebhookAction::Double, 0.2),
                fault(WebhookAction::Reorder, 0.3),
            ],
            ..Faults::default()
        };
        app.sandbox.set_faults(faults).unwrap();
        let mut meddler = Meddler::new(&app, seed);
        for _ in 0..6 {
            meddler.make(15).await;
            app.app.projector.run_until_idle().await.unwrap();
        }
        app.sandbox.settled().await;
        app.app.projector.run_until_idle().await.unwrap();
        let run = app.sweep().await;
        assert_eq!(
            (run.state, run.unsettled),
            (RunState::Completed, 0),
            "seed {seed}"
        );
        assert_mirror_equals_sandbox(&app).await;
        // Reads that doubts had asked for find nothing new.
        app.settle_for(SignedDuration::from_secs(3)).await;
        assert_mirror_equals_sandbox(&app).await;
        let in_doubt = completeness::total(&mut *app.conn().await)
            .await
            .unwrap()
            .in_doubt;
        assert_eq!(in_doubt, 0, "seed {seed}");
    }
}

#[tokio::test]
async fn an_account_that_existed_before_us_is_read_whole() {
    let app = TestApp::start().await;
    app.lose_webhooks();
    // More than a page of conversations, of messages and of everything else.
    for number in 0..130 {
        conversation(&app, &format!("Old group {number}")).await;
    }
    let mut meddler = Meddler::new(&app, 7);
    meddler.make(80).await;
    let busy = meddled_group(&app).await;
    for number in 0..120 {
        write(&app, &busy, "maya", &format!("Message {number}")).await;
    }
    app.sandbox.settled().await;
    assert_eq!(sql::count(app.pool(), "conversation").await, 0);

    let run = app.sweep().await;
    assert_eq!(differences(&app).await, [] as [&str; 0]);
    assert_mirror_equals_sandbox(&app).await;
    let conversations = app.sandbox.conversations();
    assert_eq!(run.walked, i64::try_from(conversations.len()).unwrap());
    let resources: usize = conversations
        .iter()
        .map(|one| {
            let receipts: usize = one.messages.iter().map(|message| message.receipts.len()).sum();
            1 + one.participants.len() + one.messages.len() + receipts
        })
        .sum();
    assert_eq!(run.compared, i64::try_from(resources).unwrap());
    assert_eq!(run.found.missing, run.compared, "all of it was missing");
    assert_eq!((run.found.stale, run.found.gone), (0, 0));
    assert!(sql::count(app.pool(), "event where via = 'sweep' and type = 'message.added'").await >= 120);
}

/// A group of two handsets and maya on our line.
async fn meddled_group(app: &TestApp) -> ConversationSid {
    let members = [
        Member::Native {
            address: "+15555550301".parse().unwrap(),
        },
        Member::Native {
            address: "+15555550302".parse().unwrap(),
        },
        Member::Projected {
            identity: "maya".parse().unwrap(),
            projected_address: LINE.parse().unwrap(),
        },
    ];
    let members: Vec<NewParticipant> = members.into_iter().map(NewParticipant::from).collect();
    let client = &app.account().client;
    let new = NewConversation::default();
    let sid = client
        .create_conversation_with_participants(&new, &members)
        .await
        .unwrap()
        .sid;
    app.sandbox.settled().await;
    sid
}

#[tokio::test]
async fn a_sweep_that_was_killed_anywhere_goes_on_where_it_was() {
    let app = TestApp::start().await;
    app.lose_webhooks();
    let mut meddler = Meddler::new(&app, 11);
    meddler.make(60).await;
    app.sandbox.settled().await;

    let sweeper = app.sweeper();
    let mut deaths = 0;
    let run = loop {
        // Every attempt lives a little longer than the one before, and dies at another point.
        match cut(sweep(&sweeper, false), 9 + 7 * deaths).await {
            Some(run) => break run.unwrap(),
            None => deaths += 1,
        }
        nothing_is_open(&app).await;
        // Until then it might be alive.
        app.clock.advance(SignedDuration::from_secs(91));
    };
    assert!(deaths > 10, "{deaths}");
    assert_eq!(run.state, RunState::Completed);
    assert_eq!(differences(&app).await, [] as [&str; 0]);
    assert_eq!(
        sql::count(app.pool(), "sweep_run").await,
        1,
        "it was one run all the time"
    );
    let conversations = i64::try_from(app.sandbox.conversations().len()).unwrap();
    assert_eq!(
        run.conversations(),
        conversations,
        "none was looked at to the end twice"
    );
}

#[tokio::test]
async fn a_run_that_was_stopped_goes_on_at_its_page_of_the_list() {
    let app = TestApp::start().await;
    app.lose_webhooks();
    for number in 0..120 {
        conversation(&app, &format!("Group {number}")).await;
    }
    let interposer = Interposer::start(&app).await;
    let sweeper = app.sweeper_through(&interposer);
    let last = app.sandbox.conversations().pop().unwrap().sid;
    let throttle = RestFault {
        method: None,
        path: Some(format!("**/Conversations/{last}")),
        status: Some(429),
        effect: hookswitch::sandbox::Effect::Before,
        hold_ms: 0,
        probability: 1.0,
        times: None,
    };
    let faults = Faults {
        rest: vec![throttle],
        ..Faults::default()
    };
    app.sandbox.set_faults(faults).unwrap();
    let stopped = sweep(&sweeper, false).await.unwrap_err();
    assert!(
        matches!(stopped, Error::Twilio(twilio::Error::Throttled { .. })),
        "{stopped}"
    );
    let before = interposer.calls().len();

    app.sandbox.set_faults(Faults::default()).unwrap();
    let run = sweep(&sweeper, false).await.unwrap();
    let after: Vec<String> = interposer
        .calls()
        .into_iter()
        .skip(before)
        .map(|(_, path)| path)
        .collect();
    assert!(
        after[1].contains("PageToken="),
        "it reads the second page again: {}",
        after[1]
    );
    // The account's numbers, that page, and of the one conversation that was left: itself, its participants, its messages.
    assert_eq!(after.len(), 5, "{after:?}");
    assert_eq!((run.state, run.walked), (RunState::Completed, 120));
    assert_eq!(differences(&app).await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_throttled_or_broken_run_does_not_count_as_done() {
    let app = TestApp::start().await;
    app.lose_webhooks();
    let sid = meddled_group(&app).await;
    for status in [429, 503] {
        let fault = RestFault {
            method: None,
            path: Some("**/Messages".to_owned()),
            status: Some(status),
            effect: hookswitch::sandbox::Effect::Before,
            hold_ms: 0,
            probability: 1.0,
            times: None,
        };
        let faults = Faults {
            rest: vec![fault],
            ..Faults::default()
        };
        app.sandbox.set_faults(faults).unwrap();
        let stopped = app.sweeper().sweep_if_due(app.account()).await.unwrap_err();
        assert!(stopped.is_passing(), "{stopped}");
        let mut conn = app.conn().await;
        let run = newest(&mut conn, ACCOUNT).await.unwrap().unwrap();
        assert_eq!(
            (run.state, run.walked, run.finished_at),
            (RunState::Running, 0, None)
        );
        assert!(
            run.last_error
                .is_some_and(|error| error.contains(&status.to_string()))
        );
        assert_eq!(last_completed(&mut conn, ACCOUNT).await.unwrap(), None);
        let of_it = completeness::of_conversation(&mut conn, &sid)
            .await
            .unwrap()
            .unwrap();
        assert_eq!((of_it.verified_at, of_it.walked_at), (None, None));
    }

    // An answer that nobody can read concerns one conversation: the others are verified, and the run does not count.
    let other = conversation(&app, "Another group").await;
    let interposer = Interposer::start(&app).await;
    let sweeper = app.sweeper_through(&interposer);
    app.deliver_webhooks();
    interposer.spoil(&format!("{sid}/Participants"), Box::new(|_| "{}".to_owned()));
    let run = sweeper.sweep_if_due(account_of(&sweeper)).await.unwrap().unwrap();
    assert_eq!((run.state, run.failed, run.walked), (RunState::Incomplete, 1, 1));
    let mut conn = app.conn().await;
    assert_eq!(last_completed(&mut conn, ACCOUNT).await.unwrap(), None);
    let verified = async |sid: &ConversationSid| {
        let mut conn = app.conn().await;
        completeness::of_conversation(&mut conn, sid)
            .await
            .unwrap()
            .is_some_and(|of| of.verified_at.is_some())
    };
    assert!(verified(&other).await && !verified(&sid).await);

    interposer.spoil_nothing();
    assert_eq!(
        sweeper.sweep_if_due(account_of(&sweeper)).await.unwrap(),
        None,
        "not before an hour is over"
    );
    app.clock.advance(SignedDuration::from_hours(1));
    let run = sweeper.sweep_if_due(account_of(&sweeper)).await.unwrap().unwrap();
    assert_eq!((run.state, run.walked, run.probed), (RunState::Completed, 1, 1));
    assert_eq!(last_completed(&mut conn, ACCOUNT).await.unwrap(), Some(run));
    assert!(verified(&sid).await);
}

#[tokio::test]
async fn a_webhook_that_comes_while_the_sweep_reads_wins() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let edited = write(&app, &sid, "maya", "The house is gren.").await;
    let lost = write(&app, &sid, "maya", "The garden is large.").await;
    app.settle_for(SignedDuration::from_secs(2)).await;
    app.lose_webhooks();
    app.clock.advance(SignedDuration::from_secs(2));
    edit(&app, &sid, &lost, "The garden is small.").await;
    app.deliver_webhooks();

    let interposer = Interposer::start(&app).await;
    let sweeper = app.sweeper_through(&interposer);
    let (reached, go) = interposer.stop_at(&format!("{sid}/Messages"));
    let meanwhile = async {
        reached.await.unwrap();
        // Twilio's answer is under way, and none of this is in it.
        edit(&app, &sid, &edited, "The house is green.").await;
        let added = write(&app, &sid, "maya", "Shall we see it?").await;
        app.sandbox.settled().await;
        app.app.projector.run_until_idle().await.unwrap();
        go.send(()).unwrap();
        added
    };
    let (run, added) = tokio::join!(sweep_with_a_stop(&sweeper, &interposer), meanwhile);
    let run = run.unwrap();
    assert_eq!(
        body_of(&app, &edited).await.as_deref(),
        Some("The house is green.")
    );
    assert_eq!(body_of(&app, &added).await.as_deref(), Some("Shall we see it?"));
    assert_eq!(
        body_of(&app, &lost).await.as_deref(),
        Some("The garden is small.")
    );
    assert_eq!(run.found.gone, 0, "what came later is not missing from the list");
    app.settle_for(SignedDuration::from_secs(3)).await;
    assert_eq!(differences(&app).await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_holder_who_changes_while_the_sweep_reads_is_not_undone() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let interposer = Interposer::start(&app).await;
    let sweeper = app.sweeper_through(&interposer);
    let (reached, go) = interposer.stop_at(&format!("{sid}/Participants"));
    let meanwhile = async {
        reached.await.unwrap();
        let seat = app
            .at_twilio(&sid)
            .participants
            .into_iter()
            .find(|one| one.identity.is_some())
            .unwrap();
        let update = twilio::requests::ParticipantUpdate {
            identity: Some("noor".parse().unwrap()),
            ..Default::default()
        };
        // In the very second of what the answer says, so that times cut to the second cannot tell.
        app.account()
            .client
            .update_participant(&sid, &seat.sid, &update)
            .await
            .unwrap();
        app.sandbox.settled().await;
        app.app.projector.run_until_idle().await.unwrap();
        go.send(()).unwrap();
    };
    let (run, ()) = tokio::join!(sweep_with_a_stop(&sweeper, &interposer), meanwhile);
    run.unwrap();
    assert_eq!(
        app.holders(&sid).await,
        [Some("maya".to_owned()), Some("noor".to_owned())]
    );
    app.settle_for(SignedDuration::from_secs(3)).await;
    assert_eq!(
        app.holders(&sid).await,
        [Some("maya".to_owned()), Some("noor".to_owned())]
    );
    assert_eq!(differences(&app).await, [] as [&str; 0]);
}

#[tokio::test]
async fn what_twilio_no_longer_has_becomes_a_tombstone_and_what_a_list_passed_over_does_not() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let (kept, erased) = (
        write(&app, &sid, "maya", "Kept.").await,
        write(&app, &sid, "maya", "Erased.").await,
    );
    let deleted = conversation(&app, "Deleted").await;
    app.settle_for(SignedDuration::from_secs(2)).await;
    app.sweep().await;

    app.lose_webhooks();
    let client = &app.account().client;
    client.delete_message(&sid, &erased).await.unwrap();
    client.delete_conversation(&deleted).await.unwrap();
    let left = app.at_twilio(&sid).participants.remove(0).sid;
    client.delete_participant(&sid, &left).await.unwrap();

    let interposer = Interposer::start(&app).await;
    let sweeper = app.sweeper_through(&interposer);
    let passed_over = kept.to_string();
    interposer.spoil(
        &format!("{sid}/Messages"),
        Box::new(move |body| {
            let mut page: Value = serde_json::from_str(&body).unwrap();
            let messages = page["messages"].as_array_mut().unwrap();
            messages.retain(|message| message["sid"] != passed_over.as_str());
            page.to_string()
        }),
    );
    let run = sweep(&sweeper, false).await.unwrap();
    assert_eq!(
        run.found,
        Found {
            gone: 3,
            ..Found::default()
        }
    );
    assert_eq!(differences(&app).await, [] as [&str; 0]);
    let at = async |table: &str, sid: &str| {
        let query = format!("select removed_at::text from {table} where {table}_sid = '{sid}'");
        sql::value(app.pool(), &query).await
    };
    assert!(at("message", erased.as_str()).await.is_some());
    assert!(at("participant", left.as_str()).await.is_some());
    assert!(at("conversation", deleted.as_str()).await.is_some());
    assert!(at("message", kept.as_str()).await.is_none());
    let told = "event where via = 'sweep' and type in ('message.removed', 'participant.removed', 'conversation.removed')";
    assert_eq!(sql::count(app.pool(), told).await, 3);
}

#[tokio::test]
async fn a_row_that_changes_before_its_removal_is_found_is_not_buried_at_once() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let message = write(&app, &sid, "maya", "Erased.").await;
    app.settle_for(SignedDuration::from_secs(2)).await;
    app.lose_webhooks();
    app.account().client.delete_message(&sid, &message).await.unwrap();
    let interposer = Interposer::start(&app).await;
    let sweeper = app.sweeper_through(&interposer);
    // While it is looked for, something is heard of it.
    let (reached, go) = interposer.stop_at(&format!("{sid}/Messages/{message}"));
    let meanwhile = async {
        reached.await.unwrap();
        let query = format!("update message set revision = revision + 1 where message_sid = '{message}'");
        sql::execute(app.pool(), &query).await;
        go.send(()).unwrap();
    };
    let (run, ()) = tokio::join!(sweep_with_a_stop(&sweeper, &interposer), meanwhile);
    let run = run.unwrap();
    // The second walk saw the row as it had become, and its absence.
    let removals = format!("{sid}/Messages/{message}");
    assert_eq!(
        interposer
            .calls()
            .iter()
            .filter(|(_, path)| path.ends_with(&removals))
            .count(),
        2
    );
    assert_eq!((run.found.gone, run.unsettled), (1, 0));
    assert_eq!(differences(&app).await, [] as [&str; 0]);
}

#[tokio::test]
async fn a_probe_sees_the_newest_messages_and_a_walk_after_a_day_sees_the_others() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let mut messages = Vec::new();
    for number in 0..60 {
        messages.push(write(&app, &sid, "maya", &format!("Message {number}")).await);
    }
    app.settle_for(SignedDuration::from_secs(2)).await;
    app.sweep().await;
    app.lose_webhooks();
    app.clock.advance(SignedDuration::from_secs(2));

    edit(&app, &sid, messages.last().unwrap(), "The newest, edited.").await;
    let run = app.sweep().await;
    assert_eq!(
        (run.probed, run.walked),
        (0, 1),
        "what differs at the head makes it walk"
    );
    assert_eq!(
        run.found,
        Found {
            stale: 1,
            ..Found::default()
        }
    );

    edit(&app, &sid, &messages[0], "The oldest, edited.").await;
    let run = app.sweep().await;
    assert_eq!((run.probed, run.walked, run.found.repaired()), (1, 0, 0));
    app.clock.advance(DAY);
    let run = app.sweep().await;
    assert_eq!((run.probed, run.walked), (0, 1));
    assert_eq!(
        run.found,
        Found {
            stale: 1,
            ..Found::default()
        }
    );
    assert_eq!(differences(&app).await, [] as [&str; 0]);
}

#[tokio::test]
async fn what_is_closed_is_walked_until_receipts_can_no_longer_come_and_then_left_alone() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    write(&app, &sid, "maya", "Good-bye.").await;
    app.settle_for(SignedDuration::from_secs(2)).await;
    close(&app, &sid).await;
    app.settle_for(SignedDuration::from_secs(2)).await;
    assert_eq!(app.sweep().await.walked, 1);
    assert_eq!(app.sweep().await.probed, 1);
    app.clock.advance(DAY);
    assert_eq!(app.sweep().await.walked, 1);
    app.clock.advance(DAY + DAY);
    let run = app.sweep().await;
    assert_eq!(
        (run.left_alone, run.requests),
        (1, 2),
        "the list tells that it is as it was; the numbers are asked about at any rate"
    );
    let verified = completeness::of_conversation(&mut *app.conn().await, &sid)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(verified.verified_by, Some(By::Probe));
    assert!(verified.verified_at.unwrap() >= run.started_at);
    assert_eq!(verified.compared.messages, 1, "as the last walk compared them");

    app.lose_webhooks();
    app.account().client.delete_conversation(&sid).await.unwrap();
    assert_eq!(
        app.sweep().await.found,
        Found {
            gone: 1,
            ..Found::default()
        }
    );
    assert_eq!(differences(&app).await, [] as [&str; 0]);
}

#[tokio::test]
async fn receipts_are_read_where_their_summary_differs_and_everywhere_when_asked_for_everything() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    for number in 0..4 {
        write(&app, &sid, "maya", &format!("Message {number}")).await;
    }
    app.settle_for(SignedDuration::from_secs(2)).await;
    app.sweep().await;
    // Ours are wrong in a way that no summary tells: another carrier's message.
    sql::execute(app.pool(), "update delivery_receipt set channel_message_sid = 'SM0', version_at = version_at - interval '1 minute'").await;
    sql::execute(app.pool(), "update delivery_receipt set status = 'sent' where message_sid = (select min(message_sid) from message)").await;
    let interposer = Interposer::start(&app).await;
    let sweeper = app.sweeper_through(&interposer);
    let receipts_read = || {
        interposer
            .calls()
            .iter()
            .filter(|(_, path)| path.contains("/Receipts"))
            .count()
    };
    let run = sweep(&sweeper, false).await.unwrap();
    assert_eq!((run.walked, run.found.stale, receipts_read()), (1, 2, 1));
    let run = sweep(&sweeper, true).await.unwrap();
    assert_eq!((run.found.stale, receipts_read()), (6, 1 + 4));
    assert_eq!(differences(&app).await, [] as [&str; 0]);

    // A receipt that Twilio does not list is told, and kept.
    sql::execute(
        app.pool(),
        "insert into delivery_receipt select conversation_sid, message_sid, 'DY000000000000000000000000000000ff', account_sid,
            participant_sid, 'SM1', 'sent', null, created_at, version_at from delivery_receipt limit 1",
    )
    .await;
    let run = sweep(&sweeper, false).await.unwrap();
    assert_eq!(
        run.found,
        Found {
            extra: 1,
            ..Found::default()
        }
    );
    assert_eq!(differences(&app).await.len(), 1);
}

#[tokio::test]
async fn no_stretch_of_time_has_more_calls_than_the_budget() {
    let app = TestApp::start().await;
    app.lose_webhooks();
    for number in 0..12 {
        conversation(&app, &format!("Group {number}")).await;
    }
    let interposer = Interposer::start(&app).await;
    let per = Duration::from_millis(300);
    let sweeper = Sweeper {
        budget: Budget::new(8, per),
        ..app.sweeper_through(&interposer)
    };
    let began = Instant::now();
    let run = sweep(&sweeper, false).await.unwrap();
    let calls = interposer.calls();
    assert_eq!(
        run.requests,
        i64::try_from(calls.len()).unwrap(),
        "every call was counted"
    );
    assert_eq!(calls.len(), 2 + 3 * 12);
    assert!(
        began.elapsed() >= per * 4,
        "38 calls are four stretches of eight and some"
    );
    // What a call takes on its way differs a little.
    let on_the_way = Duration::from_millis(60);
    for pair in calls.windows(9) {
        assert!(pair[8].0.duration_since(pair[0].0) + on_the_way >= per);
    }
}

#[tokio::test]
async fn completeness_says_what_is_verified_by_what_and_since_when() {
    let app = TestApp::start().await;
    let total = async || completeness::total(&mut *app.conn().await).await.unwrap();
    let empty = total().await;
    assert_eq!(
        (empty.conversations, empty.unverified_since, empty.accounts.len()),
        (0, None, 0)
    );

    let sid = sid_of(&app.group(Some("maya")).await);
    write(&app, &sid, "maya", "Hello.").await;
    app.settle_for(SignedDuration::from_secs(2)).await;
    let other = conversation(&app, "Another").await;
    app.settle_for(SignedDuration::from_secs(2)).await;
    let before = total().await;
    let of_it = completeness::of_conversation(&mut *app.conn().await, &other)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((of_it.verified_at, of_it.verified_by), (None, None));
    assert!(before.conversations == 2 && before.never_verified >= 1);
    assert!(
        before
            .unverified_since
            .is_some_and(|since| since < app.clock.now())
    );

    let swept_from = app.clock.now();
    let run = app.sweep().await;
    let after = total().await;
    assert_eq!(
        (after.never_verified, after.in_doubt, after.webhooks_set_aside),
        (0, 0, 0)
    );
    assert_eq!(after.verified_by, Some(By::Walk));
    assert!(after.unverified_since >= Some(swept_from) && after.verified_at >= after.unverified_since);
    assert_eq!(
        (
            after.compared.participants,
            after.compared.messages,
            after.compared.receipts
        ),
        (3, 1, 2)
    );
    assert_eq!(run.compared, 2 + after.compared.total());
    assert_eq!(after.found, Found::default());
    assert_eq!(after.accounts[0].last_completed.as_ref(), Some(&run));

    // Lost: a message with its two receipts, an edit; and one conversation is gone.
    app.lose_webhooks();
    app.clock.advance(SignedDuration::from_secs(2));
    write(&app, &sid, "maya", "Unheard.").await;
    let first = app.at_twilio(&sid).messages.remove(0).sid;
    edit(&app, &sid, &first, "Hello!").await;
    app.account().client.delete_conversation(&other).await.unwrap();
    app.sandbox.settled().await;
    let run = app.sweep().await;
    let found = Found {
        missing: 3,
        stale: 1,
        gone: 1,
        extra: 0,
    };
    assert_eq!(run.found, found);
    let now = total().await;
    assert_eq!((now.conversations, now.found), (1, found));
    let of_it = completeness::of_conversation(&mut *app.conn().await, &sid)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(of_it.found, Found { gone: 0, ..found });
    assert_eq!(
        (
            of_it.verified_by,
            of_it.compared.messages,
            of_it.compared.receipts
        ),
        (Some(By::Walk), 2, 4)
    );
    assert_eq!(of_it.sweep_run_id, Some(run.sweep_run_id));

    app.sweep().await;
    let of_it = completeness::of_conversation(&mut *app.conn().await, &sid)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(of_it.verified_by, Some(By::Probe));
    assert!(of_it.verified_at > of_it.walked_at);
    let nobody: ConversationSid = "CH000000000000000000000000000000ff".parse().unwrap();
    assert_eq!(
        completeness::of_conversation(&mut *app.conn().await, &nobody)
            .await
            .unwrap(),
        None
    );
}

#[tokio::test]
async fn one_process_sweeps_an_account_and_a_wider_sweep_takes_the_place_of_one_that_stopped() {
    let app = TestApp::start().await;
    app.group(Some("maya")).await;
    let sweeper = app.sweeper();
    die_while_sweeping(&app).await;
    assert!(matches!(sweep(&sweeper, true).await, Err(Error::Busy(_))));
    app.clock.advance(SignedDuration::from_secs(91));
    let run = sweep(&sweeper, true).await.unwrap();
    assert!(run.everything && run.walked == 1);
    let states = sql::values(app.pool(), "select state from sweep_run order by started_at").await;
    assert_eq!(states, ["abandoned", "completed"]);
}

#[tokio::test]
async fn some_conversations_can_be_walked_by_name() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let (other, gone) = (
        conversation(&app, "Other").await,
        conversation(&app, "Gone").await,
    );
    app.settle_for(SignedDuration::from_secs(2)).await;
    app.lose_webhooks();
    write(&app, &sid, "maya", "Unheard.").await;
    write(&app, &other, "system", "Unheard too.").await;
    app.account().client.delete_conversation(&gone).await.unwrap();
    app.sandbox.settled().await;
    let unknown: ConversationSid = "CH000000000000000000000000000000ff".parse().unwrap();
    let sweeper = app.sweeper();
    let sids = [sid, gone, unknown];
    let run = Box::pin(sweeper.walk(app.account(), &sids, false, &mut |_| ()))
        .await
        .unwrap();
    assert_eq!((run.scope, run.walked), (Scope::Conversations, 2));
    assert_eq!(
        run.found,
        Found {
            missing: 3,
            gone: 1,
            ..Found::default()
        }
    );
    assert_eq!(
        differences(&app).await.len(),
        1,
        "the other one was not asked for"
    );
    assert_eq!(
        last_completed(&mut *app.conn().await, ACCOUNT).await.unwrap(),
        None,
        "it was not the account"
    );
    assert_eq!(
        sql::count(app.pool(), "conversation").await,
        3,
        "an unknown one leaves nothing behind"
    );
}

#[tokio::test]
async fn conversations_of_another_service_are_left_to_whoever_works_on_it() {
    let app = TestApp::start().await;
    let sid = conversation(&app, "Ours").await;
    app.settle_for(SignedDuration::from_secs(2)).await;
    sql::execute(
        app.pool(),
        "update conversation set service_sid = 'IS000000000000000000000000000000ff'",
    )
    .await;
    app.account().client.delete_conversation(&sid).await.unwrap();
    let run = app.sweep().await;
    assert_eq!((run.conversations(), run.found), (0, Found::default()));
}

#[tokio::test]
async fn a_late_webhook_from_before_the_sweep_undoes_nothing() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.settle_for(SignedDuration::from_secs(2)).await;
    // Renamed there and back, unheard; and the first of both webhooks is only late.
    app.lose_webhooks();
    let rename = async |name: &str| {
        app.clock.advance(SignedDuration::from_secs(2));
        let update = ConversationUpdate {
            friendly_name: Some(name.into()),
            ..ConversationUpdate::default()
        };
        app.account()
            .client
            .update_conversation(&sid, &update)
            .await
            .unwrap();
    };
    rename("For a moment").await;
    let late = app.at_twilio(&sid).date_updated;
    rename("Home-buying journey").await;
    app.sweep().await;
    let version =
        format!("select (version_at > '{late}')::text from conversation where conversation_sid = '{sid}'");
    assert_eq!(sql::value(app.pool(), &version).await.as_deref(), Some("true"));
    assert_eq!(differences(&app).await, [] as [&str; 0]);
}

#[tokio::test]
async fn the_command_sweeps_says_what_it_found_and_fails_where_something_is_open() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.lose_webhooks();
    write(&app, &sid, "maya", "Unheard.").await;
    app.sandbox.settled().await;
    let (succeeded, output) = app.command(&["sweep"]).await;
    assert!(succeeded, "{output}");
    let line = "complete: 1 conversations (1 walked, 0 probed, 0 left alone, 0 unsettled, 0 failed)";
    assert!(
        output.contains(line) && output.contains("repaired 3 missing, 0 stale, 0 gone"),
        "{output}"
    );
    assert!(
        output.contains("of about 1 conversations"),
        "not a terminal, so lines: {output}"
    );
    assert!(!output.contains("Unheard") && !output.contains(LINE), "{output}");
    assert_mirror_equals_sandbox(&app).await;

    let (_, output) = app.command(&["check"]).await;
    assert!(
        output.contains("ok       mirror: 1 conversations, the longest unverified for 0 min"),
        "{output}"
    );

    let (succeeded, output) = app
        .command(&["sweep", "--conversation", sid.as_str(), "--full"])
        .await;
    assert!(succeeded && output.contains("1 walked"), "{output}");
    let (succeeded, output) = app
        .command(&["sweep", "--account", "AC000000000000000000000000000000ff"])
        .await;
    assert!(
        !succeeded && output.contains("that account is not configured"),
        "{output}"
    );

    // Another process has the account.
    die_while_sweeping(&app).await;
    let (succeeded, output) = app.command(&["sweep"]).await;
    assert!(
        !succeeded && output.contains("another process is sweeping"),
        "{output}"
    );
}
