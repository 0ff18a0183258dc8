//! Which of a team's numbers a group text gets, and what happens where there is an open group of the same numbers. Owns
//! `group_text_choice`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::group_text::{Member, NewMember};
use crate::ids::{AccountSid, PhoneNumber};
use crate::numbers;
use crate::numbers::choose::{Needs, Unfit, choose, unfit};
use crate::people::Slug;

/// What happens where there is an open group of the same numbers: Twilio allows one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum IfExists {
    /// It is taken as it is, and said to be so.
    Adopt,
    /// Nothing is started.
    Refuse,
    /// Another number of the same team is taken in place of ours.
    OtherNumber,
}

impl IfExists {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Adopt => "adopt",
            Self::Refuse => "refuse",
            Self::OtherNumber => "other_number",
        }
    }

    fn from_column(text: &str) -> Option<Self> {
        [Self::Adopt, Self::Refuse, Self::OtherNumber]
            .into_iter()
            .find(|one| one.as_str() == text)
    }
}

/// What somebody who asks for a group text leaves to us.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Choice {
    /// The place of the member whose line is to be a number of this team.
    pub of_team: Option<(usize, Slug)>,
    /// None: what Twilio says counts. It names the group that is there, and that is taken.
    pub if_exists: Option<IfExists>,
}

/// What is kept of a choice.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kept {
    pub if_exists: Option<IfExists>,
    pub team: Option<Slug>,
    pub number: Option<String>,
    pub tried: Vec<String>,
    pub existing_conversation_sid: Option<String>,
}

/// What was found among a team's numbers.
#[derive(Debug, Default)]
pub(super) struct Picked {
    pub(super) number: Option<PhoneNumber>,
    /// How many groups it has.
    pub(super) open_groups: u32,
    /// Why the others were not taken.
    pub(super) unfit: Vec<Unfit>,
    /// Those that would do, were there no open group of the same numbers; with that.
    pub(super) taken: Vec<(PhoneNumber, String)>,
}

/// Who else is in a group that is to get a number.
pub(super) struct Others<'a> {
    /// The numbers of the other members.
    pub(super) numbers: BTreeSet<&'a str>,
    /// One of the handsets.
    pub(super) handset: Option<&'a str>,
    /// The account of the other lines.
    pub(super) account_sid: Option<AccountSid>,
}

impl<'a> Others<'a> {
    /// Everybody but the one at a place.
    pub(super) fn of_new(
        members: &'a [NewMember],
        place: usize,
        own_numbers: &BTreeMap<String, AccountSid>,
    ) -> Self {
        let others = || {
            let all = members.iter().enumerate();
            all.filter(move |(other, _)| *other != place)
                .map(|(_, member)| member)
        };
        Self {
            numbers: others()
                .filter_map(|member| member.address.as_deref().or(member.line.as_deref()))
                .collect(),
            handset: others().find_map(|member| member.address.as_deref()),
            account_sid: others()
                .find_map(|member| own_numbers.get(member.line.as_deref()?))
                .cloned(),
        }
    }

    /// Everybody but a number.
    pub(super) fn of(members: &'a [Member], but: &str, account_sid: AccountSid) -> Self {
        let numbers = members.iter().map(|member| match member {
            Member::Line { line, .. } => line.as_str(),
            Member::Outsider { address } => address.as_str(),
        });
        Self {
            numbers: numbers.filter(|number| *number != but).collect(),
            handset: members.iter().find_map(|member| match member {
                Member::Outsider { address } => Some(address.as_str()),
                Member::Line { .. } => None,
            }),
            account_sid: Some(account_sid),
        }
    }

    fn roster_with(&self, number: &str) -> String {
        let mut numbers = self.numbers.clone();
        numbers.insert(number);
        numbers.into_iter().collect::<Vec<_>>().join(",")
    }
}

/// Chooses a number of a team for a group of these others: of those that are fit and free, the one with fewest groups. Until
/// the transaction ends, nobody else chooses for the team.
pub(super) async fn pick(
    conn: &mut PgConnection,
    accounts: &Accounts,
    team: &Slug,
    others: &Others<'_>,
    tried: &BTreeSet<String>,
) -> Result<Picked, sqlx::Error> {
    numbers::lock_choice(conn, team).await?;
    let needs = Needs {
        account_sid: others.account_sid.as_ref(),
        members: others.numbers.clone(),
        tried: tried.iter().map(String::as_str).collect(),
    };
    let mut picked = Picked::default();
    let mut fit = Vec::new();
    for number in numbers::of_team(conn, team).await? {
        match unfit(&number, accounts, &needs) {
            Some(why) => picked.unfit.push(why),
            None => fit.push(number.number),
        }
    }
    if fit.is_empty() {
        return Ok(picked);
    }
    let rosters: Vec<String> = fit
        .iter()
        .map(|number| others.roster_with(number.as_str()))
        .collect();
    let open = open_groups_of(conn, &rosters, others.handset).await?;
    let in_the_making = rosters_in_the_making(conn, &rosters).await?;
    let mut taken = BTreeSet::new();
    for (number, roster) in fit.iter().zip(&rosters) {
        if let Some(sid) = open.get(roster) {
            picked.taken.push((number.clone(), sid.clone()));
        }
        if open.contains_key(roster) || in_the_making.contains(roster) {
            taken.insert(number.as_str().to_owned());
            picked.unfit.push(Unfit::Taken);
        }
    }
    let asked: Vec<&str> = fit.iter().map(PhoneNumber::as_str).collect();
    let mut groups: BTreeMap<String, u32> = numbers::open_groups(conn, &asked).await?.into_iter().collect();
    for (number, more) in being_made(conn, &asked).await? {
        *groups.entry(number).or_default() += more;
    }
    if let Some(chosen) = choose(&fit, &taken, &groups) {
        picked.open_groups = groups.get(chosen.as_str()).copied().unwrap_or(0);
        picked.number = Some(chosen.clone());
    }
    Ok(picked)
}

