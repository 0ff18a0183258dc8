//! The API that a CRM uses: the real router and a real PostgreSQL, with rows that came through the real doors.

mod access;
mod completeness;
mod erasures;
mod feed;
mod idempotency;
mod ledger;
mod legal_hold;
mod lists;
mod requests;
mod transfer_protocol;
mod transfers;
mod webhooks;

use std::collections::HashMap;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Method, Request, StatusCode, header};
use hookswitch::accounts::Accounts;
use hookswitch::api::auth::{self, Scope};
use hookswitch::api::{Api, router};
use hookswitch::clock::Clock;
use hookswitch::config::Config;
use hookswitch::db::Notices;
use hookswitch::erasure::Erasures;
use hookswitch::events::Via;
use hookswitch::group_text::GroupTexts;
use hookswitch::handover::Handovers;
use hookswitch::health::Health;
use hookswitch::ids::{AccountSid, ConversationSid, MessageSid, ParticipantSid, ReceiptSid};
use hookswitch::mirror::change::{
    Change, ConversationChange, ConversationFields, MessageChange, MessageFields, Observed,
    ParticipantChange, ParticipantFields, ReceiptChange, StateChange,
};
use hookswitch::mirror::{self, Version};
use hookswitch::opt_out::OptOuts;
use hookswitch::outbox::Outbox;
use hookswitch::sweep::Totals;
use hookswitch::transfer::Transfers;
use hookswitch::web::fallback::not_found;
use hookswitch::web::request::attend;
use http_body_util::BodyExt as _;
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use crate::support::database::{TestDatabase, database};

/// When every test begins.
pub(super) const BEGIN: &str = "2026-03-01T14:00:00Z";
pub(super) const LINE: &str = "+15017122661";
pub(super) const OTHER_LINE: &str = "+15017122662";
/// Few, since each costs some 0.2 s of computing in a debug build.
const CONNECTIONS: u32 = 5;
const ACCOUNT: &str = "AC00000000000000000000000000000001";

/// The service as a CRM sees it, for one test.
pub(super) struct Office {
    pub(super) api: Api,
    pub(super) router: Router,
    /// May do everything.
    pub(super) key: String,
    pub(super) pool: PgPool,
    pub(super) clock: Clock,
    pub(super) database: TestDatabase,
}

pub(super) async fn office() -> Office {
    let database = database().await;
    // As the service has it, so that waits end as they do there.
    let pool = hookswitch::db::pool_with(database.options.clone(), CONNECTIONS);
    let clock = Clock::fixed(BEGIN.parse().unwrap());
    let config = Config::load_from(None, &environment()).unwrap();
    let api = Api {
        pool: pool.clone(),
        clock: clock.clone(),
        transfers: Transfers {
            pool: pool.clone(),
            clock: clock.clone(),
            settings: config.transfer.clone(),
        },
        handovers: Handovers {
            pool: pool.clone(),
            clock: clock.clone(),
            accounts: Accounts::new(&config.twilio).unwrap(),
            transfers: Transfers {
                pool: pool.clone(),
                clock: clock.clone(),
                settings: config.transfer.clone(),
            },
            settings: config.handover,
        },
        group_texts: GroupTexts {
            pool: pool.clone(),
            clock: clock.clone(),
            accounts: Accounts::new(&config.twilio).unwrap(),
        },
        outbox: Outbox {
            pool: pool.clone(),
            clock: clock.clone(),
        },
        media_kept_max: 20_000_000,
        opt_outs: OptOuts {
            pool: pool.clone(),
            clock: clock.clone(),
            accounts: Accounts::new(&config.twilio).unwrap(),
            via: Via::Api,
        },
        completeness: Totals::new(pool.clone(), clock.clone()),
        erasures: Erasures {
            pool: pool.clone(),
            clock: clock.clone(),
            accounts: Accounts::new(&config.twilio).unwrap(),
        },
        health: Health::new(
            pool.clone(),
            clock.clone(),
            Accounts::new(&config.twilio).unwrap(),
            &config.health,
        )
        .unwrap(),
        notices: Notices::default(),
        shutdown: CancellationToken::new(),
    };
    let office = Office {
        router: attend(router(api.clone()).fallback(not_found)),
        api,
        key: String::new(),
        pool,
        clock,
        database,
    };
    let key = office.key_with(&[Scope::Admin]).await;
    Office { key, ..office }
}

