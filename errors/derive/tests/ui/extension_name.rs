use mainstay_errors::Fault;

#[derive(Debug, thiserror::Error, Fault)]
#[error("x")]
enum OrderError {
    #[fault(not_found)]
    Reserved {
        #[fault(ext)]
        status: u16,
    },
    #[fault(not_found)]
    TooShort {
        #[fault(ext)]
        id: u16,
    },
    #[fault(not_found)]
    Nameless(#[fault(ext)] u16),
    #[fault(not_found)]
    Collides {
        #[fault(ext)]
        order: u16,
        #[fault(ext = "order")]
        number: u16,
    },
    #[fault(not_found)]
    Mistyped(#[fault(extension)] u16),
}

fn main() {}
