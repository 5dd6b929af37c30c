//! Failures over gRPC: what is written is read back, anything can be read, and nothing internal leaves.

mod live;
mod service;
mod wire;
