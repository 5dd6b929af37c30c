use mainstay_pagination::Keyset;

#[derive(Keyset)]
#[keyset(name = "newest", order = "id nulls last", unique = "id")]
struct Ticket {
    id: Option<i64>,
}

fn main() {}
