//! What the mirror holds, erased by its age: it stays erased, and nobody takes that for a difference.

use std::time::Duration;

use hookswitch::audit::verify;
use hookswitch::config;
use hookswitch::events::Via;
use hookswitch::ids::ConversationSid;
use hookswitch::outbox::NewOutboundMessage;
use hookswitch::retention::{self, Class, Erased, Retention};
use hookswitch::sweep::Found;
use hookswitch::transfer::{Kind, NewTransfer};
use hookswitch::twilio::requests::{ConversationUpdate, MessageUpdate};
use jiff::SignedDuration;

use crate::audit::seal_everything;
use crate::support::app::{BUYER, LINE, PARTNER, TestApp, sid_of};
use crate::support::sql;

const DAY: Duration = Duration::from_hours(24);
const WORDS: &str = "Is it still there?";

fn rules(app: &TestApp, settings: config::Retention) -> Retention {
    Retention {
        pool: app.pool().clone(),
        clock: app.clock.clone(),
        settings,
    }
}

fn keep_all() -> config::Retention {
    config::Retention {
        every: Duration::ZERO,
        webhooks: None,
        message_bodies: None,
        attributes: None,
        versions: None,
        quarantine: None,
        log: None,
    }
}

/// A group in which the buyer wrote, and edited it once.
async fn written(app: &TestApp) -> ConversationSid {
    let sid = sid_of(&app.group(Some("maya")).await);
    app.text(BUYER, &[LINE, PARTNER], "Is it thre?").await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    edit(app, &sid, WORDS).await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    sid
}

