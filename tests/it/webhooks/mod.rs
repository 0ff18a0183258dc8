//! Webhooks through real HTTP: taken, refused, and projected, whatever is in them.

mod accepted;
mod crowd;
mod events;
mod projected;
mod refused;
mod unverified;

use hookswitch::app::App;
use hookswitch::config::Config;
use hookswitch::inbox::writer::Writing;
use hookswitch::web::server::{self, Limits};
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::support::app::TestApp;

/// A second service beside a [`TestApp`], with other settings. It ends with this value.
struct Beside {
    url: String,
    _running: DropGuard,
}

/// Serves the same database with other settings.
async fn beside(app: &TestApp, change: impl FnOnce(&mut Config)) -> Beside {
    let mut config = app.config.clone();
    change(&mut config);
    serve(config, app.database.options.clone(), app).await
}

async fn serve(config: Config, options: PgConnectOptions, app: &TestApp) -> Beside {
    let service = App::new(config, options, app.clock.clone()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let shutdown = CancellationToken::new();
    let writing = Writing {
        pool: service.pool.clone(),
        notices: service.notices.clone(),
        projector: None,
    };
    let (writer, _) = writing.start(&shutdown);
    let server = server::serve(
        listener,
        service.router(writer),
        Limits::default(),
        shutdown.clone(),
    )
    .unwrap();
    Beside {
        url: format!("http://{}", server.address()),
        _running: shutdown.drop_guard(),
    }
}
