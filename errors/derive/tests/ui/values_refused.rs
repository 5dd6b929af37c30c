use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OrderError {
    #[fault(unavailable, retry_after = "2")]
    NoUnit,
    #[fault(unavailable, outcome = maybe)]
    Maybe,
    #[fault(unavailable, retry = soon)]
    Soon,
    #[fault(invalid_argument, pointer = "email")]
    Rootless,
    #[fault(already_exists, constraint = "users_email_key")]
    Full(u8),
    #[fault(type_base = "/problems/", not_found)]
    Misplaced,
}

fn main() {}
