use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OrderError {
    #[fault(failed_precondition, status = 405)]
    WithoutAllow,
    #[fault(failed_precondition, status = 426, header = "connection: upgrade")]
    WithoutUpgrade,
    #[fault(unauthenticated, status = 407)]
    WithoutChallenge,
    #[fault(unavailable, header = "retry-after: 2")]
    RetryAfter,
    #[fault(unavailable, header = "cache-control: max-age=60")]
    Cached,
    #[fault(unavailable, header = "content-type: text/html")]
    Html,
    #[fault(not_found, header = "Allow: GET")]
    UpperCase,
    #[fault(not_found, header = "allow")]
    NoValue,
    #[fault(not_found, header = "allow: ")]
    EmptyValue,
    #[fault(not_found, header = "link: </ü>")]
    NotVisible,
    #[fault(not_found, header = "x-a: 1\r\nset-cookie: x=y")]
    TwoLines,
    #[fault(not_found, header = "accept: a/b", header = "accept: c/d")]
    Twice,
    #[fault(
        not_found,
        header = "x-1: 1",
        header = "x-2: 1",
        header = "x-3: 1",
        header = "x-4: 1",
        header = "x-5: 1",
        header = "x-6: 1",
        header = "x-7: 1",
        header = "x-8: 1",
        header = "x-9: 1"
    )]
    Many,
}

fn main() {}
