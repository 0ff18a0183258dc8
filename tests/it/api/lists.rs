//! Lists: filters, and pages that neither lose nor repeat.

use std::collections::BTreeSet;

use hookswitch::mirror::change::Change;
use serde_json::{Value, json};

use super::{LINE, OTHER_LINE, Office, closed, conversation, conversation_sid, message, office, seat};

fn of<'a>(items: &'a [Value], name: &str) -> Vec<&'a str> {
    items.iter().map(|item| item[name].as_str().unwrap()).collect()
}

/// All pages of a list, with every size of page, hold the same items once.
async fn assert_pages(office: &Office, path: &str, id: &str, count: usize) {
    let whole = office.all(path, 200).await;
    let ids: BTreeSet<&str> = of(&whole, id).into_iter().collect();
    assert_eq!((whole.len(), ids.len()), (count, count), "{path}");
    for limit in [1, 2, 3, count] {
        assert_eq!(office.all(path, limit).await, whole, "{path} in pages of {limit}");
    }
}

#[tokio::test]
async fn every_list_has_all_its_items_once_in_pages_of_any_size() {
    let office = office().await;
    // The clock stands still: of all these, the time is the same, and only the id tells them apart.
    for number in 1..=7 {
        let group = office.group(number, Some("maya")).await;
        let body = json!({ "conversation_sid": group, "kind": "warm", "to": "noor", "requested_by": "maya" });
        office.post("/v1/transfers", &body).await.expect(202);
        let members = json!({ "members": [
            { "line": LINE, "holder": "maya" },
            { "address": "+15555550101" },
            { "address": format!("+1555555020{number}") },
        ] });
        office.post("/v1/group-texts", &members).await.expect(202);
    }
    let group = conversation_sid(1);
    let messages: Vec<Change> = (0..7)
        .map(|index| Change::Message(message(&group, index, "maya", 3, 1_000)))
        .collect();
    office.observe(messages).await;
    let path = format!("/v1/conversations/{group}/messages");
    for number in 0..7 {
        let body = json!({ "body": format!("number {number}") });
        office.post(&path, &body).await.expect(202);
    }

    assert_pages(&office, "/v1/conversations", "conversation_sid", 7).await;
    assert_pages(&office, "/v1/conversations?holder=maya", "conversation_sid", 7).await;
    assert_pages(&office, "/v1/transfers", "transfer_id", 7).await;
    assert_pages(&office, "/v1/transfers?to=noor&open=true", "transfer_id", 7).await;
    assert_pages(&office, "/v1/group-texts", "group_text_id", 7).await;
    assert_pages(&office, &path, "message_sid", 7).await;
    assert_pages(&office, &format!("/v1/conversations/{group}/sends"), "send_id", 7).await;
    assert_pages(&office, "/v1/lines/+15017122661/tenures", "tenure_id", 7).await;
}

#[tokio::test]
async fn messages_without_an_index_come_last_and_are_not_lost() {
    let office = office().await;
    let group = office.group(1, Some("maya")).await;
    let mut changes: Vec<Change> = Vec::new();
    for number in 0..6 {
        let mut change = message(&group, number, "maya", 3, 1_000);
        if let Some(fields) = change.fields.as_mut().filter(|_| number % 2 == 0) {
            fields.index = None;
        }
        changes.push(Change::Message(change));
    }
    office.observe(changes).await;
    let path = format!("/v1/conversations/{group}/messages");
    assert_pages(&office, &path, "message_sid", 6).await;
    let indexes: Vec<Value> = office
        .all(&path, 2)
        .await
        .iter()
        .map(|message| message["index"].clone())
        .collect();
    assert_eq!(json!(indexes), json!([1, 3, 5, null, null, null]));
}

#[tokio::test]
async fn conversations_are_filtered_by_state_line_and_holder() {
    let office = office().await;
    let first = office.group(1, Some("maya")).await;
    office.group(2, Some("noor")).await;
    office.group(3, None).await;
    office
        .observe(vec![
            conversation(&conversation_sid(4), 0),
            seat(&conversation_sid(4), 4, OTHER_LINE, Some("maya"), 0),
            closed(&first, 1_000),
        ])
        .await;
    let found = async |query: &str| {
        let items = office.all(&format!("/v1/conversations?{query}"), 200).await;
        items
            .iter()
            .map(|item| item["conversation_sid"].as_str().unwrap()[30..].to_owned())
            .collect::<Vec<String>>()
    };
    assert_eq!(found("state=active").await, ["0004", "0003", "0002"]);
    assert_eq!(found("state=closed").await, ["0001"]);
    assert_eq!(found("holder=maya").await, ["0004", "0001"]);
    assert_eq!(found("line=%2B15017122662").await, ["0004"]);
    assert_eq!(found("line=%2B15017122661&state=active").await, ["0003", "0002"]);
    assert_eq!(found("holder=maya&state=active").await, ["0004"]);
    assert!(found("holder=zoe").await.is_empty());
}

#[tokio::test]
async fn what_comes_while_a_list_is_read_neither_repeats_nor_hides_anything() {
    let office = office().await;
    for number in 1..=4 {
        office.group(number, Some("maya")).await;
        office.clock.advance(jiff::SignedDuration::from_secs(1));
    }
    let first = office.get("/v1/conversations?limit=2").await.expect(200);
    office.group(9, Some("maya")).await;
    let next = first["next"].as_str().unwrap();
    let second = office
        .get(&format!("/v1/conversations?limit=2&cursor={next}"))
        .await
        .expect(200);
    let mut sids = of(first["items"].as_array().unwrap(), "conversation_sid");
    sids.extend(of(second["items"].as_array().unwrap(), "conversation_sid"));
    let expected: Vec<String> = (1..=4)
        .rev()
        .map(|number| conversation_sid(number).into_string())
        .collect();
    assert_eq!(sids, expected);
    assert_eq!(second["next"], json!(null));
}
