//! stand-in
pub fn layered(router: axum::Router) -> axum::Router {
    router
}
