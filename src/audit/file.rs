//! The copy of the seals in a file: one JSON object a line, only ever appended to, on disk before we go on.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use rustix::fs::FlockOperation;

use crate::audit::canonical::Seal;

/// What is wrong with the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    #[error("cannot be read or written")]
    Io(#[from] io::Error),
    #[error("line {0} is not a seal")]
    NotASeal(usize),
}

/// The last seal in the file; none where there is none, or no file.
pub(super) async fn last_seal(path: PathBuf) -> Result<Option<Seal>, FileError> {
    blocking(move || {
        if !path.exists() {
            return Ok(None);
        }
        let mut file = File::open(path)?;
        last_whole_line(&mut file).map(|(seal, _)| seal)
    })
    .await
}

/// Appends seals that follow the last one of the file; those that it has by now, since another process was quicker, are
/// left out. A line that a crash has cut short is taken away first.
pub(super) async fn append(path: PathBuf, seals: Vec<Seal>) -> Result<(), FileError> {
    blocking(move || {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)?;
        rustix::fs::flock(&file, FlockOperation::LockExclusive).map_err(io::Error::from)?;
        let (last, end) = last_whole_line(&mut file)?;
        let last = last.map_or(0, |seal| seal.seal);
        file.set_len(end)?;
        let mut lines = Vec::new();
        for seal in seals.iter().filter(|seal| seal.seal > last) {
            serde_json::to_writer(&mut lines, seal).map_err(io::Error::from)?;
            lines.push(b'\n');
        }
        file.write_all(&lines)?;
        file.sync_all()?;
        if end == 0 {
            sync_directory(&path)?;
        }
        Ok(())
    })
    .await
}

/// A new file is there after a crash only if its directory says so.
fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or_else(|| Path::new("."));
    File::open(parent)?.sync_all()
}

/// The last seal, and where its line ends.
fn last_whole_line(file: &mut File) -> Result<(Option<Seal>, u64), FileError> {
    let length = file.seek(SeekFrom::End(0))?;
    // From the end in growing steps, until a whole line is in it.
    let mut span = 64 * 1024;
    loop {
        let start = length.saturating_sub(span);
        file.seek(SeekFrom::Start(start))?;
        let mut tail = Vec::new();
        file.take(length - start).read_to_end(&mut tail)?;
        let Some(end) = tail.iter().rposition(|byte| *byte == b'\n') else {
            if start == 0 {
                return Ok((None, 0));
            }
            span *= 4;
            continue;
        };
        let begin = tail[..end].iter().rposition(|byte| *byte == b'\n');
        if begin.is_none() && start > 0 {
            span *= 4;
            continue;
        }
        let line = &tail[begin.map_or(0, |at| at + 1)..end];
        let seal: Seal = serde_json::from_slice(line).map_err(|_| FileError::NotASeal(0))?;
        return Ok((Some(seal), start + end as u64 + 1));
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, FileError> + Send + 'static,
) -> Result<T, FileError> {
    tokio::task::spawn_blocking(work)
        .await
        .unwrap_or_else(|error| Err(io::Error::other(error).into()))
}

/// The seals of an outside copy, one after the other. A last line that is not whole does not count.
pub struct Copy {
    lines: BufReader<File>,
    number: usize,
}

impl Copy {
    pub fn open(path: &Path) -> Result<Self, FileError> {
        Ok(Self {
            lines: BufReader::new(File::open(path)?),
            number: 0,
        })
    }

    /// Not quick enough for a busy runtime; meant for a command.
    pub fn next_seal(&mut self) -> Result<Option<Seal>, FileError> {
        let mut line = String::new();
        self.number += 1;
        self.lines.read_line(&mut line)?;
        if !line.ends_with('\n') {
            return Ok(None);
        }
        serde_json::from_str(&line)
            .map(Some)
            .map_err(|_| FileError::NotASeal(self.number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::Position;

    fn seal(number: i64) -> Seal {
        Seal {
            seal: number,
            first: Position::default(),
            last: Position::default(),
            entries: 1,
            root: [1; 32],
            marks: vec![1; 8],
            previous: [0; 32],
            hash: [2; 32],
            sealed_at: "2026-03-01T14:00:00Z".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn a_line_cut_short_is_written_again_and_none_is_doubled() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("seals");
        assert_eq!(last_seal(path.clone()).await.unwrap(), None);
        append(path.clone(), vec![seal(1), seal(2)]).await.unwrap();
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 9]).unwrap();
        assert_eq!(last_seal(path.clone()).await.unwrap(), Some(seal(1)));
        append(path.clone(), vec![seal(2)]).await.unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), whole);
        append(path.clone(), vec![seal(1), seal(2), seal(3)])
            .await
            .unwrap();
        let mut copy = Copy::open(&path).unwrap();
        let mut numbers = Vec::new();
        while let Some(seal) = copy.next_seal().unwrap() {
            numbers.push(seal.seal);
        }
        assert_eq!(numbers, [1, 2, 3]);
    }
}
