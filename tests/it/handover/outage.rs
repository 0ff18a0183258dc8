//! Twilio is away for a while: what waits says why, and nothing comes in a burst afterwards.

use hookswitch::handover::{Finding, LineState, State};
use hookswitch::sandbox::{Effect, Faults, RestFault};
use jiff::SignedDuration;

use super::{Desk, count, to_ada};
use crate::support::tables;

impl Desk {
    /// Twilio answers nothing of a path, or nothing at all.
    fn twilio_is_away(&self, path: Option<&str>) {
        let down = RestFault {
            method: None,
            path: path.map(str::to_owned),
            status: Some(503),
            effect: Effect::Before,
            hold_ms: 0,
            probability: 1.0,
            times: None,
        };
        let faults = Faults {
            rest: vec![down],
            ..Faults::default()
        };
        self.app.sandbox.set_faults(faults).unwrap();
    }

    fn twilio_is_back(&self) {
        self.app.sandbox.set_faults(Faults::default()).unwrap();
    }
}

#[tokio::test]
async fn while_twilio_is_away_few_lines_begin_and_afterwards_none_in_a_burst() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 9, "maya").await;
    let mut new = to_ada();
    // One in 3 s, and 5 at once.
    new.lines_per_minute = 20;
    let id = desk.draft(new).await.handover_id;
    desk.twilio_is_away(None);
    desk.run(id).await;
    for _ in 0..20 {
        desk.app.settle_for(SignedDuration::from_secs(3)).await;
    }
    let counts = desk.counts(id).await;
    assert_eq!((counts.transferring, counts.waiting), (5, 4), "{counts:?}");
    let shown = desk.get(&format!("/v1/handovers/{id}")).await;
    assert_eq!(shown["waiting_error"], "unavailable_20503", "{shown}");
    assert!(shown["waiting_since"].is_string(), "{shown}");

    desk.twilio_is_back();
    let plan = desk.ended(id).await;
    assert_eq!((plan.state, plan.waiting_error), (State::Completed, None));
    assert_eq!(count(desk.holders(&sids).await), [("ada".to_owned(), 9)].into());
    let mut due: Vec<_> = desk
        .lines(id)
        .await
        .iter()
        .filter_map(|line| line.due_at)
        .collect();
    due.sort();
    assert_eq!(due.len(), 9);
    for pair in due.windows(2) {
        assert!(pair[1].duration_since(pair[0]) >= SignedDuration::from_secs(3));
    }
}

#[tokio::test]
async fn a_line_on_its_way_out_when_the_plan_is_turned_round_goes_out_and_back() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 2, "maya").await;
    let mut slow = to_ada();
    slow.lines_per_minute = 1;
    let id = desk.draft(slow).await.handover_id;
    desk.twilio_is_away(None);
    desk.run(id).await;
    desk.app.settle().await;
    assert_eq!(desk.counts(id).await.transferring, 1);
    assert_eq!(desk.verb(id, "roll-back").await.0, 200);
    desk.twilio_is_back();
    assert_eq!(desk.ended(id).await.state, State::Returned);
    assert_eq!(count(desk.holders(&sids).await), [("maya".to_owned(), 2)].into());
    let ends = format!(
        "select concat_ws(' ', data::jsonb ->> 'state', data::jsonb ->> 'direction', data::jsonb ->> 'back_state') from event
         where type = 'handover.line_ended' and subject = '{id}' order by commit_xid, event_id"
    );
    assert_eq!(
        tables::rows(&desk.app, &ends).await,
        ["handed_over out", "handed_over back returned"]
    );
}

#[tokio::test]
async fn a_plan_whose_doubts_are_not_read_says_so_and_lets_go_of_those_that_nobody_can_read() {
    let desk = Desk::open().await;
    let sids = desk.groups(1_000, 2, "zoe").await;
    for sid in &sids {
        desk.change_silently(sid, "maya").await;
    }
    // The list of whom she is with answers; the conversations do not.
    desk.twilio_is_away(Some("/v1/Services/*/Conversations/*"));
    let id = desk.ask(to_ada()).await.handover_id;
    desk.app.settle_for(SignedDuration::from_secs(61)).await;
    let shown = desk.get(&format!("/v1/handovers/{id}")).await;
    assert_eq!(
        (&shown["state"], &shown["counts"]["in_doubt"]),
        (&"planning".into(), &2.into()),
        "{shown}"
    );
    assert_eq!(shown["waiting_error"], "conversations_unread", "{shown}");
    // One's account is taken out of the settings.
    let sql = format!(
        "update handover_line set account_sid = 'AC99999999999999999999999999999999' where conversation_sid = '{}'",
        sids[0]
    );
    tables::execute(&desk.app, &sql).await;
    desk.app.settle_for(SignedDuration::from_secs(2)).await;
    assert_eq!(desk.counts(id).await.in_doubt, 1);
    desk.twilio_is_back();
    let plan = desk.until(id, |plan| plan.state == State::Draft).await;
    assert_eq!(plan.waiting_error, None);
    let lines = desk.lines(id).await;
    assert!(lines.iter().all(|line| line.finding == Finding::OnlyAtTwilio));
    // The ledger does not say that it is hers, or it was read after all: nobody here can give it, either way.
    assert!(
        matches!(lines[0].state, LineState::Skipped | LineState::Stays),
        "{:?}",
        lines[0]
    );
    assert_eq!(lines[1].state, LineState::Waiting);
}
