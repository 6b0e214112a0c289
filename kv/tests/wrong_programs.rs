//! The wrong program does not compile: a slot has one owner, and whoever has given a right away
//! does not have it any more.

#[test]
fn wrong_programs_do_not_compile() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