pub(super) fn environment() -> HashMap<String, String> {
    [
        ("TWILIO_ACCOUNT_SID", ACCOUNT),
        ("TWILIO_AUTH_TOKEN", "token"),
        ("TWILIO_SERVICE_SID", "IS00000000000000000000000000000001"),
        (
            "TWILIO_MESSAGING_SERVICE_SID",
            "MG00000000000000000000000000000001",
        ),
        ("TWILIO_NUMBERS", "+15017122661,+15017122662"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into()
}

/// What was answered.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    pub(super) bytes: Vec<u8>,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_slice(&self.bytes)
            .unwrap_or_else(|error| panic!("{error} in {:?}", String::from_utf8_lossy(&self.bytes)))
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The name of the problem, without the part that all have in common.
    pub(super) fn problem(&self) -> String {
        assert_eq!(
            self.header("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let body = self.json();
        assert_eq!(body["status"], self.status.as_u16());
        body["type"]
            .as_str()
            .and_then(|kind| kind.strip_prefix("urn:hookswitch:problem:"))
            .unwrap()
            .to_owned()
    }

    /// The body of an answer with this status.
    #[track_caller]
    pub(super) fn expect(&self, status: u16) -> Value {
        assert_eq!(
            self.status.as_u16(),
            status,
            "{}",
            String::from_utf8_lossy(&self.bytes)
        );
        self.json()
    }
}

impl Office {
    pub(super) async fn key_with(&self, scopes: &[Scope]) -> String {
        let mut conn = self.pool.acquire().await.unwrap();
        let created = auth::create(&mut conn, "test", scopes, self.clock.now())
            .await
            .unwrap();
        created.key.expose_secret().to_owned()
    }

    pub(super) async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            bytes: body.collect().await.unwrap().to_bytes().to_vec(),
        }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        let request = Request::get(path).header(header::AUTHORIZATION, format!("Bearer {}", self.key));
        self.send(request.body(Body::empty()).unwrap()).await
    }

    /// A POST under a new idempotency key.
    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_as(&hookswitch::ids::new_id().to_string(), path, body)
            .await
    }

    pub(super) async fn post_as(&self, idempotency_key: &str, path: &str, body: &Value) -> Answer {
        self.send(self.posting(idempotency_key, path, body)).await
    }

    pub(super) fn posting(&self, idempotency_key: &str, path: &str, body: &Value) -> Request<Body> {
        Request::builder()
            .method(Method::POST)
            .uri(path)
            .header(header::AUTHORIZATION, format!("Bearer {}", self.key))
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", idempotency_key)
            .body(Body::from(body.to_string()))
            .unwrap()
    }

    /// Opens all connections, for a test of many calls at once: they would wait too long for that in a debug build.
    pub(super) async fn connect(&self) {
        let mut open = Vec::new();
        for _ in 0..CONNECTIONS {
            open.push(self.pool.acquire().await.unwrap());
        }
    }

    /// All items of a list, read page by page.
    pub(super) async fn all(&self, path: &str, limit: usize) -> Vec<Value> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let mut items = Vec::new();
        let mut next = String::new();
        loop {
            let answer = self
                .get(&format!("{path}{separator}limit={limit}{next}"))
                .await
                .expect(200);
            let page = answer["items"].as_array().unwrap();
            assert!(page.len() <= limit);
            items.extend(page.iter().cloned());
            match answer["next"].as_str() {
                Some(cursor) => {
                    assert_eq!(page.len(), limit, "a page that is not the last is full");
                    next = format!("&cursor={cursor}");
                }
                None => return items,
            }
        }
    }

    /// Lets what Twilio says into the mirror, as a webhook does.
    pub(super) async fn observe(&self, changes: Vec<Change>) {
        let observed: Vec<Observed> = changes
            .into_iter()
            .map(|change| Observed {
                account_sid: AccountSid::try_from(ACCOUNT).unwrap(),
                change,
                cause: "webhook:1".to_owned(),
                source: Some("SMS".to_owned()),
            })
            .collect();
        let mut transaction = self.pool.begin().await.unwrap();
        mirror::commit(&mut transaction, &observed, Via::Webhook, None, self.clock.now())
            .await
            .unwrap();
        transaction.commit().await.unwrap();
    }

    /// A conversation with two handsets, and one line that `holder` has.
    pub(super) async fn group(&self, number: u32, holder: Option<&str>) -> ConversationSid {
        let group = conversation_sid(number);
        self.observe(vec![
            conversation(&group, 0),
            handset(&group, 1, "+15555550101", 0),
            handset(&group, 2, "+15555550102", 0),
            seat(&group, 3, LINE, holder, 0),
        ])
        .await;
        group
    }
}

