//! Puts the service together, runs it, and takes it down in order.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use sqlx::PgPool;
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::accounts::Accounts;
use crate::api::{self, Api};
use crate::assignment;
use crate::audit::{self, Sealer};
use crate::clock::Clock;
use crate::config::Config;
use crate::db::{self, ConnectError, Notices};
use crate::erasure::{self, Eraser, Erasures};
use crate::escalation::{self, Acting, Escalator};
use crate::events::Via;
use crate::group_text::{self, GroupTexts};
use crate::handover::{self, Handovers};
use crate::health::{self, Health};
use crate::inbox::pace::Pace;
use crate::inbox::process::Projector;
use crate::inbox::receive::{Inbox, Signer};
use crate::inbox::writer::{Writer, Writing};
use crate::inbox::{receive, replay};
use crate::mirror;
use crate::opt_out::{self, OptOuts};
use crate::outbox::{self, Outbox};
use crate::projection::read::Reader;
use crate::queue::{self, Handler, TaskKind, Worker};
use crate::retention::Retention;
use crate::sweep::{Sweeper, Totals};
use crate::telemetry;
use crate::transfer::{self, Transfers};
use crate::twilio::BuildError;
use crate::web::fallback::not_found;
use crate::web::problem::Problem;
use crate::web::request;
use crate::web::server::{self, Limits};

/// The service, put together and not yet running.
pub struct App {
    pub config: Config,
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
    pub notices: Notices,
    pub api: Api,
    pub projector: Projector,
    pub worker: Worker,
    pub escalator: Escalator,
    pub sweeper: Sweeper,
    pub sealer: Sealer,
    options: PgConnectOptions,
}

/// What those who run the service look at.
#[derive(Clone)]
struct Operations {
    pool: PgPool,
    clock: Clock,
    completeness: Totals,
}

/// What this process does of what the service does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Roles {
    /// Takes webhooks and API calls.
    pub web: bool,
    /// Projects webhooks and runs tasks.
    pub worker: bool,
}

impl Default for Roles {
    fn default() -> Self {
        Self {
            web: true,
            worker: true,
        }
    }
}

