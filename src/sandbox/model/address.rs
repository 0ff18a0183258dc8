//! Numbers and the shapes of participants that they make: native, proxied, projected, gateway, chat.
//!
//! Only what one participant alone may look like; what a conversation may hold is in [`super::group`].

use std::collections::BTreeSet;

use crate::ids::PhoneNumber;

use super::refusal::{
    ADDRESS_EMPTY, ADDRESS_INVALID, ADDRESS_IS_PROXY, CHANNELS_DIFFER, IDENTITY_MISSING, IDENTITY_TOO_LONG,
    IDENTITY_UNACCEPTABLE, PROJECTED_NOT_OURS, PROXY_EMPTY, PROXY_INVALID, PROXY_NOT_OURS, Refusal,
};

/// How a participant is reached (Twilio: "Group Texting in Conversations", address kinds).
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Binding {
    /// An identity alone.
    Chat,
    /// A handset in the group.
    Native(PhoneNumber),
    /// A handset that sees one of our numbers and nobody else.
    Proxied {
        address: PhoneNumber,
        proxy: PhoneNumber,
    },
    /// One of our numbers in the group: with an identity a projected participant, without one a gateway.
    Projected(PhoneNumber),
}

impl Binding {
    /// Whether the participant takes part in group MMS.
    pub(crate) fn is_group(&self) -> bool {
        matches!(self, Self::Native(_) | Self::Projected(_))
    }

    /// The number that the group knows the participant by.
    pub(crate) fn group_number(&self) -> Option<&PhoneNumber> {
        match self {
            Self::Native(number) | Self::Projected(number) => Some(number),
            Self::Chat | Self::Proxied { .. } => None,
        }
    }

    /// The participant's own handset.
    pub(crate) fn handset(&self) -> Option<&PhoneNumber> {
        match self {
            Self::Native(address) | Self::Proxied { address, .. } => Some(address),
            Self::Chat | Self::Projected(_) => None,
        }
    }

    pub(crate) fn projected(&self) -> Option<&PhoneNumber> {
        match self {
            Self::Projected(number) => Some(number),
            _ => None,
        }
    }
}

/// The four address parameters of a participant to be created, as they came.
#[derive(Clone, Default)]
pub(crate) struct Shape {
    pub(crate) identity: Option<String>,
    pub(crate) address: Option<String>,
    pub(crate) proxy_address: Option<String>,
    pub(crate) projected_address: Option<String>,
}

impl Shape {
    /// The one way to read these parameters, or why there is none.
    pub(crate) fn resolve(
        &self,
        owned: &BTreeSet<PhoneNumber>,
    ) -> Result<(Option<String>, Binding), Refusal> {
        let identity = self.identity.as_deref().filter(|identity| !identity.is_empty());
        if let Some(identity) = identity {
            check_identity(identity)?;
        }
        let addresses = (
            self.address.as_deref(),
            self.proxy_address.as_deref(),
            self.projected_address
                .as_deref()
                .filter(|address| !address.is_empty()),
        );
        let binding = match addresses {
            (None, None, None) if identity.is_none() => return Err(IDENTITY_MISSING.refuse()),
            (None, None, None) => Binding::Chat,
            (Some(_), _, Some(_)) => {
                return Err(ADDRESS_INVALID.saying("Address and ProjectedAddress were both given"));
            }
            (Some(_), _, None) if identity.is_some() => return Err(IDENTITY_UNACCEPTABLE.refuse()),
            (Some(address), None, None) => Binding::Native(native(address, owned)?),
            (Some(address), Some(proxy), None) => proxied(address, proxy, owned)?,
            (None, Some(_), _) => {
                return Err(ADDRESS_EMPTY.saying("ProxyAddress was given without an Address"));
            }
            (None, None, Some(projected)) => Binding::Projected(projected_number(projected, owned)?),
        };
        Ok((identity.map(str::to_owned), binding))
    }
}

pub(crate) fn check_identity(identity: &str) -> Result<(), Refusal> {
    if identity.chars().count() > 256 {
        return Err(IDENTITY_TOO_LONG.refuse());
    }
    if identity.chars().any(char::is_control) {
        return Err(IDENTITY_UNACCEPTABLE.refuse());
    }
    Ok(())
}

/// One of our numbers, as `MessagingBinding.ProjectedAddress`.
pub(crate) fn projected_number(text: &str, owned: &BTreeSet<PhoneNumber>) -> Result<PhoneNumber, Refusal> {
    let number = PhoneNumber::try_from(text).map_err(|_| ADDRESS_INVALID.refuse())?;
    if !owned.contains(&number) {
        return Err(PROJECTED_NOT_OURS.refuse());
    }
    // Twilio: toll-free numbers and short codes cannot take part in group texts.
    if !is_long_code(&number) {
        return Err(ADDRESS_INVALID.refuse());
    }
    Ok(number)
}

/// One of our numbers, as `MessagingBinding.ProxyAddress` of `address`.
pub(crate) fn proxy_number(
    text: &str,
    address: &PhoneNumber,
    owned: &BTreeSet<PhoneNumber>,
) -> Result<PhoneNumber, Refusal> {
    if text.is_empty() {
        return Err(PROXY_EMPTY.refuse());
    }
    let number = PhoneNumber::try_from(text).map_err(|_| PROXY_INVALID.refuse())?;
    if number == *address {
        return Err(ADDRESS_IS_PROXY.refuse());
    }
    if owned.contains(&number) {
        Ok(number)
    } else {
        Err(PROXY_NOT_OURS.refuse())
    }
}

