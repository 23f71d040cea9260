//! The examples run as they stand.

#[path = "../../examples/embedded.rs"]
mod embedded;
#[path = "../../examples/two_pops.rs"]
mod two_pops;

#[test]
fn a_node_inside_a_program() {
    embedded::main().expect("it runs");
}

#[test]
fn two_nodes_in_one_process() {
    two_pops::main().expect("it runs");
}
