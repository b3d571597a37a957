//! The SQL is built in; a file that was added or changed must not wait for a change of the code.

fn main() {
    println!("cargo:rerun-if-changed=global");
    println!("cargo:rerun-if-changed=regional");
}