fn native(text: &str, owned: &BTreeSet<PhoneNumber>) -> Result<PhoneNumber, Refusal> {
    let number = outsider(text, owned)?;
    if is_long_code(&number) {
        Ok(number)
    } else {
        Err(ADDRESS_INVALID.refuse())
    }
}

fn proxied(address: &str, proxy: &str, owned: &BTreeSet<PhoneNumber>) -> Result<Binding, Refusal> {
    let channel = |text: &str| text.split_once(':').map(|(channel, _)| channel.to_owned());
    if !proxy.is_empty() && channel(address) != channel(proxy) {
        return Err(CHANNELS_DIFFER.refuse());
    }
    if !address.is_empty() && address == proxy {
        return Err(ADDRESS_IS_PROXY.refuse());
    }
    let address = outsider(address, owned)?;
    let proxy = proxy_number(proxy, &address, owned)?;
    Ok(Binding::Proxied { address, proxy })
}

/// A number that is not one of ours.
fn outsider(text: &str, owned: &BTreeSet<PhoneNumber>) -> Result<PhoneNumber, Refusal> {
    if text.is_empty() {
        return Err(ADDRESS_EMPTY.refuse());
    }
    let number = PhoneNumber::try_from(text).map_err(|_| ADDRESS_INVALID.refuse())?;
    if owned.contains(&number) {
        return Err(ADDRESS_INVALID.saying("Address is a Twilio number of this account"));
    }
    Ok(number)
}

/// Whether a number is a +1 long code of the United States or Canada, which is all that group MMS knows.
pub(crate) fn is_long_code(number: &PhoneNumber) -> bool {
    const TOLL_FREE: &[&str] = &["800", "833", "844", "855", "866", "877", "888"];
    // Countries that share +1, and Guam, which Twilio was seen to refuse.
    const ELSEWHERE: &[&str] = &[
        "242", "246", "264", "268", "284", "345", "441", "473", "649", "658", "664", "671", "721", "758",
        "767", "784", "809", "829", "849", "868", "869", "876",
    ];
    let Some(digits) = number
        .as_str()
        .strip_prefix("+1")
        .filter(|digits| digits.len() == 10)
    else {
        return false;
    };
    let area = &digits[..3];
    !digits.starts_with(['0', '1']) && !TOLL_FREE.contains(&area) && !ELSEWHERE.contains(&area)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owned() -> BTreeSet<PhoneNumber> {
        ["+15017122661", "+18005550100"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect()
    }

    fn code(
        identity: &str,
        address: Option<&str>,
        proxy: Option<&str>,
        projected: Option<&str>,
    ) -> Option<u32> {
        let text = |text: &str| text.to_owned();
        let shape = Shape {
            identity: Some(text(identity)),
            address: address.map(text),
            proxy_address: proxy.map(text),
            projected_address: projected.map(text),
        };
        shape.resolve(&owned()).err().map(|refusal| refusal.code)
    }

    #[test]
    fn the_five_shapes_of_a_participant_are_accepted() {
        assert_eq!(code("agent-7", None, None, None), None);
        assert_eq!(code("", Some("+15555550101"), None, None), None);
        assert_eq!(code("", Some("+447700900123"), Some("+15017122661"), None), None);
        assert_eq!(code("agent-7", None, None, Some("+15017122661")), None);
        assert_eq!(code("", None, None, Some("+15017122661")), None);
    }

    #[test]
    fn any_other_shape_is_refused_by_its_own_code() {
        let member = Some("+15555550101");
        let ours = Some("+15017122661");
        assert_eq!(code("", None, None, None), Some(50204));
        assert_eq!(code("", member, None, ours), Some(50407));
        assert_eq!(code("agent-7", member, None, None), Some(50211));
        assert_eq!(code("", ours, None, None), Some(50407));
        assert_eq!(code("", Some("+16715550101"), None, None), Some(50407));
        assert_eq!(code("", Some("+18445550101"), None, None), Some(50407));
        assert_eq!(code("", Some("+447700900123"), None, None), Some(50407));
        assert_eq!(code("", Some("555-0101"), None, None), Some(50407));
        assert_eq!(code("", Some(""), None, None), Some(50411));
        assert_eq!(code("", None, ours, None), Some(50411));
        assert_eq!(code("", member, Some(""), None), Some(50412));
        assert_eq!(code("", member, Some("17122661"), None), Some(50408));
        assert_eq!(code("", member, member, None), Some(50409));
        assert_eq!(code("", member, Some("+15555550199"), None), Some(50413));
        assert_eq!(code("", Some("whatsapp:+15555550101"), ours, None), Some(50414));
        assert_eq!(code("", None, None, Some("+15555550199")), Some(50439));
        assert_eq!(code("", None, None, Some("+18005550100")), Some(50407));
        assert_eq!(code(&"a".repeat(257), None, None, None), Some(50207));
        assert_eq!(code("a\u{7}", None, None, None), Some(50211));
    }
}
