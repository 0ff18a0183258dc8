//! Rows of plans, their rules and their lines.

mod ground;
mod line;
mod plan;

pub(super) use ground::{conversation_states, members, on_the_way};
pub use line::{Counts, Filter, Given, counts, given, page_of_lines};
pub(super) use line::{
    ask_again, cancel_waiting, ended, insert_found, lines_to_assign, lock_line, next_not_before,
    next_to_go_back, next_waiting, settle_doubts, update_line, write_decided,
};
pub use plan::{find, page, rules};
pub(super) use plan::{insert, is_another_at_work, lock, update};
