//! All lines of a person are handed over by a plan, and back: what the preview says, what the run does, and what becomes of it
//! when somebody pauses it, kills it, or changes things behind its back.

mod back;
mod command;
mod edges;
mod faults;
mod flow;
mod forget;
mod outage;

use std::collections::BTreeMap;

use hookswitch::api::auth::{self, Scope};
use hookswitch::events::Via;
use hookswitch::group_text::{Choice, NewGroupText, NewMember};
use hookswitch::handover::{
    self, By, Counts, Filter, Handover, Line, NewHandover, Otherwise, Rule, Spread, State, Verb,
};
use hookswitch::ids::{ConversationSid, ParticipantSid};
use hookswitch::sandbox::{Faults, WebhookAction, WebhookFault};
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::{ConversationUpdate, ParticipantUpdate};
use jiff::SignedDuration;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::app::{ACCOUNT, LINE, TestApp, Wanted, http, sid_of};
use crate::support::tables;

/// Who does what is done.
const SAM: By<'static> = By {
    name: "sam",
    via: Via::Api,
};

/// The service, with a key that may do everything.
struct Desk {
    app: TestApp,
    http: reqwest::Client,
    key: String,
}

impl Desk {
    /// A team of three in sales, of whom `cyd` is away, their supervisor `sam`, and `maya`, who is about to leave.
    async fn open() -> Self {
        Self::open_with(Wanted::default()).await
    }

    async fn open_with(wanted: Wanted) -> Self {
        let app = TestApp::start_with(wanted).await;
        let made = auth::create(&mut *app.conn().await, "desk", &[Scope::Admin], app.clock.now())
            .await
            .unwrap();
        let desk = Self {
            http: http(),
            key: made.key.expose_secret().to_owned(),
            app,
        };
        let team = json!({ "name": "Sales", "time_zone": "Europe/London", "hours": {} });
        desk.put("/v1/teams/sales", &team).await;
        desk.put("/v1/agents/sam", &json!({ "name": "Sam" })).await;
        for (identity, capacity) in [("ada", Some(20)), ("ben", Some(8)), ("cyd", None)] {
            let agent =
                json!({ "name": identity, "team": "sales", "supervisor": "sam", "capacity": capacity });
            desk.put(&format!("/v1/agents/{identity}"), &agent).await;
        }
        let maya = json!({ "name": "Maya", "supervisor": "sam" });
        desk.put("/v1/agents/maya", &maya).await;
        desk.put("/v1/agents/cyd/availability", &json!({ "status": "away" }))
            .await;
        desk
    }

    async fn put(&self, path: &str, body: &Value) -> Value {
        let request = self.http.put(format!("{}{path}", self.app.url)).json(body);
        let (status, body) = self.answer(request).await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self
            .answer(self.http.get(format!("{}{path}", self.app.url)))
            .await;
        assert_eq!(status, 200, "{path}: {body}");
        body
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self
            .http
            .post(format!("{}{path}", self.app.url))
            .header("Idempotency-Key", hookswitch::ids::new_id().to_string())
            .json(body);
        self.answer(request).await
    }

    async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let answer = request.bearer_auth(&self.key).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Groups of one handset of their own each, their line held by `holder`; in the order of their SIDs.
    async fn groups(&self, from: u32, count: u32, holder: &str) -> Vec<ConversationSid> {
        let mut asked = Vec::new();
        for number in from..from + count {
            let handset = NewMember {
                address: Some(format!("+1555555{number:04}")),
                ..NewMember::default()
            };
            let other = NewMember {
                address: Some("+15555550101".to_owned()),
                ..NewMember::default()
            };
            let line = NewMember {
                line: Some(LINE.to_owned()),
                holder: Some(holder.to_owned()),
                address: None,
            };
            let new = NewGroupText {
                friendly_name: None,
                attributes: None,
                members: vec![handset, other, line],
                choice: Choice::default(),
                requested_by: "crm".to_owned(),
            };
            asked.push(self.app.app.api.group_texts.start(new).await.unwrap());
        }
        self.app.settle_for(SignedDuration::from_secs(3)).await;
        let mut sids = Vec::new();
        for group in asked {
            sids.push(sid_of(&self.app.group_text(group.group_text_id).await));
        }
        sids.sort_by(|one, other| one.as_str().cmp(other.as_str()));
        sids
    }

    /// A plan, prepared to be a draft.
    async fn draft(&self, new: NewHandover) -> Handover {
        let plan = self.ask(new).await;
        let plan = self
            .until(plan.handover_id, |plan| plan.state != State::Planning)
            .await;
        assert_eq!(plan.state, State::Draft);
        plan
    }

    async fn ask(&self, new: NewHandover) -> Handover {
        let mut transaction = self.app.pool().begin().await.unwrap();
        let handovers = &self.app.app.api.handovers;
        let plan = handovers
            .create_in(&mut transaction, new, Via::Api)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        plan
    }

