//! `/Users`, by SID or by identity.

use axum::extract::State;
use serde_json::{Value, json};

use super::call::{Call, Fields, Urls};
use super::page::{Order, Sizes, page};
use super::{Reply, Shared, created, no_content, ok};
use crate::sandbox::model::Account;
use crate::sandbox::model::refusal::{NOT_FOUND, Refusal};
use crate::sandbox::model::service::{User, UserFields};
use crate::sandbox::model::time::with_seconds;
use crate::sandbox::model::webhook::EventName;

pub(super) async fn list(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let users: Vec<(u64, &User)> = account
            .service(&call.service)?
            .users
            .iter()
            .map(|user| (user.serial, user))
            .collect();
        let render = |user: &&User| render(&call.urls, account.sid.as_str(), user);
        page(&call, "users", Sizes::FIFTY, Order::Ascending, &users, render).map(ok)
    })
}

fn fields(form: &Fields) -> UserFields {
    UserFields {
        identity: form.get("Identity"),
        friendly_name: form.get("FriendlyName"),
        attributes: form.get("Attributes"),
        role: form.get("RoleSid"),
    }
}

pub(super) async fn create(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let sid = account.create_user(&call.service, &fields(&call.form), call.cause())?;
        show(account, &call, sid.as_str()).map(created)
    })
}

pub(super) async fn fetch(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        show(account, &call, call.segment("user")).map(ok)
    })
}

pub(super) async fn update(State(world): Shared, call: Call) -> Reply {
    let mut fields = fields(&call.form);
    let key = call.segment("user");
    if call.is_told() {
        let ask = |account: &Account, fields: &UserFields| {
            account.ask_update_user(&call.service, key, fields, call.cause())
        };
        world
            .permit(&call.service, EventName::UserUpdate, &mut fields, ask, |_, _| ())
            .await?;
    }
    call.act(&world, |account| {
        let sid = account.update_user(&call.service, key, &fields, call.cause())?;
        show(account, &call, sid.as_str()).map(ok)
    })
}

pub(super) async fn remove(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        account.remove_user(&call.service, call.segment("user"), call.cause())?;
        Ok(no_content())
    })
}

fn show(account: &Account, call: &Call, key: &str) -> Result<Value, Refusal> {
    let user = account
        .service(&call.service)?
        .user(key)
        .ok_or_else(|| NOT_FOUND.refuse())?;
    Ok(render(&call.urls, account.sid.as_str(), user))
}

fn render(urls: &Urls, account_sid: &str, user: &User) -> Value {
    let url = format!("{}/Users/{}", urls.base, user.sid);
    json!({
        "sid": user.sid,
        "account_sid": account_sid,
        "chat_service_sid": user.service,
        "role_sid": user.role,
        "identity": user.identity,
        "friendly_name": user.friendly_name,
        "attributes": user.attributes,
        "is_online": false,
        "is_notifiable": null,
        "date_created": with_seconds(user.created),
        "date_updated": with_seconds(user.updated),
        "links": {"user_conversations": format!("{url}/Conversations")},
        "url": url,
    })
}
