//! What people wrote goes with its age, and people who ask for it.

use std::time::Duration;

use hookswitch::config;
use hookswitch::escalation::{self, Ask, Escalation, erase};
use hookswitch::events::Via;
use hookswitch::ids::ConversationSid;
use hookswitch::person::{Person, Subject};
use hookswitch::retention::{self, Class, Erased, Retention};
use jiff::SignedDuration;
use serde_json::json;

use super::{answer, ask, later, policy, set, slow_answer, staffed, step, told};
use crate::support::app::{LINE, TestApp};
use crate::support::tables;

async fn asked_for(app: &TestApp, sid: &ConversationSid, reason: &str) -> Escalation {
    let wanted = Ask {
        conversation_sid: sid.clone(),
        line: LINE.parse().unwrap(),
        by: "maya".parse().unwrap(),
        reason: Some(reason.to_owned()),
        rule: None,
    };
    let (mut conn, now) = (app.conn().await, app.clock.now());
    escalation::ask(&mut conn, wanted, Via::Api, now).await.unwrap()
}

#[tokio::test]
async fn why_somebody_asked_goes_with_the_words_of_messages_once_it_is_over() {
    let (app, sid) = staffed().await;
    let rule = json!({ "when": "asked", "steps": [step("nudge", &json!("supervisor"), "30h")] });
    set(&app, "all", &policy(&rule)).await;
    asked_for(&app, &sid, "wants a manager").await;
    app.settle().await;
    answer(&app, &sid).await;
    app.advance(SignedDuration::from_hours(25));
    asked_for(&app, &sid, "wants him again").await;
    app.settle().await;
    let day = Duration::from_hours(24);
    let rules = Retention {
        pool: app.pool().clone(),
        clock: app.clock.clone(),
        settings: config::Retention {
            every: Duration::ZERO,
            webhooks: None,
            message_bodies: Some(day),
            attributes: None,
            versions: None,
            quarantine: None,
            log: None,
        },
    };
    // Of the answer, two rows: as it was sent, and in the mirror.
    let of_answer = 2;
    let (mut conn, now) = (app.conn().await, app.clock.now());
    retention::hold(&mut conn, &sid, "case 17", "legal", Via::Cli, now)
        .await
        .unwrap();
    let held = rules.run_all(Class::MessageBodies, false).await.unwrap();
    let all = Erased {
        erased: 0,
        held: of_answer + 1,
    };
    assert_eq!(held, Some(all));
    assert_eq!(
        tables::count(&app, "escalation where reason is not null").await,
        2
    );
    retention::release(&mut conn, &sid, "legal", Via::Cli, now)
        .await
        .unwrap();
    let done = rules.run_all(Class::MessageBodies, false).await.unwrap();
    assert_eq!(done.unwrap().erased, of_answer + 1);
    let left = tables::rows(
        &app,
        "select state || ' ' || coalesce(reason, '') from escalation order by started_at",
    )
    .await;
    assert_eq!(left, ["stopped ", "open wants him again"]);
}

#[tokio::test]
async fn a_person_is_found_however_json_spells_them() {
    let (app, sid) = staffed().await;
    let rule = json!({ "when": "asked", "steps": [step("nudge", &json!("supervisor"), "5m")] });
    set(&app, "all", &policy(&rule)).await;
    asked_for(&app, &sid, r#"{"for":"zo\u00eb"}"#).await;
    app.settle().await;
    let subject = Subject::Identity("zoë".parse().unwrap());
    let person = Person::new(subject, "erased:1".to_owned());
    let mut conn = app.conn().await;
    assert_eq!(
        erase::conversations_of(&mut conn, &person).await.unwrap(),
        [sid.as_str()]
    );
    let now = app.clock.now();
    assert_eq!(erase::erase(&mut conn, &sid, &person, now).await.unwrap(), 1);
    assert_eq!(tables::count(&app, "escalation where reason is null").await, 1);
}

#[tokio::test]
async fn a_line_is_not_offered_to_the_pseudonym_of_who_was_erased() {
    let (app, sid) = staffed().await;
    let mut document = slow_answer();
    document["rules"][0]["steps"] = json!([
        step("offer", &json!("backup"), "10m"),
        step("nudge", &json!("supervisor"), "10m")
    ]);
    set(&app, "all", &document).await;
    ask(&app, "Hello?").await;
    app.settle().await;
    app.advance(SignedDuration::from_mins(15));
    // Decided, and not yet made.
    app.app.escalator.run_until_idle().await.unwrap();
    assert_eq!(
        tables::count(&app, "escalation_step where outcome = 'asked'").await,
        1
    );
    let subject = Subject::Identity("jonas".parse().unwrap());
    let person = Person::new(subject, "erased:1".to_owned());
    let now = app.clock.now();
    erase::erase(&mut *app.conn().await, &sid, &person, now)
        .await
        .unwrap();
    app.settle().await;
    later(&app, 1).await;
    assert_eq!(tables::count(&app, "transfer").await, 0);
    assert_eq!(
        tables::rows(
            &app,
            "select outcome || ' ' || to_identity from escalation_step order by number"
        )
        .await,
        ["dropped erased:1", "told noor"]
    );
    assert_eq!(told(&app).await, ["started", "step_taken nudge noor"]);
    tables::assert_queue_is_empty(&app).await;
}
