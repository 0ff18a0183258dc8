//! What is forgotten of plans: people who asked for it, and after a time what people wrote.

use std::time::Duration;

use hookswitch::config;
use hookswitch::erasure::{NewErasure, StartError, Upstream};
use hookswitch::events::Via;
use hookswitch::handover::{LineState, Rule, State};
use hookswitch::person::Subject;
use hookswitch::retention::{self, Class, Retention};
use jiff::SignedDuration;
use serde_json::json;

use super::{Desk, kind, to_ada};
use crate::support::tables;

impl Desk {
    async fn erase(&self, identity: &str) -> Result<(), StartError> {
        self.start_to_erase(identity).await?;
        self.app.settle_for(SignedDuration::from_secs(5)).await;
        Ok(())
    }

    async fn start_to_erase(&self, identity: &str) -> Result<(), StartError> {
        let new = NewErasure {
            subject: Subject::Identity(identity.parse().unwrap()),
            upstream: Upstream::Messages,
            asked_by: "the person, by letter".to_owned(),
            reason: "right to erasure".to_owned(),
            requested_by: "cli".to_owned(),
            via: Via::Cli,
        };
        self.app.app.api.erasures.start(new).await.map(|_| ())
    }

    /// Erases what people wrote more than a day ago.
    async fn forget_words(&self) {
        let rules = Retention {
            pool: self.app.pool().clone(),
            clock: self.app.clock.clone(),
            settings: config::Retention {
                every: Duration::ZERO,
                webhooks: None,
                message_bodies: Some(Duration::from_hours(24)),
                attributes: None,
                versions: None,
                quarantine: None,
                log: None,
            },
        };
        rules.run_all(Class::MessageBodies, false).await.unwrap();
    }
}

#[tokio::test]
async fn who_is_erased_is_named_in_no_plan_and_not_while_one_needs_them() {
    let desk = Desk::open().await;
    desk.groups(1_000, 2, "maya").await;
    let mut new = to_ada();
    new.note = Some("she is not well".to_owned());
    let id = desk.draft(new).await.handover_id;
    assert!(desk.erase("maya").await.is_err(), "she holds lines");
    assert!(desk.erase("ada").await.is_err(), "the plan needs her");
    desk.run(id).await;
    desk.ended(id).await;
    desk.erase("maya").await.unwrap();
    for table in ["handover_plan", "handover_rule", "handover_line"] {
        let named = format!("{table} as t where position('maya' in t::text) > 0");
        assert_eq!(tables::count(&desk.app, &named).await, 0, "{table}");
    }
    let about_her = "handover_plan where num_nonnulls(note, reason) > 0";
    assert_eq!(tables::count(&desk.app, about_her).await, 0, "whoever wrote it");
    // Nobody is there to whom it could go back.
    let (status, problem) = desk.verb(id, "roll-back").await;
    assert_eq!((status, kind(&problem)), (409, "leaver_unknown"), "{problem}");
}

#[tokio::test]
async fn who_was_passed_over_is_erased_by_the_name_and_not_by_the_word() {
    let desk = Desk::open().await;
    desk.put("/v1/agents/away", &json!({ "name": "A. Way" })).await;
    desk.put("/v1/agents/zoë", &json!({ "name": "Zoë" })).await;
    desk.put("/v1/agents/away/availability", &json!({ "status": "away" }))
        .await;
    desk.groups(1_000, 1, "maya").await;
    let mut new = to_ada();
    new.rules = vec![Rule::People(vec![
        "away".parse().unwrap(),
        "cyd".parse().unwrap(),
        "ada".parse().unwrap(),
    ])];
    new.note = Some(r#"see {"with": "zo\u00eb"}"#.to_owned());
    let id = desk.draft(new).await.handover_id;
    desk.run(id).await;
    desk.ended(id).await;
    desk.erase("away").await.unwrap();
    let passed = &desk.lines(id).await[0].passed;
    assert!(passed[0].to.starts_with("erased:"), "{passed:?}");
    assert_eq!(passed[0].why, "away");
    assert_eq!((passed[1].to.as_str(), passed[1].why.as_str()), ("cyd", "away"));
    let noted = "handover_plan where note is not null";
    assert_eq!(tables::count(&desk.app, noted).await, 1);
    desk.erase("zoë").await.unwrap();
    assert_eq!(
        tables::count(&desk.app, noted).await,
        0,
        "however JSON spells her"
    );
}

#[tokio::test]
async fn a_line_does_not_go_to_whoever_held_it_last_and_is_erased() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 1, "zoe").await;
    desk.change_silently(&sids[0], "maya").await;
    desk.app.sweep().await;
    desk.app.settle().await;
    desk.erase("zoe").await.unwrap();
    let mut new = to_ada();
    new.rules = vec![Rule::LastHolder];
    let id = desk.draft(new).await.handover_id;
    let line = &desk.lines(id).await[0];
    assert_eq!(
        (line.state, line.why.as_deref()),
        (LineState::Stays, Some("nobody_can_take_it")),
        "{line:?}"
    );
}

#[tokio::test]
async fn what_people_wrote_of_a_plan_goes_with_its_age_unless_it_is_held_or_needed() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 2, "maya").await;
    let mut new = to_ada();
    new.note = Some("the keys are in the drawer".to_owned());
    new.return_at = Some(desk.app.clock.now() + SignedDuration::from_hours(72));
    let id = desk.draft(new).await.handover_id;
    desk.run(id).await;
    desk.ended(id).await;
    let words = "handover_plan where note is not null and reason is not null";
    desk.app.settle_for(SignedDuration::from_hours(48)).await;
    desk.forget_words().await;
    assert_eq!(
        tables::count(&desk.app, words).await,
        1,
        "they go with the way back"
    );
    desk.app.settle_for(SignedDuration::from_hours(24)).await;
    desk.until(id, |plan| plan.state == State::Returned).await;
    desk.app.settle_for(SignedDuration::from_hours(25)).await;

    let (now, mut conn) = (desk.app.clock.now(), desk.app.conn().await);
    retention::hold(&mut conn, &sids[1], "a dispute", "sam", Via::Cli, now)
        .await
        .unwrap();
    desk.forget_words().await;
    assert_eq!(tables::count(&desk.app, words).await, 1, "it is held");
    retention::release(&mut conn, &sids[1], "sam", Via::Cli, now)
        .await
        .unwrap();
    desk.forget_words().await;
    assert_eq!(tables::count(&desk.app, words).await, 0);
}

#[tokio::test]
async fn a_plan_that_needs_somebody_from_while_they_are_erased_keeps_the_name() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 1, "maya").await;
    desk.start_to_erase("ada").await.unwrap();
    let id = desk.ask(to_ada()).await.handover_id;
    // It had looked for what needs her before, and has come to what is left.
    tables::execute(&desk.app, "update erasure set step = 'rest'").await;
    desk.until(id, |plan| plan.state == State::Draft).await;
    desk.run(id).await;
    desk.ended(id).await;
    assert_eq!(desk.holders(&sids).await, ["ada"]);
    desk.app.settle_for(SignedDuration::from_mins(1)).await;
    let ended = "erasure where state <> 'running'";
    assert_eq!(tables::count(&desk.app, ended).await, 1);
    let named = "handover_line where to_holder = 'ada'";
    assert_eq!(tables::count(&desk.app, named).await, 0, "it waited for the plan");
}
