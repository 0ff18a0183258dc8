//! Lines that cannot be written in: found by sweeps and by Twilio's answers, told by the API, and repaired where that is
//! safe.

use hookswitch::api::auth::{self, Scope};
use hookswitch::app::App;
use hookswitch::config::RepairPolicy;
use hookswitch::ids::{ConversationSid, ParticipantSid};
use hookswitch::outbox::{self, NewOutboundMessage, State};
use hookswitch::sandbox::{Effect, Faults, RestFault};
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::{ConversationUpdate, Member, ParticipantUpdate};
use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::support::app::{ACCOUNT, BUYER, LINE, PARTNER, TOKEN, TestApp, http, sid_of};
use crate::support::sql::values;

/// The API of a running service.
struct Api<'a> {
    app: &'a TestApp,
    key: String,
}

impl<'a> Api<'a> {
    async fn new(app: &'a TestApp) -> Self {
        let scopes = [Scope::HealthRead, Scope::HealthWrite];
        let key = auth::create(&mut *app.conn().await, "crm", &scopes, app.clock.now())
            .await
            .unwrap();
        Self {
            app,
            key: key.key.expose_secret().to_owned(),
        }
    }

    async fn get(&self, path: &str) -> Value {
        let request = http().get(format!("{}{path}", self.app.url));
        let answer = request.bearer_auth(&self.key).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        answer.json().await.unwrap()
    }

