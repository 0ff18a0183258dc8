//! The mirror made anew from its sources: equal to the live one after whatever happened, different where somebody changed
//! a row by hand, and swapped in only when asked.

mod command;
mod damage;
mod equal;
mod schema;
mod sources;

use std::time::Duration;

use hookswitch::rebuild::report::{Report, TableReport};
use hookswitch::rebuild::{Error, Options, Rebuild};

use crate::support::app::TestApp;

fn rebuild_of(app: &TestApp) -> Rebuild {
    Rebuild {
        options: app.database.options.clone(),
        clock: app.clock.clone(),
        locked_max: Duration::from_mins(1),
    }
}

const COMPARE: Options = Options {
    swap: false,
    examples: 50,
    reveal: true,
};
const SWAP: Options = Options {
    swap: true,
    ..COMPARE
};

async fn run(app: &TestApp, options: Options) -> Result<Report, Error> {
    Box::pin(rebuild_of(app).run(options, &mut |_| ())).await
}

/// Makes the mirror anew and finds nothing that is otherwise.
async fn assert_equal(app: &TestApp) -> Report {
    let report = run(app, COMPARE).await.unwrap();
    assert_eq!(report.damaged(), 0, "{report}");
    report
}

fn of<'a>(report: &'a Report, table: &str) -> &'a TableReport {
    report.tables.iter().find(|one| one.table == table).unwrap()
}

/// Every row has its like on the other side.
fn assert_nothing_differs(report: &Report) {
    assert!(report.verdict() == "equal", "{report}");
    for table in &report.tables {
        assert_eq!(table.examples.len(), 0, "{report}");
    }
}
