//! The auditor's question: who was behind the number when each message was sent.

use hookswitch::events::{self, Kind, NewEvent, Via};
use hookswitch::ids::ConversationSid;
use hookswitch::ledger;
use hookswitch::mirror::change::{Change, MessageChange};
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::{LINE, Office, after, closed, conversation, handset, left, message, office, receipt, seat};

/// Maya has the line, then Noor; a message of each, and one of a customer during the swap.
async fn story(office: &Office) -> ConversationSid {
    let group = office.group(1, Some("maya")).await;
    office
        .observe(vec![
            Change::Message(message(&group, 0, "maya", 3, 1_000)),
            receipt(&group, 0, 1, "delivered", 1_500),
            receipt(&group, 0, 2, "undelivered", 1_600),
            Change::Message(message(&group, 1, "+15555550101", 1, 2_000)),
        ])
        .await;
    hand_over(office, &group).await;
    office
        .observe(vec![
            Change::Message(message(&group, 2, "+15555550102", 2, 3_050)),
            Change::Message(message(&group, 3, "noor", 3, 4_000)),
            left(&group, 2, 5_000),
            closed(&group, 6_000),
        ])
        .await;
    group
}

/// A cold transfer to Noor, its swap done as the worker does it: lease, change at Twilio, confirmation.
async fn hand_over(office: &Office, group: &ConversationSid) {
    office.clock.advance(SignedDuration::from_millis(2_900));
    let body = json!({ "conversation_sid": group, "kind": "cold", "to": "noor", "requested_by": "maya" });
    let started = office.post("/v1/transfers", &body).await.expect(202);
    let transfer_id = started["transfer_id"].as_str().unwrap().parse().unwrap();
    let now = office.clock.now();
    let mut conn = office.pool.acquire().await.unwrap();
    let expires_at = now + SignedDuration::from_secs(60);
    ledger::acquire_line(
        &mut conn,
        group.as_str(),
        LINE,
        transfer_id,
        Some("noor"),
        now,
        expires_at,
    )
    .await
    .unwrap()
    .unwrap();
    drop(conn);
    office
        .observe(vec![seat(group, 3, LINE, Some("noor"), 3_100)])
        .await;
    // What the worker notes at the end of a swap; it has no door of its own.
    sqlx::query!(
        "update transfer set contested_from = $2, contested_to = $3, state = 'completed', finished_at = $3
         where transfer_id = $1",
        transfer_id,
        jiff_sqlx::ToSqlx::to_sqlx(after(3_000)) as _,
        jiff_sqlx::ToSqlx::to_sqlx(after(3_200)) as _,
    )
    .execute(&office.pool)
    .await
    .unwrap();
}

/// What an auditor reads of an entry, in one line.
fn in_short(entry: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("nobody").to_owned();
    let what = match entry["type"].as_str().unwrap() {
        "message" => {
            let message = &entry["message"];
            let lines: Vec<String> = message["lines"]
                .as_array()
                .unwrap()
                .iter()
                .map(|line| {
                    let mark = if line["contested"] == true {
                        " (contested)"
                    } else {
                        ""
                    };
                    format!("{} held by {}{mark}", text(&line["line"]), text(&line["holder"]))
                })
                .collect();
            let body = message["body"].as_str().unwrap_or("(removed)");
            format!("{}: {body} | {}", text(&message["author"]), lines.join(", "))
        }
        "member_joined" | "member_left" => {
            let member = &entry["participant"];
            format!("{} {}", entry["type"].as_str().unwrap(), text(&member["shape"]))
        }
        "holder_changed" => {
            let through = if entry["transfer_id"].is_string() {
                " by a transfer"
            } else {
                ""
            };
            format!(
                "{} goes from {} to {}: {}{through}",
                text(&entry["line"]),
                text(&entry["from"]),
                text(&entry["to"]),
                text(&entry["cause"])
            )
        }
        "transfer" => text(&entry["event"]),
        "state_changed" => format!("is {}", text(&entry["to"])),
        other => panic!("an entry of type {other}"),
    };
    format!("{} {what}", &text(&entry["at"])[14..])
}

