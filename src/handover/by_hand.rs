//! Deciding about single lines of a draft by hand.

use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::events::Kind;
use crate::handover::assign::assign;
use crate::handover::operations::is_somebody;
use crate::handover::tell::tell;
use crate::handover::verbs::Held;
use crate::handover::{Action, By, Handover, HandoverError, Handovers, Line, LineState, State, store};
use crate::ids::{ConversationSid, Identity, PhoneNumber};

/// What somebody decides about one line by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wish {
    Give(Identity),
    Release,
    Stay,
    /// The rules decide again.
    Rules,
}

/// A line of a plan, and what is decided about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Override {
    pub conversation_sid: ConversationSid,
    /// None: the only one that the plan has of the conversation.
    pub line: Option<PhoneNumber>,
    pub action: Wish,
}

/// Why lines cannot be decided about by hand. Nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum OverrideError {
    #[error(transparent)]
    Handover(#[from] HandoverError),
    #[error("the plan has no such line that is still to be decided about")]
    NoSuchLine { place: usize },
    #[error("the plan has several lines of this conversation: say which")]
    Ambiguous { place: usize },
    #[error("nobody has this identity, here or at Twilio as far as we know")]
    PersonUnknown { place: usize },
    #[error("the leaver cannot get their own lines")]
    LeaverNamed { place: usize },
}

impl From<sqlx::Error> for OverrideError {
    fn from(error: sqlx::Error) -> Self {
        Self::Handover(error.into())
    }
}

impl Handovers {
    /// Decides about lines by hand, and about the others anew, since everybody's load is another. Only of a draft.
    pub async fn override_in(
        &self,
        conn: &mut PgConnection,
        handover_id: Uuid,
        overrides: &[Override],
        by: By<'_>,
    ) -> Result<Handover, OverrideError> {
        let held = Held::lock(conn, handover_id, by, self.clock.now()).await?;
        held.only_in(State::Draft)?;
        let Held {
            conn, mut plan, now, ..
        } = held;
        let open = store::lines_to_assign(conn, handover_id).await?;
        for (place, one) in overrides.iter().enumerate() {
            let mut line = find(&open, one, place)?.clone();
            line.by_hand = one.action != Wish::Rules;
            (line.action, line.to) = match &one.action {
                Wish::Give(to) if *to == plan.leaver => return Err(OverrideError::LeaverNamed { place }),
                Wish::Give(to) if !is_somebody(conn, to).await? => {
                    return Err(OverrideError::PersonUnknown { place });
                }
                Wish::Give(to) => (Some(Action::Give), Some(to.clone())),
                Wish::Release => (Some(Action::Release), None),
                Wish::Stay => (Some(Action::Stay), None),
                Wish::Rules => (None, None),
            };
            line.state = LineState::Waiting;
            store::update_line(conn, &line).await?;
        }
        assign(conn, &plan, &self.accounts, now).await?;
        plan.change(by.name, now);
        store::update(conn, &plan).await?;
        let facts = json!({ "lines": overrides.len() });
        tell(conn, &plan, Kind::HandoverChanged, by, facts, now).await?;
        Ok(plan)
    }
}

/// The line that is meant.
fn find<'a>(open: &'a [Line], wanted: &Override, place: usize) -> Result<&'a Line, OverrideError> {
    let mut matching = open.iter().filter(|line| {
        line.conversation_sid == wanted.conversation_sid
            && wanted.line.as_ref().is_none_or(|number| *number == line.line)
    });
    let line = matching.next().ok_or(OverrideError::NoSuchLine { place })?;
    match matching.next() {
        Some(_) => Err(OverrideError::Ambiguous { place }),
        None => Ok(line),
    }
}
