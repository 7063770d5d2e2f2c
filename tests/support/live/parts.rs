//! The parts that the product under test needs: stock Envoy and our module.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The Envoy of `envoy/VERSION`, installed where it was not.
pub(super) fn envoy() -> PathBuf {
    static ENVOY: OnceLock<PathBuf> = OnceLock::new();
    let made = || {
        let said = run(&mut Command::new(root().join("envoy/install.sh")));
        PathBuf::from(said.lines().next_back().expect("the last line is the path"))
    };
    ENVOY.get_or_init(|| from_environment("TIDEGATE_ENVOY").unwrap_or_else(made)).clone()
}

/// The module for it, built where the caller did not.
pub(super) fn module() -> PathBuf {
    static MODULE: OnceLock<PathBuf> = OnceLock::new();
    let made = || {
        run(Command::new(env!("CARGO"))
            .args(["build", "--quiet", "-p", "tidegate-module"])
            .current_dir(root()));
        // Beside the binary under test.
        let beside = Path::new(env!("CARGO_BIN_EXE_tidegate")).parent().expect("a folder of binaries");
        beside.join("libtidegate_module.so")
    };
    MODULE.get_or_init(|| from_environment("TIDEGATE_MODULE").unwrap_or_else(made)).clone()
}

fn from_environment(name: &str) -> Option<PathBuf> {
    std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn run(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|why| panic!("{command:?}: {why}"));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {}\n{errors}", output.status);
    String::from_utf8(output.stdout).expect("paths are text")
}
