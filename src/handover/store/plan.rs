//! Rows of plans and of their rules.

use jiff::Timestamp;
use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;
use uuid::Uuid;

use crate::handover::{Handover, Rule, Spread};
use crate::ids::Identity;

struct Row {
    handover_id: Uuid,
    leaver: Identity,
    state: String,
    direction: String,
    phase: String,
    otherwise: String,
    lines_per_minute: i32,
    next_due_at: Option<jiff_sqlx::Timestamp>,
    return_at: Option<jiff_sqlx::Timestamp>,
    back_because: Option<String>,
    leaver_becomes: Option<String>,
    leaver_changed_at: Option<jiff_sqlx::Timestamp>,
    reason: Option<String>,
    note: Option<String>,
    introduction: Option<String>,
    requested_by: String,
    started_by: Option<String>,
    turned_by: Option<String>,
    changed_by: String,
    changed_at: jiff_sqlx::Timestamp,
    waiting_error: Option<String>,
    waiting_since: Option<jiff_sqlx::Timestamp>,
    listed_at: Option<jiff_sqlx::Timestamp>,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
    started_at: Option<jiff_sqlx::Timestamp>,
    finished_at: Option<jiff_sqlx::Timestamp>,
}

impl From<Row> for Handover {
    fn from(row: Row) -> Self {
        let at = |at: Option<jiff_sqlx::Timestamp>| at.map(jiff_sqlx::Timestamp::to_jiff);
        Self {
            handover_id: row.handover_id,
            leaver: row.leaver,
            state: word(&row.state),
            direction: word(&row.direction),
            phase: word(&row.phase),
            otherwise: word(&row.otherwise),
            lines_per_minute: u32::try_from(row.lines_per_minute).unwrap_or(1),
            next_due_at: at(row.next_due_at),
            return_at: at(row.return_at),
            back_because: row.back_because.as_deref().map(word),
            leaver_becomes: row.leaver_becomes.as_deref().map(word),
            leaver_changed_at: at(row.leaver_changed_at),
            reason: row.reason,
            note: row.note,
            introduction: row.introduction,
            requested_by: row.requested_by,
            started_by: row.started_by,
            turned_by: row.turned_by,
            changed_by: row.changed_by,
            changed_at: row.changed_at.to_jiff(),
            waiting_error: row.waiting_error,
            waiting_since: at(row.waiting_since),
            listed_at: at(row.listed_at),
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
            started_at: at(row.started_at),
            finished_at: at(row.finished_at),
        }
    }
}

/// A word that the column's check allows.
pub(super) fn word<T: std::str::FromStr>(text: &str) -> T {
    text.parse()
        .ok()
        .expect("the column's check allows only these words")
}

/// Writes a new plan with its rules.
pub(in crate::handover) async fn insert(
    conn: &mut PgConnection,
    plan: &Handover,
    rules: &[Rule],
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- handover.insert_plan
        insert into handover_plan (handover_id, leaver, state, otherwise, lines_per_minute, return_at, leaver_becomes, reason, note,
            introduction, requested_by, changed_by, created_at, updated_at, changed_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $13, $13)",
        plan.handover_id,
        plan.leaver.as_str(),
        plan.state.as_str(),
        plan.otherwise.as_str(),
        i32::try_from(plan.lines_per_minute).unwrap_or(i32::MAX),
        plan.return_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        plan.leaver_becomes.map(crate::handover::Becomes::as_str),
        plan.reason,
        plan.note,
        plan.introduction,
        plan.requested_by,
        plan.changed_by,
        plan.created_at.to_sqlx() as _,
    )
    .execute(&mut *conn)
    .await?;
    for (place, rule) in (0_i32..).zip(rules) {
        insert_rule(conn, plan.handover_id, place, rule).await?;
    }
    Ok(())
}

