//! Compiles bpf/*.bpf.c with clang for the `bpf` target; the loader embeds the objects.
#![expect(clippy::disallowed_methods, reason = "clang is a program, and a build script may run one")]

use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=bpf");
    println!("cargo::rerun-if-env-changed=CLANG");
    let out = PathBuf::from(std::env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    std::fs::write(out.join("fief_marks.h"), fief_marks::header::programs()).expect("OUT_DIR can be written");
    for name in ["fief", "overlay", "ports", "segment"] {
        compile(&Path::new("bpf").join(format!("{name}.bpf.c")), &out.join(format!("{name}.bpf.o")));
    }
}

fn compile(source: &Path, object: &Path) {
    let clang = std::env::var("CLANG").unwrap_or_else(|_| "clang".into());
    let machine = std::env::var("CARGO_CFG_TARGET_ARCH").expect("cargo sets the target's architecture");
    let mut command = Command::new(&clang);
    // -mcpu=v3: 32-bit registers and jumps (Linux 5.1). The kernel's headers stand below the machine's own directory.
    command.args(["-O2", "-g", "-target", "bpf", "-mcpu=v3", "-Wall", "-Werror"]);
    command.arg(format!("-I/usr/include/{machine}-linux-gnu"));
    command.arg("-I").arg(object.parent().expect("the object lies in OUT_DIR"));
    command.arg("-c").arg(source).arg("-o").arg(object);
    match command.status() {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("{clang} could not compile {} ({status})", source.display()),
        Err(error) => {
            panic!("{clang} cannot be run ({error}); install clang and libbpf-dev: scripts/setup.sh")
        }
    }
}
