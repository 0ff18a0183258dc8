//! What a group text may be, checked before Twilio is asked: all that is wrong at once, each with its place. Pure.
//!
//! The rules are those of Twilio's page "Group Texting in Conversations" and of errors 50407, 50426 and 50434 to 50439.

use std::collections::BTreeMap;

use crate::group_text::Member;
use crate::ids::{AccountSid, Identity, PhoneNumber};

/// All participants, projected addresses included (Twilio: Group Texting).
pub const MEMBERS_MAX: usize = 10;

/// A member as somebody asks for it, nothing checked yet.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct NewMember {
    pub address: Option<String>,
    pub line: Option<String>,
    pub holder: Option<String>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// A JSON pointer into the request.
    pub field: String,
    pub code: &'static str,
    pub message: String,
}

/// What is left of a request when nothing is wrong with it.
#[derive(Clone, PartialEq, Eq)]
pub struct Valid {
    pub account_sid: AccountSid,
    pub members: Vec<Member>,
    /// The sorted numbers of all members.
    pub roster: String,
}

/// Checks the members against the rules and against the numbers that are ours.
pub fn members(
    members: &[NewMember],
    own_numbers: &BTreeMap<String, AccountSid>,
) -> Result<Valid, Vec<Violation>> {
    let mut check = Check {
        own_numbers,
        violations: Vec::new(),
        first_place: BTreeMap::new(),
    };
    let checked: Vec<Member> = members
        .iter()
        .enumerate()
        .filter_map(|(place, member)| check.member(place, member))
        .collect();
    check.counts(members);
    check.holders(members);
    let account_sid = check.one_account(members);
    match (check.violations.is_empty(), account_sid) {
        (true, Some(account_sid)) => Ok(Valid {
            account_sid,
            roster: roster(&checked),
            members: checked,
        }),
        _ => Err(check.violations),
    }
}

/// The sorted set of all numbers: at most one open conversation of it at Twilio.
pub fn roster(members: &[Member]) -> String {
    let mut numbers: Vec<&str> = members
        .iter()
        .map(|member| match member {
            Member::Line { line, .. } => line.as_str(),
            Member::Outsider { address } => address.as_str(),
        })
        .collect();
    numbers.sort_unstable();
    numbers.join(",")
}

struct Check<'a> {
    own_numbers: &'a BTreeMap<String, AccountSid>,
    violations: Vec<Violation>,
    first_place: BTreeMap<String, usize>,
}