async fn edit(app: &TestApp, sid: &ConversationSid, body: &str) {
    let message = app.at_twilio(sid).messages[0].sid.clone();
    let update = MessageUpdate {
        body: Some(body.into()),
        attributes: Some(r#"{"mood":"glad"}"#.into()),
        ..MessageUpdate::default()
    };
    app.account()
        .client
        .update_message(sid, &message, &update)
        .await
        .unwrap();
}

async fn said(app: &TestApp) -> Vec<String> {
    sql::values(
        app.pool(),
        "select concat_ws('|', body, media, attributes) from message
        union all select concat_ws('|', body, media, attributes) from message_version where aspect = 'content'",
    )
    .await
    .into_iter()
    .filter(|said| !said.is_empty())
    .collect()
}

#[tokio::test]
async fn words_are_erased_by_their_age_with_all_their_versions_and_stay_provable() {
    let app = TestApp::start().await;
    written(&app).await;
    seal_everything(&app.app.sealer).await;
    app.advance(SignedDuration::from_hours(25));
    app.text(BUYER, &[LINE, PARTNER], "Hello?").await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    let rules = rules(
        &app,
        config::Retention {
            webhooks: Some(DAY),
            message_bodies: Some(DAY),
            attributes: Some(DAY),
            ..keep_all()
        },
    );
    let due = Some(Erased { erased: 1, held: 0 });
    assert_eq!(rules.run_all(Class::MessageBodies, true).await.unwrap(), due);
    assert_eq!(rules.run_all(Class::MessageBodies, false).await.unwrap(), due);
    let again = rules.run_all(Class::MessageBodies, false).await.unwrap();
    assert_eq!(again, Some(Erased::default()));
    assert_eq!(rules.run_all(Class::Attributes, false).await.unwrap(), due);
    assert_eq!(said(&app).await, ["Hello?|{}"], "what came later is whole");

    // Whoever has the words can show that they were these, and that others were not.
    let proven = |words: &str| {
        format!(
            "message where erased -> 'body' ->> 'digest'
             = encode(sha256(uuid_send((erased -> 'body' ->> 'salt')::uuid) || convert_to('{words}', 'UTF8')), 'hex')"
        )
    };
    assert_eq!(sql::count(app.pool(), &proven(WORDS)).await, 1);
    assert_eq!(sql::count(app.pool(), &proven("Hello?")).await, 0);
    let forms = "webhook where erased -> 'form' ->> 'digest'
        = encode(sha256(uuid_send((erased -> 'form' ->> 'salt')::uuid) || ''), 'hex')";
    rules.run_all(Class::Webhooks, false).await.unwrap();
    assert!(sql::count(app.pool(), "webhook where erased -> 'form' ? 'digest'").await > 5);
    assert_eq!(sql::count(app.pool(), forms).await, 0);

    let told = sql::values(
        app.pool(),
        "select subject || ' ' || (data::jsonb ->> 'place') || ' ' || jsonb_array_length(data::jsonb -> 'conversations')
        from event where type = 'retention.erased' and subject <> 'webhooks' order by event_id",
    )
    .await;
    assert_eq!(
        told,
        [
            "message_bodies messages.body 1",
            "attributes messages.attributes 1"
        ]
    );
    seal_everything(&app.app.sealer).await;
    verify(app.pool(), None, 1).await.unwrap().unwrap();
    let marked = "audit.messages where body is null and erased_at is not null";
    assert_eq!(sql::count(&app.database.pool(1).await, marked).await, 1);
    let then = "conversation c, message_as_of(c.conversation_sid, now() + interval '100 years', now() + interval '100 years')
        as m where m.erased_at is not null and m.body is null and m.author is not null";
    assert_eq!(sql::count(app.pool(), then).await, 1);
}

#[tokio::test]
async fn what_is_erased_is_not_read_back_by_sweeps_or_late_webhooks() {
    let app = TestApp::start().await;
    let sid = written(&app).await;
    app.advance(SignedDuration::from_hours(25));
    let rules = rules(
        &app,
        config::Retention {
            webhooks: Some(DAY),
            message_bodies: Some(DAY),
            attributes: Some(DAY),
            ..keep_all()
        },
    );
    rules.run_all(Class::MessageBodies, false).await.unwrap();
    rules.run_all(Class::Attributes, false).await.unwrap();
    assert_eq!(said(&app).await, [""; 0]);

    let run = app
        .app
        .sweeper
        .sweep(app.account(), true, &mut |_| {})
        .await
        .unwrap();
    assert_eq!(run.found, Found::default(), "it is no difference");
    assert_eq!((run.failed, run.unsettled), (0, 0));
    assert_eq!(said(&app).await, [""; 0]);

    // An edit of what is erased stays away, and so does the form that tells of it.
    edit(&app, &sid, "It is!").await;
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(said(&app).await, [""; 0]);
    let forms = "webhook where position('It+is' in encode(form, 'escape')) > 0
        or position('It%20is' in encode(form, 'escape')) > 0";
    assert_eq!(sql::count(app.pool(), forms).await, 0);
    let newest =
        "webhook where event_type = 'onMessageUpdated' and form = '' and erased -> 'form' ? 'digest'";
    assert!(sql::count(app.pool(), newest).await >= 1);
    let run = app
        .app
        .sweeper
        .sweep(app.account(), true, &mut |_| {})
        .await
        .unwrap();
    assert_eq!(run.found, Found::default());
}

#[tokio::test]
async fn old_versions_go_and_what_is_said_now_stays() {
    let app = TestApp::start().await;
    written(&app).await;
    app.advance(SignedDuration::from_hours(25));
    let rules = rules(
        &app,
        config::Retention {
            versions: Some(DAY),
            ..keep_all()
        },
    );
    assert!(sql::count(app.pool(), "message_version where body is not null").await > 0);
    let counted = rules.run_all(Class::Versions, true).await.unwrap();
    let erased = rules.run_all(Class::Versions, false).await.unwrap();
    assert_eq!(counted, erased);
    assert!(erased.unwrap().erased >= 1);
    assert_eq!(said(&app).await.len(), 1);
    assert_eq!(
        sql::count(app.pool(), &format!("message where body = '{WORDS}'")).await,
        1
    );
    // The digest that told one statement from another is of what is left.
    let told = "message_version where aspect = 'content' and digest <> substr(sha256(convert_to(
        row(message_index, author, participant_sid, body, media, attributes)::text, 'UTF8')), 1, 16)";
    assert_eq!(sql::count(app.pool(), told).await, 0);
}