    /// Lets time pass until a plan is as asked.
    async fn until(&self, id: Uuid, is_so: impl Fn(&Handover) -> bool) -> Handover {
        for _ in 0..200 {
            self.app.settle().await;
            let plan = self.plan(id).await;
            if is_so(&plan) {
                return plan;
            }
            self.app.advance(SignedDuration::from_secs(1));
        }
        panic!("the plan does not get there: {:?}", self.counts(id).await);
    }

    async fn ended(&self, id: Uuid) -> Handover {
        self.until(id, |plan| plan.state.is_final()).await
    }

    async fn plan(&self, id: Uuid) -> Handover {
        handover::find(&mut *self.app.conn().await, id)
            .await
            .unwrap()
            .unwrap()
    }

    async fn counts(&self, id: Uuid) -> Counts {
        handover::counts(&mut *self.app.conn().await, id).await.unwrap()
    }

    async fn lines(&self, id: Uuid) -> Vec<Line> {
        handover::page_of_lines(&mut *self.app.conn().await, id, &Filter::default(), None, 1_000)
            .await
            .unwrap()
    }

    async fn run(&self, id: Uuid) -> Handover {
        let mut transaction = self.app.pool().begin().await.unwrap();
        let handovers = &self.app.app.api.handovers;
        let plan = handovers
            .act_in(&mut transaction, id, Verb::Run, SAM)
            .await
            .unwrap();
        transaction.commit().await.unwrap();
        plan
    }

    async fn verb(&self, id: Uuid, verb: &str) -> (u16, Value) {
        self.post(&format!("/v1/handovers/{id}/{verb}"), &json!({ "by": "sam" }))
            .await
    }

    /// Who holds the line of each conversation, by the ledger; and it is so at Twilio.
    async fn holders(&self, sids: &[ConversationSid]) -> Vec<String> {
        let mut holders = Vec::new();
        for sid in sids {
            let now = self.app.holders(sid).await.pop().flatten().unwrap_or_default();
            let at_twilio = self.app.holders_at_twilio(sid);
            assert_eq!(at_twilio.len(), 1, "one participant is on the line");
            assert_eq!(
                at_twilio[0].clone().unwrap_or_default(),
                now,
                "the ledger is right"
            );
            holders.push(now);
        }
        holders
    }

    /// Somebody closes a conversation in Twilio's console, and no webhook tells.
    async fn close_silently(&self, sid: &ConversationSid) {
        let update = ConversationUpdate {
            state: Some(ConversationState::Closed),
            ..ConversationUpdate::default()
        };
        self.silently(async |client| {
            client.update_conversation(sid, &update).await.unwrap();
        })
        .await;
    }

    /// Somebody gives the line to somebody else in Twilio's console, and no webhook tells.
    async fn change_silently(&self, sid: &ConversationSid, to: &str) {
        let members = self.app.at_twilio(sid).participants;
        let seat = members.iter().find(|member| member.identity.is_some()).unwrap();
        let seat: ParticipantSid = seat.sid.to_string().parse().unwrap();
        let update = ParticipantUpdate {
            identity: Some(to.parse().unwrap()),
            ..ParticipantUpdate::default()
        };
        self.silently(async |client| {
            client.update_participant(sid, &seat, &update).await.unwrap();
        })
        .await;
    }

    async fn silently(&self, act: impl AsyncFnOnce(&hookswitch::twilio::Client)) {
        let lose = WebhookFault {
            action: WebhookAction::Lose,
            events: Vec::new(),
            ms: 0,
            probability: 1.0,
            times: None,
        };
        let faults = Faults {
            webhooks: vec![lose],
            ..Faults::default()
        };
        self.app.sandbox.set_faults(faults).unwrap();
        act(&self.app.app.accounts.get(ACCOUNT).unwrap().client).await;
        self.app.sandbox.settled().await;
        self.app.sandbox.set_faults(Faults::default()).unwrap();
    }
}

/// Over the team, one line in a second, for somebody who leaves.
fn over_the_team() -> NewHandover {
    NewHandover {
        leaver: "maya".parse().unwrap(),
        rules: vec![Rule::Team {
            team: "sales".parse().unwrap(),
            spread: Spread::LeastLoaded,
        }],
        otherwise: Otherwise::Stay,
        lines_per_minute: 60,
        return_at: None,
        leaver_becomes: None,
        reason: Some("leaves us".to_owned()),
        note: None,
        introduction: None,
        requested_by: "sam".to_owned(),
    }
}

fn to_ada() -> NewHandover {
    NewHandover {
        rules: vec![Rule::People(vec!["ada".parse().unwrap()])],
        ..over_the_team()
    }
}

fn count(names: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for name in names {
        *counts.entry(name).or_default() += 1;
    }
    counts
}

/// What the log tells of a plan, in order.
async fn told(desk: &Desk, id: Uuid) -> Vec<String> {
    let sql = format!(
        "select replace(type, 'handover.', '') from event where subject = '{id}' and type <> 'handover.line_ended'
         order by commit_xid, event_id"
    );
    tables::rows(&desk.app, &sql).await
}

/// What a problem is, without the prefix of its type.
fn kind(problem: &Value) -> &str {
    let kind = problem["type"].as_str().unwrap_or_default();
    kind.rsplit(':').next().unwrap_or_default()
}
