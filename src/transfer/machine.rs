//! What to do next about a line that changes hands. Pure.
//!
//! The decision rests on what Twilio shows now, not on what was tried before, so that running it again after a crash,
//! a timeout or a lost answer is always right. The pages of Twilio contradict each other on replacing an identity
//! (Group Texting says it works, error 50444 says it does not): both ways are here.

use crate::config::TransferMethod;

/// A participant as far as lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    pub participant_sid: String,
    pub identity: Option<String>,
    /// Its projected address.
    pub line: Option<String>,
}

/// What is known when a step is to be chosen.
#[derive(Debug, Clone)]
pub struct Situation<'a> {
    /// Twilio's state of the conversation; `None` where it no longer has the conversation.
    pub conversation_state: Option<&'a str>,
    pub seats: &'a [Seat],
    pub line: &'a str,
    /// Who held the line when the transfer began.
    pub from: Option<&'a str>,
    /// Who else may be on it, and has to go: a swap that was under way was taken over.
    pub displaced: &'a [Option<String>],
    /// None: the line is left to nobody.
    pub to: Option<&'a str>,
    pub method: TransferMethod,
    /// Twilio said 50444 to an update of this account's.
    pub update_refused: bool,
}

/// The next step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// The target has the line, and nobody else.
    Confirmed,
    /// Replace the identity of this participant.
    Update { participant_sid: String },
    /// Add the target as a second participant on the line.
    Add { beside: String },
    /// Remove the participant of somebody who has to go, while another one is on the line.
    Remove { participant_sid: String },
    /// The conversation is still being set up.
    Wait,
    /// It cannot be done, and nothing was changed.
    Fail { code: &'static str, detail: String },
    /// What is there is neither the old nor the new; a person has to look.
    Attention { code: &'static str, detail: String },
}

/// Chooses the next step.
pub fn next(situation: &Situation<'_>) -> Next {
    let on_line: Vec<&Seat> = situation
        .seats
        .iter()
        .filter(|seat| seat.line.as_deref() == Some(situation.line))
        .collect();
    let has_it = |seat: &Seat| seat.identity.as_deref() == situation.to;
    if let [only] = on_line[..]
        && has_it(only)
    {
        return Next::Confirmed;
    }
    match situation.conversation_state {
        None => return fail("conversation_gone", "Twilio no longer has the conversation"),
        Some("closed") => {
            return fail(
                "conversation_closed",
                "the conversation is closed, which is final at Twilio",
            );
        }
        Some("initializing") => return Next::Wait,
        Some(_) => {}
    }
    let stranger = on_line
        .iter()
        .find(|seat| !has_it(seat) && !has_to_go(situation, seat));
    let arrived = on_line.iter().filter(|seat| has_it(seat)).count();
    match (&on_line[..], stranger) {
        ([], _) => fail("line_gone", "the number is no longer in the conversation"),
        ([holder], _) if target_is_elsewhere(situation) => fail(
            "target_in_group",
            &format!(
                "the target is in the group already, beside {}",
                holder.participant_sid
            ),
        ),
        ([holder], Some(_)) => fail(
            "holder_changed",
            &format!(
                "participant {} was given to somebody else at Twilio meanwhile",
                holder.participant_sid
            ),
        ),
        ([holder], None) => replace(situation, holder),
        (_, Some(_)) => several(&on_line),
        (_, None) if arrived > 1 || (arrived == 0 && target_is_elsewhere(situation)) => several(&on_line),
        // Whoever has the line by the ledger keeps it for as long as possible.
        (several, None) => {
            let goes = several
                .iter()
                .filter(|seat| !has_it(seat))
                .min_by_key(|seat| seat.identity.as_deref() == situation.from)
                .expect("of two on the line, one at most has arrived");
            Next::Remove {
                participant_sid: goes.participant_sid.clone(),
            }
        }
    }
}

fn has_to_go(situation: &Situation<'_>, seat: &Seat) -> bool {
    seat.identity.as_deref() == situation.from || situation.displaced.contains(&seat.identity)
}

fn replace(situation: &Situation<'_>, holder: &Seat) -> Next {
    let update = Next::Update {
        participant_sid: holder.participant_sid.clone(),
    };
    let add = Next::Add {
        beside: holder.participant_sid.clone(),
    };
    match situation.method {
        // Twilio documents no way of taking an identity away; the number alone is a participant of its own kind.
        TransferMethod::Update if situation.to.is_none() => fail(
            "update_refused",
            "an identity cannot be taken away by an update, and the account is set to `update` only",
        ),
        _ if situation.to.is_none() => add,
        // Giving an identity to a number that has none always works.
        _ if holder.identity.is_none() => update,
        TransferMethod::Update if situation.update_refused => fail(
            "update_refused",
            "Twilio refuses to replace an identity, and the account is set to `update` only",
        ),
        TransferMethod::Auto if situation.update_refused => add,
        TransferMethod::AddRemove => add,
        TransferMethod::Auto | TransferMethod::Update => update,
    }
}

fn target_is_elsewhere(situation: &Situation<'_>) -> bool {
    situation.to.is_some()
        && situation.seats.iter().any(|seat| {
            seat.identity.as_deref() == situation.to && seat.line.as_deref() != Some(situation.line)
        })
}

fn fail(code: &'static str, detail: &str) -> Next {
    Next::Fail {
        code,
        detail: detail.to_owned(),
    }
}

fn several(on_line: &[&Seat]) -> Next {
    let sids: Vec<&str> = on_line.iter().map(|seat| seat.participant_sid.as_str()).collect();
    Next::Attention {
        code: "several_holders",
        detail: format!("several participants are on the line: {}", sids.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LINE: &str = "+15017122661";

    fn seat(number: u8, identity: Option<&str>, line: Option<&str>) -> Seat {
        Seat {
            participant_sid: format!("MB{number:032}"),
            identity: identity.map(str::to_owned),
            line: line.map(str::to_owned),
        }
    }

    fn situation<'a>(seats: &'a [Seat], from: Option<&'a str>) -> Situation<'a> {
        Situation {
            conversation_state: Some("active"),
            seats,
            line: LINE,
            from,
            displaced: &[],
            to: Some("noor"),
            method: TransferMethod::Auto,
            update_refused: false,
        }
    }

    fn sid(number: u8) -> String {
        format!("MB{number:032}")
    }

    fn code(next: &Next) -> &'static str {
        match next {
            Next::Fail { code, .. } | Next::Attention { code, .. } => code,
            other => panic!("expected an end, got {other:?}"),
        }
    }

    #[test]
    fn an_unstaffed_line_is_updated_even_where_replacing_is_refused() {
        let seats = [seat(1, None, Some(LINE))];
        let situation = Situation {
            update_refused: true,
            method: TransferMethod::AddRemove,
            ..situation(&seats, None)
        };
        assert_eq!(
            next(&situation),
            Next::Update {
                participant_sid: sid(1)
            }
        );
    }

    #[test]
    fn the_holder_is_replaced_by_update_until_that_is_refused() {
        let seats = [seat(1, Some("maya"), Some(LINE))];
        let first = situation(&seats, Some("maya"));
        assert_eq!(
            next(&first),
            Next::Update {
                participant_sid: sid(1)
            }
        );
        let refused = Situation {
            update_refused: true,
            ..first.clone()
        };
        assert_eq!(next(&refused), Next::Add { beside: sid(1) });
        let update_only = Situation {
            method: TransferMethod::Update,
            ..refused
        };
        assert_eq!(code(&next(&update_only)), "update_refused");
    }

    #[test]
    fn after_adding_the_old_holder_is_removed_and_then_it_is_confirmed() {
        let both = [
            seat(1, Some("maya"), Some(LINE)),
            seat(2, Some("noor"), Some(LINE)),
        ];
        assert_eq!(
            next(&situation(&both, Some("maya"))),
            Next::Remove {
                participant_sid: sid(1)
            }
        );
        let one = [seat(2, Some("noor"), Some(LINE))];
        assert_eq!(next(&situation(&one, Some("maya"))), Next::Confirmed);
    }

    #[test]
    fn a_transfer_that_is_so_already_is_confirmed_even_in_a_closed_conversation() {
        let seats = [seat(1, Some("noor"), Some(LINE))];
        let closed = Situation {
            conversation_state: Some("closed"),
            ..situation(&seats, Some("maya"))
        };
        assert_eq!(next(&closed), Next::Confirmed);
    }

    #[test]
    fn what_cannot_be_done_says_why() {
        let held = [seat(1, Some("maya"), Some(LINE))];
        let other = [seat(1, Some("zoe"), Some(LINE))];
        let elsewhere = [
            seat(1, Some("maya"), Some(LINE)),
            seat(2, Some("noor"), Some("+15017122662")),
        ];
        let three = [
            seat(1, Some("maya"), Some(LINE)),
            seat(2, Some("noor"), Some(LINE)),
            seat(3, Some("zoe"), Some(LINE)),
        ];
        let closed = Situation {
            conversation_state: Some("closed"),
            ..situation(&held, Some("maya"))
        };
        let gone = Situation {
            conversation_state: None,
            ..situation(&[], Some("maya"))
        };
        assert_eq!(code(&next(&closed)), "conversation_closed");
        assert_eq!(code(&next(&gone)), "conversation_gone");
        assert_eq!(code(&next(&situation(&[], Some("maya")))), "line_gone");
        assert_eq!(code(&next(&situation(&other, Some("maya")))), "holder_changed");
        assert_eq!(
            code(&next(&situation(&elsewhere, Some("maya")))),
            "target_in_group"
        );
        assert_eq!(code(&next(&situation(&three, Some("maya")))), "several_holders");
        let starting = Situation {
            conversation_state: Some("initializing"),
            ..situation(&held, Some("maya"))
        };
        assert_eq!(next(&starting), Next::Wait);
    }

    #[test]
    fn a_release_puts_the_number_alone_beside_the_holder_and_removes_the_holder() {
        let held = [seat(1, Some("maya"), Some(LINE)), seat(3, None, None)];
        let release = Situation {
            to: None,
            ..situation(&held, Some("maya"))
        };
        assert_eq!(next(&release), Next::Add { beside: sid(1) });
        let update_only = Situation {
            method: TransferMethod::Update,
            ..release.clone()
        };
        assert_eq!(code(&next(&update_only)), "update_refused");
        let both = [held[0].clone(), seat(2, None, Some(LINE))];
        let half = Situation {
            seats: &both,
            ..release.clone()
        };
        assert_eq!(
            next(&half),
            Next::Remove {
                participant_sid: sid(1)
            }
        );
        let alone = Situation {
            seats: &both[1..],
            ..release
        };
        assert_eq!(next(&alone), Next::Confirmed);
    }

    #[test]
    fn a_swap_that_was_taken_over_is_finished_from_wherever_it_stood() {
        let displaced = [Some("maya".to_owned()), Some("zoe".to_owned())];
        let taken_over = |seats: &[Seat]| {
            next(&Situation {
                displaced: &displaced,
                ..situation(seats, Some("maya"))
            })
        };
        let maya = seat(1, Some("maya"), Some(LINE));
        let zoe = seat(2, Some("zoe"), Some(LINE));
        let noor = seat(3, Some("noor"), Some(LINE));
        let update = |number| Next::Update {
            participant_sid: sid(number),
        };
        let remove = |number| Next::Remove {
            participant_sid: sid(number),
        };
        assert_eq!(
            taken_over(std::slice::from_ref(&maya)),
            update(1),
            "before its change"
        );
        assert_eq!(taken_over(std::slice::from_ref(&zoe)), update(2), "after it");
        assert_eq!(
            taken_over(&[maya.clone(), zoe.clone()]),
            remove(2),
            "in the middle: who came last goes first"
        );
        assert_eq!(taken_over(&[maya, zoe, noor.clone()]), remove(2));
        let stranger = seat(4, Some("ada"), Some(LINE));
        assert_eq!(code(&taken_over(&[stranger, noor])), "several_holders");
    }

    proptest! {
        /// Whatever is on the line, following the steps on a Twilio that does them ends, and never with two holders.
        #[test]
        fn following_the_steps_ends(
            identities in prop::collection::vec(prop::option::of(prop::sample::select(vec!["maya", "noor", "zoe"])), 0..4),
            refuses in any::<bool>(),
            from in prop::option::of(prop::sample::select(vec!["maya", "zoe"])),
            displaced in prop::collection::vec(prop::option::of(prop::sample::select(vec!["maya".to_owned(), "zoe".to_owned()])), 0..3),
            to in prop::option::of(Just("noor")),
        ) {
            let mut seats: Vec<Seat> = identities
                .iter()
                .enumerate()
                .map(|(place, identity)| seat(u8::try_from(place).unwrap(), *identity, Some(LINE)))
                .collect();
            let mut update_refused = false;
            for _ in 0..8 {
                let step = next(&Situation { update_refused, displaced: &displaced, to, ..situation(&seats, from) });
                match step {
                    Next::Update { participant_sid } => {
                        let holder = seats.iter_mut().find(|seat| seat.participant_sid == participant_sid).unwrap();
                        if refuses && holder.identity.is_some() {
                            update_refused = true;
                        } else {
                            holder.identity = to.map(str::to_owned);
                        }
                    }
                    Next::Add { .. } => seats.push(seat(9, to, Some(LINE))),
                    Next::Remove { participant_sid } => seats.retain(|seat| seat.participant_sid != participant_sid),
                    Next::Confirmed => {
                        prop_assert_eq!(seats.len(), 1);
                        prop_assert_eq!(seats[0].identity.as_deref(), to);
                        return Ok(());
                    }
                    Next::Fail { .. } | Next::Attention { .. } => return Ok(()),
                    Next::Wait => prop_assert!(false, "an active conversation is not waited for"),
                }
            }
            prop_assert!(false, "no end after eight steps");
        }
    }
}
