//! Writes the programs of the chapters into files, and a module for each: the marked ones, which run, and all that a
//! reader may copy, which only have to compile.

#[allow(dead_code)] // the marks of quotations are for the tests
mod chapters;

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs, io};

use chapters::{Mark, all_blocks, copies, is_hidden};

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=code");
    let out = env::var("OUT_DIR").map_err(io::Error::other)?;
    let (mut modules, mut arms) = (String::new(), String::new());
    for block in all_blocks(Path::new("src"))? {
        let Mark::Program(name) = block.mark else { continue };
        // Messages name places in the program, so its lines have to be those that a reader counts.
        if block.text.lines().any(is_hidden) {
            return Err(io::Error::other(format!("{}: a program has no hidden lines", block.place)));
        }
        let file = Path::new(&out).join(format!("{name}.rs"));
        fs::write(&file, block.text)?;
        let run = "pub(crate) fn run() -> std::process::ExitCode { crate::exit_code(main) }";
        let _ = writeln!(modules, "mod {name} {{\n    include!({file:?});\n    {run}\n}}");
        let _ = writeln!(arms, "        {name:?} => Some({name}::run()),");
    }
    for (name, text) in copies(Path::new("src"))? {
        let file = Path::new(&out).join(format!("{name}.rs"));
        fs::write(&file, text)?;
        let _ = writeln!(modules, "#[allow(dead_code)]\nmod {name} {{\n    include!({file:?});\n}}");
    }
    let run = format!(
        "fn run(name: &str) -> Option<std::process::ExitCode> {{\n    match name {{\n{arms}        _ => None,\n    }}\n}}\n"
    );
    fs::write(Path::new(&out).join("programs.rs"), modules + &run)
}
