//! What is done with a line without asking anybody: a supervisor forces it, its holder releases it or hands it back.

use sqlx::PgConnection;

use crate::ids::{ConversationSid, Identity, PhoneNumber};
use crate::ledger::{self, Cause, Tenure};
use crate::mirror;
use crate::transfer::operations::{
    Draft, Ground, Passed, StartTransferError, already_open, begin_swap, is_elsewhere, make_way, supersede,
    survey,
};
use crate::transfer::people::{self, Actor, may_act_for};
use crate::transfer::{IfOpen, Kind, State, Transfer, Transfers, store};

/// A line that a supervisor gives to somebody.
#[derive(Debug, Clone)]
pub struct NewForce {
    pub conversation_sid: ConversationSid,
    /// None: the conversation's only line.
    pub line: Option<PhoneNumber>,
    pub to: Identity,
    /// The supervisor.
    pub by: String,
    pub reason: Option<String>,
    pub note: Option<String>,
    pub introduction: Option<String>,
}

/// A line that its holder, or a supervisor in their place, gives up.
#[derive(Debug, Clone)]
pub struct GiveUp {
    pub conversation_sid: ConversationSid,
    /// None: the conversation's only line.
    pub line: Option<PhoneNumber>,
    pub by: Actor,
    pub reason: Option<String>,
    pub note: Option<String>,
    /// Of who gets it back; nobody introduces themselves where it is left to nobody.
    pub introduction: Option<String>,
    pub if_open: IfOpen,
}

impl Transfers {
    /// Gives the line to somebody who is not asked, within the caller's transaction. An offer that stands ends; a swap that
    /// is under way is taken over from wherever it is. Only another force is not.
    ///
    /// That the caller is a supervisor has been checked.
    pub async fn force_in(
        &self,
        conn: &mut PgConnection,
        new: NewForce,
    ) -> Result<Transfer, StartTransferError> {
        let now = self.clock.now();
        let ground = survey(conn, &new.conversation_sid, new.line.as_ref()).await?;
        let open = store::open_on_line(conn, &ground.conversation_sid, ground.line.as_str()).await?;
        // Whoever is on the line has to go: more than one are, where a swap ended half done.
        let on_line = on_line(conn, &ground).await?;
        let is_alone = on_line.iter().all(|one| one.as_deref() == Some(new.to.as_str()));
        if open.is_none() && ground.holder.as_deref() == Some(new.to.as_str()) && is_alone {
            return Err(StartTransferError::AlreadyHolder);
        }
        if is_elsewhere(conn, &ground.conversation_sid, &ground.line, &new.to).await? {
            return Err(StartTransferError::TargetInGroup);
        }
        if people::is_gone(conn, &new.to, now).await? {
            let why = people::LEFT;
            return Err(StartTransferError::NobodyFree {
                passed: vec![Passed { to: new.to, why }],
            });
        }
        let draft = Draft {
            kind: Kind::Force,
            to: Some(new.to),
            requested_by: new.by,
            decided_as: None,
            reason: new.reason,
            note: new.note,
            introduction: new.introduction,
            offer_timeout: None,
        };
        let mut transfer = self.draft(&ground, draft, now);
        if on_line.len() > 1 {
            transfer.displaced = on_line;
        }
        if let Some(open) = open {
            // First of all, so that whoever works on it records nothing from now on.
            ledger::take_line_away(conn, ground.conversation_sid.as_str(), ground.line.as_str()).await?;
            if let Some(open) = store::lock(conn, open.transfer_id).await? {
                match open.state {
                    State::Swapping if open.kind == Kind::Force => return Err(already_open(open)),
                    State::Offered | State::Swapping => supersede(conn, open, &mut transfer, now).await?,
                    _ => {}
                }
            }
        }
        store::insert(conn, &transfer).await?;
        begin_swap(conn, &transfer, now).await?;
        Ok(transfer)
    }

