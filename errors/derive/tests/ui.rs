//! What the derive refuses, and in which words. Here and not in the crate that has the trait: a build of these files for
//! itself builds this package's few dependencies again, not all that the other is tested with.

#[test]
fn refusals_name_the_place_and_the_remedy() {
    trybuild::TestCases::new().compile_fail("tests/ui/*.rs");
}
