//! Judging a conversation, and writing down what came of it: within the transaction of what was learnt.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::{self, Kind, NewEvent, Via};
use crate::health::judge::{self, Situation};
use crate::health::store::{self, About, LineSend};
use crate::health::{Autocreating, Finding, Health, Ours, SeenBy};
use crate::ids::{AccountSid, ConversationSid};
use crate::ledger::{self, Cause};
use crate::mirror::read::{self, ConversationRow, ParticipantRow};

/// What is stored of a conversation, as far as its health goes.
pub(super) struct Known {
    pub(super) conversation: ConversationRow,
    pub(super) participants: Vec<ParticipantRow>,
    pub(super) last_holders: BTreeMap<String, String>,
    sends: Vec<LineSend>,
    departure_was_told: bool,
}

impl Known {
    /// Locks the conversation until the transaction ends. None: the mirror does not have it.
    pub(super) async fn load(
        conn: &mut PgConnection,
        sid: &ConversationSid,
    ) -> Result<Option<Self>, sqlx::Error> {
        let Some(conversation) = read::lock_conversation(conn, sid).await? else {
            return Ok(None);
        };
        let tenures = ledger::tenures_of_conversation(conn, sid.as_str()).await?;
        // The last of each line stays; of one that was released, nobody is to come back by themselves.
        let mut last_holders = BTreeMap::new();
        for tenure in tenures {
            match (tenure.holder, tenure.cause) {
                (Some(holder), _) => {
                    last_holders.insert(tenure.line, holder);
                }
                (None, Cause::Transfer) => {
                    last_holders.remove(&tenure.line);
                }
                (None, Cause::Created | Cause::Upstream | Cause::Removed) => {}
            }
        }
        let participants = read::participants(conn, sid.as_str()).await?;
        let departure_was_told = match judge::departed(&participants) {
            Some((last, _)) => {
                let kind = Kind::ParticipantRemoved;
                events::last_via(conn, sid.as_str(), kind, &last.participant_sid).await? == Some(Via::Webhook)
            }
            None => false,
        };
        Ok(Some(Self {
            conversation,
            participants,
            departure_was_told,
            last_holders,
            sends: store::sends_of(conn, sid.as_str()).await?,
        }))
    }

    pub(super) fn situation<'a>(
        &'a self,
        ours: Option<Ours<'a>>,
        autocreating: Option<&'a Autocreating>,
    ) -> Situation<'a> {
        Situation {
            conversation: &self.conversation,
            participants: &self.participants,
            last_holders: &self.last_holders,
            sends: &self.sends,
            departure_was_told: self.departure_was_told,
            ours,
            autocreating,
        }
    }
}

impl Health {
    /// Judges a conversation within the caller's transaction: opens what is newly wrong, resolves what no longer is, and
    /// starts the repairs that the policy starts.
    ///
    /// `autocreating` is what Twilio says of the account's numbers, where it was asked.
    pub async fn examine_in(
        &self,
        conn: &mut PgConnection,
        sid: &ConversationSid,
        seen_by: SeenBy,
        autocreating: Option<&Autocreating>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let Some(known) = Known::load(conn, sid).await? else {
            return Ok(());
        };
        let account_sid = known.conversation.account_sid.clone();
        let account = self.accounts.get(account_sid.as_str());
        let judgement = judge::judge(&known.situation(account.map(Ours::of), autocreating));
        let about = About {
            conversation_sid: sid,
            account_sid: account_sid.as_str(),
        };
        let open = store::open(conn, sid.as_str()).await?;
        let mut log = Vec::new();
        for judged in &judgement.found {
            let known = open
                .iter()
                .find(|finding| finding.code == judged.code && finding.line == judged.line);
            let id = match known {
                Some(finding) => {
                    store::see_again(conn, finding, judged, seen_by, now).await?;
                    finding.line_finding_id
                }
                None => store::insert(conn, &about, judged, seen_by, now).await?,
            };
            let Some(finding) = store::find(conn, sid, id).await? else {
                continue;
            };
            if known.is_none() {
                let kind = Kind::LineFindingOpened;
                log.push(entry(&finding, kind, via(seen_by), None, now));
            }
            let starts = finding.repair_state.is_none() && self.policy.starts(finding.code);
            if finding.repair.is_some() && starts {
                self.queue_repair(conn, &finding, "policy", Via::Timer, now)
                    .await?;
            }
        }
        for finding in open {
            let still = judgement
                .found
                .iter()
                .any(|judged| judged.code == finding.code && judged.line == finding.line);
            if !still && !judgement.open.contains(&finding.code) {
                store::resolve(conn, &finding, now).await?;
                log.push(entry(
                    &finding,
                    Kind::LineFindingResolved,
                    via(seen_by),
                    None,
                    now,
                ));
            }
        }
        events::append(conn, &log).await
    }

