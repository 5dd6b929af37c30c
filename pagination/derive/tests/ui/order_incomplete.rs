use mainstay_pagination::Keyset;

#[derive(Keyset)]
#[keyset(name = "newest", order = "id desc")]
struct NoUnique {
    id: i64,
}

#[derive(Keyset)]
#[keyset(order = "id desc", unique = "id")]
struct NoName {
    id: i64,
}

fn main() {}
