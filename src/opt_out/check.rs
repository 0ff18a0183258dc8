//! Whether something may be posted to a conversation, as far as its members' opt-outs go.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::opt_out::{ConcernState, Policy, policies};

/// How things stand for whoever posts through a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nobody has opted out, or a supervisor has said to go on.
    Clear,
    /// So many members do not get it.
    Warned { members: usize },
    /// A supervisor has to decide first.
    Held { members: usize },
    /// A supervisor decided against it.
    Stopped { members: usize },
    /// The conversation is being closed.
    Closing { members: usize },
}

/// An open opt-out of a member, and what became of it in the conversation.
pub(super) struct Open {
    pub(super) opt_out_id: Uuid,
    pub(super) state: Option<ConcernState>,
}

/// Looks whether members of a conversation have opted out of a line, and what the policy makes of it: that of the number, or
/// else of the account.
pub async fn standing(
    conn: &mut PgConnection,
    account_sid: &str,
    conversation_sid: &str,
    line: &str,
    of_account: Policy,
) -> Result<Standing, sqlx::Error> {
    let open = open(conn, conversation_sid, Some(line)).await?;
    if open.is_empty() {
        return Ok(Standing::Clear);
    }
    let policy = policies::find(conn, account_sid, line)
        .await?
        .unwrap_or(of_account);
    Ok(judge(policy, &open))
}

fn judge(policy: Policy, open: &[Open]) -> Standing {
    let members = open.len();
    let is = |state: ConcernState| move |one: &Open| one.state == Some(state);
    match policy {
        _ if members == 0 => Standing::Clear,
        Policy::CarryOn => Standing::Warned { members },
        Policy::AskSupervisor if open.iter().any(is(ConcernState::Stopped)) => Standing::Stopped { members },
        Policy::AskSupervisor if open.iter().all(is(ConcernState::Allowed)) => Standing::Clear,
        Policy::AskSupervisor => Standing::Held { members },
        Policy::Close => Standing::Closing { members },
    }
}

/// The open opt-outs of those who are in a conversation, of one of its numbers or of all.
pub(super) async fn open(
    conn: &mut PgConnection,
    conversation_sid: &str,
    line: Option<&str>,
) -> Result<Vec<Open>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- opt_out.open_in_conversation
        select distinct opt_out.opt_out_id, concern.state as "state?"
        from participant as member
        join participant as ours on ours.conversation_sid = member.conversation_sid and ours.removed_at is null
        join opt_out on opt_out.account_sid = member.account_sid and opt_out.address = member.address
                    and opt_out.line in (ours.projected_address, member.proxy_address) and opt_out.cleared_at is null
        left join opt_out_concern as concern
            on concern.conversation_sid = member.conversation_sid and concern.opt_out_id = opt_out.opt_out_id
        where member.conversation_sid = $1 and member.removed_at is null and member.address is not null
          and ($2::text is null or opt_out.line = $2)"#,
        conversation_sid,
        line,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Open {
            opt_out_id: row.opt_out_id,
            state: row.state.as_deref().map(ConcernState::read),
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(states: &[Option<ConcernState>]) -> Vec<Open> {
        let one = |state: &Option<ConcernState>| Open {
            opt_out_id: Uuid::nil(),
            state: *state,
        };
        states.iter().map(one).collect()
    }

    #[test]
    fn a_supervisor_has_to_allow_it_for_every_member() {
        let (allowed, held, stopped) = (
            Some(ConcernState::Allowed),
            Some(ConcernState::Held),
            Some(ConcernState::Stopped),
        );
        let judge = |states: &[Option<ConcernState>]| judge(Policy::AskSupervisor, &open(states));
        assert_eq!(judge(&[]), Standing::Clear);
        assert_eq!(judge(&[allowed, allowed]), Standing::Clear);
        assert_eq!(judge(&[allowed, held]), Standing::Held { members: 2 });
        assert_eq!(judge(&[allowed, None]), Standing::Held { members: 2 });
        assert_eq!(judge(&[allowed, stopped]), Standing::Stopped { members: 2 });
    }

    #[test]
    fn the_policy_that_holds_now_decides() {
        let held = open(&[Some(ConcernState::Held)]);
        assert_eq!(judge(Policy::CarryOn, &held), Standing::Warned { members: 1 });
        assert_eq!(judge(Policy::Close, &held), Standing::Closing { members: 1 });
        assert_eq!(judge(Policy::Close, &[]), Standing::Clear);
    }
}
