//! Finds the system's libevent, unless the feature `bundled` builds one.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DOCS_RS");
    let unix = std::env::var_os("CARGO_CFG_UNIX").is_some();
    let bundled = std::env::var_os("CARGO_FEATURE_BUNDLED").is_some();
    // docs.rs does not have the library, and documentation does not need it.
    let only_documented = std::env::var_os("DOCS_RS").is_some();
    if !unix || bundled || only_documented {
        return;
    }
    if let Err(error) = pkg_config::Config::new().atleast_version("2.1").probe("libevent_core") {
        eprintln!("{error}");
        println!(
            "cargo::error=hub-libevent needs libevent 2.1 or later with its headers, and pkg-config (Debian: \
             libevent-dev, pkg-config), or its feature `bundled` (of greenhub: `libevent-bundled`)"
        );
        std::process::exit(1);
    }
}
