//! All statements once more, in the order in which they entered.
//!
//! A conversation's statements are seen in their order whatever is read when: a later one is written by a transaction
//! that began to work on the conversation after the earlier one had committed. So it is enough that each reading sees
//! what it has not seen before, as of one moment, and takes that by number.

use std::collections::BTreeSet;

use jiff::Timestamp;
use sqlx::types::Json;

use super::Error;
use super::numbers::Seen;
use super::report::{Replayed, Sources};
use super::shadow::Session;
use crate::db::is_passing;
use crate::events::Via;
use crate::inbox::restate::{self, Says};
use crate::mirror::replay::{Entry, Stated};
use crate::mirror::{self, Observed};

/// Statements of one reading, and of one transaction of the session.
const READING: i64 = 200;
/// Statements, or a few more, that are loaded and written together.
const TOGETHER: usize = 500;
/// How many webhooks or answers of a kind are named.
const NAMED_MAX: usize = 100;

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    pub stage: Stage,
    pub done: u64,
    /// As far as is known.
    pub total: u64,
}

/// What a run is doing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Stage {
    /// Webhooks and answers.
    #[default]
    Replaying,
    /// Conversations.
    Comparing,
}

impl Progress {
    pub(super) fn comparing(done: u64, total: u64) -> Self {
        Self {
            stage: Stage::Comparing,
            done,
            total,
        }
    }
}

/// A statement or a batch of them, as it entered.
struct Entered {
    number: i64,
    at: Timestamp,
    what: What,
}

enum What {
    Webhooks(Vec<i64>),
    Answer {
        scope: String,
        via: Via,
        /// None: erased, or in words that are not known any more.
        statements: Option<Vec<Stated>>,
        is_erased: bool,
    },
}

/// Something that entered as a whole, with what it is of.
struct Piece {
    entry: Entry,
    of: Of,
}

enum Of {
    Answer {
        number: i64,
        scope: String,
    },
    /// Number, what it belongs to, and how many of the statements are of it.
    Webhooks(Vec<(i64, String, usize)>),
}

/// What one webhook says today.
struct Said {
    webhook_id: i64,
    scope: String,
    observed: Vec<Observed>,
}

impl Piece {
    fn of_webhooks(said: Vec<Said>, then: Timestamp) -> Self {
        let (mut statements, mut webhooks) = (Vec::new(), Vec::with_capacity(said.len()));
        for one in said {
            webhooks.push((one.webhook_id, one.scope, one.observed.len()));
            statements.extend(one.observed.into_iter().map(Stated::by_webhook));
        }
        Self {
            entry: Entry {
                statements,
                via: Via::Webhook,
                then,
            },
            of: Of::Webhooks(webhooks),
        }
    }

    /// Each webhook for itself.
    fn apart(self) -> Vec<Self> {
        let Self { entry, of } = self;
        let webhooks = match of {
            Of::Webhooks(webhooks) => webhooks,
            of @ Of::Answer { .. } => return vec![Self { entry, of }],
        };
        let (via, then) = (entry.via, entry.then);
        let mut statements = entry.statements.into_iter();
        webhooks
            .into_iter()
            .map(|(webhook_id, scope, number)| Self {
                entry: Entry {
                    statements: statements.by_ref().take(number).collect(),
                    via,
                    then,
                },
                of: Of::Webhooks(vec![(webhook_id, scope, number)]),
            })
            .collect()
    }
}

/// A replay under way.
#[derive(Debug, Default)]
pub(super) struct Replay {
    seen: Seen,
    /// The highest number drawn and, read after it, the first transaction that had not begun: once all older ones have
    /// ended, nothing at or below that number comes any more.
    horizon: Option<(i64, Option<i64>)>,
    pub(super) replayed: Replayed,
    pub(super) progress: Progress,
    sources: Sources,
    analyzed_at: u64,
    /// When batches were projected of which the database refused one webhook, so that they were taken one by one.
    taken_apart: BTreeSet<Timestamp>,
}

