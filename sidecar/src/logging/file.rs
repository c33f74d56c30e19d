use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use thiserror::Error;
use tokio::signal::unix::{SignalKind, signal};

/// A file that lines are appended to.
///
/// It may be truncated at any time, or be renamed: on SIGHUP it is opened again by its name, and made
/// if it is not there.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
}

/// Why a file takes no lines.
#[derive(Debug, Error)]
pub enum Error {
    /// A link may lead anywhere, later too, where the sandbox does not let us follow.
    #[error(
        "the access log {} is a symbolic link; set access-log-file to the file itself", .0.display()
    )]
    Link(PathBuf),
    /// A directory, a pipe, a device.
    #[error(
        "the access log {} is not a regular file; set access-log-file to one, or leave it out to \
         write to standard output", .0.display()
    )]
    NotRegular(PathBuf),
    /// It cannot be opened, or made.
    #[error(
        "the access log {} cannot be opened: {source}; let the sidecar's user write in its \
         directory", path.display()
    )]
    Open {
        /// Its path.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl LogFile {
    /// Opens the file, or makes it, readable to its owner and group.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o640)
            // Of a pipe nobody reads, opening would not return.
            .custom_flags(libc::O_NOCTTY | libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(path);
        let failed = |source: io::Error| match source.raw_os_error() {
            Some(libc::ELOOP) => Error::Link(path.to_owned()),
            Some(libc::EISDIR | libc::ENXIO) => Error::NotRegular(path.to_owned()),
            _ => Error::Open {
                path: path.to_owned(),
                source,
            },
        };
        let file = file.map_err(failed)?;
        if !file.metadata().map_err(failed)?.is_file() {
            return Err(Error::NotRegular(path.to_owned()));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
        })
    }

    /// Where it is opened again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What writes to the file, and what opens it again.
    pub(super) fn split(self) -> (Appender, Reopener) {
        let next = Arc::default();
        let appender = Appender {
            lines: Lines::to(self.file),
            next: Arc::clone(&next),
        };
        let path = self.path;
        (appender, Reopener { path, next })
    }
}

/// A file that takes the place of another when the next line is written.
type Next = Arc<Mutex<Option<File>>>;

/// Writes to the file.
#[derive(Debug)]
pub(super) struct Appender {
    lines: Lines<File>,
    next: Next,
}

impl Write for Appender {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.write_all(line).map(|()| line.len())
    }

    /// Writes a line, the whole of it to one file.
    fn write_all(&mut self, line: &[u8]) -> io::Result<()> {
        let next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(next) = { next }.take() {
            self.lines = Lines::to(next);
        }
        self.lines.append(line)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lines.output.flush()
    }
}

/// Keeps lines apart, also where one could not be written to its end.
#[derive(Debug)]
struct Lines<W> {
    output: W,
    /// Half a line is the last that was written.
    is_cut: bool,
}

impl<W: Write> Lines<W> {
    const fn to(output: W) -> Self {
        let is_cut = false;
        Self { output, is_cut }
    }

    fn append(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_cut {
            self.output.write_all(b"\n")?;
            self.is_cut = false;
        }
        let mut rest = line;
        while !rest.is_empty() {
            match self.output.write(rest) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    self.is_cut = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Opens the file again when told to.
#[derive(Debug)]
#[must_use = "without it a file that was renamed is written to for ever"]
pub struct Reopener {
    path: PathBuf,
    next: Next,
}

impl Reopener {
    /// Opens the file on each SIGHUP, until the end.
    pub async fn keep(self) {
        let mut hangup = match signal(SignalKind::hangup()) {
            Ok(hangup) => hangup,
            Err(error) => {
                tracing::warn!("cannot wait for SIGHUP: {error}; the access log stays open");
                return;
            }
        };
        while hangup.recv().await.is_some() {
            self.reopen();
        }
    }

    fn reopen(&self) {
        match LogFile::open(&self.path) {
            Ok(LogFile { file, .. }) => {
                *self.next.lock().unwrap_or_else(PoisonError::into_inner) = Some(file);
                tracing::info!("opened the access log {} again", self.path.display());
            }
            Err(error) => tracing::error!("lines go on to the file that was open before: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::{sys::stat::Mode, unistd::mkfifo};

    use super::*;

    fn refusal(path: &Path) -> String {
        LogFile::open(path).expect_err("refused").to_string()
    }

    #[test]
    fn lines_go_behind_those_that_are_there() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        for line in ["one\n", "two\n"] {
            let (mut appender, _) = LogFile::open(&path).expect("it opens").split();
            appender.write_all(line.as_bytes()).expect("room");
        }
        assert_eq!(fs::read_to_string(&path).expect("a file"), "one\ntwo\n");
    }

    #[test]
    fn a_renamed_file_gets_no_line_after_it_was_opened_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let (path, old) = (directory.path().join("a"), directory.path().join("a.1"));
        let (mut appender, reopener) = LogFile::open(&path).expect("it opens").split();
        appender.write_all(b"one\n").expect("room");
        fs::rename(&path, &old).expect("it can be renamed");
        appender.write_all(b"two\n").expect("room");
        reopener.reopen();
        appender.write_all(b"three\n").expect("room");
        assert_eq!(fs::read_to_string(&old).expect("a file"), "one\ntwo\n");
        assert_eq!(fs::read_to_string(&path).expect("a file"), "three\n");
    }

    #[test]
    fn a_truncated_file_is_written_from_its_beginning() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("access.log");
        let (mut appender, _) = LogFile::open(&path).expect("it opens").split();
        appender.write_all(b"one\n").expect("room");
        File::create(&path).expect("it can be truncated");
        appender.write_all(b"two\n").expect("room");
        assert_eq!(fs::read(&path).expect("a file"), b"two\n");
    }

    /// A disk with so much room.
    struct Disk {
        room: usize,
        written: Vec<u8>,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let written = bytes.get(..self.room.min(bytes.len())).expect("no more");
            if written.is_empty() {
                return Err(io::ErrorKind::StorageFull.into());
            }
            self.room -= written.len();
            self.written.extend(written);
            Ok(written.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_that_a_full_disk_cuts_spoils_no_other() {
        let mut lines = Lines::to(Disk {
            room: 6,
            written: Vec::new(),
        });
        lines.append(b"one\n").expect("room");
        for line in [b"two\n", b"xxx\n"] {
            assert!(lines.append(line).is_err());
        }
        lines.output.room = 1;
        assert!(lines.append(b"three\n").is_err());
        assert!(lines.append(b"four\n").is_err());
        lines.output.room = 100;
        lines.append(b"five\n").expect("room");
        let written = String::from_utf8(lines.output.written).expect("text");
        assert_eq!(written, "one\ntw\nfive\n");
    }

    #[test]
    fn nothing_but_a_regular_file_is_opened() {
        let directory = tempfile::tempdir().expect("a directory");
        let pipe = directory.path().join("pipe");
        mkfifo(&pipe, Mode::S_IRWXU).expect("a pipe");
        for path in [&*pipe, directory.path(), Path::new("/dev/null")] {
            assert_eq!(
                refusal(path),
                format!(
                    "the access log {} is not a regular file; set access-log-file to one, or \
                     leave it out to write to standard output",
                    path.display()
                )
            );
        }
        let link = directory.path().join("link");
        symlink("elsewhere", &link).expect("a link");
        assert!(refusal(&link).contains("is a symbolic link; set access-log-file"));
        let missing = directory.path().join("none/access.log");
        assert!(refusal(&missing).contains("cannot be opened: No such file"));
    }
}
