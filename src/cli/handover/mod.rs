//! `hookswitch handover`: all lines of a person are given to others by a plan, and back.
//!
//! It works on the database, beside the service or without it: while it shows how far a plan has come, it does the work on it
//! too. Stopped, the service goes on with it, or the next `run`.

mod show;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use clap::{Subcommand, ValueEnum};
use jiff::Timestamp;
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::accounts::Accounts;
use crate::cli::database::Database;
use crate::cli::{output, signals};
use crate::clock::Clock;
use crate::config::Config;
use crate::events::Via;
use crate::handover::{
    self, Becomes, By, Counts, Handover, Handovers, NewHandover, Otherwise, Rule, Spread, State,
};
use crate::ids::Identity;
use crate::outbox::BODY_MAX;
use crate::people::Slug;
use crate::projection::read::Reader;
use crate::queue::{self, Handler, TaskKind, Wake, Worker};
use crate::transfer::{self, Transfers};
use crate::{db, mirror};

use self::show::{Progress, say};

/// A note may have so many bytes.
const NOTE_MAX: usize = 4096;

/// What to do about handovers.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Find the lines of a person, decide to whom each goes, and show it; nothing is handed over yet
    ///
    /// Of each line, the first of these that yields somebody who can take it decides: --last-holder, --to, --team, --supervisor.
    Plan(PlanArgs),
    /// List plans, newest first
    List,
    /// Show a plan
    Show {
        id: Uuid,
        /// Every line: to whom, why, and what came of it
        #[arg(long)]
        lines: bool,
    },
    /// Run a draft, with a bar that shows how far it has come; also joins one that runs
    Run(Verb),
    /// Let no further line begin
    Pause(Verb),
    /// Go on with a paused plan
    Resume(Verb),
    /// Give nothing more, and do not return on the day; what was handed over stays so
    Cancel(Verb),
    /// Give back what was handed over and is still with whom it was given to
    RollBack(Verb),
}

#[expect(clippy::struct_excessive_bools, reason = "they are the flags of a command")]
#[derive(Debug, clap::Args)]
struct PlanArgs {
    /// Whose lines
    identity: Identity,
    /// To the first of these who can take it
    #[arg(long, value_name = "IDENTITY", value_delimiter = ',', num_args = 1..)]
    to: Vec<Identity>,
    /// Spread over the members of this team, by what they hold
    #[arg(long)]
    team: Option<Slug>,
    /// One after the other, instead of by what they hold
    #[arg(long, requires = "team")]
    round_robin: bool,
    /// To whoever held the line last, besides this person
    #[arg(long)]
    last_holder: bool,
    /// To their supervisor, or the next one up who can take it
    #[arg(long)]
    supervisor: bool,
    /// Release lines that nobody can take; without it they stay
    #[arg(long)]
    else_release: bool,
    /// How many lines begin in a minute at most; as the settings say, where it is not given
    #[arg(long, value_name = "LINES", value_parser = clap::value_parser!(u32).range(1..=60_000))]
    per_minute: Option<u32>,
    /// What was handed over goes back then
    #[arg(long, value_name = "TIME")]
    return_at: Option<Timestamp>,
    /// What they are from the beginning of the run on, so that nothing new comes to them
    #[arg(long, value_enum)]
    becomes: Option<Fate>,
    /// In a few words; every transfer carries it
    #[arg(long, value_parser = reason)]
    reason: Option<String>,
    /// What the next holders should know; every transfer carries it, and customers never see it
    #[arg(long, value_name = "TEXT", value_parser = note)]
    note: Option<String>,
    /// What each new holder says to the group once the line is theirs
    #[arg(long, value_name = "TEXT", value_parser = introduction)]
    introduction: Option<String>,
    /// Who plans it
    #[arg(long, default_value = "cli")]
    by: Identity,
    /// Only show it: the plan is cancelled again
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Fate {
    Left,
    Away,
}

#[derive(Debug, clap::Args)]
struct Verb {
    id: Uuid,
    /// Who does it
    #[arg(long, default_value = "cli")]
    by: Identity,
    /// Leave the work to the service, and do not wait for it
    #[arg(long)]
    detach: bool,
}

pub async fn run(config: Config, args: &Args) -> anyhow::Result<()> {
    let accounts = Accounts::new(&config.twilio)?;
    let shutdown = signals::shutdown()?;
    let database = Database::join(&config.database).await?;
    db::migrate(&database.options).await?;
    let pool = db::pool_with(database.options.clone(), 8);
    let clock = Clock::system();
    let transfers = Transfers {
        pool: pool.clone(),
        clock: clock.clone(),
        settings: config.transfer.clone(),
    };
    let desk = Desk {
        handovers: Handovers {
            pool: pool.clone(),
            clock: clock.clone(),
            accounts,
            transfers,
            settings: config.handover,
        },
        shutdown,
    };
    let done = Box::pin(desk.run(&args.action)).await;
    pool.close().await;
    database.close().await?;
    done
}

struct Desk {
    handovers: Handovers,
    shutdown: CancellationToken,
}

impl Desk {
    async fn run(&self, action: &Action) -> anyhow::Result<()> {
        match action {
            Action::Plan(args) => self.plan(args).await,
            Action::List => self.list().await,
            Action::Show { id, lines } => self.show(*id, *lines).await,
            Action::Run(args) => self.begin(args).await,
            Action::Pause(args) => self.act(handover::Verb::Pause, args).await.map(|plan| say(&plan)),
            Action::Cancel(args) => self
                .act(handover::Verb::Cancel, args)
                .await
                .map(|plan| say(&plan)),
            Action::Resume(args) => {
                self.act(handover::Verb::Resume, args).await?;
                self.attend(args).await
            }
            Action::RollBack(args) => {
                self.act(handover::Verb::RollBack, args).await?;
                self.attend(args).await
            }
        }
    }

