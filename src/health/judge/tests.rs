use super::*;
use crate::health::Refusal;
use crate::ids::PhoneNumber;

const LINE: &str = "+15017122661";
const SERVICE: &str = "MG00000000000000000000000000000001";

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_780_000_000 + second).unwrap()
}

fn conversation() -> ConversationRow {
    ConversationRow {
        conversation_sid: "CH00000000000000000000000000000001".parse().unwrap(),
        account_sid: "AC00000000000000000000000000000001".parse().unwrap(),
        service_sid: None,
        messaging_service_sid: Some(SERVICE.to_owned()),
        friendly_name: None,
        unique_name: None,
        attributes: None,
        state: Some("active".to_owned()),
        created_at: Some(at(0)),
        closed_at: None,
        removed_at: None,
        autocreated: false,
        unverified_since: None,
        verified_at: Some(at(1)),
        first_seen_at: at(0),
        last_message_at: None,
        erased_at: None,
    }
}

fn member(sid: &str) -> ParticipantRow {
    ParticipantRow {
        conversation_sid: "CH00000000000000000000000000000001".to_owned(),
        participant_sid: sid.to_owned(),
        identity: None,
        address: None,
        proxy_address: None,
        projected_address: None,
        attributes: None,
        role_sid: None,
        last_read_message_index: None,
        created_at: Some(at(0)),
        updated_at: at(0),
        removed_at: None,
        erased_at: None,
    }
}

fn handset(sid: &str, address: &str) -> ParticipantRow {
    ParticipantRow {
        address: Some(address.to_owned()),
        ..member(sid)
    }
}

fn seat(holder: Option<&str>) -> ParticipantRow {
    ParticipantRow {
        identity: holder.map(str::to_owned),
        projected_address: Some(LINE.to_owned()),
        ..member("MB3")
    }
}

/// Two handsets and our line.
fn group(seat: ParticipantRow) -> Vec<ParticipantRow> {
    vec![
        handset("MB1", "+15555550101"),
        handset("MB2", "+15555550102"),
        seat,
    ]
}

struct Case {
    conversation: ConversationRow,
    participants: Vec<ParticipantRow>,
    last_holder: Option<&'static str>,
    sends: Vec<LineSend>,
    numbers: Vec<PhoneNumber>,
    autocreating: Option<Autocreating>,
    account_is_known: bool,
    departure_was_told: bool,
}

impl Case {
    fn new(participants: Vec<ParticipantRow>) -> Self {
        Self {
            conversation: conversation(),
            participants,
            last_holder: Some("maya"),
            sends: Vec::new(),
            numbers: vec![LINE.parse().unwrap()],
            autocreating: Some(Autocreating([LINE.to_owned()].into())),
            account_is_known: true,
            departure_was_told: true,
        }
    }

    fn judged(&self) -> Judgement {
        let last_holders = self
            .last_holder
            .map(|holder| (LINE.to_owned(), holder.to_owned()));
        judge(&Situation {
            conversation: &self.conversation,
            participants: &self.participants,
            last_holders: &last_holders.into_iter().collect(),
            sends: &self.sends,
            departure_was_told: self.departure_was_told,
            ours: self.account_is_known.then_some(Ours {
                numbers: &self.numbers,
                messaging_service_sid: SERVICE,
            }),
            autocreating: self.autocreating.as_ref(),
        })
    }

    fn found(&self) -> Vec<(Code, Option<Repair>)> {
        let found = self.judged().found;
        found.into_iter().map(|one| (one.code, one.repair)).collect()
    }
}

