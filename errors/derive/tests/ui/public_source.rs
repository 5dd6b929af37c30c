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
    #[error(fmt = ::core::fmt::Display::fmt)]
    #[fault(internal, public)]
    Calls(#[source] std::fmt::Error),
    #[error("{self:?}")]
    #[fault(internal, public)]
    Whole(#[source] std::fmt::Error),
}

fn main() {}
