//! Policies' rows. What is stored was read before it was, so that it can be read again.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use serde_json::Value;
use sqlx::PgConnection;

use super::unreadable;
use crate::escalation::StoredPolicy;
use crate::escalation::policy::Policy;
use crate::escalation::since::Since;
use crate::people::Slug;

/// A version of a policy that counts.
#[derive(Debug, Clone)]
pub(in crate::escalation) struct Live {
    pub(in crate::escalation) policy_id: String,
    pub(in crate::escalation) version: i64,
    pub(in crate::escalation) policy: Policy,
    /// What was amiss before is none of its business.
    pub(in crate::escalation) since: Timestamp,
    /// Of what came to it later.
    pub(in crate::escalation) since_of: Since,
    /// It is the newest version; under others, things only go on.
    pub(in crate::escalation) begins: bool,
}

fn read(document: &Value) -> Result<Policy, sqlx::Error> {
    Policy::read(document, None).map_err(|found| {
        let place = found.first().map(|error| error.field.clone()).unwrap_or_default();
        unreadable("escalation_policy_version.document", place)
    })
}

/// Keeps changes of policies apart. Held until the transaction ends.
pub(in crate::escalation) async fn lock_policies(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- escalation.lock_policies
        select pg_advisory_xact_lock(hashtext('hookswitch.escalation_policy'))"
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Policies in the order of their ids, those after one.
pub async fn policies(
    conn: &mut PgConnection,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<StoredPolicy>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- escalation.policies
        select policy_id, version, document, enabled_since, since, policy.created_at, updated_at
        from escalation_policy as policy join escalation_policy_version using (policy_id, version)
        where $1::text is null or policy_id > $1
        order by policy_id limit $2",
        after,
        limit,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(StoredPolicy {
                policy_id: slug(&row.policy_id)?,
                version: row.version,
                policy: read(&row.document)?,
                document: row.document,
                enabled_since: row.enabled_since.map(jiff_sqlx::Timestamp::to_jiff),
                since: read_since(row.since)?,
                created_at: row.created_at.to_jiff(),
                updated_at: row.updated_at.to_jiff(),
            })
        })
        .collect()
}

pub async fn find_policy(
    conn: &mut PgConnection,
    policy_id: &str,
) -> Result<Option<StoredPolicy>, sqlx::Error> {
    let row = sqlx::query!(
        "-- escalation.find_policy
        select policy_id, version, document, enabled_since, since, policy.created_at, updated_at
        from escalation_policy as policy join escalation_policy_version using (policy_id, version)
        where policy_id = $1",
        policy_id,
    )
    .fetch_optional(conn)
    .await?;
    row.map(|row| {
        Ok(StoredPolicy {
            policy_id: slug(&row.policy_id)?,
            version: row.version,
            policy: read(&row.document)?,
            document: row.document,
            enabled_since: row.enabled_since.map(jiff_sqlx::Timestamp::to_jiff),
            since: read_since(row.since)?,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
        })
    })
    .transpose()
}

/// One version of a policy, as it was written, by whom and when.
pub async fn document_of(
    conn: &mut PgConnection,
    policy_id: &str,
    version: i64,
) -> Result<Option<(Value, String, Timestamp)>, sqlx::Error> {
    let row = sqlx::query!(
        "-- escalation.document_of
        select document, created_by, created_at from escalation_policy_version where policy_id = $1 and version = $2",
        policy_id,
        version,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| (row.document, row.created_by, row.created_at.to_jiff())))
}

/// The policies that begin something, in the order of their ids.
pub(in crate::escalation) async fn enabled(conn: &mut PgConnection) -> Result<Vec<Live>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- escalation.enabled_policies
        select policy_id, version, document, enabled_since as "enabled_since!", since
        from escalation_policy join escalation_policy_version using (policy_id, version)
        where enabled order by policy_id"#
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Live {
                policy_id: row.policy_id,
                version: row.version,
                policy: read(&row.document)?,
                since: row.enabled_since.to_jiff(),
                since_of: read_since(row.since)?,
                begins: true,
            })
        })
        .collect()
}

/// Versions under which something goes on, of policies that are enabled.
pub(in crate::escalation) async fn live_versions(
    conn: &mut PgConnection,
    wanted: &[(String, i64)],
) -> Result<Vec<Live>, sqlx::Error> {
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let (ids, versions): (Vec<&str>, Vec<i64>) = wanted
        .iter()
        .map(|(policy_id, version)| (policy_id.as_str(), *version))
        .unzip();
    let rows = sqlx::query!(
        r#"-- escalation.live_versions
        select old.policy_id, old.version, old.document, enabled_since as "enabled_since!"
        from unnest($1::text[], $2::bigint[]) as wanted (policy_id, version)
        join escalation_policy_version as old
          on old.policy_id = wanted.policy_id and old.version = wanted.version
        join escalation_policy as policy on policy.policy_id = old.policy_id
        where policy.enabled"#,
        &ids as _,
        &versions,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(Live {
                policy_id: row.policy_id,
                version: row.version,
                policy: read(&row.document)?,
                since: row.enabled_since.to_jiff(),
                since_of: Since::default(),
                begins: false,
            })
        })
        .collect()
}

pub(in crate::escalation) async fn upsert_policy(
    conn: &mut PgConnection,
    stored: &StoredPolicy,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- escalation.upsert_policy
        insert into escalation_policy (policy_id, version, name, enabled, enabled_since, created_at, updated_at, since)
        values ($1, $2, $3, $4, $5, $6, $7, $8)
        on conflict (policy_id) do update set version = excluded.version, name = excluded.name,
            enabled = excluded.enabled, enabled_since = excluded.enabled_since, updated_at = excluded.updated_at,
            since = excluded.since",
        stored.policy_id.as_str(),
        stored.version,
        stored.policy.name,
        stored.policy.enabled,
        stored.enabled_since.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        stored.created_at.to_sqlx() as _,
        stored.updated_at.to_sqlx() as _,
        serde_json::to_value(&stored.since).map_err(|error| sqlx::Error::Encode(error.into()))?,
    )
    .execute(conn)
    .await?;
    Ok(())
}

fn read_since(stored: Value) -> Result<Since, sqlx::Error> {
    serde_json::from_value(stored).map_err(|error| unreadable("escalation_policy.since", error))
}

/// The newest version that there ever was of a policy, also of one that was removed.
pub(in crate::escalation) async fn insert_version(
    conn: &mut PgConnection,
    policy_id: &str,
    document: &Value,
    by: &str,
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        "-- escalation.insert_policy_version
        insert into escalation_policy_version (policy_id, version, document, created_by, created_at)
        select $1, coalesce(max(version), 0) + 1, $2, $3, $4 from escalation_policy_version where policy_id = $1
        returning version",
        policy_id,
        document,
        by,
        now.to_sqlx() as _,
    )
    .fetch_one(conn)
    .await
}

/// Answers whether it was there. Its versions stay.
pub(in crate::escalation) async fn delete_policy(
    conn: &mut PgConnection,
    policy_id: &str,
) -> Result<bool, sqlx::Error> {
    let deleted = sqlx::query!(
        "-- escalation.delete_policy
        delete from escalation_policy where policy_id = $1",
        policy_id,
    )
    .execute(conn)
    .await?;
    Ok(deleted.rows_affected() > 0)
}

fn slug(text: &str) -> Result<Slug, sqlx::Error> {
    text.parse()
        .map_err(|error| unreadable("escalation_policy.policy_id", error))
}
