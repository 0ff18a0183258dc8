//! All flow tests, in one binary since linking is slow. Each file is one flow.

mod sandbox;
mod support;
