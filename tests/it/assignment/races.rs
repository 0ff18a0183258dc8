//! Two replicas, and a crash in the middle, decide once.

use hookswitch::numbers::Rule;
use jiff::SignedDuration;

use super::{holder, sales, told};
use crate::support::app::{BUYER, LINE, TestApp};
use crate::support::cut::{Points, connect, cut, nothing_is_open};
use crate::support::tables;

#[tokio::test]
async fn two_replicas_decide_once() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben"], Some(Rule::RoundRobin)).await;
    let other = app.restarted();
    for last in 0..6 {
        app.text(BUYER, &[LINE, &format!("+1555555020{last}")], "Hello?")
            .await;
    }
    for _ in 0..20 {
        app.sandbox.settled().await;
        let (one, two) = tokio::join!(
            app.app.projector.run_until_idle(),
            other.projector.run_until_idle()
        );
        one.unwrap();
        two.unwrap();
        tokio::join!(app.settle(), app.settle_with(&other));
    }
    app.settle_for(SignedDuration::from_secs(5)).await;
    let mut had = Vec::new();
    for conversation in app.sandbox.conversations() {
        let sid = conversation.sid.as_str().parse().unwrap();
        had.extend(holder(&app, &sid).await);
        let told = told(&app, &sid).await;
        assert_eq!(told.len(), 1, "{told:?}");
    }
    had.sort();
    assert_eq!(had, ["ada", "ada", "ada", "ben", "ben", "ben"]);
    assert_eq!(tables::count(&app, "transfer").await, 6);
}

/// The process that projects what a customer's text brought dies at every step of it, and the next one dies too.
#[tokio::test]
async fn a_crash_in_the_middle_decides_once() {
    let app = TestApp::start().await;
    sales(&app, &["ada", "ben", "cy"], Some(Rule::RoundRobin)).await;
    let process = app.restarted();
    let mut points = Points::default();
    let (mut last, mut had) = (None, Vec::new());
    for polls in (1..2_000).step_by(7) {
        let number = format!("+1555556{polls:04}");
        app.text(BUYER, &[LINE, &number], "Hello?").await;
        app.sandbox.settled().await;
        let mut alive = false;
        for deaths in [polls, 1 + (polls * 13) % 47] {
            connect(&process).await;
            alive =
                matches!(cut(process.projector.run_until_idle(), deaths).await, Some(Ok(some)) if some > 0);
            nothing_is_open(&app).await;
            if alive {
                break;
            }
        }
        app.settle_for(SignedDuration::from_secs(3)).await;
        let sid = app
            .sandbox
            .conversations()
            .last()
            .unwrap()
            .sid
            .as_str()
            .parse()
            .unwrap();
        let holder = holder(&app, &sid).await;
        assert!(holder.is_some(), "deaths at {polls}");
        assert_eq!(told(&app, &sid).await.len(), 1, "deaths at {polls}");
        assert_ne!(holder, last, "deaths at {polls}: the turn moves on by one");
        had.extend(holder.clone());
        last = holder;
        if points.note("a group that a customer starts", alive) {
            break;
        }
    }
    // Nobody had a turn for what was rolled back.
    let turns: Vec<&str> = ["ada", "ben", "cy"].into_iter().cycle().take(had.len()).collect();
    assert_eq!(had, turns);
}
