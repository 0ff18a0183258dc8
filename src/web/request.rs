//! What every request gets, whatever it asks for: an id, a span, and an answer even where a handler panics or takes too
//! long. Knows no routes.

use std::any::Any;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse as _, Response};
use http_body_util::{BodyExt as _, Limited};
use serde_json::{Map, Value};
use tower::ServiceBuilder;
use tower_http::catch_panic::CatchPanicLayer;
use tower_http::request_id::{MakeRequestId, PropagateRequestIdLayer, RequestId, SetRequestIdLayer};
use tower_http::sensitive_headers::SetSensitiveRequestHeadersLayer;
use tracing::{Instrument as _, Span, debug, error, field, info_span};

use crate::ids::new_id;
use crate::web::problem::Problem;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longer ids than this are not taken over from a client.
const REQUEST_ID_MAX: usize = 128;

/// Puts around all routes what every request gets. To be called last: what is added to the router afterwards has none
/// of it.
pub fn attend(router: Router) -> Router {
    // A request passes them from the first to the last. They are one layer to the router, which puts every layer of its own
    // into a box.
    let layers = ServiceBuilder::new()
        .layer(SetSensitiveRequestHeadersLayer::new([
            header::AUTHORIZATION,
            header::COOKIE,
            HeaderName::from_static("x-twilio-signature"),
        ]))
        .layer(from_fn(drop_odd_request_id))
        .layer(SetRequestIdLayer::new(REQUEST_ID, NewRequestId))
        .layer(PropagateRequestIdLayer::new(REQUEST_ID))
        .layer(from_fn(in_span))
        .layer(from_fn(name_in_failure))
        .layer(CatchPanicLayer::custom(answer_for_panic));
    router.layer(layers)
}

/// Gives the routes so much time to answer; then it is 503, and what was begun is rolled back.
pub fn bound(router: Router, limit: Duration) -> Router {
    router.layer(from_fn_with_state(limit, within))
}

async fn within(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(limit, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::Unavailable.into_response(),
    }
}

/// Ids of ours, in place of the random ones that tower-http makes, since they sort by time.
#[derive(Debug, Clone, Copy)]
struct NewRequestId;

impl MakeRequestId for NewRequestId {
    fn make_request_id<B>(&mut self, _: &Request<B>) -> Option<RequestId> {
        HeaderValue::from_str(&new_id().to_string())
            .ok()
            .map(RequestId::new)
    }
}

/// A client may name its requests, but not write into our log what it likes.
async fn drop_odd_request_id(mut request: Request, next: Next) -> Response {
    let ids = request.headers().get_all(REQUEST_ID);
    let is_sane = ids.iter().count() <= 1 && ids.iter().all(is_plain);
    if !is_sane {
        request.headers_mut().remove(REQUEST_ID);
    }
    next.run(request).await
}

fn is_plain(id: &HeaderValue) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
    (1..=REQUEST_ID_MAX).contains(&id.len()) && id.as_bytes().iter().all(plain)
}

/// The span has the template of the path, never the path: that may hold a phone number.
async fn in_span(request: Request, next: Next) -> Response {
    let route = match request.extensions().get::<MatchedPath>() {
        Some(path) => path.as_str().to_owned(),
        None => "(none)".to_owned(),
    };
    let method = request.method().clone();
    let span = info_span!(
        "http.request",
        http.method = known_method(&method),
        http.route = %route,
        request.id = request_id(&request).as_deref(),
        http.status = field::Empty,
    );
    let begun = Instant::now();
    let response = next.run(request).instrument(span.clone()).await;
    let status = response.status().as_u16();
    span.record("http.status", status);
    observe(&span, &method, route, status, begun.elapsed());
    response
}

fn observe(span: &Span, method: &Method, route: String, status: u16, took: Duration) {
    let labels = [
        ("method", known_method(method).to_owned()),
        ("route", route),
        ("status", status.to_string()),
    ];
    metrics::counter!("hookswitch_http_requests_total", &labels).increment(1);
    metrics::histogram!("hookswitch_http_request_duration_seconds", &labels).record(took.as_secs_f64());
    let duration_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
    span.in_scope(|| debug!(duration_ms, "answered {status}"));
}

/// A client may send any word as its method; the metrics should not keep one series for each.
fn known_method(method: &Method) -> &str {
    match *method {
        Method::GET
        | Method::HEAD
        | Method::POST
        | Method::PUT
        | Method::PATCH
        | Method::DELETE
        | Method::OPTIONS => method.as_str(),
        _ => "other",
    }
}

fn request_id(request: &Request) -> Option<String> {
    let id = request.headers().get(REQUEST_ID)?;
    id.to_str().ok().map(str::to_owned)
}

/// Writes the request's id into the body of a 5xx, so that it can be found in the log.
async fn name_in_failure(request: Request, next: Next) -> Response {
    let id = request_id(&request);
    let response = next.run(request).await;
    match id {
        Some(id) if response.status().is_server_error() && is_problem(&response) => {
            with_id(response, id).await
        }
        _ => response,
    }
}

fn is_problem(response: &Response) -> bool {
    let media_type = response.headers().get(header::CONTENT_TYPE);
    media_type.is_some_and(|value| value.as_bytes() == b"application/problem+json")
}

async fn with_id(response: Response, id: String) -> Response {
    const PROBLEM_MAX: usize = 64 * 1024;
    let (mut parts, body) = response.into_parts();
    let collected = Limited::new(body, PROBLEM_MAX).collect().await;
    let mut problem: Map<String, Value> = collected
        .ok()
        .and_then(|body| serde_json::from_slice(&body.to_bytes()).ok())
        .unwrap_or_default();
    problem.insert("request_id".to_owned(), Value::String(id));
    parts.headers.remove(header::CONTENT_LENGTH);
    Response::from_parts(parts, Body::from(Value::Object(problem).to_string()))
}

/// What a panic says stays inside: it may hold anything.
fn answer_for_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    error!("a handler panicked");
    Problem::Internal.into_response()
}
