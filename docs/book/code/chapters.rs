//! The chapters as text, and the blocks in them that a comment marks.
//!
//! - `<!-- program: NAME -->` stands before a whole program.
//! - `<!-- output of: NAME -->` stands before the text that this program prints. After the name may follow variables of
//!   its environment, as in `<!-- output of: NAME EVENTLET_HUB=poll -->`. `ulimit=64` limits its descriptors.
//! - `<!-- from: PATH -->` stands before a part of a file of the repository.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A code block with a mark before it.
pub(crate) struct Block {
    /// The file of the chapter, and the line of the mark.
    pub place: String,
    pub mark: Mark,
    pub text: String,
}

/// The meaning of a block.
pub(crate) enum Mark {
    Program(String),
    Output { program: String, variables: Vec<(String, String)> },
    Excerpt(PathBuf),
}

/// Returns the programs of all chapters below `folder` that a reader may copy: whole ones, without hidden lines. Each
/// has a name that says in which chapter it is.
pub(crate) fn copies(folder: &Path) -> io::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    for file in files(folder)? {
        let chapter = file.file_stem().unwrap_or_default().to_string_lossy().replace('-', "_");
        let programs = whole_programs(&fs::read_to_string(&file)?).into_iter().enumerate();
        found.extend(programs.map(|(number, text)| (format!("{chapter}_copy_{}", number + 1), text)));
    }
    Ok(found)
}

/// Returns the places of the quoted texts without a mark.
pub(crate) fn unmarked(name: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let is_unmarked = |at: &usize| lines[*at] == "```text" && !(*at > 0 && lines[at - 1].starts_with("<!--"));
    (0..lines.len()).filter(is_unmarked).map(|at| format!("{name}:{}", at + 1)).collect()
}

/// Returns the visible lines of each code block with a function `main`.
pub(crate) fn whole_programs(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let Some(kind) = line.strip_prefix("```") else { continue };
        let body = lines.by_ref().take_while(|line| *line != "```").filter(|line| !is_hidden(line));
        let program: String = body.flat_map(|line| [line, "\n"]).collect();
        if kind.starts_with("rust") && program.contains("fn main()") {
            found.push(program);
        }
    }
    found
}

/// Returns whether rustdoc and mdBook hide a line of code.
pub(crate) fn is_hidden(line: &str) -> bool {
    line == "#" || line.starts_with("# ")
}

/// Returns the files of the chapters below `folder`, in order.
pub(crate) fn files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
    let mut files: Vec<PathBuf> =
        entries.into_iter().filter(|file| file.extension().is_some_and(|it| it == "md")).collect();
    files.sort();
    Ok(files)
}

/// Returns the marked blocks of all chapters below `folder`.
pub(crate) fn all_blocks(folder: &Path) -> io::Result<Vec<Block>> {
    let mut found = Vec::new();
    for file in files(folder)? {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        found.extend(blocks(&name, &fs::read_to_string(&file)?).map_err(io::Error::other)?);
    }
    Ok(found)
}

/// Returns the marked blocks of one chapter. A mark without a block, or with words of another form, is an error.
pub(crate) fn blocks(name: &str, text: &str) -> Result<Vec<Block>, String> {
    let mut found = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let Some(comment) = line.strip_prefix("<!--").and_then(|line| line.strip_suffix("-->")) else { continue };
        let place = format!("{name}:{}", number + 1);
        let mark = mark(comment.trim()).ok_or_else(|| format!("{place}: unknown mark `{line}`"))?;
        if !lines.next().is_some_and(|(_, line)| line.starts_with("```")) {
            return Err(format!("{place}: no code block follows the mark"));
        }
        let body = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```");
        let text = body.flat_map(|line| [line, "\n"]).collect();
        found.push(Block { place, mark, text });
    }
    Ok(found)
}

fn mark(comment: &str) -> Option<Mark> {
    let (kind, rest) = comment.split_once(": ")?;
    let mut words = rest.split(' ').map(str::to_owned);
    let first = words.next()?;
    match kind {
        "program" => words.next().is_none().then_some(Mark::Program(first)),
        "output of" => {
            let variables = words.map(|word| word.split_once('=').map(|(name, value)| (name.into(), value.into())));
            Some(Mark::Output { program: first, variables: variables.collect::<Option<_>>()? })
        }
        "from" => words.next().is_none().then(|| Mark::Excerpt(first.into())),
        _ => None,
    }
}
