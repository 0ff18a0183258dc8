//! `/v1/group-texts`: starting group texts and seeing what became of them.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::api::auth::{Caller, scope};
use crate::api::idempotency::{Begun, Post};
use crate::api::{Api, conflict, raw};
use crate::group_text::choice::{self, Choice, IfExists, Kept};
use crate::group_text::{
    self, GroupText, Member, NewGroupText, NewMember, Origin, StartGroupTextError, State as Stage,
};
use crate::people::Slug;
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field};
use crate::web::page::{At, Cursor, Key, Limit, Page, Wanted};
use crate::web::problem::{FieldError, Problem};

/// A group text to be started: at least one line and two handsets, at most 10 members in all.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "friendly_name": "Home-buying journey",
    "members": [
        { "line": "+15017122661", "holder": "maya" },
        { "address": "+15555550101" },
        { "address": "+15555550102" },
    ],
}))]
pub(super) struct StartGroupText {
    /// What the conversation is called at Twilio.
    #[serde(default)]
    #[schema(value_type = Option<String>, max_length = 256)]
    friendly_name: Field<String>,
    /// Anything of yours, at most 16 KiB; it becomes the conversation's `attributes` at Twilio.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    attributes: Field<Value>,
    #[serde(default)]
    #[schema(value_type = Vec<MemberWanted>, required = true, min_items = 3, max_items = 10)]
    members: Field<Vec<MemberWanted>>,
    /// What happens where there is an open group of the same numbers, of which Twilio allows one: `adopt` takes it as it is, and
    /// answers with it; `refuse` is a 409 that names it; `other_number` takes another number of the team that ours is of. If not
    /// given: `other_number` where a number of a team is asked for, else what Twilio has is taken.
    #[serde(default)]
    #[schema(value_type = Option<IfExists>, inline)]
    if_exists: Field<IfExists>,
}

/// A member to be: a handset (`address`), or one of our numbers (`line`) and who is behind it.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MemberWanted {
    /// A handset's number.
    #[schema(example = "+15555550101")]
    address: Option<String>,
    /// One of our numbers.
    #[schema(example = "+15017122661")]
    line: Option<String>,
    /// In place of `line`: any number of this team, one that is enabled, capable of MMS, a long code, and free for this group; of
    /// several, the one with fewest groups. At most one member has it.
    #[serde(default)]
    line_of_team: Option<Slug>,
    /// The identity behind the line; none leaves it unstaffed.
    #[schema(example = "maya")]
    holder: Option<String>,
}

impl StartGroupText {
    /// Only the types; what a group text may be, the operation checks whole, so that all is told at once.
    fn read(self, requested_by: String) -> Result<NewGroupText, Problem> {
        let mut errors = Errors::of_body();
        let friendly_name = errors.optional("friendly_name", self.friendly_name);
        let attributes = errors.optional("attributes", self.attributes);
        let members = errors.required("members", self.members);
        let if_exists = errors.optional("if_exists", self.if_exists);
        let of_team = of_team(&mut errors, members.as_deref().unwrap_or_default());
        let new = members.map(|members| NewGroupText {
            friendly_name,
            attributes,
            members: members.into_iter().map(NewMember::from).collect(),
            choice: Choice { of_team, if_exists },
            requested_by,
        });
        errors.finish(new)
    }
}

/// The member that gets a number of a team, with its place.
fn of_team(errors: &mut Errors, members: &[MemberWanted]) -> Option<(usize, Slug)> {
    let all = members.iter().enumerate();
    let mut wanted = all.filter_map(|(place, member)| Some((place, member.line_of_team.clone()?, member)));
    let first = wanted.next();
    for (place, _, _) in wanted {
        let message = "expected of one member at most: name the others' numbers as `line`";
        errors.add(&format!("members/{place}/line_of_team"), "too_many", message);
    }
    let (place, team, member) = first?;
    if member.line.is_some() || member.address.is_some() {
        let message = "expected either `address`, `line` or `line_of_team`";
        errors.add(&format!("members/{place}"), "shape", message);
    }
    Some((place, team))
}

impl From<MemberWanted> for NewMember {
    fn from(member: MemberWanted) -> Self {
        Self {
            address: member.address,
            line: member.line,
            holder: member.holder,
        }
    }
}

