//! A transaction that is given up while it begins: the next user of its connection must not write into it.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Waker};
use std::time::Duration;

use hookswitch::db;
use sqlx::{AssertSqlSafe, PgPool, Row as _};

use crate::support::database::{TestDatabase, database};

/// `begin` waits for the connection, and then for the answer to `BEGIN`; a few more for good measure.
const WAITS: i16 = 8;

/// Gives `begin` up after so many waits, then writes through the pool. Answers whether others see what was written.
async fn is_committed_after_giving_up<T>(
    database: &TestDatabase,
    pool: &PgPool,
    begin: impl Future<Output = T>,
    waits: i16,
) -> bool {
    {
        let mut begin = pin!(begin);
        for _ in 0..waits {
            if begin
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
                .is_ready()
            {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let lane = 100 + waits;
    let insert = format!("insert into projection_lane (lane) values ({lane})");
    sqlx::raw_sql(AssertSqlSafe(insert)).execute(pool).await.unwrap();
    let seen = format!("select exists (select from projection_lane where lane = {lane})");
    sqlx::raw_sql(AssertSqlSafe(seen))
        .fetch_one(&database.pool(1).await)
        .await
        .unwrap()
        .get(0)
}

#[tokio::test]
async fn what_is_written_after_a_begin_that_was_given_up_is_committed() {
    let database = database().await;
    for waits in 0..WAITS {
        let pool = db::pool_with(database.options.clone(), 1);
        drop(pool.acquire().await.unwrap());
        assert!(
            is_committed_after_giving_up(&database, &pool, pool.begin(), waits).await,
            "given up after {waits} waits"
        );
    }
}