pub(super) fn conversation_sid(number: u32) -> ConversationSid {
    format!("CH{number:032}").parse().unwrap()
}

pub(super) fn participant_sid(number: u32) -> ParticipantSid {
    format!("MB{number:032}").parse().unwrap()
}

pub(super) fn message_sid(number: u32) -> MessageSid {
    format!("IM{number:032}").parse().unwrap()
}

/// So many milliseconds after the beginning; never a whole second, which would count as cut to it.
pub(super) fn after(ms: i64) -> Timestamp {
    BEGIN.parse::<Timestamp>().unwrap() + SignedDuration::from_millis(ms) + SignedDuration::from_micros(1)
}

pub(super) fn conversation(sid: &ConversationSid, ms: i64) -> Change {
    Change::Conversation(ConversationChange {
        conversation_sid: sid.clone(),
        version: Version::exact(after(ms)),
        fields: ConversationFields {
            friendly_name: Some("Home-buying journey".to_owned()),
            attributes: Some(r#"{"deal": 17}"#.to_owned()),
            ..ConversationFields::default()
        },
        state: Some("active".to_owned()),
        created_at: Some(after(ms)),
        autocreated: false,
    })
}

pub(super) fn closed(sid: &ConversationSid, ms: i64) -> Change {
    Change::ConversationState(StateChange {
        conversation_sid: sid.clone(),
        version: Version::exact(after(ms)),
        state: "closed".to_owned(),
        reason: Some("API".to_owned()),
    })
}

fn participant(sid: &ConversationSid, number: u32, fields: ParticipantFields, ms: i64) -> ParticipantChange {
    ParticipantChange {
        conversation_sid: sid.clone(),
        participant_sid: participant_sid(number),
        version: Version::exact(after(ms)),
        removed: false,
        fields: Some(fields),
        created_at: Some(after(0)),
    }
}

pub(super) fn handset(sid: &ConversationSid, number: u32, address: &str, ms: i64) -> Change {
    let fields = ParticipantFields {
        address: Some(address.to_owned()),
        ..ParticipantFields::default()
    };
    Change::Participant(participant(sid, number, fields, ms))
}

pub(super) fn seat(sid: &ConversationSid, number: u32, line: &str, holder: Option<&str>, ms: i64) -> Change {
    let fields = ParticipantFields {
        identity: holder.map(str::to_owned),
        projected_address: Some(line.to_owned()),
        ..ParticipantFields::default()
    };
    Change::Participant(participant(sid, number, fields, ms))
}

pub(super) fn left(sid: &ConversationSid, number: u32, ms: i64) -> Change {
    Change::Participant(ParticipantChange {
        conversation_sid: sid.clone(),
        participant_sid: participant_sid(number),
        version: Version::exact(after(ms)),
        removed: true,
        fields: None,
        created_at: None,
    })
}

pub(super) fn message(
    sid: &ConversationSid,
    index: u32,
    author: &str,
    participant: u32,
    ms: i64,
) -> MessageChange {
    MessageChange {
        conversation_sid: sid.clone(),
        message_sid: message_sid(index),
        version: Version::exact(after(ms)),
        removed: false,
        fields: Some(MessageFields {
            index: Some(i64::from(index)),
            author: Some(author.to_owned()),
            participant_sid: Some(participant_sid(participant).into_string()),
            body: Some(format!("text {index}")),
            media: None,
            attributes: Some("{}".to_owned()),
        }),
        created_at: Some(after(ms)),
    }
}

pub(super) fn receipt(sid: &ConversationSid, index: u32, participant: u32, status: &str, ms: i64) -> Change {
    Change::Receipt(ReceiptChange {
        conversation_sid: sid.clone(),
        message_sid: message_sid(index),
        receipt_sid: format!("DY{:032}", index * 100 + participant)
            .parse::<ReceiptSid>()
            .unwrap(),
        participant_sid: Some(participant_sid(participant).into_string()),
        channel_message_sid: None,
        status: status.to_owned(),
        error_code: (status == "undelivered").then(|| "30003".to_owned()),
        created_at: Some(after(ms)),
        version: Version::exact(after(ms)),
    })
}
