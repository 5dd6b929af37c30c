use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(not_found, code = "Order Gone")]
struct Gone;

fn main() {}
