//! Reading the key of a request.

use std::marker::PhantomData;

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use jiff::SignedDuration;
use sqlx::PgConnection;
use tracing::warn;
use uuid::Uuid;

use crate::api::Api;
use crate::api::auth::{ApiKey, Needs, PREFIX, Scope, hash, store};
use crate::web::problem::Problem;

/// `last_used_at` is not more precise than this, so that a busy key does not write with every call.
const USE_NOTED_EVERY: SignedDuration = SignedDuration::from_mins(1);

/// The key that a request was made with, which has the scope `S`.
#[derive(Debug)]
pub struct Caller<S> {
    pub api_key_id: Uuid,
    scopes: Vec<Scope>,
    needs: PhantomData<fn() -> S>,
}

impl<S> Caller<S> {
    /// Whether it may do this too.
    pub fn may(&self, needed: Scope) -> bool {
        self.scopes.iter().any(|scope| scope.covers(needed))
    }

    /// How the log and our rows name it.
    pub fn name(&self) -> String {
        format!("api_key:{}", self.api_key_id)
    }
}

impl<S: Needs> FromRequestParts<Api> for Caller<S> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, Problem> {
        let key = bearer(&parts.headers).ok_or(Problem::Unauthenticated)?;
        let mut conn = api.pool.acquire().await?;
        let found = store::find_by_hash(&mut conn, &hash(key)).await?;
        let caller = found
            .filter(|key| key.revoked_at.is_none())
            .ok_or(Problem::Unauthenticated)?;
        if !caller.scopes.iter().any(|scope| scope.covers(S::SCOPE)) {
            return Err(Problem::MissingScope {
                scope: S::SCOPE.as_str(),
            });
        }
        note_use(&mut conn, api, &caller).await;
        Ok(Self {
            api_key_id: caller.api_key_id,
            scopes: caller.scopes,
            needs: PhantomData,
        })
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    (scheme.eq_ignore_ascii_case("bearer") && key.starts_with(PREFIX)).then_some(key)
}

/// That a use could not be noted is no reason to refuse it.
async fn note_use(conn: &mut PgConnection, api: &Api, key: &ApiKey) {
    let now = api.clock.now();
    let is_noted = key
        .last_used_at
        .is_some_and(|at| now.duration_since(at) < USE_NOTED_EVERY);
    if is_noted {
        return;
    }
    if let Err(error) = store::note_use(conn, key.api_key_id, now).await {
        warn!(
            error = &error as &dyn std::error::Error,
            "the use of an API key was not noted"
        );
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn a_key_is_read_from_one_bearer_header_only() {
        let read = |values: &[&'static str]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(read(&["Bearer hsk_abc"]), Some("hsk_abc".to_owned()));
        assert_eq!(read(&["bearer hsk_abc"]), Some("hsk_abc".to_owned()));
        for wrong in [
            &[][..],
            &["hsk_abc"],
            &["Basic hsk_abc"],
            &["Bearer abc"],
            &["Bearer  hsk_abc"],
            &["Bearer hsk_a", "Bearer hsk_b"],
        ] {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }
}