    /// Twilio refused a message, in the transaction that says so. `code` is Twilio's; a refusal for what the message
    /// itself was says nothing of the line.
    pub async fn refused_in(
        &self,
        conn: &mut PgConnection,
        send: Send<'_>,
        code: Option<u32>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let (Some(code), Ok(sid)) = (code, ConversationSid::try_from(send.conversation_sid)) else {
            return Ok(());
        };
        if is_about_the_message(code) {
            return Ok(());
        }
        // Before anything that hangs on it.
        read::lock_conversation(conn, &sid).await?;
        let (account, line) = (send.account_sid, send.line);
        let (id, code) = (send.outbound_message_id, code.to_string());
        store::count_refusal(conn, account, sid.as_str(), line, &code, id, now).await?;
        self.examine_in(conn, &sid, SeenBy::Answer, None, now).await
    }

    /// Twilio took a message, in the transaction that says so.
    pub async fn accepted_in(
        &self,
        conn: &mut PgConnection,
        send: Send<'_>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let (account, conversation, line) = (send.account_sid, send.conversation_sid, send.line);
        let was_refused = store::note_acceptance(conn, account, conversation, line, now).await?;
        match ConversationSid::try_from(conversation) {
            Ok(sid) if was_refused => self.examine_in(conn, &sid, SeenBy::Answer, None, now).await,
            _ => Ok(()),
        }
    }
}

/// A message of ours that Twilio answered.
#[derive(Debug, Clone, Copy)]
pub struct Send<'a> {
    pub account_sid: &'a str,
    pub conversation_sid: &'a str,
    pub line: &'a str,
    pub outbound_message_id: Uuid,
}

/// Its text, media, attributes or template; or that the conversation has ended meanwhile.
fn is_about_the_message(code: u32) -> bool {
    matches!(
        code,
        20001 | 50303 | 50304 | 50310 | 50377 | 50503..=50512 | 50526..=50541
    )
}

fn via(seen_by: SeenBy) -> Via {
    match seen_by {
        SeenBy::Sweep => Via::Sweep,
        SeenBy::Answer => Via::Rest,
        SeenBy::Repair => Via::Worker,
    }
}

/// An entry of the log about a finding.
pub(super) fn entry(
    finding: &Finding,
    kind: Kind,
    via: Via,
    actor: Option<&str>,
    now: Timestamp,
) -> NewEvent {
    NewEvent {
        kind,
        account_sid: AccountSid::try_from(finding.account_sid.as_str()).ok(),
        conversation_sid: ConversationSid::try_from(finding.conversation_sid.as_str()).ok(),
        subject: finding.line_finding_id.to_string(),
        actor: actor.map(str::to_owned),
        via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({
            "finding_id": finding.line_finding_id,
            "line": finding.line,
            "code": finding.code,
            "severity": finding.severity,
            "evidence": finding.evidence,
            "repair": finding.repair,
            "repair_outcome": finding.repair_outcome,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_that_is_too_long_says_nothing_of_the_line() {
        for code in [50504, 50503, 50511, 50304, 50377] {
            assert!(is_about_the_message(code), "{code}");
        }
        for code in [50513, 50373, 50342, 50350] {
            assert!(!is_about_the_message(code), "{code}");
        }
    }
}
