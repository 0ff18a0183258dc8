//! The Twilio client against a server that answers as it was told, on this machine.

#![expect(
    clippy::unwrap_used,
    reason = "a test ends at any surprise, in its helpers too"
)]

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hookswitch::ids::{ConversationSid, MessageSid, ParticipantSid, PhoneNumber};
use hookswitch::twilio::conversations::{ConversationFilter, Of, Order};
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::{
    ConversationUpdate, Member, NewConversation, NewMessage, ParticipantUpdate, WebhookConfigurationUpdate,
};
use hookswitch::twilio::{Class, Client, ClientSettings, Credentials, Error, RetryPolicy, Timeouts};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use url::Url;

const CONVERSATION: &str = "CH00000000000000000000000000000001";
const PARTICIPANT: &str = "MB00000000000000000000000000000001";
const MESSAGE: &str = "IM00000000000000000000000000000001";
const SERVICE: &str = "/v1/Services/IS00000000000000000000000000000001";

/// What the server does with one request.
enum Script {
    Answer(Response),
    /// Answers after a while.
    Late(Duration, Response),
    /// Takes the request and closes the connection.
    HangUp,
}

/// What the server has seen of one request.
#[derive(Clone)]
struct Seen {
    line: String,
    headers: HeaderMap,
    body: String,
}

#[derive(Default)]
struct Stage {
    scripts: Mutex<VecDeque<Script>>,
    seen: Mutex<Vec<Seen>>,
    /// Requests at this moment, and the most there ever were.
    crowd: Mutex<(usize, usize)>,
}

