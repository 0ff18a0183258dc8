//! One connection: its requests, one after the other, with a time limit on everything that the client does.

use std::convert::Infallible;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::extract::ConnectInfo;
use axum::http::header::{CONNECTION, CONTENT_TYPE};
use axum::http::{HeaderValue, Request, Response, StatusCode};
use axum::{BoxError, Router};
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::Limits;
use super::waiting_room::{Busy, Presence};

/// hyper does not work with less.
const HYPER_BUFFER_MIN: usize = 8192;

pub(super) struct Connection {
    pub(super) router: Router,
    pub(super) limits: Arc<Limits>,
    pub(super) presence: Presence,
    pub(super) shutdown: CancellationToken,
}

impl Connection {
    pub(super) async fn serve(self, stream: TcpStream, peer: SocketAddr) {
        // Answers are small and written whole, so there is nothing to gain by waiting for more. A socket that does not
        // take the option is one that the peer has left.
        drop(stream.set_nodelay(true));
        let io = TokioIo::new(WriteDeadline::new(stream, &self));
        let service = service_fn(|request| self.answer(request, peer));
        let mut connection = pin!(
            http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(self.limits.head_time_limit)
                .max_buf_size(self.limits.head_bytes_max.max(HYPER_BUFFER_MIN))
                .serve_connection(io, service)
        );
        let cut = self.presence.cut();
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = cut.cancelled() => return,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    ended = connection => ended,
                    () = cut.cancelled() => return,
                }
            }
        };
        // Clients go as they like, so this is no news.
        if let Err(error) = ended {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "a connection ended early"
            );
        }
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Response<Body>, Infallible> {
        let busy = self.presence.busy();
        let late = Arc::new(AtomicBool::new(false));
        let mut request = request.map(|body| self.within_time(body, Arc::clone(&late)));
        request.extensions_mut().insert(ConnectInfo(peer));
        let Ok(mut response) = self.router.clone().oneshot(request).await;
        if late.load(Ordering::Relaxed) {
            // The handler has seen a broken body and answers so; the client is to know what was wrong.
            response = request_timeout();
        }
        Ok(response.map(|body| Body::new(AnswerBody { body, _busy: busy })))
    }

    fn within_time(&self, body: Incoming, late: Arc<AtomicBool>) -> Body {
        if body.is_end_stream() {
            return Body::empty();
        }
        let deadline = Box::pin(sleep(self.limits.body_time_limit));
        Body::new(RequestBody { body, deadline, late })
    }
}

fn request_timeout() -> Response<Body> {
    const PROBLEM: &str = r#"{"type":"about:blank","title":"Request Timeout","status":408}"#;
    let mut response = Response::new(Body::from(PROBLEM));
    *response.status_mut() = StatusCode::REQUEST_TIMEOUT;
    response
        .headers_mut()
        .insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    // The rest of the body may still come; nobody is going to read it.
    response
        .headers_mut()
        .insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A request's body, which has to arrive whole before a deadline.
struct RequestBody {
    body: Incoming,
    deadline: Pin<Box<Sleep>>,
    late: Arc<AtomicBool>,
}

impl hyper::body::Body for RequestBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(cx) {
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        ready!(self.deadline.as_mut().poll(cx));
        self.late.store(true, Ordering::Relaxed);
        let late = io::Error::new(io::ErrorKind::TimedOut, "the body did not arrive in time");
        Poll::Ready(Some(Err(late.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A response's body, which is let go when it is sent: then the connection waits for its next request.
struct AnswerBody {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A stream that fails when the other side takes nothing for too long. Reading has limits of its own, above.
struct WriteDeadline {
    stream: TcpStream,
    limit: Duration,
    presence: Presence,
    /// Since the other side takes nothing; it has an answer coming, although the request may be done with.
    stalled: Option<(Pin<Box<Sleep>>, Busy)>,
}

impl WriteDeadline {
    fn new(stream: TcpStream, connection: &Connection) -> Self {
        let limit = connection.limits.write_time_limit;
        Self {
            stream,
            limit,
            presence: connection.presence.clone(),
            stalled: None,
        }
    }

    fn watch(&mut self, written: Poll<io::Result<usize>>, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        let (deadline, _busy) = self
            .stalled
            .get_or_insert_with(|| (Box::pin(sleep(self.limit)), self.presence.busy()));
        ready!(deadline.as_mut().poll(cx));
        Poll::Ready(Err(io::Error::new(
            io::ErrorKind::TimedOut,
            "the client does not take the answer",
        )))
    }
}

impl AsyncRead for WriteDeadline {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for WriteDeadline {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.watch(written, cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.watch(written, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
