use mainstay_pagination::Keyset;

#[derive(Keyset)]
#[keyset(name = "newest", order = "id descending", unique = "id")]
struct Order {
    id: i64,
}

#[derive(Keyset)]
#[keyset(name = "newest", order = "id", uniq = "id")]
struct OnType {
    id: i64,
}

#[derive(Keyset)]
#[keyset(name = "newest", order = "id", unique = "id")]
struct OnField {
    #[keyset(kind = datetime)]
    id: i64,
}

fn main() {}
