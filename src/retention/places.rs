//! Where each class of data lies. A new place is added here, with a function of the module that owns the table.
//!
//! What says what Twilio told us, word for word, and so has names, numbers and messages in it: the forms of webhooks
//! (`webhook`), and the recorded answers of our own calls (`answer`; [`crate::projection::answers`] has the functions that
//! a rule for them needs). [`crate::rebuild`] counts what is erased of either as having no source any more.

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::events::{self, Position};
use crate::inbox::erase as webhooks;
use crate::retention::Class;
use crate::retention::store::Progress;

/// Something that is due, or was erased before.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) place: Progress,
    pub(super) conversation_sid: Option<String>,
    pub(super) is_erased: bool,
}

/// What comes after a place and is older than `before`, in order.
pub(super) async fn due(
    conn: &mut PgConnection,
    class: Class,
    after: Progress,
    before: Timestamp,
    limit: i64,
) -> Result<Vec<Due>, sqlx::Error> {
    Ok(match class {
        Class::Webhooks => webhooks::due(conn, after.number, before, limit)
            .await?
            .into_iter()
            .map(|(number, conversation_sid, is_erased)| Due {
                place: Progress {
                    commit_xid: 0,
                    number,
                },
                conversation_sid,
                is_erased,
            })
            .collect(),
        Class::Log => {
            let after = Position {
                commit_xid: after.commit_xid,
                event_id: after.number,
            };
            events::due_for_erasure(conn, after, before, limit)
                .await?
                .into_iter()
                .map(|(position, conversation_sid, is_erased)| Due {
                    place: Progress {
                        commit_xid: position.commit_xid,
                        number: position.event_id,
                    },
                    conversation_sid,
                    is_erased,
                })
                .collect()
        }
    })
}

/// Erases what is due. Answers of how much.
pub(super) async fn erase(
    conn: &mut PgConnection,
    class: Class,
    due: &[Due],
    now: Timestamp,
) -> Result<i64, sqlx::Error> {
    let numbers: Vec<i64> = due.iter().map(|one| one.place.number).collect();
    match class {
        Class::Webhooks => webhooks::erase(conn, &numbers, now).await,
        Class::Log => {
            let xids: Vec<i64> = due.iter().map(|one| one.place.commit_xid).collect();
            events::erase(conn, &xids, &numbers).await
        }
    }
}
