//! Extractors whose rejections are problems: [`Json`], [`Query`] and [`Path`].
//!
//! They read exactly what axum's own extractors read. What they refuse, they refuse with a document
//! that names **every** value that can be seen to be wrong, each by a JSON pointer, and that never
//! repeats a value or names a Rust type.

mod json;
mod params;
mod probe;

pub use json::Json;
pub use params::{Path, Query};
