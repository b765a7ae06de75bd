//! The examples, run as they stand.

#[path = "../../examples/anomaly.rs"]
mod anomaly;
#[path = "../../examples/moons.rs"]
mod moons;
#[path = "../../examples/own_table.rs"]
mod own_table;

#[test]
fn moons_run() {
    moons::main().expect("runs");
}

#[test]
fn own_tables_run() {
    own_table::main().expect("runs");
}

#[test]
fn anomalies_are_told_from_ordinary_rows() {
    anomaly::main().expect("runs");
}
