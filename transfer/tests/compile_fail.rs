//! Programs that would give a slot two owners do not compile.

#[test]
fn a_lease_in_flight_cannot_be_used() {
    trybuild::TestCases::new().compile_fail("tests/compile_fail/*.rs");
}
