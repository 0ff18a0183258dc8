//! `/v1/lines/{number}/tenures`: the ownership ledger of one number, over all conversations.

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::Api;
use crate::api::as_of::{Dated, moment};
use crate::api::auth::{Caller, scope};
use crate::ids::PhoneNumber;
use crate::ledger::{self, Cause, Tenure};
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Instant};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::Problem;

/// A stretch of time in which one line had one holder. Those of a line never overlap.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Tenure)]
pub(super) struct TenureBody {
    tenure_id: Uuid,
    conversation_sid: String,
    line: String,
    /// Null: nobody; the line was unstaffed.
    holder: Option<String>,
    from: Timestamp,
    /// Not included. Null: it lasts.
    to: Option<Timestamp>,
    #[schema(inline)]
    cause: Cause,
    /// The transfer of ours that brought it about.
    transfer_id: Option<Uuid>,
    /// Through what we learnt of it.
    via: String,
    /// Since when the ledger says so.
    recorded_at: Timestamp,
}

impl From<Tenure> for TenureBody {
    fn from(tenure: Tenure) -> Self {
        Self {
            tenure_id: tenure.tenure_id,
            conversation_sid: tenure.conversation_sid,
            line: tenure.line,
            holder: tenure.holder,
            from: tenure.from,
            to: tenure.to,
            cause: tenure.cause,
            transfer_id: tenure.transfer_id,
            via: tenure.via,
            recorded_at: tenure.recorded_at,
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "tenures";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListTenures {
    /// Only tenures that last at this time, or later.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    from: Field<Instant>,
    /// Only tenures that began at this time, or before. With `from` the same, it asks for one instant.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    to: Field<Instant>,
    /// Only who held it at this time, which has passed; an end that came later is not told.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    as_of: Field<Instant>,
    /// As far as we had been told by this time, which has passed. Alone, or with `as_of`.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    known_at: Field<Instant>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Dated<Place>>>,
}

/// List who was behind a number, oldest first
///
/// In every conversation that the number is, or was, a line of. A number that we know nothing of has no tenures.
#[utoipa::path(
    get,
    path = "/v1/lines/{number}/tenures",
    operation_id = "list_tenures",
    tag = "Ledger",
    params(
        ("number" = PhoneNumber, Path, description = "In E.164 form; its `+` may be written `%2B`."),
        ListTenures,
    ),
    responses((status = 200, description = "A page of them.", body = Page<TenureBody>)),
    security(("api_key" = ["ledger:read"])),
)]
pub(super) async fn tenures(
    State(api): State<Api>,
    _: Caller<scope::LedgerRead>,
    Path(number): Path<PhoneNumber>,
    Query(query): Query<ListTenures>,
) -> Result<Json<Page<TenureBody>>, Problem> {
    let mut errors = Errors::of_query();
    let from = errors.optional("from", query.from).map(|instant| instant.0);
    let to = errors.optional("to", query.to).map(|instant| instant.0);
    if let (Some(from), Some(to)) = (from, to)
        && from > to
    {
        errors.add("to", "before_from", "expected a time that is not before `from`");
    }
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    let after = wanted.after.as_ref();
    let is_dated = matches!(query.as_of, Field::Given(_)) || after.is_some_and(Dated::has_as_of);
    if is_dated && (from.is_some() || to.is_some()) {
        errors.add(
            "as_of",
            "with_from_or_to",
            "expected either `as_of`, or `from` and `to`",
        );
    }
    let moment = moment(&mut errors, query.as_of, query.known_at, after, api.clock.now());
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let after = after.map(|place| (place.key().0.0, place.key().1));
    let rows = match moment {
        None => ledger::tenures_of_line(&mut conn, number.as_str(), from, to, after, wanted.rows()).await?,
        Some(moment) => {
            let (from, to) = if is_dated {
                (Some(moment.as_of), Some(moment.as_of))
            } else {
                (from, to)
            };
            let number = number.as_str();
            ledger::tenures_of_line_as_of(&mut conn, number, from, to, moment, after, wanted.rows()).await?
        }
    };
    let page = wanted.page(rows, |tenure| {
        Dated::new(Place(At(tenure.from), tenure.tenure_id), moment)
    });
    Ok(Json(page.map(TenureBody::from)))
}
