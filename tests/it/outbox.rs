//! Messages that we are asked to send: who is their author, and what becomes of those that cannot be sent.

use hookswitch::ids::ConversationSid;
use hookswitch::outbox::{self, NewOutboundMessage, OutboundMessage, SendError, State};
use hookswitch::person::{Person, Subject};
use hookswitch::sandbox::{Effect, Faults, RestFault, WebhookAction, WebhookFault};
use hookswitch::transfer::Kind;
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::{ConversationUpdate, NewMessage, ParticipantUpdate};
use jiff::SignedDuration;

use crate::support::app::{ACCOUNT, BUYER, LINE, TestApp, sid_of};
use crate::support::tables;

async fn app_with_group(holder: Option<&str>) -> (TestApp, ConversationSid) {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(holder).await);
    (app, sid)
}

fn new(sid: &ConversationSid, body: &str) -> NewOutboundMessage {
    NewOutboundMessage {
        conversation_sid: sid.clone(),
        line: None,
        as_holder: None,
        body: body.to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    }
}

fn as_holder(new: NewOutboundMessage, holder: &str) -> NewOutboundMessage {
    NewOutboundMessage {
        as_holder: Some(holder.parse().unwrap()),
        ..new
    }
}

async fn send(app: &TestApp, new: NewOutboundMessage) -> OutboundMessage {
    app.app.api.outbox.send(new).await.unwrap()
}

async fn ended(app: &TestApp, message: &OutboundMessage) -> OutboundMessage {
    for _ in 0..4 {
        app.settle_for(SignedDuration::from_secs(5)).await;
    }
    outbox::find(&mut *app.conn().await, message.outbound_message_id)
        .await
        .unwrap()
        .unwrap()
}

fn bodies(app: &TestApp, sid: &ConversationSid) -> Vec<String> {
    let messages = app.at_twilio(sid).messages;
    messages
        .into_iter()
        .map(|one| one.body.unwrap_or_default())
        .collect()
}

fn posting_messages(status: u16, times: u32) -> Faults {
    Faults {
        rest: vec![RestFault {
            method: Some("POST".to_owned()),
            path: Some("/v1/Services/*/Conversations/*/Messages".to_owned()),
            status: Some(status),
            effect: Effect::Before,
            hold_ms: 0,
            probability: 1.0,
            times: Some(times),
        }],
        ..Faults::default()
    }
}

#[tokio::test]
async fn the_holder_of_the_line_is_the_author() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let message = send(&app, as_holder(new(&sid, "Hello"), "maya")).await;
    let message = ended(&app, &message).await;
    assert_eq!(
        (message.state, message.author.as_deref()),
        (State::Sent, Some("maya"))
    );
    let at_twilio = app.at_twilio(&sid).messages;
    assert_eq!(at_twilio.len(), 1);
    assert_eq!(at_twilio[0].author, "maya");
    assert_eq!(app.received(BUYER), [(LINE.to_owned(), "Hello".to_owned())]);
}

#[tokio::test]
async fn an_unstaffed_line_writes_as_its_number() {
    let (app, sid) = app_with_group(None).await;
    let message = send(&app, new(&sid, "We are closed on Sunday")).await;
    let message = ended(&app, &message).await;
    assert_eq!(
        (message.state, message.author.as_deref()),
        (State::Sent, Some(LINE))
    );
    assert_eq!(app.at_twilio(&sid).messages[0].author, LINE);
}

#[tokio::test]
async fn who_does_not_hold_the_line_is_refused_at_once() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let refused = app
        .app
        .api
        .outbox
        .send(as_holder(new(&sid, "Hello"), "jonas"))
        .await;
    assert!(matches!(refused, Err(SendError::NotTheHolder { holder }) if holder.as_deref() == Some("maya")));
    let elsewhere = NewOutboundMessage {
        line: Some("+15017122662".parse().unwrap()),
        ..new(&sid, "Hello")
    };
    assert!(matches!(
        app.app.api.outbox.send(elsewhere).await,
        Err(SendError::LineNotFound)
    ));
    assert_eq!(tables::count(&app, "outbound_message").await, 0);
}

