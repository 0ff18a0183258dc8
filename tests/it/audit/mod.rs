//! What auditors rely on: views, seals, and what they may do.

mod seals;
mod views;
