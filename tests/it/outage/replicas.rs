//! Two processes on one database, which get the same webhooks, and of which one or the other is killed again and again.

use std::time::{Duration, Instant};

use super::load::{self, Load, all_are_answered_in_time};
use super::process::{Process, free_url};
use super::{Database, Service, all_kept, alone, is_well};
use crate::support::database::database;
use crate::support::sql::count;
use crate::support::webhook::client;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_replicas_that_get_the_same_webhooks_keep_each_once() {
    let database = database().await;
    let client = client();
    let (one, other) = (
        Service::start(database.options.clone()).await,
        Service::start(database.options.clone()).await,
    );
    let patience = Duration::from_secs(15);
    for service in [&one, &other] {
        is_well(&client, &service.url, Instant::now(), patience).await;
    }
    // Both count from one: each webhook comes to both, at about the same time.
    let (mut to_one, mut to_other) = (Load::start(&one.url), Load::start(&other.url));
    tokio::join!(to_one.has_acked(200), to_other.has_acked(200));
    let (mut sent, of_other) = tokio::join!(to_one.end(), to_other.end());
    let distinct = sent.len().max(of_other.len());
    sent.extend(of_other);
    all_are_answered_in_time(&sent);
    let pool = sqlx::PgPool::connect_lazy_with(database.options.clone());
    all_kept(&pool, &load::acked(&sent)).await;
    let probes = "message where conversation_sid = (select max(conversation_sid) from conversation)";
    let messages = count(&pool, "message").await - count(&pool, probes).await;
    assert_eq!(messages, distinct, "one for both that came");
    tokio::join!(one.stop(), other.stop());
    pool.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_killed_again_and_again_under_load_lose_nothing() {
    let _turn = alone().await;
    let client = client();
    let database = Database::start().await;
    let urls = [free_url(), free_url()];
    let patience = Duration::from_secs(15);
    let mut processes: Vec<Process> = urls.iter().map(|url| Process::start(&database, url)).collect();
    for url in &urls {
        is_well(&client, url, Instant::now(), patience).await;
    }
    let mut loads: Vec<Load> = urls.iter().map(|url| Load::start(url)).collect();
    for round in 0..4 {
        let (killed, left) = (round % 2, 1 - round % 2);
        let before = loads[left].acked();
        let so_far = loads[killed].acked();
        loads[killed].has_acked(so_far + 30).await;
        // With SIGKILL, wherever it is in receiving and projecting.
        processes[killed].kill();
        processes[killed] = Process::start(&database, &urls[killed]);
        loads[left].has_acked(before + 30).await;
        is_well(&client, &urls[killed], Instant::now(), patience).await;
    }
    let mut sent = Vec::new();
    for load in loads {
        sent.extend(load.end().await);
    }
    assert!(sent.iter().any(|sent| sent.status == 0), "some died with it");
    all_kept(&database.pool, &load::acked(&sent)).await;
    drop(processes);
    database.server.stop().await.unwrap();
}