/// The open conversations that have just the numbers of these rosters, by roster.
pub(super) async fn open_groups_of(
    conn: &mut PgConnection,
    rosters: &[String],
    handset: Option<&str>,
) -> Result<BTreeMap<String, String>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- group_text.open_groups_of
        -- Once through the groups of the handset, however many rosters there are.
        select roster as "roster!", min(conversation_sid) as "sid!"
        from (
            select conversation.conversation_sid, array_to_string(array(
                select distinct coalesce(projected_address, address) collate "C"
                from participant as member
                where member.conversation_sid = conversation.conversation_sid and member.removed_at is null
                  and coalesce(projected_address, address) is not null
                order by 1), ',') as roster
            from participant
            join conversation on conversation.conversation_sid = participant.conversation_sid
            where participant.address = $2 and participant.removed_at is null
              and conversation.removed_at is null and conversation.state is distinct from 'closed') as open
        where roster = any($1)
        group by roster"#,
        rosters,
        handset,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().map(|row| (row.roster, row.sid)).collect())
}

/// Those of these rosters of which a group text is in the making.
async fn rosters_in_the_making(
    conn: &mut PgConnection,
    rosters: &[String],
) -> Result<BTreeSet<String>, sqlx::Error> {
    let rows = sqlx::query_scalar!(
        r#"-- group_text.rosters_in_the_making
        select roster as "roster!" from group_text
        where state in ('requested', 'initializing') and origin = 'requested' and roster = any($1)"#,
        rosters,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows.into_iter().collect())
}

/// How many group texts of each number are asked for, and not at Twilio yet as far as we know.
async fn being_made(conn: &mut PgConnection, numbers: &[&str]) -> Result<Vec<(String, u32)>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"-- group_text.being_made
        select member->>'line' as "line!", count(*) as "groups!"
        from group_text cross join jsonb_array_elements(members) as member
        where state in ('requested', 'initializing') and origin = 'requested' and member->>'line' = any($1)
          and not exists (select from tenure
              where tenure.conversation_sid = group_text.conversation_sid and tenure.line = member->>'line'
                and superseded_at is null and upper_inf(during) and cause <> 'removed')
        group by member->>'line'"#,
        numbers as _,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| (row.line, u32::try_from(row.groups).unwrap_or(u32::MAX)))
        .collect())
}

/// What is kept of the choices of these group texts.
pub async fn kept_of(conn: &mut PgConnection, ids: &[Uuid]) -> Result<BTreeMap<Uuid, Kept>, sqlx::Error> {
    let rows = sqlx::query!(
        "-- group_text.kept_of
        select group_text_id, if_exists, team_id, number, tried, existing_conversation_sid
        from group_text_choice where group_text_id = any($1)",
        ids,
    )
    .fetch_all(conn)
    .await?;
    Ok(rows
        .into_iter()
        .map(|row| {
            let kept = Kept {
                if_exists: row.if_exists.as_deref().and_then(IfExists::from_column),
                team: row.team_id.and_then(|team| team.parse().ok()),
                number: row.number,
                tried: row.tried,
                existing_conversation_sid: row.existing_conversation_sid,
            };
            (row.group_text_id, kept)
        })
        .collect())
}

pub(super) async fn find(conn: &mut PgConnection, id: Uuid) -> Result<Kept, sqlx::Error> {
    Ok(kept_of(conn, &[id]).await?.remove(&id).unwrap_or_default())
}

pub(super) async fn keep(conn: &mut PgConnection, id: Uuid, kept: &Kept) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- group_text.keep_choice
        insert into group_text_choice (group_text_id, if_exists, team_id, number, tried, existing_conversation_sid)
        values ($1, $2, $3, $4, $5, $6)
        on conflict (group_text_id) do update set number = excluded.number, tried = excluded.tried,
            existing_conversation_sid = excluded.existing_conversation_sid",
        id,
        kept.if_exists.map(IfExists::as_str),
        kept.team.as_ref().map(Slug::as_str),
        kept.number,
        &kept.tried,
        kept.existing_conversation_sid,
    )
    .execute(conn)
    .await?;
    Ok(())
}

/// Writes another number into a group text that the caller has locked.
pub(super) async fn replace_number(
    conn: &mut PgConnection,
    id: Uuid,
    members: &[Member],
    roster: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "-- group_text.replace_number
        update group_text set members = $2, roster = $3 where group_text_id = $1",
        id,
        serde_json::to_value(members).unwrap_or_default(),
        roster,
    )
    .execute(conn)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_roster_is_that_of_everybody_with_the_number() {
        let member = |address: &str, line: &str| NewMember {
            address: (!address.is_empty()).then(|| address.to_owned()),
            line: (!line.is_empty()).then(|| line.to_owned()),
            holder: None,
        };
        let members = [
            member("+15555550102", ""),
            member("", ""),
            member("+15555550101", ""),
            member("", "+15017122662"),
        ];
        let account: AccountSid = "AC00000000000000000000000000000001".parse().unwrap();
        let own = BTreeMap::from([("+15017122662".to_owned(), account.clone())]);
        let others = Others::of_new(&members, 1, &own);
        assert_eq!(
            others.roster_with("+15017122661"),
            "+15017122661,+15017122662,+15555550101,+15555550102"
        );
        assert_eq!(others.handset, Some("+15555550102"));
        assert_eq!(others.account_sid, Some(account));
    }
}
