//! What a policy makes of a line: what begins when and why, which steps are due, and what ends it. Pure, and the only
//! place that decides it: the live work, the dry run and the back-test all ask here.
//!
//! Everything is derived from facts in the order of their time. What was really done is among them ([`Run`]s that are
//! known); what is due by `now` is done at `now`, if nothing that happened meanwhile stands against it; what comes after
//! that, up to `horizon`, is what would happen if nothing else did.

mod recorded;
mod run;

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};

use crate::escalation::policy::{How, Policy, REPEATS_MAX, Rule, Then, When};
use crate::escalation::words;
use crate::escalation::world::World;
use crate::ids::Identity;

use recorded::{is_same, next_at, waiting_key, why_gone};
pub use run::{Cause, Counts, End, Fact, Run, Standing, Taken, What, Why};

/// What is to be evaluated.
pub struct Inputs<'a> {
    pub policy: &'a Policy,
    pub version: i64,
    /// In the order of their time.
    pub facts: &'a [Fact],
    pub world: &'a World,
    /// Whether the policy is the one that counts for the line, as long as this one holds it, and since when.
    pub in_force: &'a dyn Fn(Option<&Identity>) -> Option<Counts>,
    /// What was recorded of this policy and line, in any version.
    pub known: &'a [Run],
    /// What was recorded of the line under other policies: it was theirs.
    pub others: &'a [Run],
    /// What was amiss before is none of the policy's business.
    pub since: Timestamp,
    /// Nor, before these times, that of rules which came to it later.
    pub since_of_rules: &'a BTreeMap<String, Timestamp>,
    /// From then on the facts are complete: what was recorded of before stands as it is.
    pub complete_since: Timestamp,
    /// What is due by then is done then.
    pub now: Timestamp,
    /// What would be done up to then, each at its time.
    pub horizon: Timestamp,
}

/// What came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// Those that are known, as they are now, and new ones; in the order of their beginning.
    pub runs: Vec<Run>,
    /// When there is something to look at again.
    pub look_at: Option<Timestamp>,
}

/// Evaluates all rules of a policy.
pub fn evaluate(inputs: &Inputs<'_>) -> Outlook {
    let mut outlook = Outlook::default();
    for rule in &inputs.policy.rules {
        let mut line = Line::new(inputs, rule);
        line.run();
        outlook.look_at = earlier(outlook.look_at, line.timer());
        outlook.runs.extend(line.finish());
    }
    // What is known to come: people, where that matters; all else by a clock that is ahead of ours.
    let about_people = inputs.policy.has(|when| matches!(when, When::Unavailable(_)));
    let ahead = inputs.facts.iter().filter(|fact| match fact.what {
        What::Absent(_) | What::Back(_) => about_people,
        _ => true,
    });
    let ahead = ahead.map(|fact| fact.at).filter(|at| *at > inputs.horizon);
    outlook.look_at = earlier(outlook.look_at, ahead.min());
    outlook
        .runs
        .sort_by(|one, other| (one.started_at, &one.rule).cmp(&(other.started_at, &other.rule)));
    outlook
}

fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// What is to begin, unless something comes before it.
struct Pending {
    cause: Cause,
    /// None: never, by the hours.
    due: Option<Timestamp>,
}

/// A line under one rule, at a time.
struct Line<'a> {
    inputs: &'a Inputs<'a>,
    rule: &'a Rule,
    known: BTreeMap<&'a str, &'a Run>,
    /// What was amiss before is none of its business.
    since: Timestamp,
    /// Whether it is one, already and still.
    is_line: bool,
    holder: Option<Identity>,
    /// Since when the policy counts, as long as they hold it.
    counts: Option<Counts>,
    absent: Vec<Identity>,
    /// The first message that nobody has answered.
    waiting: Option<String>,
    pending: Option<Pending>,
    open: Option<Run>,
    done: Vec<Run>,
    is_over: bool,
}

impl<'a> Line<'a> {
    fn new(inputs: &'a Inputs<'a>, rule: &'a Rule) -> Self {
        let known = inputs.known.iter().filter(|run| run.rule == rule.name.as_str());
        let came = inputs.since_of_rules.get(rule.name.as_str()).copied();
        Self {
            inputs,
            rule,
            since: came.map_or(inputs.since, |came| came.max(inputs.since)),
            known: known.map(|run| (run.cause.key.as_str(), run)).collect(),
            is_line: false,
            holder: None,
            counts: None,
            absent: Vec::new(),
            waiting: None,
            pending: None,
            open: None,
            done: Vec::new(),
            is_over: false,
        }
    }

