use mainstay_pagination::Keyset;

#[derive(Keyset)]
#[keyset(name = "newest", order = "id", unique = "id")]
enum Variants {
    A,
}

#[derive(Keyset)]
#[keyset(name = "newest", order = "id", unique = "id")]
struct Tuple(i64);

fn main() {}
