use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OrderError {
    #[fault(not_found)]
    Gone,
    #[fault(internal, code = "gone")]
    Lost,
}

fn main() {}
