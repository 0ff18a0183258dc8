//! Reading the mirror as it was: against a replay of what had been said by then, and through webhooks and the API.

mod flow;
mod replay;
