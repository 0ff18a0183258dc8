//! Asking for a group text.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::clock::Clock;
use crate::events::{self, Kind, NewEvent, Via};
use crate::group_text::choice::{self, Choice, IfExists, Kept, Others};
use crate::group_text::{CREATE_TASK, GroupText, NewMember, Origin, State, Violation, store, validate};
use crate::ids::{AccountSid, ConversationSid, PhoneNumber, new_id};
use crate::numbers::choose::tally;
use crate::people::Slug;
use crate::queue::{self, NewTask};
use crate::{numbers, people};

/// The operations, with what they need. Cheap to clone.
#[derive(Debug, Clone)]
pub struct GroupTexts {
    pub pool: PgPool,
    pub clock: Clock,
    pub accounts: Accounts,
}

/// A group text that somebody asks for.
#[derive(Clone)]
pub struct NewGroupText {
    pub friendly_name: Option<String>,
    /// A JSON object.
    pub attributes: Option<serde_json::Value>,
    pub members: Vec<NewMember>,
    pub choice: Choice,
    pub requested_by: String,
}

/// A group text that somebody asked for.
#[derive(Clone)]
pub struct Started {
    pub group: GroupText,
    /// False: there was one of the same numbers, and it is that.
    pub is_new: bool,
}

/// Why a group text cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartGroupTextError {
    #[error("the request has wrong values")]
    Invalid(Vec<Violation>),
    #[error("a group text of the same numbers is being made")]
    InTheMaking { group_text_id: Uuid },
    #[error("there is an open group of the same numbers")]
    Exists {
        conversation_sid: String,
        group_text_id: Option<Uuid>,
    },
    #[error("no such team")]
    TeamUnknown { team: Slug },
    #[error("no number of the team is free for this group")]
    NoFreeNumber {
        team: Option<Slug>,
        /// How many numbers were not taken for each reason.
        numbers: BTreeMap<&'static str, usize>,
        /// The open groups of the same people with numbers that would do.
        conversation_sids: Vec<String>,
    },
    #[error("cannot record the group text")]
    Database(#[from] sqlx::Error),
}

/// Twilio takes at most 256 characters of a name, and 16 KB of attributes.
const NAME_MAX: usize = 256;
const ATTRIBUTES_MAX: usize = 16 * 1024;

impl GroupTexts {
    /// Validates the request whole, and queues the call to Twilio.
    pub async fn start(&self, new: NewGroupText) -> Result<GroupText, StartGroupTextError> {
        let mut transaction = self.pool.begin().await?;
        let started = self.start_in(&mut transaction, new).await?;
        transaction.commit().await?;
        Ok(started.group)
    }

    /// As [`GroupTexts::start`], within the caller's transaction. One that is there already may be answered with instead, where
    /// that is asked for.
    pub async fn start_in(
        &self,
        conn: &mut PgConnection,
        new: NewGroupText,
    ) -> Result<Started, StartGroupTextError> {
        match (&new.choice.of_team, new.choice.if_exists) {
            (Some((place, team)), if_exists) => {
                let (place, team) = (*place, team.clone());
                self.check_others(&new, place)?;
                let if_exists = if_exists.unwrap_or(IfExists::OtherNumber);
                self.start_with_number_of(conn, new, place, Some(team), if_exists, BTreeSet::new())
                    .await
            }
            (None, None) => self.start_as_is(conn, new, None).await,
            (None, Some(if_exists)) => self.start_unless_there(conn, new, if_exists).await,
        }
    }

    /// What is to happen where there is one of the same numbers is said, and our number is named.
    async fn start_unless_there(
        &self,
        conn: &mut PgConnection,
        new: NewGroupText,
        if_exists: IfExists,
    ) -> Result<Started, StartGroupTextError> {
        let valid = self.validate(&new).map_err(StartGroupTextError::Invalid)?;
        let handset = new.members.iter().find_map(|member| member.address.as_deref());
        let rosters = [valid.roster];
        let existing = choice::open_groups_of(conn, &rosters, handset).await?;
        let existing = existing.into_values().next();
        let mut kept = Kept {
            if_exists: Some(if_exists),
            ..Kept::default()
        };
        match (if_exists, existing) {
            (IfExists::Adopt, Some(sid)) => {
                if let Some(group) = store::find_by_conversation(conn, &sid).await? {
                    return Ok(Started { group, is_new: false });
                }
                self.start_as_is(conn, new, Some(kept)).await
            }
            (IfExists::Refuse, Some(sid)) => {
                let group = store::find_by_conversation(conn, &sid).await?;
                Err(StartGroupTextError::Exists {
                    conversation_sid: sid,
                    group_text_id: group.map(|group| group.group_text_id),
                })
            }
            (IfExists::OtherNumber, existing) => {
                let lines = new.members.iter().enumerate();
                let ours = lines.filter_map(|(place, member)| Some((place, member.line.clone()?)));
                let Some((place, line)) = ours.clone().next() else {
                    return self.start_as_is(conn, new, Some(kept)).await;
                };
                let pooled = numbers::find(conn, &line).await?;
                let team = pooled.and_then(|number| number.plan.team);
                if existing.is_none() {
                    kept.team.clone_from(&team);
                    kept.number = Some(line.clone());
                    match self.start_as_is(conn, new.clone(), Some(kept)).await {
                        Err(StartGroupTextError::InTheMaking { .. }) => {}
                        other => return other,
                    }
                }
                let tried = BTreeSet::from([line]);
                self.start_with_number_of(conn, new, place, team, if_exists, tried)
                    .await
            }
            (IfExists::Adopt | IfExists::Refuse, None) => self.start_as_is(conn, new, Some(kept)).await,
        }
    }

