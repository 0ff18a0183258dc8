//! What would happen on a line, when and why, if nothing else did: what is open goes on, what is due is done, and so on up
//! to a time. Nothing is written.

use jiff::{SignedDuration, Timestamp};
use sqlx::PgConnection;

use crate::escalation::evaluate::Run;
use crate::escalation::look::{self, Standing};
use crate::escalation::policy::Policy;
use crate::escalation::since::Since;
use crate::escalation::store::Live;
use crate::escalation::store::watch::Key;
use crate::ids::{ConversationSid, PhoneNumber};
use crate::ledger;

/// How far ahead it is looked.
pub const AHEAD: SignedDuration = SignedDuration::from_hours(30 * 24);

/// What would happen on one line.
#[derive(Debug)]
pub struct Forecast {
    pub line: PhoneNumber,
    pub holder: Option<String>,
    /// The policy that counts for the line now, and its version; none: no policy does.
    pub in_force: Option<(String, i64)>,
    /// What is open or would begin, each with its policy and version. Steps after `at` are those that would be taken.
    pub runs: Vec<(String, i64, Run)>,
    pub at: Timestamp,
    pub until: Timestamp,
}

/// What would happen on the lines of a conversation, or on one of them; by another policy than the one that counts, where one
/// is given with its version (0 for one that is not stored).
pub async fn dry_run(
    conn: &mut PgConnection,
    sid: &ConversationSid,
    line: Option<&PhoneNumber>,
    instead: Option<(&str, i64, Policy)>,
    now: Timestamp,
) -> Result<Vec<Forecast>, sqlx::Error> {
    let mut standing = Standing::load(conn).await?;
    let only = instead.as_ref().map(|(policy_id, ..)| (*policy_id).to_owned());
    if let Some((policy_id, version, policy)) = instead {
        standing.is_supposed = true;
        standing.policies = vec![Live {
            policy_id: policy_id.to_owned(),
            version,
            policy,
            since: now - AHEAD,
            since_of: Since::default(),
            begins: true,
        }];
    }
    let lines: Vec<(PhoneNumber, Option<String>)> = ledger::lines_of(conn, sid.as_str())
        .await?
        .into_iter()
        .filter_map(|(number, holder)| Some((PhoneNumber::try_from(number.as_str()).ok()?, holder)))
        .filter(|(number, _)| line.is_none_or(|line| line == number))
        .collect();
    let keys: Vec<Key> = lines
        .iter()
        .map(|(line, _)| Key {
            conversation_sid: sid.as_str().to_owned(),
            line: line.as_str().to_owned(),
        })
        .collect();
    let until = now + AHEAD;
    let seen = look::lines(conn, &standing, &keys, now, until).await?;
    Ok(lines
        .into_iter()
        .zip(seen)
        .map(|((line, holder), seen)| {
            let who = holder.as_deref().and_then(|holder| holder.parse().ok());
            let in_force = standing.in_force(line.as_str(), who.as_ref());
            let runs = seen.judged.into_iter().flat_map(|judged| {
                let (policy_id, version) = (judged.policy_id, judged.version);
                let runs = judged.outlook.runs.into_iter();
                runs.map(move |run| (policy_id.clone(), version, run))
            });
            Forecast {
                in_force: in_force.map(|live| (live.policy_id.clone(), live.version)),
                // What was over before is history.
                runs: runs
                    .filter(|(_, _, run)| run.end.is_none_or(|end| end.at >= now))
                    .filter(|(policy_id, ..)| only.as_ref().is_none_or(|only| only == policy_id))
                    .collect(),
                line,
                holder,
                at: now,
                until,
            }
        })
        .collect())
}