    fn run(&mut self) {
        let (now, horizon) = (self.inputs.now, self.inputs.horizon);
        self.adopt_what_is_older();
        let mut is_due_done = false;
        for fact in self.inputs.facts.iter().filter(|fact| fact.at <= horizon) {
            if fact.at > now {
                if !is_due_done {
                    self.do_due_by(now);
                    is_due_done = true;
                }
                // What falls on the very instant of a fact comes after it.
                self.go_on_before(fact.at);
            }
            self.catch_up(fact.at);
            self.learn(fact);
        }
        if !is_due_done {
            self.do_due_by(now);
        }
        self.go_on_before(horizon + SignedDuration::from_micros(1));
    }

    /// What began before the facts do.
    fn adopt_what_is_older(&mut self) {
        let older = self.known.values().copied();
        let older: Vec<&Run> = older
            .filter(|run| run.end.is_none() && run.cause.at < self.inputs.complete_since)
            .collect();
        for run in older {
            self.known.remove(run.cause.key.as_str());
            if let (When::NoAnswer(_), Some((_, message))) = (&self.rule.when, run.cause.key.split_once(':'))
            {
                self.waiting = Some(message.to_owned());
            }
            self.adopt(run.clone());
        }
    }

    /// What is recorded is brought up to just before a fact: what began by then is open, what ended is over.
    fn catch_up(&mut self, limit: Timestamp) {
        let has_begun = self.pending.as_ref().is_some_and(|pending| {
            let known = self.known.get(pending.cause.key.as_str());
            known.is_some_and(|run| run.started_at < limit)
        });
        if has_begun {
            self.open_pending(limit);
        }
        let is_over = |run: &mut Run| run.end.is_some_and(|end| end.at < limit);
        self.done.extend(self.open.take_if(is_over));
    }

    /// The next thing that is due.
    fn timer(&self) -> Option<Timestamp> {
        let begins = self.pending.as_ref().and_then(|pending| pending.due);
        let goes_on = self.open.as_ref().and_then(|run| run.next_at);
        earlier(begins, goes_on)
    }

    /// Live: however late it is, it is done now, and its time runs from now.
    fn do_due_by(&mut self, now: Timestamp) {
        while self.timer().is_some_and(|due| due <= now) {
            self.act(now);
        }
    }

    /// What would be: each at its time.
    fn go_on_before(&mut self, limit: Timestamp) {
        while let Some(due) = self.timer().filter(|due| *due < limit) {
            self.act(due);
        }
    }

    fn act(&mut self, at: Timestamp) {
        if self
            .pending
            .as_ref()
            .is_some_and(|pending| pending.due.is_some_and(|due| due <= at))
        {
            self.open_pending(at);
        }
        if self
            .open
            .as_ref()
            .is_some_and(|run| run.next_at.is_some_and(|due| due <= at))
        {
            self.step(at);
        }
    }

    /// What was to begin begins at a time, or did as it was recorded.
    fn open_pending(&mut self, at: Timestamp) {
        let Some(pending) = self.pending.take() else {
            return;
        };
        // What is recorded as over keeps its place up to here.
        self.done.extend(self.open.take());
        if let Some(known) = self.known.remove(pending.cause.key.as_str()) {
            self.adopt(known.clone());
            return;
        }
        self.open = Some(Run {
            id: None,
            version: self.inputs.version,
            rule: self.rule.name.to_string(),
            cause: pending.cause,
            holder: self.holder.clone(),
            started_at: at,
            steps: Vec::new(),
            next_at: Some(at),
            end: None,
        });
    }