    /// Does something about a plan. That it was refused is on record, too.
    async fn act(&self, verb: handover::Verb, args: &Verb) -> anyhow::Result<Handover> {
        let by = by(&args.by);
        let mut transaction = self.pool().begin().await?;
        match self.handovers.act_in(&mut transaction, args.id, verb, by).await {
            Ok(plan) => {
                transaction.commit().await?;
                Ok(plan)
            }
            Err(error) => {
                drop(transaction);
                if error.is_refusal() {
                    let subject = args.id.to_string();
                    self.tell_refused(verb.as_str(), &subject, by, error.code())
                        .await?;
                }
                Err(refused(error))
            }
        }
    }

    async fn tell_refused(&self, verb: &str, subject: &str, by: By<'_>, code: &str) -> anyhow::Result<()> {
        let mut conn = self.pool().acquire().await?;
        let now = self.handovers.clock.now();
        handover::tell_refused(&mut conn, verb, subject, by, code, now).await?;
        Ok(())
    }

    fn pool(&self) -> &PgPool {
        &self.handovers.pool
    }

    async fn plan(&self, args: &PlanArgs) -> anyhow::Result<()> {
        let rules = rules(args);
        ensure!(
            !rules.is_empty() || args.else_release,
            "say to whom the lines go: --to, --team, --last-holder or --supervisor; or --else-release for nobody"
        );
        ensure!(
            self.handovers.accounts.iter().next().is_some(),
            "setting twilio.accounts: expected at least one account, to ask Twilio for the lines; set TWILIO_ACCOUNT_SID and what belongs to it"
        );
        let new = NewHandover {
            leaver: args.identity.clone(),
            rules,
            otherwise: if args.else_release {
                Otherwise::Release
            } else {
                Otherwise::Stay
            },
            lines_per_minute: args
                .per_minute
                .unwrap_or(self.handovers.settings.lines_per_minute),
            return_at: args.return_at,
            leaver_becomes: args.becomes.map(|fate| match fate {
                Fate::Left => Becomes::Left,
                Fate::Away => Becomes::Away,
            }),
            reason: args.reason.clone(),
            note: args.note.clone(),
            introduction: args.introduction.clone(),
            requested_by: args.by.as_str().to_owned(),
        };
        let mut transaction = self.pool().begin().await?;
        let plan = match self.handovers.create_in(&mut transaction, new, Via::Cli).await {
            Ok(plan) => plan,
            Err(error) => {
                drop(transaction);
                if let Some(code) = error.refusal() {
                    let leaver = args.identity.as_str();
                    self.tell_refused("plan", leaver, by(&args.by), code).await?;
                }
                return Err(error.into());
            }
        };
        transaction.commit().await?;
        let id = plan.handover_id;
        self.prepare(id).await?;
        self.show(id, true).await?;
        if args.dry_run {
            let cancel = Verb {
                id,
                by: args.by.clone(),
                detach: true,
            };
            self.act(handover::Verb::Cancel, &cancel).await?;
            output::line("nothing was handed over, and the plan is cancelled");
        } else {
            output::line(format!(
                "nothing was handed over yet: hookswitch handover run {id}"
            ));
        }
        Ok(())
    }

    /// Works until a plan is a draft.
    async fn prepare(&self, id: Uuid) -> anyhow::Result<Handover> {
        self.work_until(id, &[], |plan, _| plan.state != State::Planning)
            .await
    }

    /// Runs a draft, or joins a plan that runs. One whose `plan` was stopped is prepared first.
    async fn begin(&self, args: &Verb) -> anyhow::Result<()> {
        let mut conn = self.pool().acquire().await?;
        let mut plan = handover::find(&mut conn, args.id)
            .await?
            .context("no such plan")?;
        drop(conn);
        if plan.state == State::Planning && !args.detach {
            plan = self.prepare(args.id).await?;
        }
        if plan.state != State::Running {
            self.act(handover::Verb::Run, args).await?;
        }
        self.attend(args).await
    }

