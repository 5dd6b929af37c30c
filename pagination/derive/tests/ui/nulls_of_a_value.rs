use mainstay_pagination::Keyset;

#[derive(Keyset)]
#[keyset(name = "by_priority", order = "priority desc nulls last, id", unique = "id")]
struct Ticket {
    id: i64,
    priority: i32,
}

fn main() {}
