//! The switch between greenlets keeps calls and returns balanced, as the processor predicts them.
//!
//! Two checks: a program compares the times of two kinds of yields with each other, and the release binary has no call
//! of `jump_fcontext`, which would not return.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::costs::build;
use crate::process::collect;
use crate::step::Report;
use crate::workspace::Workspace;

const NAME: &str = "returns across a switch";

/// The most that a yield among two bodies may take, in yields among greenlets of one body. It is 1 if returns are
/// predicted, and 2.7 if they are not.
const RATIO: f64 = 1.5;

/// The program may share the processor with others, so that one run proves nothing against it.
const RUNS: usize = 5;

/// Checks the times and the binary.
///
/// # Errors
///
/// Returns an error if the program cannot be built, or a tool cannot be run.
pub fn check(workspace: &Workspace, report: &mut Report) -> Result<()> {
    if !report.asks_for(NAME) {
        return Ok(());
    }
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        report.skip(NAME, "the binary that is read is for x86-64");
        return Ok(());
    }
    if which::which("objdump").is_err() {
        report.skip(NAME, "no objdump: apt-get install binutils");
        return Ok(());
    }
    println!("  ..   {NAME}");
    let start = Instant::now();
    let program = build(workspace, "returns")?;
    let mut faults = calls(&program)?;
    faults.extend(slow_returns(&program)?);
    report.check(NAME, &faults, start);
    Ok(())
}

/// Returns a fault if the ratio is too large in each of some runs.
fn slow_returns(program: &Path) -> Result<Option<String>> {
    let mut least = f64::INFINITY;
    for _ in 0..RUNS {
        let text = text_of(&mut Command::new(program))?;
        least = least.min(ratio(&text).with_context(|| format!("no ratio in {text:?}"))?);
        if least <= RATIO {
            return Ok(None);
        }
    }
    Ok(Some(format!("{NAME}: a yield between two bodies takes {least} times that between greenlets of one body")))
}

/// Returns what a command prints.
fn text_of(command: &mut Command) -> Result<String> {
    let output = collect(command, Duration::from_secs(60)).with_context(|| format!("{command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Reads the number in `one body 7.01 ns, two bodies 7.08 ns, ratio 1.01`.
fn ratio(text: &str) -> Option<f64> {
    text.trim_end().rsplit_once("ratio ")?.1.parse().ok()
}

/// Returns the calls of `jump_fcontext` in a binary, and a fault if the binary has its address for such calls.
fn calls(program: &Path) -> Result<Vec<String>> {
    let symbols = text_of(Command::new("objdump").arg("--syms").arg(program))?;
    let address = address_of_jump(&symbols).context("the binary has no symbol jump_fcontext")?;
    let code = text_of(Command::new("objdump").args(["--disassemble", "--no-show-raw-insn"]).arg(program))?;
    let relocations = text_of(Command::new("objdump").arg("--dynamic-reloc").arg(program))?;
    let jumps = code.lines().filter(|line| line.contains("<jump_fcontext>") && line.contains("jmp")).count();
    ensure!(jumps != 0, "no jump to jump_fcontext is found in the disassembly");
    let mut faults: Vec<String> = direct_calls(&code).map(|line| format!("{NAME}: a call: {}", line.trim())).collect();
    if has_entry(&relocations, address) {
        faults.push(format!("{NAME}: the binary calls jump_fcontext by its global offset table"));
    }
    Ok(faults)
}

fn direct_calls(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter(|line| line.contains("<jump_fcontext>") && line.contains("call"))
}

/// Reads the address in `0000000000012345 g     F .text  000000000000006e  jump_fcontext`.
fn address_of_jump(symbols: &str) -> Option<u64> {
    let line = symbols.lines().find(|line| line.split_whitespace().last() == Some("jump_fcontext"))?;
    u64::from_str_radix(line.split_whitespace().next()?, 16).ok()
}

/// Returns whether the loader stores this address somewhere, as in
/// `0000000000045678 R_X86_64_RELATIVE  *ABS*+0x0000000000012345`.
fn has_entry(relocations: &str, address: u64) -> bool {
    let entries = relocations.lines().filter_map(|line| line.rsplit_once("*ABS*+0x"));
    entries.filter_map(|(_, target)| u64::from_str_radix(target.trim(), 16).ok()).any(|target| target == address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ratio_is_read() {
        assert_eq!(ratio("one body 7.01 ns, two bodies 18.93 ns, ratio 2.70\n"), Some(2.7));
        assert_eq!(ratio("usage: returns [COUNT]"), None);
    }

    #[test]
    fn calls_are_told_from_jumps() {
        let code = "\
 1000:\tpush   %r8
 1002:\tjmp    2000 <jump_fcontext>
 1007:\tcall   2000 <jump_fcontext>
0000000000002000 <jump_fcontext>:
";
        assert_eq!(direct_calls(code).count(), 1);
    }

    #[test]
    fn an_address_that_the_loader_stores_is_found() {
        let symbols = "0000000000012345 g     F .text\t000000000000006e              jump_fcontext\n";
        let address = address_of_jump(symbols).unwrap();
        let entry = "0000000000045678 R_X86_64_RELATIVE  *ABS*+0x0000000000012345\n";
        assert!(has_entry(entry, address) && !has_entry(entry, address + 1));
    }
}
