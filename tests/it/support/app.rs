//! The service as tests run it: the real router on a port, a real database, the sandbox in Twilio's place. Nothing runs
//! by itself: a test steps the work by hand, so that it sees every state in between.

use std::time::Duration;

use hookswitch::app::App;
use hookswitch::clock::Clock;
use hookswitch::config::{Account, Config, OptOutPolicy, PublicBaseUrl, SignatureMode, TransferMethod};
use hookswitch::group_text::{GroupText, NewGroupText, NewMember};
use hookswitch::ids::{ConversationSid, Identity, PhoneNumber};
use hookswitch::inbox::writer::Writing;
use hookswitch::sandbox::{IdentityReplacement, Sandbox, Settings, snapshot};
use hookswitch::setup;
use hookswitch::transfer::{self, IfOpen, Kind, NewTransfer, Transfer};
use hookswitch::web::server::{self, Limits};
use jiff::SignedDuration;
use secrecy::{ExposeSecret as _, SecretString};
use sqlx::PgPool;
use sqlx::pool::PoolConnection;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::database::{TestDatabase, database};
use super::event;

pub(crate) const LINE: &str = "+15017122661";
pub(crate) const OTHER_LINE: &str = "+15017122662";
pub(crate) const BUYER: &str = "+15555550101";
pub(crate) const PARTNER: &str = "+15555550102";
pub(crate) const TOKEN: &str = "sandbox-auth-token";
pub(crate) const ACCOUNT: &str = "AC00000000000000000000000000000001";

pub(crate) struct TestApp {
    pub(crate) app: App,
    pub(crate) sandbox: Sandbox,
    pub(crate) clock: Clock,
    /// Where it is another one.
    clock_at_twilio: Option<Clock>,
    pub(crate) url: String,
    pub(crate) database: TestDatabase,
    pub(crate) config: Config,
    http: reqwest::Client,
    shutdown: CancellationToken,
}

/// What a test may want to be otherwise.
pub(crate) struct Wanted {
    pub(crate) identity_replacement: IdentityReplacement,
    pub(crate) transfer_method: TransferMethod,
    pub(crate) signatures: SignatureMode,
    /// How long a call to Twilio may take.
    pub(crate) call_timeout: Duration,
    /// How far the service's clock is from Twilio's.
    pub(crate) clock_off: SignedDuration,
    /// Without a limit, since most tests hand a line over more often than people do.
    pub(crate) hops_per_hour: u32,
    pub(crate) release_to: Option<Identity>,
    /// How long Twilio takes to make a conversation active.
    pub(crate) activation_delay: Duration,
    pub(crate) opt_out: OptOutPolicy,
}

impl Default for Wanted {
    fn default() -> Self {
        Self {
            identity_replacement: IdentityReplacement::Update,
            transfer_method: TransferMethod::Auto,
            signatures: SignatureMode::Enforce,
            call_timeout: Duration::from_secs(10),
            clock_off: SignedDuration::ZERO,
            hops_per_hour: 0,
            release_to: None,
            activation_delay: Duration::from_millis(10),
            opt_out: OptOutPolicy::CarryOn,
        }
    }
}

impl TestApp {
    pub(crate) async fn start() -> Self {
        Self::start_with(Wanted::default()).await
    }

    pub(crate) async fn start_with(wanted: Wanted) -> Self {
        let at_twilio = Clock::ahead();
        let clock = match wanted.clock_off {
            SignedDuration::ZERO => at_twilio.clone(),
            off => {
                let clock = Clock::ahead();
                clock.advance(off);
                clock
            }
        };
        let database = database().await;
        let settings = Settings {
            identity_replacement: wanted.identity_replacement,
            activation_delay: wanted.activation_delay,
            ..Settings::default()
        };
        let sandbox = Sandbox::start(settings.clone(), at_twilio.clone()).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = config(&sandbox, settings, &url, &wanted);
        let app = App::new(config.clone(), database.options.clone(), clock.clone()).unwrap();
        let shutdown = CancellationToken::new();
        let writing = Writing {
            pool: app.pool.clone(),
            notices: app.notices.clone(),
            projector: None,
        };
        let (writer, _) = writing.start(&shutdown);
        server::serve(listener, app.router(writer), Limits::default(), shutdown.clone()).unwrap();
        for account in app.accounts.iter() {
            setup::apply(account, &config.http.public_base_url).await.unwrap();
        }
        Self {
            app,
            sandbox,
            clock,
            clock_at_twilio: (wanted.clock_off != SignedDuration::ZERO).then_some(at_twilio),
            url,
            database,
            config,
            http: http(),
            shutdown,
        }
    }

    /// The same service on the same database once more, as after a crash: with nothing but what is stored.
    pub(crate) fn restarted(&self) -> App {
        App::new(
            self.config.clone(),
            self.database.options.clone(),
            self.clock.clone(),
        )
        .unwrap()
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.app.pool
    }

    pub(crate) async fn conn(&self) -> PoolConnection<sqlx::Postgres> {
        self.app.pool.acquire().await.unwrap()
    }