/// Why the service cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum BuildAppError {
    #[error("setting twilio: {0}")]
    Twilio(#[from] BuildError),
    #[error(transparent)]
    Health(#[from] health::UnknownCode),
}

impl App {
    /// Puts the service together. Nothing is connected to yet.
    pub fn new(config: Config, options: PgConnectOptions, clock: Clock) -> Result<Self, BuildAppError> {
        telemetry::metrics();
        let pool = db::pool_with(options.clone(), config.database.max_connections);
        let accounts = Accounts::new(&config.twilio)?;
        let notices = Notices::default();
        let transfers = Transfers {
            pool: pool.clone(),
            clock: clock.clone(),
            settings: config.transfer.clone(),
        };
        let group_texts = GroupTexts {
            pool: pool.clone(),
            clock: clock.clone(),
            accounts: accounts.clone(),
        };
        let handovers = Handovers {
            pool: pool.clone(),
            clock: clock.clone(),
            accounts: accounts.clone(),
            transfers: transfers.clone(),
            settings: config.handover,
        };
        let outbox = Outbox {
            pool: pool.clone(),
            clock: clock.clone(),
        };
        let projector = Projector {
            pool: pool.clone(),
            clock: clock.clone(),
            batch: config.projection.batch,
            notices: notices.clone(),
            pace: Pace::default(),
        };
        let settings = queue::Settings {
            concurrency: config.queue.concurrency,
            poll: config.queue.poll,
            ..queue::Settings::default()
        };
        let health = Health::new(pool.clone(), clock.clone(), accounts.clone(), &config.health)?;
        let mut handlers = handlers(&config, &pool, &clock, &accounts, &transfers, &health);
        handlers.push((handover::WORK_TASK, Arc::new(handover::Work(handovers.clone()))));
        handlers.push((
            handover::RETURN_TASK,
            Arc::new(handover::Return(handovers.clone())),
        ));
        let worker = Worker::new(pool.clone(), clock.clone(), handlers, settings);
        let sweeper = Sweeper::new(
            pool.clone(),
            clock.clone(),
            accounts.clone(),
            &config.sweep,
            health.clone(),
        );
        let sealer = Sealer {
            pool: pool.clone(),
            clock: clock.clone(),
            settings: Arc::new(config.audit.clone()),
        };
        let escalator = Escalator {
            pool: pool.clone(),
            clock: clock.clone(),
            settings: config.escalation,
        };
        let api = Api {
            pool: pool.clone(),
            clock: clock.clone(),
            transfers,
            group_texts,
            handovers,
            outbox,
            media_kept_max: config.media.kept_max,
            opt_outs: OptOuts {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
                via: Via::Api,
            },
            completeness: Totals::new(pool.clone(), clock.clone()),
            erasures: Erasures {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
            },
            health,
            notices: notices.clone(),
            shutdown: CancellationToken::new(),
        };
        Ok(Self {
            config,
            pool,
            clock,
            accounts,
            notices,
            api,
            projector,
            worker,
            escalator,
            sweeper,
            sealer,
            options,
        })
    }

    /// Everything that is served over HTTP. `writer` is where webhooks go.
    pub fn router(&self, writer: Writer) -> Router {
        let inbox = Inbox {
            accounts: Arc::new(signers(&self.config)),
            public_base_url: self.config.http.public_base_url.clone(),
            writer,
            pool: self.pool.clone(),
            clock: self.clock.clone(),
        };
        let router = receive::router(inbox, self.config.http.pre_action_hook)
            .merge(self.operations())
            .merge(api::router(self.api.clone()));
        request::attend(router.fallback(not_found))
    }

    /// For those who run the service: whether it lives, whether it is ready, and its metrics.
    fn operations(&self) -> Router {
        Router::new()
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(Operations {
                pool: self.pool.clone(),
                clock: self.clock.clone(),
                completeness: self.api.completeness.clone(),
            })
    }

    /// Serves and works until `shutdown`, then ends in order: no new requests, those in flight answered, webhooks handed
    /// in written, work under way finished or left to its lease.
    ///
    /// The process outlives its database: until that is there and migrated, requests are answered 503.
    ///
    /// A process without the role `web` serves its health and metrics alone.
    pub async fn run(
        self,
        listener: TcpListener,
        roles: Roles,
        shutdown: CancellationToken,
    ) -> io::Result<()> {
        let (writing, working) = (CancellationToken::new(), CancellationToken::new());
        let writing_up = Writing {
            pool: self.pool.clone(),
            notices: self.notices.clone(),
            // A process that does not project leaves it to those that do.
            projector: roles.worker.then(|| self.projector.clone()),
        };
        let (writer, written) = writing_up.start(&writing);
        let limits = Limits {
            connections_max: self.config.http.max_connections,
            head_time_limit: self.config.http.header_timeout,
            body_time_limit: self.config.http.body_timeout,
            shutdown_time_limit: self.config.http.shutdown_grace,
            ..Limits::default()
        };
        let router = if roles.web {
            self.router(writer)
        } else {
            self.operations()
        };
        let server = server::serve(listener, router, limits, shutdown.clone())?;
        info!(address = %server.address(), "listening");
        tokio::task::spawn_blocking(group_text::validate::warm_up);
        tokio::spawn({
            let (asked, feed) = (shutdown.clone(), self.api.shutdown.clone());
            async move {
                asked.cancelled().await;
                feed.cancel();
            }
        });
        let tasks = TaskTracker::new();
        tasks.spawn(self.work(roles, tasks.clone(), shutdown.clone(), working.clone()));

        let cut = server.ended().await?;
        if cut > 0 {
            warn!(connections = cut, "cut connections that did not end in time");
        }
        writing.cancel();
        written.await.ok();
        working.cancel();
        tasks.close();
        if tokio::time::timeout(WORK_GRACE, tasks.wait()).await.is_err() {
            warn!("left work to its leases, another run goes on with it");
        }
        Ok(())
    }

    /// Brings the schema up to date as soon as the database is there, then starts everything that works on it.
    async fn work(
        self,
        roles: Roles,
        tasks: TaskTracker,
        shutdown: CancellationToken,
        working: CancellationToken,
    ) {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = migrate_until_done(&self.options) => {}
        }
        info!("the database is ready");
        tasks.spawn(self.notices.clone().listen(self.pool.clone(), working.clone()));
        tasks.spawn(
            self.notices
                .clone()
                .tell_others(self.pool.clone(), working.clone()),
        );
        if !roles.worker {
            return;
        }
        for _ in 0..self.config.projection.workers {
            tasks.spawn(self.projector.clone().run(working.clone()));
        }
        tasks.spawn(
            self.escalator
                .clone()
                .run(self.notices.events.subscribe(), shutdown.clone()),
        );
        for account in self.accounts.iter() {
            let sweeper = self.sweeper.clone();
            tasks.spawn(sweeper.keep_sweeping(account.clone(), shutdown.clone()));
        }
        tasks.spawn(self.sealer.clone().keep_sealing(shutdown.clone()));
        let retention = Retention {
            pool: self.pool.clone(),
            clock: self.clock.clone(),
            settings: self.config.retention,
        };
        tasks.spawn(retention.keep_running(shutdown.clone()));
        tasks.spawn(keep_house(
            self.pool.clone(),
            self.clock.clone(),
            self.config.media.unused_after,
            working.clone(),
        ));
        // No new tasks once the shutdown has begun; those that run are given their time.
        self.worker.run(Arc::clone(&self.notices.tasks), shutdown).await;
    }
}

