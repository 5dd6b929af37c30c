use mainstay_pagination::Keyset;

type Priority = Option<i32>;

#[derive(Keyset)]
#[keyset(name = "by_priority", order = "priority desc, id", unique = "id")]
struct Ticket {
    id: i64,
    priority: Priority,
}

fn main() {
    let _ = Ticket::BY_PRIORITY;
}