    /// Lets everything happen that is under way, here and at Twilio, up to the present of the clock.
    pub(crate) async fn settle(&self) {
        self.settle_with(&self.app).await;
    }

    /// As [`TestApp::settle`], the work being done by another process.
    pub(crate) async fn settle_with(&self, app: &App) {
        for _ in 0..200 {
            self.sandbox.settled().await;
            let projected = app.projector.run_until_idle().await.unwrap();
            let ran =
                app.worker.run_until_idle().await.unwrap() + app.escalator.run_until_idle().await.unwrap();
            self.sandbox.settled().await;
            if projected + ran == 0 && app.projector.run_until_idle().await.unwrap() == 0 {
                return;
            }
        }
        panic!("the work does not come to an end");
    }

    /// Until somebody waits for a lock that another transaction has, which the task is expected to.
    pub(crate) async fn somebody_waits_for_a_lock<T>(&self, task: &tokio::task::JoinHandle<T>) {
        let waiting = "select (count(*))::text from pg_locks where not granted
            and pid in (select pid from pg_stat_activity where datname = current_database())";
        while super::tables::rows(self, waiting).await == ["0"] {
            assert!(!task.is_finished(), "it waits for nothing");
        }
    }

    /// As [`TestApp::settle`], with what is due a little later too: looks and reads that are put off.
    pub(crate) async fn settle_for(&self, time: SignedDuration) {
        self.settle().await;
        self.advance(time);
        self.settle().await;
    }

    /// Moves time on, here and at Twilio.
    pub(crate) fn advance(&self, time: SignedDuration) {
        self.clock.advance(time);
        if let Some(clock) = &self.clock_at_twilio {
            clock.advance(time);
        }
    }

    /// The group of the guide, active, its line held by `holder`.
    pub(crate) async fn group(&self, holder: Option<&str>) -> GroupText {
        let group = self.ask_for_group(holder).await;
        self.settle_for(SignedDuration::from_secs(3)).await;
        self.group_text(group.group_text_id).await
    }

    /// Another one, of these handsets.
    pub(crate) async fn group_of(&self, handsets: &[&str]) -> GroupText {
        let asked = new_group(handsets, Some("maya"));
        let group = self.app.api.group_texts.start(asked).await.unwrap();
        self.settle_for(SignedDuration::from_secs(3)).await;
        self.group_text(group.group_text_id).await
    }

    pub(crate) async fn ask_for_group(&self, holder: Option<&str>) -> GroupText {
        self.app
            .api
            .group_texts
            .start(new_group(&[BUYER, PARTNER], holder))
            .await
            .unwrap()
    }

    pub(crate) async fn group_text(&self, id: Uuid) -> GroupText {
        hookswitch::group_text::find(&mut *self.conn().await, id)
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) async fn transfer(&self, id: Uuid) -> Transfer {
        transfer::find(&mut *self.conn().await, id)
            .await
            .unwrap()
            .unwrap()
    }

    pub(crate) fn new_transfer(sid: &ConversationSid, kind: Kind, to: &str) -> NewTransfer {
        NewTransfer {
            conversation_sid: sid.clone(),
            line: None,
            kind,
            to: to.parse().unwrap(),
            requested_by: "crm".to_owned(),
            then: Vec::new(),
            reason: None,
            note: None,
            introduction: None,
            offer_timeout: None,
            if_open: IfOpen::default(),
        }
    }

    /// Starts a transfer of the conversation's only line.
    pub(crate) async fn start_transfer(&self, sid: &ConversationSid, kind: Kind, to: &str) -> Transfer {
        self.app
            .api
            .transfers
            .start(Self::new_transfer(sid, kind, to))
            .await
            .unwrap()
    }

    /// Who the ledger says has held the line, in order.
    pub(crate) async fn holders(&self, sid: &ConversationSid) -> Vec<Option<String>> {
        hookswitch::ledger::tenures_of_conversation(&mut *self.conn().await, sid.as_str())
            .await
            .unwrap()
            .into_iter()
            .filter(|tenure| tenure.line == LINE)
            .map(|tenure| tenure.holder)
            .collect()
    }

    /// Who is behind the line at Twilio.
    pub(crate) fn holders_at_twilio(&self, sid: &ConversationSid) -> Vec<Option<String>> {
        self.sandbox
            .conversations()
            .into_iter()
            .filter(|conversation| conversation.sid.as_str() == sid.as_str())
            .flat_map(|conversation| conversation.participants)
            .filter(|participant| {
                participant
                    .projected_address
                    .as_ref()
                    .is_some_and(|line| line.as_str() == LINE)
            })
            .map(|participant| participant.identity)
            .collect()
    }