/// A group text, whether we were asked for it or a customer started it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GroupText)]
pub(super) struct GroupTextBody {
    group_text_id: Uuid,
    #[schema(inline)]
    state: Stage,
    #[schema(inline)]
    origin: Origin,
    /// Null until Twilio has made the conversation.
    conversation_sid: Option<String>,
    /// Twilio had an open conversation of the same numbers already, and it was taken.
    adopted: bool,
    friendly_name: Option<String>,
    #[schema(value_type = Option<Object>)]
    attributes: Option<Box<RawValue>>,
    /// The members that were asked for; who is in it now, the conversation's participants say.
    members: Vec<MemberBody>,
    /// Why it failed: a stable code.
    failure_code: Option<String>,
    failure_detail: Option<String>,
    /// What was to happen where there is an open group of the same numbers; left out where nothing was said.
    #[schema(inline)]
    #[serde(skip_serializing_if = "Option::is_none")]
    if_exists: Option<IfExists>,
    /// The open group of the same numbers that stood in the way; left out where none did.
    #[serde(skip_serializing_if = "Option::is_none")]
    existing_conversation_sid: Option<String>,
    requested_by: Option<String>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl GroupTextBody {
    fn with(self, kept: Option<&Kept>) -> Self {
        Self {
            if_exists: kept.and_then(|kept| kept.if_exists),
            existing_conversation_sid: kept.and_then(|kept| kept.existing_conversation_sid.clone()),
            ..self
        }
    }
}

/// A member that was asked for.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = GroupTextMember)]
#[serde(untagged)]
pub(super) enum MemberBody {
    Line { line: String, holder: Option<String> },
    Handset { address: String },
}

impl From<GroupText> for GroupTextBody {
    fn from(group: GroupText) -> Self {
        Self {
            group_text_id: group.group_text_id,
            state: group.state,
            origin: group.origin,
            conversation_sid: group.conversation_sid,
            adopted: group.adopted,
            friendly_name: group.friendly_name,
            attributes: raw(group.attributes),
            members: group.members.into_iter().map(MemberBody::from).collect(),
            failure_code: group.failure_code,
            failure_detail: group.failure_detail,
            if_exists: None,
            existing_conversation_sid: None,
            requested_by: group.requested_by,
            created_at: group.created_at,
            updated_at: group.updated_at,
        }
    }
}

impl From<Member> for MemberBody {
    fn from(member: Member) -> Self {
        match member {
            Member::Line { line, holder } => Self::Line { line, holder },
            Member::Outsider { address } => Self::Handset { address },
        }
    }
}

/// Start a group text
///
/// Everything wrong with it is told at once. What is right is queued: `state` goes from `requested` over `initializing`
/// to `active` or `failed`, each told in the feed as `group_text.*`. Where `if_exists` is `adopt` and there is one of the same
/// numbers, that is the answer, 200, with `adopted` true.
#[utoipa::path(
    post,
    path = "/v1/group-texts",
    operation_id = "start_group_text",
    tag = "Group texts",
    request_body = StartGroupText,
    responses(
        (status = 202, description = "Taken; `Location` names it.", body = GroupTextBody),
        (status = 200, description = "There is one of the same numbers, and it is this.", body = GroupTextBody),
        (status = 409, description = "`group_text_in_the_making`, `group_exists`, `no_free_number`, `team_unknown`.", body = crate::web::problem::ProblemBody, content_type = "application/problem+json"),
    ),
    security(("api_key" = ["group_texts:write"])),
)]
pub(super) async fn start(
    State(api): State<Api>,
    caller: Caller<scope::GroupTextsWrite>,
    Post { call, body }: Post<StartGroupText>,
) -> Result<Response, Problem> {
    let new = body.read(caller.name())?;
    match call.begin(&api, &caller).await? {
        Begun::Again(answer) => Ok(answer),
        Begun::First(mut first) => {
            let started = api.group_texts.start_in(first.conn(), new).await?;
            let id = started.group.group_text_id;
            let kept = choice::kept_of(first.conn(), &[id]).await?;
            let mut body = GroupTextBody::from(started.group).with(kept.get(&id));
            let status = if started.is_new {
                StatusCode::ACCEPTED
            } else {
                body.adopted = true;
                StatusCode::OK
            };
            first
                .answer(status, Some(format!("/v1/group-texts/{id}")), &body)
                .await
        }
    }
}