#[test]
fn a_departure_that_nobody_told_may_have_been_at_any_time() {
    let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
    let group = group(seat(Some("maya")));
    let mut participants = group;
    for one in &mut participants {
        one.created_at = at("2026-01-02T10:00:00Z");
    }
    participants[2].removed_at = at("2026-01-02T11:00:00Z");
    let mut case = Case::new(participants);
    let (safe, unsafe_) = (
        [(Code::ProjectedParticipantMissing, Some(Repair::ReaddParticipant))],
        [(Code::ProjectedParticipantMissing, None)],
    );
    assert_eq!(case.found(), safe);
    case.departure_was_told = false;
    assert_eq!(case.found(), safe, "nobody came or left since the group was made");
    // It may have come after ours had left.
    case.participants[1].created_at = at("2026-01-02T10:05:00Z");
    assert_eq!(case.found(), unsafe_);
    case.departure_was_told = true;
    assert_eq!(case.found(), safe);
    case.departure_was_told = false;
    case.participants[1].created_at = at("2026-01-02T10:00:00Z");
    case.participants.push(ParticipantRow {
        created_at: at("2026-01-02T10:00:00Z"),
        removed_at: at("2026-01-02T10:59:00Z"),
        ..handset("MB4", "+15555550103")
    });
    assert_eq!(case.found(), unsafe_, "it may have left after ours");
}

#[test]
fn of_a_number_that_is_no_longer_in_the_group_no_refusal_counts() {
    let mut case = Case::new(group(seat(Some("maya"))));
    let at = at(0);
    case.sends = vec![LineSend {
        line: "+15017122662".to_owned(),
        refusal: Some(Refusal {
            code: "50513".to_owned(),
            in_a_row: 2,
            since: at,
            at,
            outbound_message_id: uuid::Uuid::nil(),
        }),
        accepted_at: None,
    }];
    assert_eq!(case.found(), []);
    case.sends[0].line = LINE.to_owned();
    assert_eq!(case.found(), [(Code::AuthorNotInGroup, Some(Repair::ReadAgain))]);
}

#[test]
fn nothing_is_wrong_with_a_staffed_group_one_that_is_over_or_no_group_at_all() {
    assert_eq!(
        Case::new(group(seat(Some("maya")))).judged(),
        Judgement::default()
    );
    let mut over = Case::new(group(seat(None)));
    over.conversation.state = Some("closed".to_owned());
    assert_eq!(over.found(), []);
    let mut making = Case::new(group(seat(None)));
    making.conversation.state = Some("initializing".to_owned());
    assert_eq!(making.found(), []);
    let mut chat = Case::new(vec![member("MB1")]);
    chat.conversation.messaging_service_sid = None;
    assert_eq!(chat.found(), []);
}

#[test]
fn our_number_is_added_again_only_to_the_very_group_that_it_left() {
    let gone = ParticipantRow {
        removed_at: Some(at(100)),
        ..seat(Some("maya"))
    };
    let missing = |repair| [(Code::ProjectedParticipantMissing, repair)];
    assert_eq!(
        Case::new(group(gone.clone())).found(),
        missing(Some(Repair::ReaddParticipant))
    );

    // Somebody came, somebody left, it is not told who was there, and nobody is left.
    let mut came = Case::new(group(gone.clone()));
    came.participants[0].created_at = Some(at(101));
    let mut left = Case::new(group(gone.clone()));
    left.participants[1].removed_at = Some(at(101));
    let mut untold = Case::new(group(gone.clone()));
    untold.participants[1].created_at = None;
    let alone = Case::new(vec![gone.clone()]);
    for case in [came, left, untold, alone] {
        assert_eq!(case.found(), missing(None));
    }
    let mut long_before = Case::new(group(gone.clone()));
    long_before.participants.push(ParticipantRow {
        removed_at: Some(at(50)),
        ..handset("MB4", "+15555550103")
    });
    assert_eq!(long_before.found(), missing(Some(Repair::ReaddParticipant)));

    // The number is no longer ours to add; and another line of ours is there, so that this one was taken out on purpose.
    let mut foreign = Case::new(group(gone.clone()));
    foreign.numbers.clear();
    assert_eq!(foreign.found(), missing(None));
    let mut other_line = Case::new(group(gone));
    other_line.participants.push(ParticipantRow {
        projected_address: Some(LINE.to_owned()),
        identity: Some("noor".to_owned()),
        ..member("MB5")
    });
    assert_eq!(other_line.found(), []);
}

