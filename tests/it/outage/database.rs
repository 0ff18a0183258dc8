//! The database freezes, is killed, refuses to write.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::sleep;

use super::load::{self, Load, all_are_answered_in_time, answered};
use super::{Database, SOON, Service, all_kept, is_well, signal_to, status};
use crate::support::sql::execute;

/// Long enough for every deadline of ours to pass.
const OUTAGE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_webhook_is_lost_while_the_database_freezes_dies_or_refuses_to_write() {
    let database = Database::start().await;
    let service = Service::start(database.server.connect_options()).await;
    is_well(&service.url, 0, Instant::now(), Duration::from_secs(5)).await;
    let load = Load::start(&service.url);
    sleep(Duration::from_millis(300)).await;

    let frozen = Instant::now();
    database.signal_all(Signal::STOP);
    sleep(OUTAGE).await;
    let client = load::client();
    assert_eq!(status(&client, &service.url, "/healthz").await, 200);
    let thawed = Instant::now();
    database.signal_all(Signal::CONT);
    is_well(&service.url, 1, thawed, SOON).await;
    sleep(Duration::from_millis(300)).await;

    signal_to(database.server.pid().unwrap(), Signal::KILL);
    let killed = Instant::now();
    while database.answers().await {
        sleep(Duration::from_millis(5)).await;
    }
    while !database.answers().await {
        assert!(
            killed.elapsed() < Duration::from_secs(20),
            "PostgreSQL comes back"
        );
        sleep(Duration::from_millis(5)).await;
    }
    is_well(&service.url, 2, Instant::now(), SOON).await;
    sleep(Duration::from_millis(300)).await;

    set_read_only(&database, "on").await;
    let refusing = Instant::now();
    sleep(Duration::from_secs(4)).await;
    let writable = Instant::now();
    set_read_only(&database, "off").await;
    is_well(&service.url, 3, Instant::now(), SOON).await;
    sleep(Duration::from_millis(300)).await;

    let sent = load.end().await;
    all_are_answered_in_time(&sent);
    let second = Duration::from_secs(1);
    // While it was frozen nothing was taken, and somebody was told so; likewise while it refused to write.
    assert_eq!(answered(&sent, 200, frozen + second / 4, thawed - 4 * second), 0);
    assert!(answered(&sent, 503, frozen, thawed) > 0);
    assert_eq!(
        answered(&sent, 200, refusing + second / 4, writable - 4 * second),
        0
    );
    assert!(answered(&sent, 503, refusing, writable) > 0);
    all_kept(&database.pool, &load::acked(&sent)).await;
    service.stop().await;
    database.server.stop().await.unwrap();
}

async fn set_read_only(database: &Database, value: &str) {
    execute(
        &database.pool,
        &format!("alter system set default_transaction_read_only = {value}"),
    )
    .await;
    execute(&database.pool, "select pg_reload_conf()").await;
}
