//! `/v1/numbers`: our pool of numbers, and numbers that are lines without being in it.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use crate::api::agents::actor;
use crate::api::auth::{Caller, scope};
use crate::api::{Api, conflict};
use crate::assignment;
use crate::ids::{AccountSid, Identity, MessagingServiceSid, PhoneNumber};
use crate::numbers::form::NumberForm;
use crate::numbers::{self, Filter, Listed, Number, NumberKind, PutNumberError, RemoveNumberError, Rule};
use crate::people::Slug;
use crate::web::extract::{Json as Body, Path, Query};
use crate::web::field::{Errors, Field, Flag};
use crate::web::page::{Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A number of the pool, or one that is a line of a group without being in it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Number)]
pub(super) struct NumberBody {
    number: String,
    /// False: it is a line of a group, and nobody has added it here. Then there is no more to tell than how many groups.
    known: bool,
    account_sid: Option<AccountSid>,
    label: Option<String>,
    #[schema(inline)]
    kind: Option<NumberKind>,
    /// As somebody has stated it.
    mms_capable: Option<bool>,
    messaging_service_sid: Option<MessagingServiceSid>,
    team: Option<Slug>,
    /// Who gets a line of it that nobody holds; null: it is left alone.
    #[schema(inline)]
    rule: Option<Rule>,
    person: Option<Identity>,
    /// Chosen for new group texts.
    enabled: Option<bool>,
    /// Groups that it is a line of now.
    open_groups: u32,
    /// Grows by one with each change.
    version: Option<i64>,
    created_at: Option<Timestamp>,
    updated_at: Option<Timestamp>,
}

impl NumberBody {
    fn known(number: Number, open_groups: u32) -> Self {
        let plan = number.plan;
        Self {
            number: number.number.into_string(),
            known: true,
            account_sid: Some(plan.account_sid),
            label: plan.label,
            kind: Some(plan.kind),
            mms_capable: Some(plan.mms_capable),
            messaging_service_sid: plan.messaging_service_sid,
            team: plan.team,
            rule: plan.rule,
            person: plan.person,
            enabled: Some(plan.enabled),
            open_groups,
            version: Some(number.version),
            created_at: Some(number.created_at),
            updated_at: Some(number.updated_at),
        }
    }

    fn unknown(number: String, open_groups: u32) -> Self {
        Self {
            number,
            known: false,
            account_sid: None,
            label: None,
            kind: None,
            mms_capable: None,
            messaging_service_sid: None,
            team: None,
            rule: None,
            person: None,
            enabled: None,
            open_groups,
            version: None,
            created_at: None,
            updated_at: None,
        }
    }
}

