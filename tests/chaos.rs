//! The short form of `make chaos`: a program of its own, since it stands in namespaces of its own. `docs/chaos.md`.

fn main() -> std::process::ExitCode {
    chaos::main(std::path::Path::new(env!("CARGO_BIN_EXE_marquee")))
}