/// A server that plays its scripts in order, one for each request, and answers 418 when there are none left.
struct Server {
    stage: Arc<Stage>,
    address: SocketAddr,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Server {
    async fn start(scripts: impl IntoIterator<Item = Script>) -> Self {
        let stage = Arc::new(Stage {
            scripts: Mutex::new(scripts.into_iter().collect()),
            ..Stage::default()
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(play).with_state(Arc::clone(&stage));
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { stage, address, task }
    }

    fn base(&self) -> String {
        format!("http://{}", self.address)
    }

    fn client(&self) -> Client {
        self.client_with(|_| {})
    }

    fn client_with(&self, change: impl FnOnce(&mut ClientSettings)) -> Client {
        let mut settings = settings(&self.base());
        change(&mut settings);
        Client::new(settings).unwrap()
    }

    /// For calls that are to run out of time. Long enough for those that are not, on a busy machine.
    fn impatient_client(&self) -> Client {
        self.client_with(|settings| settings.timeouts.call = Duration::from_secs(1))
    }

    fn push(&self, script: Script) {
        self.stage.scripts.lock().unwrap().push_back(script);
    }

    fn seen(&self) -> Vec<Seen> {
        self.stage.seen.lock().unwrap().clone()
    }

    fn lines(&self) -> Vec<String> {
        self.seen().into_iter().map(|seen| seen.line).collect()
    }
}

async fn play(State(stage): State<Arc<Stage>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    stage.seen.lock().unwrap().push(Seen {
        line: format!("{} {}", parts.method, parts.uri),
        headers: parts.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    });
    let script = stage.scripts.lock().unwrap().pop_front();
    {
        let mut crowd = stage.crowd.lock().unwrap();
        crowd.0 += 1;
        crowd.1 = crowd.1.max(crowd.0);
    }
    let answer = match script {
        Some(Script::Answer(answer)) => answer,
        Some(Script::Late(after, answer)) => {
            tokio::time::sleep(after).await;
            answer
        }
        // A body that fails at once makes hyper drop the connection in the middle of the answer.
        Some(Script::HangUp) => Response::new(Body::from_stream(futures_util::stream::once(async {
            Err::<&str, _>(std::io::Error::other("hang up"))
        }))),
        None => StatusCode::IM_A_TEAPOT.into_response(),
    };
    stage.crowd.lock().unwrap().0 -= 1;
    answer
}

fn settings(base: &str) -> ClientSettings {
    ClientSettings {
        base_url: base.parse().unwrap(),
        media_base_url: base.parse().unwrap(),
        account_sid: "AC00000000000000000000000000000001".parse().unwrap(),
        credentials: Credentials::AuthToken("secret-token".into()),
        service_sid: "IS00000000000000000000000000000001".parse().unwrap(),
        max_in_flight: 10,
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            call: Duration::from_secs(20),
        },
        retry: RetryPolicy {
            max_attempts: 3,
            first_pause: Duration::from_millis(1),
            max_pause: Duration::from_millis(5),
            max_retry_after: Duration::from_secs(1),
        },
    }
}

fn json(status: u16, body: &Value) -> Script {
    let status = StatusCode::from_u16(status).unwrap();
    Script::Answer((status, axum::Json(body.clone())).into_response())
}

fn text(status: u16, body: &'static str) -> Script {
    Script::Answer((StatusCode::from_u16(status).unwrap(), body).into_response())
}

fn conversation() -> Value {
    json!({"sid": CONVERSATION, "state": "active", "attributes": "{}"})
}

fn participant() -> Value {
    json!({"sid": PARTICIPANT, "conversation_sid": CONVERSATION})
}

fn message(index: i64) -> Value {
    json!({"sid": format!("IM{index:032}"), "conversation_sid": CONVERSATION, "index": index})
}

fn page(key: &str, rows: &[Value], next: Option<&str>) -> Script {
    json(
        200,
        &json!({"meta": {"page": 0, "next_page_url": next}, key: rows}),
    )
}

fn ch() -> ConversationSid {
    CONVERSATION.parse().unwrap()
}

fn mb() -> ParticipantSid {
    PARTICIPANT.parse().unwrap()
}

fn im() -> MessageSid {
    MESSAGE.parse().unwrap()
}

fn basic(credentials: &str) -> String {
    format!("Basic {}", BASE64_STANDARD.encode(credentials))
}

fn hello() -> NewMessage {
    NewMessage {
        author: Some("agent-7".into()),
        body: Some("hello".into()),
        ..NewMessage::default()
    }
}

#[tokio::test]
async fn a_read_names_the_service_and_us() {
    let server = Server::start([json(200, &conversation())]).await;
    let fetched = server.client().fetch_conversation(&ch()).await.unwrap();
    assert_eq!(fetched.state, ConversationState::Active);
    let seen = &server.seen()[0];
    assert_eq!(seen.line, format!("GET {SERVICE}/Conversations/{CONVERSATION}"));
    assert_eq!(
        seen.headers["authorization"],
        basic("AC00000000000000000000000000000001:secret-token")
    );
    assert!(!seen.headers.contains_key("x-twilio-webhook-enabled"));
}

#[tokio::test]
async fn an_api_key_is_used_where_there_is_one() {
    let server = Server::start([json(200, &conversation())]).await;
    let client = server.client_with(|settings| {
        settings.credentials = Credentials::ApiKey {
            sid: "SK00000000000000000000000000000001".parse().unwrap(),
            secret: "key-secret".into(),
        };
    });
    client.fetch_conversation(&ch()).await.unwrap();
    assert_eq!(
        server.seen()[0].headers["authorization"],
        basic("SK00000000000000000000000000000001:key-secret")
    );
}

#[tokio::test]
async fn every_write_asks_for_webhooks_and_is_a_form() {
    let server = Server::start([
        json(201, &message(1)),
        json(200, &participant()),
        Script::Answer(StatusCode::NO_CONTENT.into_response()),
    ])
    .await;
    let client = server.client();
    client.create_message(&ch(), &hello()).await.unwrap();
    let to_agent = ParticipantUpdate {
        identity: Some("agent-8".parse().unwrap()),
        ..ParticipantUpdate::default()
    };
    client.update_participant(&ch(), &mb(), &to_agent).await.unwrap();
    client.delete_participant(&ch(), &mb()).await.unwrap();
    let seen = server.seen();
    assert!(
        seen.iter()
            .all(|seen| seen.headers["x-twilio-webhook-enabled"] == "true")
    );
    assert_eq!(
        server.lines(),
        [
            format!("POST {SERVICE}/Conversations/{CONVERSATION}/Messages"),
            format!("POST {SERVICE}/Conversations/{CONVERSATION}/Participants/{PARTICIPANT}"),
            format!("DELETE {SERVICE}/Conversations/{CONVERSATION}/Participants/{PARTICIPANT}"),
        ]
    );
    assert_eq!(
        seen[0].headers["content-type"],
        "application/x-www-form-urlencoded"
    );
    assert_eq!(seen[0].body, "Author=agent-7&Body=hello");
    assert_eq!(seen[1].body, "Identity=agent-8");
    assert_eq!(seen[2].body, "");
}

#[tokio::test]
async fn each_endpoint_is_where_twilio_has_it() {
    let server = Server::start([
        page("conversations", &[], None),
        page("conversations", &[], None),
        page("conversations", &[], None),
        page("participants", &[], None),
        page("messages", &[], None),
        page("delivery_receipts", &[], None),
        page("address_configurations", &[], None),
        json(
            200,
            &json!({"chat_service_sid": "IS00000000000000000000000000000001"}),
        ),
        json(200, &json!({})),
        json(200, &json!({})),
        json(200, &json!({})),
        json(202, &conversation()),
        json(200, &conversation()),
    ])
    .await;
    let client = server.client();
    let number: PhoneNumber = "+15555550101".parse().unwrap();
    let active = ConversationFilter {
        state: Some(ConversationState::Active),
        created_from: Some(jiff::civil::date(2026, 1, 2)),
        created_to: None,
    };
    client.list_conversations(&active).all().await.unwrap();
    client
        .list_participant_conversations(Of::Address(&number))
        .all()
        .await
        .unwrap();
    let identity = "agent 7&".parse().unwrap();
    client
        .list_participant_conversations(Of::Identity(&identity))
        .all()
        .await
        .unwrap();
    client.list_participants(&ch()).all().await.unwrap();
    client
        .list_messages(&ch(), Order::NewestFirst)
        .all()
        .await
        .unwrap();
    client.list_receipts(&ch(), &im()).all().await.unwrap();
    client.list_address_configurations().all().await.unwrap();
    client.fetch_service_configuration().await.unwrap();
    client.fetch_webhook_configuration().await.unwrap();
    client.fetch_account_webhook_configuration().await.unwrap();
    client
        .update_webhook_configuration(&WebhookConfigurationUpdate::default())
        .await
        .unwrap();
    let members = [Member::Native { address: number }.into()];
    let new = NewConversation::default();
    client
        .create_conversation_with_participants(&new, &members)
        .await
        .unwrap();
    client.fetch_conversation_by_unique_name("a/b?c").await.unwrap();
    assert_eq!(
        server.lines(),
        [
            format!("GET {SERVICE}/Conversations?PageSize=100&State=active&StartDate=2026-01-02"),
            format!("GET {SERVICE}/ParticipantConversations?PageSize=50&Address=%2B15555550101"),
            format!("GET {SERVICE}/ParticipantConversations?PageSize=50&Identity=agent+7%26"),
            format!("GET {SERVICE}/Conversations/{CONVERSATION}/Participants?PageSize=100"),
            format!("GET {SERVICE}/Conversations/{CONVERSATION}/Messages?PageSize=50&Order=desc"),
            format!("GET {SERVICE}/Conversations/{CONVERSATION}/Messages/{MESSAGE}/Receipts?PageSize=50"),
            "GET /v1/Configuration/Addresses?PageSize=50".to_owned(),
            format!("GET {SERVICE}/Configuration"),
            format!("GET {SERVICE}/Configuration/Webhooks"),
            "GET /v1/Configuration/Webhooks".to_owned(),
            format!("POST {SERVICE}/Configuration/Webhooks"),
            format!("POST {SERVICE}/ConversationWithParticipants"),
            format!("GET {SERVICE}/Conversations/a%2Fb%3Fc"),
        ]
    );
}

#[tokio::test]
async fn a_list_is_followed_to_its_end() {
    let server = Server::start([]).await;
    let next = |page: u32| format!("{}{SERVICE}/any?Page={page}&PageToken=x", server.base());
    server.push(page("messages", &[message(1), message(2)], Some(&next(1))));
    server.push(page("messages", &[message(3)], Some(&next(2))));
    server.push(page("messages", &[], None));
    let all = server
        .client()
        .list_messages(&ch(), Order::OldestFirst)
        .all()
        .await
        .unwrap();
    let indexes: Vec<_> = all.into_iter().filter_map(|message| message.index).collect();
    assert_eq!(indexes, [1, 2, 3]);
    assert_eq!(server.lines()[2], format!("GET {SERVICE}/any?Page=2&PageToken=x"));
}

#[tokio::test]
async fn no_more_pages_are_read_than_the_rows_asked_for_take() {
    let server = Server::start([]).await;
    let next = format!("{}/next", server.base());
    server.push(page("messages", &[message(9), message(8)], Some(&next)));
    let newest = server
        .client()
        .list_messages(&ch(), Order::NewestFirst)
        .first(1)
        .await
        .unwrap();
    assert_eq!(newest.len(), 1);
    assert_eq!(newest[0].index, Some(9));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_list_goes_on_where_it_stopped() {
    let server = Server::start([]).await;
    let next = format!("{}/next", server.base());
    server.push(page("messages", &[message(1)], Some(&next)));
    server.push(page("messages", &[message(2)], None));
    let client = server.client();
    let mut pages = client.list_messages(&ch(), Order::OldestFirst);
    pages.next().await.unwrap();
    let position = pages.position().unwrap().to_owned();
    let rest = client
        .list_messages(&ch(), Order::OldestFirst)
        .resume(&position)
        .unwrap();
    assert_eq!(rest.all().await.unwrap()[0].index, Some(2));
    let elsewhere = client
        .list_messages(&ch(), Order::OldestFirst)
        .resume("http://127.0.0.2/next");
    assert!(matches!(elsewhere, Err(Error::Malformed { .. })));
}

#[tokio::test]
async fn a_next_page_at_another_place_is_not_followed() {
    let server = Server::start([]).await;
    let other = Server::start([]).await;
    let places = [
        format!("{}/next", other.base()),
        format!("http://localhost:{}/next", server.address.port()),
        format!("https://{}/next", server.address),
        format!("http://user@{}/next", server.address),
        "/next".to_owned(),
        "not a URL".to_owned(),
    ];
    for place in places {
        server.push(page("messages", &[message(1)], Some(&place)));
        let listed = server
            .client()
            .list_messages(&ch(), Order::OldestFirst)
            .all()
            .await;
        assert!(
            matches!(listed, Err(Error::Malformed { .. })),
            "{place}: {listed:?}"
        );
    }
    assert_eq!(server.seen().len(), 6);
    assert_eq!(other.seen().len(), 0);
}

#[tokio::test]
async fn a_list_that_leads_in_a_circle_ends() {
    let server = Server::start([]).await;
    let next = format!("{}/next", server.base());
    for _ in 0..=hookswitch::twilio::pages::MAX_PAGES {
        server.push(page("messages", &[], Some(&next)));
    }
    let listed = server
        .client()
        .list_messages(&ch(), Order::OldestFirst)
        .all()
        .await;
    assert!(matches!(listed, Err(Error::Malformed { .. })), "{listed:?}");
    assert_eq!(server.seen().len(), hookswitch::twilio::pages::MAX_PAGES);
}

#[tokio::test]
async fn a_throttled_write_is_sent_again() {
    let server = Server::start([
        json(
            429,
            &json!({"code": 20429, "message": "Too many requests", "status": 429}),
        ),
        text(429, "<html>slow down</html>"),
        json(201, &message(1)),
    ])
    .await;
    let created = server.client().create_message(&ch(), &hello()).await.unwrap();
    assert_eq!(created.index, Some(1));
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn a_throttled_call_gives_up_after_its_tries() {
    let scripts = (0..5).map(|_| json(429, &json!({"code": 50063})));
    let server = Server::start(scripts).await;
    let failed = server.client().create_message(&ch(), &hello()).await.unwrap_err();
    assert!(
        matches!(
            failed,
            Error::Throttled {
                code: Some(50063),
                ..
            }
        ),
        "{failed:?}"
    );
    assert!(failed.may_repeat());
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn retry_after_is_waited_for_and_cut_to_the_limit() {
    let asked = |seconds: &'static str| {
        Script::Answer((StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds)]).into_response())
    };
    let server = Server::start([asked("1"), json(200, &conversation())]).await;
    let before = Instant::now();
    server.client().fetch_conversation(&ch()).await.unwrap();
    assert!(before.elapsed() >= Duration::from_secs(1));

    let server = Server::start([asked("3600"), json(200, &conversation())]).await;
    let client = server.client_with(|settings| settings.retry.max_retry_after = Duration::from_millis(50));
    let before = Instant::now();
    client.fetch_conversation(&ch()).await.unwrap();
    assert!((Duration::from_millis(50)..Duration::from_secs(5)).contains(&before.elapsed()));
}

#[tokio::test]
async fn a_create_that_twilio_failed_at_is_unknown_and_is_sent_once() {
    for failure in [
        text(500, "<html><body>Internal Server Error</body></html>"),
        text(502, ""),
        json(503, &json!({"code": 20503, "message": "x", "status": 503})),
        Script::HangUp,
        Script::Late(Duration::from_mins(1), StatusCode::CREATED.into_response()),
        text(201, "not JSON"),
        json(201, &json!({"sid": "nonsense"})),
    ] {
        let server = Server::start([failure]).await;
        let failed = server
            .impatient_client()
            .create_message(&ch(), &hello())
            .await
            .unwrap_err();
        assert!(matches!(failed, Error::OutcomeUnknown { .. }), "{failed:?}");
        assert!(!failed.may_repeat());
        assert_eq!(server.seen().len(), 1);
    }
}

#[tokio::test]
async fn a_read_and_a_write_that_is_as_good_twice_are_tried_again() {
    let server = Server::start([text(503, ""), Script::HangUp, json(200, &conversation())]).await;
    server.client().fetch_conversation(&ch()).await.unwrap();
    assert_eq!(server.seen().len(), 3);

    let server = Server::start([
        Script::HangUp,
        Script::Late(Duration::from_mins(1), StatusCode::OK.into_response()),
        json(200, &participant()),
    ])
    .await;
    let update = ParticipantUpdate::default();
    server
        .impatient_client()
        .update_participant(&ch(), &mb(), &update)
        .await
        .unwrap();
    assert_eq!(server.seen().len(), 3);

    let server = Server::start([text(500, ""), text(204, "")]).await;
    server.client().delete_participant(&ch(), &mb()).await.unwrap();
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn what_is_refused_after_an_unknown_outcome_stays_unknown() {
    let server = Server::start([
        Script::HangUp,
        json(400, &json!({"code": 50444, "message": "Identity is assigned"})),
    ])
    .await;
    let update = ParticipantUpdate::default();
    let failed = server
        .client()
        .update_participant(&ch(), &mb(), &update)
        .await
        .unwrap_err();
    assert!(
        matches!(
            failed,
            Error::OutcomeUnknown {
                code: Some(50444),
                ..
            }
        ),
        "{failed:?}"
    );
}

#[tokio::test]
async fn closing_is_sent_once_since_a_second_time_is_refused() {
    let server = Server::start([text(500, "")]).await;
    let close = ConversationUpdate {
        state: Some(ConversationState::Closed),
        ..ConversationUpdate::default()
    };
    let failed = server
        .client()
        .update_conversation(&ch(), &close)
        .await
        .unwrap_err();
    assert!(matches!(failed, Error::OutcomeUnknown { .. }), "{failed:?}");
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_read_that_keeps_failing_is_unavailable() {
    let server = Server::start((0..5).map(|_| text(502, "<html>Bad Gateway</html>"))).await;
    let failed = server.client().fetch_conversation(&ch()).await.unwrap_err();
    assert!(
        matches!(
            failed,
            Error::Unavailable {
                status: Some(502),
                ..
            }
        ),
        "{failed:?}"
    );
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn what_could_not_be_sent_was_not_sent() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let client = Client::new(settings(&base)).unwrap();
    let failed = client.create_message(&ch(), &hello()).await.unwrap_err();
    assert!(
        matches!(failed, Error::Unavailable { status: None, .. }),
        "{failed:?}"
    );
    assert!(failed.may_repeat());
}

#[tokio::test]
async fn a_refusal_is_final_and_says_what_kind_it_is() {
    let server = Server::start([json(
        409,
        &json!({
            "code": 50438, "status": 409,
            "message": format!("Group MMS with given participant list already exists as Conversation {CONVERSATION}"),
        }),
    )])
    .await;
    let new = NewConversation::default();
    let failed = server
        .client()
        .create_conversation_with_participants(&new, &[])
        .await
        .unwrap_err();
    let rejection = failed.rejection().unwrap();
    assert_eq!(rejection.class, Class::AlreadySo);
    assert_eq!(rejection.conversation_sid, Some(ch()));
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn bad_credentials_are_a_matter_of_set_up_and_not_tried_again() {
    let server = Server::start([json(
        401,
        &json!({"code": 20003, "message": "Authenticate", "status": 401}),
    )])
    .await;
    let failed = server.client().fetch_conversation(&ch()).await.unwrap_err();
    assert!(
        matches!(
            failed,
            Error::Configuration {
                code: Some(20003),
                status: 401
            }
        ),
        "{failed:?}"
    );
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let other = Server::start([json(200, &conversation())]).await;
    let location = format!("{}/elsewhere", other.base());
    let redirect = (StatusCode::TEMPORARY_REDIRECT, [("location", location)]).into_response();
    let server = Server::start([Script::Answer(redirect)]).await;
    let failed = server.client().fetch_conversation(&ch()).await.unwrap_err();
    assert_eq!(failed.status(), Some(307));
    assert_eq!(other.seen().len(), 0);
}

#[tokio::test]
async fn an_answer_that_is_not_what_was_asked_for_is_named_by_its_path_and_not_by_its_value() {
    let server = Server::start([
        page(
            "participants",
            &[participant(), json!({"sid": "+15555550101"})],
            None,
        ),
        text(200, "<html>+15555550101</html>"),
        json(200, &json!({"participants": []})),
    ])
    .await;
    for expected in ["[1].sid", "", "`meta`"] {
        let failed = server.client().list_participants(&ch()).all().await.unwrap_err();
        assert!(matches!(failed, Error::Malformed { .. }), "{failed:?}");
        assert!(failed.to_string().contains(expected), "{failed}");
        assert!(
            !format!("{failed} {failed:?}").contains("5555550101"),
            "{failed:?}"
        );
    }
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 64 * 1024]));
    let server = Server::start([Script::Answer(Response::new(Body::from_stream(endless)))]).await;
    let failed = server.client().fetch_conversation(&ch()).await.unwrap_err();
    assert!(matches!(failed, Error::Malformed { .. }), "{failed:?}");
}

#[tokio::test]
async fn no_more_calls_run_at_once_than_allowed_and_all_of_them_end() {
    let scripts = (0..12).map(|_| {
        Script::Late(
            Duration::from_millis(20),
            axum::Json(conversation()).into_response(),
        )
    });
    let server = Server::start(scripts).await;
    let client = server.client_with(|settings| settings.max_in_flight = 3);
    let calls = (0..12).map(|_| {
        let client = client.clone();
        async move { client.fetch_conversation(&ch()).await }
    });
    for result in futures_util::future::join_all(calls).await {
        result.unwrap();
    }
    let (now, most) = *server.stage.crowd.lock().unwrap();
    assert_eq!((now, most), (0, 3));
}

#[tokio::test]
async fn a_call_that_never_gets_its_turn_was_not_sent() {
    let slow = || Script::Late(Duration::from_mins(1), StatusCode::OK.into_response());
    let server = Server::start([slow(), slow()]).await;
    let client = server.client_with(|settings| {
        settings.max_in_flight = 1;
        settings.retry.max_attempts = 1;
        settings.timeouts.call = Duration::from_millis(300);
    });
    let first = tokio::spawn({
        let client = client.clone();
        async move { client.create_message(&ch(), &hello()).await }
    });
    while server.seen().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // All wait 300 ms: the first for its answer, the others for their turn, which one of them can still get.
    let (conversation, message) = (ch(), hello());
    let waiting = (0..4).map(|_| client.create_message(&conversation, &message));
    let results = futures_util::future::join_all(waiting).await;
    let not_sent = results
        .iter()
        .filter(|result| matches!(result, Err(Error::Unavailable { .. })))
        .count();
    assert!(not_sent >= 3, "{results:?}");
    assert!(matches!(first.await.unwrap(), Err(Error::OutcomeUnknown { .. })));
    assert_eq!(server.seen().len() + not_sent, 5);
}

#[tokio::test]
async fn no_error_says_the_number_in_the_url() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let client = Client::new(settings(&base)).unwrap();
    let number: PhoneNumber = "+15555550101".parse().unwrap();
    let failed = client
        .list_participant_conversations(Of::Address(&number))
        .all()
        .await
        .unwrap_err();
    let mut said = format!("{failed} {failed:?}");
    let mut cause = std::error::Error::source(&failed);
    while let Some(error) = cause {
        write!(said, " {error} {error:?}").unwrap();
        cause = error.source();
    }
    assert!(
        !said.contains("5555550101") && !said.contains("secret-token"),
        "{said}"
    );
}

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn the_log_has_the_template_the_status_and_the_code_and_nothing_personal() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::DEBUG)
        .with_ansi(false)
        .with_span_events(tracing_subscriber::fmt::format::FmtSpan::CLOSE)
        .with_writer(move || writer.clone())
        .finish();
    // While a process has one subscriber only, whether a place is logged is asked of the thread that comes by
    // first, and another test's thread has none: it would be off for this one too. With two, all are asked.
    let _second = tracing::Dispatch::new(tracing_subscriber::registry());
    let _guard = tracing::subscriber::set_default(subscriber);
    let refusal = json!({"code": 50407, "message": "Invalid address +15555550101", "status": 400});
    let server = Server::start([json(400, &refusal), json(400, &refusal)]).await;
    let client = server.client();
    let number: PhoneNumber = "+15555550101".parse().unwrap();
    client
        .list_participant_conversations(Of::Address(&number))
        .all()
        .await
        .unwrap_err();
    client.create_message(&ch(), &hello()).await.unwrap_err();
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for said in [
        "twilio.call",
        "/v1/Services/{IS}/ParticipantConversations",
        "/v1/Services/{IS}/Conversations/{CH}/Messages",
        "attempt=1",
        "status=400",
        "code=50407",
    ] {
        assert!(logged.contains(said), "{said} in {logged}");
    }
    for personal in ["5555550101", "hello", "secret-token"] {
        assert!(!logged.contains(personal), "{personal} in {logged}");
    }
}

#[test]
fn settings_print_no_secret_and_a_base_url_is_a_place_only() {
    let good = settings("https://conversations.twilio.com");
    assert!(!format!("{good:?}").contains("secret-token"));
    assert!(Client::new(good.clone()).is_ok());
    for wrong in [
        "https://conversations.twilio.com/v1",
        "https://user:pass@conversations.twilio.com",
        "https://conversations.twilio.com?x=1",
        "ftp://conversations.twilio.com",
        "unix:/socket",
    ] {
        let settings = ClientSettings {
            base_url: Url::parse(wrong).unwrap(),
            ..good.clone()
        };
        assert!(Client::new(settings).is_err(), "{wrong}");
    }
    assert!(
        Client::new(ClientSettings {
            max_in_flight: 0,
            ..good
        })
        .is_err()
    );
}
