//! The feed: one order, nothing skipped, nothing twice.

use std::time::{Duration, Instant};

use hookswitch::events::{self, Kind, NewEvent, Via};
use hookswitch::mirror::change::Change;
use serde_json::{Value, json};
use sqlx::PgConnection;

use super::{Office, message, office};
use crate::support::sql;

async fn append(conn: &mut PgConnection, office: &Office, subject: &str) {
    let event = NewEvent {
        kind: Kind::UserUpdated,
        account_sid: None,
        conversation_sid: None,
        subject: subject.to_owned(),
        actor: None,
        via: Via::Webhook,
        cause: None,
        occurred_at: office.clock.now(),
        recorded_at: office.clock.now(),
        data: json!({}),
    };
    events::append(conn, &[event]).await.unwrap();
}

async fn append_and_commit(office: &Office, subject: &str) {
    let mut transaction = office.pool.begin().await.unwrap();
    append(&mut transaction, office, subject).await;
    transaction.commit().await.unwrap();
}

impl Office {
    /// Reads on from `after`: the subjects, and where to go on.
    async fn read_on(&self, after: &str, more: &str) -> (Vec<String>, String) {
        let page = self
            .get(&format!("/v1/events?after={after}{more}"))
            .await
            .expect(200);
        let subjects = page["items"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| event["subject"].as_str().unwrap().to_owned());
        (subjects.collect(), page["next"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn settle(&self) {
        sql::log_is_readable(&self.pool).await;
    }

    async fn end_of_feed(&self) -> String {
        self.settle().await;
        let page = self.get("/v1/events?limit=200").await.expect(200);
        page["next"].as_str().unwrap().to_owned()
    }
}

#[tokio::test]
async fn an_entry_that_commits_late_is_waited_for_and_not_skipped() {
    let office = office().await;
    let start = office.end_of_feed().await;
    let mut late = office.pool.begin().await.unwrap();
    append(&mut late, &office, "late").await;
    append_and_commit(&office, "early").await;

    let (subjects, next) = office.read_on(&start, "").await;
    assert!(subjects.is_empty(), "{subjects:?}");
    assert_eq!(next, start, "there is nothing to go past");
    let (filtered, next_filtered) = office.read_on(&start, "&types=message.added").await;
    assert!(filtered.is_empty());

    late.commit().await.unwrap();
    office.settle().await;
    let (subjects, end) = office.read_on(&next, "").await;
    assert_eq!(subjects, ["late", "early"]);
    assert_eq!(office.read_on(&end, "").await, (Vec::new(), end.clone()));
    let (after_filter, _) = office.read_on(&next_filtered, "").await;
    assert_eq!(
        after_filter,
        ["late", "early"],
        "a filter does not lead past what is not readable yet"
    );
}

#[tokio::test]
async fn readers_beside_writers_see_every_entry_once_and_in_one_order() {
    let office = office().await;
    office.connect().await;
    let start = office.end_of_feed().await;
    let write = async {
        let writers = (0..4_u64).map(async |writer| {
            for number in 0..25_u64 {
                let mut transaction = office.pool.begin().await.unwrap();
                append(&mut transaction, &office, &format!("{writer}-{number}")).await;
                tokio::time::sleep(Duration::from_millis((writer * 7 + number * 3) % 5)).await;
                transaction.commit().await.unwrap();
            }
        });
        futures_util::future::join_all(writers).await;
    };
    let read = async {
        let (mut seen, mut next) = (Vec::new(), start.clone());
        while seen.len() < 100 {
            let (subjects, after) = office.read_on(&next, "&limit=7").await;
            seen.extend(subjects);
            next = after;
        }
        seen
    };
    let ((), seen) = tokio::time::timeout(Duration::from_secs(30), async { tokio::join!(write, read) })
        .await
        .expect("every entry is seen");
    let mut once = seen.clone();
    once.sort();
    once.dedup();
    assert_eq!(once.len(), 100);
    office.settle().await;
    let mut again = Vec::new();
    let mut next = start;
    while again.len() < 100 {
        let (subjects, after) = office.read_on(&next, "&limit=200").await;
        again.extend(subjects);
        next = after;
    }
    assert_eq!(again, seen, "the order does not change");
}

#[tokio::test]
async fn a_message_is_told_with_its_words_though_the_log_has_none() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    office
        .observe(vec![Change::Message(message(&group, 0, "maya", 3, 1_000))])
        .await;
    office.settle().await;
    let page = office.get("/v1/events?types=message.added").await.expect(200);
    insta::assert_json_snapshot!(page["items"], { "[].id" => "[id]" }, @r#"
    [
      {
        "account_sid": "AC00000000000000000000000000000001",
        "actor": null,
        "cause": "webhook:1",
        "conversation_sid": "CH00000000000000000000000000000001",
        "data": {
          "author": "maya",
          "has_media": false,
          "index": 0,
          "participant_sid": "MB00000000000000000000000000000003"
        },
        "id": "[id]",
        "message": {
          "author": "maya",
          "body": "text 0",
          "index": 0,
          "media": null,
          "removed_at": null
        },
        "occurred_at": "2026-03-01T14:00:01.000001Z",
        "recorded_at": "2026-03-01T14:00:00Z",
        "subject": "IM00000000000000000000000000000000",
        "type": "message.added",
        "via": "webhook"
      }
    ]
    "#);
    let stored = sqlx::query_scalar!("select data from event")
        .fetch_all(&office.pool)
        .await
        .unwrap();
    assert!(stored.iter().all(|data| !data.contains("text 0")));
}

#[tokio::test]
async fn a_filter_is_gone_past_and_its_next_is_always_there() {
    let office = office().await;
    let start = office.end_of_feed().await;
    for number in 0..5 {
        append_and_commit(&office, &number.to_string()).await;
    }
    office.settle().await;
    let (none, next) = office
        .read_on(&start, "&types=message.added,message.removed")
        .await;
    assert!(none.is_empty());
    assert_eq!(
        next,
        office.end_of_feed().await,
        "what does not match is not read again"
    );
    append_and_commit(&office, "5").await;
    office.settle().await;
    let (subjects, _) = office.read_on(&next, "&types=user.updated").await;
    assert_eq!(subjects, ["5"]);
    let (two, next) = office.read_on(&start, "&types=user.updated&limit=2").await;
    assert_eq!(two, ["0", "1"]);
    let (rest, _) = office.read_on(&next, "&types=user.updated").await;
    assert_eq!(rest, ["2", "3", "4", "5"]);
}

#[tokio::test]
async fn the_id_of_an_entry_is_a_place_to_go_on_from() {
    let office = office().await;
    for number in 0..3 {
        append_and_commit(&office, &number.to_string()).await;
    }
    office.settle().await;
    let page = office.get("/v1/events?types=user.updated").await.expect(200);
    let id = page["items"][0]["id"].as_str().unwrap();
    assert_eq!(office.read_on(id, "").await.0, ["1", "2"]);
}

#[tokio::test]
async fn a_waiting_reader_is_woken_by_an_entry() {
    let office = office().await;
    let mut fastest = Duration::MAX;
    // Transactions of other tests may hold an entry back for longer.
    for _ in 0..10 {
        let start = office.end_of_feed().await;
        let write = async {
            tokio::time::sleep(Duration::from_millis(200)).await;
            append_and_commit(&office, "it").await;
            office.api.notices.events.send_modify(|count| *count += 1);
        };
        let begun = Instant::now();
        let ((subjects, _), ()) = tokio::join!(office.read_on(&start, "&wait=25"), write);
        assert_eq!(subjects, ["it"]);
        fastest = fastest.min(begun.elapsed());
        if fastest < Duration::from_millis(900) {
            return;
        }
    }
    panic!("not before it looks by itself: {fastest:?}");
}

#[tokio::test]
async fn a_waiting_reader_sees_an_entry_without_a_notice_too() {
    let office = office().await;
    let start = office.end_of_feed().await;
    let write = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        append_and_commit(&office, "it").await;
    };
    let ((subjects, _), ()) = tokio::join!(office.read_on(&start, "&wait=25"), write);
    assert_eq!(subjects, ["it"]);
}

#[tokio::test]
async fn a_waiting_reader_is_answered_when_its_time_is_up_or_the_service_ends() {
    let office = office().await;
    let start = office.end_of_feed().await;
    let begun = Instant::now();
    let (none, next) = office.read_on(&start, "&wait=1").await;
    assert!(none.is_empty() && next == start);
    let waited = begun.elapsed();
    assert!(
        (Duration::from_millis(950)..Duration::from_secs(4)).contains(&waited),
        "{waited:?}"
    );

    let end = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        office.api.shutdown.cancel();
    };
    let begun = Instant::now();
    let ((none, _), ()) = tokio::join!(office.read_on(&start, "&wait=25"), end);
    assert!(none.is_empty());
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[tokio::test]
async fn waiting_readers_hold_no_connection() {
    let office = office().await;
    office.connect().await;
    let start = office.end_of_feed().await;
    // More than the pool has connections.
    let waiting = futures_util::future::join_all((0..30).map(|_| office.read_on(&start, "&wait=2")));
    let ask = async {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let begun = Instant::now();
        office.get("/v1/conversations").await.expect(200);
        begun.elapsed()
    };
    let (answers, took) = tokio::join!(waiting, ask);
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert!(answers.iter().all(|(subjects, _)| subjects.is_empty()));
}

#[tokio::test]
async fn an_empty_log_has_no_place_to_go_on_from_but_can_be_read() {
    let office = office().await;
    office.settle().await;
    let position = events::Position::default().to_string();
    let page: Value = office
        .get(&format!("/v1/events?after={position}&limit=1"))
        .await
        .expect(200);
    assert_eq!(
        page["items"][0]["type"], "api_key.created",
        "the first entry there can be"
    );
}