impl Check<'_> {
    fn wrong(&mut self, field: impl Into<String>, code: &'static str, message: impl Into<String>) {
        self.violations.push(Violation {
            field: field.into(),
            code,
            message: message.into(),
        });
    }

    fn member(&mut self, place: usize, member: &NewMember) -> Option<Member> {
        match (&member.address, &member.line) {
            (Some(address), None) => self.outsider(place, address, member.holder.as_deref()),
            (None, Some(line)) => self.line(place, line, member.holder.as_deref()),
            _ => {
                let message =
                    "expected either `address` (a handset) or `line` (a number of ours), and not both";
                self.wrong(format!("/members/{place}"), "shape", message);
                None
            }
        }
    }

    fn outsider(&mut self, place: usize, address: &str, holder: Option<&str>) -> Option<Member> {
        let field = format!("/members/{place}/address");
        if holder.is_some() {
            let message = "only a `line` has a holder";
            self.wrong(format!("/members/{place}/holder"), "shape", message);
        }
        let number = self.number(&field, address)?;
        if self.own_numbers.contains_key(number.as_str()) {
            self.wrong(&field, "own_number", "this number is ours: name it as `line`");
        }
        self.once(&field, place, &number);
        Some(Member::Outsider {
            address: number.into_string(),
        })
    }

    fn line(&mut self, place: usize, line: &str, holder: Option<&str>) -> Option<Member> {
        let field = format!("/members/{place}/line");
        if let Some(Err(error)) = holder.map(Identity::try_from) {
            self.wrong(format!("/members/{place}/holder"), "identity", error.to_string());
        }
        let number = self.number(&field, line)?;
        if !self.own_numbers.contains_key(number.as_str()) {
            let message = "this number is not one of ours: add it to the account's `numbers`";
            self.wrong(&field, "not_ours", message);
        }
        self.once(&field, place, &number);
        Some(Member::Line {
            line: number.into_string(),
            holder: holder.map(str::to_owned),
        })
    }

    fn number(&mut self, field: &str, text: &str) -> Option<PhoneNumber> {
        match group_number(text) {
            Ok(number) => Some(number),
            Err((code, message)) => {
                self.wrong(field, code, message);
                None
            }
        }
    }

    fn once(&mut self, field: &str, place: usize, number: &PhoneNumber) {
        match self.first_place.get(number.as_str()) {
            Some(first) => self.wrong(
                field,
                "duplicate",
                format!("this number is member {first} already"),
            ),
            None => {
                self.first_place.insert(number.as_str().to_owned(), place);
            }
        }
    }

    fn counts(&mut self, members: &[NewMember]) {
        let lines = members.iter().filter(|member| member.line.is_some()).count();
        let outsiders = members.iter().filter(|member| member.address.is_some()).count();
        if members.len() > MEMBERS_MAX {
            let message = format!(
                "expected at most {MEMBERS_MAX} members, lines included; these are {}",
                members.len()
            );
            self.wrong("/members", "too_many", message);
        }
        if lines == 0 {
            self.wrong(
                "/members",
                "no_line",
                "expected at least one `line`: the number that stands for us",
            );
        }
        if outsiders < 2 {
            let message = "expected at least two handsets (`address`): with one it is no group text";
            self.wrong("/members", "too_few", message);
        }
    }

    /// A person is in a conversation once (50433).
    fn holders(&mut self, members: &[NewMember]) {
        let mut first: BTreeMap<&str, usize> = BTreeMap::new();
        for (place, member) in members.iter().enumerate() {
            let Some(holder) = member.holder.as_deref() else {
                continue;
            };
            match first.get(holder) {
                Some(earlier) => {
                    let message = format!("this person is behind member {earlier} already");
                    self.wrong(format!("/members/{place}/holder"), "duplicate", message);
                }
                None => {
                    first.insert(holder, place);
                }
            }
        }
    }

    fn one_account(&mut self, members: &[NewMember]) -> Option<AccountSid> {
        let mut accounts = members
            .iter()
            .enumerate()
            .filter_map(|(place, member)| Some((place, self.own_numbers.get(member.line.as_deref()?)?)));
        let (_, first) = accounts.next()?;
        if let Some((place, _)) = accounts.find(|(_, other)| *other != first) {
            let message = "this line belongs to another account than the first one";
            self.wrong(format!("/members/{place}/line"), "other_account", message);
        }
        Some(first.clone())
    }
}

/// Loads the metadata of number plans, which else the first request waits for.
pub fn warm_up() {
    drop(group_number("+15555550100"));
}

/// A number that can be in a group text: a *possible* US or Canadian long code. Not "valid": the metadata of number
/// plans lags behind new area codes, and calls the fictitious numbers of Twilio's own guide invalid.
fn group_number(text: &str) -> Result<PhoneNumber, (&'static str, &'static str)> {
    let number = PhoneNumber::try_from(text)
        .map_err(|_| ("e164", "expected a number in E.164 form, like +15555550101"))?;
    let parsed = phonenumber::parse(None, text).map_err(|_| ("e164", "this is not a phone number"))?;
    if parsed.code().value() != 1 {
        return Err((
            "country",
            "group texts work with numbers of the USA and Canada (+1) alone",
        ));
    }
    let national = &text[2..];
    let formatted = parsed.format().mode(phonenumber::Mode::E164).to_string();
    if national.len() != 10 || national.starts_with(['0', '1']) || formatted != text {
        return Err((
            "impossible",
            "expected +1 and ten digits, of which the first is 2 to 9",
        ));
    }
    let area_code = &national[..3];
    if TOLL_FREE.contains(&area_code) {
        return Err(("toll_free", "toll-free numbers cannot take part in group texts"));
    }
    if NOT_US_OR_CANADA.contains(&area_code) {
        return Err((
            "country",
            "group texts work with numbers of the USA and Canada alone, and not of their islands",
        ));
    }
    Ok(number)
}

