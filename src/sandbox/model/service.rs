//! Conversation services with what belongs to one: webhook configuration, roles and users.

use jiff::Timestamp;

use crate::ids::{RoleSid, ServiceSid, UserSid};

use super::address::check_identity;
use super::conversation::State;
use super::event;
use super::refusal::{IDENTITY_MISSING, INVALID_PARAMETER, NOT_FOUND, Refusal, USER_EXISTS};
use super::webhook::{Event, EventName, ScopeWebhook, ScopeWebhookChange};
use super::{Account, Cause, checked_attributes, checked_name, new_sid};

const USER_ATTRIBUTES_LIMIT: usize = 4 * 1024;

pub(crate) struct Service {
    pub(crate) serial: u64,
    pub(crate) sid: ServiceSid,
    pub(crate) friendly_name: String,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    pub(crate) webhook: ScopeWebhook,
    pub(crate) roles: Vec<Role>,
    pub(crate) users: Vec<User>,
    pub(crate) creator_role: RoleSid,
    /// The role of an identity in a conversation.
    pub(crate) default_role: RoleSid,
    /// The role of a user in the service.
    pub(crate) user_role: RoleSid,
    pub(crate) reachability: bool,
}

#[derive(Clone)]
pub(crate) struct Role {
    pub(crate) serial: u64,
    pub(crate) sid: RoleSid,
    pub(crate) friendly_name: String,
    pub(crate) scope: RoleScope,
    pub(crate) permissions: Vec<String>,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RoleScope {
    Conversation,
    Service,
}

impl RoleScope {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Conversation => "conversation",
            Self::Service => "service",
        }
    }
}

#[derive(Clone)]
pub(crate) struct User {
    pub(crate) serial: u64,
    pub(crate) sid: UserSid,
    pub(crate) service: ServiceSid,
    pub(crate) identity: String,
    pub(crate) friendly_name: Option<String>,
    pub(crate) attributes: String,
    pub(crate) role: RoleSid,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
}

/// The parameters of a user, as they came.
#[derive(Clone, Default)]
pub(crate) struct UserFields {
    pub(crate) identity: Option<String>,
    pub(crate) friendly_name: Option<String>,
    pub(crate) attributes: Option<String>,
    pub(crate) role: Option<String>,
}

/// The parameters of a service's configuration, as they came.
#[derive(Default)]
pub(crate) struct ServiceFields {
    pub(crate) creator_role: Option<String>,
    pub(crate) default_role: Option<String>,
    pub(crate) user_role: Option<String>,
    pub(crate) reachability: Option<String>,
}

impl Service {
    pub(crate) fn role(&self, sid: &str) -> Option<&Role> {
        self.roles.iter().find(|role| role.sid.as_str() == sid)
    }

    /// By `US…` or by identity.
    pub(crate) fn user(&self, key: &str) -> Option<&User> {
        self.users
            .iter()
            .find(|user| user.sid.as_str() == key || user.identity == key)
    }
}

impl Account {
    pub(super) fn open_service(&mut self, sid: ServiceSid, friendly_name: String) {
        let now = self.now();
        let mut role = |name: &str, scope, permissions: &[&str]| Role {
            serial: self.next_serial(),
            sid: new_sid(RoleSid::PREFIX),
            friendly_name: name.to_owned(),
            scope,
            permissions: permissions
                .iter()
                .map(|&permission| permission.to_owned())
                .collect(),
            created: now,
            updated: now,
        };
        let member = [
            "sendMessage",
            "leaveConversation",
            "editOwnMessage",
            "deleteOwnMessage",
        ];
        let roles = vec![
            role("channel user", RoleScope::Conversation, &member),
            role("channel admin", RoleScope::Conversation, &member),
            role(
                "service user",
                RoleScope::Service,
                &["createConversation", "joinConversation"],
            ),
            role(
                "service admin",
                RoleScope::Service,
                &["createConversation", "joinConversation"],
            ),
        ];
        let service = Service {
            serial: self.next_serial(),
            sid,
            friendly_name,
            created: now,
            updated: now,
            webhook: ScopeWebhook::default(),
            users: Vec::new(),
            creator_role: roles[1].sid.clone(),
            default_role: roles[0].sid.clone(),
            user_role: roles[2].sid.clone(),
            roles,
            reachability: false,
        };
        self.services.insert(service.serial, service);
    }