    /// Everything but the line that is still to be chosen.
    fn check_others(&self, new: &NewGroupText, place: usize) -> Result<(), StartGroupTextError> {
        let own_numbers = self.own_numbers();
        let others = Others::of_new(&new.members, place, &own_numbers);
        let stand_in = own_numbers.iter().find(|(number, account_sid)| {
            !others.numbers.contains(number.as_str())
                && others.account_sid.as_ref().is_none_or(|sid| sid == *account_sid)
        });
        let Some((number, _)) = stand_in else {
            return Ok(());
        };
        let mut stood_in = new.clone();
        if let Some(member) = stood_in.members.get_mut(place) {
            member.line = Some(number.clone());
        }
        self.validate(&stood_in).map_err(StartGroupTextError::Invalid)?;
        Ok(())
    }

    /// A number of the team is chosen within this transaction. Where one was taken from under us, another is.
    async fn start_with_number_of(
        &self,
        conn: &mut PgConnection,
        mut new: NewGroupText,
        place: usize,
        team: Option<Slug>,
        if_exists: IfExists,
        mut tried: BTreeSet<String>,
    ) -> Result<Started, StartGroupTextError> {
        let Some(team) = team else {
            return Err(StartGroupTextError::NoFreeNumber {
                team: None,
                numbers: BTreeMap::new(),
                conversation_sids: Vec::new(),
            });
        };
        loop {
            let own_numbers = self.own_numbers();
            let others = Others::of_new(&new.members, place, &own_numbers);
            let mut picked = choice::pick(conn, &self.accounts, &team, &others, &tried).await?;
            if picked.number.is_none() && if_exists == IfExists::Adopt {
                for (number, sid) in &picked.taken {
                    if let Some(group) = store::find_by_conversation(conn, sid).await? {
                        return Ok(Started { group, is_new: false });
                    }
                    // Somebody else made it at Twilio, which says so when it is asked for the same.
                    picked.number.get_or_insert_with(|| number.clone());
                }
            }
            let Some(number) = picked.number else {
                if people::find_team(conn, team.as_str()).await?.is_none() {
                    return Err(StartGroupTextError::TeamUnknown { team });
                }
                return Err(StartGroupTextError::NoFreeNumber {
                    team: Some(team),
                    numbers: tally(&picked.unfit),
                    conversation_sids: picked.taken.into_iter().map(|(_, sid)| sid).collect(),
                });
            };
            if let Some(member) = new.members.get_mut(place) {
                member.line = Some(number.as_str().to_owned());
            }
            let kept = Kept {
                if_exists: Some(if_exists),
                team: Some(team.clone()),
                number: Some(number.as_str().to_owned()),
                tried: tried.iter().cloned().collect(),
                existing_conversation_sid: None,
            };
            match self.start_as_is(conn, new.clone(), Some(kept)).await {
                Err(StartGroupTextError::InTheMaking { .. }) => {
                    tried.insert(number.into_string());
                }
                Ok(started) => {
                    let via = Via::Api;
                    let now = self.clock.now();
                    tell_chosen(conn, &started.group, &team, &number, picked.open_groups, via, now).await?;
                    return Ok(started);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// With the numbers that it names.
    async fn start_as_is(
        &self,
        conn: &mut PgConnection,
        new: NewGroupText,
        kept: Option<Kept>,
    ) -> Result<Started, StartGroupTextError> {
        let now = self.clock.now();
        let valid = self.validate(&new).map_err(StartGroupTextError::Invalid)?;
        let group = GroupText {
            group_text_id: new_id(),
            account_sid: valid.account_sid.into_string(),
            origin: Origin::Requested,
            conversation_sid: None,
            adopted: false,
            state: State::Requested,
            failure_code: None,
            failure_detail: None,
            friendly_name: new.friendly_name,
            attributes: new.attributes.map(|attributes| attributes.to_string()),
            roster: Some(valid.roster),
            members: valid.members,
            create_attempt: 1,
            requested_by: Some(new.requested_by.clone()),
            created_at: now,
            updated_at: now,
        };
        insert_unless_in_the_making(conn, &group).await?;
        if let Some(kept) = &kept {
            choice::keep(conn, group.group_text_id, kept).await?;
        }
        put_create(conn, &group, now).await?;
        tell(
            conn,
            &group,
            Kind::GroupTextRequested,
            Some(&new.requested_by),
            Via::Api,
            now,
        )
        .await?;
        Ok(Started { group, is_new: true })
    }

    fn validate(&self, new: &NewGroupText) -> Result<validate::Valid, Vec<Violation>> {
        let mut violations = describe(new);
        match validate::members(&new.members, &self.own_numbers()) {
            Ok(valid) if violations.is_empty() => Ok(valid),
            Ok(_) => Err(violations),
            Err(more) => {
                violations.extend(more);
                Err(violations)
            }
        }
    }

    fn own_numbers(&self) -> BTreeMap<String, AccountSid> {
        self.accounts
            .iter()
            .flat_map(|account| {
                account
                    .numbers
                    .iter()
                    .map(|number| (number.as_str().to_owned(), account.account_sid.clone()))
            })
            .collect()
    }
}

/// Of two requests for the same roster the database lets one in; the other is told which. One that was in the making
/// and no longer is, is no obstacle: then it is tried again.
async fn insert_unless_in_the_making(
    conn: &mut PgConnection,
    group: &GroupText,
) -> Result<(), StartGroupTextError> {
    let roster = group.roster.as_deref().unwrap_or_default();
    loop {
        if store::insert(conn, group).await? {
            return Ok(());
        }
        if let Some(group_text_id) = store::in_the_making(conn, &group.account_sid, roster).await? {
            return Err(StartGroupTextError::InTheMaking { group_text_id });
        }
    }
}

/// What is wrong with a group text besides its members.
fn describe(new: &NewGroupText) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut wrong = |field: &str, code, message: String| {
        violations.push(Violation {
            field: field.to_owned(),
            code,
            message,
        });
    };
    if new
        .friendly_name
        .as_ref()
        .is_some_and(|name| name.chars().count() > NAME_MAX)
    {
        wrong(
            "/friendly_name",
            "too_long",
            format!("expected at most {NAME_MAX} characters"),
        );
    }
    if new
        .friendly_name
        .as_ref()
        .is_some_and(|name| name.chars().any(char::is_control))
    {
        wrong(
            "/friendly_name",
            "control",
            "expected no control characters".to_owned(),
        );
    }
    if let Some(attributes) = &new.attributes {
        if !attributes.is_object() {
            wrong("/attributes", "object", "expected a JSON object".to_owned());
        }
        if attributes.to_string().len() > ATTRIBUTES_MAX {
            wrong(
                "/attributes",
                "too_long",
                format!("expected at most {ATTRIBUTES_MAX} bytes of JSON"),
            );
        }
        if attributes.to_string().contains("\\u0000") {
            wrong("/attributes", "nul", "expected no NUL characters".to_owned());
        }
    }
    violations
}

pub(super) async fn put_create(
    conn: &mut PgConnection,
    group: &GroupText,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let task = NewTask {
        kind: CREATE_TASK,
        order_key: format!("group_text:{}", group.group_text_id),
        unique_key: Some(group.group_text_id.to_string()),
        payload: json!({ "group_text_id": group.group_text_id }),
        run_at: now,
        // Twilio may be down for an hour and more.
        attempts_max: 30,
    };
    queue::put(conn, &task, now).await
}

/// Writes down which number of a team a group text got.
pub(super) async fn tell_chosen(
    conn: &mut PgConnection,
    group: &GroupText,
    team: &Slug,
    number: &PhoneNumber,
    open_groups: u32,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let event = NewEvent {
        kind: Kind::GroupTextNumberChosen,
        account_sid: AccountSid::try_from(group.account_sid.as_str()).ok(),
        conversation_sid: None,
        subject: group.group_text_id.to_string(),
        actor: Some("hookswitch".to_owned()),
        via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({
            "group_text_id": group.group_text_id,
            "team": team,
            "line": number,
            "open_groups": open_groups,
        }),
    };
    events::append(conn, &[event]).await
}

/// Writes the log entry of a group text's change.
pub(super) async fn tell(
    conn: &mut PgConnection,
    group: &GroupText,
    kind: Kind,
    actor: Option<&str>,
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let event = NewEvent {
        kind,
        account_sid: AccountSid::try_from(group.account_sid.as_str()).ok(),
        conversation_sid: group
            .conversation_sid
            .as_deref()
            .and_then(|sid| ConversationSid::try_from(sid).ok()),
        subject: group.group_text_id.to_string(),
        actor: actor.map(str::to_owned),
        via,
        cause: None,
        occurred_at: now,
        recorded_at: now,
        data: json!({
            "group_text_id": group.group_text_id,
            "origin": group.origin,
            "state": group.state,
            "friendly_name": group.friendly_name,
            "adopted": group.adopted,
            "failure_code": group.failure_code,
        }),
    };
    events::append(conn, &[event]).await
}
