//! Runs of sweeps and what is known of each conversation's verification.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::ids::{AccountSid, ConversationSid, new_id};
use crate::sweep::{By, Compared, Found, Run, RunState, Scope};

/// How long a run belongs to a process that gives no sign of life. Longer than its longest call.
const LEASE: SignedDuration = SignedDuration::from_secs(90);

/// The right to go on with a run. What is written names the token, so that a process that overslept writes nothing.
#[derive(Debug, Clone, Copy)]
pub(super) struct Claim {
    pub(super) sweep_run_id: Uuid,
    token: Uuid,
}

macro_rules! run {
    ($row:expr) => {{
        let row = $row;
        Run {
            sweep_run_id: row.sweep_run_id,
            account_sid: row.account_sid,
            scope: Scope::from_column(&row.scope),
            everything: row.everything,
            state: RunState::from_column(&row.state),
            started_at: row.started_at.to_jiff(),
            finished_at: row.finished_at.map(jiff_sqlx::Timestamp::to_jiff),
            requests: row.requests,
            probed: row.probed,
            walked: row.walked,
            left_alone: row.left_alone,
            unsettled: row.unsettled,
            failed: row.failed,
            compared: row.compared,
            found: Found {
                missing: row.missing,
                stale: row.stale,
                gone: row.gone,
                extra: row.extra,
            },
            last_error: row.last_error,
        }
    }};
}

/// What became of asking for a run.
#[derive(Debug)]
pub(super) enum Claimed {
    Ours(Claim, Box<Run>),
    /// Somebody works on the account's run, and was last seen alive this long before the lease ends.
    Busy(SignedDuration),
}

/// Takes up the account's run that was not finished, or begins one.
///
/// A run that looks at everything takes the place of one that does not, and not the reverse. The caller commits.
pub(super) async fn claim(
    conn: &mut PgConnection,
    account_sid: &AccountSid,
    everything: bool,
    now: Timestamp,
) -> Result<Claimed, sqlx::Error> {
    let open = sqlx::query!(
        "-- sweep.open_run
        select sweep_run_id, everything, lease_expires_at from sweep_run
        where account_sid = $1 and state = 'running' and scope = 'account'
        for update",
        account_sid.as_str(),
    )
    .fetch_optional(&mut *conn)
    .await?;
    if let Some(open) = open {
        let left = open.lease_expires_at.map(|at| at.to_jiff().duration_since(now));
        if let Some(left) = left.filter(SignedDuration::is_positive) {
            return Ok(Claimed::Busy(left));
        }
        if open.everything || !everything {
            let (claim, run) = lease(conn, open.sweep_run_id, now).await?;
            return Ok(Claimed::Ours(claim, Box::new(run)));
        }
        abandon(conn, open.sweep_run_id, now).await?;
    }
    let (claim, run) = begin(conn, account_sid, Scope::Account, everything, now).await?;
    Ok(Claimed::Ours(claim, Box::new(run)))
}

/// Begins a run that the caller holds.
pub(super) async fn begin(
    conn: &mut PgConnection,
    account_sid: &AccountSid,
    scope: Scope,
    everything: bool,
    now: Timestamp,
) -> Result<(Claim, Run), sqlx::Error> {
    let row = sqlx::query!(
        "-- sweep.begin
        insert into sweep_run (sweep_run_id, account_sid, scope, everything, started_at)
        values ($1, $2, $3, $4, $5)
        returning sweep_run_id",
        new_id(),
        account_sid.as_str(),
        scope.as_str(),
        everything,
        now.to_sqlx() as _,
    )
    .fetch_one(&mut *conn)
    .await?;
    lease(conn, row.sweep_run_id, now).await
}

async fn lease(
    conn: &mut PgConnection,
    sweep_run_id: Uuid,
    now: Timestamp,
) -> Result<(Claim, Run), sqlx::Error> {
    let row = sqlx::query!(
        r#"-- sweep.lease
        update sweep_run set lease_token = gen_random_uuid(), lease_expires_at = $2
        where sweep_run_id = $1
        returning sweep_run_id, account_sid, scope, everything, state, started_at, finished_at, requests, probed, walked,
                  left_alone, unsettled, failed, compared, missing, stale, gone, extra, last_error, lease_token as "token!""#,
        sweep_run_id,
        (now + LEASE).to_sqlx() as _,
    )
    .fetch_one(conn)
    .await?;
    let claim = Claim {
        sweep_run_id,
        token: row.token,
    };
    Ok((claim, run!(row)))
}

