//! The database freezes, is killed, refuses to write.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tokio::time::sleep;

use super::load::{self, Load, acked_of, all_are_answered_in_time, refused_within};
use super::{Database, Service, all_kept, alone, is_well, signal_to, soon, status};
use crate::support::sql::execute;
use crate::support::webhook::client;

/// Long enough for every deadline of ours to pass.
const OUTAGE: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_webhook_is_lost_while_the_database_freezes_dies_or_refuses_to_write() {
    let _turn = alone().await;
    let client = client();
    let database = Database::start().await;
    let service = Service::start(database.server.connect_options()).await;
    is_well(&client, &service.url, Instant::now(), Duration::from_secs(5)).await;
    let mut load = Load::start(&service.url);
    load.has_acked(50).await;

    let limit = soon(&client, &service.url).await;
    database.signal_all(Signal::STOP);
    let frozen = Instant::now();
    sleep(OUTAGE).await;
    assert_eq!(status(client.get(format!("{}/healthz", service.url))).await, 200);
    let thawed = Instant::now();
    database.signal_all(Signal::CONT);
    is_well(&client, &service.url, thawed, limit).await;
    load.has_acked(100).await;

    let limit = soon(&client, &service.url).await;
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
    is_well(&client, &service.url, Instant::now(), limit).await;
    load.has_acked(150).await;

    let limit = soon(&client, &service.url).await;
    set_read_only(&database, "on").await;
    let refusing = Instant::now();
    sleep(OUTAGE).await;
    let writable = Instant::now();
    set_read_only(&database, "off").await;
    is_well(&client, &service.url, Instant::now(), limit).await;
    load.has_acked(200).await;

    let sent = load.end().await;
    all_are_answered_in_time(&sent);
    // While it was frozen nothing was taken, and somebody was told so; likewise while it refused to write, from when
    // its sessions have read the setting.
    let (soon, later) = (Duration::from_millis(500), Duration::from_secs(1));
    assert_eq!(acked_of(&sent, frozen..frozen + later), 0);
    assert!(refused_within(&sent, frozen..thawed) > 0);
    assert_eq!(acked_of(&sent, refusing + soon..refusing + later), 0);
    assert!(refused_within(&sent, refusing..writable) > 0);
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
