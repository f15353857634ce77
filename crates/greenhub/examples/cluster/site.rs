//! The files of a directory, in memory.

use std::collections::HashMap;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// The files of a site.
pub(crate) struct Site {
    /// The files, by the path of a request.
    files: HashMap<String, File>,
    /// The number of bytes that may still be added.
    room: u64,
}

pub(crate) struct File {
    pub(crate) content: Vec<u8>,
    /// The value of the header `Content-Type`.
    pub(crate) kind: &'static str,
}

impl Site {
    /// Reads the plain files of a directory and its subdirectories.
    ///
    /// Symbolic links are not followed. Names that are not UTF-8 are skipped. Returns an error if the files and their
    /// paths have more than `limit` bytes.
    pub(crate) fn read(directory: &Path, limit: u64) -> io::Result<Site> {
        let mut site = Site { files: HashMap::new(), room: limit };
        site.add(directory, "/")?;
        Ok(site)
    }

    fn add(&mut self, directory: &Path, at: &str) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(directory)? {
            let (entry, file_type) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            let Some(name) = entry.file_name().and_then(|name| name.to_str()) else { continue };
            let path = format!("{at}{name}");
            if file_type.is_dir() {
                names.push(format!("{name}/"));
                self.add(&entry, &format!("{path}/"))?;
            } else if file_type.is_file() {
                names.push(name.to_owned());
                let mut content = Vec::new();
                fs::File::open(&entry)?.take(self.room.saturating_add(1)).read_to_end(&mut content)?;
                let taken = (content.len() + path.len()) as u64;
                self.room = self
                    .room
                    .checked_sub(taken)
                    .ok_or_else(|| io::Error::other("the files need more than --memory"))?;
                self.files.insert(path, File { content, kind: kind_of(&entry) });
            }
        }
        names.sort();
        if !names.iter().any(|name| name == "index.html") {
            self.files.insert(at.to_owned(), listing(&names));
        } else if let Some(index) = self.files.remove(&format!("{at}index.html")) {
            self.files.insert(at.to_owned(), index);
        }
        Ok(())
    }

    /// Returns the number of files, including the listings of directories.
    pub(crate) fn files(&self) -> usize {
        self.files.len()
    }

    /// Finds the file for the path of a request. A query or fragment is ignored.
    pub(crate) fn find(&self, path: &str) -> Option<&File> {
        self.files.get(path.split(['?', '#']).next()?)
    }
}

fn listing(names: &[String]) -> File {
    let escaped = |name: &str| name.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let links: String = names.iter().map(|name| format!("<li><a href=\"{0}\">{0}</a>\n", escaped(name))).collect();
    File { content: format!("<!doctype html>\n<ul>\n{links}</ul>\n").into_bytes(), kind: "text/html; charset=utf-8" }
}

fn kind_of(path: &Path) -> &'static str {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("html" | "htm") => "text/html; charset=utf-8",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("json") => "application/json",
        Some("png") => "image/png",
        Some("jpg" | "jpeg") => "image/jpeg",
        Some("svg") => "image/svg+xml",
        Some("txt" | "md" | "rs" | "toml") => "text/plain; charset=utf-8",
        _ => "application/octet-stream",
    }
}