#[test]
fn an_unstaffed_line_gets_its_last_holder_back_unless_they_are_there_already() {
    let mut case = Case::new(group(seat(None)));
    assert_eq!(
        case.found(),
        [(Code::LineUnstaffed, Some(Repair::ReattachHolder))]
    );
    case.last_holder = None;
    assert_eq!(case.found(), [(Code::LineUnstaffed, None)]);
    case.last_holder = Some("maya");
    case.numbers.push("+15017122662".parse().unwrap());
    case.autocreating = None;
    case.participants.push(ParticipantRow {
        projected_address: Some("+15017122662".to_owned()),
        identity: Some("maya".to_owned()),
        ..member("MB4")
    });
    assert_eq!(case.found(), [(Code::LineUnstaffed, None)]);
    // While a transfer adds the new holder beside an empty seat, the line is staffed.
    case.participants[3].projected_address = Some(LINE.to_owned());
    assert_eq!(case.found(), []);
}

#[test]
fn the_messaging_service_has_to_be_the_accounts() {
    let mut case = Case::new(group(seat(Some("maya"))));
    let pin = Some(Repair::PinMessagingService);
    case.conversation.messaging_service_sid = Some("MG0000000000000000000000000000000f".to_owned());
    assert_eq!(case.found(), [(Code::MessagingServiceDiffers, pin)]);
    case.conversation.messaging_service_sid = None;
    assert_eq!(case.found(), [(Code::MessagingServiceMissing, pin)]);
    // A webhook may leave it out.
    case.conversation.verified_at = None;
    assert_eq!(case.found(), [(Code::NeverVerified, Some(Repair::ReadAgain))]);
}

#[test]
fn a_number_has_to_be_configured_here_and_at_twilio() {
    let mut case = Case::new(group(seat(Some("maya"))));
    case.autocreating = Some(Autocreating::default());
    assert_eq!(case.found(), [(Code::NumberNotAutocreating, None)]);
    case.numbers.clear();
    assert_eq!(case.found(), [(Code::NumberNotConfigured, None)]);
    // What nobody asked about, nobody knows: a finding of it stays as it is.
    case.autocreating = None;
    assert!(case.judged().open.contains(&Code::NumberNotAutocreating));
    case.account_is_known = false;
    let judged = case.judged();
    assert_eq!(judged.found, []);
    assert!(judged.open.contains(&Code::NumberNotConfigured));
}

#[test]
fn refusals_in_a_row_are_told_by_what_they_are() {
    let mut case = Case::new(group(seat(Some("maya"))));
    let refused = |code: &str| LineSend {
        line: LINE.to_owned(),
        refusal: Some(Refusal {
            code: code.to_owned(),
            in_a_row: 3,
            since: at(10),
            at: at(30),
            outbound_message_id: uuid::Uuid::from_u128(7),
        }),
        accepted_at: Some(at(5)),
    };
    let mut found = |code: &str| {
        case.sends = vec![refused(code)];
        case.found()
    };
    assert_eq!(
        found("50513"),
        [(Code::AuthorNotInGroup, Some(Repair::ReadAgain))]
    );
    assert_eq!(found("50452"), [(Code::SendRefused, Some(Repair::ReadAgain))]);
    assert_eq!(
        found("50373"),
        [(Code::SendRefused, Some(Repair::PinMessagingService))]
    );
    let evidence = &case.judged().found[0].evidence;
    assert_eq!(
        (&evidence["refused_in_a_row"], &evidence["error_code"]),
        (&json!(3), &json!("50373"))
    );
    case.sends = vec![LineSend {
        refusal: None,
        ..refused("50513")
    }];
    assert_eq!(case.found(), []);
}
