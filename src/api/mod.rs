//! The API that a CRM back end uses: `/v1`, bearer keys with scopes, problems, cursor pages, repeatable writes.
//!
//! A handler extracts, calls one operation, and shapes the answer. What the answers look like lives here, apart from
//! the rows, so that neither the schema nor Twilio leaks into it. Reading order: [`auth`] and [`idempotency`] are what
//! every call passes; then a file per resource; [`openapi`] completes the document that the routes generate.
//!
//! Owns `api_key` and `idempotency_key`; everything else is read through its owner.

#![expect(
    unused_qualifications,
    reason = "what `utoipa::path` makes of a type in `params` is counted as one"
)]

mod agents;
mod as_of;
pub mod auth;
mod availability;
mod calendars;
mod completeness;
mod conversations;
mod delivery;
mod erasures;
mod escalations;
mod events;
mod group_texts;
mod handovers;
mod health;
pub mod idempotency;
mod ledger_then;
mod legal_hold;
mod lines;
mod media;
mod messages;
mod numbers;
mod openapi;
mod opt_outs;
mod participants;
mod people_import;
mod queue;
mod sends;
mod teams;
mod timeline;
mod transfers;
mod versions;
mod webhooks;
mod words;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use serde_json::value::RawValue;
use serde_json::{Map, Value};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::clock::Clock;
use crate::db::Notices;
use crate::erasure::Erasures;
use crate::group_text::GroupTexts;
use crate::handover::Handovers;
use crate::health::Health;
use crate::opt_out::OptOuts;
use crate::outbox::Outbox;
use crate::sweep::Totals;
use crate::transfer::Transfers;
use crate::web::fallback::method_not_allowed;
use crate::web::problem::Problem;
use crate::web::request::bound;

/// Every answer is given within this time; 503 where it cannot be.
pub const ANSWER_TIMEOUT: Duration = Duration::from_millis(4_800);

/// What the handlers need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Api {
    pub pool: PgPool,
    pub clock: Clock,
    pub transfers: Transfers,
    pub group_texts: GroupTexts,
    pub handovers: Handovers,
    pub outbox: Outbox,
    /// How many bytes of media wait at once.
    pub media_kept_max: u64,
    pub opt_outs: OptOuts,
    pub completeness: Totals,
    pub erasures: Erasures,
    pub health: Health,
    pub notices: Notices,
    /// Cancelled when the process is to end: who waits for entries of the log is answered at once.
    pub shutdown: CancellationToken,
}

/// All routes, and `GET /openapi.json`. Without a fallback, so that it can be merged; see [`crate::web::fallback`].
pub fn router(api: Api) -> Router {
    let (bounded, mut document) = bounded_routes().split_for_parts();
    let (waiting, feed) = waiting_routes().split_for_parts();
    document.merge(feed);
    let (uploading, uploads) = uploading_routes().split_for_parts();
    document.merge(uploads);
    let document: Arc<RawValue> = openapi::complete(document).into();
    let describe = get(async move || axum::Json(document));
    bound(bounded.with_state(api.clone()), ANSWER_TIMEOUT)
        .merge(bound(
            waiting.with_state(api.clone()),
            events::WAIT_MAX + ANSWER_TIMEOUT,
        ))
        .merge(bound(uploading.with_state(api), media::UPLOAD_TIMEOUT))
        .route("/openapi.json", describe)
        .method_not_allowed_fallback(method_not_allowed)
}

fn bounded_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(group_texts::start, group_texts::list))
        .routes(routes!(group_texts::show))
        .routes(routes!(conversations::list))
        .routes(routes!(conversations::show))
        .routes(routes!(legal_hold::set, legal_hold::show, legal_hold::end))
        .routes(routes!(erasures::start, erasures::list))
        .routes(routes!(erasures::show))
        .routes(routes!(participants::list))
        .routes(routes!(messages::list, sends::start))
        .routes(routes!(messages::show))
        .routes(routes!(media::fetch))
        .routes(routes!(sends::list))
        .routes(routes!(sends::show))
        .routes(routes!(sends::list_open))
        .routes(routes!(sends::resolve))
        .routes(routes!(opt_outs::list, opt_outs::set))
        .routes(routes!(opt_outs::clear))
        .routes(routes!(opt_outs::group::of_conversation))
        .routes(routes!(opt_outs::group::decide))
        .routes(routes!(
            opt_outs::policy::show,
            opt_outs::policy::set,
            opt_outs::policy::drop_own
        ))
        .routes(routes!(timeline::list))
        .routes(routes!(transfers::start, transfers::list))
        .routes(routes!(transfers::show))
        .routes(routes!(transfers::accept))
        .routes(routes!(transfers::decline))
        .routes(routes!(transfers::cancel))
        .routes(routes!(transfers::thread))
        .routes(routes!(transfers::force))
        .routes(routes!(transfers::release))
        .routes(routes!(transfers::hand_back))
        .routes(routes!(handovers::start, handovers::list))
        .routes(routes!(handovers::show))
        .routes(routes!(handovers::lines))
        .routes(routes!(handovers::decide))
        .routes(routes!(handovers::run))
        .routes(routes!(handovers::pause))
        .routes(routes!(handovers::resume))
        .routes(routes!(handovers::cancel))
        .routes(routes!(handovers::roll_back))
        .routes(routes!(lines::tenures))
        .routes(routes!(versions::of_conversation))
        .routes(routes!(versions::of_participant))
        .routes(routes!(versions::of_message))
        .routes(routes!(completeness::total))
        .routes(routes!(completeness::of_conversation))
        .routes(routes!(health::list))
        .routes(routes!(health::show))
        .routes(routes!(health::repair))
        .routes(routes!(agents::list))
        .routes(routes!(agents::show, agents::put, agents::remove))
        .routes(routes!(availability::put))
        .routes(routes!(agents::supervisors))
        .routes(routes!(people_import::import))
        .routes(routes!(people_import::export))
        .routes(routes!(teams::list))
        .routes(routes!(teams::show, teams::put, teams::remove))
        .routes(routes!(teams::on_call))
        .routes(routes!(teams::candidates))
        .routes(routes!(calendars::show))
        .routes(routes!(calendars::deadline))
        .routes(routes!(numbers::list))
        .routes(routes!(numbers::show, numbers::put, numbers::remove))
        .routes(routes!(queue::list))
        .routes(routes!(queue::take))
        .routes(routes!(escalations::list))
        .routes(routes!(escalations::show))
        .routes(routes!(escalations::stop))
        .routes(routes!(escalations::ask))
        .routes(routes!(escalations::dry_run))
        .routes(routes!(escalations::list_policies))
        .routes(routes!(
            escalations::show_policy,
            escalations::put_policy,
            escalations::remove_policy
        ))
        .routes(routes!(escalations::backtest))
        .routes(routes!(webhooks::list))
        .routes(routes!(webhooks::show))
        .routes(routes!(webhooks::replay_all))
        .routes(routes!(webhooks::replay))
}

/// Those that may wait on purpose.
fn waiting_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(events::list))
}

/// Those whose bodies are large.
fn uploading_routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(media::upload))
}

/// JSON that is kept as text, as it was written; `None` where it is no JSON.
fn raw(text: Option<String>) -> Option<Box<RawValue>> {
    text.and_then(|text| RawValue::from_string(text).ok())
}

/// A 409 with its facts; they are an object, of names that a problem does not use itself.
fn conflict(code: &'static str, detail: &str, facts: Value) -> Problem {
    Problem::Conflict {
        code,
        detail: detail.to_owned(),
        facts: match facts {
            Value::Object(facts) => facts,
            _ => Map::new(),
        },
    }
}
