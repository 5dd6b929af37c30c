use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
enum OrderError {
    #[error(transparent)]
    #[fault(internal, public)]
    Io(#[from] std::io::Error),
}

fn main() {}
