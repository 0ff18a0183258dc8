//! A new group text gets any number of a team, and says what is to happen where there is a group of the same numbers.

use hookswitch::group_text::{
    Choice, GroupText, IfExists, NewGroupText, StartGroupTextError, Started, State,
};
use hookswitch::ids::ConversationSid;
use hookswitch::numbers::NumberKind;
use hookswitch::sandbox::{Faults, WebhookAction, WebhookFault};
use hookswitch::twilio::requests::{Member, NewConversation, NewParticipant};
use jiff::SignedDuration;

use crate::assignment::{close, put_number, sales, wanted};
use crate::support::app::{ACCOUNT, BUYER, LINE, OTHER_LINE, PARTNER, TestApp, new_group, sid_of};
use crate::support::compare::assert_mirror_equals_sandbox;
use crate::support::tables;

/// A team with both of our numbers.
async fn app_with_numbers() -> TestApp {
    let app = TestApp::start().await;
    sales(&app, &["maya"], None).await;
    put_number(&app, OTHER_LINE, wanted(None)).await;
    app
}

fn any_of_sales(handsets: &[&str], if_exists: Option<IfExists>) -> NewGroupText {
    let mut new = new_group(handsets, Some("maya"));
    let place = new.members.len() - 1;
    new.members[place].line = None;
    new.choice = Choice {
        of_team: Some((place, "sales".parse().unwrap())),
        if_exists,
    };
    new
}

fn of_line(if_exists: IfExists) -> NewGroupText {
    let mut new = new_group(&[BUYER, PARTNER], Some("maya"));
    new.choice.if_exists = Some(if_exists);
    new
}

async fn start(app: &TestApp, new: NewGroupText) -> Result<Started, StartGroupTextError> {
    let mut transaction = app.pool().begin().await.unwrap();
    let started = app.app.api.group_texts.start_in(&mut transaction, new).await?;
    transaction.commit().await.unwrap();
    Ok(started)
}

async fn ended(app: &TestApp, group: &GroupText) -> GroupText {
    for _ in 0..8 {
        app.settle_for(SignedDuration::from_secs(15)).await;
    }
    app.group_text(group.group_text_id).await
}

fn line_of(group: &GroupText) -> &str {
    let line = group.members.iter().find_map(|member| match member {
        hookswitch::group_text::Member::Line { line, .. } => Some(line.as_str()),
        hookswitch::group_text::Member::Outsider { .. } => None,
    });
    line.unwrap()
}

/// Somebody else makes the group of the buyer, the partner and a number of ours, and no webhook tells us.
async fn made_behind_our_back(app: &TestApp, line: &str) -> ConversationSid {
    let deaf = |times| Faults {
        webhooks: vec![WebhookFault {
            action: WebhookAction::Lose,
            events: Vec::new(),
            ms: 0,
            probability: 1.0,
            times,
        }],
        ..Faults::default()
    };
    app.sandbox.set_faults(deaf(None)).unwrap();
    let native = |address: &str| {
        NewParticipant::from(Member::Native {
            address: address.parse().unwrap(),
        })
    };
    let ours = NewParticipant::from(Member::Projected {
        identity: "zoe".parse().unwrap(),
        projected_address: line.parse().unwrap(),
    });
    let client = &app.app.accounts.get(ACCOUNT).unwrap().client;
    let made = client
        .create_conversation_with_participants(
            &NewConversation::default(),
            &[native(BUYER), native(PARTNER), ours],
        )
        .await
        .unwrap();
    app.settle_for(SignedDuration::from_secs(1)).await;
    app.sandbox.set_faults(Faults::default()).unwrap();
    made.sid
}

