//! Several at work, and some that die.

use hookswitch::escalation::Escalator;
use hookswitch::mirror;
use hookswitch::transfer::Kind;
use jiff::SignedDuration;
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::{ask, later, policy, set, slow_answer, staffed, step, told};
use crate::support::app::{LINE, sid_of};
use crate::support::tables;

#[tokio::test]
async fn of_two_that_look_at_once_one_acts() {
    let (app, _) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    app.settle().await;
    app.advance(SignedDuration::from_mins(15));
    let other = app.restarted();
    let looks: Vec<_> = (0..8)
        .map(|number| {
            let escalator = if number % 2 == 0 {
                app.app.escalator.clone()
            } else {
                other.escalator.clone()
            };
            tokio::spawn(async move { escalator.run_until_idle().await.unwrap() })
        })
        .collect();
    let mut looked = 0;
    for look in looks {
        looked += look.await.unwrap();
    }
    assert_eq!(looked, 1);
    assert_eq!(told(&app).await, ["started", "step_taken nudge maya"]);
}

#[tokio::test]
async fn a_worker_that_dies_between_two_steps_is_replaced_and_nothing_is_done_twice() {
    let (app, _) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    later(&app, 15).await;
    // It has taken the line, and dies.
    app.advance(SignedDuration::from_mins(5));
    tables::execute(
        &app,
        "update escalation_watch set lease_token = gen_random_uuid(), lease_expires_at = look_at + interval '1 minute'",
    )
    .await;
    app.settle().await;
    assert_eq!(told(&app).await.len(), 2, "somebody else has it");
    app.settle_for(SignedDuration::from_mins(1)).await;
    assert_eq!(told(&app).await[2..], ["step_taken offer jonas"]);

    // And one that dies after it has written that the offer is to be made: the task is there, and is run twice.
    later(&app, 30).await;
    assert_eq!(tables::count(&app, "transfer").await, 1);
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn an_offer_that_was_decided_is_made_once_by_whoever_comes() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    later(&app, 15).await;
    app.advance(SignedDuration::from_mins(5));
    // Decided, and the process dies before it is made.
    app.app.escalator.run_until_idle().await.unwrap();
    assert_eq!(
        tables::count(&app, "escalation_step where outcome = 'asked'").await,
        1
    );
    let other = app.restarted();
    app.settle_with(&other).await;
    assert_eq!(tables::count(&app, "transfer where state = 'offered'").await, 1);
    // The same task once more: it finds it done.
    tables::execute(
        &app,
        "insert into task (kind, order_key, payload, run_at, attempts_max, created_at)
        select 'escalation.act', 'again', jsonb_build_object('verb', 'start', 'conversation_sid', conversation_sid,
            'escalation_id', escalation_id, 'number', number), taken_at, 3, taken_at
        from escalation_step where how = 'offer'",
    )
    .await;
    app.settle().await;
    assert_eq!(tables::count(&app, "transfer").await, 1);
    assert_eq!(told(&app).await.len(), 3);

    // Decided, and answered before it is made: it is not.
    super::answer(&app, &sid).await;
    ask(&app, "One more thing").await;
    later(&app, 15).await;
    app.advance(SignedDuration::from_mins(5));
    app.app.escalator.run_until_idle().await.unwrap();
    assert_eq!(
        tables::count(&app, "escalation_step where outcome = 'asked'").await,
        1
    );
    let new = hookswitch::outbox::NewOutboundMessage {
        conversation_sid: sid.clone(),
        line: None,
        as_holder: None,
        body: "Here".to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    };
    // It comes to the mirror before the task is run.
    tables::execute(
        &app,
        "update task set run_at = run_at + interval '1 minute' where kind = 'escalation.act'",
    )
    .await;
    app.app.api.outbox.send(new).await.unwrap();
    app.settle().await;
    app.settle_for(SignedDuration::from_mins(2)).await;
    assert_eq!(tables::count(&app, "transfer").await, 1);
    assert_eq!(
        tables::count(&app, "escalation_step where outcome = 'dropped'").await,
        1
    );
}

