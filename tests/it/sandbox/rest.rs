//! The REST API itself: who may call, both forms of path, lists, and the resources beside group texting.

use axum::http::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::{ACCOUNT, ANN, BOB, LINE, SERVICE, Twin, answer, sid};

#[tokio::test]
async fn only_the_account_and_its_key_may_call() {
    let settings = hookswitch::sandbox::Settings {
        api_key: Some((
            "SK00000000000000000000000000000001".parse().unwrap(),
            "key-secret".into(),
        )),
        ..hookswitch::sandbox::Settings::default()
    };
    let twin = Twin::start_with(settings).await;
    let url = format!("{}/v1/Services", twin.sandbox.base_url());
    hookswitch::twilio::install_tls();
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let call = async |user: &str, password: &str| {
        answer(http.get(&url).basic_auth(user, Some(password)))
            .await
            .status
    };
    assert_eq!(call(ACCOUNT, "sandbox-auth-token").await, 200);
    assert_eq!(
        call("SK00000000000000000000000000000001", "key-secret").await,
        200
    );
    assert_eq!(call(ACCOUNT, "key-secret").await, 401);
    assert_eq!(
        call("SK00000000000000000000000000000001", "sandbox-auth-token").await,
        401
    );
    let nobody = answer(http.get(&url)).await;
    assert_eq!((nobody.status, nobody.code()), (401, 20003));
    assert_eq!(
        nobody.body["more_info"],
        "https://www.twilio.com/docs/errors/20003"
    );
    // Nor are the sandbox's own endpoints open.
    let faults = format!("{}/sandbox/v1/faults", twin.sandbox.base_url());
    assert_eq!(answer(http.get(&faults)).await.status, 401);
}

#[tokio::test]
async fn every_wrong_request_has_an_error_body() {
    let twin = Twin::start().await;
    let unknown = answer(twin.request(Method::GET, "/v1/Nothing")).await;
    assert_eq!((unknown.status, unknown.code()), (404, 20404));
    let method = answer(twin.request(Method::PUT, "/Conversations")).await;
    assert_eq!((method.status, method.code()), (405, 20004));
    let service = answer(twin.request(Method::GET, "/v1/Services/IS0000/Conversations")).await;
    assert_eq!(service.code(), 20404);
    let json_body = answer(twin.request(Method::POST, "/Conversations").json(&json!({}))).await;
    assert_eq!(json_body.status, 415);
    let large = "FriendlyName=".to_owned() + &"a".repeat(300 * 1024);
    let form = "application/x-www-form-urlencoded";
    let large = answer(
        twin.request(Method::POST, "/Conversations")
            .header("content-type", form)
            .body(large),
    )
    .await;
    assert_eq!(large.status, 413);
    let bytes = twin
        .request(Method::POST, "/Conversations")
        .header("content-type", form)
        .body("FriendlyName=%ff");
    assert_eq!(answer(bytes).await.code(), 20001);
    let many = "a=1&".repeat(1001);
    let many = twin
        .request(Method::POST, "/Conversations")
        .header("content-type", form)
        .body(many);
    assert_eq!(answer(many).await.code(), 20001);
    let segment = answer(twin.request(Method::GET, "/Conversations/%ff")).await;
    assert_eq!(segment.code(), 20404);
}

