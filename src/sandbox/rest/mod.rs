//! The REST API at Twilio's own paths: routes, authentication, and the shape of answers.
//!
//! Every resource that belongs to a service is there twice, as `/v1/Services/{IS}/X` and, for the account's default
//! service, as `/v1/X`. One file per resource; the rules are the model's.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use subtle::ConstantTimeEq as _;

use super::admin;
use super::model::refusal::{AUTHENTICATION, METHOD_NOT_ALLOWED, NOT_FOUND, Refusal};
use super::world::{Credentials, World};

mod addresses;
mod call;
mod configuration;
mod conversations;
mod media;
mod memberships;
mod messages;
mod page;
mod participants;
mod roles;
mod services;
mod users;
mod webhooks;

pub(crate) use call::{faults_of, limited};

pub(crate) type Shared = State<Arc<World>>;

/// An answer, or the error body of a refusal.
pub(crate) type Reply = Result<Response, Refusal>;

pub(crate) fn router(world: Arc<World>) -> Router {
    let twilio = Router::new()
        .route(
            "/v1/Configuration",
            get(configuration::fetch).post(configuration::update),
        )
        .route(
            "/v1/Configuration/Webhooks",
            get(webhooks::fetch_global).post(webhooks::update_global),
        )
        .route(
            "/v1/Configuration/Addresses",
            get(addresses::list).post(addresses::create),
        )
        .route(
            "/v1/Configuration/Addresses/{address}",
            get(addresses::fetch)
                .post(addresses::update)
                .delete(addresses::remove),
        )
        .route("/v1/Services", get(services::list).post(services::create))
        .route(
            "/v1/Services/{service}",
            get(services::fetch).delete(services::remove),
        )
        .route(
            "/v1/Services/{service}/Configuration",
            get(services::fetch_configuration).post(services::update_configuration),
        )
        .route(
            "/v1/Services/{service}/Configuration/Webhooks",
            get(webhooks::fetch_service).post(webhooks::update_service),
        )
        .route("/v1/Services/{service}/Media", post(media::upload))
        .route("/v1/Services/{service}/Media/{media}", get(media::fetch));
    let twilio = of_service(twilio);
    twilio
        .merge(admin::router())
        .fallback(async || NOT_FOUND.refuse())
        .method_not_allowed_fallback(async || METHOD_NOT_ALLOWED.refuse())
        .layer(middleware::from_fn_with_state(Arc::clone(&world), authenticate))
        // Open to whoever has the link, as at Twilio.
        .route("/sandbox/v1/media/{token}", get(media::follow))
        .with_state(world)
}

/// The resources that have both forms of path.
fn of_service(router: Router<Arc<World>>) -> Router<Arc<World>> {
    let resources: Vec<(&str, MethodRouter<Arc<World>>)> = vec![
        (
            "/Conversations",
            get(conversations::list).post(conversations::create),
        ),
        (
            "/Conversations/{conversation}",
            get(conversations::fetch)
                .post(conversations::update)
                .delete(conversations::remove),
        ),
        (
            "/ConversationWithParticipants",
            post(conversations::create_with_participants),
        ),
        (
            "/Conversations/{conversation}/Participants",
            get(participants::list).post(participants::create),
        ),
        (
            "/Conversations/{conversation}/Participants/{participant}",
            get(participants::fetch)
                .post(participants::update)
                .delete(participants::remove),
        ),
        (
            "/Conversations/{conversation}/Messages",
            get(messages::list).post(messages::create),
        ),
        (
            "/Conversations/{conversation}/Messages/{message}",
            get(messages::fetch)
                .post(messages::update)
                .delete(messages::remove),
        ),
        (
            "/Conversations/{conversation}/Messages/{message}/Receipts",
            get(messages::list_receipts),
        ),
        (
            "/Conversations/{conversation}/Messages/{message}/Receipts/{receipt}",
            get(messages::fetch_receipt),
        ),
        (
            "/Conversations/{conversation}/Webhooks",
            get(webhooks::list).post(webhooks::create),
        ),
        (
            "/Conversations/{conversation}/Webhooks/{webhook}",
            get(webhooks::fetch)
                .post(webhooks::update)
                .delete(webhooks::remove),
        ),
        ("/ParticipantConversations", get(memberships::list)),
        ("/Users", get(users::list).post(users::create)),
        (
            "/Users/{user}",
            get(users::fetch).post(users::update).delete(users::remove),
        ),
        ("/Users/{user}/Conversations", get(memberships::list_of_user)),
        (
            "/Users/{user}/Conversations/{conversation}",
            get(memberships::fetch_of_user),
        ),
        ("/Roles", get(roles::list).post(roles::create)),
        (
            "/Roles/{role}",
            get(roles::fetch).post(roles::update).delete(roles::remove),
        ),
    ];
    resources.into_iter().fold(router, |router, (path, methods)| {
        router
            .route(&format!("/v1{path}"), methods.clone())
            .route(&format!("/v1/Services/{{service}}{path}"), methods)
    })
}

/// HTTP Basic: the account with its token, or an API key with its secret.
async fn authenticate(State(world): Shared, request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    if given
        .and_then(basic)
        .is_some_and(|(user, password)| may_call(&world.credentials, &user, &password))
    {
        return next.run(request).await;
    }
    let challenge = [(header::WWW_AUTHENTICATE, "Basic realm=\"Twilio API\"")];
    (challenge, AUTHENTICATION.refuse()).into_response()
}

fn basic(header: &str) -> Option<(String, String)> {
    let (scheme, encoded) = header.split_once(' ')?;
    let decoded = BASE64_STANDARD
        .decode(encoded.trim())
        .ok()
        .filter(|_| scheme.eq_ignore_ascii_case("basic"))?;
    let text = String::from_utf8(decoded).ok()?;
    text.split_once(':')
        .map(|(user, password)| (user.to_owned(), password.to_owned()))
}

fn may_call(credentials: &Credentials, user: &str, password: &str) -> bool {
    let secret = match &credentials.api_key {
        _ if user == credentials.account.as_str() => &credentials.token,
        Some((key, secret)) if user == key.as_str() => secret,
        _ => return false,
    };
    secret
        .expose_secret()
        .as_bytes()
        .ct_eq(password.as_bytes())
        .into()
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = json!({
            "code": self.code,
            "message": self.message,
            "more_info": format!("https://www.twilio.com/docs/errors/{}", self.code),
            "status": self.status,
        });
        (status, Json(body)).into_response()
    }
}

fn ok(body: Value) -> Response {
    Json(body).into_response()
}

fn created(body: Value) -> Response {
    (StatusCode::CREATED, Json(body)).into_response()
}

fn no_content() -> Response {
    StatusCode::NO_CONTENT.into_response()
}
