//! `/Roles`.

use axum::extract::State;
use serde_json::{Value, json};

use super::call::Call;
use super::page::{Order, Sizes, page};
use super::{Reply, Shared, created, no_content, ok};
use crate::sandbox::model::Account;
use crate::sandbox::model::refusal::{NOT_FOUND, Refusal};
use crate::sandbox::model::service::Role;
use crate::sandbox::model::time::with_seconds;

pub(super) async fn list(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let roles: Vec<(u64, &Role)> = account
            .service(&call.service)?
            .roles
            .iter()
            .map(|role| (role.serial, role))
            .collect();
        page(&call, "roles", Sizes::FIFTY, Order::Ascending, &roles, |role| {
            render(account, &call, role)
        })
        .map(ok)
    })
}

pub(super) async fn create(State(world): Shared, call: Call) -> Reply {
    let (name, scope) = (call.form.get("FriendlyName"), call.form.get("Type"));
    let permissions = call.form.all("Permission").unwrap_or_default();
    call.act(&world, |account| {
        let sid = account.create_role(&call.service, name.as_deref(), scope.as_deref(), permissions)?;
        show(account, &call, sid.as_str()).map(created)
    })
}

pub(super) async fn fetch(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        show(account, &call, call.segment("role")).map(ok)
    })
}

pub(super) async fn update(State(world): Shared, call: Call) -> Reply {
    let permissions = call.form.all("Permission").unwrap_or_default();
    call.act(&world, |account| {
        account.update_role(&call.service, call.segment("role"), permissions)?;
        show(account, &call, call.segment("role")).map(ok)
    })
}

pub(super) async fn remove(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        account.remove_role(&call.service, call.segment("role"))?;
        Ok(no_content())
    })
}

fn show(account: &Account, call: &Call, key: &str) -> Result<Value, Refusal> {
    let role = account
        .service(&call.service)?
        .role(key)
        .ok_or_else(|| NOT_FOUND.refuse())?;
    Ok(render(account, call, role))
}

fn render(account: &Account, call: &Call, role: &Role) -> Value {
    json!({
        "sid": role.sid,
        "account_sid": account.sid,
        "chat_service_sid": call.service,
        "friendly_name": role.friendly_name,
        "type": role.scope.as_str(),
        "permissions": role.permissions,
        "date_created": with_seconds(role.created),
        "date_updated": with_seconds(role.updated),
        "url": format!("{}/Roles/{}", call.urls.base, role.sid),
    })
}
