//! `hookswitch handover`: without the service, since nothing works by itself here.

use super::{Desk, to_ada};
use crate::support::app::LINE;
use crate::support::tables;

impl Desk {
    async fn command(&self, args: &[&str]) -> (bool, String) {
        self.app.command(&[&["handover"], args].concat()).await
    }
}

#[tokio::test]
async fn a_plan_is_made_shown_run_and_rolled_back_on_the_command_line() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 3, "maya").await;
    // Here the clock stands ahead, as the command's does not: what is stored is of the future, and due all the same.
    let (succeeded, said) = desk
        .command(&[
            "plan",
            "maya",
            "--to",
            "cyd,ada",
            "--per-minute",
            "6000",
            "--dry-run",
        ])
        .await;
    assert!(succeeded, "{said}");
    assert!(said.contains("lines        3 in all, 3 waiting"), "{said}");
    assert!(said.contains("ada  3 lines; holds 0 of 20"), "{said}");
    assert!(said.contains("to ada  by people; not cyd away"), "{said}");
    assert!(
        said.contains("nothing was handed over, and the plan is cancelled"),
        "{said}"
    );
    assert!(!said.contains(LINE), "no number is shown: {said}");

    let (succeeded, said) = desk
        .command(&[
            "plan",
            "maya",
            "--team",
            "sales",
            "--per-minute",
            "6000",
            "--by",
            "sam",
        ])
        .await;
    assert!(succeeded, "{said}");
    let id = said
        .lines()
        .find_map(|line| line.split_once("hookswitch handover run "))
        .unwrap()
        .1
        .to_owned();
    let (succeeded, said) = desk.command(&["pause", &id]).await;
    assert!(!succeeded && said.contains("the plan is draft since"), "{said}");
    assert!(said.contains("by hookswitch"), "{said}");
    let (succeeded, said) = desk.command(&["run", &id, "--by", "sam"]).await;
    assert!(succeeded, "{said}");
    assert!(said.contains("completed"), "{said}");
    assert!(said.contains("3 in all, 3 handed over"), "{said}");
    desk.app.settle().await;
    assert_eq!(desk.holders(&sids).await, ["ada", "ben", "ada"]);

    let (succeeded, said) = desk.command(&["roll-back", &id]).await;
    assert!(succeeded && said.contains("3 returned"), "{said}");
    desk.app.settle().await;
    assert_eq!(desk.holders(&sids).await, ["maya", "maya", "maya"]);
    let (_, said) = desk.command(&["list"]).await;
    assert!(
        said.contains("maya  returned  3 of 3 lines handed over"),
        "{said}"
    );
    assert!(said.contains("maya  cancelled  0 of 3 lines"), "{said}");

    let (succeeded, said) = desk.command(&["plan", "nobody", "--to", "ada"]).await;
    assert!(!succeeded && said.contains("nobody has this identity"), "{said}");
    let refused = "select concat_ws(' ', data::jsonb ->> 'verb', data::jsonb ->> 'code') from event
         where type = 'handover.refused' and via = 'cli' order by commit_xid, event_id";
    assert_eq!(
        tables::rows(&desk.app, refused).await,
        ["pause handover_state", "plan leaver_unknown"]
    );
    let (succeeded, said) = desk.command(&["plan", "maya"]).await;
    assert!(!succeeded && said.contains("say to whom the lines go"), "{said}");
}

#[tokio::test]
async fn a_plan_that_was_stopped_while_it_was_made_is_made_and_run() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 2, "maya").await;
    let mut new = to_ada();
    new.lines_per_minute = 6_000;
    let id = desk.ask(new).await.handover_id.to_string();
    // As whoever began it on the command line had it: of this clock.
    tables::execute(
        &desk.app,
        "update task set run_at = now() where kind = 'handover.work'",
    )
    .await;
    let (succeeded, said) = desk.command(&["run", &id, "--by", "sam"]).await;
    assert!(succeeded, "{said}");
    assert!(said.contains("2 in all, 2 handed over"), "{said}");
    desk.app.settle().await;
    assert_eq!(desk.holders(&sids).await, ["ada", "ada"]);
}
