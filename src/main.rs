//! The thin binary: parses, runs, exits.

/// How it is tuned, and why: `.cargo/config.toml`.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    tidegate::cli::run()
}
