use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OrderError {
    Gone,
    #[fault(public)]
    Closed,
}

fn main() {}
