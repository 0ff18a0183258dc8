//! What is answered where no route is: to be attached once, to the whole router.

use crate::web::problem::Problem;

/// 404, for `Router::fallback`.
pub async fn not_found() -> Problem {
    Problem::NotFound { what: "path" }
}

/// 405, for `Router::method_not_allowed_fallback`; axum adds `Allow`.
pub async fn method_not_allowed() -> Problem {
    Problem::MethodNotAllowed
}
