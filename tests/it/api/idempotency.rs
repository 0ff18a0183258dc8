//! Calls that are repeated: one effect, one answer.

use std::collections::BTreeSet;

use futures_util::future::join_all;
use hookswitch::api::idempotency;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{Office, office};

impl Office {
    async fn count_of_sends(&self) -> i64 {
        sqlx::query_scalar!(r#"select count(*) as "count!" from outbound_message"#)
            .fetch_one(&self.pool)
            .await
            .unwrap()
    }
}

#[tokio::test]
async fn a_repeat_gives_the_very_same_answer_and_does_nothing() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let path = format!("/v1/conversations/{group}/messages");
    let body = json!({ "body": "The offer was accepted." });
    let first = office.post_as("order-17", &path, &body).await;
    first.expect(202);
    // What would be answered now is another thing: the state of the line, and the time.
    office.clock.advance(SignedDuration::from_hours(1));
    office.observe(vec![super::closed(&group, 1000)]).await;
    let again = office.post_as("order-17", &path, &body).await;
    assert_eq!(again.status, first.status);
    assert_eq!(again.bytes, first.bytes);
    for name in ["location", "content-type"] {
        assert_eq!(again.header(name), first.header(name));
        assert!(first.header(name).is_some());
    }
    assert_eq!(first.header("idempotency-replayed"), None);
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(office.count_of_sends().await, 1);
}

