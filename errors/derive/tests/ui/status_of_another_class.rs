use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OrderError {
    #[fault(not_found, status = 503)]
    Gone,
    #[fault(internal, status = 200)]
    Fine,
}

fn main() {}
