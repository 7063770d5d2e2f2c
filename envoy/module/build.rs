//! Links the unwinder into the module instead of `libgcc_s.so.1`.
//!
//! Envoy carries its own unwinder and its images hold little more than glibc, so a module that
//! needs libgcc_s would not load there. rustc asks for `-lgcc_s`; this puts a linker script of that
//! name in front, which brings the static archives of the same code.

#![allow(clippy::disallowed_methods, reason = "cargo speaks to a build script by the environment")]

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    let out = std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR");
    let script = Path::new(&out).join("libgcc_s.so");
    std::fs::write(&script, "GROUP ( -l:libgcc_eh.a -l:libgcc.a )\n")
        .unwrap_or_else(|error| panic!("writing {}: {error}", script.display()));
    println!("cargo:rustc-cdylib-link-arg=-L{}", Path::new(&out).display());
}
