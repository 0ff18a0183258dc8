//! Tenures from facts. Pure: the same facts in any order give the same ledger.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::ids::PhoneNumber;
use crate::ledger::Fact;

/// A stretch of time in which one line had one holder; `to` of the last one is open while the conversation lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    pub from: Timestamp,
    pub to: Option<Timestamp>,
    pub holder: Option<String>,
    /// The line is not in the conversation in this span: its last participant was removed.
    pub vacant: bool,
}

/// One participant's seat between two facts about it.
#[derive(Debug, Clone)]
struct Sitting {
    participant_sid: String,
    line: String,
    identity: Option<String>,
    from: Timestamp,
    to: Option<Timestamp>,
}

/// The spans of every line of one conversation, from the line's first appearance to `ended_at`, without a hole.
///
/// Where two participants share a line for a while (a transfer by adding and removing), the one who held it before
/// keeps it until they leave.
pub fn derive(facts: &[Fact], ended_at: Option<Timestamp>) -> BTreeMap<String, Vec<Span>> {
    let mut lines: BTreeMap<String, Vec<Sitting>> = BTreeMap::new();
    for sitting in sittings(facts) {
        lines.entry(sitting.line.clone()).or_default().push(sitting);
    }
    lines
        .into_iter()
        .map(|(line, sittings)| (line, spans(&sittings, ended_at)))
        .filter(|(_, spans)| !spans.is_empty())
        .collect()
}

fn sittings(facts: &[Fact]) -> Vec<Sitting> {
    let mut by_participant: BTreeMap<&str, Vec<&Fact>> = BTreeMap::new();
    for fact in facts {
        by_participant
            .entry(fact.participant_sid.as_str())
            .or_default()
            .push(fact);
    }
    by_participant
        .into_values()
        .flat_map(sittings_of_participant)
        .collect()
}

fn sittings_of_participant(facts: Vec<&Fact>) -> Vec<Sitting> {
    let facts = in_order(facts);
    let mut sittings = Vec::new();
    let mut at = Timestamp::MIN;
    for (place, fact) in facts.iter().enumerate() {
        // A time cut to the second may stand after the exact ones of that second.
        at = at.max(fact.version.at);
        let to = facts.get(place + 1).map(|next| next.version.at.max(at));
        if let (Some(line), false) = (&fact.line, fact.removed) {
            // Most facts say of a seat what was said before; what else moved (a read horizon) is no matter here.
            if let Some(last) = sittings.last_mut().filter(|last: &&mut Sitting| {
                last.to == Some(at) && last.line == line.as_str() && last.identity == fact.identity
            }) {
                last.to = to;
                continue;
            }
            sittings.push(Sitting {
                participant_sid: fact.participant_sid.as_str().to_owned(),
                line: line.as_str().to_owned(),
                identity: fact.identity.clone(),
                from: at,
                to,
            });
        }
        if fact.removed {
            break;
        }
    }
    sittings
}

/// The facts about one participant in the order in which they became true, as far as that is known.
///
/// What a REST answer said to the second may stand anywhere in it. The last such answer of a second was read after all
/// that was known then, so it stands at the end; an earlier one, which later answers overtook, stands at its time. One
/// that a webhook of the same second says exactly, is that webhook.
fn in_order(mut facts: Vec<&Fact>) -> Vec<&Fact> {
    facts.sort_by(|a, b| time_key(a).cmp(&time_key(b)));
    let mut last_answers: BTreeMap<i64, &Fact> = BTreeMap::new();
    for fact in facts.iter().filter(|fact| !fact.version.exact) {
        last_answers.insert(fact.version.at.as_second(), fact);
    }
    let is_last_answer = |fact: &Fact| {
        last_answers
            .get(&fact.version.at.as_second())
            .is_some_and(|last| **last == *fact)
    };
    let mut ordered: Vec<&Fact> = facts
        .iter()
        .filter(|fact| fact.version.exact || !is_said_exactly(fact, &facts))
        .copied()
        .collect();
    // Stable: all else stays in the order of time.
    ordered.sort_by_key(|fact| (fact.version.at.as_second(), is_last_answer(fact)));
    ordered
}