/// Non-geographic toll-free codes (NANPA, "Toll-Free Resources").
const TOLL_FREE: [&str; 7] = ["800", "833", "844", "855", "866", "877", "888"];

/// Area codes of +1 outside of the USA's states and Canada (NANPA, "Area Code Map"): Twilio refuses them as 50407.
const NOT_US_OR_CANADA: [&str; 27] = [
    "242", "246", "264", "268", "284", "340", "345", "441", "473", "649", "658", "664", "670", "671", "684",
    "721", "758", "767", "784", "787", "809", "829", "849", "868", "869", "876", "939",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn own() -> BTreeMap<String, AccountSid> {
        let account: AccountSid = "AC00000000000000000000000000000001".parse().unwrap();
        let other: AccountSid = "AC00000000000000000000000000000002".parse().unwrap();
        [
            ("+15017122661", &account),
            ("+15017122662", &account),
            ("+15555550177", &other),
        ]
        .into_iter()
        .map(|(number, account)| (number.to_owned(), account.clone()))
        .collect()
    }

    fn handset(number: &str) -> NewMember {
        NewMember {
            address: Some(number.to_owned()),
            ..NewMember::default()
        }
    }

    fn line(number: &str, holder: Option<&str>) -> NewMember {
        NewMember {
            line: Some(number.to_owned()),
            holder: holder.map(str::to_owned),
            address: None,
        }
    }

    fn told(members: &[NewMember]) -> Vec<String> {
        super::members(members, &own())
            .err()
            .unwrap_or_default()
            .into_iter()
            .map(|wrong| format!("{} {}", wrong.field, wrong.code))
            .collect()
    }

    #[test]
    fn the_group_of_twilio_s_guide_passes() {
        let members = [
            handset("+15555550123"),
            handset("+15555550102"),
            line("+15017122661", Some("maya")),
        ];
        let valid = super::members(&members, &own()).ok().unwrap();
        assert_eq!(valid.roster, "+15017122661,+15555550102,+15555550123");
    }

    #[test]
    fn all_that_is_wrong_is_told_at_once() {
        let members = [
            handset("5555550101"),
            handset("+44555501"),
            handset("+18005550101"),
            handset("+16715550101"),
            handset("+1555555"),
            handset("+15017122662"),
            line("+15555550199", None),
            line("+15017122661", Some("maya")),
            line("+15017122661", Some("maya")),
            line("+15555550177", Some("  ")),
            NewMember::default(),
        ];
        insta::assert_debug_snapshot!(told(&members), @r#"
        [
            "/members/0/address e164",
            "/members/1/address country",
            "/members/2/address toll_free",
            "/members/3/address country",
            "/members/4/address impossible",
            "/members/5/address own_number",
            "/members/6/line not_ours",
            "/members/8/line duplicate",
            "/members/9/holder identity",
            "/members/10 shape",
            "/members too_many",
            "/members/8/holder duplicate",
            "/members/9/line other_account",
        ]
        "#);
    }

    #[test]
    fn a_group_needs_a_line_and_two_handsets() {
        assert_eq!(told(&[]), ["/members no_line", "/members too_few"]);
        assert_eq!(
            told(&[line("+15017122661", None), handset("+15555550101")]),
            ["/members too_few"]
        );
    }

    #[test]
    fn a_handset_has_no_holder() {
        let member = NewMember {
            holder: Some("maya".to_owned()),
            ..handset("+15555550101")
        };
        let members = [member, handset("+15555550102"), line("+15017122661", None)];
        assert_eq!(told(&members), ["/members/0/holder shape"]);
    }
}
