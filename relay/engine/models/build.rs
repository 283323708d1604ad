//! Sets `cfg(modelled)` for this package alone, so that plain `cargo test` runs the models beside everything else.

fn main() {
    println!("cargo::rustc-cfg=modelled");
    println!("cargo::rerun-if-changed=build.rs");
}
