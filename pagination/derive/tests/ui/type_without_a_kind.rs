use mainstay_pagination::Keyset;

struct Rank;

#[derive(Keyset)]
#[keyset(name = "by_rank", order = "rank, id", unique = "id")]
struct Ticket {
    id: i64,
    rank: Rank,
}

fn main() {}
