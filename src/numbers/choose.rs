//! Which number of a team a new group text gets. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::accounts::Accounts;
use crate::ids::{AccountSid, PhoneNumber};
use crate::numbers::{Number, NumberKind};

/// Why a number is not chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unfit {
    /// Somebody has switched it off.
    Disabled,
    NotLongCode,
    NotMmsCapable,
    /// It is not one of the account's numbers in the settings, or the account is another than that of the other lines.
    OtherAccount,
    /// It is in another messaging service than the account's.
    OtherService,
    /// It is a member of the group already.
    InGroup,
    /// Twilio was asked for it, and had a group of the same numbers.
    Tried,
    /// There is an open group of the same numbers, or one in the making.
    Taken,
}

impl Unfit {
    pub fn code(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::NotLongCode => "not_long_code",
            Self::NotMmsCapable => "not_mms_capable",
            Self::OtherAccount => "other_account",
            Self::OtherService => "other_service",
            Self::InGroup => "in_group",
            Self::Tried => "tried",
            Self::Taken => "taken",
        }
    }
}

/// What a number has to be fit for.
#[derive(Debug, Default)]
pub struct Needs<'a> {
    /// The account of the group's other lines, where it has some.
    pub account_sid: Option<&'a AccountSid>,
    /// The numbers of the group's other members.
    pub members: BTreeSet<&'a str>,
    pub tried: BTreeSet<&'a str>,
}

/// Why a number cannot be a line of the group, apart from the group being there already.
pub fn unfit(number: &Number, accounts: &Accounts, needs: &Needs<'_>) -> Option<Unfit> {
    let plan = &number.plan;
    let digits = number.number.as_str();
    let account = accounts
        .get(plan.account_sid.as_str())
        .filter(|account| account.numbers.contains(&number.number))
        .filter(|account| needs.account_sid.is_none_or(|sid| *sid == account.account_sid));
    match account {
        _ if !plan.enabled => Some(Unfit::Disabled),
        _ if plan.kind != NumberKind::LongCode => Some(Unfit::NotLongCode),
        _ if !plan.mms_capable => Some(Unfit::NotMmsCapable),
        None => Some(Unfit::OtherAccount),
        Some(account)
            if plan
                .messaging_service_sid
                .as_ref()
                .is_some_and(|sid| *sid != account.messaging_service_sid) =>
        {
            Some(Unfit::OtherService)
        }
        _ if needs.members.contains(digits) => Some(Unfit::InGroup),
        _ if needs.tried.contains(digits) => Some(Unfit::Tried),
        Some(_) => None,
    }
}

/// Of the fit ones that are free, the one with fewest groups; the first of those that have the same.
pub fn choose<'a>(
    fit: &'a [PhoneNumber],
    taken: &BTreeSet<String>,
    groups: &BTreeMap<String, u32>,
) -> Option<&'a PhoneNumber> {
    fit.iter()
        .filter(|number| !taken.contains(number.as_str()))
        .min_by_key(|number| groups.get(number.as_str()).copied().unwrap_or(0))
}

/// How many numbers were not chosen for each reason, for an answer that names no number.
pub fn tally(unfit: &[Unfit]) -> BTreeMap<&'static str, usize> {
    let mut tally = BTreeMap::new();
    for one in unfit {
        *tally.entry(one.code()).or_default() += 1;
    }
    tally
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_free_one_with_fewest_groups_is_chosen() {
        let number = |last: u8| PhoneNumber::try_from(format!("+1555555010{last}").as_str()).unwrap();
        let fit = [number(1), number(2), number(3)];
        let groups = BTreeMap::from([(number(1).into_string(), 2), (number(2).into_string(), 1)]);
        let chosen = |taken: &[u8]| {
            let taken = taken.iter().map(|last| number(*last).into_string()).collect();
            choose(&fit, &taken, &groups).cloned()
        };
        assert_eq!(chosen(&[]), Some(number(3)), "none yet");
        assert_eq!(chosen(&[3]), Some(number(2)));
        assert_eq!(chosen(&[2, 3]), Some(number(1)));
        assert_eq!(chosen(&[1, 2, 3]), None);
        assert_eq!(choose(&fit, &BTreeSet::new(), &BTreeMap::new()), Some(&fit[0]));
    }

    #[test]
    fn reasons_are_counted() {
        let counted = tally(&[Unfit::Taken, Unfit::Disabled, Unfit::Taken]);
        assert_eq!(counted, BTreeMap::from([("taken", 2), ("disabled", 1)]));
    }
}
