//! Calls that may be repeated: the same key gives the same answer, and one effect. Owns `idempotency_key`.
//!
//! Every POST carries an `Idempotency-Key`. The answer is stored in the transaction of the effect, so that after a crash
//! either both are there or neither. A repeat that comes while the first is at work waits at the table's primary key.
//! An answer that says that nothing was done is not stored: the same call may succeed later.

mod store;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};
use sqlx::{PgConnection, PgTransaction};
use uuid::Uuid;

use crate::api::Api;
use crate::api::auth::Caller;
use crate::web::extract::{Csv, Json};
use crate::web::problem::{FieldError, Problem};

pub use store::{erase_person, purge};

/// The header that every POST needs.
pub const HEADER: &str = "Idempotency-Key";

/// On an answer that was given before.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

const KEY_MAX: usize = 255;

/// A POST: the call, and what it asks for.
#[derive(Debug)]
pub struct Post<T> {
    pub call: Call,
    pub body: T,
}

/// How a call is recognized when it comes again.
#[derive(Debug)]
pub struct Call {
    key: String,
    /// Over method, path and body.
    fingerprint: [u8; 32],
}

impl<T: DeserializeOwned> FromRequest<Api> for Post<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let key = read_key(request.headers())?;
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let json = Json::<T>::from_request(request, api).await?;
        let call = Call {
            key,
            fingerprint: fingerprint(method.as_str(), &path, &json.raw),
        };
        Ok(Self {
            call,
            body: json.value,
        })
    }
}

/// As [`Post`], of a CSV file. Its query is part of what is asked for.
#[derive(Debug)]
pub struct PostCsv {
    pub call: Call,
    pub csv: Bytes,
}

impl FromRequest<Api> for PostCsv {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let key = read_key(request.headers())?;
        let uri = request.uri();
        let path = uri
            .path_and_query()
            .map_or(uri.path(), |path| path.as_str())
            .to_owned();
        let method = request.method().clone();
        let Csv(csv) = Csv::from_request(request, api).await?;
        let call = Call {
            key,
            fingerprint: fingerprint(method.as_str(), &path, &csv),
        };
        Ok(Self { call, csv })
    }
}

fn read_key(headers: &HeaderMap) -> Result<String, Problem> {
    let refused = |code, message: String| Problem::Invalid {
        errors: vec![FieldError::new(HEADER, code, message)],
    };
    let mut values = headers.get_all(HEADER).iter();
    let value = values.next().ok_or_else(|| {
        let message = "expected on every POST: a text of your own that is new for each new request, and the same when it is repeated";
        refused("missing", message.to_owned())
    })?;
    let is_visible =
        (1..=KEY_MAX).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic);
    match value.to_str() {
        Ok(key) if is_visible && values.next().is_none() => Ok(key.to_owned()),
        _ => {
            let message = format!("expected once, with 1 to {KEY_MAX} visible ASCII characters");
            Err(refused("malformed", message))
        }
    }
}

/// Neither a method nor a path has a NUL, so that no two requests run together.
fn fingerprint(method: &str, path: &str, body: &[u8]) -> [u8; 32] {
    let mut digest = Sha256::new();
    for part in [method.as_bytes(), &[0], path.as_bytes(), &[0], body] {
        digest.update(part);
    }
    digest.finalize().into()
}

/// What has to be done about a POST.
#[derive(Debug)]
pub enum Begun {
    First(First),
    /// It was done before; this is what was answered.
    Again(Response),
}

/// A call that is made for the first time: its transaction, which [`First::answer`] commits. Dropped, it is as if the
/// call had never come.
#[derive(Debug)]
pub struct First {
    transaction: PgTransaction<'static>,
    api_key_id: Uuid,
    key: String,
}

impl Call {
    /// Whether a request has a usable key, to be asked before a large body is read.
    pub fn check_key(headers: &HeaderMap) -> Result<(), Problem> {
        read_key(headers).map(|_| ())
    }