    /// As [`Transfers::force_in`], in a transaction of its own.
    pub async fn force(&self, new: NewForce) -> Result<Transfer, StartTransferError> {
        let mut transaction = self.pool.begin().await?;
        let transfer = self.force_in(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// The holder lets the line go, within the caller's transaction: to whom the settings say, or to nobody. Then the number
    /// itself stays in the group, and the group with it.
    pub async fn release_in(
        &self,
        conn: &mut PgConnection,
        give_up: GiveUp,
    ) -> Result<Transfer, StartTransferError> {
        let ground = survey(conn, &give_up.conversation_sid, give_up.line.as_ref()).await?;
        let overridden = by_the_holder(&ground, &give_up.by)?;
        let mut to = self.settings.release_to.clone();
        if let Some(person) = &to
            && people::is_gone(conn, person, self.clock.now()).await?
        {
            // Who has left would leave the customer without an answer; a line that nobody has is seen to be one.
            to = None;
        }
        if let Some(to) = &to {
            if ground.holder.as_deref() == Some(to.as_str()) {
                return Err(StartTransferError::AlreadyHolder);
            }
            if is_elsewhere(conn, &ground.conversation_sid, &ground.line, to).await? {
                return Err(StartTransferError::TargetInGroup);
            }
        }
        self.give_up(conn, &ground, Kind::Release, to, overridden, give_up)
            .await
    }

    /// As [`Transfers::release_in`], in a transaction of its own.
    pub async fn release(&self, give_up: GiveUp) -> Result<Transfer, StartTransferError> {
        let mut transaction = self.pool.begin().await?;
        let transfer = self.release_in(&mut transaction, give_up).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    /// The line goes back to whoever held it before its present holder, within the caller's transaction.
    pub async fn hand_back_in(
        &self,
        conn: &mut PgConnection,
        give_up: GiveUp,
    ) -> Result<Transfer, StartTransferError> {
        let now = self.clock.now();
        let ground = survey(conn, &give_up.conversation_sid, give_up.line.as_ref()).await?;
        let overridden = by_the_holder(&ground, &give_up.by)?;
        let tenures = ledger::tenures_of_conversation(conn, ground.conversation_sid.as_str()).await?;
        let to = holder_before(&tenures, &ground).ok_or(StartTransferError::NoPreviousHolder)?;
        let gone = || StartTransferError::PreviousHolderGone {
            holder: to.to_owned(),
        };
        let to = Identity::try_from(to).map_err(|_| gone())?;
        if people::is_gone(conn, &to, now).await? {
            return Err(gone());
        }
        if is_elsewhere(conn, &ground.conversation_sid, &ground.line, &to).await? {
            return Err(StartTransferError::TargetInGroup);
        }
        self.check_hops(conn, &ground, now).await?;
        self.give_up(conn, &ground, Kind::Handback, Some(to), overridden, give_up)
            .await
    }

    /// As [`Transfers::hand_back_in`], in a transaction of its own.
    pub async fn hand_back(&self, give_up: GiveUp) -> Result<Transfer, StartTransferError> {
        let mut transaction = self.pool.begin().await?;
        let transfer = self.hand_back_in(&mut transaction, give_up).await?;
        transaction.commit().await?;
        Ok(transfer)
    }

    async fn give_up(
        &self,
        conn: &mut PgConnection,
        ground: &Ground,
        kind: Kind,
        to: Option<Identity>,
        overridden: Option<String>,
        give_up: GiveUp,
    ) -> Result<Transfer, StartTransferError> {
        let now = self.clock.now();
        let draft = Draft {
            kind,
            introduction: give_up.introduction.filter(|_| to.is_some()),
            to,
            requested_by: give_up.by.by,
            decided_as: overridden,
            reason: give_up.reason,
            note: give_up.note,
            offer_timeout: None,
        };
        let mut transfer = self.draft(ground, draft, now);
        make_way(conn, ground, &mut transfer, give_up.if_open, now).await?;
        store::insert(conn, &transfer).await?;
        begin_swap(conn, &transfer, now).await?;
        Ok(transfer)
    }
}

/// The identities on the line, by the mirror.
async fn on_line(conn: &mut PgConnection, ground: &Ground) -> Result<Vec<Option<String>>, sqlx::Error> {
    let members = mirror::read::participants(conn, ground.conversation_sid.as_str()).await?;
    let on_line = members.into_iter().filter(|member| {
        member.removed_at.is_none() && member.projected_address.as_deref() == Some(ground.line.as_str())
    });
    Ok(on_line.map(|member| member.identity).collect())
}

/// Answers with the holder, where a supervisor stands in for them.
fn by_the_holder(ground: &Ground, actor: &Actor) -> Result<Option<String>, StartTransferError> {
    let holder = ground.holder.as_deref().ok_or(StartTransferError::Unstaffed)?;
    may_act_for(actor, holder).map_err(|_| StartTransferError::NotTheHolder {
        holder: holder.to_owned(),
    })
}

/// Who held the line until its present holder got it: nobody, where it was unstaffed then or has only just come to be.
fn holder_before<'a>(tenures: &'a [Tenure], ground: &Ground) -> Option<&'a str> {
    tenures
        .iter()
        .rev()
        .filter(|tenure| tenure.line == ground.line.as_str() && tenure.cause != Cause::Removed)
        .find(|tenure| tenure.holder != ground.holder)?
        .holder
        .as_deref()
}
