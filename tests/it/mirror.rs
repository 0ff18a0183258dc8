//! The mirror against the emulated account: everything that can happen there ends here, whatever is lost on the way.

use hookswitch::group_text::{Origin, State};
use hookswitch::ids::{ConversationSid, MessageSid, ParticipantSid};
use hookswitch::mirror;
use hookswitch::sandbox::{Faults, WebhookAction, WebhookFault};
use hookswitch::twilio::Client;
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::{
    ConversationUpdate, Member, MessageUpdate, NewConversation, NewMessage, NewParticipant, ParticipantUpdate,
};
use jiff::{SignedDuration, Timestamp};

use crate::support::app::{ACCOUNT, BUYER, LINE, PARTNER, TestApp, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::tables;
use crate::support::webhook::Webhook;

fn client(app: &TestApp) -> &Client {
    &app.app.accounts.get(ACCOUNT).unwrap().client
}

fn losing(events: &[&str]) -> Faults {
    Faults {
        webhooks: vec![WebhookFault {
            action: WebhookAction::Lose,
            events: events.iter().map(|&event| event.to_owned()).collect(),
            ms: 0,
            probability: 1.0,
            times: None,
        }],
        ..Faults::default()
    }
}

fn member_with(app: &TestApp, sid: &ConversationSid, address: &str) -> ParticipantSid {
    let members = app.at_twilio(sid).participants;
    let found = members.into_iter().find(|one| {
        one.address
            .as_ref()
            .or(one.projected_address.as_ref())
            .is_some_and(|own| own.as_str() == address)
    });
    found.unwrap().sid
}

async fn posted(app: &TestApp, sid: &ConversationSid, body: &str) -> MessageSid {
    let new = NewMessage {
        author: Some("maya".to_owned().into()),
        body: Some(body.to_owned().into()),
        media_sid: None,
        attributes: None,
    };
    client(app).create_message(sid, &new).await.unwrap().sid
}

#[tokio::test]
async fn everything_that_happens_at_twilio_ends_in_the_mirror() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    assert_mirror_equals_sandbox(&app).await;

    let message = posted(&app, &sid, "Welcome").await;
    let kept = posted(&app, &sid, "to be kept").await;
    app.text(BUYER, &[LINE, PARTNER], "Hello").await;
    app.settle().await;
    assert_mirror_equals_sandbox(&app).await;

    let edit = MessageUpdate {
        body: Some("Welcome to you both".to_owned().into()),
        ..Default::default()
    };
    client(&app).update_message(&sid, &message, &edit).await.unwrap();
    client(&app).delete_message(&sid, &kept).await.unwrap();
    let horizon = ParticipantUpdate {
        attributes: Some(r#"{"seen":true}"#.to_owned().into()),
        last_read_message_index: Some(1),
        ..Default::default()
    };
    let line = member_with(&app, &sid, LINE);
    client(&app)
        .update_participant(&sid, &line, &horizon)
        .await
        .unwrap();
    let third = NewParticipant::from(Member::Native {
        address: "+15555550103".parse().unwrap(),
    });
    client(&app).create_participant(&sid, &third).await.unwrap();
    app.settle().await;
    assert_mirror_equals_sandbox(&app).await;
    assert_eq!(
        tables::count(&app, "message where removed_at is not null").await,
        1
    );

    let partner = member_with(&app, &sid, PARTNER);
    client(&app).delete_participant(&sid, &partner).await.unwrap();
    for state in [ConversationState::Inactive, ConversationState::Active] {
        let update = ConversationUpdate {
            friendly_name: Some("Home-bought".to_owned().into()),
            attributes: Some(r#"{"crm":7}"#.to_owned().into()),
            state: Some(state),
            ..Default::default()
        };
        client(&app).update_conversation(&sid, &update).await.unwrap();
    }
    // Both may have been in one millisecond, and then a read has to tell.
    app.settle_for(SignedDuration::from_secs(3)).await;
    assert_mirror_equals_sandbox(&app).await;
    assert_eq!(
        tables::count(&app, "participant where removed_at is not null").await,
        1
    );

    let close = ConversationUpdate {
        state: Some(ConversationState::Closed),
        ..Default::default()
    };
    client(&app).update_conversation(&sid, &close).await.unwrap();
    app.settle().await;
    assert_mirror_equals_sandbox(&app).await;
    client(&app).delete_conversation(&sid).await.unwrap();
    app.settle().await;
    assert_mirror_equals_sandbox(&app).await;
    assert_eq!(
        tables::count(&app, "conversation where removed_at is not null").await,
        1
    );
    assert_eq!(
        tables::count(&app, "tenure where superseded_at is null and upper_inf(during)").await,
        0
    );
    app.settle_for(SignedDuration::from_mins(1)).await;
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn children_of_a_conversation_that_nobody_told_us_of_make_us_read_it() {
    let app = TestApp::start().await;
    app.sandbox
        .set_faults(losing(&[
            "onConversationAdded",
            "onConversationStateUpdated",
            "onParticipantAdded",
        ]))
        .unwrap();
    app.text(BUYER, &[LINE, PARTNER], "Hello?").await;
    app.sandbox.settled().await;
    app.app.projector.run_until_idle().await.unwrap();
    assert_eq!(
        tables::count(
            &app,
            "conversation where version_at is null and unverified_since is not null"
        )
        .await,
        1
    );
    let reads = tables::rows(&app, "select kind || ' ' || state from task").await;
    assert!(
        reads.iter().all(|read| read == "mirror.read ready") && !reads.is_empty(),
        "{reads:?}"
    );

    app.settle_for(SignedDuration::from_secs(3)).await;
    assert_mirror_equals_sandbox(&app).await;
    assert_eq!(
        tables::count(&app, "conversation where unverified_since is not null").await,
        0
    );
    assert_eq!(
        tables::count(&app, "conversation where verified_at is not null").await,
        1
    );
    tables::assert_queue_is_empty(&app).await;
}

/// Twilio does not find it in our service, which does not make it removed.
#[tokio::test]
async fn a_conversation_of_another_service_is_not_taken_for_removed() {
    let app = TestApp::start().await;
    let sid = "CH0000000000000000000000000000a001";
    for event in ["onConversationAdded", "onParticipantAdded"] {
        let webhook = Webhook::new(
            event,
            &[
                ("ConversationSid", sid),
                ("ParticipantSid", "MB0000000000000000000000000000a001"),
                ("MessagingBinding.Address", BUYER),
                ("Attributes", "{}"),
                ("State", "active"),
                ("DateCreated", "2026-01-02T03:04:05.678Z"),
                ("DateUpdated", "2026-01-02T03:04:05.678Z"),
            ],
        );
        app.deliver(
            &webhook
                .with("ChatServiceSid", "IS000000000000000000000000000000a1")
                .0,
        )
        .await;
    }
    app.settle().await;
    let mut conn = app.conn().await;
    let sid = sid.parse().unwrap();
    mirror::put_read(
        &mut conn,
        &ACCOUNT.parse().unwrap(),
        &sid,
        None,
        app.clock.now(),
        app.clock.now(),
    )
    .await
    .unwrap();
    app.settle_for(SignedDuration::from_secs(5)).await;
    let left = "select concat_ws(' ', service_sid, state, removed_at, (select count(*) from task)) from conversation";
    assert_eq!(
        tables::rows(&app, left).await,
        ["IS000000000000000000000000000000a1 active 0"]
    );
}

#[tokio::test]
async fn receipts_of_a_message_that_nobody_told_us_of_make_us_read_it() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.sandbox.set_faults(losing(&["onMessageAdded"])).unwrap();
    posted(&app, &sid, "Welcome").await;
    app.settle().await;
    assert_eq!(tables::count(&app, "message").await, 0);
    assert_eq!(tables::count(&app, "delivery_receipt").await, 2);
    app.settle_for(SignedDuration::from_secs(3)).await;
    assert_mirror_equals_sandbox(&app).await;
    tables::assert_queue_is_empty(&app).await;
}

fn form(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    [("AccountSid", ACCOUNT), ("RetryCount", "0")]
        .iter()
        .chain(pairs)
        .map(|&(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn millis(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

#[tokio::test]
async fn what_was_removed_is_not_revived_by_what_comes_late() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let before = millis(app.clock.now());
    let message = posted(&app, &sid, "Welcome").await;
    let partner = member_with(&app, &sid, PARTNER);
    app.settle().await;
    client(&app).delete_message(&sid, &message).await.unwrap();
    client(&app).delete_participant(&sid, &partner).await.unwrap();
    app.settle().await;
    client(&app).delete_conversation(&sid).await.unwrap();
    app.settle().await;
    let log = tables::log(&app).await;

    // Late, or from a clock that is ahead of the one that told the removal.
    for at in [before, millis(app.clock.now() + SignedDuration::from_secs(5))] {
        app.deliver(&form(&[
            ("EventType", "onMessageUpdated"),
            ("ConversationSid", sid.as_str()),
            ("MessageSid", message.as_str()),
            ("Index", "0"),
            ("Body", "edited"),
            ("Author", "maya"),
            ("DateCreated", &at),
            ("DateUpdated", &at),
        ]))
        .await;
        app.deliver(&form(&[
            ("EventType", "onParticipantUpdated"),
            ("ConversationSid", sid.as_str()),
            ("ParticipantSid", partner.as_str()),
            ("MessagingBinding.Address", PARTNER),
            ("MessagingBinding.Type", "sms"),
            ("DateCreated", &at),
            ("DateUpdated", &at),
        ]))
        .await;
        app.deliver(&form(&[
            ("EventType", "onConversationUpdated"),
            ("ConversationSid", sid.as_str()),
            ("FriendlyName", "Home-buying journey"),
            ("State", "active"),
            ("DateCreated", &at),
            ("DateUpdated", &at),
        ]))
        .await;
    }
    app.settle_for(SignedDuration::from_mins(1)).await;
    assert_eq!(tables::count(&app, "message where removed_at is null").await, 0);
    assert_eq!(
        tables::count(
            &app,
            &format!("participant where removed_at is null and participant_sid = '{partner}'")
        )
        .await,
        0
    );
    assert_eq!(
        tables::count(&app, "conversation where removed_at is null").await,
        0
    );
    assert_eq!(
        tables::count(&app, "tenure where superseded_at is null and upper_inf(during)").await,
        0
    );
    let mut told = tables::log(&app).await;
    told.retain(|entry| !log.contains(entry));
    assert!(
        told.iter().all(|entry| entry.starts_with("conversation.updated")),
        "the log tells of no change of what is gone: {told:?}"
    );
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn a_group_that_a_customer_starts_is_a_group_text_from_its_first_webhook_on() {
    let app = TestApp::start().await;
    app.text(BUYER, &[LINE, PARTNER], "Is the house still there?")
        .await;
    app.settle().await;
    assert_mirror_equals_sandbox(&app).await;
    let sid = app.sandbox.conversations()[0].sid.clone();
    let group = hookswitch::group_text::find_by_conversation(&mut *app.conn().await, sid.as_str())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (group.origin, group.state, group.adopted),
        (Origin::Autocreated, State::Active, true)
    );
    assert_eq!(app.holders(&sid).await, [None], "nobody holds the line yet");
    let told = tables::rows(
        &app,
        "select type from event where type like 'group_text.%' order by commit_xid, event_id",
    )
    .await;
    assert_eq!(told, ["group_text.adopted", "group_text.active"]);
}

#[tokio::test]
async fn of_two_statements_of_one_instant_a_read_tells_which_is_true() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let line = member_with(&app, &sid, LINE);
    let update = ParticipantUpdate {
        identity: Some("jonas".parse().unwrap()),
        ..Default::default()
    };
    client(&app)
        .update_participant(&sid, &line, &update)
        .await
        .unwrap();
    app.settle().await;
    let truth = app.at_twilio(&sid).participants;
    let updated = truth.iter().find(|one| one.sid == line).unwrap().date_updated;
    // A change in the very same millisecond, which sorts before or after the true one by its content.
    for identity in ["adam", "zoe"] {
        app.deliver(&form(&[
            ("EventType", "onParticipantUpdated"),
            ("ConversationSid", sid.as_str()),
            ("ParticipantSid", line.as_str()),
            ("Identity", identity),
            ("MessagingBinding.ProjectedAddress", LINE),
            ("MessagingBinding.Type", "sms"),
            ("DateCreated", &millis(updated)),
            ("DateUpdated", &millis(updated)),
        ]))
        .await;
        app.settle().await;
        app.settle_for(SignedDuration::from_secs(3)).await;
        assert_mirror_equals_sandbox(&app).await;
        assert_eq!(
            app.holders(&sid).await.last().unwrap().as_deref(),
            Some("jonas"),
            "{identity}"
        );
    }
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn an_empty_conversation_and_members_of_every_shape_are_mirrored() {
    let app = TestApp::start().await;
    let created = client(&app)
        .create_conversation(&NewConversation::default())
        .await
        .unwrap();
    let chat = NewParticipant::from(Member::Chat {
        identity: "maya".parse().unwrap(),
    });
    client(&app)
        .create_participant(&created.sid, &chat)
        .await
        .unwrap();
    let proxied = NewParticipant::from(Member::Proxied {
        address: BUYER.parse().unwrap(),
        proxy_address: LINE.parse().unwrap(),
    });
    client(&app)
        .create_participant(&created.sid, &proxied)
        .await
        .unwrap();
    app.settle().await;
    assert_mirror_equals_sandbox(&app).await;
    assert_eq!(
        tables::count(&app, "tenure").await,
        0,
        "without a projected address there is no line"
    );
}

#[tokio::test]
async fn who_comes_back_within_a_second_is_told_to_the_feed() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let seat = app
        .at_twilio(&sid)
        .participants
        .into_iter()
        .find(|one| one.projected_address.is_some())
        .unwrap();
    let begun = app.clock.now() + SignedDuration::from_secs(5);
    for (ms, holder) in [(0, "noor"), (300, "maya"), (600, "noor")] {
        let at = millis(begun + SignedDuration::from_millis(ms));
        app.deliver(&form(&[
            ("EventType", "onParticipantUpdated"),
            ("ConversationSid", sid.as_str()),
            ("ParticipantSid", seat.sid.as_str()),
            ("Identity", holder),
            ("MessagingBinding.ProjectedAddress", LINE),
            ("MessagingBinding.Type", "sms"),
            ("DateCreated", &at),
            ("DateUpdated", &at),
        ]))
        .await;
        app.app.projector.run_until_idle().await.unwrap();
    }
    let told = "select coalesce(data::jsonb ->> 'from', '-') || ' ' || (data::jsonb ->> 'to') from event
        where type = 'line.holder_changed' order by commit_xid, event_id";
    assert_eq!(
        tables::rows(&app, told).await,
        ["- maya", "maya noor", "noor maya", "maya noor"]
    );
    assert_eq!(app.holders(&sid).await.len(), 4);
}