#[tokio::test]
async fn twenty_at_once_have_one_effect_and_one_answer() {
    let office = office().await;
    office.connect().await;
    let group = office.group(1, Some("maya")).await;
    let path = format!("/v1/conversations/{group}/messages");
    let body = json!({ "body": "once" });
    let answers = join_all((0..20).map(|_| office.post_as("k", &path, &body))).await;
    let bodies: BTreeSet<Vec<u8>> = answers.iter().map(|answer| answer.bytes.clone()).collect();
    assert!(answers.iter().all(|answer| answer.status == 202), "{answers:?}");
    assert_eq!(bodies.len(), 1);
    let replays = answers
        .iter()
        .filter(|answer| answer.header("idempotency-replayed").is_some())
        .count();
    assert_eq!(replays, 19);
    assert_eq!(office.count_of_sends().await, 1);
    office.settle().await;
    let events = office.get("/v1/events?types=send.queued").await.expect(200);
    assert_eq!(events["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn a_key_that_was_used_for_something_else_is_refused() {
    let office = office().await;
    let (group, other) = (
        office.group(1, Some("maya")).await,
        office.group(2, Some("maya")).await,
    );
    let path = format!("/v1/conversations/{group}/messages");
    let other_path = format!("/v1/conversations/{other}/messages");
    office
        .post_as("k", &path, &json!({ "body": "one" }))
        .await
        .expect(202);
    for (path, body) in [
        (path.as_str(), json!({ "body": "two" })),
        (other_path.as_str(), json!({ "body": "one" })),
    ] {
        let answer = office.post_as("k", path, &body).await;
        assert_eq!(answer.status, 409);
        assert_eq!(answer.problem(), "idempotency_key_reused");
    }
    assert_eq!(office.count_of_sends().await, 1);
}

#[tokio::test]
async fn a_refusal_is_not_kept_since_the_same_call_may_succeed_later() {
    let office = office().await;
    let group = office.group(1, None).await;
    let warm = json!({
        "conversation_sid": group, "kind": "warm", "to": "noor", "requested_by": "maya",
    });
    let refused = office.post_as("k", "/v1/transfers", &warm).await;
    assert_eq!(refused.problem(), "line_unstaffed");
    office
        .observe(vec![super::seat(&group, 3, super::LINE, Some("maya"), 1000)])
        .await;
    office.post_as("k", "/v1/transfers", &warm).await.expect(202);
}

#[tokio::test]
async fn a_call_that_is_at_work_for_too_long_is_told_so_and_nothing_is_done_twice() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    // Transfers of the conversation wait for this lock, so the first call stays at work.
    let mut transaction = office.pool.begin().await.unwrap();
    hookswitch::mirror::read::lock_conversation(&mut transaction, &group)
        .await
        .unwrap();
    let warm = json!({
        "conversation_sid": group, "kind": "warm", "to": "noor", "requested_by": "maya",
    });
    let begin_second = async {
        wait_for_a_waiting_call(&office).await;
        office.post_as("k", "/v1/transfers", &warm).await
    };
    let (first, second) = tokio::join!(office.post_as("k", "/v1/transfers", &warm), begin_second);
    // The first gives up its wait for the conversation, or the second its wait for the first.
    let problems: BTreeSet<String> = [first.problem(), second.problem()].into();
    assert!(problems.contains("unavailable"), "{problems:?}");
    transaction.rollback().await.unwrap();
    let third = office.post_as("k", "/v1/transfers", &warm).await;
    third.expect(202);
    assert_eq!(
        third.header("idempotency-replayed"),
        None,
        "nothing was done before"
    );
    let all = office.get("/v1/transfers").await.expect(200);
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_call_that_is_cut_short_did_nothing_and_its_repeat_does_it() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let mut transaction = office.pool.begin().await.unwrap();
    hookswitch::mirror::read::lock_conversation(&mut transaction, &group)
        .await
        .unwrap();
    let cold = json!({
        "conversation_sid": group, "kind": "cold", "to": "noor", "requested_by": "maya",
    });
    // Dropped in the middle of its transaction, as by a client that hangs up or a process that ends.
    tokio::select! {
        answer = office.post_as("k", "/v1/transfers", &cold) => panic!("answered {answer:?}"),
        () = wait_for_a_waiting_call(&office) => {}
    }
    transaction.rollback().await.unwrap();
    let repeat = office.post_as("k", "/v1/transfers", &cold).await;
    repeat.expect(202);
    assert_eq!(repeat.header("idempotency-replayed"), None);
    let all = office.get("/v1/transfers").await.expect(200);
    assert_eq!(all["items"].as_array().map(Vec::len), Some(1));
}

async fn wait_for_a_waiting_call(office: &Office) {
    // The login's, since the service's role does not see what other sessions wait for.
    let pool = office.database.pool(1).await;
    loop {
        let waiting = sqlx::query_scalar!(
            r#"select exists (select from pg_stat_activity
                              where datname = current_database() and wait_event_type = 'Lock') as "waiting!""#
        )
        .fetch_one(&pool)
        .await
        .unwrap();
        if waiting {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn two_group_texts_of_one_roster_at_once_are_one_and_the_other_is_told_which() {
    let office = office().await;
    office.connect().await;
    let body = group_text();
    let answers = join_all((0..6).map(|_| office.post("/v1/group-texts", &body))).await;
    let (taken, refused): (Vec<_>, Vec<_>) = answers.into_iter().partition(|answer| answer.status == 202);
    assert_eq!((taken.len(), refused.len()), (1, 5));
    for answer in &refused {
        assert_eq!(answer.problem(), "group_text_in_the_making");
        assert_eq!(answer.json()["group_text_id"], taken[0].json()["group_text_id"]);
    }
}

fn group_text() -> Value {
    json!({
        "friendly_name": "Home-buying journey",
        "members": [
            { "line": "+15017122661", "holder": "maya" },
            { "address": "+15555550101" },
            { "address": "+15555550102" },
        ],
    })
}

#[tokio::test]
async fn a_group_text_is_taken_and_can_be_found() {
    let office = office().await;
    let answer = office.post("/v1/group-texts", &group_text()).await;
    let body = answer.expect(202);
    insta::assert_json_snapshot!(body, {
        ".group_text_id" => "[id]",
        ".requested_by" => insta::dynamic_redaction(|value, _| {
            assert!(value.as_str().unwrap().starts_with("api_key:"));
            "[key]"
        }),
    }, @r#"
    {
      "adopted": false,
      "attributes": null,
      "conversation_sid": null,
      "created_at": "2026-03-01T14:00:00Z",
      "failure_code": null,
      "failure_detail": null,
      "friendly_name": "Home-buying journey",
      "group_text_id": "[id]",
      "members": [
        {
          "holder": "maya",
          "line": "+15017122661"
        },
        {
          "address": "+15555550101"
        },
        {
          "address": "+15555550102"
        }
      ],
      "origin": "requested",
      "requested_by": "[key]",
      "state": "requested",
      "updated_at": "2026-03-01T14:00:00Z"
    }
    "#);
    let found = office.get(answer.header("location").unwrap()).await.expect(200);
    assert_eq!(found, body);
    let listed = office.get("/v1/group-texts?state=requested").await.expect(200);
    assert_eq!(listed["items"][0], body);
    let active = office.get("/v1/group-texts?state=active").await.expect(200);
    assert_eq!(active["items"], json!([]));
}

#[tokio::test]
async fn old_answers_are_forgotten_and_young_ones_kept() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let path = format!("/v1/conversations/{group}/messages");
    office
        .post_as("old", &path, &json!({ "body": "x" }))
        .await
        .expect(202);
    office.clock.advance(SignedDuration::from_hours(25));
    office
        .post_as("young", &path, &json!({ "body": "x" }))
        .await
        .expect(202);
    let mut conn = office.pool.acquire().await.unwrap();
    let before = office.clock.now() - SignedDuration::from_hours(24);
    assert_eq!(idempotency::purge(&mut conn, before).await.unwrap(), 1);
    let young = office.post_as("young", &path, &json!({ "body": "x" })).await;
    assert_eq!(young.header("idempotency-replayed"), Some("true"));
}
