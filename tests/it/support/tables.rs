//! The tables as a test compares them: rows as JSON, without what differs from one run to the next.

use sqlx::{AssertSqlSafe, Connection as _, PgConnection, Row as _};

use super::app::TestApp;

/// The first column of a query, as text.
pub(crate) async fn rows(app: &TestApp, sql: &str) -> Vec<String> {
    let sql = AssertSqlSafe(sql.to_owned());
    let rows = sqlx::raw_sql(sql).fetch_all(app.pool()).await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

/// The one number that a query gives.
pub(crate) async fn count(app: &TestApp, from_where: &str) -> i64 {
    let rows = rows(app, &format!("select (count(*))::text from {from_where}")).await;
    rows[0].parse().unwrap()
}

pub(crate) async fn execute(app: &TestApp, sql: &str) {
    // As the owner of the tables, who may also take the log away.
    let mut owner = PgConnection::connect_with(&app.database.options).await.unwrap();
    let sql = format!("set hookswitch.change_log = 'yes'; {sql}");
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut owner)
        .await
        .unwrap();
    owner.close().await.unwrap();
}

/// All that is Twilio's in the mirror, and the ledger as believed now.
pub(crate) async fn mirror_and_ledger(app: &TestApp) -> Vec<String> {
    let ours =
        "array['revision', 'unverified_since', 'first_seen_at', 'verified_at', 'learnt_at', 'stated_at',
        'state_learnt_at', 'state_stated_at', 'removal_learnt_at']";
    let mut all = Vec::new();
    for table in [
        "conversation",
        "participant",
        "message",
        "delivery_receipt",
        "chat_user",
    ] {
        let sql =
            format!("select '{table} ' || (to_jsonb(t) - {ours})::text as row from {table} t order by row");
        all.extend(rows(app, &sql).await);
    }
    let sql =
        "select 'tenure ' || (to_jsonb(t) - array['tenure_id', 'recorded_at', 'superseded_at'])::text as row
        from tenure t where superseded_at is null order by row";
    all.extend(rows(app, sql).await);
    all
}

/// The log, each conversation's in its order, without our ids and times. Conversations do not wait for each other.
pub(crate) async fn log(app: &TestApp) -> Vec<String> {
    let sql = "select concat_ws(' ', type, case when type not like 'group_text.%' then subject end, cause,
            data::jsonb - 'group_text_id')
        from event order by conversation_sid, commit_xid, event_id";
    rows(app, sql).await
}

/// Forgets all that was received, and all that came of it.
pub(crate) async fn empty(app: &TestApp) {
    let tables =
        "webhook, webhook_pending, webhook_set_aside, projected_batch, conversation, participant, message, delivery_receipt, chat_user, conversation_version,
        participant_version, message_version, receipt_version, holding, tenure, line_lease,
        event, task, group_text";
    execute(app, &format!("truncate {tables}")).await;
}

/// As [`empty`], but what was received waits to be projected.
pub(crate) async fn unproject(app: &TestApp) {
    let tables = "webhook_set_aside, projected_batch, conversation, participant, message, delivery_receipt, chat_user, conversation_version,
        participant_version, message_version, receipt_version, holding, tenure, line_lease, event,
        task, group_text";
    execute(
        app,
        &format!(
            "truncate {tables}; insert into webhook_pending (lane, webhook_id) select lane, webhook_id from webhook"
        ),
    )
    .await;
}

/// Nothing is left to do, and nothing was given up.
pub(crate) async fn assert_queue_is_empty(app: &TestApp) {
    let left = rows(
        app,
        "select kind || ' ' || state || ' ' || coalesce(last_error, '') from task",
    )
    .await;
    assert_eq!(left, Vec::<String>::new());
    assert_eq!(count(app, "webhook_state where state <> 'projected'").await, 0);
    super::sql::assert_webhooks_are_in_one_place(app.pool()).await;
}

/// Of every line: tenures that leave no hole and do not overlap.
pub(crate) async fn assert_ledger_is_whole(app: &TestApp) {
    let broken = rows(
        app,
        "select conversation_sid || ' ' || line || ' ' || during::text
        from (select *, lead(lower(during)) over (partition by conversation_sid, line order by lower(during)) as next
              from tenure where superseded_at is null) as tenure
        where next is distinct from upper(during) and not (next is null)",
    )
    .await;
    assert_eq!(broken, Vec::<String>::new());
}