/// How long running tasks are waited for when the process ends. With the server's grace it stays below 30 s.
const WORK_GRACE: Duration = Duration::from_secs(4);

async fn migrate_until_done(options: &PgConnectOptions) {
    let mut pause = Duration::from_millis(200);
    while let Err(error) = db::migrate(options).await {
        match error {
            ConnectError::Migrate(_) => tracing::error!("{error}"),
            ConnectError::Unreachable(_) | ConnectError::Url => warn!("{error}"),
        }
        tokio::time::sleep(pause).await;
        // A database that comes is noticed within a second.
        pause = (pause * 2).min(Duration::from_millis(500));
    }
}

/// What is done at the start and once in a while: answers kept for repeated calls are forgotten after two days, media that no
/// message took after its time, and what was done about opt-outs, or waits for it, is looked at again.
async fn keep_house(pool: PgPool, clock: Clock, media_unused_after: Duration, cancel: CancellationToken) {
    loop {
        if let Err(error) = tidy_up(&pool, clock.now(), media_unused_after).await {
            warn!(
                error = &error as &dyn std::error::Error,
                "cannot do what is done once in a while"
            );
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(Duration::from_hours(1)) => {}
        }
    }
}

async fn tidy_up(pool: &PgPool, now: Timestamp, media_unused_after: Duration) -> Result<(), sqlx::Error> {
    let mut conn = pool.acquire().await?;
    let unused_for = SignedDuration::try_from(media_unused_after).unwrap_or(SignedDuration::MAX);
    api::idempotency::purge(&mut conn, now - SignedDuration::from_hours(48)).await?;
    outbox::media::purge_unused(&mut conn, now - unused_for).await?;
    outbox::look_at_held(&mut conn, now).await?;
    opt_out::put_review(&mut conn, None, now).await
}

fn handlers(
    config: &Config,
    pool: &PgPool,
    clock: &Clock,
    accounts: &Accounts,
    transfers: &Transfers,
    health: &Health,
) -> Vec<(TaskKind, Arc<dyn Handler>)> {
    let (pool, clock, accounts) = (pool.clone(), clock.clone(), accounts.clone());
    let post_seal = audit::Post::new(pool.clone(), Arc::new(config.audit.clone()));
    vec![
        (audit::POST_TASK, Arc::new(post_seal)),
        (
            erasure::ERASE_TASK,
            Arc::new(Eraser {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
                budget: erasure::BUDGET,
            }),
        ),
        (
            mirror::READ_TASK,
            Arc::new(Reader {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
            }),
        ),
        (
            group_text::CREATE_TASK,
            Arc::new(group_text::Create {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
            }),
        ),
        (
            group_text::CHECK_TASK,
            Arc::new(group_text::Check {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
                settings: config.group_text,
            }),
        ),
        (
            transfer::SWAP_TASK,
            Arc::new(transfer::Swap {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
            }),
        ),
        (
            transfer::EXPIRE_TASK,
            Arc::new(transfer::Expiry(transfers.clone())),
        ),
        (escalation::ACT_TASK, Arc::new(Acting(transfers.clone()))),
        (
            assignment::LOOK_TASK,
            Arc::new(assignment::Look {
                pool: pool.clone(),
                clock: clock.clone(),
            }),
        ),
        (
            outbox::SEND_TASK,
            Arc::new(outbox::Send {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
                health: health.clone(),
            }),
        ),
        (
            opt_out::RESUME_TASK,
            Arc::new(outbox::Resume {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
            }),
        ),
        (
            opt_out::APPLY_TASK,
            Arc::new(opt_out::Apply {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
            }),
        ),
        (
            opt_out::REVIEW_TASK,
            Arc::new(opt_out::Review {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts: accounts.clone(),
            }),
        ),
        (
            opt_out::CLOSE_TASK,
            Arc::new(opt_out::Close {
                pool: pool.clone(),
                clock: clock.clone(),
                accounts,
            }),
        ),
        (opt_out::RESOLVE_TASK, Arc::new(opt_out::Resolve { pool, clock })),
        (health::REPAIR_TASK, Arc::new(health::Repairer(health.clone()))),
    ]
}