/// By time; a removal last of its instant, and what else is of one instant as the mirror's fold orders it.
fn time_key(fact: &Fact) -> (Timestamp, bool, bool, Option<&str>, Option<&str>) {
    (
        fact.version.at,
        fact.version.exact,
        fact.removed,
        fact.identity.as_deref(),
        fact.line.as_ref().map(PhoneNumber::as_str),
    )
}

/// Whether a webhook of the same second says what this answer says. One from before what the answer settled does not.
fn is_said_exactly(answer: &Fact, facts: &[&Fact]) -> bool {
    let seat = |fact: &Fact| (fact.line.clone(), fact.identity.clone(), fact.removed);
    facts.iter().any(|other| {
        other.version.exact
            && other.version.at >= answer.version.at
            && other.version.at.as_second() == answer.version.at.as_second()
            && seat(other) == seat(answer)
    })
}

fn spans(sittings: &[Sitting], ended_at: Option<Timestamp>) -> Vec<Span> {
    let bounds: BTreeSet<Timestamp> = sittings
        .iter()
        .flat_map(|sitting| [Some(sitting.from), sitting.to])
        .flatten()
        .collect();
    let mut spans: Vec<Span> = Vec::new();
    let mut incumbent: Option<&str> = None;
    for from in bounds
        .into_iter()
        .take_while(|from| ended_at.is_none_or(|end| *from < end))
    {
        let seated = present(sittings, from);
        let holder = seated
            .iter()
            .find(|sitting| Some(sitting.participant_sid.as_str()) == incumbent && sitting.identity.is_some())
            .or_else(|| seated.iter().find(|sitting| sitting.identity.is_some()))
            .or_else(|| seated.first());
        incumbent = holder.map(|sitting| sitting.participant_sid.as_str());
        let next = Span {
            from,
            to: None,
            holder: holder.and_then(|sitting| sitting.identity.clone()),
            vacant: holder.is_none(),
        };
        match spans.last_mut() {
            Some(last) if last.holder == next.holder && last.vacant == next.vacant => {}
            Some(last) => {
                last.to = Some(from);
                spans.push(next);
            }
            // Somebody came and went at one instant: the line has not been there yet.
            None if next.vacant => {}
            None => spans.push(next),
        }
    }
    if let Some(last) = spans.last_mut() {
        last.to = ended_at;
    }
    spans
}

/// Who sits on the line at that moment, the longest-seated first.
fn present(sittings: &[Sitting], at: Timestamp) -> Vec<&Sitting> {
    let mut seated: Vec<&Sitting> = sittings
        .iter()
        .filter(|sitting| sitting.from <= at && sitting.to.is_none_or(|to| at < to))
        .collect();
    seated.sort_by_key(|sitting| {
        (
            first_seated(sittings, &sitting.participant_sid),
            sitting.participant_sid.as_str(),
        )
    });
    seated
}

