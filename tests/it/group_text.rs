//! Group texts come to an end, whatever Twilio says: made, adopted, made again, or failed with a reason.

use hookswitch::group_text::{GroupText, Origin, StartGroupTextError, State};
use hookswitch::sandbox::{Faults, WebhookAction, WebhookFault};
use hookswitch::twilio::requests::{Member, NewConversation, NewParticipant};
use jiff::SignedDuration;

use crate::support::app::{ACCOUNT, BUYER, LINE, PARTNER, TOKEN, TestApp, http, new_group, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::tables;

/// Runs everything, what is put off by up to a minute included.
async fn ended(app: &TestApp, group: &GroupText) -> GroupText {
    for _ in 0..8 {
        app.settle_for(SignedDuration::from_secs(15)).await;
    }
    app.group_text(group.group_text_id).await
}

fn failing_setups(count: u32) -> Faults {
    Faults {
        failing_setups: count,
        ..Faults::default()
    }
}

async fn events_of(app: &TestApp, group: &GroupText) -> Vec<String> {
    let sql = format!(
        "select type from event where subject = '{}' order by commit_xid, event_id",
        group.group_text_id
    );
    tables::rows(app, &sql).await
}

/// A group of the guide's numbers that somebody else has made at Twilio.
async fn made_by_somebody_else(app: &TestApp) {
    let member = |member| NewParticipant::from(member);
    let participants = [
        member(Member::Native {
            address: BUYER.parse().unwrap(),
        }),
        member(Member::Native {
            address: PARTNER.parse().unwrap(),
        }),
        member(Member::Projected {
            identity: "zoe".parse().unwrap(),
            projected_address: LINE.parse().unwrap(),
        }),
    ];
    let client = &app.app.accounts.get(ACCOUNT).unwrap().client;
    client
        .create_conversation_with_participants(&NewConversation::default(), &participants)
        .await
        .unwrap();
    app.settle().await;
}

#[tokio::test]
async fn a_group_that_twilio_has_already_is_adopted_as_it_is() {
    let app = TestApp::start().await;
    made_by_somebody_else(&app).await;
    let group = app.ask_for_group(Some("maya")).await;
    let group = ended(&app, &group).await;
    assert_eq!((group.state, group.adopted), (State::Active, true));
    assert_eq!(app.sandbox.conversations().len(), 1);
    assert_eq!(
        events_of(&app, &group).await,
        ["group_text.requested", "group_text.adopted", "group_text.active"]
    );
    // Who is behind the line is not ours to change by adopting.
    assert_eq!(app.holders(&sid_of(&group)).await, [Some("zoe".to_owned())]);
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn a_group_that_a_customer_started_is_named_to_who_asks_for_it_again() {
    let app = TestApp::start().await;
    app.text(BUYER, &[LINE, PARTNER], "Is the house still there?")
        .await;
    app.settle().await;
    let asked = app.ask_for_group(Some("maya")).await;
    let asked = ended(&app, &asked).await;
    assert_eq!(
        (asked.state, asked.failure_code.as_deref()),
        (State::Failed, Some("exists"))
    );
    let sid = app.sandbox.conversations()[0].sid.clone();
    let theirs = hookswitch::group_text::find_by_conversation(&mut *app.conn().await, sid.as_str())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        (theirs.origin, theirs.state),
        (Origin::Autocreated, State::Active)
    );
    assert!(
        asked
            .failure_detail
            .unwrap()
            .contains(&theirs.group_text_id.to_string())
    );
    assert_eq!(app.sandbox.conversations().len(), 1);
}

#[tokio::test]
async fn of_two_who_ask_for_the_same_numbers_at_once_one_is_told_of_the_other() {
    let app = TestApp::start().await;
    for round in 0..4 {
        let buyer = format!("+1555555400{round}");
        let ask = || {
            let group_texts = app.app.api.group_texts.clone();
            let new = new_group(&[&buyer, PARTNER], None);
            tokio::spawn(async move { group_texts.start(new).await })
        };
        let (one, other) = (ask(), ask());
        let (one, other) = (one.await.unwrap(), other.await.unwrap());
        let (made, refused) = match (one, other) {
            (Ok(made), Err(refused)) | (Err(refused), Ok(made)) => (made, refused),
            (Ok(_), Ok(_)) => panic!("both are made"),
            (Err(one), Err(other)) => panic!("neither is made: {one}, {other}"),
        };
        let StartGroupTextError::InTheMaking { group_text_id } = refused else {
            panic!("it is in the making, and the answer says: {refused}");
        };
        assert_eq!(group_text_id, made.group_text_id);
        assert_eq!(ended(&app, &made).await.state, State::Active);
    }
    assert_eq!(app.sandbox.conversations().len(), 4);
}

#[tokio::test]
async fn one_that_twilio_closes_while_it_adds_the_members_is_made_again_under_another_name() {
    let app = TestApp::start().await;
    app.sandbox.set_faults(failing_setups(1)).unwrap();
    let group = app.ask_for_group(Some("maya")).await;
    let group = ended(&app, &group).await;
    assert_eq!((group.state, group.create_attempt), (State::Active, 2));
    let at_twilio: Vec<_> = app
        .sandbox
        .conversations()
        .into_iter()
        .map(|one| (one.unique_name, one.state))
        .collect();
    let name = format!("hookswitch-{}", group.group_text_id);
    assert_eq!(
        at_twilio,
        [
            (Some(name.clone()), "closed"),
            (Some(format!("{name}-2")), "active")
        ]
    );
    assert_eq!(app.holders(&sid_of(&group)).await, [Some("maya".to_owned())]);
    tables::assert_queue_is_empty(&app).await;
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn one_that_twilio_closes_again_and_again_fails_in_the_end() {
    let app = TestApp::start().await;
    app.sandbox.set_faults(failing_setups(9)).unwrap();
    let group = app.ask_for_group(Some("maya")).await;
    let group = ended(&app, &group).await;
    assert_eq!(
        (group.state, group.failure_code.as_deref()),
        (State::Failed, Some("activation_failed"))
    );
    assert_eq!(app.sandbox.conversations().len(), 3);
    assert_eq!(
        app.sandbox.faults().failing_setups,
        6,
        "three tries, and no fourth"
    );
    assert_eq!(events_of(&app, &group).await.last().unwrap(), "group_text.failed");
    tables::assert_queue_is_empty(&app).await;

    // The numbers are free again.
    app.sandbox.set_faults(Faults::default()).unwrap();
    let again = app.ask_for_group(Some("maya")).await;
    assert_eq!(ended(&app, &again).await.state, State::Active);
}

#[tokio::test]
async fn a_refusal_is_told_by_its_code_and_names_no_number() {
    let app = TestApp::start().await;
    let number = LINE.replace('+', "%2B");
    let url = format!("{}/sandbox/v1/numbers/{number}", app.sandbox.base_url());
    let released = http()
        .delete(url)
        .basic_auth(ACCOUNT, Some(TOKEN))
        .send()
        .await
        .unwrap();
    assert!(released.status().is_success());
    let group = app.ask_for_group(Some("maya")).await;
    let group = ended(&app, &group).await;
    assert_eq!(
        (group.state, group.failure_code.as_deref()),
        (State::Failed, Some("twilio_50439"))
    );
    let detail = group.failure_detail.unwrap();
    assert!(detail.contains("not a number of this account"), "{detail}");
    for number in [BUYER, PARTNER, LINE] {
        assert!(!detail.contains(&number[1..]), "{detail}");
    }
    tables::assert_queue_is_empty(&app).await;
}

#[tokio::test]
async fn without_a_single_webhook_the_group_becomes_active_and_the_mirror_knows_its_members() {
    let app = TestApp::start().await;
    let deaf = Faults {
        webhooks: vec![WebhookFault {
            action: WebhookAction::Lose,
            events: Vec::new(),
            ms: 0,
            probability: 1.0,
            times: None,
        }],
        ..Faults::default()
    };
    app.sandbox.set_faults(deaf).unwrap();
    let group = app.ask_for_group(Some("maya")).await;
    let group = ended(&app, &group).await;
    assert_eq!(group.state, State::Active);
    assert_eq!(tables::count(&app, "webhook").await, 0);
    assert_eq!(app.holders(&sid_of(&group)).await, [Some("maya".to_owned())]);
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn a_group_that_twilio_finishes_after_all_is_there() {
    let app = TestApp::start().await;
    let group = app.ask_for_group(Some("maya")).await;
    app.app.worker.run_until_idle().await.unwrap();
    let given_up = "update group_text set state = 'failed', failure_code = 'activation_timeout', failure_detail = 'too long'";
    tables::execute(&app, given_up).await;
    app.settle_for(SignedDuration::from_secs(3)).await;
    let group = app.group_text(group.group_text_id).await;
    assert_eq!((group.state, group.failure_code), (State::Active, None));
}