#[tokio::test]
async fn a_message_waits_for_the_transfer_before_it_and_has_the_new_holder_as_its_author() {
    let (app, sid) = app_with_group(Some("maya")).await;
    app.start_transfer(&sid, Kind::Cold, "jonas").await;
    let open = send(&app, new(&sid, "for whoever holds it")).await;
    let personal = send(&app, as_holder(new(&sid, "from maya"), "maya")).await;
    let (open, personal) = (ended(&app, &open).await, ended(&app, &personal).await);
    assert_eq!((open.state, open.author.as_deref()), (State::Sent, Some("jonas")));
    assert_eq!(
        (personal.state, personal.outcome_code.as_deref()),
        (State::Failed, Some("not_the_holder"))
    );
    assert_eq!(bodies(&app, &sid), ["for whoever holds it"]);
}

#[tokio::test]
async fn a_line_that_was_given_away_at_twilio_meanwhile_is_not_written_from_in_the_old_name() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let line = app
        .at_twilio(&sid)
        .participants
        .into_iter()
        .find(|one| one.projected_address.is_some())
        .unwrap();
    let message = send(&app, as_holder(new(&sid, "from maya"), "maya")).await;
    let update = ParticipantUpdate {
        identity: Some("zoe".parse().unwrap()),
        ..Default::default()
    };
    let client = &app.app.accounts.get(ACCOUNT).unwrap().client;
    client.update_participant(&sid, &line.sid, &update).await.unwrap();
    app.sandbox.settled().await;
    app.app.projector.run_until_idle().await.unwrap();
    let message = ended(&app, &message).await;
    assert_eq!(message.outcome_code.as_deref(), Some("not_the_holder"));
    assert_eq!(bodies(&app, &sid), Vec::<String>::new());
}

async fn close(app: &TestApp, sid: &ConversationSid) {
    let close = ConversationUpdate {
        state: Some(ConversationState::Closed),
        ..Default::default()
    };
    let client = &app.app.accounts.get(ACCOUNT).unwrap().client;
    client.update_conversation(sid, &close).await.unwrap();
}

