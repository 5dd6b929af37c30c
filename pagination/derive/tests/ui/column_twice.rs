use mainstay_pagination::Keyset;

#[derive(Keyset)]
#[keyset(name = "newest", order = "rank, rank desc, id", unique = "id")]
struct Ticket {
    id: i64,
    rank: i64,
}

fn main() {}
