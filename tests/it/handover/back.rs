//! The way back: rolled back by hand, or on the day.

use hookswitch::handover::{BackState, Because, Becomes, State};
use hookswitch::transfer::NewForce;
use jiff::SignedDuration;
use serde_json::json;

use super::{Desk, count, kind, to_ada, told};
use crate::support::tables;

async fn force(desk: &Desk, sid: &hookswitch::ids::ConversationSid, to: &str) {
    let force = NewForce {
        conversation_sid: sid.clone(),
        line: None,
        to: to.parse().unwrap(),
        by: "sam".to_owned(),
        reason: None,
        note: None,
        introduction: None,
    };
    desk.app.app.api.transfers.force(force).await.unwrap();
    desk.app.settle_for(SignedDuration::from_secs(5)).await;
}

#[tokio::test]
async fn rolled_back_what_is_still_with_whom_it_was_given_to_goes_back() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 4, "maya").await;
    let mut new = to_ada();
    new.leaver_becomes = Some(Becomes::Left);
    let id = desk.draft(new).await.handover_id;
    assert!(
        desk.get("/v1/agents/maya").await["left_at"].is_null(),
        "a draft does nothing"
    );
    desk.run(id).await;
    assert!(desk.get("/v1/agents/maya").await["left_at"].is_string());
    assert_eq!(desk.ended(id).await.state, State::Completed);
    force(&desk, &sids[1], "ben").await;

    let (status, plan) = desk.verb(id, "roll-back").await;
    assert_eq!((status, &plan["direction"]), (200, &"back".into()));
    assert!(desk.get("/v1/agents/maya").await["left_at"].is_null());
    let plan = desk.ended(id).await;
    assert_eq!(
        (plan.state, plan.back_because),
        (State::Returned, Some(Because::RollBack))
    );
    assert_eq!(desk.holders(&sids).await, ["maya", "ben", "maya", "maya"]);
    let kept = &desk.lines(id).await[1];
    assert_eq!(
        (kept.back_state, kept.back_outcome.as_deref()),
        (Some(BackState::Kept), Some("changed_hands"))
    );
    assert_eq!(
        told(&desk, id).await,
        [
            "requested",
            "planned",
            "started",
            "completed",
            "turned_round",
            "returned"
        ]
    );
    let (status, problem) = desk.verb(id, "roll-back").await;
    assert_eq!((status, kind(&problem)), (409, "handover_state"), "{problem}");
}

#[tokio::test]
async fn a_run_that_is_rolled_back_in_the_middle_ends_as_it_began() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 5, "maya").await;
    let id = desk.draft(to_ada()).await.handover_id;
    desk.run(id).await;
    desk.app.settle().await;
    desk.app.advance(SignedDuration::from_secs(1));
    desk.app.settle().await;
    assert_eq!(desk.verb(id, "roll-back").await.0, 200);
    assert_eq!(desk.ended(id).await.state, State::Returned);
    assert_eq!(count(desk.holders(&sids).await), [("maya".to_owned(), 5)].into());
    let counts = desk.counts(id).await;
    assert!(counts.returned >= 1, "{counts:?}");
    assert_eq!(counts.returned + counts.cancelled, 5, "{counts:?}");
}

#[tokio::test]
async fn after_a_holiday_the_lines_come_back_on_the_day() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 4, "maya").await;
    let mut new = to_ada();
    let return_at = desk.app.clock.now() + SignedDuration::from_hours(10 * 24);
    new.return_at = Some(return_at);
    new.leaver_becomes = Some(Becomes::Away);
    let id = desk.draft(new).await.handover_id;
    desk.run(id).await;
    assert_eq!(desk.ended(id).await.state, State::Completed);
    let maya = desk.get("/v1/agents/maya").await;
    assert_eq!(maya["availability"]["status"], "away", "{maya}");
    force(&desk, &sids[0], "ben").await;
    desk.close_silently(&sids[1]).await;

    desk.app.settle_for(SignedDuration::from_hours(9 * 24)).await;
    assert_eq!(desk.plan(id).await.state, State::Completed);
    desk.app.settle_for(SignedDuration::from_hours(24)).await;
    let plan = desk.ended(id).await;
    assert_eq!(
        (plan.state, plan.back_because),
        (State::Returned, Some(Because::Return))
    );
    let open = [sids[0].clone(), sids[2].clone(), sids[3].clone()];
    assert_eq!(desk.holders(&open).await, ["ben", "maya", "maya"]);
    let lines = desk.lines(id).await;
    assert_eq!(lines[0].back_outcome.as_deref(), Some("changed_hands"));
    // Nobody had told of the closing: the transfer found it out.
    assert_ne!(lines[1].back_state, Some(BackState::Returned), "{:?}", lines[1]);
    let maya = desk.get("/v1/agents/maya").await;
    assert_eq!(maya["availability"]["status"], "available", "{maya}");
}