    pub(crate) fn create_service(&mut self, friendly_name: Option<&str>) -> Result<ServiceSid, Refusal> {
        let name = friendly_name
            .map(|name| checked_name("FriendlyName", name))
            .transpose()?
            .flatten();
        let name = name.ok_or_else(|| INVALID_PARAMETER.saying("FriendlyName is required"))?;
        let sid: ServiceSid = new_sid(ServiceSid::PREFIX);
        self.open_service(sid.clone(), name);
        Ok(sid)
    }

    /// Removes a service with all its conversations. The default service of the account stays.
    pub(crate) fn remove_service(&mut self, sid: &ServiceSid) -> Result<(), Refusal> {
        let serial = self.service(sid)?.serial;
        if *sid == self.configuration.service {
            return Err(INVALID_PARAMETER.saying("the default service cannot be removed"));
        }
        let of_service = self
            .register
            .iter()
            .filter(|conversation| conversation.head.service == *sid);
        let conversations: Vec<_> = of_service
            .map(|conversation| conversation.head.sid.clone())
            .collect();
        for conversation in conversations {
            self.register.remove(&conversation);
        }
        self.services.remove(&serial);
        Ok(())
    }

    pub(crate) fn configure_webhook(
        &mut self,
        sid: &ServiceSid,
        change: ScopeWebhookChange,
    ) -> Result<(), Refusal> {
        self.service_mut(sid)?.webhook.change(change)
    }

    pub(crate) fn configure_service(
        &mut self,
        sid: &ServiceSid,
        fields: &ServiceFields,
    ) -> Result<(), Refusal> {
        let service = self.service(sid)?;
        let role = |text: &Option<String>, present: &RoleSid| match text {
            None => Ok(present.clone()),
            Some(text) => service
                .role(text)
                .map(|role| role.sid.clone())
                .ok_or_else(|| NOT_FOUND.saying("Role not found")),
        };
        let creator_role = role(&fields.creator_role, &service.creator_role)?;
        let default_role = role(&fields.default_role, &service.default_role)?;
        let user_role = role(&fields.user_role, &service.user_role)?;
        let reachability = match fields.reachability.as_deref() {
            None => service.reachability,
            Some("true") => true,
            Some("false") => false,
            Some(_) => return Err(INVALID_PARAMETER.saying("ReachabilityEnabled must be true or false")),
        };
        let service = self.service_mut(sid)?;
        (service.creator_role, service.default_role) = (creator_role, default_role);
        (service.user_role, service.reachability) = (user_role, reachability);
        Ok(())
    }

    /// An identity that joins for the first time becomes a user.
    pub(super) fn ensure_user(&mut self, service: &ServiceSid, identity: &str, cause: Cause) {
        if self
            .service(service)
            .is_ok_and(|service| service.user(identity).is_none())
        {
            let fields = UserFields {
                identity: Some(identity.to_owned()),
                ..UserFields::default()
            };
            self.create_user(service, &fields, cause)
                .expect("the identity was checked when it joined");
        }
    }

    pub(crate) fn create_user(
        &mut self,
        service: &ServiceSid,
        fields: &UserFields,
        cause: Cause,
    ) -> Result<UserSid, Refusal> {
        let found = self.service(service)?;
        let identity = fields.identity.clone().filter(|identity| !identity.is_empty());
        let identity = identity.ok_or_else(|| IDENTITY_MISSING.refuse())?;
        check_identity(&identity)?;
        if found.user(&identity).is_some() {
            return Err(USER_EXISTS.refuse());
        }
        let now = self.now();
        let mut user = User {
            serial: 0,
            sid: new_sid(UserSid::PREFIX),
            service: service.clone(),
            identity,
            friendly_name: None,
            attributes: "{}".to_owned(),
            role: found.user_role.clone(),
            created: now,
            updated: now,
        };
        self.apply_user(&mut user, fields)?;
        user.serial = self.next_serial();
        let sid = user.sid.clone();
        let event = event::user(&self.sid, EventName::UserAdded, &user, cause);
        self.service_mut(service)?.users.push(user);
        self.tell(&event, cause);
        Ok(sid)
    }

    fn apply_user(&self, user: &mut User, fields: &UserFields) -> Result<(), Refusal> {
        if let Some(name) = &fields.friendly_name {
            user.friendly_name = checked_name("FriendlyName", name)?;
        }
        if let Some(attributes) = checked_attributes(fields.attributes.as_deref(), USER_ATTRIBUTES_LIMIT)? {
            user.attributes = attributes;
        }
        if let Some(text) = &fields.role {
            let role = self
                .service(&user.service)?
                .role(text)
                .ok_or_else(|| NOT_FOUND.saying("Role not found"))?;
            user.role = role.sid.clone();
        }
        Ok(())
    }

