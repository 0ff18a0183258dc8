//! stand-in
use crate::clock::Clock;
use crate::db::Notices;
use crate::group_text::GroupTexts;
use crate::outbox::Outbox;
use crate::transfer::Transfers;
use sqlx::PgPool;
#[derive(Clone)]
pub struct Api {
    pub pool: PgPool,
    pub clock: Clock,
    pub transfers: Transfers,
    pub group_texts: GroupTexts,
    pub outbox: Outbox,
    pub notices: Notices,
}
pub fn router(_api: Api) -> axum::Router {
    axum::Router::new()
}
pub async fn not_found() -> crate::web::problem::Problem {
    crate::web::problem::Problem::NotFound { what: "path" }
}
pub mod idempotency {
    pub async fn purge(_c: &mut sqlx::PgConnection, _b: jiff::Timestamp) -> Result<(), sqlx::Error> {
        Ok(())
    }
}
pub mod auth {
    pub enum Scope {
        Admin,
    }
    pub struct CreatedKey {
        pub key: secrecy::SecretString,
    }
    pub async fn create(
        _c: &mut sqlx::PgConnection,
        _n: &str,
        _s: &[Scope],
        _k: &crate::clock::Clock,
    ) -> anyhow::Result<CreatedKey> {
        Ok(CreatedKey {
            key: String::new().into(),
        })
    }
}
