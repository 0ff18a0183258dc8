//! The database roles: made where that is allowed, and given their rights.

use sqlx::PgConnection;

/// Makes the roles and gives them their rights, as far as the caller may. Answers what is missing: somebody who may
/// make roles has to look after that. Safe to call again.
pub async fn ensure_roles(conn: &mut PgConnection) -> Result<Vec<String>, sqlx::Error> {
    let missing = sqlx::query_scalar!(
        r#"-- audit.ensure_roles
        select ensure_audit_roles() || ensure_app_role() as "missing!""#
    )
    .fetch_one(conn)
    .await?;
    Ok(missing)
}
