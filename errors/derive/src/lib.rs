//! `#[derive(Fault)]`.
