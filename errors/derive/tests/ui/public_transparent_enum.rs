use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error(transparent)]
enum OrderError {
    #[fault(internal, public)]
    Io(#[from] std::io::Error),
}

fn main() {}
