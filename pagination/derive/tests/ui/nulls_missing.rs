use mainstay_pagination::Keyset;

#[derive(Keyset)]
#[keyset(name = "by_priority", order = "priority desc, id", unique = "id")]
struct Ticket {
    id: i64,
    priority: Option<i32>,
}

fn main() {}