#[tokio::test]
async fn nothing_is_sent_to_a_closed_conversation_whether_we_know_of_it_or_not() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let deaf = Faults {
        webhooks: vec![WebhookFault {
            action: WebhookAction::Lose,
            events: Vec::new(),
            ms: 0,
            probability: 1.0,
            times: None,
        }],
        ..Faults::default()
    };
    let known = send(&app, new(&sid, "one")).await;
    app.sandbox.set_faults(deaf).unwrap();
    close(&app, &sid).await;
    let known = ended(&app, &known).await;
    assert_eq!(known.state, State::Failed);
    assert_eq!(known.outcome_code.as_deref(), Some("twilio_50377"));
    assert!(known.outcome_detail.unwrap().contains("closed"));

    let (app, sid) = app_with_group(Some("maya")).await;
    let waiting = send(&app, new(&sid, "one")).await;
    close(&app, &sid).await;
    app.sandbox.settled().await;
    app.app.projector.run_until_idle().await.unwrap();
    let refused = app.app.api.outbox.send(new(&sid, "two")).await;
    assert!(matches!(refused, Err(SendError::ConversationClosed)));
    let waiting = ended(&app, &waiting).await;
    assert_eq!(
        (waiting.state, waiting.outcome_code.as_deref()),
        (State::Failed, Some("line_gone"))
    );
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn messages_keep_their_order_though_the_first_has_to_be_tried_again() {
    let (app, sid) = app_with_group(Some("maya")).await;
    app.sandbox.set_faults(posting_messages(429, 3)).unwrap();
    let mut last = None;
    for body in ["one", "two", "three", "four"] {
        last = Some(send(&app, new(&sid, body)).await);
    }
    let last = ended(&app, &last.unwrap()).await;
    assert_eq!(last.state, State::Sent);
    assert_eq!(app.sandbox.faults().rest[0].times, Some(0));
    assert_eq!(bodies(&app, &sid), ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn while_twilio_throttles_a_message_waits_and_is_not_given_up() {
    let (app, sid) = app_with_group(Some("maya")).await;
    app.sandbox.set_faults(posting_messages(429, 6)).unwrap();
    let message = send(&app, new(&sid, "patience")).await;
    app.settle().await;
    let waiting = outbox::find(&mut *app.conn().await, message.outbound_message_id)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        waiting.state,
        State::Queued,
        "Twilio has said that it did nothing"
    );
    assert_eq!(ended(&app, &message).await.state, State::Sent);
    assert_eq!(bodies(&app, &sid), ["patience"]);
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_found_behind_any_number_of_others_and_not_sent_again() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let mut lost = posting_messages(500, 1);
    lost.rest[0].effect = Effect::After;
    app.sandbox.set_faults(lost).unwrap();
    let message = send(&app, new(&sid, "once")).await;
    app.app.worker.run_until_idle().await.unwrap();
    // A worker that comes back after a long time: the group has gone on.
    let client = &app.account().client;
    for number in 0..230 {
        app.clock.advance(SignedDuration::from_secs(20));
        let new = NewMessage {
            author: Some("maya".into()),
            body: Some(format!("and so on {number}").into()),
            media_sid: None,
            attributes: None,
        };
        client.create_message(&sid, &new).await.unwrap();
    }
    let message = ended(&app, &message).await;
    assert_eq!(message.state, State::Sent);
    let once = bodies(&app, &sid).into_iter().filter(|body| body == "once");
    assert_eq!(once.count(), 1);
}

#[tokio::test]
async fn a_person_is_erased_from_a_send_however_json_spells_them() {
    let (app, sid) = app_with_group(Some("maya")).await;
    let message = send(&app, new(&sid, "hello")).await;
    assert_eq!(ended(&app, &message).await.state, State::Sent);
    for detail in [
        r#"{"author":"zoë"}"#,
        r#"{"author":"zo\u00eb"}"#,
        r#""{\"author\":\"zo\\u00EB\"}""#,
    ] {
        let told = format!("update outbound_message set outcome_detail = '{detail}'");
        tables::execute(&app, &told).await;
        let zoe = Person::new(
            Subject::Identity("zoë".parse().unwrap()),
            "erased:someone".to_owned(),
        );
        let erased = outbox::erase::erase_person(&mut *app.conn().await, &sid, &zoe, app.clock.now())
            .await
            .unwrap();
        assert_eq!(erased, [message.outbound_message_id], "{detail}");
        let left = ended(&app, &message).await.outcome_detail;
        assert_eq!(left, None, "{detail}");
    }
}

#[tokio::test]
async fn why_a_message_waits_is_shown_and_told_once() {
    let (app, sid) = app_with_group(Some("maya")).await;
    app.sandbox.set_faults(posting_messages(503, 3)).unwrap();
    let message = send(&app, new(&sid, "hello")).await;
    app.app.worker.run_until_idle().await.unwrap();
    let waits = outbox::find(&mut *app.conn().await, message.outbound_message_id)
        .await
        .unwrap()
        .unwrap();
    let waiting = waits.waiting.unwrap();
    assert!(
        ["outcome_unknown", "unavailable"]
            .iter()
            .any(|class| waiting.error.starts_with(class)),
        "{waiting:?}"
    );
    let sent = ended(&app, &message).await;
    assert_eq!((sent.state, sent.waiting), (State::Sent, None));
    let told = tables::rows(
        &app,
        "select data ->> 'waiting_error' from (select data::jsonb, type from event) as event where type = 'send.waiting'",
    )
    .await;
    assert_eq!(told, [waiting.error]);
    assert_eq!(bodies(&app, &sid), ["hello"]);
}
