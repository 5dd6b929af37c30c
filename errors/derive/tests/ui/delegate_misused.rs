use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OrderError {
    #[fault(delegate)]
    Nothing,
    #[fault(delegate, not_found)]
    Twice(mainstay_errors::Violations),
    #[fault(delegate)]
    NoFault(std::io::Error),
}

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum Generic<F: Fault> {
    #[fault(delegate)]
    Inner(F),
}

fn main() {}
