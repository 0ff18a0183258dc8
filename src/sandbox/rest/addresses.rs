//! `/Configuration/Addresses`, which decides what an inbound message makes.

use axum::extract::State;
use serde_json::{Value, json};

use super::call::{Call, Fields};
use super::page::{Order, Sizes, page};
use super::{Reply, Shared, created, no_content, ok};
use crate::sandbox::model::Account;
use crate::sandbox::model::autocreation::{AddressConfiguration, AddressFields, AutoCreation};
use crate::sandbox::model::refusal::Refusal;
use crate::sandbox::model::time::with_seconds;

fn fields(form: &Fields) -> AddressFields {
    AddressFields {
        kind: form.get("Type"),
        address: form.get("Address"),
        friendly_name: form.get("FriendlyName"),
        country: form.get("AddressCountry"),
        enabled: form.get("AutoCreation.Enabled"),
        auto_type: form.get("AutoCreation.Type"),
        service: form.get("AutoCreation.ConversationServiceSid"),
        webhook_url: form.get("AutoCreation.WebhookUrl"),
        webhook_method: form.get("AutoCreation.WebhookMethod"),
        webhook_filters: form.all("AutoCreation.WebhookFilters"),
        studio_flow_sid: form.get("AutoCreation.StudioFlowSid"),
        studio_retry_count: form.get("AutoCreation.StudioRetryCount"),
    }
}

pub(super) async fn list(State(world): Shared, call: Call) -> Reply {
    // Only addresses of type sms exist here.
    let shows_sms = call.query.get("Type").is_none_or(|kind| kind == "sms");
    call.act(&world, |account| {
        let addresses = account.addresses.iter().filter(|_| shows_sms);
        let all: Vec<(u64, &AddressConfiguration)> = addresses.map(|one| (one.serial, one)).collect();
        let render = |one: &&AddressConfiguration| render(account, &call, one);
        page(
            &call,
            "address_configurations",
            Sizes::FIFTY,
            Order::Ascending,
            &all,
            render,
        )
        .map(ok)
    })
}

pub(super) async fn create(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let sid = account.configure_address(&fields(&call.form))?;
        show(account, &call, sid.as_str()).map(created)
    })
}

pub(super) async fn fetch(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        show(account, &call, call.segment("address")).map(ok)
    })
}

pub(super) async fn update(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let sid = account.update_address(call.segment("address"), &fields(&call.form))?;
        show(account, &call, sid.as_str()).map(ok)
    })
}

pub(super) async fn remove(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        account.remove_address(call.segment("address"))?;
        Ok(no_content())
    })
}

fn show(account: &Account, call: &Call, key: &str) -> Result<Value, Refusal> {
    Ok(render(account, call, account.address(key)?))
}

fn render(account: &Account, call: &Call, one: &AddressConfiguration) -> Value {
    json!({
        "sid": one.sid,
        "account_sid": account.sid,
        "type": "sms",
        "address": one.address,
        "friendly_name": one.friendly_name,
        "address_country": one.country,
        "auto_creation": auto_creation(account, one),
        "date_created": with_seconds(one.created),
        "date_updated": with_seconds(one.updated),
        "url": format!("{}/Configuration/Addresses/{}", call.urls.root, one.sid),
    })
}

fn auto_creation(account: &Account, one: &AddressConfiguration) -> Value {
    let mut body = json!({
        "enabled": one.enabled,
        "type": one.kind.as_str(),
        "conversation_service_sid": one.service.as_ref().unwrap_or(&account.configuration.service),
    });
    match &one.kind {
        AutoCreation::Default => {}
        AutoCreation::Webhook { url, method, filters } => {
            body["webhook_url"] = Value::from(url.as_str());
            body["webhook_method"] = Value::from(method.as_str());
            body["webhook_filters"] = filters.iter().map(|name| name.as_str()).collect();
        }
        AutoCreation::Studio {
            flow_sid,
            retry_count,
        } => {
            body["studio_flow_sid"] = Value::from(flow_sid.as_str());
            body["studio_retry_count"] = Value::from(*retry_count);
        }
    }
    body
}
