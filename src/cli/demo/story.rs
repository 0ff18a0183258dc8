//! The story, scene by scene. Each scene does what its people would do, waits for what they would see, and tells it.

use anyhow::{Context as _, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::demo::cast::{ALEX, BLAIR, CASEY, Client, JONAS, LINE, MAYA, NOOR, Person, name_of, spaced};
use crate::cli::demo::crm::Crm;
use crate::cli::demo::phones::Phones;
use crate::cli::output;

/// The whole story.
pub(super) async fn play(crm: &Crm, phones: &Phones) -> anyhow::Result<()> {
    let scene = Scene { crm, phones };
    let sid = scene.a_group_text_begins().await?;
    scene.agent_and_clients_write(&sid).await?;
    scene.a_colleague_takes_over(&sid).await?;
    scene.a_supervisor_takes_over(&sid).await?;
    scene.the_clients_saw_one_number().await?;
    scene.a_client_starts_another_group(&sid).await?;
    scene.the_auditor_asks(&sid).await
}

struct Scene<'a> {
    crm: &'a Crm,
    phones: &'a Phones,
}

impl Scene<'_> {
    async fn a_group_text_begins(&self) -> anyhow::Result<String> {
        title("A group text begins");
        let group = self
            .crm
            .post(
                "/v1/group-texts",
                &json!({
                    "friendly_name": "Home-buying journey",
                    "members": [
                        { "address": ALEX.number },
                        { "address": BLAIR.number },
                        { "line": LINE, "holder": MAYA.identity },
                    ],
                }),
            )
            .await?;
        let id = group["group_text_id"]
            .as_str()
            .context("the group text has no id")?
            .to_owned();
        say(&format!(
            "the CRM asks for \"Home-buying journey\": {}, {}, and {} held by {}",
            ALEX.name,
            BLAIR.name,
            spaced(LINE),
            MAYA.name
        ));
        self.crm
            .wait_for("group_text.initializing", |event| event["subject"] == id.as_str())
            .await?;
        say("Twilio is adding the members: initializing");
        let active = self
            .crm
            .wait_for("group_text.active", |event| event["subject"] == id.as_str())
            .await?;
        let sid = active["conversation_sid"]
            .as_str()
            .context("the event names no conversation")?
            .to_owned();
        say(&format!(
            "Twilio says by webhook that all are in: active, as {sid}"
        ));
        Ok(sid)
    }

    async fn agent_and_clients_write(&self, sid: &str) -> anyhow::Result<()> {
        title("The agent and the clients write");
        self.holder_writes(
            sid,
            MAYA,
            "Hi Alex, hi Blair! I am Maya. I found two houses near the park.",
        )
        .await?;
        self.client_writes(sid, ALEX, &[BLAIR], "Great! Can we see them this week?")
            .await?;
        self.client_writes(sid, BLAIR, &[ALEX], "Thursday would suit me.")
            .await
    }

    async fn a_colleague_takes_over(&self, sid: &str) -> anyhow::Result<()> {
        title("The agent hands the line to a colleague");
        self.hand_over(sid, "warm", MAYA, JONAS, "Maya is away from tomorrow on")
            .await?;
        self.holder_writes(
            sid,
            JONAS,
            "Hello, Jonas here for Maya. Thursday at five is booked.",
        )
        .await?;
        self.client_writes(
            sid,
            ALEX,
            &[BLAIR],
            "Before that: the seller wants our offer by tonight!",
        )
        .await
    }

    async fn a_supervisor_takes_over(&self, sid: &str) -> anyhow::Result<()> {
        title("It is escalated to the supervisor");
        self.hand_over(sid, "escalation", JONAS, NOOR, "an offer is due tonight")
            .await?;
        self.holder_writes(
            sid,
            NOOR,
            "Noor here. I have the papers ready, you can sign at six.",
        )
        .await?;
        self.client_writes(sid, BLAIR, &[ALEX], "Thank you, we will be there.")
            .await
    }

    async fn hand_over(
        &self,
        sid: &str,
        kind: &str,
        from: Person,
        to: Person,
        reason: &str,
    ) -> anyhow::Result<()> {
        let request = json!({
            "conversation_sid": sid,
            "kind": kind,
            "to": to.identity,
            "requested_by": from.identity,
            "reason": reason,
        });
        let transfer = self.crm.post("/v1/transfers", &request).await?;
        let id = transfer["transfer_id"]
            .as_str()
            .context("the transfer has no id")?
            .to_owned();
        say(&format!("{} offers the line to {}: {reason}", from.name, to.name));
        self.crm
            .post(
                &format!("/v1/transfers/{id}/accept"),
                &json!({ "by": to.identity }),
            )
            .await?;
        say(&format!("{} accepts", to.name));
        let done = self
            .crm
            .wait_for("transfer.completed", |event| event["subject"] == id.as_str())
            .await?;
        let method = done["data"]["method"].as_str().unwrap_or_default();
        say(&format!(
            "Twilio has {} behind {} now (by {method}, read back)",
            to.name,
            spaced(LINE)
        ));
        Ok(())
    }

    async fn the_clients_saw_one_number(&self) -> anyhow::Result<()> {
        title("What the clients saw");
        for client in [ALEX, BLAIR] {
            let texts = self.phones.inbox(client.number).await?;
            say(&format!("on {}'s phone:", client.name));
            let mut ours = 0;
            for text in &texts {
                let from = text["from"].as_str().unwrap_or_default();
                ours += usize::from(from == LINE);
                output::line(format!(
                    "        {:17} {}",
                    shown(from),
                    text["body"].as_str().unwrap_or_default()
                ));
            }
            ensure!(
                ours == 3,
                "{} should have had three texts of {LINE}, and had {ours}",
                client.name
            );
        }
        say(&format!(
            "three people wrote, and every text of theirs came from {}",
            spaced(LINE)
        ));
        Ok(())
    }

    async fn a_client_starts_another_group(&self, first: &str) -> anyhow::Result<()> {
        title("A client starts a new group that adds a partner");
        let body = "Adding Casey, who pays for half of it :)";
        self.phones
            .text(ALEX.number, &[LINE, BLAIR.number, CASEY.number], body)
            .await?;
        say(&format!(
            "{} texts {}, {} and {}: {body}",
            ALEX.name,
            BLAIR.name,
            CASEY.name,
            spaced(LINE)
        ));
        let adopted = self.crm.wait_for("group_text.adopted", |_| true).await?;
        let sid = adopted["conversation_sid"]
            .as_str()
            .context("the event names no conversation")?
            .to_owned();
        ensure!(sid != first, "another set of people is another conversation");
        self.crm
            .wait_for("group_text.active", |event| {
                event["conversation_sid"] == sid.as_str()
            })
            .await?;
        say(&format!(
            "Twilio autocreates {sid}, and it is adopted; nobody holds its line"
        ));
        let request = json!({
            "conversation_sid": sid,
            "kind": "assign",
            "to": NOOR.identity,
            "requested_by": "crm",
        });
        let transfer = self.crm.post("/v1/transfers", &request).await?;
        self.crm
            .wait_for("transfer.completed", |event| {
                event["subject"] == transfer["transfer_id"]
            })
            .await?;
        say(&format!("the CRM assigns it to {}", NOOR.name));
        self.holder_writes(&sid, NOOR, "Welcome, Casey! Same number, same people.")
            .await
    }

    async fn the_auditor_asks(&self, sid: &str) -> anyhow::Result<()> {
        title("The auditor asks: who held the number when each message was sent?");
        let messages = self.crm.get(&format!("/v1/conversations/{sid}/messages")).await?;
        let messages = messages["items"].as_array().cloned().unwrap_or_default();
        output::line(format!(
            "    {:13} {:18} {:18} text",
            "time (UTC)", "number held by", "written by"
        ));
        for message in &messages {
            let holder = message["lines"][0]["holder"]
                .as_str()
                .context("a message without a holder")?;
            let author = message["author"].as_str().unwrap_or_default();
            let at = message["created_at"].as_str().unwrap_or_default();
            let body = message["body"].as_str().unwrap_or_default();
            output::line(format!(
                "    {:13} {:18} {:18} {body}",
                time_of_day(at)?,
                name_of(holder),
                name_of(author)
            ));
            let person = [MAYA, JONAS, NOOR].iter().any(|person| person.identity == author);
            ensure!(
                !person || author == holder,
                "{author} wrote while {holder} held the line"
            );
        }
        ensure!(
            messages.len() == 7,
            "expected seven messages, found {}",
            messages.len()
        );
        let tenures = self
            .crm
            .get(&format!("/v1/lines/{}/tenures", LINE.replace('+', "%2B")))
            .await?;
        let tenures: Vec<Value> = tenures["items"].as_array().cloned().unwrap_or_default();
        let told: Vec<&str> = tenures
            .iter()
            .filter(|tenure| tenure["conversation_sid"] == sid)
            .filter_map(|tenure| tenure["holder"].as_str())
            .collect();
        say(&format!(
            "the ledger of {}: {}",
            spaced(LINE),
            told.iter()
                .map(|holder| name_of(holder))
                .collect::<Vec<_>>()
                .join(", then ")
        ));
        ensure!(
            told == [MAYA.identity, JONAS.identity, NOOR.identity],
            "the ledger says {told:?}"
        );
        Ok(())
    }

    /// Writes as whoever holds the line, and waits until the handsets have it.
    async fn holder_writes(&self, sid: &str, person: Person, body: &str) -> anyhow::Result<()> {
        let request = json!({ "body": body, "as": person.identity });
        let send = self
            .crm
            .post(&format!("/v1/conversations/{sid}/messages"), &request)
            .await?;
        self.crm
            .wait_for("send.sent", |event| event["subject"] == send["send_id"])
            .await?;
        quote(person.name, Some(LINE), body);
        Ok(())
    }

    /// Texts from a client's phone to the group, and waits until the CRM hears of it.
    async fn client_writes(
        &self,
        sid: &str,
        client: Client,
        others: &[Client],
        body: &str,
    ) -> anyhow::Result<()> {
        let to: Vec<&str> = std::iter::once(LINE)
            .chain(others.iter().map(|other| other.number))
            .collect();
        self.phones.text(client.number, &to, body).await?;
        self.crm
            .wait_for("message.added", |event| {
                event["conversation_sid"] == sid && event["message"]["body"] == body
            })
            .await?;
        quote(client.name, None, body);
        Ok(())
    }
}

fn title(text: &str) {
    output::line(format!("\n{text}"));
}

fn say(text: &str) {
    output::line(format!("  - {text}"));
}

fn quote(name: &str, through: Option<&str>, body: &str) {
    let through = through
        .map(|number| format!(", through {}", spaced(number)))
        .unwrap_or_default();
    output::line(format!("    {name}{through}: {body}"));
}

/// `14:03:07.120`
fn time_of_day(at: &str) -> anyhow::Result<String> {
    let at: Timestamp = at.parse().context("the API gave a time that is none")?;
    Ok(at.strftime("%H:%M:%S.%3f").to_string())
}

/// What a handset shows for a number: the client's own address book does not know our people.
fn shown(number: &str) -> String {
    let name = name_of(number);
    if name == number {
        spaced(number)
    } else {
        name.to_owned()
    }
}
