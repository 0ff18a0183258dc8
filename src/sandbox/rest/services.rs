//! `/Services` and `/Services/{IS}/Configuration`.

use axum::extract::State;
use serde_json::{Value, json};

use super::call::Call;
use super::page::{Order, Sizes, page};
use super::{Reply, Shared, created, no_content, ok};
use crate::ids::ServiceSid;
use crate::sandbox::model::Account;
use crate::sandbox::model::refusal::Refusal;
use crate::sandbox::model::service::{Service, ServiceFields};
use crate::sandbox::model::time::with_seconds;

pub(super) async fn list(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let services: Vec<(u64, &Service)> = account.services.values().map(|one| (one.serial, one)).collect();
        let render = |one: &&Service| render(account, &call, one);
        page(
            &call,
            "services",
            Sizes::HUNDRED,
            Order::Ascending,
            &services,
            render,
        )
        .map(ok)
    })
}

pub(super) async fn create(State(world): Shared, call: Call) -> Reply {
    let name = call.form.get("FriendlyName");
    call.act(&world, |account| {
        let sid = account.create_service(name.as_deref())?;
        show(account, &call, &sid).map(created)
    })
}

pub(super) async fn fetch(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| show(account, &call, &call.service).map(ok))
}

pub(super) async fn remove(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        account.remove_service(&call.service)?;
        Ok(no_content())
    })
}

fn show(account: &Account, call: &Call, sid: &ServiceSid) -> Result<Value, Refusal> {
    Ok(render(account, call, account.service(sid)?))
}

fn render(account: &Account, call: &Call, service: &Service) -> Value {
    let url = format!("{}/Services/{}", call.urls.root, service.sid);
    json!({
        "sid": service.sid,
        "account_sid": account.sid,
        "friendly_name": service.friendly_name,
        "date_created": with_seconds(service.created),
        "date_updated": with_seconds(service.updated),
        "links": {
            "conversations": format!("{url}/Conversations"),
            "users": format!("{url}/Users"),
            "roles": format!("{url}/Roles"),
            "bindings": format!("{url}/Bindings"),
            "configuration": format!("{url}/Configuration"),
            "participant_conversations": format!("{url}/ParticipantConversations"),
            "conversation_with_participants": format!("{url}/ConversationWithParticipants"),
        },
        "url": url,
    })
}

pub(super) async fn fetch_configuration(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| show_configuration(account, &call).map(ok))
}

pub(super) async fn update_configuration(State(world): Shared, call: Call) -> Reply {
    let fields = ServiceFields {
        creator_role: call.form.get("DefaultConversationCreatorRoleSid"),
        default_role: call.form.get("DefaultConversationRoleSid"),
        user_role: call.form.get("DefaultChatServiceRoleSid"),
        reachability: call.form.get("ReachabilityEnabled"),
    };
    call.act(&world, |account| {
        account.configure_service(&call.service, &fields)?;
        show_configuration(account, &call).map(ok)
    })
}

fn show_configuration(account: &Account, call: &Call) -> Result<Value, Refusal> {
    let service = account.service(&call.service)?;
    let url = format!("{}/Configuration", call.urls.base);
    Ok(json!({
        "chat_service_sid": service.sid,
        "default_conversation_creator_role_sid": service.creator_role,
        "default_conversation_role_sid": service.default_role,
        "default_chat_service_role_sid": service.user_role,
        "reachability_enabled": service.reachability,
        "links": {
            "notifications": format!("{url}/Notifications"),
            "webhooks": format!("{url}/Webhooks"),
        },
        "url": url,
    }))
}
