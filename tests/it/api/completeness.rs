//! How complete the mirror is, as the API tells it.

use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{BEGIN, conversation_sid, office};

#[tokio::test]
async fn a_conversation_says_how_far_it_is_verified() {
    let office = office().await;
    let sid = office.group(1, Some("maya")).await;
    let answer = office
        .get(&format!("/v1/conversations/{sid}/completeness"))
        .await
        .expect(200);
    assert_eq!(
        answer,
        json!({
            "conversation_sid": sid,
            "verified_at": null,
            "verified_by": null,
            "walked_at": null,
            // It is known since its first webhook, and by webhooks alone.
            "unverified_since": office.clock.now(),
            "in_doubt_since": null,
            "compared": { "participants": 0, "messages": 0, "receipts": 0 },
            "found": { "missing": 0, "stale": 0, "gone": 0, "extra": 0 },
            "webhooks_set_aside": 0,
            "webhooks_pending": 0,
            "sweep_run_id": null,
        })
    );
    let read_at = office.clock.now() + SignedDuration::from_mins(1);
    let mut conn = office.pool.acquire().await.unwrap();
    hookswitch::mirror::mark_verified_as_of(&mut conn, &sid, read_at)
        .await
        .unwrap();
    let answer = office
        .get(&format!("/v1/conversations/{sid}/completeness"))
        .await
        .expect(200);
    assert_eq!(
        (
            &answer["verified_by"],
            &answer["verified_at"],
            &answer["unverified_since"]
        ),
        (&json!("read"), &json!(read_at), &json!(read_at))
    );

    let nobody = conversation_sid(99);
    let answer = office
        .get(&format!("/v1/conversations/{nobody}/completeness"))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (404, "not_found")
    );
    let answer = office
        .get(&format!("/v1/conversations/{sid}/completeness?since=1"))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.problem().as_str()),
        (400, "invalid")
    );
}

#[tokio::test]
async fn the_total_is_counted_once_in_a_few_seconds_however_many_ask() {
    let office = office().await;
    let total = async || office.get("/v1/mirror/completeness").await.expect(200);
    let counted = |answer: &Value| answer["conversations"].as_i64().unwrap();
    office.group(1, Some("maya")).await;
    let first = total().await;
    assert_eq!((counted(&first), &first["never_verified"]), (1, &json!(1)));
    assert_eq!(first["as_of"], json!(office.clock.now()));
    assert_eq!(first["accounts"][0]["last_completed"], Value::Null);

    office.group(2, Some("noor")).await;
    let all = futures_util::future::join_all((0..40).map(|_| total())).await;
    assert!(
        all.iter().all(|answer| *answer == first),
        "all share the first count"
    );

    office.clock.advance(SignedDuration::from_secs(5));
    let later = total().await;
    assert_eq!(
        (counted(&later), &later["as_of"]),
        (2, &json!(office.clock.now()))
    );
    assert_eq!(later["unverified_since"], json!(BEGIN));
}
