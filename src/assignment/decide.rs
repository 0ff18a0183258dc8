//! Decides about lines within the caller's transaction, and writes what comes of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use jiff::Timestamp;
use sqlx::PgConnection;

use super::choose::{Asked, By, Decision, Why, choose};
use super::{Line, Passed, look, store, tell};
use crate::events::Via;
use crate::ids::{ConversationSid, Identity};
use crate::numbers::Rule;
use crate::people::judge::{Candidate, Needs};
use crate::people::{Slug, questions};
use crate::transfer::{self, Assigned};

/// Decides about lines whose conversations the caller has locked, and of which it has seen, since, that nobody holds them
/// and no transfer of them is open, or that they are not decided about yet. Answers of who was given one.
pub(super) async fn decide(
    conn: &mut PgConnection,
    lines: Vec<Line>,
    via: Via,
    now: Timestamp,
) -> Result<Vec<String>, sqlx::Error> {
    if lines.is_empty() {
        return Ok(Vec::new());
    }
    let decided = lines.iter().filter(|line| line.not_yet.is_none());
    let teams: BTreeSet<&str> = decided.filter_map(|line| line.team_id.as_deref()).collect();
    let mut turns = store::lock_turns(conn, &teams).await?;
    let mut people = People::load(conn, &lines, now).await?;
    // Of two lines of one group, nobody gets both.
    let mut in_group: BTreeMap<ConversationSid, Vec<String>> = BTreeMap::new();
    let mut given = Vec::new();
    for mut line in lines {
        let sid = line.conversation_sid.clone();
        line.elsewhere
            .extend(in_group.get(&sid).into_iter().flatten().cloned());
        match people.choose(&line, &turns) {
            Decision::Give { to, by, passed } => {
                // Whom Twilio would not take cannot have held a line, nor be an agent of ours.
                let Ok(identity) = Identity::try_from(to.as_str()) else {
                    continue;
                };
                people.took_one(&to);
                in_group.entry(sid).or_default().push(to.clone());
                if by == By::Rule(Rule::RoundRobin)
                    && let Some(team) = &line.team_id
                {
                    store::save_turn(conn, team, &to).await?;
                    turns.insert(team.clone(), Some(to.clone()));
                }
                give(conn, &line, identity, by, &passed, via, now).await?;
                given.push(to);
            }
            Decision::Wait { why, passed } => wait(conn, &line, why, &passed, via, now).await?,
        }
    }
    look::put(conn, now + look::LOOK_EVERY, now).await?;
    Ok(given)
}

async fn give(
    conn: &mut PgConnection,
    line: &Line,
    to: Identity,
    by: By,
    passed: &[Passed],
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    let new = Assigned {
        account_sid: line.account_sid.clone(),
        conversation_sid: line.conversation_sid.clone(),
        line: line.line.clone(),
        to: to.clone(),
        reason: by.as_str(),
    };
    let transfer_id = transfer::assign_in(conn, new, via, now).await?;
    store::given(conn, line, by.as_str(), passed, (transfer_id, &to), now).await?;
    tell::assigned(conn, line, by.as_str(), passed, (transfer_id, &to), via, now).await
}

async fn wait(
    conn: &mut PgConnection,
    line: &Line,
    why: Why,
    passed: &[Passed],
    via: Via,
    now: Timestamp,
) -> Result<(), sqlx::Error> {
    if is_stored_so(line, why, passed) {
        return Ok(());
    }
    let since = line.stored.as_ref().map_or(now, |stored| stored.since);
    store::waits(conn, line, why.as_str(), passed, since, now).await?;
    // That it waits is told once; why, and for whom, may change.
    if is_told(why.as_str()) && line.stored.as_ref().is_none_or(|stored| !is_told(&stored.reason)) {
        tell::queued(conn, line, why.as_str(), passed, via, now).await?;
    }
    Ok(())
}

fn is_told(reason: &str) -> bool {
    reason != Why::TransferOpen.as_str()
}

fn is_stored_so(line: &Line, why: Why, passed: &[Passed]) -> bool {
    line.stored.as_ref().is_some_and(|stored| {
        stored.reason == why.as_str() && stored.passed == passed && stored.team_id == line.team_id
    })
}

/// What becomes of a line that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    /// It waits, as is stored.
    AsItIs,
    /// It waits on, for another reason or passing over others.
    Otherwise,
    /// It is given, or told of.
    Decide,
}

/// Everybody who may be chosen, for some lines.
pub(super) struct People {
    of_rules: BTreeMap<(String, Rule), Vec<Candidate>>,
    named: HashMap<String, Candidate>,
    at: Timestamp,
}

