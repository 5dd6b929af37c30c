use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OrderError {
    #[fault(not_found, type = "gone")]
    Relative,
    #[fault(not_found, type = "//errors.example.com/gone")]
    WithoutScheme,
    #[fault(not_found, type = "/problems/not found")]
    Space,
}

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(not_found, type = "/gone", type_base = "/problems/")]
struct Both;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(not_found, type_base = "https://errors.example.com/orders")]
struct WithoutEnd;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(not_found, type_base = "problems/")]
struct RelativeBase;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(not_found, domain = "https://orders.example.com")]
struct DomainWithScheme;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(not_found, domain = "orders")]
struct DomainOfOneWord;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
#[fault(not_found, code = "gone", code = "lost")]
struct Twice;

fn main() {}