    /// Takes the next step, or comes to the end.
    fn step(&mut self, at: Timestamp) {
        let Some(run) = &mut self.open else { return };
        let last = self.rule.steps.len() - 1;
        let next = match run.steps.last() {
            None => 0,
            Some(taken) if taken.step < last => taken.step + 1,
            Some(_) => {
                let repeated = run.steps.iter().filter(|taken| taken.step == last).count();
                let why = match self.rule.then {
                    Then::RepeatLast if repeated <= REPEATS_MAX => None,
                    Then::Stop => Some(Why::StepsTaken),
                    Then::RepeatLast | Then::NeedsPerson => Some(Why::NeedsPerson),
                };
                match why {
                    Some(why) => return self.end(at, why),
                    None => last,
                }
            }
        };
        let step = &self.rule.steps[next];
        let holder = run.holder.as_ref();
        let mut to = self.inputs.world.find(&step.to, holder, at);
        if step.how != How::Nudge && holder.is_some() && to.as_ref().ok() == holder {
            to = Err("holds_it_already");
        }
        if step.how == How::Offer && holder.is_none() {
            to = Err("unstaffed");
        }
        let state = match to {
            Ok(_) => Standing::Runs,
            Err(_) => Standing::Over(at),
        };
        run.steps.push(Taken {
            step: next,
            how: step.how,
            whom: step.to.label(),
            at,
            to,
            state,
        });
        run.next_at = next_at(self.rule, run, self.inputs.world);
        let is_theirs = step.how == How::Force && run.steps.last().is_some_and(|taken| taken.to.is_ok());
        if is_theirs && at > self.inputs.now {
            // It would be theirs, and theirs to answer.
            self.waiting = None;
            self.end(at, Why::HandedOver);
        }
    }

    /// Nothing of before it began with something ends it.
    fn end(&mut self, at: Timestamp, why: Why) {
        if let Some(mut run) = self.open.take_if(|run| run.cause.at <= at) {
            run.next_at = None;
            // What was recorded stands.
            run.end.get_or_insert(End {
                at: at.max(run.started_at),
                why,
            });
            self.done.push(run);
        }
    }

    /// Whether something that is amiss then would begin anything. What comes while something is being done is left to that.
    fn counts_at(&self, at: Timestamp) -> Option<Counts> {
        let is_busy = self.pending.is_some() || self.open.is_some();
        let is_its_own = at >= self.since && self.is_line && !is_busy;
        self.counts.filter(|counts| is_its_own && counts.since <= at)
    }