#[tokio::test]
async fn what_happens_while_somebody_looks_counts() {
    let (app, sid) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    app.settle().await;
    app.advance(SignedDuration::from_mins(15));
    let escalator: Escalator = app.app.escalator.clone();
    // The answer is marked between the claim and the writing: by the same statement that the projector runs.
    let token = "00000000-0000-0000-0000-000000000001";
    tables::execute(
        &app,
        &format!("update escalation_watch set lease_token = '{token}', lease_expires_at = look_at + interval '1 hour'"),
    )
    .await;
    super::answer(&app, &sid).await;
    let leases = "escalation_watch where lease_token is not null";
    assert_eq!(tables::count(&app, leases).await, 0, "taken away");
    escalator.run_until_idle().await.unwrap();
    assert_eq!(told(&app).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_step_that_comes_after_the_next_one_is_dropped() {
    let (app, _) = staffed().await;
    let mut document = slow_answer();
    document["rules"][0]["steps"] = json!([
        step("offer", &json!("backup"), "10m"),
        step("nudge", &json!("supervisor"), "10m")
    ]);
    set(&app, "all", &document).await;
    ask(&app, "Hello?").await;
    app.settle().await;
    app.advance(SignedDuration::from_mins(15));
    app.app.escalator.run_until_idle().await.unwrap();
    tables::execute(
        &app,
        "update task set run_at = run_at + interval '15 minutes' where kind = 'escalation.act'",
    )
    .await;
    later(&app, 10).await;
    later(&app, 5).await;
    assert_eq!(tables::count(&app, "transfer").await, 0);
    assert_eq!(
        told(&app).await,
        ["started", "step_taken nudge noor", "step_dropped offer jonas"]
    );
    tables::assert_queue_is_empty(&app).await;
}

/// Somebody ends the escalation at the moment at which its offer is made, without the conversation's lock: the offer waits
/// for them, and is not made.
#[tokio::test]
async fn an_offer_waits_for_whoever_is_writing_the_end() {
    let (app, _) = staffed().await;
    let mut document = slow_answer();
    document["rules"][0]["steps"] = json!([step("offer", &json!("backup"), "10m")]);
    set(&app, "all", &document).await;
    ask(&app, "Hello?").await;
    app.settle().await;
    app.advance(SignedDuration::from_mins(15));
    app.app.escalator.run_until_idle().await.unwrap();
    // A look that saw the step before it was carried out, with its lines locked.
    let mut writing = app.pool().begin().await.unwrap();
    sqlx::raw_sql("select from escalation_watch for update")
        .execute(&mut *writing)
        .await
        .unwrap();
    let worker = app.app.worker.clone();
    let offering = tokio::spawn(async move { worker.run_until_idle().await.unwrap() });
    let is_waiting = "pg_locks where not granted
        and pid in (select pid from pg_stat_activity where datname = current_database())";
    while tables::count(&app, is_waiting).await == 0 {
        assert_eq!(
            tables::count(&app, "transfer").await,
            0,
            "made without a look at who writes"
        );
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    sqlx::raw_sql(
        "update escalation set state = 'stopped', why = 'policy_off', next_at = null, finished_at = updated_at",
    )
    .execute(&mut *writing)
    .await
    .unwrap();
    writing.commit().await.unwrap();
    offering.await.unwrap();
    app.settle().await;
    assert_eq!(tables::count(&app, "transfer").await, 0);
    assert_eq!(
        tables::count(&app, "escalation_step where outcome = 'dropped'").await,
        1
    );
}

#[tokio::test]
async fn news_wakes_who_would_look_much_later() {
    let (app, sid) = staffed().await;
    let rule = json!({ "when": "asked", "steps": [step("nudge", &json!("supervisor"), "5m")] });
    set(&app, "all", &policy(&rule)).await;
    app.settle().await;
    let cancel = CancellationToken::new();
    let mut escalator = app.app.escalator.clone();
    escalator.settings.poll = std::time::Duration::from_hours(1);
    let news = app.app.notices.events.subscribe();
    let listening = tokio::spawn(app.app.notices.clone().listen(app.pool().clone(), cancel.clone()));
    let running = tokio::spawn(escalator.run(news, cancel.clone()));
    // It has looked, there was nothing, and it sleeps.
    tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    let wanted = hookswitch::escalation::Ask {
        conversation_sid: sid,
        line: LINE.parse().unwrap(),
        by: "maya".parse().unwrap(),
        reason: None,
        rule: None,
    };
    let (mut conn, now) = (app.conn().await, app.clock.now());
    hookswitch::escalation::ask(&mut conn, wanted, hookswitch::events::Via::Api, now)
        .await
        .unwrap();
    let looking = async {
        while told(&app).await.len() < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_mins(1), looking)
        .await
        .unwrap();
    assert_eq!(told(&app).await, ["started", "step_taken nudge noor"]);
    cancel.cancel();
    running.await.unwrap();
    listening.await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_read_at_once_is_read_in_smaller_sets() {
    let (app, _) = staffed().await;
    set(&app, "all", &slow_answer()).await;
    ask(&app, "Hello?").await;
    app.settle().await;
    app.advance(SignedDuration::from_mins(15));
    // Reading takes the database longer than it gives a statement; the worker's role is not the owner, so that policies count.
    tables::execute(
        &app,
        "create function cancel() returns bool language plpgsql as $$
        begin raise exception using errcode = 'query_canceled'; end $$;
        create policy slow on escalation_policy_version using (cancel());
        alter table escalation_policy_version enable row level security",
    )
    .await;
    let mut limit = 100;
    app.app.escalator.look(&mut limit).await.unwrap_err();
    assert_eq!(limit, 50);
    tables::execute(
        &app,
        "alter table escalation_policy_version disable row level security",
    )
    .await;
    // The lease of that look runs out.
    app.settle_for(SignedDuration::from_secs(21)).await;
    assert_eq!(told(&app).await, ["started", "step_taken nudge maya"]);
}

/// Five offers are due at once; of two there is something else to say by then.
#[tokio::test]
async fn offers_that_are_due_together_are_made_together_and_each_by_itself() {
    let (app, first) = staffed().await;
    let mut document = slow_answer();
    document["rules"][0]["steps"] = json!([step("offer", &json!("backup"), "10m")]);
    set(&app, "all", &document).await;
    let handsets: Vec<[String; 2]> = (0..4)
        .map(|number| [10, 11].map(|last| format!("+155555501{}", last + 2 * number)))
        .collect();
    let mut groups = vec![first];
    ask(&app, "Hello?").await;
    for [buyer, partner] in &handsets {
        groups.push(sid_of(&app.group_of(&[buyer, partner]).await));
        app.text(buyer, &[LINE, partner], "Hello?").await;
    }
    app.settle().await;
    app.advance(SignedDuration::from_mins(15));
    app.app.escalator.run_until_idle().await.unwrap();
    let put_off = "update task set run_at = run_at + interval '1 minute' where kind = 'escalation.act'";
    tables::execute(&app, put_off).await;
    super::answer(&app, &groups[1]).await;
    app.start_transfer(&groups[2], Kind::Warm, "noor").await;
    app.settle().await;
    app.advance(SignedDuration::from_mins(1));
    let acts = "task where kind = 'escalation.act'";
    assert_eq!(tables::count(&app, acts).await, 5);
    // Somebody is at work on the conversation whose turn comes last, and keeps none of the others.
    let last = "select payload ->> 'conversation_sid' from task where kind = 'escalation.act' order by run_at desc, task_id desc limit 1";
    let last = tables::rows(&app, last).await.remove(0).parse().unwrap();
    let mut at_work = app.pool().begin().await.unwrap();
    let locked = mirror::read::lock_conversation(&mut at_work, &last).await;
    assert!(locked.unwrap().is_some());
    let worker = app.app.worker.clone();
    let offering = tokio::spawn(async move { worker.run_until_idle().await.unwrap() });
    while tables::count(&app, acts).await != 1 {
        assert!(!offering.is_finished(), "it waits for the last one");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    at_work.rollback().await.unwrap();
    assert_eq!(offering.await.unwrap(), 2, "all along with one, and the last one");

    let outcomes = tables::rows(
        &app,
        "select concat_ws(' ', conversation_sid, outcome, code, (select state || ' ' || to_holder from transfer
            where transfer.conversation_sid = escalation_step.conversation_sid
              and transfer.transfer_id = escalation_step.transfer_id))
        from escalation_step order by conversation_sid",
    )
    .await;
    let mut expected: Vec<String> = [
        "started offered jonas",
        "dropped",
        "refused already_open",
        "started offered jonas",
        "started offered jonas",
    ]
    .iter()
    .zip(&groups)
    .map(|(outcome, sid)| format!("{sid} {outcome}"))
    .collect();
    expected.sort();
    assert_eq!(outcomes, expected);
    assert_eq!(tables::count(&app, "transfer where state = 'offered'").await, 4);
    let candidates =
        "select distinct concat_ws(' ', place, identity, state, offer_seconds between 500 and 540, offered_at is not null)
        from transfer_candidate where identity = 'jonas'";
    assert_eq!(tables::rows(&app, candidates).await, ["1 jonas offered t t"]);
    // And all end in their time.
    later(&app, 15).await;
    assert_eq!(tables::count(&app, "transfer where state = 'expired'").await, 4);
    tables::assert_queue_is_empty(&app).await;
}