    /// Of a POST whose body is neither JSON nor CSV: what it asks for, in parts.
    pub fn read(parts: &Parts, asked: &[&[u8]]) -> Result<Self, Problem> {
        let mut digest = Sha256::new();
        for part in asked {
            digest.update(part.len().to_be_bytes());
            digest.update(part);
        }
        Ok(Self {
            key: read_key(&parts.headers)?,
            fingerprint: fingerprint(parts.method.as_str(), parts.uri.path(), &digest.finalize()),
        })
    }

    /// Looks whether the call was made before; waits where it is being made.
    pub async fn begin<S>(self, api: &Api, caller: &Caller<S>) -> Result<Begun, Problem> {
        let mut transaction = api.pool.begin().await?;
        let api_key_id = caller.api_key_id;
        let now = api.clock.now();
        let is_first = store::claim(&mut transaction, api_key_id, &self.key, &self.fingerprint, now)
            .await
            .map_err(|error| match error {
                store::ClaimError::StillRunning => Problem::IdempotencyInProgress,
                store::ClaimError::Database(error) => error.into(),
            })?;
        if !is_first {
            let replay = replay(&mut transaction, api_key_id, &self.key, &self.fingerprint).await?;
            return Ok(Begun::Again(replay));
        }
        Ok(Begun::First(First {
            transaction,
            api_key_id,
            key: self.key,
        }))
    }
}

async fn replay(
    conn: &mut PgConnection,
    api_key_id: Uuid,
    key: &str,
    fingerprint: &[u8; 32],
) -> Result<Response, Problem> {
    // Purged at this very moment: it comes anew when it is repeated.
    let stored = store::find(conn, api_key_id, key)
        .await?
        .ok_or(Problem::IdempotencyInProgress)?;
    if stored.request_hash != fingerprint {
        return Err(Problem::IdempotencyKeyReused);
    }
    let status = u16::try_from(stored.answer.status)
        .ok()
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or(Problem::Internal)?;
    let mut response = shape(status, stored.answer.location.as_deref(), stored.answer.body);
    response
        .headers_mut()
        .insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

impl First {
    /// Where the effect is to be written.
    pub fn conn(&mut self) -> &mut PgConnection {
        &mut self.transaction
    }

    /// Stores the answer beside the effect, commits both, and gives the answer.
    pub async fn answer(
        mut self,
        status: StatusCode,
        location: Option<String>,
        body: &impl Serialize,
    ) -> Result<Response, Problem> {
        let answer = store::Answer {
            status: i16::try_from(status.as_u16()).map_err(|_| Problem::Internal)?,
            body: serde_json::to_vec(body).map_err(|_| Problem::Internal)?,
            location,
        };
        store::keep(&mut self.transaction, self.api_key_id, &self.key, &answer).await?;
        self.transaction.commit().await?;
        Ok(shape(status, answer.location.as_deref(), answer.body))
    }
}

fn shape(status: StatusCode, location: Option<&str>, body: Vec<u8>) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Some(location) = location.and_then(|location| HeaderValue::from_str(location).ok()) {
        headers.insert(header::LOCATION, location);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_visible_ascii_and_comes_once() {
        let read = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(HEADER, HeaderValue::from_bytes(value).unwrap());
            }
            read_key(&headers).ok()
        };
        assert_eq!(read(&[b"order-17"]), Some("order-17".to_owned()));
        assert!(read(&[&[b'a'; 255]]).is_some());
        let long = [b'a'; 256];
        let wrong: [&[&[u8]]; 6] = [&[], &[b""], &[b"a b"], &[&long], &[b"a", b"a"], &[b"\xff"]];
        for wrong in wrong {
            assert_eq!(read(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn another_method_path_or_body_is_another_request() {
        let all = [
            fingerprint("POST", "/v1/transfers", b"{}"),
            fingerprint("PUT", "/v1/transfers", b"{}"),
            fingerprint("POST", "/v1/transfer", b"s{}"),
            fingerprint("POST", "/v1/transfers", b"{ }"),
        ];
        for (place, one) in all.iter().enumerate() {
            assert!(all[place + 1..].iter().all(|other| other != one));
        }
    }
}