#[tokio::test]
async fn a_cancelled_plan_gives_nothing_more_and_does_not_return() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 4, "maya").await;
    let mut new = to_ada();
    new.return_at = Some(desk.app.clock.now() + SignedDuration::from_hours(24));
    let id = desk.draft(new).await.handover_id;
    desk.run(id).await;
    desk.app.settle().await;
    assert_eq!(desk.verb(id, "cancel").await.0, 200);
    desk.app.settle_for(SignedDuration::from_secs(5)).await;
    let counts = desk.counts(id).await;
    assert_eq!(counts.transferring, 0);
    assert_eq!(counts.handed_over + counts.cancelled, 4, "{counts:?}");
    let holders = desk.holders(&sids).await;
    desk.app.settle_for(SignedDuration::from_hours(48)).await;
    assert_eq!(desk.holders(&sids).await, holders);
    assert_eq!(desk.plan(id).await.state, State::Cancelled);
}

#[tokio::test]
async fn a_return_that_is_looked_at_too_early_comes_on_its_day_all_the_same() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 1, "maya").await;
    let mut new = to_ada();
    new.return_at = Some(desk.app.clock.now() + SignedDuration::from_hours(24));
    let id = desk.draft(new).await.handover_id;
    desk.run(id).await;
    assert_eq!(desk.ended(id).await.state, State::Completed);
    // As if the clock had been set back between the look for what is due and the look at the plan.
    let early = "update task set run_at = created_at where kind = 'handover.return'";
    tables::execute(&desk.app, early).await;
    desk.app.settle().await;
    assert_eq!(desk.plan(id).await.state, State::Completed);
    assert_eq!(desk.holders(&sids).await, ["ada"]);
    desk.app.settle_for(SignedDuration::from_hours(24)).await;
    desk.until(id, |plan| plan.state == State::Returned).await;
    assert_eq!(desk.holders(&sids).await, ["maya"]);
}

#[tokio::test]
async fn the_new_holder_says_who_they_are_and_the_way_back_is_of_whoever_chose_it() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 2, "maya").await;
    let asked = json!({
        "leaver": "maya", "requested_by": "sam", "rules": [{ "rule": "people", "people": ["ada"] }],
        "introduction": "Hello, I am Ada, and with you from now on.",
    });
    let (status, plan) = desk.post("/v1/handovers", &asked).await;
    assert_eq!(status, 202, "{plan}");
    let id = plan["handover_id"].as_str().unwrap().parse().unwrap();
    desk.until(id, |plan| plan.state == State::Draft).await;
    let shown = desk.get(&format!("/v1/handovers/{id}")).await;
    assert_eq!(shown["introduction"], asked["introduction"], "{shown}");
    desk.run(id).await;
    desk.ended(id).await;
    desk.app.settle_for(SignedDuration::from_secs(5)).await;
    let said = |sid| -> Vec<(String, Option<String>)> {
        let messages = desk.app.at_twilio(sid).messages;
        messages.into_iter().map(|one| (one.author, one.body)).collect()
    };
    let hello = vec![(
        "ada".to_owned(),
        Some("Hello, I am Ada, and with you from now on.".to_owned()),
    )];
    for sid in &sids {
        assert_eq!(said(sid), hello);
    }

    let back = json!({ "by": "kim" });
    let (status, plan) = desk.post(&format!("/v1/handovers/{id}/roll-back"), &back).await;
    assert_eq!((status, &plan["turned_by"]), (200, &"kim".into()), "{plan}");
    assert_eq!(desk.ended(id).await.state, State::Returned);
    desk.app.settle_for(SignedDuration::from_secs(5)).await;
    let asked_by =
        "select concat_ws(' ', to_holder, requested_by) from transfer order by created_at, transfer_id";
    assert_eq!(
        tables::rows(&desk.app, asked_by).await,
        ["ada sam", "ada sam", "maya kim", "maya kim"]
    );
    for sid in &sids {
        assert_eq!(said(sid), hello, "nobody says it on the way back");
    }
}
