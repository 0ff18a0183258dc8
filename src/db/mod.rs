//! PostgreSQL: the pool, the migrations, and a private server when none is configured.

pub mod embedded;

/// The schema, forward only.
pub static MIGRATOR: sqlx::migrate::Migrator = sqlx::migrate!();
