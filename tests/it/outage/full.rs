//! The database has no room: nothing is taken that cannot be kept, and nothing that was taken is given up.

use std::time::{Duration, Instant};

use super::{Service, all_kept, is_well};
use crate::support::database::database;
use crate::support::sql::{count, execute};
use crate::support::webhook::{Webhook, client};

/// As PostgreSQL fails when it cannot make a file longer.
const NO_ROOM: &str = "create function no_room() returns trigger language plpgsql as $$
    begin raise exception 'could not extend file: No space left on device' using errcode = 'disk_full'; end $$";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_database_takes_nothing_and_gives_nothing_up() {
    let database = database().await;
    let service = Service::start(database.options.clone()).await;
    let client = client();
    let patience = Duration::from_secs(15);
    is_well(&client, &service.url, Instant::now(), patience).await;
    let pool = sqlx::PgPool::connect_lazy_with(database.options.clone());
    let send = async |number: usize| {
        let request = Webhook::message(1, number).request_by(&client, &service.url);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(send(1).await, 200);

    execute(&pool, NO_ROOM).await;
    execute(
        &pool,
        "create trigger full_disk before insert on webhook for each statement execute function no_room()",
    )
    .await;
    let kept = count(&pool, "webhook").await;
    for number in 2..12 {
        assert_eq!(send(number).await, 503, "{number}");
    }
    assert_eq!(count(&pool, "webhook").await, kept, "nothing was acked, nor kept");
    execute(&pool, "drop trigger full_disk on webhook").await;
    // Twilio's own second try, or that of whoever stands before us.
    for number in 2..12 {
        assert_eq!(send(number).await, 200, "{number}");
    }

    // There is room for the webhook, and none for what it says: it waits, and is not set aside.
    execute(
        &pool,
        "create trigger full_disk before insert on message for each statement execute function no_room()",
    )
    .await;
    for number in 12..16 {
        assert_eq!(send(number).await, 200, "{number}");
    }
    let failing = "pg_stat_database where datname = current_database() and xact_rollback > 0";
    let deadline = Instant::now() + patience;
    while count(&pool, failing).await == 0 {
        assert!(Instant::now() < deadline, "projecting was never tried");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(count(&pool, "webhook_state where state = 'set_aside'").await, 0);
    assert!(count(&pool, "webhook_state where state = 'pending'").await >= 4);
    execute(&pool, "drop trigger full_disk on message").await;
    all_kept(&pool, &[]).await;
    assert_eq!(
        count(&pool, "message where message_index between 1 and 15").await,
        15
    );
    service.stop().await;
    pool.close().await;
}