#[tokio::test]
async fn the_free_number_with_fewest_groups_is_chosen() {
    let app = app_with_numbers().await;
    let mut lines = Vec::new();
    for handset in ["+15555550111", "+15555550112", "+15555550113", "+15555550114"] {
        let started = start(&app, any_of_sales(&[BUYER, handset], None)).await.unwrap();
        lines.push(line_of(&started.group).to_owned());
        if lines.len() == 2 {
            // Those at Twilio count as those that are asked for do.
            ended(&app, &started.group).await;
        }
    }
    assert_eq!(lines, [LINE, OTHER_LINE, LINE, OTHER_LINE]);
    let chosen = "select (data::jsonb->>'line') || ' ' || (data::jsonb->>'open_groups') from event
        where type = 'group_text.number_chosen' order by commit_xid, event_id";
    assert_eq!(
        tables::rows(&app, chosen).await,
        [
            format!("{LINE} 0"),
            format!("{OTHER_LINE} 0"),
            format!("{LINE} 1"),
            format!("{OTHER_LINE} 1")
        ]
    );
}

#[tokio::test]
async fn what_is_not_fit_is_not_chosen_and_the_refusal_counts_why() {
    let app = app_with_numbers().await;
    let mut short = wanted(None);
    short.kind = NumberKind::ShortCode;
    put_number(&app, LINE, short).await;
    let mut off = wanted(None);
    off.enabled = false;
    put_number(&app, OTHER_LINE, off).await;
    let refused = start(&app, any_of_sales(&[BUYER, PARTNER], None)).await;
    let Err(StartGroupTextError::NoFreeNumber { numbers, .. }) = refused else {
        panic!("none is fit");
    };
    let counted: Vec<(&str, usize)> = numbers.into_iter().collect();
    assert_eq!(counted, [("disabled", 1), ("not_long_code", 1)]);
    // What else is wrong is told before.
    let wrong = start(&app, any_of_sales(&[BUYER], None)).await;
    assert!(matches!(wrong, Err(StartGroupTextError::Invalid(_))));
}

