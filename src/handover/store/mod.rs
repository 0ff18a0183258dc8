//! Rows of plans, their rules and their lines.

mod counts;
mod ground;
mod line;
mod plan;

pub use counts::{Counts, Given, counts, given};
pub(super) use ground::{conversation_states, last_turn, members, on_the_way};
pub(super) use line::{
    Ended, UnderWay, ask_again, cancel_waiting, ended, insert_found, lines_to_assign, lock_line,
    next_not_before, next_to_go_back, next_waiting, settle_doubts, under_way, update_line, write_decided,
};
pub use line::{Filter, page_of_lines};
pub use plan::{find, page, rules};
pub(super) use plan::{insert, is_another_at_work, lock, update};