impl From<Listed> for NumberBody {
    fn from(listed: Listed) -> Self {
        match listed.known {
            Some(number) => Self::known(number, listed.open_groups),
            None => Self::unknown(listed.number, listed.open_groups),
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(String);

impl Key for Place {
    const LIST: &'static str = "numbers";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListNumbers {
    /// `false`: only numbers that are lines without being in the pool.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    known: Field<Flag>,
    /// Only those of this team.
    #[serde(default)]
    #[param(value_type = Option<Slug>)]
    team: Field<Slug>,
    /// Only those that are chosen for new group texts, or that are not.
    #[serde(default)]
    #[param(value_type = Option<bool>)]
    enabled: Field<Flag>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List our numbers, with how many groups each has
///
/// In the order of the numbers; also those that are lines of a group without being in the pool, with `known: false`.
#[utoipa::path(
    get,
    path = "/v1/numbers",
    operation_id = "list_numbers",
    tag = "Numbers",
    params(ListNumbers),
    responses((status = 200, description = "A page of them.", body = Page<NumberBody>)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Query(query): Query<ListNumbers>,
) -> Result<Json<Page<NumberBody>>, Problem> {
    let mut errors = Errors::of_query();
    let filter = Filter {
        known: errors.optional("known", query.known).map(|flag| flag.0),
        team: errors.optional("team", query.team),
        enabled: errors.optional("enabled", query.enabled).map(|flag| flag.0),
    };
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let after = wanted.after.as_ref().map(|place: &Place| place.0.as_str());
    let rows = numbers::page(&mut conn, &filter, after, wanted.rows()).await?;
    let page = wanted.page(rows, |listed| Place(listed.number.clone()));
    Ok(Json(page.map(NumberBody::from)))
}

/// Show a number
///
/// One that is a line of a group without being in the pool has `known: false`.
#[utoipa::path(
    get,
    path = "/v1/numbers/{number}",
    operation_id = "show_number",
    tag = "Numbers",
    params(("number" = PhoneNumber, Path, description = "`+` is written as `%2B`.")),
    responses((status = 200, description = "The number.", body = NumberBody)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Path(number): Path<PhoneNumber>,
) -> Result<Json<NumberBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let digits = number.as_str();
    let groups = numbers::open_groups(&mut conn, &[digits]).await?;
    let groups = groups.get(digits).copied().unwrap_or(0);
    match numbers::find(&mut conn, digits).await? {
        Some(number) => Ok(Json(NumberBody::known(number, groups))),
        None if groups > 0 => Ok(Json(NumberBody::unknown(number.into_string(), groups))),
        None => Err(Problem::NotFound { what: "number" }),
    }
}

/// Add a number to the pool, or replace what is decided about it
///
/// What is left out is none: this replaces, it does not merge. May be repeated; a number that is so already is left alone.
#[utoipa::path(
    put,
    path = "/v1/numbers/{number}",
    operation_id = "put_number",
    tag = "Numbers",
    params(("number" = PhoneNumber, Path, description = "`+` is written as `%2B`.")),
    request_body = NumberForm,
    responses(
        (status = 200, description = "The number as it is now.", body = NumberBody),
        (status = 409, description = "`version_conflict`, `account_unknown`, `team_unknown`, `person_unknown`.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["people:write"])),
)]
pub(super) async fn put(
    State(api): State<Api>,
    caller: Caller<scope::PeopleWrite>,
    Path(number): Path<PhoneNumber>,
    form: Body<NumberForm>,
) -> Result<Json<NumberBody>, Problem> {
    let wanted = Errors::read_body(|errors| form.value.read(errors))?;
    let mut conn = api.pool.acquire().await?;
    let (accounts, now) = (&api.group_texts.accounts, api.clock.now());
    let put = numbers::put_number(&mut conn, accounts, &number, wanted, &actor(&caller), now).await?;
    assignment::look_soon(&mut conn, now).await?;
    let groups = numbers::open_groups(&mut conn, &[number.as_str()]).await?;
    let groups = groups.get(number.as_str()).copied().unwrap_or(0);
    Ok(Json(NumberBody::known(put, groups)))
}

/// Take a number out of the pool
///
/// Its groups and their past stay: it is listed with `known: false` as long as it is a line of one.
#[utoipa::path(
    delete,
    path = "/v1/numbers/{number}",
    operation_id = "remove_number",
    tag = "Numbers",
    params(("number" = PhoneNumber, Path, description = "`+` is written as `%2B`.")),
    responses((status = 204, description = "It is removed; 404 where there was none.")),
    security(("api_key" = ["people:write"])),
)]
pub(super) async fn remove(
    State(api): State<Api>,
    caller: Caller<scope::PeopleWrite>,
    Path(number): Path<PhoneNumber>,
) -> Result<StatusCode, Problem> {
    let mut conn = api.pool.acquire().await?;
    numbers::remove_number(&mut conn, &number, &actor(&caller), api.clock.now()).await?;
    Ok(StatusCode::NO_CONTENT)
}

impl From<PutNumberError> for Problem {
    fn from(error: PutNumberError) -> Self {
        match error {
            PutNumberError::VersionConflict(conflict) => conflict.into(),
            PutNumberError::AccountUnknown => Self::conflict(
                "account_unknown",
                "no account of the settings is named, or has this number: add it to an account's `numbers`, or name one",
            ),
            PutNumberError::TeamUnknown { .. } => {
                Self::conflict("team_unknown", "there is no such team: add it first")
            }
            PutNumberError::PersonUnknown { person } => conflict(
                "person_unknown",
                "the person is none of our agents: add them first",
                json!({ "identities": [person] }),
            ),
            PutNumberError::Database(error) => error.into(),
        }
    }
}

impl From<RemoveNumberError> for Problem {
    fn from(error: RemoveNumberError) -> Self {
        match error {
            RemoveNumberError::NotFound => Self::NotFound { what: "number" },
            RemoveNumberError::Database(error) => error.into(),
        }
    }
}
