//! `hookswitch opt-outs`: as the API, for whoever is at the machine.

use hookswitch::config::OptOutPolicy;
use serde_json::json;

use super::{Crm, bodies, crm, open, states, words};
use crate::support::app::{BUYER, LINE, PARTNER};

async fn command(crm: &Crm, args: &[&str]) -> (bool, String) {
    crm.app.command(&[&["opt-outs"], args].concat()).await
}

async fn succeed(crm: &Crm, args: &[&str]) -> String {
    let (succeeded, said) = command(crm, args).await;
    assert!(succeeded, "{args:?}: {said}");
    said
}

async fn fail(crm: &Crm, args: &[&str]) -> String {
    let (succeeded, said) = command(crm, args).await;
    assert!(!succeeded, "{args:?}: {said}");
    said
}

#[tokio::test]
async fn opt_outs_are_set_listed_and_cleared_on_the_command_line() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let sid = crm.group().await;
    let set = ["set", "--line", LINE, "--address", BUYER, "--by", "sam"];
    let shown = succeed(&crm, &set).await;
    assert!(shown.contains("api  sam"), "{shown}");
    assert!(succeed(&crm, &set).await.contains("it lasted already"));
    crm.settle().await;
    assert_eq!(states(&crm, &sid).await, ["warned"]);
    let told = &crm.told("opt_out.recorded").await;
    assert_eq!(told.len(), 1);

    let id = open(&crm).await[0]["opt_out_id"].as_str().unwrap().to_owned();
    let listed = succeed(&crm, &["list", "--address", BUYER]).await;
    assert_eq!(listed.lines().count(), 1, "{listed}");
    assert!(
        listed.starts_with(&id) && listed.contains(LINE) && listed.contains(BUYER),
        "{listed}"
    );
    assert_eq!(succeed(&crm, &["list", "--address", PARTNER]).await, "");

    let cleared = succeed(&crm, &["clear", &id]).await;
    assert!(cleared.contains("until"), "{cleared}");
    assert!(
        fail(&crm, &["clear", &id])
            .await
            .contains("it was cleared before")
    );
    assert_eq!(succeed(&crm, &["list"]).await, "");
    assert!(
        succeed(&crm, &["list", "--all", "--line", LINE])
            .await
            .contains(&id)
    );
    let foreign = ["set", "--line", "+15555550100", "--address", BUYER];
    assert!(fail(&crm, &foreign).await.contains("the number is none of ours"));
    let ours = ["set", "--line", LINE, "--address", LINE];
    let shown = fail(&crm, &ours).await;
    assert!(shown.contains("one of ours") && !shown.contains(LINE), "{shown}");
}

#[tokio::test]
async fn a_policy_is_said_and_a_group_decided_on_on_the_command_line() {
    let crm = crm(OptOutPolicy::CarryOn).await;
    let sid = crm.group().await;
    assert!(
        succeed(&crm, &["policy", LINE])
            .await
            .contains("carry_on  of its account")
    );
    let shown = succeed(&crm, &["policy", LINE, "ask-supervisor", "--by", "sam"]).await;
    assert!(shown.contains("ask_supervisor  its own"), "{shown}");
    crm.app.text(BUYER, &[LINE, PARTNER], "stop").await;
    crm.app.sandbox.settled().await;
    let asked = crm.message(&sid, &words("one")).await.expect(202);
    crm.settle().await;
    assert!(crm.send(&asked).await["held_since"].is_string());
    let shown = succeed(&crm, &["decide", sid.as_str(), "allow", "--by", "sam"]).await;
    assert!(shown.contains("allowed"), "{shown}");
    crm.settle().await;
    assert_eq!(crm.send(&asked).await["state"], "sent");
    assert_eq!(bodies(&crm, &sid), ["one"]);

    let shown = succeed(&crm, &["policy", LINE, "of-account"]).await;
    assert!(shown.contains("carry_on  of its account"), "{shown}");
    crm.settle().await;
    let shown = fail(&crm, &["decide", sid.as_str(), "stop", "--by", "sam"]).await;
    assert!(shown.contains("asks for no decision"), "{shown}");
    let changed = crm.told("opt_out.policy_changed").await;
    let policies: Vec<_> = changed.iter().map(|one| one["data"]["to"].clone()).collect();
    assert_eq!(policies, [json!("ask_supervisor"), json!("carry_on")]);
}
