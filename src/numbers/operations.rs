//! What is done about numbers. Each is one transaction, with its entry of the log.

use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use crate::accounts::Accounts;
use crate::events::{self, Kind, NewEvent};
use crate::ids::{AccountSid, Identity, PhoneNumber};
use crate::numbers::form::Wanted;
use crate::numbers::{Number, NumberKind, Rule, store};
use crate::people::{self, Actor, Replace, Slug, VersionConflict};
use crate::setup::{Finding, Severity};

/// Why a number cannot be so.
#[derive(Debug, thiserror::Error)]
pub enum PutNumberError {
    #[error(transparent)]
    VersionConflict(#[from] VersionConflict),
    #[error("no account of the settings is named, or has this number")]
    AccountUnknown,
    #[error("no such team")]
    TeamUnknown { team: Slug },
    #[error("nobody of ours has this identity")]
    PersonUnknown { person: Identity },
    #[error("cannot record the number")]
    Database(#[from] sqlx::Error),
}

/// Why a number cannot be removed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveNumberError {
    #[error("no such number in the pool")]
    NotFound,
    #[error("cannot remove the number")]
    Database(#[from] sqlx::Error),
}

/// Adds a number to the pool, or replaces what is decided about it. One that is so already is left alone, whatever version
/// it was to replace: a repeat gets the answer of the first time.
pub async fn put_number(
    conn: &mut PgConnection,
    accounts: &Accounts,
    number: &PhoneNumber,
    wanted: Wanted,
    by: &Actor,
    now: Timestamp,
) -> Result<Number, PutNumberError> {
    let account_sid = account_of(accounts, number, wanted.account_sid.as_ref())?;
    let replaces = wanted.replaces;
    let plan = wanted.plan(account_sid);
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    // Neither the team nor the person is removed meanwhile.
    people::lock(&mut transaction).await?;
    let before = store::find(&mut transaction, number.as_str()).await?;
    let is_so = |before: &Number| before.plan == plan;
    let stands = |before: &Number| (before.version, before.updated_at);
    let before = match people::replace(before, is_so, replaces, stands)? {
        Replace::AlreadySo(number) => return Ok(number),
        Replace::Before(before) => before,
    };
    if let Some(team) = &plan.team
        && people::find_team(&mut transaction, team.as_str())
            .await?
            .is_none()
    {
        return Err(PutNumberError::TeamUnknown { team: team.clone() });
    }
    if let Some(person) = &plan.person
        && people::find_agent(&mut transaction, person.as_str())
            .await?
            .is_none()
    {
        return Err(PutNumberError::PersonUnknown {
            person: person.clone(),
        });
    }
    let after = Number {
        number: number.clone(),
        plan,
        version: before.as_ref().map_or(1, |before| before.version + 1),
        created_at: before.as_ref().map_or(now, |before| before.created_at),
        updated_at: now,
    };
    store::upsert(&mut transaction, &after).await?;
    let data = json!({
        "number": number,
        "change": if before.is_some() { "changed" } else { "added" },
        "version": after.version,
        "changes": people::differences(before.as_ref().map(|before| &before.plan), &after.plan),
    });
    tell(&mut transaction, Kind::NumberChanged, &after, data, by, now).await?;
    transaction.commit().await?;
    Ok(after)
}

/// Takes a number out of the pool. Its groups and their past stay: those of a number that is not known.
pub async fn remove_number(
    conn: &mut PgConnection,
    number: &PhoneNumber,
    by: &Actor,
    now: Timestamp,
) -> Result<(), RemoveNumberError> {
    let mut transaction = conn.begin().await?;
    store::lock(&mut transaction).await?;
    let before = store::find(&mut transaction, number.as_str())
        .await?
        .ok_or(RemoveNumberError::NotFound)?;
    store::delete(&mut transaction, number.as_str()).await?;
    let data = json!({ "number": number });
    tell(&mut transaction, Kind::NumberRemoved, &before, data, by, now).await?;
    transaction.commit().await?;
    Ok(())
}

/// The account that is named, if the settings have it; else the one whose number the settings say it is.
fn account_of(
    accounts: &Accounts,
    number: &PhoneNumber,
    named: Option<&AccountSid>,
) -> Result<AccountSid, PutNumberError> {
    let found = match named {
        Some(sid) => accounts.get(sid.as_str()),
        None => accounts.iter().find(|account| account.numbers.contains(number)),
    };
    found
        .map(|account| account.account_sid.clone())
        .ok_or(PutNumberError::AccountUnknown)
}

async fn tell(
    conn: &mut PgConnection,
    kind: Kind,
    number: &Number,
    data: Value,
    by: &Actor,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let event = NewEvent {
        kind,
        account_sid: Some(number.plan.account_sid.clone()),
        conversation_sid: None,
        subject: number.number.as_str().to_owned(),
        actor: Some(by.name.clone()),
        via: by.via,
        cause: by.cause.clone(),
        occurred_at: now,
        recorded_at: now,
        data,
    };
    events::append(conn, &[event]).await
}

/// What is wrong with the numbers of the pool, for who runs the service. An account's numbers that are not in the pool are
/// no fault: then nothing is decided about them.
pub async fn check(conn: &mut PgConnection, accounts: &Accounts) -> Result<Vec<Finding>, sqlx::Error> {
    let mut findings = Vec::new();
    for number in store::all(conn).await? {
        let mut wrong = judge(&number, accounts);
        if let Some(team) = &number.plan.team
            && people::find_team(conn, team.as_str()).await?.is_none()
        {
            wrong.push(format!("its team {team} is not there: name another"));
        }
        if let Some(person) = &number.plan.person
            && people::find_agent(conn, person.as_str()).await?.is_none()
        {
            wrong.push(format!("its person {person} is not there: name another"));
        }
        let digits = number.number.as_str();
        let subject = format!(
            "pool number ending in {}",
            &digits[digits.len().saturating_sub(4)..]
        );
        let (severity, message) = if wrong.is_empty() {
            (Severity::Good, "fit for group texts".to_owned())
        } else {
            (Severity::Warning, wrong.join("; "))
        };
        findings.push(Finding {
            severity,
            subject,
            message,
        });
    }
    Ok(findings)
}

fn judge(number: &Number, accounts: &Accounts) -> Vec<String> {
    let plan = &number.plan;
    let mut wrong = Vec::new();
    match accounts.get(plan.account_sid.as_str()) {
        None => wrong.push(format!("its account {} is not configured", plan.account_sid)),
        Some(account) => {
            if !account.numbers.contains(&number.number) {
                wrong.push("not one of the account's `numbers` in the settings: add it there".to_owned());
            }
            if plan
                .messaging_service_sid
                .as_ref()
                .is_some_and(|sid| *sid != account.messaging_service_sid)
            {
                wrong.push(
                    "in another messaging service than the account's: not chosen for group texts".to_owned(),
                );
            }
        }
    }
    if plan.kind != NumberKind::LongCode {
        wrong.push("not a long code: not chosen for group texts".to_owned());
    }
    if !plan.mms_capable {
        wrong.push("not capable of MMS: not chosen for group texts".to_owned());
    }
    if plan.rule == Some(Rule::Person) && plan.team.is_none() {
        wrong.push("no team: lines that its person cannot take wait in no team's queue".to_owned());
    }
    wrong
}
