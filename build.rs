//! How the program is linked.

use std::env::var;
use std::path::{Path, PathBuf};

/// Leaves out the tables for unwinding the stack.
const NO_UNWINDING: &str =
    "SECTIONS { /DISCARD/ : { *(.eh_frame .eh_frame.* .gcc_except_table .gcc_except_table.*) } }
INSERT AFTER .text;
";

fn main() -> std::io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let target = |key: &str| var(format!("CARGO_CFG_TARGET_{key}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        // 0.2 MB of relocations that all say the same. Linkers that do not know this (binutils before 2.38) say so and
        // go on; it needs glibc 2.36, which is Debian 12.
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
        let out = PathBuf::from(var("OUT_DIR").unwrap_or_default());
        if profile(&out) == Some("release") {
            // A panic ends the program of the release profile at once (panic = "abort"), so that nothing reads these
            // 0.8 MB; whoever wants to see the stack takes another profile.
            let script = out.join("no-unwinding.ld");
            std::fs::write(&script, NO_UNWINDING)?;
            println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
            // Code that an idle gateway does not run lies apart from what runs, so that it is not in memory with it.
            let layout = Path::new(&var("CARGO_MANIFEST_DIR").unwrap_or_default()).join("src/layout.ld");
            println!("cargo:rerun-if-changed={}", layout.display());
            println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", layout.display());
        }
    }
    Ok(())
}

/// The profile's name, from `<target>/<profile>/build/<package>/out`: cargo's variable `PROFILE` is "release" for
/// every profile that inherits it.
fn profile(out: &Path) -> Option<&str> {
    out.ancestors().nth(3)?.file_name()?.to_str()
}
