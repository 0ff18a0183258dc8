//! The HTTP server: our own accept loop, since a fault may have to close a connection without a word.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request};
use axum::response::{IntoResponse as _, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;
use uuid::Uuid;

use super::faults::{Effect, RestPlan};
use super::model::refusal::{
    BAD_GATEWAY, GATEWAY_TIMEOUT, INVALID_PARAMETER, Refusal, SERVER_ERROR, TOO_MANY_REQUESTS, UNAVAILABLE,
};
use super::rest::{faults_of, limited};
use super::world::World;

const HEADERS_WITHIN: Duration = Duration::from_secs(30);
/// The largest body of all: media.
const BODY_BYTES_MAX: usize = 5 * 1024 * 1024;
/// How long requests under way may take when the server stops.
const DRAIN_WITHIN: Duration = Duration::from_secs(1);

/// The connection is to be closed without an answer.
#[derive(Debug, thiserror::Error)]
#[error("hung up on request")]
struct HangUp;

struct Front {
    world: Arc<World>,
    router: Router,
    under_way: AtomicUsize,
}

/// Serves until `closing`; then lets the requests under way finish, within a second.
pub(crate) async fn serve(
    listener: TcpListener,
    world: Arc<World>,
    router: Router,
    closing: CancellationToken,
) {
    let ended = world.ended.clone();
    let tasks = world.tasks.clone();
    let front = Arc::new(Front {
        world,
        router,
        under_way: AtomicUsize::new(0),
    });
    let graceful = GracefulShutdown::new();
    while let Some(accepted) = closing.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _)) => {
                let connection = graceful.watch(connection(Arc::clone(&front), stream));
                let ended = ended.clone();
                tasks.spawn(async move {
                    // An error here is a client that went away, or a fault that hung up.
                    drop(ended.run_until_cancelled(connection).await);
                });
            }
            Err(error) => {
                tracing::warn!(error = %error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(tokio::time::timeout(DRAIN_WITHIN, graceful.shutdown()).await);
}

fn connection(
    front: Arc<Front>,
    stream: TcpStream,
) -> impl hyper_util::server::graceful::GracefulConnection<Error = hyper::Error> {
    let service = service_fn(move |request| {
        let front = Arc::clone(&front);
        async move { front.answer(request).await }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(stream), service)
}

impl Front {
    async fn answer(&self, request: Request<Incoming>) -> Result<Response, HangUp> {
        let request = match whole(request).await {
            Ok(request) => request,
            Err(refusal) => return Ok(refusal.into_response()),
        };
        let (under_way, _guard) = UnderWay::begin(&self.under_way);
        let answer = self.answer_with_faults(request).await;
        let mut answer = answer?;
        let headers = answer.headers_mut();
        headers.insert("twilio-concurrent-requests", HeaderValue::from(under_way));
        let id = format!("RQ{}", Uuid::new_v4().simple());
        headers.insert(
            "twilio-request-id",
            HeaderValue::from_str(&id).expect("hexadecimal digits are ASCII"),
        );
        Ok(answer)
    }

    async fn answer_with_faults(&self, request: Request<Body>) -> Result<Response, HangUp> {
        match self.plan(&request) {
            Err(refusal) => Ok(refusal.into_response()),
            Ok(None) => Ok(self.route(request).await),
            Ok(Some(plan)) => {
                if plan.effect == Effect::After {
                    drop(self.route(request).await);
                }
                tokio::time::sleep(plan.hold).await;
                plan.status.map(faulty).ok_or(HangUp)
            }
        }
    }

    /// What the request itself asks for, or else what the dice say. The sandbox's own endpoints never fail.
    fn plan(&self, request: &Request<Body>) -> Result<Option<RestPlan>, Refusal> {
        let path = request.uri().path();
        if path.starts_with("/sandbox/") {
            return Ok(None);
        }
        let own = faults_of(request.headers())?.rest;
        Ok(own.or_else(|| self.world.dice.for_request(request.method().as_str(), path)))
    }

    async fn route(&self, request: Request<Body>) -> Response {
        match self.router.clone().oneshot(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }
}

/// Reads the body before anything is answered. An answer that comes first makes hyper close the connection, and the
/// client's next request on it would fail.
async fn whole(request: Request<Incoming>) -> Result<Request<Body>, Refusal> {
    let (parts, body) = request.into_parts();
    let bytes = limited(Body::new(body), BODY_BYTES_MAX).await?;
    Ok(Request::from_parts(parts, Body::from(bytes)))
}

/// Counts a request for as long as it lives, also one whose client went away.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn begin(count: &'a AtomicUsize) -> (usize, Self) {
        (count.fetch_add(1, Ordering::Relaxed) + 1, Self(count))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn faulty(status: u16) -> Response {
    let rule = match status {
        429 => TOO_MANY_REQUESTS,
        500 => SERVER_ERROR,
        502 => BAD_GATEWAY,
        503 => UNAVAILABLE,
        504 => GATEWAY_TIMEOUT,
        _ => INVALID_PARAMETER,
    };
    rule.refuse().into_response()
}