fn signers(config: &Config) -> HashMap<crate::ids::AccountSid, Signer> {
    config
        .twilio
        .accounts
        .iter()
        .map(|account| {
            let signer = Signer {
                tokens: account.auth_tokens.clone(),
                mode: account.signatures,
            };
            (account.account_sid.clone(), signer)
        })
        .collect()
}

/// The process is there; says nothing of its database, so that a supervisor does not restart us for that.
async fn healthz() -> Response {
    axum::Json(serde_json::json!({ "status": "ok", "version": env!("CARGO_PKG_VERSION") })).into_response()
}

/// Webhooks are taken and the API answers: the database is there and has our schema.
async fn readyz(State(Operations { pool, .. }): State<Operations>) -> Response {
    let look = async {
        let mut conn = pool.acquire().await?;
        replay::backlog(&mut conn).await
    };
    match tokio::time::timeout(Duration::from_millis(1_500), look).await {
        Ok(Ok(backlog)) => {
            axum::Json(serde_json::json!({ "status": "ready", "webhooks_pending": backlog.pending }))
                .into_response()
        }
        Ok(Err(_)) | Err(_) => Problem::Unavailable.into_response(),
    }
}

async fn metrics(
    State(Operations {
        pool,
        clock,
        completeness,
    }): State<Operations>,
) -> Response {
    let look = async {
        let mut conn = pool.acquire().await?;
        let backlog = replay::backlog(&mut conn).await?;
        let findings = health::count_open(&mut conn).await?;
        let (waiting, _) = assignment::count_waiting(&mut conn).await?;
        let lines = escalation::count_lines(&mut conn, clock.now()).await?;
        let unknown = outbox::count_unknown(&mut conn).await?;
        let tasks = queue::counts(&mut conn).await?;
        Ok::<_, sqlx::Error>((backlog, tasks, findings, waiting, lines, unknown))
    };
    // Of many conversations it may take long: then these gauges are as they were, and are set for the next time.
    let publishing = tokio::spawn(async move { completeness.publish().await });
    tokio::time::timeout(Duration::from_millis(1_500), publishing)
        .await
        .ok();
    let database = tokio::time::timeout(Duration::from_millis(1_500), look).await;
    if let Ok(Ok((backlog, tasks, findings, waiting, (due, watched), unknown))) = database {
        gauge("hookswitch_sends_needing_attention", unknown);
        gauge("hookswitch_lines_waiting", waiting);
        gauge("hookswitch_escalation_lines_due", due);
        gauge("hookswitch_escalation_lines_watched", watched);
        gauge("hookswitch_webhooks_pending", backlog.pending);
        gauge("hookswitch_webhooks_set_aside", backlog.set_aside);
        gauge("hookswitch_tasks_ready", tasks.ready);
        gauge("hookswitch_tasks_running", tasks.running);
        gauge("hookswitch_tasks_dead", tasks.dead);
        for (code, open) in findings {
            set(
                metrics::gauge!("hookswitch_line_findings", "code" => code.as_str()),
                open,
            );
        }
        gauge("hookswitch_database_up", 1);
    } else {
        gauge("hookswitch_database_up", 0);
    }
    (
        [(header::CONTENT_TYPE, "text/plain; version=0.0.4")],
        telemetry::metrics().render(),
    )
        .into_response()
}

fn gauge(name: &'static str, value: i64) {
    set(metrics::gauge!(name), value);
}

#[expect(
    clippy::cast_precision_loss,
    reason = "a gauge is a float, and counts of rows stay far below 2^52"
)]
#[expect(clippy::needless_pass_by_value, reason = "it is made where it is set")]
fn set(gauge: metrics::Gauge, value: i64) {
    gauge.set(value as f64);
}
