//! Who is in the story. The handsets are fictitious; the line is that of Twilio's guide.

/// One of the business's people, as Twilio knows them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Person {
    pub(super) name: &'static str,
    pub(super) identity: &'static str,
}

/// A client, by their handset.
#[derive(Debug, Clone, Copy)]
pub(super) struct Client {
    pub(super) name: &'static str,
    pub(super) number: &'static str,
}

pub(super) const LINE: &str = "+15017122661";

pub(super) const MAYA: Person = Person {
    name: "Maya (agent)",
    identity: "maya",
};
pub(super) const JONAS: Person = Person {
    name: "Jonas (colleague)",
    identity: "jonas",
};
pub(super) const NOOR: Person = Person {
    name: "Noor (supervisor)",
    identity: "noor",
};

pub(super) const ALEX: Client = Client {
    name: "Alex",
    number: "+15555550123",
};
pub(super) const BLAIR: Client = Client {
    name: "Blair",
    number: "+15555550102",
};
pub(super) const CASEY: Client = Client {
    name: "Casey",
    number: "+15555550104",
};

/// Who is meant by a number or an identity.
pub(super) fn name_of(author: &str) -> &str {
    [MAYA, JONAS, NOOR]
        .iter()
        .find(|person| person.identity == author)
        .map(|person| person.name)
        .or_else(|| {
            [ALEX, BLAIR, CASEY]
                .iter()
                .find(|client| client.number == author)
                .map(|client| client.name)
        })
        .unwrap_or(author)
}

/// `+1 501 712 2661`
pub(super) fn spaced(number: &str) -> String {
    match (
        number.get(0..2),
        number.get(2..5),
        number.get(5..8),
        number.get(8..),
    ) {
        (Some(country), Some(area), Some(exchange), Some(rest)) => {
            format!("{country} {area} {exchange} {rest}")
        }
        _ => number.to_owned(),
    }
}
