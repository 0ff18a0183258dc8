//! Twilio, as far away as one says: passes calls on to the sandbox, and holds each answer back.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;

/// In front of the sandbox. Answers at once until it is told otherwise.
#[derive(Debug, Clone)]
pub(crate) struct Slow {
    to: Arc<str>,
    client: reqwest::Client,
    hold_ms: Arc<AtomicU64>,
}

impl Slow {
    pub(crate) fn new(to: &str) -> Result<Self> {
        Ok(Self {
            to: to.trim_end_matches('/').into(),
            client: reqwest::Client::builder().no_proxy().build()?,
            hold_ms: Arc::default(),
        })
    }

    /// Begins to listen, and answers where.
    pub(crate) async fn serve(&self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let router = Router::new().fallback(pass).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(url)
    }

    /// From now on an answer takes so long.
    pub(crate) fn hold(&self, ms: u64) {
        self.hold_ms.store(ms, Ordering::Relaxed);
    }
}

async fn pass(State(slow): State<Slow>, request: Request) -> Response {
    tokio::time::sleep(Duration::from_millis(slow.hold_ms.load(Ordering::Relaxed))).await;
    slow.forward(request)
        .await
        .unwrap_or_else(|_| StatusCode::BAD_GATEWAY.into_response())
}

impl Slow {
    async fn forward(&self, request: Request) -> Result<Response> {
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let answer = self
            .client
            .request(parts.method, format!("{}{path}", self.to))
            .headers(parts.headers)
            .body(to_bytes(body, 1 << 20).await?)
            .send()
            .await?;
        let (status, mut headers) = (answer.status(), answer.headers().clone());
        headers.remove(header::TRANSFER_ENCODING);
        let mut response = Response::new(Body::from(answer.bytes().await?));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}