    fn draft_user(&self, service: &ServiceSid, key: &str, fields: &UserFields) -> Result<User, Refusal> {
        let mut user = self
            .service(service)?
            .user(key)
            .ok_or_else(|| NOT_FOUND.refuse())?
            .clone();
        self.apply_user(&mut user, fields)?;
        user.updated = self.now();
        Ok(user)
    }

    pub(crate) fn ask_update_user(
        &self,
        service: &ServiceSid,
        key: &str,
        fields: &UserFields,
        cause: Cause,
    ) -> Result<Event, Refusal> {
        let user = self.draft_user(service, key, fields)?;
        Ok(event::user(&self.sid, EventName::UserUpdate, &user, cause))
    }

    pub(crate) fn update_user(
        &mut self,
        service: &ServiceSid,
        key: &str,
        fields: &UserFields,
        cause: Cause,
    ) -> Result<UserSid, Refusal> {
        let user = self.draft_user(service, key, fields)?;
        let sid = user.sid.clone();
        let event = event::user(&self.sid, EventName::UserUpdated, &user, cause);
        let users = &mut self.service_mut(service)?.users;
        if let Some(place) = users.iter_mut().find(|other| other.sid == sid) {
            *place = user;
        }
        self.tell(&event, cause);
        Ok(sid)
    }

    /// Removes a user, who thereby leaves every conversation. Where one of them would become the twin of another
    /// group by that, nothing is removed.
    pub(crate) fn remove_user(
        &mut self,
        service: &ServiceSid,
        key: &str,
        cause: Cause,
    ) -> Result<(), Refusal> {
        let user = self
            .service(service)?
            .user(key)
            .ok_or_else(|| NOT_FOUND.refuse())?
            .clone();
        let mut memberships = Vec::new();
        for conversation in self
            .register
            .iter()
            .filter(|found| found.head.service == *service)
        {
            let Some(leaving) = conversation.participant(&user.identity) else {
                continue;
            };
            if conversation.head.state != State::Closed {
                self.check_without(conversation, leaving)?;
            }
            memberships.push((conversation.head.sid.clone(), leaving.clone()));
        }
        for (conversation, participant) in memberships {
            self.part(&conversation, participant, cause);
        }
        self.service_mut(service)?
            .users
            .retain(|other| other.sid != user.sid);
        Ok(())
    }

    pub(crate) fn create_role(
        &mut self,
        service: &ServiceSid,
        friendly_name: Option<&str>,
        scope: Option<&str>,
        permissions: Vec<String>,
    ) -> Result<RoleSid, Refusal> {
        self.service(service)?;
        let name = friendly_name
            .map(|name| checked_name("FriendlyName", name))
            .transpose()?
            .flatten();
        let name = name.ok_or_else(|| INVALID_PARAMETER.saying("FriendlyName is required"))?;
        let scope = match scope {
            Some("conversation") => RoleScope::Conversation,
            Some("service") => RoleScope::Service,
            Some(_) | None => return Err(INVALID_PARAMETER.saying("Type must be conversation or service")),
        };
        if permissions.is_empty() {
            return Err(INVALID_PARAMETER.saying("Permission is required"));
        }
        let now = self.now();
        let sid: RoleSid = new_sid(RoleSid::PREFIX);
        let serial = self.next_serial();
        let role = Role {
            serial,
            sid: sid.clone(),
            friendly_name: name,
            scope,
            permissions,
            created: now,
            updated: now,
        };
        self.service_mut(service)?.roles.push(role);
        Ok(sid)
    }

    pub(crate) fn update_role(
        &mut self,
        service: &ServiceSid,
        key: &str,
        permissions: Vec<String>,
    ) -> Result<(), Refusal> {
        if permissions.is_empty() {
            return Err(INVALID_PARAMETER.saying("Permission is required"));
        }
        let now = self.now();
        let roles = &mut self.service_mut(service)?.roles;
        let role = roles
            .iter_mut()
            .find(|role| role.sid.as_str() == key)
            .ok_or_else(|| NOT_FOUND.refuse())?;
        role.permissions = permissions;
        role.updated = now;
        Ok(())
    }

    pub(crate) fn remove_role(&mut self, service: &ServiceSid, key: &str) -> Result<(), Refusal> {
        let found = self.service(service)?;
        let role = found.role(key).ok_or_else(|| NOT_FOUND.refuse())?.sid.clone();
        if [&found.creator_role, &found.default_role, &found.user_role].contains(&&role) {
            return Err(INVALID_PARAMETER.saying("a default role cannot be removed"));
        }
        self.service_mut(service)?.roles.retain(|other| other.sid != role);
        Ok(())
    }
}
