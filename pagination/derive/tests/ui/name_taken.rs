use mainstay_pagination::Keyset;

#[derive(Keyset)]
#[keyset(name = "tickets.newest", order = "id desc", unique = "id")]
#[keyset(name = "orders.newest", order = "id", unique = "id")]
struct Twice {
    id: i64,
}

#[derive(Keyset)]
#[keyset(name = "tickets.newest first", order = "id desc", unique = "id")]
struct NoWord {
    id: i64,
}

fn main() {}