#[tokio::test]
async fn of_many_at_once_for_the_same_people_each_gets_another_number() {
    let app = app_with_numbers().await;
    let asking = || {
        let group_texts = app.app.api.group_texts.clone();
        let new = any_of_sales(&[BUYER, PARTNER], None);
        tokio::spawn(async move { group_texts.start(new).await })
    };
    let asked = [asking(), asking(), asking(), asking()];
    let (mut lines, mut refused) = (Vec::new(), 0);
    for one in asked {
        match one.await.unwrap() {
            Ok(group) => lines.push(line_of(&group).to_owned()),
            Err(StartGroupTextError::NoFreeNumber { numbers, .. }) => {
                assert_eq!(numbers.get("taken"), Some(&2));
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    lines.sort();
    assert_eq!(
        (lines, refused),
        (vec![LINE.to_owned(), OTHER_LINE.to_owned()], 2)
    );
    app.settle_for(SignedDuration::from_secs(5)).await;
    assert_eq!(app.sandbox.conversations().len(), 2);
}

#[tokio::test]
async fn a_group_that_we_know_of_is_adopted_refused_or_gets_another_number() {
    let app = app_with_numbers().await;
    let group = app.group(Some("maya")).await;
    let sid = sid_of(&group);

    let adopted = start(&app, of_line(IfExists::Adopt)).await.unwrap();
    assert_eq!(
        (adopted.is_new, adopted.group.group_text_id),
        (false, group.group_text_id)
    );

    let refused = start(&app, of_line(IfExists::Refuse)).await;
    let Err(StartGroupTextError::Exists {
        conversation_sid,
        group_text_id,
    }) = refused
    else {
        panic!("there is one");
    };
    assert_eq!(
        (conversation_sid.as_str(), group_text_id),
        (sid.as_str(), Some(group.group_text_id))
    );

    let other = start(&app, of_line(IfExists::OtherNumber)).await.unwrap();
    assert_eq!((other.is_new, line_of(&other.group)), (true, OTHER_LINE));
    assert_eq!(ended(&app, &other.group).await.state, State::Active);

    // Now both have one of these people.
    let none = start(&app, any_of_sales(&[BUYER, PARTNER], None)).await;
    let Err(StartGroupTextError::NoFreeNumber {
        conversation_sids, ..
    }) = none
    else {
        panic!("none is free");
    };
    assert_eq!(conversation_sids.len(), 2);
    let adopted = start(&app, any_of_sales(&[BUYER, PARTNER], Some(IfExists::Adopt)))
        .await
        .unwrap();
    assert!(!adopted.is_new);
    // One that has ended is in nobody's way.
    close(&app, &sid).await;
    let again = start(&app, any_of_sales(&[BUYER, PARTNER], None)).await.unwrap();
    assert_eq!(line_of(&again.group), LINE);
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn where_twilio_knows_better_it_is_as_was_asked_for() {
    let app = app_with_numbers().await;
    let sid = made_behind_our_back(&app, LINE).await;
    let refused = start(&app, of_line(IfExists::Refuse)).await.unwrap();
    let refused = ended(&app, &refused.group).await;
    assert_eq!(
        (refused.state, refused.failure_code.as_deref()),
        (State::Failed, Some("exists"))
    );
    let kept = hookswitch::group_text::choice::kept_of(&mut *app.conn().await, &[refused.group_text_id])
        .await
        .unwrap();
    let existing = kept[&refused.group_text_id].existing_conversation_sid.as_deref();
    assert_eq!(existing, Some(sid.as_str()));
    tables::assert_queue_is_empty(&app).await;
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn another_number_of_the_team_is_tried_until_there_is_none() {
    let app = app_with_numbers().await;
    made_behind_our_back(&app, LINE).await;
    let started = start(&app, any_of_sales(&[BUYER, PARTNER], None)).await.unwrap();
    assert_eq!(line_of(&started.group), LINE, "we do not know of the other group");
    let made = ended(&app, &started.group).await;
    assert_eq!(
        (made.state, line_of(&made), made.adopted),
        (State::Active, OTHER_LINE, false)
    );
    assert_eq!(app.sandbox.conversations().len(), 2);
    close(&app, &sid_of(&made)).await;

    made_behind_our_back(&app, OTHER_LINE).await;
    let started = start(&app, of_line(IfExists::OtherNumber)).await.unwrap();
    assert_eq!(line_of(&started.group), OTHER_LINE, "by now we know of the first");
    let failed = ended(&app, &started.group).await;
    assert_eq!(
        (failed.state, failed.failure_code.as_deref()),
        (State::Failed, Some("no_free_number"))
    );
    tables::assert_queue_is_empty(&app).await;
    assert_mirror_equals_sandbox(&app).await;
}

#[tokio::test]
async fn adopting_says_so() {
    let app = app_with_numbers().await;
    let sid = made_behind_our_back(&app, LINE).await;
    let started = start(&app, of_line(IfExists::Adopt)).await.unwrap();
    assert!(started.is_new, "we do not know of it");
    let adopted = ended(&app, &started.group).await;
    assert_eq!(
        (adopted.state, adopted.adopted, sid_of(&adopted)),
        (State::Active, true, sid)
    );
}

#[tokio::test]
async fn of_two_at_once_with_one_number_the_second_gets_another_where_it_may() {
    let app = app_with_numbers().await;
    let group_texts = app.app.api.group_texts.clone();
    let mut first = app.pool().begin().await.unwrap();
    let one = group_texts
        .start_in(&mut first, of_line(IfExists::OtherNumber))
        .await
        .unwrap();
    let second = tokio::spawn({
        let group_texts = group_texts.clone();
        async move { group_texts.start(of_line(IfExists::OtherNumber)).await }
    });
    app.somebody_waits_for_a_lock(&second).await;
    first.commit().await.unwrap();
    let other = second.await.unwrap().unwrap();
    assert_eq!((line_of(&one.group), line_of(&other)), (LINE, OTHER_LINE));
}