fn first_seated(sittings: &[Sitting], participant_sid: &str) -> Option<Timestamp> {
    sittings
        .iter()
        .filter(|sitting| sitting.participant_sid == participant_sid)
        .map(|sitting| sitting.from)
        .min()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::events::Via;
    use crate::mirror::Version;

    const LINE: &str = "+15017122661";

    fn fact(participant: u8, at: &str, identity: Option<&str>, removed: bool) -> Fact {
        let at: Timestamp = at.parse().unwrap();
        Fact {
            conversation_sid: "CH00000000000000000000000000000001".parse().unwrap(),
            participant_sid: format!("MB{participant:032}").parse().unwrap(),
            version: Version {
                at,
                exact: at.subsec_nanosecond() != 0,
            },
            line: Some(LINE.parse().unwrap()),
            identity: identity.map(str::to_owned),
            removed,
            via: Via::Webhook,
        }
    }

    fn told(facts: &[Fact], ended_at: Option<&str>) -> Vec<String> {
        let ended_at = ended_at.map(|at| at.parse().unwrap());
        derive(facts, ended_at)
            .remove(LINE)
            .unwrap_or_default()
            .into_iter()
            .map(|span| {
                let to = span.to.map_or("…".to_owned(), |to| to.to_string());
                format!(
                    "{} – {to} {}",
                    span.from,
                    span.holder.as_deref().unwrap_or("nobody")
                )
            })
            .collect()
    }

    #[test]
    fn a_line_passes_from_nobody_to_one_and_to_another() {
        let facts = [
            fact(1, "2026-01-02T10:00:00.100Z", None, false),
            fact(1, "2026-01-02T10:00:05.100Z", Some("maya"), false),
            fact(1, "2026-01-02T10:00:09.100Z", Some("noor"), false),
        ];
        insta::assert_debug_snapshot!(told(&facts, None), @r#"
        [
            "2026-01-02T10:00:00.1Z – 2026-01-02T10:00:05.1Z nobody",
            "2026-01-02T10:00:05.1Z – 2026-01-02T10:00:09.1Z maya",
            "2026-01-02T10:00:09.1Z – … noor",
        ]
        "#);
    }

    #[test]
    fn while_two_share_the_line_the_one_who_had_it_keeps_it() {
        let facts = [
            fact(1, "2026-01-02T10:00:00.100Z", Some("maya"), false),
            fact(2, "2026-01-02T10:00:05.100Z", Some("noor"), false),
            fact(1, "2026-01-02T10:00:06.100Z", Some("maya"), true),
        ];
        insta::assert_debug_snapshot!(told(&facts, None), @r#"
        [
            "2026-01-02T10:00:00.1Z – 2026-01-02T10:00:06.1Z maya",
            "2026-01-02T10:00:06.1Z – … noor",
        ]
        "#);
    }

    #[test]
    fn a_line_without_a_participant_is_held_by_nobody_until_the_conversation_ends() {
        let facts = [
            fact(1, "2026-01-02T10:00:00.100Z", Some("maya"), false),
            fact(1, "2026-01-02T10:00:06.100Z", Some("maya"), true),
            fact(2, "2026-01-02T10:00:08.100Z", Some("noor"), false),
        ];
        insta::assert_debug_snapshot!(told(&facts, Some("2026-01-02T11:00:00Z")), @r#"
        [
            "2026-01-02T10:00:00.1Z – 2026-01-02T10:00:06.1Z maya",
            "2026-01-02T10:00:06.1Z – 2026-01-02T10:00:08.1Z nobody",
            "2026-01-02T10:00:08.1Z – 2026-01-02T11:00:00Z noor",
        ]
        "#);
    }

    #[test]
    fn a_line_that_came_and_went_at_one_instant_has_not_been_there() {
        let mut facts = vec![
            fact(1, "2026-01-02T10:00:00.100Z", None, false),
            fact(1, "2026-01-02T10:00:00.100Z", None, true),
        ];
        assert_eq!(told(&facts, None), [""; 0]);
        facts.push(fact(2, "2026-01-02T10:00:08.100Z", Some("noor"), false));
        assert_eq!(told(&facts, None), ["2026-01-02T10:00:08.1Z – … noor"]);
    }

    #[test]
    fn an_answer_cut_to_the_second_does_not_move_what_a_webhook_timed_exactly() {
        let facts = [
            fact(1, "2026-01-02T10:00:00.100Z", Some("maya"), false),
            fact(1, "2026-01-02T10:00:05Z", Some("noor"), false),
            fact(1, "2026-01-02T10:00:05.600Z", Some("noor"), false),
        ];
        insta::assert_debug_snapshot!(told(&facts, None), @r#"
        [
            "2026-01-02T10:00:00.1Z – 2026-01-02T10:00:05.6Z maya",
            "2026-01-02T10:00:05.6Z – … noor",
        ]
        "#);
    }

    #[test]
    fn an_answer_of_the_same_second_as_another_fact_stands_after_it() {
        let facts = [
            fact(1, "2026-01-02T10:00:05Z", Some("noor"), false),
            fact(1, "2026-01-02T10:00:05.600Z", Some("maya"), false),
        ];
        insta::assert_debug_snapshot!(told(&facts, None), @r#"
        [
            "2026-01-02T10:00:05.6Z – … noor",
        ]
        "#);
    }

    #[test]
    fn an_answer_that_settled_a_doubt_is_believed_although_an_earlier_webhook_said_the_same() {
        // maya, then noor, then maya again within one second; the last webhook was lost, and a read told.
        let mut read = fact(1, "2026-01-02T10:00:05.600001Z", Some("maya"), false);
        read.version.exact = false;
        let facts = [
            fact(1, "2026-01-02T10:00:05.100Z", Some("maya"), false),
            fact(1, "2026-01-02T10:00:05.600Z", Some("noor"), false),
            read,
        ];
        insta::assert_debug_snapshot!(told(&facts, None), @r#"
        [
            "2026-01-02T10:00:05.1Z – 2026-01-02T10:00:05.6Z maya",
            "2026-01-02T10:00:05.6Z – 2026-01-02T10:00:05.600001Z noor",
            "2026-01-02T10:00:05.600001Z – … maya",
        ]
        "#);
    }

    #[test]
    fn an_answer_that_a_later_answer_overtook_stands_at_its_time() {
        // A read says maya, a webhook of the same second noor, and the read that was asked for because of it noor.
        let mut settling = fact(1, "2026-01-02T10:00:05.000001Z", Some("noor"), false);
        settling.version.exact = false;
        let facts = [
            fact(1, "2026-01-02T10:00:05Z", Some("maya"), false),
            fact(1, "2026-01-02T10:00:05.600Z", Some("noor"), false),
            settling,
        ];
        insta::assert_debug_snapshot!(told(&facts, None), @r#"
        [
            "2026-01-02T10:00:05Z – 2026-01-02T10:00:05.6Z maya",
            "2026-01-02T10:00:05.6Z – … noor",
        ]
        "#);
    }

    proptest! {
        #[test]
        fn spans_leave_no_hole_do_not_overlap_and_do_not_depend_on_the_order_of_facts(
            raw in prop::collection::vec((1u8..4, 0i64..20_000, prop::option::of(0u8..3), prop::bool::weighted(0.2)), 1..12),
            seed in prop::collection::vec(any::<u32>(), 12),
            ended in prop::option::of(0i64..25_000),
        ) {
            let start: Timestamp = "2026-01-02T10:00:00Z".parse().unwrap();
            let facts: Vec<Fact> = raw.iter().map(|(participant, after, identity, removed)| {
                let at = Timestamp::from_millisecond(start.as_millisecond() + after).unwrap();
                let identity = identity.map(|number| format!("agent-{number}"));
                fact(*participant, &at.to_string(), identity.as_deref(), *removed)
            }).collect();
            let ended_at = ended.map(|after| Timestamp::from_millisecond(start.as_millisecond() + after).unwrap());
            let spans = derive(&facts, ended_at);
            for spans in spans.values() {
                for pair in spans.windows(2) {
                    prop_assert_eq!(pair[0].to, Some(pair[1].from));
                    prop_assert!(pair[0].from < pair[1].from);
                }
                prop_assert_eq!(spans.last().unwrap().to, ended_at);
            }
            let mut shuffled: Vec<(u32, Fact)> = seed.into_iter().zip(facts).collect();
            shuffled.sort_by_key(|(key, _)| *key);
            let shuffled: Vec<Fact> = shuffled.into_iter().map(|(_, fact)| fact).collect();
            prop_assert_eq!(derive(&shuffled, ended_at), spans);
        }
    }
}
