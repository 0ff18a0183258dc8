//! PostgreSQL: the pool, the migrations, and a private server when none is configured.

pub mod embedded;