    /// Runs `hookswitch` on the database and the account of this app, and nothing else of the environment. Answers whether it
    /// succeeded, and what it said.
    pub(crate) async fn command(&self, args: &[&str]) -> (bool, String) {
        let account = &self.config.twilio.accounts[0];
        let ended = tokio::process::Command::new(env!("CARGO_BIN_EXE_hookswitch"))
            .args(args)
            .env_clear()
            .env("DATABASE_URL", self.database.url().expose_secret())
            .env("HOOKSWITCH__TWILIO__BASE_URL", self.sandbox.base_url())
            .env("TWILIO_ACCOUNT_SID", ACCOUNT)
            .env("TWILIO_AUTH_TOKEN", TOKEN)
            .env("TWILIO_SERVICE_SID", account.service_sid.as_str())
            .env(
                "TWILIO_MESSAGING_SERVICE_SID",
                account.messaging_service_sid.as_str(),
            )
            .env("TWILIO_NUMBERS", LINE)
            .current_dir(std::env::temp_dir())
            .output()
            .await
            .unwrap();
        let said = format!(
            "{}{}",
            String::from_utf8(ended.stdout).unwrap(),
            String::from_utf8(ended.stderr).unwrap()
        );
        (ended.status.success(), said)
    }

    /// Delivers a webhook as Twilio does: signed, over HTTP, and answered 200.
    pub(crate) async fn deliver(&self, form: &[(String, String)]) {
        let url = format!("{}/webhooks/twilio/conversations", self.url);
        let signature = hookswitch::twilio::signature::sign(TOKEN, &url, form);
        let sent = self
            .http
            .post(url)
            .header("X-Twilio-Signature", signature)
            .form(form)
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), 200);
    }

    /// Delivers a body of Event Streams as Twilio does: signed, over HTTP, and answered 200.
    pub(crate) async fn deliver_events(&self, events: &[serde_json::Value]) {
        let sent = event::request(
            &self.http,
            &self.url,
            &serde_json::Value::from(events).to_string(),
        );
        assert_eq!(sent.send().await.unwrap().status(), 200);
    }

    /// What the emulated account holds of one conversation.
    pub(crate) fn at_twilio(&self, sid: &ConversationSid) -> snapshot::Conversation {
        let found = self
            .sandbox
            .conversations()
            .into_iter()
            .find(|one| one.sid == *sid);
        found.expect("Twilio has the conversation")
    }

    /// Texts from a handset to a set of numbers.
    pub(crate) async fn text(&self, from: &str, to: &[&str], body: &str) {
        let url = format!(
            "{}/sandbox/v1/handsets/{}/messages",
            self.sandbox.base_url(),
            from.replace('+', "%2B")
        );
        let response = self
            .http
            .post(url)
            .basic_auth(ACCOUNT, Some(TOKEN))
            .json(&serde_json::json!({ "to": to, "body": body }))
            .send()
            .await
            .unwrap();
        assert!(
            response.status().is_success(),
            "{}",
            response.text().await.unwrap()
        );
    }

    /// What a handset has received: the number that it came from, and the text.
    pub(crate) fn received(&self, handset: &str) -> Vec<(String, String)> {
        let number: PhoneNumber = handset.parse().unwrap();
        self.sandbox
            .texts(&number)
            .into_iter()
            .map(|text| (text.from.to_string(), text.body.unwrap_or_default()))
            .collect()
    }
}

impl Drop for TestApp {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A group of these handsets and our line, about to be asked for.
pub(crate) fn new_group(handsets: &[&str], holder: Option<&str>) -> NewGroupText {
    let handset = |number: &str| NewMember {
        address: Some(number.to_owned()),
        ..NewMember::default()
    };
    let line = NewMember {
        line: Some(LINE.to_owned()),
        holder: holder.map(str::to_owned),
        address: None,
    };
    NewGroupText {
        friendly_name: Some("Home-buying journey".to_owned()),
        attributes: None,
        members: handsets
            .iter()
            .map(|number| handset(number))
            .chain([line])
            .collect(),
        choice: hookswitch::group_text::Choice::default(),
        requested_by: "crm".to_owned(),
    }
}

pub(crate) fn http() -> reqwest::Client {
    hookswitch::twilio::install_tls();
    reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .build()
        .unwrap()
}

pub(crate) fn sid_of(group: &GroupText) -> ConversationSid {
    group.conversation_sid.as_deref().unwrap().parse().unwrap()
}

fn config(sandbox: &Sandbox, settings: Settings, url: &str, wanted: &Wanted) -> Config {
    let mut config = Config::load_from(None, &std::collections::HashMap::new()).unwrap();
    config.twilio.call_timeout = wanted.call_timeout;
    config.transfer.hops_per_hour = wanted.hops_per_hour;
    config.transfer.release_to.clone_from(&wanted.release_to);
    config.twilio.base_url = sandbox.base_url().parse().unwrap();
    config.http.public_base_url = PublicBaseUrl::try_from(url).unwrap();
    config.twilio.accounts = vec![Account {
        account_sid: settings.account_sid,
        auth_tokens: vec![SecretString::from(TOKEN)],
        api_key_sid: None,
        api_key_secret: None,
        service_sid: settings.service_sid,
        messaging_service_sid: settings.messaging_service_sid,
        numbers: settings.numbers,
        signatures: wanted.signatures,
        transfer_method: wanted.transfer_method,
        opt_out: wanted.opt_out,
        max_in_flight: 10,
    }];
    config
}
