//! The thin binary: parses, runs, exits.

fn main() -> std::process::ExitCode {
    tidegate::cli::run()
}
