//! Reading documents as the caller: what the caller may not read, the daemon does not get.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use fief_api::SourceText;

/// All documents of one call together, in bytes.
const LIMIT: u64 = 32 << 20;

/// Why the documents could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    #[error("there is no file or directory {}", .0.display())]
    Missing(PathBuf),
    #[error("cannot read {}: {source}", path.display())]
    Unreadable { path: PathBuf, source: io::Error },
    #[error("{} has no *.yaml or *.yml file in it", .0.display())]
    Empty(PathBuf),
    #[error("{name} is not UTF-8: line {line} holds the byte 0x{byte:02x}; save it as UTF-8")]
    NotUtf8 { name: String, line: usize, byte: u8 },
    #[error("{0} brings the documents above 32 MiB; apply them in several calls")]
    TooLarge(String),
    #[error("standard input can be read only once: give -f - only once")]
    Twice,
}

/// The text of every file, directory and `-` in `given`, in that order, a directory's files by name.
pub fn read(given: &[PathBuf]) -> Result<Vec<SourceText>, SourceError> {
    if given.iter().filter(|path| is_stdin(path)).count() > 1 {
        return Err(SourceError::Twice);
    }
    let mut room = LIMIT;
    let mut sources = Vec::new();
    for path in given {
        if is_stdin(path) {
            sources.push(text_of(path, io::stdin().lock(), &mut room)?);
        } else if path.is_dir() {
            for file in files_in(path)? {
                sources.push(file_text(&file, &mut room)?);
            }
        } else {
            sources.push(file_text(path, &mut room)?);
        }
    }
    Ok(sources)
}

fn is_stdin(path: &Path) -> bool {
    path == Path::new("-")
}

/// The directory's own *.yaml and *.yml, by name. Hidden files are an editor's, not a document's.
fn files_in(directory: &Path) -> Result<Vec<PathBuf>, SourceError> {
    let unreadable = |source| SourceError::unreadable(directory, source);
    let mut files = Vec::new();
    for entry in fs::read_dir(directory).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
        if yaml && !hidden && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    if files.is_empty() { Err(SourceError::Empty(directory.to_owned())) } else { Ok(files) }
}

fn file_text(path: &Path, room: &mut u64) -> Result<SourceText, SourceError> {
    let file = File::open(path).map_err(|source| SourceError::unreadable(path, source))?;
    text_of(path, file, room)
}

/// Reads at most what there is `room` for, and takes it off the room.
fn text_of(path: &Path, reader: impl Read, room: &mut u64) -> Result<SourceText, SourceError> {
    let name = path.display().to_string();
    let mut bytes = Vec::new();
    let length = reader
        .take(*room + 1)
        .read_to_end(&mut bytes)
        .map_err(|source| SourceError::unreadable(path, source))?;
    *room = room.checked_sub(length as u64).ok_or_else(|| SourceError::TooLarge(name.clone()))?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(SourceText { name, text }),
        Err(error) => {
            let (good, bad) = error.as_bytes().split_at(error.utf8_error().valid_up_to());
            let line = 1 + good.iter().filter(|&&byte| byte == b'\n').count();
            Err(SourceError::NotUtf8 { name, line, byte: bad.first().copied().unwrap_or_default() })
        }
    }
}

impl SourceError {
    fn unreadable(path: &Path, source: io::Error) -> SourceError {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::NotFound => SourceError::Missing(path),
            _ => SourceError::Unreadable { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], room: &mut u64) -> Result<SourceText, SourceError> {
        text_of(Path::new("a.yaml"), bytes, room)
    }

    #[test]
    fn the_room_is_shared_and_its_end_is_named() {
        let mut room = 10;
        assert_eq!(text(b"123456", &mut room).unwrap().text, "123456");
        assert_eq!(text(b"7890", &mut room).unwrap().text, "7890");
        let error = text(b"x", &mut room).unwrap_err();
        assert!(error.to_string().starts_with("a.yaml brings the documents above 32 MiB"), "{error}");
    }

    #[test]
    fn a_byte_that_is_not_utf8_is_placed() {
        let error = text(b"a: 1\nb: \xff\n", &mut 100).unwrap_err();
        assert_eq!(error.to_string(), "a.yaml is not UTF-8: line 2 holds the byte 0xff; save it as UTF-8");
    }
}
