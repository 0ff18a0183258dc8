//! Rows of numbers, and numbers that have none.

use std::collections::HashMap;

use jiff_sqlx::ToSqlx as _;
use sqlx::PgConnection;

use crate::ids::{AccountSid, Identity, MessagingServiceSid, PhoneNumber};
use crate::numbers::{Number, NumberKind, Plan, Rule};
use crate::people::Slug;

struct Row {
    number: PhoneNumber,
    account_sid: AccountSid,
    label: Option<String>,
    kind: String,
    mms_capable: bool,
    messaging_service_sid: Option<MessagingServiceSid>,
    team_id: Option<String>,
    rule: Option<String>,
    person: Option<Identity>,
    enabled: bool,
    version: i64,
    created_at: jiff_sqlx::Timestamp,
    updated_at: jiff_sqlx::Timestamp,
}

impl TryFrom<Row> for Number {
    type Error = sqlx::Error;

    fn try_from(row: Row) -> Result<Self, sqlx::Error> {
        let team = row
            .team_id
            .map(|team| team.parse::<Slug>())
            .transpose()
            .map_err(|error| sqlx::Error::Decode(format!("number.team_id: {error}").into()))?;
        Ok(Self {
            number: row.number,
            plan: Plan {
                account_sid: row.account_sid,
                label: row.label,
                kind: NumberKind::from_column(&row.kind),
                mms_capable: row.mms_capable,
                messaging_service_sid: row.messaging_service_sid,
                team,
                rule: row.rule.as_deref().and_then(Rule::from_column),
                person: row.person,
                enabled: row.enabled,
            },
            version: row.version,
            created_at: row.created_at.to_jiff(),
            updated_at: row.updated_at.to_jiff(),
        })
    }
}

/// Keeps changes of numbers apart. Held until the transaction ends.
pub(super) async fn lock(conn: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- numbers.lock
        select pg_advisory_xact_lock(hashtext('hookswitch.numbers'))"
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Keeps choices of a number for a team apart, so that two at once do not choose the same. Held until the transaction ends.
pub async fn lock_choice(conn: &mut PgConnection, team: &Slug) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- numbers.lock_choice
        select pg_advisory_xact_lock(hashtext('hookswitch.numbers.choice'), hashtext($1))",
        team.as_str(),
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub async fn find(conn: &mut PgConnection, number: &str) -> Result<Option<Number>, sqlx::Error> {
    Ok(numbers_of(conn, &[number]).await?.pop())
}

async fn numbers_of(conn: &mut PgConnection, numbers: &[&str]) -> Result<Vec<Number>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- numbers.numbers_of
        select number as "number: PhoneNumber", account_sid as "account_sid: AccountSid", label, kind, mms_capable,
               messaging_service_sid as "messaging_service_sid: MessagingServiceSid", team_id, rule,
               person as "person: Identity", enabled, version, created_at, updated_at
        from number where number = any($1) order by number"#,
        numbers as _,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Number::try_from).collect()
}

pub(super) async fn all(conn: &mut PgConnection) -> Result<Vec<Number>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- numbers.all
        select number as "number: PhoneNumber", account_sid as "account_sid: AccountSid", label, kind, mms_capable,
               messaging_service_sid as "messaging_service_sid: MessagingServiceSid", team_id, rule,
               person as "person: Identity", enabled, version, created_at, updated_at
        from number order by number"#,
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Number::try_from).collect()
}

/// The numbers of a team, in order.
pub async fn of_team(conn: &mut PgConnection, team: &Slug) -> Result<Vec<Number>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"-- numbers.of_team
        select number as "number: PhoneNumber", account_sid as "account_sid: AccountSid", label, kind, mms_capable,
               messaging_service_sid as "messaging_service_sid: MessagingServiceSid", team_id, rule,
               person as "person: Identity", enabled, version, created_at, updated_at
        from number where team_id = $1 order by number"#,
        team.as_str(),
    )
    .fetch_all(conn)
    .await?;
    rows.into_iter().map(Number::try_from).collect()
}

