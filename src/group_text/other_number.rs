//! What happens where Twilio has an open group of the same numbers, which we did not know.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::PgConnection;

use super::work::{Create, Found, observe};
use super::{GroupText, IfExists, Member, choice, follow, operations, store};
use crate::accounts::Account;
use crate::events::Via;
use crate::group_text::validate::roster;
use crate::projection;
use crate::projection::read::Failure;
use crate::queue::{self, Outcome, Task};

impl Create {
    /// Does what was asked for in that case. `None`: what is there is to be taken.
    pub(super) async fn after_taken(
        &self,
        task: &Task,
        account: &Account,
        group: &GroupText,
        found: Option<&Found>,
    ) -> Result<Option<Outcome>, Failure> {
        let mut conn = self.pool.acquire().await?;
        let kept = choice::find(&mut conn, group.group_text_id).await?;
        drop(conn);
        let is_ours = found.is_some_and(|found| !found.adopted);
        match kept.if_exists {
            Some(IfExists::OtherNumber) if !is_ours => {}
            Some(IfExists::Refuse) if found.is_some_and(|found| found.adopted) => {}
            _ => return Ok(None),
        }
        let now = self.clock.now();
        let mut transaction = self.pool.begin().await?;
        if let Some(found) = found {
            let observed = observe(account, group, found);
            projection::commit(&mut transaction, &observed, Via::Rest, None, now).await?;
        }
        let Some(group) = store::lock(&mut transaction, group.group_text_id).await? else {
            return Ok(Some(Outcome::Done));
        };
        let sid = found.map(|found| found.conversation.sid.as_str());
        if kept.if_exists == Some(IfExists::Refuse) {
            exists(&mut transaction, group, sid, now).await?;
        } else {
            self.take_another(&mut transaction, account, group, sid, now)
                .await?;
        }
        if queue::finish(&mut transaction, task.lease).await? {
            transaction.commit().await?;
        }
        Ok(Some(Outcome::Finished))
    }

    /// The next number of the team, if there is one.
    async fn take_another(
        &self,
        conn: &mut PgConnection,
        account: &Account,
        mut group: GroupText,
        sid: Option<&str>,
        now: Timestamp,
    ) -> Result<(), sqlx::Error> {
        let mut kept = choice::find(conn, group.group_text_id).await?;
        kept.existing_conversation_sid = sid.map(str::to_owned);
        let (Some(team), Some(number)) = (kept.team.clone(), kept.number.take()) else {
            choice::keep(conn, group.group_text_id, &kept).await?;
            return no_free_number(conn, group, now).await;
        };
        kept.tried.push(number.clone());
        let tried: BTreeSet<String> = kept.tried.iter().cloned().collect();
        let members = std::mem::take(&mut group.members);
        let others = choice::Others::of(&members, &number, account.account_sid.clone());
        let picked = choice::pick(conn, &self.accounts, &team, &others, &tried).await?;
        let Some(chosen) = picked.number else {
            choice::keep(conn, group.group_text_id, &kept).await?;
            group.members = members;
            return no_free_number(conn, group, now).await;
        };
        group.members = members
            .into_iter()
            .map(|member| match member {
                Member::Line { line, holder } if line == number => Member::Line {
                    line: chosen.as_str().to_owned(),
                    holder,
                },
                other => other,
            })
            .collect();
        let roster = roster(&group.members);
        kept.number = Some(chosen.as_str().to_owned());
        kept.existing_conversation_sid = None;
        choice::keep(conn, group.group_text_id, &kept).await?;
        choice::replace_number(conn, group.group_text_id, &group.members, &roster).await?;
        operations::put_create(conn, &group, now).await?;
        let groups = picked.open_groups;
        operations::tell_chosen(conn, &group, &team, &chosen, groups, Via::Rest, now).await
    }
}

/// There is such a group, and it is not to be taken.
pub(super) async fn exists(
    conn: &mut PgConnection,
    group: GroupText,
    sid: Option<&str>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let mut kept = choice::find(conn, group.group_text_id).await?;
    kept.existing_conversation_sid = sid.map(str::to_owned);
    choice::keep(conn, group.group_text_id, &kept).await?;
    let detail = "Twilio has an open group of the same numbers already: see `existing_conversation_sid`";
    follow::fail(conn, group, "exists", detail, Via::Rest, now).await
}

async fn no_free_number(
    conn: &mut PgConnection,
    group: GroupText,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let detail =
        "Twilio has an open group of the same numbers, and no other number of the team is free for this one";
    follow::fail(conn, group, "no_free_number", detail, Via::Rest, now).await
}
