//! What tests of sweeps need: the mirror beside what the emulated account holds, changes at Twilio of which nobody hears,
//! and somebody between the service and Twilio.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse as _, Response};
use hookswitch::accounts::{Account, Accounts};
use hookswitch::sandbox::{Faults, WebhookAction, WebhookFault, snapshot};
use hookswitch::sweep::{Budget, Run, Sweeper};
use hookswitch::twilio::model::ConversationState;
use hookswitch::twilio::requests::{
    ConversationUpdate, Member, MessageUpdate, NewConversation, NewMessage, NewParticipant, ParticipantUpdate,
};
use jiff::SignedDuration;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::app::{LINE, OTHER_LINE, TestApp, http};
use super::sql;

impl TestApp {
    pub(crate) fn account(&self) -> &Account {
        self.app.accounts.iter().next().unwrap()
    }

    /// A sweeper that need not wait.
    pub(crate) fn sweeper(&self) -> Sweeper {
        Sweeper {
            budget: Budget::per_minute(u32::MAX),
            ..self.app.sweeper.clone()
        }
    }

    /// As [`TestApp::sweeper`], that reaches Twilio through somebody.
    pub(crate) fn sweeper_through(&self, interposer: &Interposer) -> Sweeper {
        let mut settings = self.config.twilio.clone();
        settings.base_url = interposer.url.parse().unwrap();
        Sweeper {
            accounts: Accounts::new(&settings).unwrap(),
            ..self.sweeper()
        }
    }

    pub(crate) async fn sweep(&self) -> Run {
        let sweeper = self.sweeper();
        Box::pin(sweeper.sweep(self.account(), false, &mut |_| ()))
            .await
            .unwrap()
    }

    /// From now on no webhook arrives.
    pub(crate) fn lose_webhooks(&self) {
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
        self.sandbox.set_faults(faults).unwrap();
    }

    pub(crate) fn deliver_webhooks(&self) {
        self.sandbox.set_faults(Faults::default()).unwrap();
    }
}

/// What the mirror has otherwise than Twilio, as lines: `- ` what only Twilio has, `+ ` what only the mirror has.
pub(crate) async fn differences(app: &TestApp) -> Vec<String> {
    let theirs = at_twilio(app);
    let mut ours = Vec::new();
    for query in [CONVERSATIONS, PARTICIPANTS, MESSAGES, RECEIPTS, HOLDERS] {
        ours.extend(sql::values(app.pool(), query).await);
    }
    let mut lines: Vec<String> = theirs
        .iter()
        .filter(|line| !ours.contains(line))
        .map(|line| format!("- {line}"))
        .collect();
    lines.extend(
        ours.iter()
            .filter(|line| !theirs.contains(line))
            .map(|line| format!("+ {line}")),
    );
    lines
}

const CONVERSATIONS: &str =
    "select concat_ws('|', 'conversation', conversation_sid, service_sid, messaging_service_sid,
        coalesce(friendly_name, '-'), coalesce(unique_name, '-'), attributes, state)
    from conversation where removed_at is null";
const PARTICIPANTS: &str = "select concat_ws('|', 'participant', conversation_sid, participant_sid, coalesce(identity, '-'),
        coalesce(address, '-'), coalesce(proxy_address, '-'), coalesce(projected_address, '-'), participant.attributes,
        coalesce(role_sid, '-'), coalesce(last_read_message_index::text, '-'))
    from participant join conversation using (conversation_sid)
    where participant.removed_at is null and conversation.removed_at is null";
const MESSAGES: &str =
    "select concat_ws('|', 'message', conversation_sid, message_sid, message_index, author,
        coalesce(participant_sid, '-'), coalesce(body, '-'), message.attributes)
    from message join conversation using (conversation_sid)
    where message.removed_at is null and conversation.removed_at is null";
const RECEIPTS: &str = "select concat_ws('|', 'receipt', message_sid, delivery_receipt_sid, delivery_receipt.participant_sid,
        channel_message_sid, status, coalesce(error_code, '0'))
    from delivery_receipt join message using (conversation_sid, message_sid) join conversation using (conversation_sid)
    where message.removed_at is null and conversation.removed_at is null";
/// Lines that are held by somebody now.
const HOLDERS: &str = "select concat_ws('|', 'holder', conversation_sid, line, holder)
    from tenure where superseded_at is null and upper_inf(during) and holder is not null";