impl People {
    /// Two statements for those named, and a few for each team.
    pub(super) async fn load(
        conn: &mut PgConnection,
        lines: &[Line],
        at: Timestamp,
    ) -> Result<Self, sqlx::Error> {
        let named: BTreeSet<&str> = lines
            .iter()
            .flat_map(|line| {
                let person = line.person.as_ref().map(Identity::as_str);
                [line.last_holder.as_deref(), person]
            })
            .flatten()
            .collect();
        let named: Vec<&str> = named.into_iter().collect();
        // Neither hours nor a full plate count for those: it is theirs, or they are named for it.
        let named = match named.as_slice() {
            [] => Vec::new(),
            some => questions::candidates(conn, some, at, &Needs::default()).await?,
        };
        let asked: BTreeSet<(&str, Rule)> = lines
            .iter()
            .filter_map(|line| Some((line.team_id.as_deref()?, line.rule)))
            .collect();
        let mut of_rules = BTreeMap::new();
        for (team, rule) in asked {
            let Ok(team_id) = team.parse::<Slug>() else {
                continue;
            };
            let candidates = match rule {
                Rule::RoundRobin | Rule::LeastLoaded => {
                    questions::candidates_of_team(conn, &team_id, at, &Needs::a_line()).await?
                }
                Rule::OnCall => {
                    let found = questions::on_call(conn, &team_id, at).await?;
                    found.map(|on_call| on_call.order).unwrap_or_default()
                }
                Rule::Person | Rule::Queue => continue,
            };
            of_rules.insert((team.to_owned(), rule), candidates);
        }
        let mut people = Self {
            of_rules,
            named: named
                .into_iter()
                .map(|candidate| (candidate.identity.clone(), candidate))
                .collect(),
            at,
        };
        people.add_what_is_coming(conn).await?;
        Ok(people)
    }

    /// Lines that are on their way to somebody count as theirs.
    async fn add_what_is_coming(&mut self, conn: &mut PgConnection) -> Result<(), sqlx::Error> {
        let identities: BTreeSet<String> = self
            .of_rules
            .iter()
            .filter(|((_, rule), _)| matches!(rule, Rule::RoundRobin | Rule::LeastLoaded))
            .flat_map(|(_, candidates)| candidates)
            .map(|candidate| candidate.identity.clone())
            .collect();
        let identities: Vec<&str> = identities.iter().map(String::as_str).collect();
        if identities.is_empty() {
            return Ok(());
        }
        for (identity, coming) in transfer::coming_to(conn, &identities).await? {
            self.add(&identity, coming);
        }
        Ok(())
    }

    pub(super) fn took_one(&mut self, identity: &str) {
        self.add(identity, 1);
    }

    fn add(&mut self, identity: &str, lines: u32) {
        let at = self.at;
        let loaded = self
            .of_rules
            .iter_mut()
            .filter(|((_, rule), _)| matches!(rule, Rule::RoundRobin | Rule::LeastLoaded))
            .flat_map(|(_, candidates)| candidates)
            .filter(|candidate| candidate.identity == identity);
        for candidate in loaded {
            if let Some(mut person) = candidate.person.take() {
                person.load = person.load.saturating_add(lines);
                *candidate = Candidate::new(identity, Some(person), at, &Needs::a_line());
            }
        }
    }

    /// What becomes of a line that waits. Whose turn it is does not matter to it.
    pub(super) fn again(&self, line: &Line) -> Again {
        match self.choose(line, &BTreeMap::new()) {
            Decision::Wait { why, passed } if is_stored_so(line, why, &passed) => Again::AsItIs,
            Decision::Wait { .. } if line.stored.as_ref().is_some_and(|stored| is_told(&stored.reason)) => {
                Again::Otherwise
            }
            Decision::Give { .. } | Decision::Wait { .. } => Again::Decide,
        }
    }

    fn choose(&self, line: &Line, turns: &BTreeMap<String, Option<String>>) -> Decision {
        let person;
        let candidates: &[Candidate] = match (line.rule, &line.person, &line.team_id) {
            (Rule::Person, Some(identity), _) => {
                person = self.named.get(identity.as_str()).cloned();
                person.as_slice()
            }
            (rule, _, Some(team)) => self
                .of_rules
                .get(&(team.clone(), rule))
                .map_or(&[], Vec::as_slice),
            _ => &[],
        };
        let last_turn = line.team_id.as_ref().and_then(|team| turns.get(team)?.as_deref());
        choose(&Asked {
            rule: line.rule,
            last_holder: line.last_holder.as_ref().and_then(|last| self.named.get(last)),
            candidates,
            last_turn,
            elsewhere: &line.elsewhere,
            not_yet: line.not_yet,
        })
    }
}
