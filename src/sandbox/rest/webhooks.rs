//! Webhook configuration at its three scopes: account, service, conversation.

use axum::extract::State;
use serde_json::{Value, json};

use super::call::{Call, Fields};
use super::page::{Order, Sizes, page};
use super::{Reply, Shared, created, no_content, ok};
use crate::sandbox::model::Account;
use crate::sandbox::model::conversation::Conversation;
use crate::sandbox::model::conversation_webhooks::TargetFields;
use crate::sandbox::model::refusal::{NOT_FOUND, Refusal};
use crate::sandbox::model::time::with_seconds;
use crate::sandbox::model::webhook::{ConversationWebhook, ScopeWebhook, ScopeWebhookChange, Target};

fn change(form: &Fields) -> ScopeWebhookChange {
    ScopeWebhookChange {
        pre_url: form.get("PreWebhookUrl"),
        post_url: form.get("PostWebhookUrl"),
        method: form.get("Method"),
        filters: form.all("Filters"),
        target: None,
    }
}

pub(super) async fn fetch_global(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| Ok(ok(render_global(account, &call))))
}

pub(super) async fn update_global(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        account.webhook.change(ScopeWebhookChange {
            target: call.form.get("Target"),
            ..change(&call.form)
        })?;
        Ok(ok(render_global(account, &call)))
    })
}

fn render_global(account: &Account, call: &Call) -> Value {
    let mut body = render_scope(account, &account.webhook);
    body["target"] = Value::from(if account.webhook.to_flex {
        "flex"
    } else {
        "webhook"
    });
    body["url"] = Value::from(format!("{}/Configuration/Webhooks", call.urls.root));
    body
}

pub(super) async fn fetch_service(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| render_service(account, &call).map(ok))
}

pub(super) async fn update_service(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        account.configure_webhook(&call.service, change(&call.form))?;
        render_service(account, &call).map(ok)
    })
}

fn render_service(account: &Account, call: &Call) -> Result<Value, Refusal> {
    let mut body = render_scope(account, &account.service(&call.service)?.webhook);
    body["chat_service_sid"] = Value::from(call.service.as_str());
    body["url"] = Value::from(format!("{}/Configuration/Webhooks", call.urls.base));
    Ok(body)
}

/// All null where nothing was ever configured.
fn render_scope(account: &Account, webhook: &ScopeWebhook) -> Value {
    let configured = webhook.is_set() || !webhook.filters.is_empty();
    json!({
        "account_sid": account.sid,
        "pre_webhook_url": webhook.pre_url,
        "post_webhook_url": webhook.post_url,
        "method": configured.then(|| webhook.method.as_str()),
        "filters": configured.then_some(&webhook.filters),
    })
}

fn target_fields(form: &Fields) -> TargetFields {
    TargetFields {
        target: form.get("Target"),
        url: form.get("Configuration.Url"),
        method: form.get("Configuration.Method"),
        filters: form.all("Configuration.Filters"),
        triggers: form.all("Configuration.Triggers"),
        flow_sid: form.get("Configuration.FlowSid"),
        replay_after: form.get("Configuration.ReplayAfter"),
    }
}

pub(super) async fn list(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let found = account.conversation(&call.service, call.conversation())?;
        let all: Vec<(u64, &ConversationWebhook)> =
            found.webhooks.iter().map(|one| (one.serial, one)).collect();
        let render = |one: &&ConversationWebhook| render(account, &call, found, one);
        page(&call, "webhooks", Sizes::FIVE, Order::Ascending, &all, render).map(ok)
    })
}

pub(super) async fn create(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let sid = account.add_webhook(&call.service, call.conversation(), &target_fields(&call.form))?;
        show(account, &call, sid.as_str()).map(created)
    })
}

pub(super) async fn fetch(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        show(account, &call, call.segment("webhook")).map(ok)
    })
}

pub(super) async fn update(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        let (conversation, webhook) = (call.conversation(), call.segment("webhook"));
        account.update_webhook(&call.service, conversation, webhook, &target_fields(&call.form))?;
        show(account, &call, webhook).map(ok)
    })
}

pub(super) async fn remove(State(world): Shared, call: Call) -> Reply {
    call.act(&world, |account| {
        account.remove_webhook(&call.service, call.conversation(), call.segment("webhook"))?;
        Ok(no_content())
    })
}

fn show(account: &Account, call: &Call, key: &str) -> Result<Value, Refusal> {
    let found = account.conversation(&call.service, call.conversation())?;
    let webhook = found.webhooks.iter().find(|one| one.sid.as_str() == key);
    Ok(render(
        account,
        call,
        found,
        webhook.ok_or_else(|| NOT_FOUND.refuse())?,
    ))
}

fn render(
    account: &Account,
    call: &Call,
    conversation: &Conversation,
    webhook: &ConversationWebhook,
) -> Value {
    let conversation = &conversation.head.sid;
    // Methods are in lower case here, and in upper case at the other scopes.
    let (target, configuration) = match &webhook.target {
        Target::Webhook { url, method, filters } => {
            let filters: Vec<&str> = filters.iter().map(|name| name.as_str()).collect();
            let method = method.as_str().to_lowercase();
            (
                "webhook",
                json!({"url": url, "method": method, "filters": filters}),
            )
        }
        Target::Trigger {
            url,
            method,
            triggers,
        } => (
            "trigger",
            json!({"url": url, "method": method.as_str().to_lowercase(), "triggers": triggers}),
        ),
        Target::Studio { flow_sid } => ("studio", json!({"flow_sid": flow_sid})),
    };
    call.urls.stamp(json!({
        "sid": webhook.sid,
        "account_sid": account.sid,
        "conversation_sid": conversation,
        "target": target,
        "configuration": configuration,
        "date_created": with_seconds(webhook.created),
        "date_updated": with_seconds(webhook.updated),
        "url": format!("{}/Conversations/{conversation}/Webhooks/{}", call.urls.base, webhook.sid),
    }))
}