#[tokio::test]
async fn legal_hold_keeps_words_and_attributes_and_its_end_lets_them_go() {
    let app = TestApp::start().await;
    let sid = written(&app).await;
    app.advance(SignedDuration::from_hours(25));
    let mut conn = app.conn().await;
    let now = app.clock.now();
    retention::hold(&mut conn, &sid, "case 17", "legal", Via::Cli, now)
        .await
        .unwrap();
    let rules = rules(
        &app,
        config::Retention {
            webhooks: Some(DAY),
            message_bodies: Some(DAY),
            attributes: Some(DAY),
            versions: Some(DAY),
            ..keep_all()
        },
    );
    let before = said(&app).await;
    for class in [Class::MessageBodies, Class::Attributes, Class::Versions] {
        let done = rules.run_all(class, false).await.unwrap().unwrap();
        assert_eq!(done.erased, 0, "{class:?}");
        assert!(done.held > 0, "{class:?}");
    }
    assert_eq!(said(&app).await, before);
    retention::release(&mut conn, &sid, "legal", Via::Cli, now)
        .await
        .unwrap();
    for class in [Class::MessageBodies, Class::Attributes] {
        assert!(rules.run_all(class, false).await.unwrap().unwrap().erased > 0);
    }
    assert_eq!(said(&app).await, [""; 0]);
}

#[tokio::test]
async fn what_did_not_verify_leaves_the_quarantine() {
    let app = TestApp::start().await;
    for hours in [30, 1] {
        let received = app.clock.now() - SignedDuration::from_hours(hours);
        let row = format!(
            "insert into quarantined_webhook (received_at, account_sid, method, form, refusal)
            values ('{received}', 'AC00000000000000000000000000000001', 'POST', 'Body=Hi', 'wrong')"
        );
        sql::execute(app.pool(), &row).await;
    }
    let rules = rules(
        &app,
        config::Retention {
            quarantine: Some(DAY),
            ..keep_all()
        },
    );
    let due = Some(Erased { erased: 1, held: 0 });
    assert_eq!(rules.run_all(Class::Quarantine, true).await.unwrap(), due);
    assert_eq!(rules.run_all(Class::Quarantine, false).await.unwrap(), due);
    assert_eq!(sql::count(app.pool(), "quarantined_webhook").await, 1);
    let again = rules.run_all(Class::Quarantine, false).await.unwrap();
    assert_eq!(again, Some(Erased::default()));
}

#[tokio::test]
async fn sends_lose_their_words_once_nothing_comes_of_them() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let send = NewOutboundMessage {
        conversation_sid: sid,
        line: None,
        as_holder: None,
        body: WORDS.to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    };
    let queued = app.app.api.outbox.send(send).await.unwrap();
    let rules = rules(
        &app,
        config::Retention {
            webhooks: Some(DAY),
            message_bodies: Some(DAY),
            ..keep_all()
        },
    );
    app.clock.advance(SignedDuration::from_hours(25));
    rules.run_all(Class::MessageBodies, false).await.unwrap();
    let with_words = format!("outbound_message where body = '{WORDS}'");
    assert_eq!(
        sql::count(app.pool(), &with_words).await,
        1,
        "it is still to be sent"
    );
    app.settle_for(SignedDuration::from_secs(5)).await;
    rules.run_all(Class::MessageBodies, false).await.unwrap();
    assert_eq!(sql::count(app.pool(), &with_words).await, 0);
    let shown = hookswitch::outbox::find(&mut *app.conn().await, queued.outbound_message_id)
        .await
        .unwrap()
        .unwrap();
    assert!(shown.body.is_empty() && shown.erased_at.is_some());
}

