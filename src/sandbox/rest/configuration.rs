//! `/Configuration`: the account's defaults.

use axum::extract::State;
use serde_json::{Value, json};

use super::call::Call;
use super::{Reply, Shared, ok};
use crate::ids::ServiceSid;
use crate::sandbox::model::Account;
use crate::sandbox::model::conversations::{closed_timer, inactive_timer};
use crate::sandbox::model::refusal::{INVALID_PARAMETER, Refusal};

pub(super) async fn fetch(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| Ok(ok(render(account, &call))))
}

pub(super) async fn update(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        apply(account, &call)?;
        Ok(ok(render(account, &call)))
    })
}

/// Checks everything before it changes anything.
fn apply(account: &mut Account, call: &Call) -> Result<(), Refusal> {
    let form = &call.form;
    let service = form.get("DefaultChatServiceSid").map(|text| {
        let sid = ServiceSid::try_from(text.as_str())
            .map_err(|_| INVALID_PARAMETER.saying("DefaultChatServiceSid is no service SID"))?;
        account.service(&sid).map(|service| service.sid.clone())
    });
    let service = service.transpose()?;
    let messaging_service = form.get("DefaultMessagingServiceSid");
    let messaging_service = messaging_service
        .map(|text| account.checked_messaging_service(&text))
        .transpose()?;
    let inactive = form.get("DefaultInactiveTimer");
    let closed = form.get("DefaultClosedTimer");
    inactive.as_deref().map(inactive_timer).transpose()?;
    closed.as_deref().map(closed_timer).transpose()?;

    let configuration = &mut account.configuration;
    configuration.service = service.unwrap_or_else(|| configuration.service.clone());
    configuration.messaging_service =
        messaging_service.unwrap_or_else(|| configuration.messaging_service.clone());
    configuration.inactive_timer = inactive.or(configuration.inactive_timer.take());
    configuration.closed_timer = closed.or(configuration.closed_timer.take());
    Ok(())
}

fn render(account: &Account, call: &Call) -> Value {
    let configuration = &account.configuration;
    let root = &call.urls.root;
    json!({
        "account_sid": account.sid,
        "default_chat_service_sid": configuration.service,
        "default_messaging_service_sid": configuration.messaging_service,
        "default_inactive_timer": configuration.inactive_timer,
        "default_closed_timer": configuration.closed_timer,
        "url": format!("{root}/Configuration"),
        "links": {
            "service": format!("{root}/Services/{}/Configuration", configuration.service),
            "webhooks": format!("{root}/Configuration/Webhooks"),
        },
    })
}
