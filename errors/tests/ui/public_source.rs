use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
enum OrderError {
    #[error("{0}")]
    #[fault(internal, public)]
    Repeats(#[from] std::io::Error),
    #[error("order {id}: {source}")]
    #[fault(internal, public)]
    Embeds { id: u64, source: std::fmt::Error },
    #[error("provider: {}", .cause.to_string())]
    #[fault(internal, public)]
    Converts {
        #[source]
        cause: std::fmt::Error,
    },
}

fn main() {}