pub(super) async fn upsert(conn: &mut PgConnection, number: &Number) -> Result<(), sqlx::Error> {
    let plan = &number.plan;
    sqlx::query!(
        "-- numbers.upsert
        insert into number (number, account_sid, label, kind, mms_capable, messaging_service_sid, team_id, rule, person,
            enabled, version, created_at, updated_at)
        values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
        on conflict (number) do update set account_sid = excluded.account_sid, label = excluded.label, kind = excluded.kind,
            mms_capable = excluded.mms_capable, messaging_service_sid = excluded.messaging_service_sid,
            team_id = excluded.team_id, rule = excluded.rule, person = excluded.person, enabled = excluded.enabled,
            version = excluded.version, updated_at = excluded.updated_at",
        number.number.as_str(),
        plan.account_sid.as_str(),
        plan.label,
        plan.kind.as_str(),
        plan.mms_capable,
        plan.messaging_service_sid.as_ref().map(MessagingServiceSid::as_str),
        plan.team.as_ref().map(Slug::as_str),
        plan.rule.map(Rule::as_str),
        plan.person.as_ref().map(Identity::as_str),
        plan.enabled,
        number.version,
        number.created_at.to_sqlx() as _,
        number.updated_at.to_sqlx() as _,
    )
    .execute(conn)
    .await?;
    Ok(())
}

pub(super) async fn delete(conn: &mut PgConnection, number: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- numbers.delete
        delete from number where number = $1",
        number,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Which numbers to list.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Some(false): only numbers that are lines of a group and are not in the pool.
    pub known: Option<bool>,
    pub team: Option<Slug>,
    pub enabled: Option<bool>,
}

/// A number of a list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub number: String,
    /// None: it is a line of a group, and not in the pool.
    pub known: Option<Number>,
    /// Groups that it is a line of now.
    pub open_groups: u32,
}

/// Up to `limit` numbers after one, in order: those of the pool, and those that are lines without being in it.
pub async fn page(
    conn: &mut PgConnection,
    filter: &Filter,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<Listed>, sqlx::Error> {
    let asks_for_known = filter.team.is_some() || filter.enabled.is_some();
    let numbers = sqlx::query_scalar!(
        r#"-- numbers.page
        -- From one line to the next by its index, however many groups each has.
        with recursive line as (
            (select line from tenure
             where $5 and superseded_at is null and upper_inf(during) and cause <> 'removed'
               and ($1::text is null or line > $1)
             order by line limit 1)
            union all
            select next.line from line cross join lateral (
                select tenure.line from tenure
                where superseded_at is null and upper_inf(during) and cause <> 'removed' and tenure.line > line.line
                order by tenure.line limit 1) as next
        )
        select number as "number!" from (
            (select number from number
             where $6 and ($1::text is null or number > $1) and ($3::text is null or team_id = $3)
               and ($4::bool is null or enabled = $4)
             order by number limit $2)
            union all
            (select line from line where not exists (select from number where number.number = line.line)
             order by line limit $2)
        ) as listed
        order by number limit $2"#,
        after,
        limit,
        filter.team.as_ref().map(Slug::as_str),
        filter.enabled,
        filter.known != Some(true) && !asks_for_known,
        filter.known != Some(false),
    )
    .fetch_all(&mut *conn)
    .await?;
    let asked: Vec<&str> = numbers.iter().map(String::as_str).collect();
    let mut known: HashMap<String, Number> = numbers_of(conn, &asked)
        .await?
        .into_iter()
        .map(|number| (number.number.as_str().to_owned(), number))
        .collect();
    let counts = open_groups(conn, &asked).await?;
    Ok(numbers
        .into_iter()
        .map(|number| Listed {
            known: known.remove(&number),
            open_groups: counts.get(&number).copied().unwrap_or(0),
            number,
        })
        .collect())
}

/// How many groups each number is a line of now. Those that have none are not in it.
pub async fn open_groups(
    conn: &mut PgConnection,
    numbers: &[&str],
) -> Result<HashMap<String, u32>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- numbers.open_groups
        select line, count(*) as "groups!" from tenure
        where line = any($1) and superseded_at is null and upper_inf(during) and cause <> 'removed'
        group by line"#,
        numbers as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.line, u32::try_from(row.groups).unwrap_or(u32::MAX)))
        .collect())
}