#[tokio::test]
async fn the_timeline_says_who_was_behind_the_number_at_each_message() {
    let office = office().await;
    let group = story(&office).await;
    let entries = office
        .all(&format!("/v1/conversations/{group}/timeline"), 200)
        .await;
    let lines: Vec<String> = entries.iter().map(in_short).collect();
    insta::assert_snapshot!(lines.join("\n"), @r#"
    00:00.000001Z is active
    00:00.000001Z member_joined native
    00:00.000001Z member_joined native
    00:00.000001Z member_joined projected
    00:00.000001Z +15017122661 goes from nobody to maya: created
    00:01.000001Z maya: text 0 | +15017122661 held by maya
    00:02.000001Z +15555550101: text 1 | +15017122661 held by maya
    00:02.9Z transfer.started
    00:03.050001Z +15555550102: text 2 | +15017122661 held by maya (contested)
    00:03.100001Z +15017122661 goes from maya to noor: transfer by a transfer
    00:04.000001Z noor: text 3 | +15017122661 held by noor
    00:05.000001Z member_left native
    00:06.000001Z is closed
    "#);
}

#[tokio::test]
async fn the_timeline_is_the_same_in_pages_of_any_size() {
    let office = office().await;
    let group = story(&office).await;
    // Of one instant, several of everything.
    let mut crowd: Vec<Change> = (10..14)
        .map(|index| Change::Message(message(&group, index, "noor", 3, 4_000)))
        .collect();
    crowd.push(handset(&group, 7, "+15555550107", 0));
    crowd.push(left(&group, 7, 4_000));
    office.observe(crowd).await;
    log_at(
        &office,
        &group,
        4_000,
        &[
            Kind::TransferOffered,
            Kind::OptOutRecorded,
            Kind::ConversationStateChanged,
            Kind::TransferSuperseded,
            Kind::EscalationStarted,
            Kind::TransferExhausted,
        ],
    )
    .await;
    let path = format!("/v1/conversations/{group}/timeline");
    let whole = office.all(&path, 200).await;
    assert!(whole.len() >= 24, "{}", whole.len());
    for limit in 1..=5 {
        assert_eq!(office.all(&path, limit).await, whole, "in pages of {limit}");
    }
}

/// Entries of one instant, written in the reverse of the order in which a timeline has them, more or less.
async fn log_at(office: &Office, group: &ConversationSid, ms: i64, kinds: &[Kind]) {
    let entries: Vec<NewEvent> = kinds
        .iter()
        .map(|kind| NewEvent {
            kind: *kind,
            account_sid: None,
            conversation_sid: Some(group.clone()),
            subject: "some".to_owned(),
            actor: None,
            via: Via::Worker,
            cause: None,
            occurred_at: after(ms),
            recorded_at: office.clock.now(),
            data: json!({}),
        })
        .collect();
    let mut conn = office.pool.acquire().await.unwrap();
    events::append(&mut conn, &entries).await.unwrap();
}

#[tokio::test]
async fn a_message_tells_its_line_its_holder_and_how_far_it_came() {
    let office = office().await;
    let group = story(&office).await;
    let path = format!("/v1/conversations/{group}/messages");
    let messages = office.all(&path, 2).await;
    insta::assert_json_snapshot!(messages[0], @r#"
    {
      "attributes": {},
      "author": "maya",
      "body": "text 0",
      "created_at": "2026-03-01T14:00:01.000001Z",
      "delivery": [
        {
          "address": "+15555550101",
          "error_code": null,
          "participant_sid": "MB00000000000000000000000000000001",
          "status": "delivered",
          "updated_at": "2026-03-01T14:00:01.500001Z"
        },
        {
          "address": "+15555550102",
          "error_code": "30003",
          "participant_sid": "MB00000000000000000000000000000002",
          "status": "undelivered",
          "updated_at": "2026-03-01T14:00:01.600001Z"
        }
      ],
      "delivery_summary": {
        "delivered": 1,
        "failed": 0,
        "pending": 0,
        "read": 0,
        "sent": 0,
        "total": 2,
        "undelivered": 1
      },
      "index": 0,
      "lines": [
        {
          "contested": false,
          "holder": "maya",
          "line": "+15017122661"
        }
      ],
      "media": null,
      "message_sid": "IM00000000000000000000000000000000",
      "participant_sid": "MB00000000000000000000000000000003",
      "removed_at": null,
      "sent_through": "+15017122661",
      "source": "SMS",
      "updated_at": "2026-03-01T14:00:01.000001Z"
    }
    "#);
    let sent_through: Vec<&Value> = messages.iter().map(|message| &message["sent_through"]).collect();
    assert_eq!(
        sent_through,
        [&json!(LINE), &json!(null), &json!(null), &json!(LINE)]
    );
    let contested: Vec<&Value> = messages
        .iter()
        .map(|message| &message["lines"][0]["contested"])
        .collect();
    assert_eq!(contested, [false, false, true, false]);
}

#[tokio::test]
async fn a_message_that_was_removed_is_in_the_timeline_without_what_it_said() {
    let office = office().await;
    let group = story(&office).await;
    let removed = MessageChange {
        version: hookswitch::mirror::Version::exact(after(7_000)),
        removed: true,
        fields: None,
        created_at: None,
        ..message(&group, 1, "", 1, 0)
    };
    office.observe(vec![Change::Message(removed)]).await;
    let messages = office
        .all(&format!("/v1/conversations/{group}/messages"), 200)
        .await;
    assert_eq!(messages.len(), 3);
    let timeline = office
        .all(&format!("/v1/conversations/{group}/timeline"), 200)
        .await;
    let entry = timeline
        .iter()
        .find(|entry| !entry["message"]["removed_at"].is_null())
        .unwrap();
    assert_eq!(entry["message"]["index"], 1);
    assert_eq!(entry["message"]["body"], json!(null));
    office.settle().await;
    let feed = office.get("/v1/events?limit=200").await.expect(200).to_string();
    assert!(
        !feed.contains("text 1"),
        "what was removed is nowhere in the feed"
    );
    assert!(feed.contains("text 3"));
}

#[tokio::test]
async fn tenures_answer_who_had_a_number_at_a_time() {
    let office = office().await;
    story(&office).await;
    let holders = async |query: &str| {
        let path = format!("/v1/lines/%2B15017122661/tenures{query}");
        let items = office.all(&path, 1).await;
        let holders = items.iter().map(|tenure| tenure["holder"].clone());
        holders.collect::<Vec<Value>>()
    };
    assert_eq!(holders("").await, ["maya", "noor"]);
    let at = |ms: i64| format!("?from={0}&to={0}", after(ms));
    assert_eq!(holders(&at(2_000)).await, ["maya"]);
    assert_eq!(
        holders(&at(3_100)).await,
        ["noor"],
        "a tenure has its first instant"
    );
    assert_eq!(
        holders(&at(6_000)).await,
        json!([]).as_array().unwrap().clone(),
        "and not its last"
    );
    assert_eq!(holders(&format!("?from={}", after(3_100))).await, ["noor"]);
    assert_eq!(holders(&format!("?to={}", after(3_000))).await, ["maya"]);
    let all = office.get("/v1/lines/+15017122661/tenures").await.expect(200);
    insta::assert_json_snapshot!(all["items"][1], {
        ".tenure_id" => "[id]",
        ".transfer_id" => "[id]",
    }, @r#"
    {
      "cause": "transfer",
      "conversation_sid": "CH00000000000000000000000000000001",
      "from": "2026-03-01T14:00:03.100001Z",
      "holder": "noor",
      "line": "+15017122661",
      "recorded_at": "2026-03-01T14:00:02.9Z",
      "tenure_id": "[id]",
      "to": "2026-03-01T14:00:06.000001Z",
      "transfer_id": "[id]",
      "via": "webhook"
    }
    "#);
    let unknown = office.get("/v1/lines/+15555550199/tenures").await.expect(200);
    assert_eq!(unknown, json!({ "items": [], "next": null }));
}

#[tokio::test]
async fn participants_are_told_with_their_shape() {
    let office = office().await;
    let group = office.group(1, None).await;
    office.observe(vec![left(&group, 2, 1_000)]).await;
    let page = office
        .get(&format!("/v1/conversations/{group}/participants"))
        .await
        .expect(200);
    insta::assert_json_snapshot!(page["items"][1], @r#"
    {
      "address": "+15555550102",
      "attributes": null,
      "created_at": "2026-03-01T14:00:00.000001Z",
      "identity": null,
      "last_read_message_index": null,
      "participant_sid": "MB00000000000000000000000000000002",
      "projected_address": null,
      "proxy_address": null,
      "removed_at": "2026-03-01T14:00:01.000001Z",
      "shape": "native",
      "updated_at": "2026-03-01T14:00:01.000001Z"
    }
    "#);
    let shapes: Vec<&Value> = page["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| &member["shape"])
        .collect();
    assert_eq!(shapes, ["native", "native", "gateway"]);
}

#[tokio::test]
async fn a_conversation_is_told_with_its_lines() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let shown = office
        .get(&format!("/v1/conversations/{group}"))
        .await
        .expect(200);
    insta::assert_json_snapshot!(shown, @r#"
    {
      "account_sid": "AC00000000000000000000000000000001",
      "attributes": {
        "deal": 17
      },
      "autocreated": false,
      "closed_at": null,
      "conversation_sid": "CH00000000000000000000000000000001",
      "created_at": "2026-03-01T14:00:00.000001Z",
      "friendly_name": "Home-buying journey",
      "group_text_id": null,
      "last_message_at": null,
      "lines": [
        {
          "holder": "maya",
          "line": "+15017122661"
        }
      ],
      "open_transfers": [],
      "removed_at": null,
      "state": "active",
      "unique_name": null,
      "unverified_since": null,
      "verified_at": null
    }
    "#);
    office
        .observe(vec![conversation(&group, 1), closed(&group, 9_000)])
        .await;
    let over = office
        .get(&format!("/v1/conversations/{group}"))
        .await
        .expect(200);
    assert_eq!((&over["state"], &over["lines"]), (&json!("closed"), &json!([])));
}
