//! A payment service built on mainstay.
fn main() {}
