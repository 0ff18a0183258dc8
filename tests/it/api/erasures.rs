//! Erasing a person over HTTP: who asks and why, what is refused, and that no answer says who it was.

use serde_json::json;

use super::office;

#[tokio::test]
async fn an_erasure_is_taken_once_listed_and_says_nothing_of_whom() {
    let office = office().await;
    office.group(1, Some("maya")).await;
    let body = json!({
        "number": "+15555550101",
        "upstream": "none",
        "asked_by": "the customer, by letter",
        "reason": "right to erasure",
    });
    let taken = office.post_as("erase-1", "/v1/erasures", &body).await.expect(202);
    assert_eq!(
        office.post_as("erase-1", "/v1/erasures", &body).await.expect(202),
        taken
    );
    let again = office.post_as("erase-2", "/v1/erasures", &body).await;
    assert_eq!(again.problem(), "erasure_running");
    assert_eq!(again.json()["erasure_id"], taken["erasure_id"]);

    let id = taken["erasure_id"].as_str().unwrap();
    let shown = office.get(&format!("/v1/erasures/{id}")).await.expect(200);
    assert_eq!(shown["state"], "running");
    assert_eq!(shown["subject_kind"], "number");
    let listed = office.get("/v1/erasures?limit=1").await.expect(200);
    assert_eq!(listed["items"][0]["erasure_id"], id);
    assert!(!listed.to_string().contains("5555550101") && !taken.to_string().contains("5555550101"));
}

#[tokio::test]
async fn a_request_has_to_say_who_asks_and_why_and_whom_it_means() {
    let office = office().await;
    office.group(1, Some("maya")).await;
    let full = json!({ "identity": "noor", "asked_by": "a manager", "reason": "left" });
    for (member, value) in [
        ("asked_by", json!(null)),
        ("reason", json!("")),
        ("identity", json!(null)),
        ("number", json!("+15555550101")),
        ("upstream", json!("everything")),
        ("until", json!("x")),
    ] {
        let mut body = full.clone();
        body[member] = value;
        let answer = office.post_as(member, "/v1/erasures", &body).await;
        assert_eq!(answer.status.as_u16(), 400, "{member}");
    }
    for (member, value) in [("reason", "noor left"), ("asked_by", "noor's manager")] {
        let mut naming = full.clone();
        naming[member] = json!(value);
        let answer = office
            .post_as(&format!("naming-{member}"), "/v1/erasures", &naming)
            .await;
        assert_eq!(answer.status.as_u16(), 400);
        let error = &answer.json()["errors"][0];
        assert_eq!(error["code"], "names_the_person");
        assert_eq!(error["field"], format!("/{member}"));
    }
    // An identity within another word is no name; and what was refused above was refused for what was wrong with it.
    let short = json!({ "identity": "a", "asked_by": "the manager", "reason": "has left" });
    office.post_as("short", "/v1/erasures", &short).await.expect(202);
    office.post_as("full", "/v1/erasures", &full).await.expect(202);

    let line = json!({ "number": super::LINE, "asked_by": "x", "reason": "y" });
    let answer = office.post_as("line", "/v1/erasures", &line).await;
    assert_eq!(answer.problem(), "our_number");
    let holder = json!({ "identity": "maya", "asked_by": "x", "reason": "y" });
    let answer = office.post_as("holder", "/v1/erasures", &holder).await;
    assert_eq!(answer.problem(), "holds_lines");
    assert_eq!(answer.json()["conversations"].as_array().unwrap().len(), 1);
    assert!(!answer.json().to_string().contains("maya"));
}