    async fn repair(&self, sid: &ConversationSid, body: &Value) -> (u16, Value) {
        let request = http().post(format!("{}/v1/health/lines/{sid}/repairs", self.app.url));
        let key = hookswitch::ids::new_id().to_string();
        let request = request.bearer_auth(&self.key).header("Idempotency-Key", key);
        let answer = request.json(body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Code and offered repair of what is open in the conversation.
    async fn open(&self, sid: &ConversationSid) -> Vec<(String, Value)> {
        let health = self.get(&format!("/v1/health/lines/{sid}")).await;
        let findings = health["findings"].as_array().unwrap().iter();
        findings
            .filter(|one| one["resolved_at"].is_null())
            .map(|one| (one["code"].as_str().unwrap().to_owned(), one["repair"].clone()))
            .collect()
    }

    /// The newest finding of a code, open or not.
    async fn finding(&self, sid: &ConversationSid, code: &str) -> Value {
        let health = self.get(&format!("/v1/health/lines/{sid}")).await;
        let mut findings = health["findings"].as_array().unwrap().iter();
        findings.find(|one| one["code"] == code).unwrap().clone()
    }
}

/// Sends as whoever holds the line, and answers what became of it.
async fn write(app: &TestApp, sid: &ConversationSid, body: &str) -> (State, Option<String>) {
    let new = NewOutboundMessage {
        conversation_sid: sid.clone(),
        line: None,
        as_holder: None,
        body: body.to_owned(),
        attributes: None,
        requested_by: "crm".to_owned(),
    };
    let sent = app.app.api.outbox.send(new).await.unwrap();
    app.settle().await;
    let ended = outbox::find(&mut *app.conn().await, sent.outbound_message_id).await;
    let ended = ended.unwrap().unwrap();
    (ended.state, ended.outcome_code)
}

/// Who is on our number at Twilio.
fn seat(app: &TestApp, sid: &ConversationSid) -> ParticipantSid {
    let mut seats = app.at_twilio(sid).participants.into_iter();
    let seat = seats.find(|one| one.projected_address.is_some());
    seat.expect("our number is in the group").sid
}

/// What the log says of findings and repairs, in its order.
async fn told(app: &TestApp) -> Vec<String> {
    values(
        app.pool(),
        "select concat_ws(' ', type, data::jsonb ->> 'code', data::jsonb ->> 'repair_outcome') from event
         where type like 'line.finding%' or type like 'line.repair%' order by event_id",
    )
    .await
}

#[tokio::test]
async fn a_group_whose_answers_are_all_refused_is_found_though_messages_come_in() {
    let app = TestApp::start().await;
    let api = Api::new(&app).await;
    let sid = sid_of(&app.group(Some("maya")).await);
    assert_eq!(write(&app, &sid, "Welcome!").await.0, State::Sent);
    app.sweep().await;
    assert_eq!(api.open(&sid).await, []);

    // Somebody changed the holder at Twilio, and we never heard of it.
    app.lose_webhooks();
    let to_noor = ParticipantUpdate {
        identity: Some("noor".parse().unwrap()),
        ..ParticipantUpdate::default()
    };
    let client = &app.account().client;
    client
        .update_participant(&sid, &seat(&app, &sid), &to_noor)
        .await
        .unwrap();
    app.sandbox.settled().await;
    app.deliver_webhooks();
    for number in 1..=3 {
        app.text(BUYER, &[LINE, PARTNER], "Is anybody there?").await;
        app.settle().await;
        let refused = (State::Failed, Some("twilio_50513".to_owned()));
        assert_eq!(write(&app, &sid, "Yes!").await, refused);
        let health = api.get(&format!("/v1/health/lines/{sid}")).await;
        assert_eq!(health["lines"][0]["refused_in_a_row"], number);
    }

    let found = api.finding(&sid, "author_not_in_group").await;
    assert_eq!(
        (
            &found["severity"],
            &found["seen_by"],
            &found["line"],
            &found["repair"]
        ),
        (
            &json!("bad"),
            &json!("answer"),
            &json!(LINE),
            &json!("read_again")
        )
    );
    let evidence = &found["evidence"];
    assert_eq!(
        (&evidence["error_code"], &evidence["refused_in_a_row"]),
        (&json!("50513"), &json!(3))
    );
    assert!(evidence["last_message_at"].as_str() > evidence["refused_since"].as_str());
    let metrics = http().get(format!("{}/metrics", app.url)).send().await.unwrap();
    let metrics = metrics.text().await.unwrap();
    assert!(metrics.contains("hookswitch_line_findings{code=\"author_not_in_group\"}"));
    assert!(metrics.contains("hookswitch_mirror_unverified_seconds "));

    let ask = json!({ "code": "author_not_in_group", "requested_by": "maya" });
    let (status, queued) = api.repair(&sid, &ask).await;
    assert_eq!((status, &queued["last_repair"]["state"]), (202, &json!("queued")));
    let (status, again) = api.repair(&sid, &ask).await;
    assert_eq!(
        (status, &again["last_repair"]),
        (202, &queued["last_repair"]),
        "it waits already"
    );
    app.settle().await;
    let found = api.finding(&sid, "author_not_in_group").await;
    assert_eq!(found["last_repair"]["outcome"], "read_again");
    assert_eq!(
        found["resolved_at"],
        Value::Null,
        "only an accepted message proves it"
    );

    assert_eq!(app.holders(&sid).await.last(), Some(&Some("noor".to_owned())));
    assert_eq!(write(&app, &sid, "Noor here.").await.0, State::Sent);
    assert_eq!(api.open(&sid).await, []);
    assert_eq!(
        told(&app).await,
        [
            "line.finding_opened author_not_in_group",
            "line.repair_queued author_not_in_group",
            "line.repair_done author_not_in_group read_again",
            "line.finding_resolved author_not_in_group read_again",
        ]
    );
}

#[tokio::test]
async fn our_number_that_left_is_added_again_with_its_holder() {
    let app = TestApp::start().await;
    let api = Api::new(&app).await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.settle_for(SignedDuration::from_secs(3)).await;
    app.lose_webhooks();
    let client = &app.account().client;
    client.delete_participant(&sid, &seat(&app, &sid)).await.unwrap();
    app.sandbox.settled().await;
    app.sweep().await;
    app.deliver_webhooks();
    let missing = (
        "projected_participant_missing".to_owned(),
        json!("readd_participant"),
    );
    assert_eq!(api.open(&sid).await, [missing]);

    // The answer to our adding it is lost: it is looked for before it is added once more.
    let fault = RestFault {
        method: Some("POST".to_owned()),
        path: Some("/v1/Services/*/Conversations/*/Participants".to_owned()),
        status: Some(500),
        effect: Effect::After,
        hold_ms: 0,
        probability: 1.0,
        times: Some(1),
    };
    let faults = Faults {
        rest: vec![fault],
        ..Faults::default()
    };
    app.sandbox.set_faults(faults).unwrap();
    let ask = json!({ "code": "projected_participant_missing", "requested_by": "maya", "line": LINE });
    assert_eq!(api.repair(&sid, &ask).await.0, 202);
    app.settle_for(SignedDuration::from_mins(1)).await;
    assert_eq!(app.holders_at_twilio(&sid), [Some("maya".to_owned())]);
    assert_eq!(api.open(&sid).await, []);
    let found = api.finding(&sid, "projected_participant_missing").await;
    assert_eq!(found["last_repair"]["state"], "done");
    assert_eq!(write(&app, &sid, "I am back.").await.0, State::Sent);
    let (status, problem) = api.repair(&sid, &ask).await;
    assert_eq!(
        (status, &problem["type"]),
        (409, &json!("urn:hookswitch:problem:finding_not_open"))
    );
}

#[tokio::test]
async fn a_repair_that_could_make_another_thread_is_not_offered() {
    let app = TestApp::start().await;
    let api = Api::new(&app).await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.settle_for(SignedDuration::from_secs(3)).await;
    let client = &app.account().client;
    client.delete_participant(&sid, &seat(&app, &sid)).await.unwrap();
    app.settle_for(SignedDuration::from_secs(3)).await;
    let another = Member::Native {
        address: "+15555550103".parse().unwrap(),
    };
    client.create_participant(&sid, &another.into()).await.unwrap();
    app.settle_for(SignedDuration::from_secs(3)).await;
    app.sweep().await;
    let missing = ("projected_participant_missing".to_owned(), Value::Null);
    assert_eq!(api.open(&sid).await, [missing]);
    let ask = json!({ "code": "projected_participant_missing", "requested_by": "maya" });
    let (status, problem) = api.repair(&sid, &ask).await;
    assert_eq!(
        (status, &problem["type"]),
        (409, &json!("urn:hookswitch:problem:no_safe_repair"))
    );
    assert!(problem["detail"].as_str().unwrap().contains("another thread"));

    // With the end of the conversation it is no longer wrong.
    let close = ConversationUpdate {
        state: Some(ConversationState::Closed),
        ..ConversationUpdate::default()
    };
    client.update_conversation(&sid, &close).await.unwrap();
    app.settle_for(SignedDuration::from_secs(3)).await;
    app.sweep().await;
    assert_eq!(api.open(&sid).await, []);
}

#[tokio::test]
async fn a_policy_starts_repairs_by_itself_and_once() {
    let app = TestApp::start().await;
    let api = Api::new(&app).await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.settle_for(SignedDuration::from_secs(3)).await;
    // The line is left with nobody behind it.
    let client = &app.account().client;
    client.delete_participant(&sid, &seat(&app, &sid)).await.unwrap();
    let gateway = Member::Gateway {
        projected_address: LINE.parse().unwrap(),
    };
    client.create_participant(&sid, &gateway.into()).await.unwrap();
    app.settle_for(SignedDuration::from_secs(3)).await;

    let mut config = app.config.clone();
    config.health.repair_of = [("line_unstaffed".to_owned(), RepairPolicy::Start)].into();
    // Twilio does not have this one, so that setting it is refused.
    let service = "MG0000000000000000000000000000000f";
    config.twilio.accounts[0].messaging_service_sid = service.parse().unwrap();
    let with_policy = App::new(config.clone(), app.database.options.clone(), app.clock.clone()).unwrap();
    let sweep = async || {
        let account = with_policy.accounts.iter().next().unwrap();
        let sweeper = with_policy.sweeper.clone();
        Box::pin(sweeper.sweep(account, false, &mut |_| ()))
            .await
            .unwrap();
    };
    sweep().await;
    app.settle_with(&with_policy).await;
    assert_eq!(app.holders_at_twilio(&sid), [Some("maya".to_owned())]);
    let unstaffed = api.finding(&sid, "line_unstaffed").await;
    assert_eq!(unstaffed["last_repair"]["requested_by"], "policy");
    assert_eq!(unstaffed["last_repair"]["outcome"], "repaired");
    // The other one was left to a person, who learns why it does not work.
    let differs = (
        "messaging_service_differs".to_owned(),
        json!("pin_messaging_service"),
    );
    assert_eq!(api.open(&sid).await, [differs]);
    assert_eq!(
        api.finding(&sid, "messaging_service_differs").await["last_repair"],
        Value::Null
    );

    config.health.repair = RepairPolicy::Start;
    let starting = App::new(config, app.database.options.clone(), app.clock.clone()).unwrap();
    for _ in 0..2 {
        app.clock.advance(SignedDuration::from_secs(3));
        let account = starting.accounts.iter().next().unwrap();
        let sweeper = starting.sweeper.clone();
        Box::pin(sweeper.sweep(account, false, &mut |_| ()))
            .await
            .unwrap();
        app.settle_with(&starting).await;
    }
    let failed = api.finding(&sid, "messaging_service_differs").await;
    assert_eq!(failed["last_repair"]["state"], "failed");
    let outcome = failed["last_repair"]["outcome"].as_str().unwrap();
    assert!(outcome.starts_with("twilio_503"), "{outcome}");
    let told = told(&app).await;
    let queued = told
        .iter()
        .filter(|one| one.starts_with("line.repair_queued messaging"));
    assert_eq!(queued.count(), 1, "a policy starts it once: {told:?}");
}

#[tokio::test]
async fn what_is_wrong_with_numbers_is_asked_once_in_a_sweep_and_listed_by_filter() {
    let app = TestApp::start().await;
    let api = Api::new(&app).await;
    let sid = sid_of(&app.group(Some("maya")).await);
    app.settle_for(SignedDuration::from_secs(3)).await;
    let configured = app
        .account()
        .client
        .list_address_configurations()
        .all()
        .await
        .unwrap();
    for one in configured {
        let url = format!(
            "{}/v1/Configuration/Addresses/{}",
            app.sandbox.base_url(),
            one.sid
        );
        let request = http().delete(url).basic_auth(ACCOUNT, Some(TOKEN));
        assert_eq!(request.send().await.unwrap().status(), 204);
    }
    app.sweep().await;
    assert_eq!(
        api.open(&sid).await,
        [("number_not_autocreating".to_owned(), Value::Null)]
    );

    let count = async |filter: &str| {
        let page = api.get(&format!("/v1/health/lines?{filter}")).await;
        page["items"].as_array().unwrap().len()
    };
    for (filter, has) in [
        ("", 1),
        (
            "code=number_not_autocreating&severity=warning&line=%2B15017122661",
            1,
        ),
        ("account_sid=AC00000000000000000000000000000001&limit=1", 1),
        ("code=author_not_in_group", 0),
        ("severity=bad", 0),
        ("line=%2B15017122662", 0),
        ("account_sid=AC000000000000000000000000000000ff", 0),
    ] {
        assert_eq!(count(filter).await, has, "{filter}");
    }
    let refused = http().get(format!("{}/v1/health/lines?code=nonsense", app.url));
    let refused = refused.bearer_auth(&api.key).send().await.unwrap();
    assert_eq!(refused.status(), 400);

    hookswitch::setup::apply(app.account(), &app.config.http.public_base_url)
        .await
        .unwrap();
    app.sweep().await;
    assert_eq!(api.open(&sid).await, []);
}