async fn insert_rule(
    conn: &mut PgConnection,
    handover_id: Uuid,
    place: i32,
    rule: &Rule,
) -> Result<(), sqlx::Error> {
    let (people, team, spread) = match rule {
        Rule::People(people) => (people.iter().map(Identity::as_str).collect(), None, None),
        Rule::Team { team, spread } => (Vec::new(), Some(team.as_str()), Some(spread.as_str())),
        Rule::LastHolder | Rule::Supervisor => (Vec::new(), None, None),
    };
    let name = match rule {
        Rule::People(_) => "people",
        Rule::Team { .. } => "team",
        Rule::LastHolder => "last_holder",
        Rule::Supervisor => "supervisor",
    };
    sqlx::query!(
        "-- handover.insert_rule
        insert into handover_rule (handover_id, place, rule, people, team_id, spread) values ($1, $2, $3, $4, $5, $6)",
        handover_id,
        place,
        name,
        &people as _,
        team,
        spread,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// The rules of a plan, in order.
pub async fn rules(conn: &mut PgConnection, handover_id: Uuid) -> Result<Vec<Rule>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- handover.rules
        select rule, people, team_id, spread from handover_rule where handover_id = $1 order by place"#,
        handover_id,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter()
        .map(|row| {
            Ok(match row.rule.as_str() {
                "people" => Rule::People(
                    row.people
                        .iter()
                        .map(|person| Identity::try_from(person.as_str()).map_err(unreadable))
                        .collect::<Result<_, _>>()?,
                ),
                "team" => Rule::Team {
                    team: row.team_id.unwrap_or_default().parse().map_err(unreadable)?,
                    spread: row.spread.as_deref().map_or(Spread::LeastLoaded, word),
                },
                "last_holder" => Rule::LastHolder,
                _ => Rule::Supervisor,
            })
        })
        .collect()
}

fn unreadable(error: impl std::fmt::Display) -> sqlx::Error {
    sqlx::Error::Decode(format!("handover_rule: {error}").into())
}

/// Writes what may change of a plan that the caller has locked.
pub(in crate::handover) async fn update(conn: &mut PgConnection, plan: &Handover) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- handover.update_plan
        update handover_plan
        set state = $2, direction = $3, phase = $4, next_due_at = $5, back_because = $6, leaver_changed_at = $7, started_by = $8,
            waiting_error = $9, waiting_since = $10, listed_at = $11, updated_at = $12, started_at = $13, finished_at = $14,
            turned_by = $15, changed_by = $16, changed_at = $17
        where handover_id = $1",
        plan.handover_id,
        plan.state.as_str(),
        plan.direction.as_str(),
        plan.phase.as_str(),
        plan.next_due_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        plan.back_because.map(crate::handover::Because::as_str),
        plan.leaver_changed_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        plan.started_by,
        plan.waiting_error,
        plan.waiting_since.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        plan.listed_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        plan.updated_at.to_sqlx() as _,
        plan.started_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        plan.finished_at.map(jiff_sqlx::ToSqlx::to_sqlx) as _,
        plan.turned_by,
        plan.changed_by,
        plan.changed_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// One plan.
pub async fn find(conn: &mut PgConnection, handover_id: Uuid) -> Result<Option<Handover>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"-- handover.find
        select handover_id, leaver as "leaver: Identity", state, direction, phase, otherwise, lines_per_minute, next_due_at,
               return_at, back_because, leaver_becomes, leaver_changed_at, reason, note, introduction, requested_by, started_by, turned_by,
               changed_by, changed_at, waiting_error, waiting_since, listed_at, created_at, updated_at, started_at, finished_at
        from handover_plan where handover_id = $1"#,
        handover_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Handover::from))
}

/// One plan, locked until the transaction ends.
pub(in crate::handover) async fn lock(
    conn: &mut PgConnection,
    handover_id: Uuid,
) -> Result<Option<Handover>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"-- handover.lock
        select handover_id, leaver as "leaver: Identity", state, direction, phase, otherwise, lines_per_minute, next_due_at,
               return_at, back_because, leaver_becomes, leaver_changed_at, reason, note, introduction, requested_by, started_by, turned_by,
               changed_by, changed_at, waiting_error, waiting_since, listed_at, created_at, updated_at, started_at, finished_at
        from handover_plan where handover_id = $1 for update"#,
        handover_id,
    )
    .fetch_optional(conn)
    .await?;
    Ok(row.map(Handover::from))
}

/// Plans, newest first, those before `before` (a time of creation and an id, for paging).
pub async fn page(
    conn: &mut PgConnection,
    leaver: Option<&str>,
    state: Option<&str>,
    before: Option<(Timestamp, Uuid)>,
    limit: i64,
) -> Result<Vec<Handover>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- handover.page
        select handover_id, leaver as "leaver: Identity", state, direction, phase, otherwise, lines_per_minute, next_due_at,
               return_at, back_because, leaver_becomes, leaver_changed_at, reason, note, introduction, requested_by, started_by, turned_by,
               changed_by, changed_at, waiting_error, waiting_since, listed_at, created_at, updated_at, started_at, finished_at
        from handover_plan
        where ($1::text is null or leaver = $1) and ($2::text is null or state = $2)
          and ($3::timestamptz is null or (created_at, handover_id) < ($3, $4::uuid))
        order by created_at desc, handover_id desc
        limit $5"#,
        leaver,
        state,
        before.map(|(at, _)| at.to_sqlx()) as _,
        before.map(|(_, id)| id) as _,
        limit,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(Handover::from).collect())
}

/// Another plan of the same person that is running or paused. None begins meanwhile: whoever asks is alone in it until
/// the transaction ends.
pub(in crate::handover) async fn is_another_at_work(
    conn: &mut PgConnection,
    plan: &Handover,
) -> Result<Option<Uuid>, sqlx::Error> {
    sqlx::query!(
        "-- handover.lock_leaver
        select pg_advisory_xact_lock(hashtext('hookswitch.handover'), hashtext($1))",
        plan.leaver.as_str(),
    )
    .execute(&mut *conn)
    .await?;
    sqlx::query_scalar!(
        "-- handover.is_another_at_work
        select handover_id from handover_plan where leaver = $1 and handover_id <> $2 and state in ('running', 'paused')",
        plan.leaver.as_str(),
        plan.handover_id,
    )
    .fetch_optional(conn)
    .await
}