fn or_dash(value: Option<impl ToString>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

fn at_twilio(app: &TestApp) -> Vec<String> {
    let mut lines = Vec::new();
    for one in app.sandbox.conversations() {
        lines.push(format!(
            "conversation|{}|{}|{}|{}|{}|{}|{}",
            one.sid,
            one.service_sid,
            one.messaging_service_sid,
            or_dash(one.friendly_name.as_ref()),
            or_dash(one.unique_name.as_ref()),
            one.attributes,
            one.state
        ));
        lines.extend(one.participants.iter().map(|member| participant(&one, member)));
        lines.extend(one.participants.iter().filter_map(|member| holder(&one, member)));
        lines.extend(one.messages.iter().map(|written| message(&one, written)));
        for written in &one.messages {
            lines.extend(written.receipts.iter().map(|told| receipt(written, told)));
        }
    }
    lines
}

fn participant(of: &snapshot::Conversation, one: &snapshot::Participant) -> String {
    format!(
        "participant|{}|{}|{}|{}|{}|{}|{}|{}|{}",
        of.sid,
        one.sid,
        or_dash(one.identity.as_ref()),
        or_dash(one.address.as_ref()),
        or_dash(one.proxy_address.as_ref()),
        or_dash(one.projected_address.as_ref()),
        one.attributes,
        or_dash(one.role_sid.as_ref()),
        or_dash(one.last_read_message_index)
    )
}

fn holder(of: &snapshot::Conversation, one: &snapshot::Participant) -> Option<String> {
    let line = one.projected_address.as_ref().filter(|_| of.state != "closed")?;
    let identity = one.identity.as_ref()?;
    Some(format!("holder|{}|{line}|{identity}", of.sid))
}

fn message(of: &snapshot::Conversation, one: &snapshot::Message) -> String {
    format!(
        "message|{}|{}|{}|{}|{}|{}|{}",
        of.sid,
        one.sid,
        one.index,
        one.author,
        or_dash(one.participant_sid.as_ref()),
        or_dash(one.body.as_ref().filter(|body| !body.is_empty())),
        one.attributes
    )
}

fn receipt(message: &snapshot::Message, one: &snapshot::Receipt) -> String {
    format!(
        "receipt|{}|{}|{}|{}|{}|{}",
        message.sid, one.sid, one.participant_sid, one.channel_message_sid, one.status, one.error_code
    )
}

/// Changes things at Twilio at random, through its API and from handsets, as people and other programs do.
pub(crate) struct Meddler<'a> {
    app: &'a TestApp,
    dice: StdRng,
    handsets: u32,
    agents: u32,
    /// How often each kind of change was made.
    pub(crate) made: BTreeMap<&'static str, u32>,
}

impl<'a> Meddler<'a> {
    pub(crate) fn new(app: &'a TestApp, seed: u64) -> Self {
        Self {
            app,
            dice: StdRng::seed_from_u64(seed),
            handsets: 0,
            agents: 0,
            made: BTreeMap::new(),
        }
    }

    pub(crate) fn total(&self) -> u32 {
        self.made.values().sum()
    }

    /// Makes as many changes as wanted; what Twilio refuses does not count.
    pub(crate) async fn make(&mut self, wanted: u32) {
        let until = self.total() + wanted;
        for attempt in 0.. {
            if self.total() >= until {
                break;
            }
            assert!(
                attempt < wanted * 20,
                "Twilio refuses nearly everything: {:?}",
                self.made
            );
            let pause = [0, 3, 250, 1_100][self.dice.random_range(0..4)];
            self.app.clock.advance(SignedDuration::from_millis(pause));
            if let Some(what) = self.change().await {
                *self.made.entry(what).or_default() += 1;
            }
            // Nobody can write into, or change, what is still being set up.
            self.app.sandbox.settled().await;
        }
    }

