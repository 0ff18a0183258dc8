//! Groups: made at once or grown, unique by their numbers, and handed from person to person.

use hookswitch::sandbox::{Faults, IdentityReplacement, Settings};

use super::{ANN, BOB, CYD, LINE, Receiver, Twin, sid};

#[tokio::test]
async fn a_group_is_initializing_first_and_active_with_all_its_participants() {
    let twin = Twin::start_slow().await;
    let conversation = twin.found(&[ANN, BOB], "agent-7").await.expect_ok(202);
    assert_eq!(conversation["state"], "initializing");
    let path = format!("/Conversations/{}", sid(&conversation));
    assert_eq!(twin.post(&path, &[("FriendlyName", "early")]).await.code(), 20409);
    let too_early = twin
        .post(
            &format!("{path}/Messages"),
            &[("Author", "agent-7"), ("Body", "hi")],
        )
        .await;
    assert_eq!(too_early.code(), 20409);

    twin.sandbox.settled().await;
    assert_eq!(twin.get(&path).await["state"], "active");
    let all = twin.get(&format!("{path}/Participants")).await;
    let all = all["participants"].as_array().unwrap();
    assert_eq!(all.len(), 3);
    assert_eq!(
        all[0]["messaging_binding"],
        serde_json::json!({"type": "sms", "address": ANN})
    );
    assert_eq!(
        (&all[0]["identity"], &all[0]["role_sid"]),
        (&serde_json::Value::Null, &serde_json::Value::Null)
    );
    assert_eq!(
        all[2]["messaging_binding"],
        serde_json::json!({"type": "sms", "projected_address": LINE})
    );
    assert!(all[2]["role_sid"].as_str().unwrap().starts_with("RL"));
}

#[tokio::test]
async fn the_same_numbers_again_are_refused_by_naming_the_conversation_to_adopt() {
    let twin = Twin::start_slow().await;
    let first = twin.found(&[ANN, BOB], "agent-7").await.expect_ok(202);
    // While the first one is still initializing as well as later, and whoever the agent is.
    let at_once = twin.found(&[BOB, ANN], "agent-8").await;
    twin.sandbox.settled().await;
    let later = twin.found(&[ANN, BOB], "agent-9").await;
    for refused in [at_once, later] {
        assert_eq!((refused.code(), refused.status), (50438, 409));
        let message = format!(
            "Group MMS with given participant list already exists as Conversation {}",
            sid(&first)
        );
        assert_eq!(refused.body["message"], message);
    }

    let path = format!("/Conversations/{}", sid(&first));
    twin.post(&path, &[("State", "inactive")]).await.expect_ok(200);
    assert_eq!(twin.found(&[ANN, BOB], "agent-7").await.code(), 50438);
    twin.post(&path, &[("State", "closed")]).await.expect_ok(200);
    twin.found(&[ANN, BOB], "agent-7").await.expect_ok(202);
}

