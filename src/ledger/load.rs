//! How many lines people hold.

use std::collections::HashMap;

use sqlx::PgConnection;

/// Lines that each of these identities holds now, in conversations that go on. Who holds none is not in it.
pub async fn loads(
    conn: &mut PgConnection,
    identities: &[&str],
) -> Result<HashMap<String, u32>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- ledger.loads
        select holder as "holder!", count(*) as "lines!" from tenure
        where holder = any($1) and superseded_at is null and upper_inf(during) and cause <> 'removed'
        group by holder"#,
        identities as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.holder, u32::try_from(row.lines).unwrap_or(u32::MAX)))
        .collect())
}
