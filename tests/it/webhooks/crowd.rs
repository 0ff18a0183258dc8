//! Webhooks that come in a crowd are projected as they are stored, and it comes to the same.

use futures_util::future::join_all;
use hookswitch::ids::AccountSid;
use hookswitch::inbox::writer::{Writer, Writing};
use hookswitch::inbox::{Format, NewWebhook, Stored};
use hookswitch::twilio::form::Form;
use hookswitch::twilio::webhook::dedupe_key;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::app::{ACCOUNT, TestApp};
use crate::support::sql::{count, values};
use crate::support::tables;
use crate::support::webhook::{Webhook, sid};

const CONVERSATIONS: usize = 40;

/// A writer that projects, unlike that of a [`TestApp`].
fn writer(app: &TestApp) -> (Writer, DropGuard) {
    let cancel = CancellationToken::new();
    let writing = Writing {
        pool: app.pool().clone(),
        notices: app.app.notices.clone(),
        projector: Some(app.app.projector.clone()),
    };
    let (writer, _) = writing.start(&cancel);
    (writer, cancel.drop_guard())
}

fn verified(app: &TestApp, webhook: &Webhook) -> NewWebhook {
    let bytes = webhook.encoded().into_bytes();
    let form = Form::parse(&bytes).unwrap();
    NewWebhook {
        received_at: app.clock.now(),
        account_sid: AccountSid::try_from(ACCOUNT).unwrap(),
        conversation_sid: form.get("ConversationSid").map(str::to_owned),
        event_type: form.get("EventType").unwrap().to_owned(),
        dedupe_key: dedupe_key(&form).id,
        method: "POST",
        format: Format::Form,
        form: bytes,
        idempotency_token: None,
        token_index: 0,
        url_candidate: "1".to_owned(),
    }
}

/// All are handed in before the writer has its first turn, so that they make large batches.
async fn come_at_once(app: &TestApp, writer: &Writer, webhooks: &[Webhook]) -> Vec<Stored> {
    let stores = webhooks
        .iter()
        .map(|webhook| writer.store(verified(app, webhook)));
    join_all(stores).await.into_iter().map(Result::unwrap).collect()
}

fn crowd(round: usize) -> Vec<Webhook> {
    let of = |conversation| {
        let sid_of = sid("CH", conversation);
        let message = Webhook::message(conversation, round * 10);
        let seat = Webhook::new(
            "onParticipantAdded",
            &[
                ("ConversationSid", &sid_of),
                ("ParticipantSid", &sid("MB", conversation * 10 + round)),
                ("Identity", &format!("agent-{round}")),
                ("MessagingBinding.ProjectedAddress", "+15555550100"),
                ("DateCreated", &format!("2026-01-02T03:04:{:02}.5Z", 10 + round)),
            ],
        );
        let added = Webhook::new(
            "onConversationAdded",
            &[
                ("ConversationSid", &sid_of),
                ("State", "active"),
                ("Attributes", "{}"),
                ("DateCreated", "2026-01-02T03:04:05.001Z"),
            ],
        );
        // A child before its parent, and one thing twice.
        [
            message.clone(),
            seat,
            added,
            message,
            Webhook::message(conversation, round * 10 + 1),
        ]
    };
    (1..=CONVERSATIONS).flat_map(of).collect()
}

async fn pending(app: &TestApp) -> usize {
    count(app.pool(), "webhook_state where state = 'pending'").await
}

#[tokio::test]
async fn a_crowd_is_mirrored_when_it_is_acked_and_as_a_projector_would() {
    let app = TestApp::start().await;
    let (writer, _running) = writer(&app);
    let webhooks = crowd(1);
    let stored = come_at_once(&app, &writer, &webhooks).await;
    assert_eq!(
        stored.iter().filter(|one| **one == Stored::New).count(),
        CONVERSATIONS * 4
    );
    assert_eq!(pending(&app).await, 0, "nothing is left to a projector");
    assert_eq!(count(app.pool(), "message").await, CONVERSATIONS * 2);
    assert_eq!(
        count(app.pool(), "tenure where holder = 'agent-1'").await,
        CONVERSATIONS
    );

    let again = come_at_once(&app, &writer, &webhooks).await;
    assert!(again.iter().all(|one| *one == Stored::Duplicate));

    let mirrored = tables::mirror_and_ledger(&app).await;
    let mut log = tables::log(&app).await;
    tables::unproject(&app).await;
    assert_eq!(
        app.app.projector.run_until_idle().await.unwrap(),
        CONVERSATIONS * 4
    );
    assert_eq!(tables::mirror_and_ledger(&app).await, mirrored);
    // Lanes have no order among them.
    let mut log_of_projector = tables::log(&app).await;
    log.sort_unstable();
    log_of_projector.sort_unstable();
    assert_eq!(log_of_projector, log);
}

#[tokio::test]
async fn a_crowd_takes_along_what_waited_before_it() {
    let app = TestApp::start().await;
    let early: Vec<Webhook> = (1..=CONVERSATIONS).map(|one| Webhook::message(one, 7)).collect();
    for webhook in &early {
        assert_eq!(webhook.send(&app.url).await.status, 200);
    }
    assert_eq!(pending(&app).await, CONVERSATIONS);
    let (writer, _running) = writer(&app);
    come_at_once(&app, &writer, &crowd(1)).await;
    assert_eq!(pending(&app).await, 0);
    assert_eq!(count(app.pool(), "message").await, CONVERSATIONS * 3);
}

#[tokio::test]
async fn a_crowd_is_acked_while_somebody_works_on_its_lanes() {
    let app = TestApp::start().await;
    let mut other = app.pool().begin().await.unwrap();
    sqlx::raw_sql("select from projection_lane for update")
        .execute(&mut *other)
        .await
        .unwrap();
    let (writer, _running) = writer(&app);
    let stored = come_at_once(&app, &writer, &crowd(1)).await;
    assert_eq!(
        stored.iter().filter(|one| **one == Stored::New).count(),
        CONVERSATIONS * 4
    );
    assert_eq!(pending(&app).await, CONVERSATIONS * 4);
    other.rollback().await.unwrap();
    app.app.projector.run_until_idle().await.unwrap();
    assert_eq!(count(app.pool(), "message").await, CONVERSATIONS * 2);
}

#[tokio::test]
async fn a_crowd_with_one_that_the_database_refuses_is_acked_and_the_others_are_mirrored() {
    let app = TestApp::start().await;
    let poison = sid("IM", 3 * 100_000 + 10);
    tables::execute(
        &app,
        &format!("alter table message add constraint poison check (message_sid <> '{poison}')"),
    )
    .await;
    let (writer, _running) = writer(&app);
    let stored = come_at_once(&app, &writer, &crowd(1)).await;
    assert_eq!(
        stored.iter().filter(|one| **one == Stored::New).count(),
        CONVERSATIONS * 4
    );
    app.app.projector.run_until_idle().await.unwrap();
    assert_eq!(count(app.pool(), "message").await, CONVERSATIONS * 2 - 1);
    let set_aside = values(
        app.pool(),
        "select reason from webhook_state where state = 'set_aside'",
    )
    .await;
    assert_eq!(
        set_aside,
        ["the database refused it: SQLSTATE 23514, constraint poison"]
    );
}