#[tokio::test]
async fn a_setup_that_fails_ends_closed_and_gives_the_numbers_back_but_not_the_unique_name() {
    let twin = Twin::start().await;
    twin.sandbox
        .set_faults(Faults {
            failing_setups: 1,
            ..Faults::default()
        })
        .unwrap();
    let receiver = Receiver::start().await;
    twin.tell(&receiver, &["onConversationStateUpdated"]).await;
    let participants: Vec<(&str, String)> = [ANN, BOB]
        .iter()
        .map(|native| {
            (
                "Participant",
                format!(r#"{{"messaging_binding":{{"address":"{native}"}}}}"#),
            )
        })
        .chain([(
            "Participant",
            format!(r#"{{"messaging_binding":{{"projected_address":"{LINE}"}}}}"#),
        )])
        .collect();
    let mut form: Vec<(&str, &str)> = participants
        .iter()
        .map(|(key, value)| (*key, value.as_str()))
        .collect();
    form.push(("UniqueName", "journey"));
    let failed = twin
        .post_told("/ConversationWithParticipants", &form)
        .await
        .expect_ok(202);
    twin.sandbox.settled().await;
    assert_eq!(
        twin.get(&format!("/Conversations/{}", sid(&failed))).await["state"],
        "closed"
    );
    let told = receiver.take();
    assert_eq!(
        (told[0].get("StateFrom"), told[0].get("StateTo")),
        (Some("initializing"), Some("closed"))
    );

    assert_eq!(
        twin.post("/ConversationWithParticipants", &form).await.code(),
        50353
    );
    form.pop();
    twin.post("/ConversationWithParticipants", &form)
        .await
        .expect_ok(202);
}

#[tokio::test]
async fn a_group_grows_one_participant_at_a_time() {
    let twin = Twin::start().await;
    let conversation = sid(&twin.post("/Conversations", &[]).await.expect_ok(201));
    let path = format!("/Conversations/{conversation}/Participants");
    let address = "MessagingBinding.Address";
    twin.post(&path, &[(address, ANN)]).await.expect_ok(201);
    twin.post(&path, &[(address, BOB)]).await.expect_ok(201);
    twin.post(
        &path,
        &[
            ("Identity", "agent-7"),
            ("MessagingBinding.ProjectedAddress", LINE),
        ],
    )
    .await
    .expect_ok(201);
    assert_eq!(twin.post(&path, &[(address, ANN)]).await.code(), 50437);
    assert_eq!(twin.post(&path, &[("Identity", "watcher")]).await.code(), 50434);
    assert_eq!(twin.post(&path, &[(address, LINE)]).await.code(), 50407);
    let proxied = [(address, CYD), ("MessagingBinding.ProxyAddress", "+15555550199")];
    assert_eq!(twin.post(&path, &proxied).await.code(), 50413);
    assert_eq!(twin.found(&[BOB, ANN], "agent-8").await.code(), 50438);

    // Another group that would become the same one by its last member is refused that member.
    let other = sid(&twin.post("/Conversations", &[]).await.expect_ok(201));
    let path = format!("/Conversations/{other}/Participants");
    twin.post(&path, &[(address, ANN)]).await.expect_ok(201);
    twin.post(&path, &[(address, BOB)]).await.expect_ok(201);
    let last = twin
        .post(&path, &[("MessagingBinding.ProjectedAddress", LINE)])
        .await;
    assert_eq!(last.code(), 50438);
    assert!(last.body["message"].as_str().unwrap().ends_with(&conversation));
}

#[tokio::test]
async fn a_conversation_with_participants_is_checked_before_it_is_made() {
    let twin = Twin::start().await;
    let code = async |participants: &[&str]| {
        let form: Vec<(&str, &str)> = participants.iter().map(|&one| ("Participant", one)).collect();
        twin.post("/ConversationWithParticipants", &form).await.code()
    };
    let ann = r#"{"messaging_binding":{"address":"+15555550101"}}"#;
    let bob = r#"{"messaging_binding":{"address":"+15555550102"}}"#;
    let line = r#"{"identity":"agent-7","messaging_binding":{"projected_address":"+15017122661"}}"#;
    assert_eq!(code(&[ann, line]).await, 50435);
    assert_eq!(code(&[ann, bob]).await, 50435);
    assert_eq!(code(&[ann, ann, line]).await, 50437);
    assert_eq!(code(&[ann, bob, line, r#"{"identity":"agent-8"}"#]).await, 50434);
    assert_eq!(
        code(&[
            ann,
            bob,
            r#"{"messaging_binding":{"projected_address":"+15555550190"}}"#
        ])
        .await,
        50439
    );
    assert_eq!(
        code(&[
            ann,
            bob,
            line,
            r#"{"MessagingBinding":{"Address":"+15555550103"}}"#
        ])
        .await,
        20001
    );
    assert_eq!(code(&[ann, bob, "not json"]).await, 20001);
    let eleven: Vec<String> = (1..=11)
        .map(|last| format!(r#"{{"messaging_binding":{{"address":"+155555501{last:02}"}}}}"#))
        .collect();
    let eleven: Vec<&str> = eleven.iter().map(String::as_str).collect();
    assert_eq!(code(&eleven).await, 50426);
    assert!(twin.sandbox.conversations().is_empty());
}

#[tokio::test]
async fn a_line_changes_hands_by_an_update_of_the_identity() {
    let twin = Twin::start().await;
    let receiver = Receiver::start().await;
    let conversation = twin.group("agent-7").await;
    twin.tell(&receiver, &["onParticipantUpdated"]).await;
    let line = sid(&twin.line(&conversation).await);
    let path = format!("/Conversations/{conversation}/Participants/{line}");
    let changed = twin
        .post_told(&path, &[("Identity", "agent-8")])
        .await
        .expect_ok(200);
    assert_eq!(
        (changed["identity"].as_str(), sid(&changed)),
        (Some("agent-8"), line)
    );
    twin.sandbox.settled().await;
    assert_eq!(receiver.take()[0].get("Identity"), Some("agent-8"));

    // The group and its thread stay as they are; only the author changes.
    let messages = format!("/Conversations/{conversation}/Messages");
    assert_eq!(
        twin.post(&messages, &[("Author", "agent-7"), ("Body", "late")])
            .await
            .code(),
        50513
    );
    twin.post(&messages, &[("Author", "agent-8"), ("Body", "hello")])
        .await
        .expect_ok(201);
    assert_eq!(twin.received(ANN).await[0]["from"], LINE);
}

#[tokio::test]
async fn where_identities_are_not_replaced_a_line_changes_hands_by_adding_and_removing() {
    let settings = Settings {
        identity_replacement: IdentityReplacement::Refuse,
        ..Settings::default()
    };
    let twin = Twin::start_with(settings).await;
    let conversation = twin.group("agent-7").await;
    let path = format!("/Conversations/{conversation}/Participants");
    let first = sid(&twin.line(&conversation).await);
    assert_eq!(
        twin.post(&format!("{path}/{first}"), &[("Identity", "agent-8")])
            .await
            .code(),
        50444
    );

    let projected = ("MessagingBinding.ProjectedAddress", LINE);
    let second = sid(&twin
        .post(&path, &[("Identity", "agent-8"), projected])
        .await
        .expect_ok(201));
    assert_eq!(
        twin.post(&path, &[("Identity", "agent-8"), projected])
            .await
            .code(),
        50437
    );
    assert_eq!(twin.delete(&format!("{path}/{first}")).await.status, 204);
    let line = twin.line(&conversation).await;
    assert_eq!((sid(&line), line["identity"].as_str()), (second, Some("agent-8")));
    // The set of numbers never changed.
    assert_eq!(twin.found(&[ANN, BOB], "agent-9").await.code(), 50438);
}

#[tokio::test]
async fn a_line_without_a_person_takes_one_under_either_behaviour() {
    for identity_replacement in [IdentityReplacement::Update, IdentityReplacement::Refuse] {
        let twin = Twin::start_with(Settings {
            identity_replacement,
            ..Settings::default()
        })
        .await;
        twin.configure_address(LINE).await;
        let made = twin.text(ANN, &[BOB, LINE], "hello").await;
        twin.sandbox.settled().await;
        let conversation = made["conversation_sid"].as_str().unwrap().to_owned();
        let messages = format!("/Conversations/{conversation}/Messages");
        assert_eq!(
            twin.post(&messages, &[("Body", "from nobody")]).await.code(),
            50513
        );
        twin.post(&messages, &[("Author", LINE), ("Body", "from the line")])
            .await
            .expect_ok(201);

        let line = twin.line(&conversation).await;
        let path = format!("/Conversations/{conversation}/Participants/{}", sid(&line));
        let staffed = twin.post(&path, &[("Identity", "agent-7")]).await.expect_ok(200);
        assert!(line["role_sid"].is_null() && staffed["role_sid"].is_string());
        assert_eq!(
            twin.post(&messages, &[("Author", LINE), ("Body", "too late")])
                .await
                .code(),
            50513
        );
        assert_eq!(twin.post(&path, &[("Identity", "")]).await.code(), 20001);
    }
}

#[tokio::test]
async fn what_cannot_be_changed_about_a_participant_is_refused() {
    let twin = Twin::start().await;
    let conversation = twin.group("agent-7").await;
    let path = format!("/Conversations/{conversation}/Participants");
    twin.post(
        &path,
        &[
            ("Identity", "agent-8"),
            ("MessagingBinding.ProjectedAddress", "+15017122662"),
        ],
    )
    .await
    .expect_ok(201);
    let all = twin.get(&path).await;
    let ann = format!("{path}/{}", sid(&all["participants"][0]));
    let line = format!("{path}/agent-7");
    assert_eq!(twin.post(&ann, &[("Identity", "agent-9")]).await.code(), 50444);
    assert_eq!(
        twin.post(&ann, &[("MessagingBinding.ProjectedAddress", LINE)])
            .await
            .code(),
        50443
    );
    assert_eq!(
        twin.post(&ann, &[("MessagingBinding.ProjectedAddress", "null")])
            .await
            .code(),
        50442
    );
    assert_eq!(
        twin.post(&ann, &[("MessagingBinding.ProxyAddress", "null")])
            .await
            .code(),
        50440
    );
    assert_eq!(twin.post(&line, &[("Identity", "agent-8")]).await.code(), 50433);
    assert_eq!(
        twin.post(&line, &[("MessagingBinding.ProxyAddress", LINE)])
            .await
            .code(),
        50441
    );
    assert_eq!(
        twin.post(&line, &[("MessagingBinding.ProjectedAddress", "null")])
            .await
            .code(),
        50434
    );
    assert_eq!(twin.post(&line, &[("Attributes", "{")]).await.code(), 50304);
    assert_eq!(
        twin.post(&line, &[("LastReadMessageIndex", "7")]).await.code(),
        50421
    );
    assert_eq!(twin.get(&line).await["identity"], "agent-7");
}

#[tokio::test]
async fn a_closed_conversation_is_final_and_can_be_read_and_removed() {
    let twin = Twin::start().await;
    let conversation = twin.group("agent-7").await;
    let path = format!("/Conversations/{conversation}");
    twin.post(&path, &[("State", "closed")]).await.expect_ok(200);
    assert_eq!(twin.post(&path, &[("State", "active")]).await.code(), 50377);
    let message = [("Author", "agent-7"), ("Body", "hi")];
    assert_eq!(
        twin.post(&format!("{path}/Messages"), &message).await.code(),
        50377
    );
    let cyd = [("MessagingBinding.Address", CYD)];
    assert_eq!(
        twin.post(&format!("{path}/Participants"), &cyd).await.code(),
        50377
    );
    assert_eq!(
        twin.get(&format!("{path}/Participants")).await["participants"]
            .as_array()
            .unwrap()
            .len(),
        3
    );
    assert_eq!(twin.delete(&path).await.status, 204);
    assert_eq!(twin.delete(&path).await.code(), 20404);
}
