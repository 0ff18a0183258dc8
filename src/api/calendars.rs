//! `/v1/teams/{team_id}/calendar` and `deadline`: when a team is open, and when time is up.

use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::api::Api;
use crate::api::auth::{Caller, scope};
use crate::api::teams::expect;
use crate::people::Slug;
use crate::people::hours::Zone;
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field, Instant, Number};
use crate::web::problem::Problem;

/// How long a calendar is shown where nobody says otherwise.
const SHOWN: SignedDuration = SignedDuration::from_hours(7 * 24);
/// A calendar is shown for so long at most.
const SHOWN_MAX: SignedDuration = SignedDuration::from_hours(366 * 24);

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedCalendar {
    /// Now, if not given.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    from: Field<Instant>,
    /// Seven days after `from`, if not given; 366 days after it at most.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    to: Field<Instant>,
}

/// When a team is open.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Calendar)]
pub(super) struct CalendarBody {
    team_id: Slug,
    #[schema(value_type = String)]
    time_zone: Zone,
    from: Timestamp,
    to: Timestamp,
    /// Whether it is open at `from`.
    is_open: bool,
    /// The first time from `from` on at which it is; also after `to`.
    next_open: Option<Timestamp>,
    /// How long it is open between the two, in whole minutes.
    business_minutes: i64,
    /// The stretches between the two in which it is open; `to` is not included.
    open: Vec<OpenBody>,
}

/// A stretch of time.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Open)]
pub(super) struct OpenBody {
    from: Timestamp,
    to: Timestamp,
}

/// Show when a team is open
#[utoipa::path(
    get,
    path = "/v1/teams/{team_id}/calendar",
    operation_id = "show_calendar",
    tag = "People",
    params(("team_id" = Slug, Path), AskedCalendar),
    responses((status = 200, description = "Its open stretches.", body = CalendarBody)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Path(team_id): Path<Slug>,
    Query(query): Query<AskedCalendar>,
) -> Result<Json<CalendarBody>, Problem> {
    let mut errors = Errors::of_query();
    let from = errors
        .optional("from", query.from)
        .map_or_else(|| api.clock.now(), |at| at.0);
    let to = errors.optional("to", query.to).map_or(from + SHOWN, |at| at.0);
    if to < from {
        errors.add("to", "before_from", "expected a time that is not before `from`");
    } else if from.duration_until(to) > SHOWN_MAX {
        errors.add(
            "to",
            "too_far",
            "expected a time that is 366 days after `from` at most",
        );
    }
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let team = expect(&mut conn, &team_id).await?;
    let calendar = team.plan.calendar();
    let open = calendar.open_between(from, to);
    Ok(Json(CalendarBody {
        team_id,
        time_zone: team.plan.time_zone,
        from,
        to,
        is_open: calendar.is_open(from),
        next_open: calendar.next_open(from),
        business_minutes: calendar.business_minutes_between(from, to),
        open: open
            .into_iter()
            .map(|open| OpenBody {
                from: open.from,
                to: open.to,
            })
            .collect(),
    }))
}

/// Business minutes that a deadline may be away.
const MINUTES_MAX: u32 = 100_000;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedDeadline {
    /// Now, if not given.
    #[serde(default)]
    #[param(value_type = Option<Timestamp>)]
    from: Field<Instant>,
    /// How many minutes in which the team is open have to pass.
    #[serde(default)]
    #[param(value_type = u32, maximum = 100_000, required = true, example = 30)]
    minutes: Field<Number<0, MINUTES_MAX>>,
}

/// When so much business time will have passed.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Deadline)]
pub(super) struct DeadlineBody {
    team_id: Slug,
    from: Timestamp,
    minutes: u32,
    /// The first instant at which they have passed; closing time itself, where they end with it. Null: never.
    at: Option<Timestamp>,
}

/// Show when so many business minutes will have passed
#[utoipa::path(
    get,
    path = "/v1/teams/{team_id}/deadline",
    operation_id = "show_deadline",
    tag = "People",
    params(("team_id" = Slug, Path), AskedDeadline),
    responses((status = 200, description = "The deadline.", body = DeadlineBody)),
    security(("api_key" = ["people:read"])),
)]
pub(super) async fn deadline(
    State(api): State<Api>,
    _: Caller<scope::PeopleRead>,
    Path(team_id): Path<Slug>,
    Query(query): Query<AskedDeadline>,
) -> Result<Json<DeadlineBody>, Problem> {
    let mut errors = Errors::of_query();
    let from = errors
        .optional("from", query.from)
        .map_or_else(|| api.clock.now(), |at| at.0);
    let minutes = errors.required("minutes", query.minutes).map(|minutes| minutes.0);
    let minutes = errors.finish(minutes)?;
    let mut conn = api.pool.acquire().await?;
    let team = expect(&mut conn, &team_id).await?;
    Ok(Json(DeadlineBody {
        team_id,
        from,
        minutes,
        at: team.plan.calendar().add_business_minutes(from, minutes),
    }))
}
