use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OrderError {
    #[fault(not_fond)]
    Gone,
    #[fault(banana)]
    Closed,
    #[fault(not_found, internal)]
    Both,
}

fn main() {}