    async fn change(&mut self) -> Option<&'static str> {
        let roll = self.dice.random_range(0..100);
        let all = self.app.sandbox.conversations();
        let open: Vec<_> = all
            .iter()
            .filter(|one| matches!(one.state, "active" | "inactive"))
            .collect();
        let Some(&one) = open.choose(&mut self.dice).filter(|_| roll >= 8) else {
            return self.create(roll % 2 == 0).await;
        };
        match roll {
            8..35 => self.write(one).await,
            35..45 => self.edit(one).await,
            45..52 => self.erase(one).await,
            52..64 => self.hand_over(one).await,
            64..72 => self.note(one).await,
            72..77 => self.leave(one).await,
            77..83 => self.join(one).await,
            83..90 => self.rename(one).await,
            90..96 => self.pause(one).await,
            96..98 => self.close(one).await,
            _ => self.delete(one, open.len()).await,
        }
    }

    fn handset(&mut self) -> String {
        self.handsets += 1;
        format!("+1555555{:04}", 1_000 + self.handsets)
    }

    fn agent(&mut self) -> String {
        self.agents += 1;
        format!("agent-{}", self.agents)
    }

    /// A group, by our API or by somebody who texts to our number and to others.
    async fn create(&mut self, by_handset: bool) -> Option<&'static str> {
        let (one, other) = (self.handset(), self.handset());
        let line = [LINE, OTHER_LINE][self.dice.random_range(0..2)];
        if by_handset {
            self.app
                .text(&one, &[line, &other], "Could you help us with a house?")
                .await;
            return Some("autocreated");
        }
        let members = [
            Member::Native {
                address: one.parse().unwrap(),
            },
            Member::Native {
                address: other.parse().unwrap(),
            },
            Member::Projected {
                identity: self.agent().parse().unwrap(),
                projected_address: line.parse().unwrap(),
            },
        ];
        let new = NewConversation {
            friendly_name: Some("Home-buying journey".into()),
            unique_name: None,
            messaging_service_sid: None,
            attributes: None,
        };
        let members: Vec<NewParticipant> = members.into_iter().map(NewParticipant::from).collect();
        let client = &self.app.account().client;
        client
            .create_conversation_with_participants(&new, &members)
            .await
            .ok()?;
        Some("created")
    }

    async fn write(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        let writer = one.participants.choose(&mut self.dice)?;
        let body = format!("Message {}", self.dice.random::<u32>());
        if let (Some(address), true) = (&writer.address, self.dice.random_bool(0.4)) {
            let others = one.participants.iter().filter(|other| other.sid != writer.sid);
            let numbers: Vec<&str> = others
                .filter_map(|other| other.address.as_ref().or(other.projected_address.as_ref()))
                .map(hookswitch::ids::PhoneNumber::as_str)
                .collect();
            let line = numbers.iter().any(|number| [LINE, OTHER_LINE].contains(number));
            if !line || numbers.len() < 2 {
                return None;
            }
            self.app.text(address.as_str(), &numbers, &body).await;
            return Some("texted");
        }
        let author = writer
            .identity
            .clone()
            .or_else(|| writer.address.as_ref().map(ToString::to_string))?;
        let new = NewMessage {
            author: Some(author.into()),
            body: Some(body.into()),
            media_sid: None,
            attributes: None,
        };
        self.app
            .account()
            .client
            .create_message(&one.sid, &new)
            .await
            .ok()?;
        Some("written")
    }

    async fn edit(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        let message = one.messages.choose(&mut self.dice)?;
        let update = MessageUpdate {
            body: Some(format!("Edited {}", self.dice.random::<u32>()).into()),
            ..MessageUpdate::default()
        };
        self.app
            .account()
            .client
            .update_message(&one.sid, &message.sid, &update)
            .await
            .ok()?;
        Some("edited")
    }

    async fn erase(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        let message = one.messages.choose(&mut self.dice)?;
        self.app
            .account()
            .client
            .delete_message(&one.sid, &message.sid)
            .await
            .ok()?;
        Some("erased")
    }

    async fn hand_over(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        let seat = one
            .participants
            .iter()
            .find(|member| member.projected_address.is_some())?;
        let update = ParticipantUpdate {
            identity: Some(self.agent().parse().unwrap()),
            ..ParticipantUpdate::default()
        };
        self.app
            .account()
            .client
            .update_participant(&one.sid, &seat.sid, &update)
            .await
            .ok()?;
        Some("handed over")
    }

    async fn note(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        let member = one.participants.choose(&mut self.dice)?;
        let update = ParticipantUpdate {
            attributes: Some(format!(r#"{{"note":{}}}"#, self.dice.random::<u32>()).into()),
            ..ParticipantUpdate::default()
        };
        self.app
            .account()
            .client
            .update_participant(&one.sid, &member.sid, &update)
            .await
            .ok()?;
        Some("noted")
    }

    async fn leave(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        let member = one.participants.choose(&mut self.dice)?;
        self.app
            .account()
            .client
            .delete_participant(&one.sid, &member.sid)
            .await
            .ok()?;
        Some("left")
    }

    async fn join(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        let address = self.handset().parse().unwrap();
        let new = NewParticipant::from(Member::Native { address });
        self.app
            .account()
            .client
            .create_participant(&one.sid, &new)
            .await
            .ok()?;
        Some("joined")
    }

    async fn rename(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        let update = ConversationUpdate {
            friendly_name: Some(format!("Group {}", self.dice.random::<u32>()).into()),
            ..ConversationUpdate::default()
        };
        self.app
            .account()
            .client
            .update_conversation(&one.sid, &update)
            .await
            .ok()?;
        Some("renamed")
    }

    async fn pause(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        let state = match one.state {
            "active" => ConversationState::Inactive,
            _ => ConversationState::Active,
        };
        self.set_state(one, state).await?;
        Some("paused or taken up")
    }

    async fn close(&mut self, one: &snapshot::Conversation) -> Option<&'static str> {
        self.set_state(one, ConversationState::Closed).await?;
        Some("closed")
    }

    async fn set_state(&mut self, one: &snapshot::Conversation, state: ConversationState) -> Option<()> {
        let update = ConversationUpdate {
            state: Some(state),
            ..ConversationUpdate::default()
        };
        self.app
            .account()
            .client
            .update_conversation(&one.sid, &update)
            .await
            .ok()?;
        Some(())
    }

    async fn delete(&mut self, one: &snapshot::Conversation, open: usize) -> Option<&'static str> {
        if open < 4 {
            return None;
        }
        self.app
            .account()
            .client
            .delete_conversation(&one.sid)
            .await
            .ok()?;
        Some("deleted")
    }
}

