//! Through signed webhooks and the API: each thing that changes, read at several times.

use jiff::{SignedDuration, Timestamp};
use reqwest::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::Value;

use hookswitch::api::auth::{self, Scope};

use crate::support::app::{ACCOUNT, BUYER, LINE, TestApp, http};

const GROUP: &str = "CH00000000000000000000000000000001";
const MAYA: &str = "MB00000000000000000000000000000001";
const CLIENT: &str = "MB00000000000000000000000000000002";
const MESSAGE: &str = "IM00000000000000000000000000000001";

/// Twilio's time, so many seconds after the beginning, with milliseconds as webhooks have it.
fn at(second: i64) -> Timestamp {
    "2026-03-01T14:00:00.250Z".parse::<Timestamp>().unwrap() + SignedDuration::from_secs(second)
}

fn millis(second: i64) -> String {
    at(second).strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// A group with Maya on its line and one client; what is told of it, and what is asked about it.
struct Told {
    app: TestApp,
    reader: String,
    auditor: String,
}

impl Told {
    async fn start() -> Self {
        let app = TestApp::start().await;
        let reader = key(&app, &[Scope::ConversationsRead, Scope::LedgerRead]).await;
        let auditor = key(
            &app,
            &[Scope::ConversationsRead, Scope::LedgerRead, Scope::AuditRead],
        )
        .await;
        let told = Self { app, reader, auditor };
        told.webhook(
            "onConversationAdded",
            &[
                ("DateCreated", &millis(0)),
                ("FriendlyName", "Home-buying journey"),
                ("State", "active"),
                ("Attributes", "{}"),
            ],
        )
        .await;
        told.seat("onParticipantAdded", "maya", 0).await;
        told.webhook(
            "onParticipantAdded",
            &[
                ("ParticipantSid", CLIENT),
                ("DateCreated", &millis(0)),
                ("Attributes", "{}"),
                ("MessagingBinding.Address", BUYER),
                ("MessagingBinding.Type", "sms"),
            ],
        )
        .await;
        told
    }

    /// Delivers a webhook and lets it be projected; answers a time by which it was known, and nothing after it was.
    async fn webhook(&self, event: &str, fields: &[(&str, &str)]) -> Timestamp {
        let mut form = vec![
            ("AccountSid".to_owned(), ACCOUNT.to_owned()),
            ("EventType".to_owned(), event.to_owned()),
            ("ConversationSid".to_owned(), GROUP.to_owned()),
            ("Source".to_owned(), "API".to_owned()),
            ("RetryCount".to_owned(), "0".to_owned()),
        ];
        form.extend(
            fields
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        self.app.deliver(&form).await;
        self.app.app.projector.run_until_idle().await.unwrap();
        let known_at = self.app.clock.now();
        self.app.clock.advance(SignedDuration::from_secs(60));
        known_at
    }

    async fn seat(&self, event: &str, identity: &str, second: i64) -> Timestamp {
        let (created, updated) = (millis(0), millis(second));
        let mut fields = vec![
            ("ParticipantSid", MAYA),
            ("DateCreated", created.as_str()),
            ("Identity", identity),
            ("Attributes", "{}"),
            ("MessagingBinding.ProjectedAddress", LINE),
            ("MessagingBinding.Type", "sms"),
        ];
        if event != "onParticipantAdded" {
            fields.push(("DateUpdated", updated.as_str()));
        }
        self.webhook(event, &fields).await
    }

    async fn say(&self, event: &str, body: &str, second: i64) -> Timestamp {
        let (created, updated) = (millis(10), millis(second));
        let mut fields = vec![
            ("MessageSid", MESSAGE),
            ("Index", "0"),
            ("DateCreated", created.as_str()),
            ("Body", body),
            ("Author", "maya"),
            ("ParticipantSid", MAYA),
            ("Attributes", "{}"),
        ];
        if event != "onMessageAdded" {
            fields.push(("DateUpdated", updated.as_str()));
        }
        if event == "onMessageRemoved" {
            fields.push(("DateRemoved", updated.as_str()));
        }
        self.webhook(event, &fields).await
    }

    async fn ask(&self, key: &str, path: &str) -> (StatusCode, Value) {
        let response = http()
            .get(format!("{}/v1/conversations/{GROUP}{path}", self.app.url))
            .bearer_auth(key)
            .send()
            .await
            .unwrap();
        (response.status(), response.json().await.unwrap())
    }

    async fn get(&self, key: &str, path: &str) -> Value {
        let (status, body) = self.ask(key, path).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    /// What the group's messages said.
    async fn bodies(&self, key: &str, query: &str) -> Vec<Option<String>> {
        let page = self.get(key, &format!("/messages{query}")).await;
        let items = page["items"].as_array().unwrap();
        items
            .iter()
            .map(|item| item["body"].as_str().map(str::to_owned))
            .collect()
    }

    async fn said(&self, query: &str) -> Vec<Option<String>> {
        self.bodies(&self.auditor, query).await
    }
}

async fn key(app: &TestApp, scopes: &[Scope]) -> String {
    let mut conn = app.conn().await;
    let created = auth::create(&mut conn, "test", scopes, app.clock.now())
        .await
        .unwrap();
    created.key.expose_secret().to_owned()
}

fn query(as_of: Option<i64>, known_at: Option<Timestamp>) -> String {
    let as_of = as_of.map(|second| format!("as_of={}", at(second)));
    let known_at = known_at.map(|known_at| format!("known_at={known_at}"));
    let both: Vec<String> = [as_of, known_at].into_iter().flatten().collect();
    format!("?{}", both.join("&"))
}

fn one(text: &str) -> Vec<Option<String>> {
    vec![Some(text.to_owned())]
}

#[tokio::test]
async fn an_edit_and_one_that_came_late_are_read_at_their_times() {
    let told = Told::start().await;
    let nothing: Vec<Option<String>> = Vec::new();
    let added = told.say("onMessageAdded", "Hello", 10).await;
    let third = told.say("onMessageUpdated", "Hello you all", 30).await;
    let late = told.say("onMessageUpdated", "Hello you", 20).await;

    assert_eq!(told.said("").await, one("Hello you all"));
    for (as_of, known_at, expected) in [
        (Some(9), None, &nothing),
        (Some(10), None, &one("Hello")),
        (Some(20), None, &one("Hello you")),
        (Some(29), None, &one("Hello you")),
        (Some(30), None, &one("Hello you all")),
        // What had come by then only.
        (Some(30), Some(added), &one("Hello")),
        (None, Some(added), &one("Hello")),
        (Some(25), Some(third), &one("Hello")),
        (None, Some(third), &one("Hello you all")),
        (Some(25), Some(late), &one("Hello you")),
        (None, Some(added - SignedDuration::from_secs(30)), &nothing),
    ] {
        let query = query(as_of, known_at);
        assert_eq!(&told.said(&query).await, expected, "{query}");
    }
    // The reader sees what still stands, and that there was something else.
    let path = format!("/messages{}", query(Some(10), None));
    let page = told.get(&told.reader, &path).await;
    assert_eq!(page["items"][0]["body"], Value::Null);
    assert_eq!(page["items"][0]["withheld"], true);
    let page = told
        .get(&told.reader, &format!("/messages{}", query(Some(30), None)))
        .await;
    assert_eq!(page["items"][0]["body"], "Hello you all");
    assert_eq!(page["items"][0].get("withheld"), None);
}

#[tokio::test]
async fn a_removed_message_is_read_before_its_removal_by_auditors_alone() {
    let told = Told::start().await;
    let nothing: Vec<Option<String>> = Vec::new();
    let added = told.say("onMessageAdded", "A secret", 10).await;
    told.say("onMessageRemoved", "A secret", 40).await;

    assert_eq!(told.said("").await, nothing);
    assert_eq!(told.said(&query(Some(39), None)).await, one("A secret"));
    assert_eq!(told.said(&query(Some(40), None)).await, nothing);
    assert_eq!(told.said(&query(Some(40), Some(added))).await, one("A secret"));
    assert_eq!(
        told.bodies(&told.reader, &query(Some(39), None)).await,
        vec![None]
    );
    for key in [&told.reader, &told.auditor] {
        let timeline = told
            .get(key, &format!("/timeline{}", query(Some(39), None)))
            .await;
        let text = timeline.to_string();
        assert_eq!(text.contains("A secret"), *key == told.auditor, "{text}");
        let timeline = told.get(key, "/timeline").await.to_string();
        assert!(!timeline.contains("A secret"), "{timeline}");
    }

    let path = format!("/messages/{MESSAGE}/versions");
    let (status, _) = told.ask(&told.reader, &path).await;
    assert_eq!(status, 403);
    let versions = told.get(&told.auditor, &path).await;
    let short: Vec<String> = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            assert!(one["learnt_at"].is_string(), "{one}");
            format!(
                "{} {} {} {}",
                one["at"], one["aspect"], one["body"], one["current"]
            )
        })
        .collect();
    insta::assert_snapshot!(short.join("\n"), @r#"
    "2026-03-01T14:00:10.25Z" "content" "A secret" false
    "2026-03-01T14:00:40.25Z" "content" "A secret" true
    "2026-03-01T14:00:40.25Z" "removal" null true
    "#);
}

#[tokio::test]
async fn a_change_of_identity_is_read_at_its_time_in_members_lines_and_tenures() {
    let told = Told::start().await;
    let before = told.seat("onParticipantUpdated", "noor", 50).await;
    let after = told.seat("onParticipantUpdated", "iris", 30).await;
    for (as_of, known_at, expected) in [
        (None, None, "noor"),
        (Some(50), None, "noor"),
        (Some(49), None, "iris"),
        (Some(29), None, "maya"),
        (Some(49), Some(before), "maya"),
        (Some(49), Some(after), "iris"),
        (Some(50), Some(before), "noor"),
    ] {
        let query = query(as_of, known_at);
        let members = told.get(&told.reader, &format!("/participants{query}")).await;
        let members = members["items"].as_array().unwrap();
        assert_eq!(members.len(), 2, "{query}");
        let seat = members
            .iter()
            .find(|one| one["projected_address"] == LINE)
            .unwrap();
        assert_eq!(seat["identity"], expected, "{query}");
        let conversation = told.get(&told.reader, &query).await;
        assert_eq!(conversation["lines"][0]["holder"], expected, "{query}");
        assert_eq!(conversation["friendly_name"], "Home-buying journey");
        let timeline = told.get(&told.reader, &format!("/timeline{query}")).await;
        let last = timeline["items"]
            .as_array()
            .unwrap()
            .iter()
            .rfind(|entry| entry["type"] == "holder_changed")
            .unwrap();
        assert_eq!(last["to"], expected, "{query}: {timeline}");
        let url = format!("{}/v1/lines/%2B15017122661/tenures{query}", told.app.url);
        let tenures: Value = http()
            .get(url)
            .bearer_auth(&told.reader)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let tenures = tenures["items"].as_array().unwrap();
        assert_eq!(tenures.last().unwrap()["holder"], expected, "{query}");
        if as_of.is_some() {
            assert_eq!(tenures.len(), 1, "one holder at one time: {tenures:?}");
            assert_eq!(tenures[0]["to"], Value::Null, "its end was not there yet");
        }
    }
    let versions = told
        .get(&told.auditor, &format!("/participants/{MAYA}/versions"))
        .await;
    let identities: Vec<&Value> = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["identity"])
        .collect();
    assert_eq!(identities, ["maya", "iris", "noor"]);
}

#[tokio::test]
async fn the_end_of_a_conversation_is_read_at_its_time() {
    let told = Told::start().await;
    let closed = |second: i64| {
        [
            ("StateFrom", "active".to_owned()),
            ("StateTo", "closed".to_owned()),
            ("StateUpdated", millis(second)),
            ("Reason", "API".to_owned()),
        ]
    };
    let form = closed(100);
    let fields: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let known_at = told.webhook("onConversationStateUpdated", &fields).await;
    let earlier = known_at - SignedDuration::from_secs(60);
    for (as_of, known_at, state, lines) in [
        (None, None, "closed", 0),
        (Some(100), None, "closed", 0),
        (Some(99), None, "active", 1),
        (Some(100), Some(earlier), "active", 1),
    ] {
        let query = query(as_of, known_at);
        let conversation = told.get(&told.reader, &query).await;
        assert_eq!(conversation["state"], state, "{query}");
        assert_eq!(conversation["lines"].as_array().unwrap().len(), lines, "{query}");
        assert_eq!(
            conversation["closed_at"].is_string(),
            state == "closed",
            "{query}"
        );
    }
    let versions = told.get(&told.auditor, "/versions").await;
    let short: Vec<String> = versions["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("{} {} {}", one["aspect"], one["state"], one["current"]))
        .collect();
    assert_eq!(
        short,
        [
            r#""content" null true"#,
            r#""state" "active" false"#,
            r#""state" "closed" true"#
        ]
    );
    // Before it was there, and before we knew of it.
    for query in [query(Some(-1), None), "?known_at=2026-01-01T00:00:00Z".to_owned()] {
        for path in ["", "/participants", "/messages", "/timeline"] {
            let (status, body) = told.ask(&told.auditor, &format!("{path}{query}")).await;
            assert_eq!(status, 404, "{path}{query}: {body}");
        }
    }
}

#[tokio::test]
async fn pages_are_of_the_moment_of_the_first_one() {
    let told = Told::start().await;
    for index in 0..5 {
        let (sid, place) = (format!("IM{index:032}"), index.to_string());
        let created = millis(10 + index);
        told.webhook(
            "onMessageAdded",
            &[
                ("MessageSid", &sid),
                ("Index", &place),
                ("DateCreated", &created),
                ("Body", &format!("text {index}")),
                ("Author", "maya"),
                ("ParticipantSid", MAYA),
                ("Attributes", "{}"),
            ],
        )
        .await;
    }
    for list in ["/messages", "/timeline"] {
        let whole = told
            .get(&told.auditor, &format!("{list}{}", query(Some(13), None)))
            .await;
        let whole = whole["items"].as_array().unwrap().clone();
        let mut path = format!("{list}{}&limit=2", query(Some(13), None));
        let mut read = Vec::new();
        loop {
            let page = told.get(&told.auditor, &path).await;
            read.extend(page["items"].as_array().unwrap().iter().cloned());
            let Some(next) = page["next"].as_str() else { break };
            if read.len() == 2 {
                // Learnt between two pages: not known at the moment of the first one.
                told.webhook(
                    "onMessageUpdated",
                    &[
                        ("MessageSid", "IM00000000000000000000000000000003"),
                        ("Index", "3"),
                        ("DateCreated", &millis(13)),
                        ("DateUpdated", &millis(13)),
                        ("Body", &format!("text 3, told before {list}")),
                        ("Author", "maya"),
                        ("ParticipantSid", MAYA),
                        ("Attributes", "{}"),
                    ],
                )
                .await;
            }
            path = format!("{list}?limit=2&cursor={next}");
        }
        assert_eq!(read, whole, "{list}");
        let other = path.replace("?limit", &format!("{}&limit", query(Some(12), None)));
        let (status, body) = told.ask(&told.auditor, &other).await;
        assert_eq!(status, 400, "{body}");
        assert_eq!(body["errors"][0]["field"], "cursor");
    }
}

#[tokio::test]
async fn a_time_that_cannot_be_asked_about_is_refused_where_it_stands() {
    let told = Told::start().await;
    for path in ["", "/participants", "/messages", "/timeline"] {
        for name in ["as_of", "known_at"] {
            for (value, says) in [
                ("yesterday", "expected a time like"),
                ("9000-01-01T00:00:00Z", "expected a time that has passed"),
            ] {
                let (status, body) = told.ask(&told.auditor, &format!("{path}?{name}={value}")).await;
                assert_eq!(status, 400, "{path}: {body}");
                let error = &body["errors"][0];
                assert_eq!(error["field"], name, "{path}");
                assert!(error["message"].as_str().unwrap().starts_with(says), "{error}");
            }
        }
    }
}
