//! What a run makes of the leaver, so that nothing new comes to them, and taking it back.

use jiff::Timestamp;
use sqlx::PgConnection;

use crate::handover::{Becomes, By, Handover, HandoverError};
use crate::people::{self, NewAvailability, PutAgentError, SetAvailabilityError, Status};

fn actor(plan: &Handover, by: By<'_>) -> people::Actor {
    people::Actor {
        name: by.name.to_owned(),
        via: by.via,
        cause: Some(format!("handover:{}", plan.handover_id)),
    }
}

/// From now on nothing new comes to the leaver, where the plan says so. Who has left already stays so.
pub(super) async fn set_leaver(
    conn: &mut PgConnection,
    plan: &mut Handover,
    by: By<'_>,
    now: Timestamp,
) -> Result<(), HandoverError> {
    let Some(becomes) = plan.leaver_becomes else {
        return Ok(());
    };
    let agent = people::find_agent(conn, plan.leaver.as_str()).await?;
    let agent = agent.ok_or(HandoverError::LeaverGone)?;
    let actor = actor(plan, by);
    match becomes {
        Becomes::Left if agent.has_left(now) => return Ok(()),
        Becomes::Left => {
            let mut profile = agent.profile;
            profile.left_at = Some(now);
            people::put_agent(conn, &plan.leaver, profile, None, &actor, now)
                .await
                .map_err(of_put)?;
        }
        Becomes::Away => {
            let new = NewAvailability {
                status: Status::Away,
                reason: Some("handover".to_owned()),
                until: plan.return_at,
                by: None,
            };
            people::set_availability(conn, &plan.leaver, new, &actor, now)
                .await
                .map_err(of_set)?;
        }
    }
    plan.leaver_changed_at = Some(now);
    Ok(())
}

/// Takes back what the run made of the leaver, where it is still as the run made it.
pub(super) async fn unset_leaver(
    conn: &mut PgConnection,
    plan: &mut Handover,
    by: By<'_>,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let (Some(becomes), Some(changed_at)) = (plan.leaver_becomes, plan.leaver_changed_at.take()) else {
        return Ok(());
    };
    let Some(agent) = people::find_agent(conn, plan.leaver.as_str()).await? else {
        return Ok(());
    };
    let actor = actor(plan, by);
    let done = match becomes {
        Becomes::Left if agent.profile.left_at == Some(changed_at) => {
            let mut profile = agent.profile;
            profile.left_at = None;
            let put = people::put_agent(conn, &plan.leaver, profile, None, &actor, now).await;
            put.map(|_| ()).map_err(of_put)
        }
        Becomes::Away
            if agent.availability.at(now).status == Status::Away
                && agent.availability.until == plan.return_at =>
        {
            let new = NewAvailability {
                status: Status::Available,
                reason: None,
                until: None,
                by: None,
            };
            let set = people::set_availability(conn, &plan.leaver, new, &actor, now).await;
            set.map(|_| ()).map_err(of_set)
        }
        Becomes::Left | Becomes::Away => Ok(()),
    };
    match done {
        Err(HandoverError::Database(error)) => Err(error),
        // It cannot be as it was any more: then it stays as it is, and the lines say so.
        _ => Ok(()),
    }
}

fn of_put(error: PutAgentError) -> HandoverError {
    match error {
        PutAgentError::Database(error) => error.into(),
        PutAgentError::VersionConflict { .. }
        | PutAgentError::TeamUnknown
        | PutAgentError::SupervisorUnknown
        | PutAgentError::BackupUnknown
        | PutAgentError::OwnBackup
        | PutAgentError::SupervisorCycle { .. } => HandoverError::LeaverGone,
    }
}

fn of_set(error: SetAvailabilityError) -> HandoverError {
    match error {
        SetAvailabilityError::Database(error) => error.into(),
        SetAvailabilityError::NotFound | SetAvailabilityError::EndPassed => HandoverError::LeaverGone,
    }
}
