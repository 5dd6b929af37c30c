use mainstay_errors::{Fault, Violations};

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(decode)]
enum NothingComesBack {
    #[fault(unavailable)]
    Provider(#[source] std::io::Error),
    #[fault(not_found)]
    Gone { id: u64 },
}

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum DefaultForNobody {
    #[fault(not_found)]
    Gone(#[fault(default)] u64),
}

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(decode)]
enum DefaultOfAWait {
    #[fault(unavailable)]
    Busy(#[fault(retry_after, default)] std::time::Duration),
}

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OnAVariant {
    #[fault(not_found, decode)]
    Gone,
}

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(decode)]
enum DefaultBesideDelegate {
    #[fault(delegate)]
    Invalid(#[fault(default)] Violations),
}

fn main() {}
