//! What `dev` and `demo` share: PostgreSQL, the sandbox and the service, each reached through its own port.

use anyhow::Context as _;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::postgres::PgConnectOptions;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::accounts::Accounts;
use crate::app::{App, Roles};
use crate::clock::Clock;
use crate::config::{Account, Config, OptOutPolicy, PublicBaseUrl, SignatureMode, TransferMethod};
use crate::sandbox::{self, Sandbox};
use crate::{db, setup};

/// Everything that runs.
pub(super) struct Stage {
    pub(super) sandbox: Option<Sandbox>,
    pub(super) service_url: String,
    pub(super) pool: sqlx::PgPool,
    shutdown: CancellationToken,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Stage {
    /// Starts the service on `listener`, and the sandbox first where no Twilio account is configured.
    pub(super) async fn start(
        mut config: Config,
        options: PgConnectOptions,
        listener: TcpListener,
        sandbox: sandbox::Settings,
    ) -> anyhow::Result<Self> {
        let service_url = format!("http://{}", listener.local_addr()?);
        db::migrate(&options).await?;
        let sandbox = if config.twilio.accounts.is_empty() {
            Some(start_sandbox(&mut config, sandbox, &service_url).await?)
        } else {
            None
        };
        let shutdown = CancellationToken::new();
        let accounts = Accounts::new(&config.twilio)?;
        let base = config.http.public_base_url.clone();
        let app = App::new(config, options, Clock::system())?;
        let pool = app.pool.clone();
        let serving = tokio::spawn(app.run(listener, Roles::default(), shutdown.clone()));
        if sandbox.is_some() {
            for account in accounts.iter() {
                setup::apply(account, &base)
                    .await
                    .context("the sandbox refused its set-up")?;
            }
        }
        Ok(Self {
            sandbox,
            service_url,
            pool,
            shutdown,
            serving,
        })
    }

    /// Takes everything down in order.
    pub(super) async fn stop(self) -> anyhow::Result<()> {
        if let Some(sandbox) = self.sandbox {
            sandbox.stop().await;
        }
        self.shutdown.cancel();
        self.serving.await??;
        self.pool.close().await;
        Ok(())
    }
}

async fn start_sandbox(
    config: &mut Config,
    settings: sandbox::Settings,
    service_url: &str,
) -> anyhow::Result<Sandbox> {
    let account = Account {
        account_sid: settings.account_sid.clone(),
        auth_tokens: vec![SecretString::from(settings.auth_token.expose_secret().to_owned())],
        api_key_sid: None,
        api_key_secret: None,
        service_sid: settings.service_sid.clone(),
        messaging_service_sid: settings.messaging_service_sid.clone(),
        numbers: settings.numbers.clone(),
        signatures: SignatureMode::Enforce,
        transfer_method: TransferMethod::Auto,
        opt_out: OptOutPolicy::CarryOn,
        max_in_flight: 10,
    };
    let listen = settings.listen;
    let sandbox = Sandbox::start(settings, Clock::system())
        .await
        .with_context(|| format!("the sandbox cannot listen on {listen}"))?;
    config.twilio.accounts = vec![account];
    config.twilio.base_url = Url::parse(&sandbox.base_url())?;
    config.http.public_base_url =
        PublicBaseUrl::try_from(service_url).map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(sandbox)
}