#[derive(Serialize, Deserialize)]
pub(super) struct Place(At, Uuid);

impl Key for Place {
    const LIST: &'static str = "group_texts";
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct ListGroupTexts {
    /// Only those in this state.
    #[serde(default)]
    #[param(value_type = Option<Stage>, inline)]
    state: Field<Stage>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Place>>,
}

/// List group texts, newest first
#[utoipa::path(
    get,
    path = "/v1/group-texts",
    operation_id = "list_group_texts",
    tag = "Group texts",
    params(ListGroupTexts),
    responses((status = 200, description = "A page of them.", body = Page<GroupTextBody>)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn list(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Query(query): Query<ListGroupTexts>,
) -> Result<Json<Page<GroupTextBody>>, Problem> {
    let mut errors = Errors::of_query();
    let state = errors.optional("state", query.state);
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    errors.finish(Some(()))?;
    let mut conn = api.pool.acquire().await?;
    let before = wanted.after.as_ref().map(|Place(at, id)| (at.0, *id));
    let rows = group_text::page(&mut conn, state, before, wanted.rows()).await?;
    let ids: Vec<Uuid> = rows.iter().map(|group| group.group_text_id).collect();
    let kept = choice::kept_of(&mut conn, &ids).await?;
    let page = wanted.page(rows, |group| Place(At(group.created_at), group.group_text_id));
    Ok(Json(page.map(|group| {
        let kept = kept.get(&group.group_text_id);
        GroupTextBody::from(group).with(kept)
    })))
}

/// Show a group text
#[utoipa::path(
    get,
    path = "/v1/group-texts/{group_text_id}",
    operation_id = "show_group_text",
    tag = "Group texts",
    params(("group_text_id" = Uuid, Path)),
    responses((status = 200, description = "The group text.", body = GroupTextBody)),
    security(("api_key" = ["conversations:read"])),
)]
pub(super) async fn show(
    State(api): State<Api>,
    _: Caller<scope::ConversationsRead>,
    Path(group_text_id): Path<Uuid>,
) -> Result<Json<GroupTextBody>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let group = group_text::find(&mut conn, group_text_id).await?;
    let group = group.ok_or(Problem::NotFound { what: "group text" })?;
    let kept = choice::kept_of(&mut conn, &[group_text_id]).await?;
    Ok(Json(GroupTextBody::from(group).with(kept.get(&group_text_id))))
}

impl From<StartGroupTextError> for Problem {
    fn from(error: StartGroupTextError) -> Self {
        match error {
            StartGroupTextError::Invalid(violations) => Self::Invalid {
                errors: violations
                    .into_iter()
                    .map(|wrong| FieldError::new(wrong.field, wrong.code, wrong.message))
                    .collect(),
            },
            StartGroupTextError::InTheMaking { group_text_id } => conflict(
                "group_text_in_the_making",
                "a group text of the same numbers is being made: wait for it",
                json!({ "group_text_id": group_text_id }),
            ),
            StartGroupTextError::Exists {
                conversation_sid,
                group_text_id,
            } => conflict(
                "group_exists",
                "there is an open group of the same numbers, and Twilio allows one: see `if_exists`",
                json!({ "conversation_sid": conversation_sid, "group_text_id": group_text_id }),
            ),
            StartGroupTextError::TeamUnknown { team } => conflict(
                "team_unknown",
                "there is no such team: see GET /v1/teams",
                json!({ "team": team }),
            ),
            StartGroupTextError::NoFreeNumber {
                team: None,
                conversation_sids,
                ..
            } => conflict(
                "no_free_number",
                "there is an open group of the same numbers, and ours is of no team whose others could be taken: see PUT /v1/numbers/{number}",
                json!({ "team": null, "conversation_sids": conversation_sids }),
            ),
            StartGroupTextError::NoFreeNumber {
                team: Some(team),
                numbers,
                conversation_sids,
            } => conflict(
                "no_free_number",
                "no number of the team is free for this group: `numbers` counts why, see GET /v1/numbers",
                json!({ "team": team, "numbers": numbers, "conversation_sids": conversation_sids }),
            ),
            StartGroupTextError::Database(error) => error.into(),
        }
    }
}
