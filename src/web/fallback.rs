//! What is answered where no route is: to be attached once, to the whole router.

use std::future::{Ready, ready};

use crate::web::problem::Problem;

/// 404, for `Router::fallback`.
pub fn not_found() -> Ready<Problem> {
    ready(Problem::NotFound { what: "path" })
}

/// 405, for `Router::method_not_allowed_fallback`; axum adds `Allow`.
pub fn method_not_allowed() -> Ready<Problem> {
    ready(Problem::MethodNotAllowed)
}
