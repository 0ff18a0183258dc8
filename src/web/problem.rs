//! The closed list of error answers: RFC 9457 `application/problem+json`.
//!
//! An answer tells the caller what was wrong, where, and what to do. A 5xx carries the request's id and nothing from
//! inside.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::{Map, Value};

pub use crate::db::is_passing;

/// Every way in which we refuse or fail.
#[derive(Debug, Clone, PartialEq)]
pub enum Problem {
    /// 400: cannot be read as what it should be.
    Malformed { detail: String },
    /// 400: can be read, and these members are wrong.
    Invalid { errors: Vec<FieldError> },
    /// 401
    Unauthenticated,
    /// 403: the key lacks a scope.
    MissingScope { scope: &'static str },
    /// 403: the signature of a webhook does not verify; says nothing of why.
    SignatureRefused,
    /// 404
    NotFound { what: &'static str },
    /// 405
    MethodNotAllowed,
    /// 408
    RequestTimeout,
    /// 409: the state of things does not allow it. `facts` are safe details, like who and when.
    Conflict {
        code: &'static str,
        detail: String,
        facts: Map<String, Value>,
    },
    /// 409: the idempotency key was used for another request.
    IdempotencyKeyReused,
    /// 409: the first request with this idempotency key is still being answered.
    IdempotencyInProgress,
    /// 413
    TooLarge { limit_bytes: usize },
    /// 415
    UnsupportedMediaType { expected: &'static str },
    /// 429
    TooManyRequests,
    /// 500
    Internal,
    /// 503: try again soon.
    Unavailable,
}

/// What is wrong with one member of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Where: a JSON pointer into the body (`/members/2/address`), or the name of a header or query parameter.
    pub field: String,
    /// What is wrong, for programs: `duplicate`, `toll_free`, …
    pub code: String,
    /// What is wrong, for people.
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            code: code.into(),
            message: message.into(),
        }
    }
}

/// The body of an error answer.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct ProblemBody {
    /// Stable name of the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: &'static str,
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// Every wrong member, where the request has some.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<FieldError>,
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub facts: Map<String, Value>,
}

impl Problem {
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Conflict {
            code,
            detail: detail.into(),
            facts: Map::new(),
        }
    }

    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed { .. } | Self::Invalid { .. } => StatusCode::BAD_REQUEST,
            Self::Unauthenticated => StatusCode::UNAUTHORIZED,
            Self::MissingScope { .. } | Self::SignatureRefused => StatusCode::FORBIDDEN,
            Self::NotFound { .. } => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
            Self::Conflict { .. } | Self::IdempotencyKeyReused | Self::IdempotencyInProgress => {
                StatusCode::CONFLICT
            }
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The stable name of the kind of problem.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "malformed",
            Self::Invalid { .. } => "invalid",
            Self::Unauthenticated => "unauthenticated",
            Self::MissingScope { .. } => "missing_scope",
            Self::SignatureRefused => "signature_refused",
            Self::NotFound { .. } => "not_found",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::RequestTimeout => "request_timeout",
            Self::Conflict { code, .. } => code,
            Self::IdempotencyKeyReused => "idempotency_key_reused",
            Self::IdempotencyInProgress => "idempotency_in_progress",
            Self::TooLarge { .. } => "too_large",
            Self::UnsupportedMediaType { .. } => "unsupported_media_type",
            Self::TooManyRequests => "too_many_requests",
            Self::Internal => "internal",
            Self::Unavailable => "unavailable",
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Malformed { .. } => "The request cannot be read",
            Self::Invalid { .. } => "The request has wrong values",
            Self::Unauthenticated => "An API key is needed",
            Self::MissingScope { .. } => "The API key lacks a scope",
            Self::SignatureRefused => "The signature was refused",
            Self::NotFound { .. } => "Not found",
            Self::MethodNotAllowed => "This method is not for this path",
            Self::RequestTimeout => "The request came too slowly",
            Self::Conflict { .. } => "The present state does not allow it",
            Self::IdempotencyKeyReused => "The idempotency key was used for another request",
            Self::IdempotencyInProgress => "The first request with this idempotency key is still running",
            Self::TooLarge { .. } => "The body is too large",
            Self::UnsupportedMediaType { .. } => "The body has the wrong media type",
            Self::TooManyRequests => "Too many requests",
            Self::Internal => "Something went wrong here",
            Self::Unavailable => "Not available for the moment",
        }
    }

    fn detail(&self) -> Option<String> {
        match self {
            Self::Malformed { detail } | Self::Conflict { detail, .. } => Some(detail.clone()),
            Self::Invalid { errors } => {
                Some(format!("{} of the request's members are wrong; see `errors`", errors.len()))
            }
            Self::Unauthenticated => Some(
                "send `Authorization: Bearer <key>` with a key made by `hookswitch key create`, not revoked since".to_owned(),
            ),
            Self::MissingScope { scope } => Some(format!("this call needs a key with the scope `{scope}`")),
            Self::NotFound { what } => Some(format!("there is no such {what}")),
            Self::IdempotencyKeyReused => {
                Some("use a new Idempotency-Key for a new request; repeat the very same body with the old one".to_owned())
            }
            Self::IdempotencyInProgress => Some("repeat the request in a moment".to_owned()),
            Self::TooLarge { limit_bytes } => Some(format!("at most {limit_bytes} bytes are taken")),
            Self::UnsupportedMediaType { expected } => Some(format!("send `Content-Type: {expected}`")),
            Self::Unavailable => Some("repeat the request in a moment, with the same Idempotency-Key where it had one".to_owned()),
            Self::Internal => Some("repeat the request with the same Idempotency-Key, or ask with the request id".to_owned()),
            Self::SignatureRefused | Self::MethodNotAllowed | Self::RequestTimeout | Self::TooManyRequests => None,
        }
    }

    pub fn body(&self) -> ProblemBody {
        let (errors, facts) = match self {
            Self::Invalid { errors } => (errors.clone(), Map::new()),
            Self::Conflict { facts, .. } => (Vec::new(), facts.clone()),
            _ => (Vec::new(), Map::new()),
        };
        ProblemBody {
            kind: format!("urn:hookswitch:problem:{}", self.code()),
            title: self.title(),
            status: self.status().as_u16(),
            detail: self.detail(),
            errors,
            facts,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        let mut response = (status, Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if matches!(
            self,
            Self::Unavailable | Self::TooManyRequests | Self::IdempotencyInProgress
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if matches!(self, Self::Unauthenticated) {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// A database that does not answer is a matter of time; anything else is ours. The cause goes to the log.
impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the database refused a request"
        );
        if is_passing(&error) {
            Self::Unavailable
        } else {
            Self::Internal
        }
    }
}
