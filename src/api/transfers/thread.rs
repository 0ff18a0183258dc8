//! Reading the thread before answering.
use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use utoipa::IntoParams;
use uuid::Uuid;

use super::problem::{About, Asked, on_record};
use crate::api::Api;
use crate::api::auth::{Caller, scope};
use crate::api::messages::{self, Latest, MessageBody};
use crate::ids::Identity;
use crate::transfer;
use crate::web::extract::{Path, Query};
use crate::web::field::{Errors, Field};
use crate::web::page::{Cursor, Limit, Page, Wanted};
use crate::web::problem::Problem;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct ReadThread {
    /// Who reads it: the one whose turn it is to answer.
    #[serde(default, rename = "as")]
    #[param(rename = "as", value_type = Identity, required = true)]
    reader: Field<Identity>,
    /// How many items at most: 1 to 200, 50 if not given.
    #[serde(default)]
    #[param(value_type = Option<u32>, minimum = 1, maximum = 200)]
    limit: Field<Limit>,
    /// `next` of the page before.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    cursor: Field<Cursor<Latest>>,
}

/// Read the messages of the conversation, before answering an offer
///
/// In their order, as in the list of messages. Only while the offer stands, and only for the one who has to answer it;
/// each reading is an entry of the log, `transfer.thread_read`. Nothing is told to Twilio or to the group by this.
#[utoipa::path(
    get,
    path = "/v1/transfers/{transfer_id}/thread",
    operation_id = "read_transfer_thread",
    tag = "Transfers",
    params(("transfer_id" = Uuid, Path), ReadThread),
    responses((status = 200, description = "A page of them.", body = Page<MessageBody>)),
    security(("api_key" = ["transfers:read"])),
)]
pub(in crate::api) async fn thread(
    State(api): State<Api>,
    _: Caller<scope::TransfersRead>,
    Path(transfer_id): Path<Uuid>,
    Query(query): Query<ReadThread>,
) -> Result<Json<Page<MessageBody>>, Problem> {
    let mut conn = api.pool.acquire().await?;
    let found = transfer::find(&mut conn, transfer_id).await?;
    found.ok_or(Problem::NotFound { what: "transfer" })?;
    drop(conn);
    let mut errors = Errors::of_query();
    let reader = errors.required("as", query.reader);
    let wanted = Wanted::read(&mut errors, query.limit, query.cursor);
    let reader = errors.finish(reader)?;
    let read = api.transfers.read_thread(transfer_id, reader.as_str()).await;
    let transfer = match read {
        Ok(transfer) => transfer,
        Err(error) => {
            let asked = Asked {
                verb: "read_thread",
                by: reader.as_str(),
                about: About::Transfer(transfer_id),
            };
            return Err(on_record(&api, asked, error.into()).await);
        }
    };
    let mut conn = api.pool.acquire().await?;
    let page = messages::page_now(&mut conn, &transfer.conversation_sid, wanted).await?;
    Ok(Json(page))
}