#[tokio::test]
async fn attributes_of_what_lives_stay_until_it_is_over() {
    let app = TestApp::start().await;
    let sid = written(&app).await;
    let update = ConversationUpdate {
        attributes: Some(r#"{"deal":17}"#.into()),
        ..ConversationUpdate::default()
    };
    let client = &app.account().client;
    client.update_conversation(&sid, &update).await.unwrap();
    app.settle().await;
    app.advance(SignedDuration::from_hours(25));
    let rules = rules(
        &app,
        config::Retention {
            webhooks: Some(DAY),
            attributes: Some(DAY),
            ..keep_all()
        },
    );
    rules.run_all(Class::Attributes, false).await.unwrap();
    let deal = "conversation where attributes like '%deal%'";
    assert_eq!(sql::count(app.pool(), deal).await, 1);
    let close = ConversationUpdate {
        state: Some(hookswitch::twilio::model::ConversationState::Closed),
        ..ConversationUpdate::default()
    };
    client.update_conversation(&sid, &close).await.unwrap();
    app.settle().await;
    app.advance(SignedDuration::from_hours(25));
    let done = rules.run_all(Class::Attributes, false).await.unwrap().unwrap();
    assert!(done.erased >= 4, "{done:?}");
    assert_eq!(sql::count(app.pool(), deal).await, 0);
    let members = "participant where attributes is not null";
    assert_eq!(sql::count(app.pool(), members).await, 0);
    let run = app
        .app
        .sweeper
        .sweep(app.account(), true, &mut |_| {})
        .await
        .unwrap();
    assert_eq!(run.found, Found::default());
}

#[tokio::test]
async fn what_people_wrote_of_transfers_goes_with_the_words_of_messages() {
    let app = TestApp::start().await;
    let sid = sid_of(&app.group(Some("maya")).await);
    let offer = |to: &str| NewTransfer {
        reason: Some("on leave".to_owned()),
        note: Some("Likes to be called in the morning.".to_owned()),
        introduction: Some("I take care of you from now on.".to_owned()),
        ..TestApp::new_transfer(&sid, Kind::Warm, to)
    };
    let ended = app.app.api.transfers.start(offer("noor")).await.unwrap();
    app.app
        .api
        .transfers
        .decline(ended.transfer_id, "noor")
        .await
        .unwrap();
    app.advance(SignedDuration::from_hours(25));
    let open = app.app.api.transfers.start(offer("lena")).await.unwrap();
    let rules = rules(
        &app,
        config::Retention {
            message_bodies: Some(DAY),
            ..keep_all()
        },
    );
    let of_group = "conversation_sid = any(select conversation_sid from legal_hold)";
    let now = app.clock.now();
    retention::hold(&mut *app.conn().await, &sid, "case 17", "legal", Via::Cli, now)
        .await
        .unwrap();
    let held = rules.run_all(Class::MessageBodies, false).await.unwrap();
    assert_eq!(held, Some(Erased { erased: 0, held: 1 }));
    let worded = format!("transfer where {of_group} and num_nonnulls(reason, note, introduction) = 3");
    assert_eq!(sql::count(app.pool(), &worded).await, 2);
    retention::release(&mut *app.conn().await, &sid, "legal", Via::Cli, now)
        .await
        .unwrap();
    let due = Some(Erased { erased: 1, held: 0 });
    assert_eq!(rules.run_all(Class::MessageBodies, true).await.unwrap(), due);
    assert_eq!(rules.run_all(Class::MessageBodies, false).await.unwrap(), due);
    let words = async |id| {
        let transfer = app.transfer(id).await;
        [transfer.reason, transfer.note, transfer.introduction].map(|words| words.is_some())
    };
    assert_eq!(words(ended.transfer_id).await, [false; 3]);
    assert_eq!(words(open.transfer_id).await, [true; 3], "it is not over");
    let again = rules.run_all(Class::MessageBodies, false).await.unwrap();
    assert_eq!(again, Some(Erased::default()));
}