async fn abandon(conn: &mut PgConnection, sweep_run_id: Uuid, now: Timestamp) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- sweep.abandon
        update sweep_run
        set state = 'abandoned', finished_at = $2, lease_token = null, lease_expires_at = null, list_position = null
        where sweep_run_id = $1",
        sweep_run_id,
        now.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// A sign of life, with the requests made since the last one. False: somebody else has the run.
pub(super) async fn beat(
    conn: &mut PgConnection,
    claim: Claim,
    requests: i64,
    now: Timestamp,
) -> Result<bool, sqlx::Error> {
    let kept = sqlx::query!(
        "-- sweep.beat
        update sweep_run set lease_expires_at = $3, requests = requests + $4
        where sweep_run_id = $1 and lease_token = $2",
        claim.sweep_run_id,
        claim.token,
        (now + LEASE).to_sqlx() as _,
        requests,
    )
    .execute(conn)
    .await?;
    Ok(kept.rows_affected() == 1)
}

/// Lets go of a run that is to be taken up again, and says why.
pub(super) async fn release(
    conn: &mut PgConnection,
    claim: Claim,
    requests: i64,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- sweep.release
        update sweep_run
        set lease_token = null, lease_expires_at = null, requests = requests + $3, last_error = coalesce($4, last_error)
        where sweep_run_id = $1 and lease_token = $2",
        claim.sweep_run_id,
        claim.token,
        requests,
        error,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Where a run's reading of Twilio's list has come to.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) position: Option<String>,
    pub(super) listed_all: bool,
}

/// A page of Twilio's list of conversations.
#[derive(Debug, Clone, Copy)]
pub(super) enum Page<'a> {
    First,
    At(&'a str),
    /// The list is read to its end.
    None,
}

pub(super) async fn place(conn: &mut PgConnection, claim: Claim) -> Result<Place, sqlx::Error> {
    let row = sqlx::query!(
        "-- sweep.place
        select list_position, listed_all from sweep_run where sweep_run_id = $1",
        claim.sweep_run_id,
    )
    .fetch_one(conn)
    .await?;
    Ok(Place {
        position: row.list_position,
        listed_all: row.listed_all,
    })
}

/// Which page of the list to read next. False: the lease was lost.
pub(super) async fn turn_to(
    conn: &mut PgConnection,
    claim: Claim,
    page: Page<'_>,
) -> Result<bool, sqlx::Error> {
    let (next, listed_all) = match page {
        Page::First => (None, false),
        Page::At(position) => (Some(position), false),
        Page::None => (None, true),
    };
    let turned = sqlx::query!(
        "-- sweep.turn_to
        update sweep_run set list_position = $3, listed_all = $4 where sweep_run_id = $1 and lease_token = $2",
        claim.sweep_run_id,
        claim.token,
        next,
        listed_all,
    )
    .execute(conn)
    .await?;
    Ok(turned.rows_affected() == 1)
}

/// The run has come to its end. None: the lease was lost.
pub(super) async fn finish(
    conn: &mut PgConnection,
    claim: Claim,
    requests: i64,
    now: Timestamp,
) -> Result<Option<Run>, sqlx::Error> {
    let row = sqlx::query!(
        "-- sweep.finish
        update sweep_run
        set state = case when failed = 0 then 'completed' else 'incomplete' end, finished_at = $3,
            requests = requests + $4, lease_token = null, lease_expires_at = null, list_position = null
        where sweep_run_id = $1 and lease_token = $2
        returning sweep_run_id, account_sid, scope, everything, state, started_at, finished_at, requests, probed, walked,
                  left_alone, unsettled, failed, compared, missing, stale, gone, extra, last_error",
        claim.sweep_run_id,
        claim.token,
        now.to_sqlx() as _,
        requests,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| run!(row)))
}