/// Somebody between the service and Twilio: sees every call, can hold an answer back, and can spoil one.
pub(crate) struct Interposer {
    pub(crate) url: String,
    seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

struct Seen {
    http: reqwest::Client,
    twilio: String,
    url: String,
    calls: Mutex<Vec<(Instant, String)>>,
    stop: Mutex<Option<Stop>>,
    spoilt: Mutex<Option<(String, Spoil)>>,
}

/// Changes the body of an answer.
pub(crate) type Spoil = Box<dyn Fn(String) -> String + Send>;

struct Stop {
    at: String,
    reached: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
}

impl Interposer {
    pub(crate) async fn start(app: &TestApp) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::new(Seen {
            http: http(),
            twilio: app.sandbox.base_url(),
            url: url.clone(),
            calls: Mutex::default(),
            stop: Mutex::default(),
            spoilt: Mutex::default(),
        });
        let router = Router::new().fallback(forward).with_state(Arc::clone(&seen));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, seen, serving }
    }

    /// The calls so far: when, and to which path and query.
    pub(crate) fn calls(&self) -> Vec<(Instant, String)> {
        self.seen.calls.lock().unwrap().clone()
    }

    /// Holds the next answer to a path with this end back: it is Twilio's answer of then, and goes on when it is told to.
    pub(crate) fn stop_at(&self, end_of_path: &str) -> (oneshot::Receiver<()>, oneshot::Sender<()>) {
        let (reached, is_reached) = oneshot::channel();
        let (go_on, go) = oneshot::channel();
        let at = end_of_path.to_owned();
        *self.seen.stop.lock().unwrap() = Some(Stop { at, reached, go });
        (is_reached, go_on)
    }

    /// Holds nothing back any more; whoever waits for the stop is told that it will not come.
    pub(crate) fn stop_nowhere(&self) {
        *self.seen.stop.lock().unwrap() = None;
    }

    /// Changes every answer to a path with this end, until told otherwise.
    pub(crate) fn spoil(&self, end_of_path: &str, spoil: Spoil) {
        *self.seen.spoilt.lock().unwrap() = Some((end_of_path.to_owned(), spoil));
    }

    pub(crate) fn spoil_nothing(&self) {
        *self.seen.spoilt.lock().unwrap() = None;
    }
}

impl Drop for Interposer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn forward(State(seen): State<Arc<Seen>>, request: Request<Body>) -> Response {
    let path = request.uri().path().to_owned();
    let target = request.uri().path_and_query().unwrap().to_string();
    seen.calls.lock().unwrap().push((Instant::now(), target.clone()));
    let authorization = request.headers()["authorization"].clone();
    let answer = seen
        .http
        .request(request.method().clone(), format!("{}{target}", seen.twilio))
        .header("authorization", authorization)
        .send()
        .await
        .unwrap();
    let status = StatusCode::from_u16(answer.status().as_u16()).unwrap();
    // Pages are to be turned through us as well.
    let mut body = answer.text().await.unwrap().replace(&seen.twilio, &seen.url);
    if let Some((at, spoil)) = &*seen.spoilt.lock().unwrap()
        && path.ends_with(at.as_str())
    {
        body = spoil(body);
    }
    let stop = seen
        .stop
        .lock()
        .unwrap()
        .take_if(|stop| path.ends_with(stop.at.as_str()));
    if let Some(stop) = stop {
        stop.reached.send(()).unwrap();
        // Whoever would have said so may be gone, and then nobody waits for the answer either.
        stop.go.await.ok();
    }
    (status, [("content-type", "application/json")], body).into_response()
}
