//! All contestants in turns, round after round.

use anyhow::Result;

use crate::contestant::Contestant;
use crate::pgbench::Pgbench;
use crate::report::{self, median, say};
use crate::server::Server;
use crate::turn::{self, Turn};
use crate::{Args, Field};

/// Runs the rounds, and prints each turn, the medians and the ratios.
pub(crate) async fn run(field: &mut Field, server: &mut Server, args: &Args) -> Result<()> {
    let mut entrants: Vec<Entrant<'_>> = vec![Entrant::new(Who::Process(&mut field.ours))];
    entrants.extend(field.node.iter_mut().map(|node| Entrant::new(Who::Process(node))));
    entrants.extend(
        field
            .pgbench
            .iter()
            .map(|pgbench| Entrant::new(Who::Pgbench(pgbench))),
    );
    report::heading()?;
    for _ in 0..args.rounds {
        for entrant in &mut entrants {
            let turn = match &mut entrant.who {
                Who::Process(contestant) => turn::run(contestant, server, args, args.seconds).await?,
                Who::Pgbench(pgbench) => pgbench.run(server, args).await?,
            };
            report::row(entrant.name(), &turn)?;
            entrant.turns.push(turn);
        }
    }
    say(&format!("\nmedian of {} rounds, acked + mirrored", args.rounds))?;
    for entrant in &entrants {
        say(&format!("{:22} {:8.0} /s", entrant.name(), entrant.median()))?;
    }
    let (ours, others) = entrants.split_first().expect("we are the first");
    for other in others {
        say(&format!(
            "hookswitch / {:22} {:6.2}",
            other.name(),
            ours.median() / other.median()
        ))?;
    }
    Ok(())
}

enum Who<'a> {
    Process(&'a mut Contestant),
    Pgbench(&'a Pgbench),
}

struct Entrant<'a> {
    who: Who<'a>,
    turns: Vec<Turn>,
}

impl<'a> Entrant<'a> {
    fn new(who: Who<'a>) -> Self {
        Self {
            who,
            turns: Vec::new(),
        }
    }

    fn name(&self) -> &'static str {
        match &self.who {
            Who::Process(contestant) => contestant.kind.name(),
            Who::Pgbench(pgbench) => pgbench.name,
        }
    }

    fn median(&self) -> f64 {
        median(self.turns.iter().map(Turn::mirrored_rate).collect())
    }
}