    fn recorded(&self, key: &str) -> Option<&'a Run> {
        let exactly = self.known.get(key).copied();
        exactly.or_else(|| {
            self.known
                .values()
                .copied()
                .find(|run| is_same(&run.cause.key, key))
        })
    }

    /// Something is amiss since `at`.
    fn begin(&mut self, key: String, at: Timestamp) {
        let kind = self.rule.when.as_str();
        let cause = Cause { kind, key, at };
        if let Some(known) = self.recorded(&cause.key) {
            self.pending = Some(Pending {
                cause: known.cause.clone(),
                due: Some(known.started_at),
            });
            return;
        }
        let Some(counts) = self.counts_at(at) else { return };
        // Nor what came while another policy was doing something of the kind, or what it was about.
        let mut others = self.inputs.others.iter().filter(|run| run.cause.kind == kind);
        let is_theirs = |run: &Run| {
            let went_on = run.started_at <= at && run.end.is_none_or(|end| end.at >= at);
            went_on || is_same(&run.cause.key, &cause.key)
        };
        if others.any(is_theirs) {
            return;
        }
        let (holder, time) = (self.holder.as_ref(), self.rule.when.after());
        let due = self.inputs.world.after(&self.rule.hours, holder, at, time);
        if due.is_none_or(|due| counts.due_since <= due) {
            self.pending = Some(Pending { cause, due });
        }
    }

    /// One that was recorded is open from now on, as it is known. What began under another version goes on under that one, and
    /// what is over keeps its place until the time of its end.
    fn adopt(&mut self, mut known: Run) {
        let goes_on = known.end.is_none() && known.version == self.inputs.version;
        known.next_at = if goes_on {
            next_at(self.rule, &known, self.inputs.world)
        } else {
            None
        };
        self.open = Some(known);
    }

    fn learn(&mut self, fact: &Fact) {
        if self.is_over {
            return;
        }
        let at = fact.at;
        match &fact.what {
            What::Held(holder) => self.held(holder.clone(), at),
            What::Gone => {
                self.end(at, Why::LineGone);
                self.is_line = false;
                (self.holder, self.waiting, self.pending) = (None, None, None);
            }
            What::Closed => {
                self.end(at, Why::Closed);
                (self.waiting, self.pending, self.is_over) = (None, None, true);
            }
            What::Inbound {
                message,
                text,
                opts_out,
            } => self.wrote(message, text.as_deref(), *opts_out, at),
            What::Answer => self.answered(at),
            What::Failed { message } => {
                if self.rule.when == When::DeliveryFailure {
                    self.begin(message.clone(), at);
                }
            }
            What::Absent(who) => {
                if !self.absent.contains(who) {
                    self.absent.push(who.clone());
                }
                self.consider_absence(at);
            }
            What::Back(who) => {
                self.absent.retain(|one| one != who);
                if self.is_about_absence() && self.holder.as_ref() == Some(who) {
                    self.pending = None;
                    self.end(at, Why::Back);
                }
            }
            What::Asked(id) => {
                // Only the rule that they asked for: it was recorded as they did.
                let id = id.to_string();
                if self.known.contains_key(id.as_str()) {
                    self.begin(id, at);
                }
            }
        }
    }

    fn is_about_absence(&self) -> bool {
        matches!(self.rule.when, When::Unavailable(_))
    }

    fn held(&mut self, holder: Option<Identity>, at: Timestamp) {
        if self.is_line && self.holder == holder {
            return;
        }
        // One that began before the facts do was of this holder already.
        if self.open.as_ref().is_some_and(|run| run.holder != holder) {
            let why = if holder.is_some() {
                Why::HandedOver
            } else {
                Why::Unstaffed
            };
            self.end(at, why);
        }
        self.pending = None;
        self.counts = (self.inputs.in_force)(holder.as_ref());
        (self.is_line, self.holder) = (true, holder);
        // Whoever has the line now has as much time as the one before.
        if let (When::NoAnswer(_), Some(message)) = (&self.rule.when, &self.waiting) {
            self.begin(waiting_key(message, at), at);
        }
        self.consider_absence(at);
    }

    fn consider_absence(&mut self, at: Timestamp) {
        let Some(holder) = &self.holder else { return };
        if self.is_about_absence() && self.absent.contains(holder) {
            // It lasts: whoever is away still, when it becomes the rule's business, is away from then on.
            let counts = self
                .counts
                .map_or(at, |counts| counts.since.max(counts.due_since));
            let key = |since: Timestamp| format!("{}:{holder}", since.as_microsecond());
            let mut since = at.max(self.since);
            if self.recorded(&key(since)).is_none() {
                since = since.max(counts);
            }
            let key = key(since);
            if self.pending.is_none() && self.open.is_none() {
                self.begin(key, since);
            }
        }
    }

    fn wrote(&mut self, message: &str, text: Option<&str>, opts_out: bool, at: Timestamp) {
        match &self.rule.when {
            // What comes when all has been done about what nobody answered is a new matter.
            When::NoAnswer(_)
                if at >= self.since
                    && !opts_out
                    && (self.waiting.is_none() || (self.pending.is_none() && self.open.is_none())) =>
            {
                self.waiting = Some(message.to_owned());
                self.begin(waiting_key(message, at), at);
            }
            When::Words(phrases) => {
                // Looking for words is dear: only where something can come of it. Words that were erased since were found.
                let is_known = self.known.contains_key(message);
                let is_looked_for = is_known || self.counts_at(at).is_some();
                if is_looked_for && text.map_or(is_known, |text| words::find(text, phrases).is_some()) {
                    self.begin(message.to_owned(), at);
                }
            }
            When::NoAnswer(_) | When::Unavailable(_) | When::DeliveryFailure | When::Asked => {}
        }
    }

    fn answered(&mut self, at: Timestamp) {
        self.waiting = None;
        if matches!(self.rule.when, When::NoAnswer(_)) {
            self.pending = None;
        }
        if self.rule.answer_stops {
            if !self.is_about_absence() {
                self.pending = None;
            }
            self.end(at, Why::Answered);
        }
    }

    /// All that came of it. What is known, and was not met on the way, is no longer so.
    fn finish(mut self) -> Vec<Run> {
        let now = self.inputs.now;
        let unmet: Vec<&Run> = self.known.values().copied().collect();
        for known in unmet {
            let is_ours = known.version == self.inputs.version && known.end.is_none();
            if is_ours {
                let mut run = known.clone();
                let (at, why) = why_gone(self.inputs.facts, &run, now);
                run.next_at = None;
                run.end = Some(End {
                    at: at.max(run.started_at),
                    why,
                });
                self.done.push(run);
            }
        }
        self.done.extend(self.open);
        let version = self.inputs.version;
        self.done.retain(|run| run.version == version);
        self.done
    }
}

#[cfg(test)]
mod tests;