/// The newest run of an account that got to its end and could read everything.
pub async fn last_completed(conn: &mut PgConnection, account_sid: &str) -> Result<Option<Run>, sqlx::Error> {
    let row = sqlx::query!(
        "-- sweep.last_completed
        select sweep_run_id, account_sid, scope, everything, state, started_at, finished_at, requests, probed, walked,
               left_alone, unsettled, failed, compared, missing, stale, gone, extra, last_error
        from sweep_run
        where account_sid = $1 and state = 'completed' and scope = 'account'
        order by started_at desc limit 1",
        account_sid,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| run!(row)))
}

/// The newest run of an account, whatever became of it.
pub async fn newest(conn: &mut PgConnection, account_sid: &str) -> Result<Option<Run>, sqlx::Error> {
    let row = sqlx::query!(
        "-- sweep.newest
        select sweep_run_id, account_sid, scope, everything, state, started_at, finished_at, requests, probed, walked,
               left_alone, unsettled, failed, compared, missing, stale, gone, extra, last_error
        from sweep_run
        where account_sid = $1 and scope = 'account'
        order by started_at desc limit 1",
        account_sid,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| run!(row)))
}

/// What is known of a listed conversation before it is looked at.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    /// It has a row, of which more is known than its children.
    pub(super) stored: bool,
    pub(super) in_doubt: bool,
    pub(super) closed_at: Option<Timestamp>,
    pub(super) walked_at: Option<Timestamp>,
    /// The run that looked last.
    pub(super) sweep_run_id: Option<Uuid>,
}

pub(super) async fn known(
    conn: &mut PgConnection,
    sids: &[&str],
) -> Result<BTreeMap<String, Known>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- sweep.known
        select listed.sid as "sid!", conversation.version_at is not null as "stored!",
               conversation.unverified_since is not null as "in_doubt!", conversation.closed_at as "closed_at?",
               conversation_check.walked_at as "walked_at?", conversation_check.sweep_run_id as "sweep_run_id?"
        from unnest($1::text[]) as listed (sid)
        left join conversation on conversation.conversation_sid = listed.sid
        left join conversation_check on conversation_check.conversation_sid = listed.sid"#,
        sids as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let known = Known {
                stored: row.stored,
                in_doubt: row.in_doubt,
                closed_at: row.closed_at.map(jiff_sqlx::Timestamp::to_jiff),
                walked_at: row.walked_at.map(jiff_sqlx::Timestamp::to_jiff),
                sweep_run_id: row.sweep_run_id,
            };
            (row.sid, known)
        })
        .collect())
}

/// Conversations of the mirror that this run has not come across, though they were there before it began.
pub(super) async fn not_listed(
    conn: &mut PgConnection,
    run: &Run,
    service_sid: &str,
    limit: i64,
) -> Result<Vec<ConversationSid>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- sweep.not_listed
        select conversation_sid as "sid: ConversationSid"
        from conversation
        where account_sid = $1 and coalesce(service_sid, $2) = $2 and removed_at is null and first_seen_at < $3
          and not exists (
              select from conversation_check
              where conversation_check.conversation_sid = conversation.conversation_sid and sweep_run_id = $4)
        order by conversation_sid
        limit $5"#,
        run.account_sid,
        service_sid,
        run.started_at.to_sqlx() as _,
        run.sweep_run_id,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| row.sid).collect())
}

/// How many conversations of the account the mirror holds, for an estimate of how much there is to do.
pub(super) async fn held(conn: &mut PgConnection, account_sid: &str) -> Result<i64, sqlx::Error> {
    let row = sqlx::query!(
        r#"-- sweep.held
        select count(*) as "held!" from conversation where account_sid = $1 and removed_at is null"#,
        account_sid,
    )
    .fetch_one(conn)
    .await?;
    Ok(row.held)
}

