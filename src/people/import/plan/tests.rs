use proptest::prelude::*;

use super::*;
use crate::people::import::{document, table};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-03-01T14:00:00Z")
}

/// Agents as a file makes them of nothing.
fn agents(csv: &str) -> Vec<Agent> {
    let plan = plan(
        &[],
        &teams(),
        &wanted(csv, Absent::Leave),
        at("2026-02-01T00:00:00Z"),
    )
    .unwrap();
    plan.agents.into_iter().map(|step| step.after).collect()
}

fn teams() -> Vec<Team> {
    let entries = document::read(br#"{"teams": {"sales": {"name": "Sales", "time_zone": "UTC"}}}"#).unwrap();
    let entries = entries.into_iter();
    entries
        .map(|entry| planned(&entry.team_id, entry.plan, None, now()))
        .collect()
}

fn wanted(csv: &str, absent: Absent) -> Wanted {
    Wanted {
        agents: Some(table::read(csv.as_bytes()).unwrap()),
        teams: None,
        absent,
    }
}

/// What would be done, one word for each agent.
fn steps(stands: &[Agent], wanted: &Wanted) -> Vec<String> {
    let plan = plan(stands, &teams(), wanted, now()).unwrap();
    let steps = plan.agents.iter().map(|step| {
        let what = match (&step.before, step.is_absent) {
            (_, true) => "deactivated",
            (Some(_), false) => "changed",
            (None, false) => "added",
        };
        format!("{} {what} to {}", step.after.identity, step.after.version)
    });
    steps.collect()
}

#[test]
fn only_what_differs_is_changed() {
    let stands =
        agents("identity,name,capacity,left_at\nana,Ana,3,\nben,Ben,,\ncleo,Cleo,,2026-02-15T00:00:00Z\n");
    let file = "identity,name,capacity\nana,Ana,3\nben,Ben,4\ndora,Dora,\n";
    assert_eq!(
        steps(&stands, &wanted(file, Absent::Leave)),
        ["ben changed to 2", "dora added to 1"]
    );
    let only_ana = wanted("identity,name\nana,Ana\n", Absent::Deactivate);
    assert_eq!(
        steps(&stands, &only_ana),
        ["ben deactivated to 2"],
        "cleo has left before"
    );
    // No file of agents says nothing of them.
    let nothing = Wanted {
        absent: Absent::Deactivate,
        ..Wanted::default()
    };
    assert_eq!(steps(&stands, &nothing), [""; 0]);
}

#[test]
fn a_file_that_names_nobody_makes_nobody_leave() {
    let stands = agents("identity,name\nana,Ana\nben,Ben\n");
    let empty = |absent| plan(&stands, &teams(), &wanted("identity,name\n", absent), now());
    let found = empty(Absent::Deactivate).unwrap_err();
    assert_eq!(
        found[0].to_string(),
        "agents: names nobody, and whoever is absent from it would have left: that is everybody"
    );
    assert!(empty(Absent::Leave).unwrap().is_empty());
}

#[test]
fn a_cycle_is_found_over_rows_and_what_stands_and_one_that_a_row_ends_is_none() {
    let stands = agents("identity,name,supervisor\nana,Ana,ben\nben,Ben,\ncleo,Cleo,ana\n");
    let told = |csv: &str| {
        let found = plan(&stands, &teams(), &wanted(csv, Absent::Leave), now());
        found.err().map(|found| {
            found
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
                .join("\n")
        })
    };
    assert_eq!(
        told("identity,name,supervisor\nben,Ben,cleo\n").as_deref(),
        Some(
            "agents, line 2, column supervisor: they would be their own supervisor (ben > cleo > ana > ben): change one of these"
        )
    );
    assert_eq!(told("identity,name,supervisor\nben,Ben,cleo\nana,Ana,\n"), None);
}

prop_compose! {
    /// Text that spreadsheets and CSV find hard, without space around it.
    fn text()(begin in "[a-zA-Z='+@,\"é-]", middle in "[a-z '=;,\"-]{0,6}", end in "[a-z'\",;]") -> String {
        format!("{begin}{middle}{end}")
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_and_read_again_changes_nothing(
        people in prop::collection::btree_map(
            text(),
            (text(), any::<bool>(), prop::collection::btree_set("[a-z][a-z0-9._-]{0,5}", 0..3),
             prop::option::of(0..10_000_u32), prop::option::of(0..4_000_000_000_000_000_i64)),
            0..8,
        ),
    ) {
        let mut above: Option<Identity> = None;
        let mut stands = Vec::new();
        for (identity, (name, in_team, skills, capacity, left_at)) in people {
            let identity = Identity::try_from(identity.as_str()).unwrap();
            let profile = Profile {
                name,
                team: in_team.then(|| "sales".parse().unwrap()),
                backup: above.clone(),
                supervisor: above.replace(identity.clone()),
                skills: skills.iter().map(|skill| skill.parse().unwrap()).collect(),
                capacity,
                left_at: left_at.map(|micros| Timestamp::from_microsecond(micros).unwrap()),
            };
            stands.push(replaced(&identity, profile, None, now()));
        }
        let file = table::write(&stands).unwrap();
        let wanted = Wanted {
            agents: Some(table::read(&file).unwrap()),
            teams: Some(document::read(document::write(&teams()).unwrap().as_bytes()).unwrap()),
            absent: Absent::Deactivate,
        };
        let plan = plan(&stands, &teams(), &wanted, now()).unwrap();
        prop_assert!(plan.is_empty());
        prop_assert_eq!(plan.unchanged, stands.len());
    }
}
