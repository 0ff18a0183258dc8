//! Looks into a database, and changes to it, that only tests make.

use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool, Row as _};

/// The one value of a query of one row, as text; `None` for null or no row.
pub(crate) async fn value(pool: &PgPool, sql: &str) -> Option<String> {
    let row = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_optional(pool)
        .await
        .unwrap()?;
    row.get(0)
}

/// The values of a query's first column, as text.
pub(crate) async fn values(pool: &PgPool, sql: &str) -> Vec<String> {
    let rows = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .fetch_all(pool)
        .await
        .unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// How many rows `from` (a table, with conditions) has.
pub(crate) async fn count(pool: &PgPool, from: &str) -> usize {
    let sql = format!("select count(*)::text from {from}");
    value(pool, &sql).await.unwrap().parse().unwrap()
}

/// Waits until every entry of the log that was committed can be read: transactions of other tests hold it back too, since
/// the server numbers those of all databases together.
pub(crate) async fn log_is_readable(pool: &PgPool) {
    while count(pool, "event where commit_xid >= log_horizon()").await > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) async fn execute(pool: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(pool)
        .await
        .unwrap();
}

/// Every webhook waits, was set aside, or was projected in one batch: one of these, and once.
pub(crate) async fn assert_webhooks_are_in_one_place(pool: &PgPool) {
    let sql = "select coalesce(webhook_id, placed.id)::text || ' ' || coalesce(places, '')
        from webhook
        full join (
            select id, string_agg(place, ' ') as places, count(*) as found from (
                select webhook_id as id, 'pending' as place from webhook_pending
                union all select webhook_id, 'set_aside' from webhook_set_aside
                union all select unnest(webhook_ids), 'projected' from projected_batch) as one
            group by id) as placed on placed.id = webhook_id
        where webhook_id is null or found is distinct from 1";
    assert_eq!(values(pool, sql).await, Vec::<String>::new());
}