#[tokio::test]
async fn a_connection_outlives_a_request_whose_body_nobody_wants() {
    let twin = Twin::start().await;
    let address = twin
        .sandbox
        .base_url()
        .strip_prefix("http://")
        .unwrap()
        .to_owned();
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let body = "x".repeat(200_000);
    for _ in 0..3 {
        // Refused before the body matters: nobody is authenticated.
        let head = format!(
            "POST /v1/Nothing HTTP/1.1\r\nhost: sandbox\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        let mut answer = vec![0; 4096];
        let length = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..length]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
}

#[tokio::test]
async fn a_conversation_is_the_same_under_both_paths_and_unknown_to_other_services() {
    let twin = Twin::start().await;
    let made = twin
        .post("/v1/Conversations", &[("UniqueName", "journey")])
        .await
        .expect_ok(201);
    let short = twin.get("/v1/Conversations/journey").await;
    let long = twin.get("/Conversations/journey").await;
    assert_eq!((&short["sid"], &long["sid"]), (&made["sid"], &made["sid"]));
    let base = twin.sandbox.base_url();
    assert_eq!(short["url"], format!("{base}/v1/Conversations/{}", sid(&made)));
    assert_eq!(
        long["url"],
        format!("{base}/v1/Services/{SERVICE}/Conversations/{}", sid(&made))
    );
    assert_eq!(
        long["links"]["messages"],
        format!("{}/Messages", long["url"].as_str().unwrap())
    );

    let other = twin
        .post("/v1/Services", &[("FriendlyName", "other")])
        .await
        .expect_ok(201);
    let elsewhere = format!("/v1/Services/{}/Conversations/{}", sid(&other), sid(&made));
    assert_eq!(answer(twin.request(Method::GET, &elsewhere)).await.code(), 20404);
}

#[tokio::test]
async fn a_list_is_read_to_its_end_by_following_the_next_page() {
    let twin = Twin::start().await;
    let mut made = Vec::new();
    for number in 0..7 {
        let name = number.to_string();
        made.push(sid(&twin
            .post("/Conversations", &[("FriendlyName", &name)])
            .await
            .expect_ok(201)));
    }
    let mut seen = Vec::new();
    let mut page = twin.get("/Conversations?State=active&PageSize=3").await;
    for number in 0..3 {
        assert_eq!(page["meta"]["page"], number);
        assert_eq!(page["meta"]["key"], "conversations");
        seen.extend(page["conversations"].as_array().unwrap().iter().map(sid));
        if number == 0 {
            // What goes away between two pages makes the next one skip nothing.
            assert_eq!(
                twin.delete(&format!("/Conversations/{}", made[1])).await.status,
                204
            );
        }
        match page["meta"]["next_page_url"].as_str() {
            Some(url) => {
                assert!(url.contains("State=active"));
                let path = url.strip_prefix(&twin.sandbox.base_url()).unwrap().to_owned();
                page = twin.get(&path).await;
            }
            None => break,
        }
    }
    assert_eq!(seen, made);
    let back = page["meta"]["previous_page_url"].as_str().unwrap();
    let back = twin
        .get(back.strip_prefix(&twin.sandbox.base_url()).unwrap())
        .await;
    assert_eq!(
        back["conversations"]
            .as_array()
            .unwrap()
            .iter()
            .map(sid)
            .collect::<Vec<_>>(),
        made[3..6]
    );

    assert_eq!(
        twin.get("/Conversations?PageSize=1000").await["meta"]["page_size"],
        100
    );
    for wrong in [
        "PageSize=0",
        "PageSize=many",
        "Page=1",
        "Page=1&PageToken=guess",
        "State=open",
        "StartDate=today",
    ] {
        let refused = answer(twin.request(Method::GET, &format!("/Conversations?{wrong}"))).await;
        assert_eq!(refused.code(), 20001, "{wrong}");
    }
}

#[tokio::test]
async fn conversations_are_listed_by_the_day_of_their_creation() {
    let twin = Twin::start().await;
    twin.post("/Conversations", &[("DateCreated", "2025-12-31T23:59:59Z")])
        .await
        .expect_ok(201);
    twin.post("/Conversations", &[]).await.expect_ok(201);
    let count = async |query: &str| {
        twin.get(&format!("/Conversations?{query}")).await["conversations"]
            .as_array()
            .unwrap()
            .len()
    };
    assert_eq!(count("StartDate=2026-01-01").await, 1);
    assert_eq!(count("EndDate=2025-12-31").await, 1);
    assert_eq!(count("StartDate=2025-12-31&EndDate=2026-01-02").await, 2);
    assert_eq!(count("StartDate=2026-01-03").await, 0);
}

#[tokio::test]
async fn messages_have_an_increasing_index_and_are_listed_either_way() {
    let twin = Twin::start().await;
    let conversation = sid(&twin.post("/Conversations", &[]).await.expect_ok(201));
    let path = format!("/Conversations/{conversation}/Messages");
    let mut made = Vec::new();
    for body in ["a", "b", "c"] {
        made.push(sid(&twin.post(&path, &[("Body", body)]).await.expect_ok(201)));
    }
    assert_eq!(twin.delete(&format!("{path}/{}", made[2])).await.status, 204);
    twin.post(&path, &[("Body", "d")]).await.expect_ok(201);
    let listed = async |query: &str| -> Vec<u64> {
        let page = twin.get(&format!("{path}?{query}")).await;
        page["messages"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["index"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(listed("").await, [0, 1, 3]);
    assert_eq!(listed("Order=desc&PageSize=2").await, [3, 1]);
    let edited = twin
        .post(&format!("{path}/{}", made[0]), &[("Body", "A")])
        .await
        .expect_ok(200);
    assert_eq!(
        (edited["body"].as_str(), edited["author"].as_str()),
        (Some("A"), Some("system"))
    );
    assert_eq!(twin.post(&path, &[]).await.code(), 50503);
    assert_eq!(
        twin.post(&path, &[("Body", "x"), ("Attributes", "{'")])
            .await
            .code(),
        50304
    );
    let attributes = format!("\"{}\"", "x".repeat(4096));
    assert_eq!(
        twin.post(&path, &[("Body", "x"), ("Attributes", &attributes)])
            .await
            .code(),
        50303
    );
    assert_eq!(
        answer(twin.request(Method::GET, &format!("{path}?Order=up")))
            .await
            .code(),
        20001
    );
}

#[tokio::test]
async fn a_long_body_is_refused_only_where_it_goes_to_handsets() {
    let twin = Twin::start().await;
    let body = "x".repeat(1601);
    let chat = sid(&twin.post("/Conversations", &[]).await.expect_ok(201));
    twin.post(&format!("/Conversations/{chat}/Messages"), &[("Body", &body)])
        .await
        .expect_ok(201);
    let group = twin.group("agent-7").await;
    let form = [("Author", "agent-7"), ("Body", body.as_str())];
    assert_eq!(
        twin.post(&format!("/Conversations/{group}/Messages"), &form)
            .await
            .code(),
        50504
    );
}

#[tokio::test]
async fn the_rules_of_a_conversations_fields() {
    let twin = Twin::start().await;
    let code = async |form: &[(&str, &str)]| twin.post("/Conversations", form).await.code();
    twin.post("/Conversations", &[("UniqueName", "taken")])
        .await
        .expect_ok(201);
    assert_eq!(code(&[("UniqueName", "taken")]).await, 50353);
    assert_eq!(
        code(&[("UniqueName", "CH00000000000000000000000000000001")]).await,
        50390
    );
    assert_eq!(code(&[("State", "closed")]).await, 50384);
    assert_eq!(code(&[("State", "initializing")]).await, 50378);
    assert_eq!(code(&[("State", "")]).await, 50374);
    assert_eq!(code(&[("Timers.Inactive", "PT5M")]).await, 50382);
    assert_eq!(
        code(&[("State", "active"), ("Timers.Inactive", "PT59S")]).await,
        50375
    );
    assert_eq!(
        code(&[("State", "active"), ("Timers.Closed", "PT9M")]).await,
        50376
    );
    assert_eq!(
        code(&[("State", "active"), ("Timers.Closed", "soon")]).await,
        50380
    );
    assert_eq!(code(&[("Attributes", "{")]).await, 50304);
    assert_eq!(
        code(&[("Attributes", &format!("\"{}\"", "x".repeat(16 * 1024)))]).await,
        50303
    );
    assert_eq!(code(&[("MessagingServiceSid", "MG1")]).await, 50341);
    assert_eq!(
        code(&[("MessagingServiceSid", "MG00000000000000000000000000000009")]).await,
        50342
    );
    assert_eq!(code(&[("FriendlyName", &"x".repeat(257))]).await, 20001);
    assert_eq!(code(&[("DateCreated", "yesterday")]).await, 20001);
}

#[tokio::test]
async fn the_groups_of_a_number_and_of_an_identity_are_found() {
    let twin = Twin::start().await;
    let conversation = twin.group("agent-7").await;
    let rows = async |query: &str| -> Vec<Value> {
        twin.get(&format!("/ParticipantConversations?{query}")).await["conversations"]
            .as_array()
            .unwrap()
            .clone()
    };
    let by_number = rows("Address=%2B15555550101").await;
    assert_eq!(by_number[0]["conversation_sid"], conversation.as_str());
    assert_eq!(by_number[0]["participant_messaging_binding"]["address"], ANN);
    let by_identity = rows("Identity=agent-7").await;
    assert_eq!(
        by_identity[0]["participant_messaging_binding"]["projected_address"],
        LINE
    );
    assert!(
        by_identity[0]["participant_user_sid"]
            .as_str()
            .unwrap()
            .starts_with("US")
    );
    assert!(rows("Identity=nobody").await.is_empty());
    let both = answer(twin.request(Method::GET, "/ParticipantConversations?Identity=a&Address=b")).await;
    assert_eq!(both.code(), 50451);
    let users = twin.get("/Users/agent-7/Conversations").await;
    assert_eq!(
        users["conversations"][0]["conversation_sid"],
        conversation.as_str()
    );
}

#[tokio::test]
async fn an_identity_that_joins_is_a_user_from_then_on() {
    let twin = Twin::start().await;
    twin.group("agent 7/\u{e9}").await;
    let user = twin.get("/Users/agent%207%2F%C3%A9").await;
    assert_eq!(user["identity"], "agent 7/\u{e9}");
    let path = format!("/Users/{}", sid(&user));
    let named = twin
        .post(&path, &[("FriendlyName", "Seven")])
        .await
        .expect_ok(200);
    assert_eq!(named["friendly_name"], "Seven");
    assert_eq!(
        twin.post("/Users", &[("Identity", "agent 7/\u{e9}")])
            .await
            .code(),
        50201
    );
    assert_eq!(twin.post("/Users", &[]).await.code(), 50204);
    twin.post("/Users", &[("Identity", "agent-8")])
        .await
        .expect_ok(201);
    assert_eq!(twin.get("/Users").await["users"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn configuration_is_empty_at_first_and_kept() {
    let twin = Twin::start().await;
    let service = twin.get("/Configuration/Webhooks").await;
    assert!(
        service["post_webhook_url"].is_null() && service["filters"].is_null() && service["method"].is_null()
    );
    let form = [
        ("PostWebhookUrl", "http://127.0.0.1:9/hook"),
        ("Filters", "onMessageAdded"),
        ("Filters", "onNothing"),
    ];
    assert_eq!(twin.post("/Configuration/Webhooks", &form).await.code(), 20001);
    let set = twin
        .post("/Configuration/Webhooks", &form[..2])
        .await
        .expect_ok(200);
    assert_eq!(set["filters"], json!(["onMessageAdded"]));
    assert_eq!(twin.get("/Configuration/Webhooks").await, set);
    assert_eq!(
        twin.post("/Configuration/Webhooks", &[("PostWebhookUrl", "hook")])
            .await
            .code(),
        50054
    );

    let account = twin.get("/v1/Configuration").await;
    assert_eq!(account["default_chat_service_sid"], SERVICE);
    let timers = [("DefaultInactiveTimer", "PT1H")];
    assert_eq!(
        twin.post("/v1/Configuration", &timers).await.expect_ok(200)["default_inactive_timer"],
        "PT1H"
    );
    let made = twin.post("/Conversations", &[]).await.expect_ok(201);
    assert_eq!(made["timers"]["date_inactive"], "2026-01-02T04:04:05Z");

    let roles = twin.get("/Roles").await;
    assert_eq!(roles["roles"].as_array().unwrap().len(), 4);
    let role = &twin.get("/Configuration").await["default_conversation_role_sid"];
    assert_eq!(
        twin.get(&format!("/Roles/{}", role.as_str().unwrap())).await["type"],
        "conversation"
    );
}

#[tokio::test]
async fn address_configuration_is_for_owned_numbers_once_each() {
    let twin = Twin::start().await;
    let path = "/v1/Configuration/Addresses";
    let form = [("Type", "sms"), ("Address", LINE)];
    let made = twin.post(path, &form).await.expect_ok(201);
    let off = json!({"enabled": false, "type": "default", "conversation_service_sid": SERVICE});
    assert_eq!(made["auto_creation"], off);
    assert_eq!(
        (
            twin.post(path, &form).await.status,
            twin.post(path, &form).await.code()
        ),
        (409, 50355)
    );
    assert_eq!(
        twin.post(path, &[("Type", "sms"), ("Address", ANN)]).await.code(),
        20001
    );
    let own = format!("{path}/{}", sid(&made));
    let webhook = [("AutoCreation.Type", "webhook"), ("AutoCreation.Enabled", "true")];
    assert_eq!(twin.post(&own, &webhook).await.code(), 20001);
    let webhook = [
        webhook[0],
        webhook[1],
        ("AutoCreation.WebhookUrl", "http://127.0.0.1:9/own"),
        ("AutoCreation.WebhookFilters", "onMessageAdded"),
    ];
    let set = twin.post(&own, &webhook).await.expect_ok(200);
    assert_eq!(set["auto_creation"]["webhook_filters"], json!(["onMessageAdded"]));
    let conversation = twin.text(ANN, &[BOB, LINE], "hi").await["conversation_sid"]
        .as_str()
        .unwrap()
        .to_owned();
    twin.sandbox.settled().await;
    let attached = twin.get(&format!("/Conversations/{conversation}/Webhooks")).await;
    assert_eq!(
        attached["webhooks"][0]["configuration"]["url"],
        "http://127.0.0.1:9/own"
    );
    assert_eq!(twin.delete(&own).await.status, 204);
}

#[tokio::test]
async fn uploaded_media_goes_with_one_message() {
    let twin = Twin::start().await;
    let conversation = twin.group("agent-7").await;
    let upload = twin
        .request(Method::POST, "/Media")
        .header("content-type", "image/png")
        .body("not really");
    let media = answer(upload).await.expect_ok(201);
    assert_eq!(media["size"], 10);
    let path = format!("/Conversations/{conversation}/Messages");
    let form = [
        ("Author", "agent-7"),
        ("MediaSid", media["sid"].as_str().unwrap()),
    ];
    let sent = twin.post(&path, &form).await.expect_ok(201);
    assert_eq!(sent["body"], Value::Null);
    assert_eq!(sent["media"][0]["content_type"], "image/png");
    assert_eq!(twin.received(BOB).await[0]["media"][0]["sid"], media["sid"]);
    assert_eq!(twin.post(&path, &form).await.code(), 50508);
    assert_eq!(
        twin.post(
            &path,
            &[form[0], ("MediaSid", "ME00000000000000000000000000000009")]
        )
        .await
        .code(),
        50507
    );
    assert_eq!(
        twin.post(&path, &[form[0], ("MediaSid", "photo")]).await.code(),
        50510
    );
}