/// Counts what was found in a conversation, in the transaction that repairs it. False: the lease was lost, and the caller
/// rolls back.
pub(super) async fn count_found(
    conn: &mut PgConnection,
    claim: Claim,
    account_sid: &AccountSid,
    sid: &ConversationSid,
    found: Found,
) -> Result<bool, sqlx::Error> {
    sqlx::query!(
        "-- sweep.count_found
        insert into conversation_check as known (conversation_sid, account_sid, missing, stale, gone, extra)
        values ($1, $2, $3, $4, $5, $6)
        on conflict (conversation_sid) do update
        set missing = known.missing + $3, stale = known.stale + $4, gone = known.gone + $5, extra = known.extra + $6",
        sid.as_str(),
        account_sid.as_str(),
        found.missing,
        found.stale,
        found.gone,
        found.extra,
    )
    .execute(&mut *conn)
    .await?;
    let counted = sqlx::query!(
        "-- sweep.count_found_in_run
        update sweep_run
        set missing = missing + $3, stale = stale + $4, gone = gone + $5, extra = extra + $6
        where sweep_run_id = $1 and lease_token = $2",
        claim.sweep_run_id,
        claim.token,
        found.missing,
        found.stale,
        found.gone,
        found.extra,
    )
    .execute(conn)
    .await?;
    Ok(counted.rows_affected() == 1)
}

/// How a look at one conversation ended.
#[derive(Debug, Clone, Copy)]
pub(super) enum Ended {
    /// Mirror and Twilio were equal as of this time.
    Verified {
        by: By,
        as_of: Timestamp,
        compared: Compared,
    },
    /// It is over and was walked after its end, and its row is as Twilio lists it: nothing can have changed.
    LeftAlone { as_of: Timestamp },
    /// Something is still different, and has to be looked at again.
    Unsettled,
    /// It could not be read.
    Failed,
}

/// Writes down that a conversation was looked at. None: the lease was lost, and the caller rolls back.
pub(super) async fn record(
    conn: &mut PgConnection,
    claim: Claim,
    account_sid: &AccountSid,
    sid: &ConversationSid,
    ended: Ended,
) -> Result<Option<Run>, sqlx::Error> {
    let (by, as_of, compared) = match ended {
        Ended::Verified { by, as_of, compared } => (Some(by), Some(as_of), compared),
        Ended::LeftAlone { as_of } => (Some(By::Probe), Some(as_of), Compared::default()),
        Ended::Unsettled | Ended::Failed => (None, None, Compared::default()),
    };
    let left_alone = matches!(ended, Ended::LeftAlone { .. });
    let walked_at = as_of.filter(|_| by == Some(By::Walk));
    sqlx::query!(
        "-- sweep.record
        insert into conversation_check as known (conversation_sid, account_sid, sweep_run_id, verified_at, verified_by,
            walked_at, participants, messages, receipts)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9)
        on conflict (conversation_sid) do update
        set sweep_run_id = $3, verified_at = coalesce($4, known.verified_at),
            verified_by = coalesce($5, known.verified_by), walked_at = coalesce($6, known.walked_at),
            participants = case when $10 then $7 else known.participants end,
            messages = case when $10 then $8 else known.messages end,
            receipts = case when $10 then $9 else known.receipts end",
        sid.as_str(),
        account_sid.as_str(),
        claim.sweep_run_id,
        as_of.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        by.map(By::as_str),
        walked_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        compared.participants,
        compared.messages,
        compared.receipts,
        as_of.is_some() && !left_alone,
    )
    .execute(&mut *conn)
    .await?;
    let one = |yes: bool| i64::from(yes);
    let row = sqlx::query!(
        "-- sweep.record_in_run
        update sweep_run
        set probed = probed + $3, walked = walked + $4, left_alone = left_alone + $5, unsettled = unsettled + $6,
            failed = failed + $7, compared = compared + $8
        where sweep_run_id = $1 and lease_token = $2
        returning sweep_run_id, account_sid, scope, everything, state, started_at, finished_at, requests, probed, walked,
                  left_alone, unsettled, failed, compared, missing, stale, gone, extra, last_error",
        claim.sweep_run_id,
        claim.token,
        one(by == Some(By::Probe) && !left_alone),
        one(by == Some(By::Walk)),
        one(left_alone),
        one(matches!(ended, Ended::Unsettled)),
        one(matches!(ended, Ended::Failed)),
        if as_of.is_some() { 1 + compared.total() } else { 0 },
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(|row| run!(row)))
}