impl Replay {
    /// Counts what there is to do, and notes of what no source was ever kept.
    pub(super) async fn begin(session: &mut Session) -> Result<Self, Error> {
        let total = sqlx::query_scalar!(
            r#"-- rebuild.count
            select (select coalesce(sum(cardinality(webhook_ids)), 0)::bigint from projected_batch)
                   + (select count(*) from answer) as "total!""#
        )
        .fetch_one(&mut session.conn)
        .await?;
        session
            .run(
                "insert into unsourced select conversation_sid from public.unrecorded_conversation"
                    .to_owned(),
            )
            .await?;
        let taken_apart = sqlx::query_scalar!(
            r#"-- rebuild.taken_apart
            select distinct recorded_at as "at!" from public.event
            where type = 'webhook.set_aside' and data like '%"reason":"the database refused it%'"#
        )
        .fetch_all(&mut session.conn)
        .await?;
        let mut replay = Self {
            taken_apart: taken_apart
                .into_iter()
                .map(jiff_sqlx::Timestamp::to_jiff)
                .collect(),
            ..Self::default()
        };
        replay.progress.total = u64::try_from(total).unwrap_or(0);
        Ok(replay)
    }

    /// Until nothing is left that has been committed, a transaction for each reading.
    pub(super) async fn catch_up(
        &mut self,
        session: &mut Session,
        watch: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<(), Error> {
        loop {
            session.begin().await?;
            let some = self.read_on(session).await?;
            session.commit().await?;
            watch(&self.progress);
            if !some {
                return Ok(());
            }
            if self.progress.done > self.analyzed_at.saturating_mul(4).max(1_000) {
                self.analyzed_at = self.progress.done;
                session.analyze().await?;
            }
        }
    }

    /// The same within the caller's transaction.
    pub(super) async fn catch_up_within(
        &mut self,
        session: &mut Session,
        watch: &mut (dyn FnMut(&Progress) + Send),
    ) -> Result<(), Error> {
        while self.read_on(session).await? {
            watch(&self.progress);
        }
        Ok(())
    }

    /// What was found of the sources, once everything is replayed; with what has been set aside, tried again.
    pub(super) async fn sources(&mut self, session: &mut Session) -> Result<Sources, Error> {
        self.try_what_was_set_aside(session).await?;
        session.note_erased(false).await?;
        let mut sources = self.sources.clone();
        let row = sqlx::query!(
            r#"-- rebuild.count_set_aside
            select (select count(*) from webhook_set_aside) as "set_aside!""#
        )
        .fetch_one(&mut session.conn)
        .await?;
        sources.set_aside = u64::try_from(row.set_aside).unwrap_or(0);
        sources.unsourced = super::compare::count(session, "pg_temp.unsourced").await?;
        Ok(sources)
    }

    /// Replays the next statements. False: there are none.
    async fn read_on(&mut self, session: &mut Session) -> Result<bool, Error> {
        let decided = self.look_at_horizon(session).await?;
        let entered = read(session, &self.seen).await?;
        for one in &entered {
            self.seen.note(one.number);
        }
        if let Some(decided) = decided {
            self.seen.close_gaps(decided.min(self.seen.to()));
        }
        let some = !entered.is_empty();
        let mut pieces = Vec::new();
        for one in entered {
            self.restate(session, one, &mut pieces).await?;
            let statements = |piece: &Piece| piece.entry.statements.len();
            if pieces.iter().map(statements).sum::<usize>() >= TOGETHER {
                self.replay(session, std::mem::take(&mut pieces)).await?;
            }
        }
        self.replay(session, pieces).await?;
        Ok(some)
    }

    /// A number at or below which everything is decided, where one is known to be.
    async fn look_at_horizon(&mut self, session: &mut Session) -> Result<Option<i64>, Error> {
        let row = sqlx::query!(
            r#"-- rebuild.horizon
            select last_value as "drawn!", pg_snapshot_xmin(pg_current_snapshot())::text::bigint as "oldest!",
                   pg_snapshot_xmax(pg_current_snapshot())::text::bigint as "next!"
            from statement_number"#
        )
        .fetch_one(&mut session.conn)
        .await?;
        let (decided, horizon) = match self.horizon {
            Some((number, Some(next))) if row.oldest >= next => (Some(number), (row.drawn, None)),
            Some((number, None)) => (None, (number, Some(row.next))),
            Some(waiting) => (None, waiting),
            None => (None, (row.drawn, None)),
        };
        self.horizon = Some(horizon);
        Ok(decided)
    }

    /// What a statement or a batch says today, in pieces that are replayed each as a whole.
    async fn restate(
        &mut self,
        session: &mut Session,
        entered: Entered,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), Error> {
        match entered.what {
            What::Webhooks(ids) => self.restate_webhooks(session, &ids, entered.at, pieces).await,
            What::Answer {
                scope,
                via,
                statements,
                is_erased,
            } => {
                self.progress.done += 1;
                let Some(statements) = statements else {
                    if is_erased {
                        self.sources.erased_answers += 1;
                    } else {
                        note(&mut self.sources.unreadable_answers, entered.number);
                    }
                    return Ok(session.note_unsourced(&[scope]).await?);
                };
                self.replayed.answers += 1;
                pieces.push(Piece {
                    entry: Entry {
                        statements,
                        via,
                        then: entered.at,
                    },
                    of: Of::Answer {
                        number: entered.number,
                        scope,
                    },
                });
                Ok(())
            }
        }
    }

    async fn restate_webhooks(
        &mut self,
        session: &mut Session,
        ids: &[i64],
        at: Timestamp,
        pieces: &mut Vec<Piece>,
    ) -> Result<(), Error> {
        let restated = restate::restate(&mut session.conn, ids).await?;
        self.progress.done += ids.len() as u64;
        self.sources.missing_webhooks += (ids.len() - restated.len()) as u64;
        let mut unsourced = BTreeSet::new();
        let mut said = Vec::with_capacity(restated.len());
        for webhook in restated {
            let account = || webhook.account_sid.as_str().to_owned();
            let scope = webhook.conversation_sid.unwrap_or_else(account);
            match webhook.says {
                Says::Statements(observed) => said.push(Said {
                    webhook_id: webhook.webhook_id,
                    scope,
                    observed,
                }),
                Says::Erased => {
                    self.sources.erased_webhooks += 1;
                    unsourced.insert(scope);
                }
                Says::IllFormed(_) => {
                    note(&mut self.sources.not_projecting_any_more, webhook.webhook_id);
                    unsourced.insert(scope);
                }
            }
        }
        session.note_unsourced(&Vec::from_iter(unsourced)).await?;
        self.replayed.webhooks += said.len() as u64;
        let batch = Piece::of_webhooks(said, at);
        // One by one where they were projected so.
        if self.taken_apart.contains(&at) {
            pieces.extend(batch.apart());
        } else {
            pieces.push(batch);
        }
        Ok(())
    }

    /// Together; where the database refuses that, one by one, down to single webhooks.
    async fn replay(&mut self, session: &mut Session, pieces: Vec<Piece>) -> Result<(), Error> {
        let entries: Vec<Entry> = pieces.iter().map(|piece| piece.entry.clone()).collect();
        if in_savepoint(session, &entries).await? {
            return Ok(());
        }
        for piece in pieces {
            if in_savepoint(session, std::slice::from_ref(&piece.entry)).await? {
                continue;
            }
            for piece in piece.apart() {
                if !in_savepoint(session, std::slice::from_ref(&piece.entry)).await? {
                    self.refused(session, &piece.of).await?;
                }
            }
        }
        Ok(())
    }

    async fn refused(&mut self, session: &mut Session, of: &Of) -> Result<(), Error> {
        match of {
            Of::Answer { number, scope } => {
                note(&mut self.sources.unreadable_answers, *number);
                session.note_unsourced(std::slice::from_ref(scope)).await?;
            }
            Of::Webhooks(webhooks) => {
                for (webhook_id, scope, _) in webhooks {
                    note(&mut self.sources.not_projecting_any_more, *webhook_id);
                    session.note_unsourced(std::slice::from_ref(scope)).await?;
                }
            }
        }
        Ok(())
    }

    /// Which of the webhooks that were set aside would be projected now. Nothing comes of it.
    async fn try_what_was_set_aside(&mut self, session: &mut Session) -> Result<(), Error> {
        let mut after = 0;
        loop {
            let ids = sqlx::query_scalar!(
                "-- rebuild.set_aside
                select webhook_id from webhook_set_aside where webhook_id > $1 order by webhook_id limit 200",
                after,
            )
            .fetch_all(&mut session.conn)
            .await?;
            let Some(last) = ids.last() else {
                return Ok(());
            };
            after = *last;
            for webhook in restate::restate(&mut session.conn, &ids).await? {
                let Says::Statements(observed) = webhook.says else {
                    continue;
                };
                let trial = Entry {
                    statements: observed.into_iter().map(Stated::by_webhook).collect(),
                    via: Via::Webhook,
                    then: Timestamp::UNIX_EPOCH,
                };
                session.run("savepoint trial".to_owned()).await?;
                let taken = mirror::replay::replay(&mut session.conn, &[trial]).await;
                session.run("rollback to savepoint trial".to_owned()).await?;
                match taken {
                    Ok(()) => note(&mut self.sources.projecting_now, webhook.webhook_id),
                    Err(error) if is_passing(&error) => return Err(error.into()),
                    Err(_) => {}
                }
            }
        }
    }
}

fn note(named: &mut Vec<i64>, number: i64) {
    if named.len() < NAMED_MAX {
        named.push(number);
    }
}

/// False: the database refuses it.
async fn in_savepoint(session: &mut Session, entries: &[Entry]) -> Result<bool, Error> {
    if entries.is_empty() {
        return Ok(true);
    }
    session.run("savepoint replayed".to_owned()).await?;
    match mirror::replay::replay(&mut session.conn, entries).await {
        Ok(()) => {
            session.run("release savepoint replayed".to_owned()).await?;
            Ok(true)
        }
        Err(error) if is_passing(&error) => Err(error.into()),
        Err(error) if error.as_database_error().is_none() => Err(error.into()),
        Err(_) => {
            session.run("rollback to savepoint replayed".to_owned()).await?;
            Ok(false)
        }
    }
}

/// The next statements by number, of those that were not seen, all as of one moment.
async fn read(session: &mut Session, seen: &Seen) -> Result<Vec<Entered>, Error> {
    let (first, last) = seen.gaps();
    let rows = sqlx::query!(
        r#"-- rebuild.read
        select number as "number!", at as "at!", webhook_ids, scope, via, statements as "statements: Json<serde_json::Value>",
               is_erased as "is_erased!"
        from (
            (select number, projected_at as at, webhook_ids, null as scope, null as via, null::jsonb as statements,
                    false as is_erased
             from projected_batch where number > $1 order by number limit $2)
            union all
            (select number, learnt_at, null, coalesce(conversation_sid, account_sid), via, statements,
                    erased_at is not null
             from answer where number > $1 order by number limit $2)
            union all
            select batch.number, batch.projected_at, batch.webhook_ids, null, null, null, false
            from unnest($3::bigint[], $4::bigint[]) as gap (first, last)
            join projected_batch as batch on batch.number between gap.first and gap.last
            union all
            select answer.number, learnt_at, null, coalesce(conversation_sid, account_sid), via, statements,
                   erased_at is not null
            from unnest($3::bigint[], $4::bigint[]) as gap (first, last)
            join answer on answer.number between gap.first and gap.last
        ) as entered
        order by number
        limit $2"#,
        seen.to(),
        READING,
        &first,
        &last,
    )
    .fetch_all(&mut session.conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| Entered {
            number: row.number,
            at: row.at.to_jiff(),
            what: match row.webhook_ids {
                Some(ids) => What::Webhooks(ids),
                None => What::Answer {
                    scope: row.scope.unwrap_or_default(),
                    via: row.via.as_deref().and_then(Via::parse).unwrap_or(Via::Rest),
                    statements: row
                        .statements
                        .filter(|_| !row.is_erased)
                        .and_then(|statements| serde_json::from_value(statements.0).ok()),
                    is_erased: row.is_erased,
                },
            },
        })
        .collect())
}