    /// Shows how far a plan has come until it is at its end, and does the work.
    async fn attend(&self, verb: &Verb) -> anyhow::Result<()> {
        if verb.detach {
            let mut conn = self.pool().acquire().await?;
            let plan = handover::find(&mut conn, verb.id)
                .await?
                .context("no such plan")?;
            say(&plan);
            return Ok(());
        }
        let swap = transfer::Swap {
            pool: self.pool().clone(),
            clock: self.handovers.clock.clone(),
            accounts: self.handovers.accounts.clone(),
        };
        let also: [(TaskKind, Arc<dyn Handler>); 1] = [(transfer::SWAP_TASK, Arc::new(swap))];
        let plan = self
            .work_until(verb.id, &also, |plan, counts| {
                plan.state != State::Running && counts.under_way() == 0
            })
            .await?;
        self.show(plan.handover_id, false).await?;
        let mut conn = self.pool().acquire().await?;
        let counts = handover::counts(&mut conn, plan.handover_id).await?;
        if counts.failed + counts.back_failed > 0 {
            bail!(
                "{} lines failed; `hookswitch handover show {} --lines` says why",
                counts.failed + counts.back_failed,
                plan.handover_id
            );
        }
        Ok(())
    }

    /// Works on plans until one is as it should be.
    async fn work_until(
        &self,
        id: Uuid,
        also: &[(TaskKind, Arc<dyn Handler>)],
        is_so: impl Fn(&Handover, &Counts) -> bool,
    ) -> anyhow::Result<Handover> {
        let reader = Reader {
            pool: self.pool().clone(),
            clock: self.handovers.clock.clone(),
            accounts: self.handovers.accounts.clone(),
        };
        let mut handlers: Vec<(TaskKind, Arc<dyn Handler>)> = vec![
            (mirror::READ_TASK, Arc::new(reader)),
            (
                handover::WORK_TASK,
                Arc::new(handover::Work(self.handovers.clone())),
            ),
        ];
        handlers.extend(also.iter().cloned());
        let settings = queue::Settings {
            poll: Duration::from_millis(500),
            ..queue::Settings::default()
        };
        let worker = Worker::new(
            self.pool().clone(),
            self.handovers.clock.clone(),
            handlers,
            settings,
        );
        let stop = self.shutdown.child_token();
        let working = tokio::spawn({
            let stop = stop.clone();
            async move { worker.run(Arc::new(Wake::default()), stop).await }
        });
        let mut progress = Progress::new();
        let found = self
            .shutdown
            .run_until_cancelled(async {
                loop {
                    let mut conn = self.pool().acquire().await?;
                    let plan = handover::find(&mut conn, id).await?.context("no such plan")?;
                    let counts = handover::counts(&mut conn, id).await?;
                    drop(conn);
                    progress.show(&plan, &counts);
                    if is_so(&plan, &counts) {
                        return anyhow::Ok(plan);
                    }
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            })
            .await;
        progress.end();
        stop.cancel();
        working.await.ok();
        match found {
            Some(found) => found,
            None => bail!(
                "stopped; the plan is as it is, and the service goes on with it, or `hookswitch handover run {id}`"
            ),
        }
    }
}

fn rules(args: &PlanArgs) -> Vec<Rule> {
    let mut rules = Vec::new();
    if args.last_holder {
        rules.push(Rule::LastHolder);
    }
    if !args.to.is_empty() {
        rules.push(Rule::People(args.to.clone()));
    }
    if let Some(team) = &args.team {
        rules.push(Rule::Team {
            team: team.clone(),
            spread: if args.round_robin {
                Spread::RoundRobin
            } else {
                Spread::LeastLoaded
            },
        });
    }
    if args.supervisor {
        rules.push(Rule::Supervisor);
    }
    rules
}

/// What a refusal means for whoever typed the command.
fn refused(error: handover::HandoverError) -> anyhow::Error {
    match error {
        handover::HandoverError::WrongState { state, by, since, .. } => {
            anyhow::anyhow!(
                "the plan is {} since {since:.0}, by {by}, which does not allow it",
                state.as_str()
            )
        }
        handover::HandoverError::AnotherAtWork { handover_id } => anyhow::anyhow!(
            "another plan of the same person is running or paused: {handover_id}; let it end, or cancel it"
        ),
        other => other.into(),
    }
}

fn reason(text: &str) -> Result<String, &'static str> {
    let length = text.chars().count();
    if !text.trim().is_empty() && length <= 200 && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 200 characters in one line")
    }
}

fn note(text: &str) -> Result<String, &'static str> {
    if !text.trim().is_empty() && text.len() <= NOTE_MAX {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 4096 bytes")
    }
}

fn introduction(text: &str) -> Result<String, &'static str> {
    if !text.trim().is_empty() && text.chars().count() <= BODY_MAX {
        Ok(text.to_owned())
    } else {
        Err("expected 1 to 1600 characters")
    }
}

fn by(who: &Identity) -> By<'_> {
    By {
        name: who.as_str(),
        via: Via::Cli,
    }
}
