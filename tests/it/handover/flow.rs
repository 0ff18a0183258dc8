//! The way out: preview, run, pause, death, replicas.

use std::collections::BTreeSet;
use std::time::Duration;

use hookswitch::handover::{Finding, LineState, State};
use jiff::SignedDuration;

use super::{Desk, count, over_the_team, to_ada, told};
use crate::support::tables;

#[tokio::test]
async fn the_lines_of_a_leaver_are_spread_over_a_team_and_differences_are_shown() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 31, "maya").await;
    desk.close_silently(&sids[3]).await;
    desk.change_silently(&sids[7], "zoe").await;

    let plan = desk.draft(over_the_team()).await;
    let id = plan.handover_id;
    let lines = desk.lines(id).await;
    assert_eq!(lines.len(), 31, "every line has its place");
    let differing: Vec<_> = lines
        .iter()
        .filter(|line| line.finding != Finding::Agrees)
        .map(|line| (line.conversation_sid.clone(), line.finding, line.outcome.clone()))
        .collect();
    assert_eq!(
        differing,
        [
            (
                sids[3].clone(),
                Finding::Closed,
                Some("conversation_closed".to_owned())
            ),
            (
                sids[7].clone(),
                Finding::OnlyHere,
                Some("not_the_leavers".to_owned())
            ),
        ]
    );
    // Nothing has been done yet.
    assert_eq!(
        count(desk.holders(&sids[8..]).await),
        [("maya".to_owned(), 23)].into()
    );

    let shown = desk.get(&format!("/v1/handovers/{id}")).await;
    assert_eq!(shown["state"], "draft");
    assert_eq!(shown["counts"]["waiting"], 28);
    assert_eq!(
        (&shown["counts"]["stays"], &shown["counts"]["skipped"]),
        (&1.into(), &2.into())
    );
    assert_eq!(
        (&shown["findings"]["closed"], &shown["findings"]["only_here"]),
        (&1.into(), &1.into())
    );
    assert_eq!(
        (&shown["to"][0]["to"], &shown["to"][0]["lines"]),
        (&"ada".into(), &20.into())
    );
    assert_eq!(
        (&shown["to"][1]["lines"], &shown["to"][1]["capacity"]),
        (&8.into(), &8.into())
    );
    let stays = desk.get(&format!("/v1/handovers/{id}/lines?state=stays")).await;
    assert_eq!(stays["items"][0]["why"], "nobody_can_take_it");
    let passed = stays["items"][0]["passed"].to_string();
    assert!(passed.contains(r#"{"to":"cyd","why":"away"}"#), "{passed}");
    assert!(passed.contains(r#"{"to":"ben","why":"at_capacity"}"#), "{passed}");
    let differing = desk
        .get(&format!("/v1/handovers/{id}/lines?differing=true&limit=1"))
        .await;
    assert_eq!(differing["items"].as_array().unwrap().len(), 1);
    assert!(differing["next"].is_string());

    assert_eq!(desk.verb(id, "run").await.0, 200);
    assert_eq!(desk.ended(id).await.state, State::Completed);
    let counts = desk.counts(id).await;
    assert_eq!((counts.handed_over, counts.stays, counts.skipped), (28, 1, 2));
    let live: Vec<_> = sids.iter().filter(|sid| **sid != sids[3]).cloned().collect();
    let expected = [("ada", 20), ("ben", 8), ("maya", 1), ("zoe", 1)];
    let expected = expected.map(|(name, lines)| (name.to_owned(), lines)).into();
    assert_eq!(count(desk.holders(&live).await), expected);
    assert_eq!(
        told(&desk, id).await,
        ["requested", "planned", "started", "completed"]
    );
    let ends = tables::count(
        &desk.app,
        &format!("event where type = 'handover.line_ended' and subject = '{id}'"),
    )
    .await;
    assert_eq!(ends, 30, "each line that does not stay has one end");

    // Each began when it was due, and no two closer than the rate says.
    let lines = desk.lines(id).await;
    let mut due: Vec<_> = lines.iter().filter_map(|line| line.due_at).collect();
    due.sort();
    assert_eq!(due.len(), 28);
    for pair in due.windows(2) {
        assert!(pair[1].duration_since(pair[0]) >= SignedDuration::from_secs(1));
    }
}

#[tokio::test]
async fn a_plan_is_paused_and_goes_on_where_it_was_without_a_burst() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 6, "maya").await;
    let id = desk.draft(to_ada()).await.handover_id;
    desk.run(id).await;
    desk.app.settle().await;
    desk.app.advance(SignedDuration::from_secs(1));
    desk.app.settle().await;
    let (status, paused) = desk.verb(id, "pause").await;
    assert_eq!((status, &paused["state"]), (200, &"paused".into()));
    // What is under way comes to its end.
    desk.app.settle_for(SignedDuration::from_secs(5)).await;
    let before = desk.counts(id).await;
    assert_eq!(before.transferring, 0);
    assert!((1..6).contains(&before.handed_over), "{before:?}");
    desk.app.settle_for(SignedDuration::from_hours(1)).await;
    assert_eq!(desk.counts(id).await, before);

    let began = desk.app.clock.now();
    assert_eq!(desk.verb(id, "resume").await.0, 200);
    assert_eq!(desk.ended(id).await.state, State::Completed);
    let mut due: Vec<_> = desk
        .lines(id)
        .await
        .iter()
        .filter_map(|line| line.due_at)
        .collect();
    due.sort();
    let after: Vec<_> = due.iter().filter(|at| **at >= began).collect();
    assert_eq!(i64::try_from(after.len()).unwrap(), 6 - before.handed_over);
    for pair in after.windows(2) {
        assert!(pair[1].duration_since(*pair[0]) >= SignedDuration::from_secs(1));
    }
    assert_eq!(count(desk.holders(&sids).await), [("ada".to_owned(), 6)].into());
    assert_eq!(
        told(&desk, id).await,
        [
            "requested",
            "planned",
            "started",
            "paused",
            "resumed",
            "completed"
        ]
    );
}

#[tokio::test]
async fn a_run_that_is_killed_again_and_again_starts_every_line_once() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 10, "maya").await;
    let mut new = to_ada();
    new.lines_per_minute = 6_000;
    let id = desk.draft(new).await.handover_id;
    desk.run(id).await;
    for round in 0..12 {
        let app = desk.app.restarted();
        let dies = tokio::spawn(async move { app.worker.run_until_idle().await });
        tokio::time::sleep(Duration::from_millis(7 + 11 * round)).await;
        dies.abort();
        dies.await.ok();
        // Its leases run out.
        desk.app.advance(SignedDuration::from_secs(25));
    }
    let restarted = desk.app.restarted();
    for _ in 0..60 {
        desk.app.settle_with(&restarted).await;
        if desk.plan(id).await.state.is_final() {
            break;
        }
        desk.app.advance(SignedDuration::from_secs(25));
    }
    assert_eq!(desk.plan(id).await.state, State::Completed);
    assert_eq!(count(desk.holders(&sids).await), [("ada".to_owned(), 10)].into());
    assert_eq!(tables::count(&desk.app, "transfer").await, 10);
    assert_eq!(desk.counts(id).await.handed_over, 10);
}

