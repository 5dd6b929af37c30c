use mainstay_pagination::Keyset;

#[derive(Keyset)]
#[keyset(name = "newest", order = "creatd_at desc, id desc", unique = "id")]
struct Ticket {
    id: i64,
    created_at: i64,
}

fn main() {}
