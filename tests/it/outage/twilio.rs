//! Twilio hangs: what does not need it goes on in time.

use std::sync::Arc;
use std::time::Duration;

use hookswitch::app::App;
use hookswitch::db::Notices;
use hookswitch::mirror;
use hookswitch::outbox::NewOutboundMessage;
use hookswitch::queue::Concurrency;
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::transfer::{Kind, State};
use jiff::SignedDuration;
use tokio_util::sync::CancellationToken;

use crate::support::app::{ACCOUNT, TestApp, Wanted, sid_of};
use crate::support::tables;

/// Calls to Twilio are answered after a minute, and there is one place in each lane: a message and a read take both.
#[tokio::test]
async fn offers_expire_in_time_and_handovers_are_decided_while_all_calls_hang() {
    let app = TestApp::start_with(Wanted {
        call_timeout: Duration::from_mins(2),
        ..Wanted::default()
    })
    .await;
    let offered = sid_of(&app.group(Some("maya")).await);
    let other = sid_of(&app.group_of(&["+15555550103", "+15555550104"]).await);
    let hang = RestFault {
        method: None,
        path: None,
        status: None,
        effect: Effect::Before,
        hold_ms: 60_000,
        probability: 1.0,
        times: None,
    };
    app.sandbox
        .set_faults(Faults {
            rest: vec![hang],
            ..Faults::default()
        })
        .unwrap();
    let mut config = app.config.clone();
    config.queue.concurrency = Concurrency {
        foreground: 1,
        background: 1,
        local: 1,
    };
    let process = App::new(config, app.database.options.clone(), app.clock.clone()).unwrap();
    let (notices, cancel) = (Notices::default(), CancellationToken::new());
    let listening = tokio::spawn(notices.clone().listen(app.pool().clone(), cancel.clone()));
    let (worker, wake) = (process.worker.clone(), Arc::clone(&notices.tasks));
    let running = tokio::spawn(async move { worker.run(wake, CancellationToken::new()).await });

    let now = app.clock.now();
    let account = ACCOUNT.parse().unwrap();
    mirror::put_read(&mut *app.conn().await, &account, &other, None, now, now)
        .await
        .unwrap();
    let message = NewOutboundMessage {
        conversation_sid: other.clone(),
        line: None,
        as_holder: None,
        body: "The inspection went well".to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    };
    app.app.api.outbox.send(message).await.unwrap();
    let both_hang =
        "select count(*)::text from task where state = 'running' and kind in ('mirror.read', 'outbox.send')";
    until(&app, both_hang, "2").await;

    let transfer = app.start_transfer(&offered, Kind::Warm, "jonas").await;
    app.advance(SignedDuration::from_mins(15));
    let expired = "select count(*)::text from transfer where state = 'expired'";
    until(&app, expired, "1").await;
    assert_eq!(app.transfer(transfer.transfer_id).await.state, State::Expired);
    assert_eq!(
        tables::rows(&app, both_hang).await,
        ["2"],
        "nothing waited for Twilio"
    );
    running.abort();
    cancel.cancel();
    listening.await.unwrap();
}

async fn until(app: &TestApp, sql: &str, value: &str) {
    let looking = async {
        while tables::rows(app, sql).await != [value] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking)
        .await
        .unwrap_or_else(|_| panic!("not {value} within 20 s: {sql}"));
}