#[tokio::test]
async fn two_replicas_do_not_start_a_line_twice() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 8, "maya").await;
    let mut new = to_ada();
    new.lines_per_minute = 6_000;
    let id = desk.draft(new).await.handover_id;
    desk.run(id).await;
    let (one, other) = (desk.app.restarted(), desk.app.restarted());
    for _ in 0..200 {
        let (ran, also) = tokio::join!(one.worker.run_until_idle(), other.worker.run_until_idle());
        ran.unwrap();
        also.unwrap();
        desk.app.settle().await;
        if desk.plan(id).await.state.is_final() {
            break;
        }
        desk.app.advance(SignedDuration::from_secs(1));
    }
    assert_eq!(desk.plan(id).await.state, State::Completed);
    assert_eq!(count(desk.holders(&sids).await), [("ada".to_owned(), 8)].into());
    assert_eq!(tables::count(&desk.app, "transfer").await, 8);
}

#[tokio::test]
async fn a_line_that_the_leaver_gets_meanwhile_is_found_at_the_end() {
    let desk = Desk::open().await;
    let first = desk.groups(1_000, 3, "maya").await;
    let id = desk.draft(to_ada()).await.handover_id;
    desk.run(id).await;
    desk.app.settle().await;
    let later = desk.groups(2_000, 1, "maya").await;
    assert_eq!(desk.ended(id).await.state, State::Completed);
    let lines = desk.lines(id).await;
    let found: BTreeSet<_> = lines
        .iter()
        .filter(|line| line.found_later)
        .map(|line| line.conversation_sid.as_str())
        .collect();
    assert_eq!(found, [later[0].as_str()].into());
    assert!(lines.iter().all(|line| line.state == LineState::HandedOver));
    assert_eq!(count(desk.holders(&first).await), [("ada".to_owned(), 3)].into());
    assert_eq!(desk.holders(&later).await, ["ada"]);
}
