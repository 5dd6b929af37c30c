use mainstay_pagination::Keyset;

#[derive(Keyset)]
struct Ticket {
    id: i64,
}

fn main() {}
