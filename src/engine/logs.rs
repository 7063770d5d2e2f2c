//! The two log files of an engine: opened for Envoy, kept small, and read for its last words.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// Envoy's stdout: the access log, one JSON object a line.
pub const ACCESS_LOG: &str = "access.log";
/// What the engine process around an Envoy says.
pub const ENGINE_LOG: &str = "engine.log";
/// Envoy's stderr: its own log.
pub const ENVOY_LOG: &str = "envoy.log";

/// Beyond this a log is moved to `<log>.1`, whose earlier content goes. It is looked at each
/// second, so that is how much one second may add.
const LOG_MAX_BYTES: u64 = 16 << 20;
/// How much of the end of stderr is looked at for the reason of a death.
const TAIL_MAX_BYTES: u64 = 8 << 10;
/// How many lines of it are told.
const WORDS_MAX_LINES: usize = 12;
/// How much of it is told; status is no log.
const WORDS_MAX_BYTES: usize = 2 << 10;

/// Opens a log for a process that will write to it after we are gone. `O_APPEND`: after a
/// truncation it goes on at the new end, not behind a hole.
pub(super) fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Keeps the logs of one engine within their bounds. Copied and truncated, for the writer holds
/// the file itself: a line written between the two is lost.
pub(super) async fn rotate(directory: &Path, (stdout, stderr): (&str, &str)) {
    for name in [stdout, stderr] {
        let path = directory.join(name);
        match rotate_file(&path, LOG_MAX_BYTES).await {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => tracing::warn!(path = %path.display(), %error, "Log not rotated"),
        }
    }
}

async fn rotate_file(path: &Path, max_bytes: u64) -> io::Result<()> {
    if tokio::fs::metadata(path).await?.len() <= max_bytes {
        return Ok(());
    }
    let mut old = path.as_os_str().to_owned();
    old.push(".1");
    tokio::fs::copy(path, PathBuf::from(old)).await?;
    tokio::fs::OpenOptions::new().write(true).open(path).await?.set_len(0).await
}

/// Where a log ends now: what is written later begins here.
pub(super) fn end(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |log| log.len())
}

/// Why Envoy died, in its own words: from its first critical line on if there is one, else its
/// last lines. Only what was written after `from`.
pub(super) fn last_words(path: &Path, from: u64) -> String {
    tail(path, from).map(|tail| words(&tail)).unwrap_or_default()
}

fn tail(path: &Path, from: u64) -> io::Result<String> {
    let mut log = File::open(path)?;
    let end = log.metadata()?.len();
    // Shorter than at the start: rotated meanwhile, so all of it is new.
    let from = if from > end { 0 } else { from };
    log.seek(SeekFrom::Start(from.max(end.saturating_sub(TAIL_MAX_BYTES))))?;
    let mut bytes = Vec::new();
    log.take(TAIL_MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn words(tail: &str) -> String {
    let lines: Vec<&str> = tail.lines().filter(|line| !line.trim().is_empty()).collect();
    let told = match lines.iter().position(|line| line.contains("][critical]")) {
        Some(first) => &lines[first..lines.len().min(first + WORDS_MAX_LINES)],
        None => &lines[lines.len().saturating_sub(WORDS_MAX_LINES)..],
    };
    // The words go to terminals and JSON: no escape sequences of whoever shaped the message.
    let mut text = told.join("\n").replace(|c: char| c.is_control() && c != '\n', " ");
    text.truncate(text.floor_char_boundary(WORDS_MAX_BYTES));
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn words_begin_at_the_critical_line() {
        let tail = "[t][1][info][main] a\n[t][1][critical][main] error `no\n  such` x\n\n[t][1][info][main] exiting\n";
        assert_eq!(words(tail), "[t][1][critical][main] error `no\n  such` x\n[t][1][info][main] exiting");
        let plain: String = (1..=20).map(|line| format!("{line}\n")).collect();
        assert!(words(&plain).starts_with("9\n") && words(&plain).ends_with("\n20"));
        assert_eq!(words("a\u{1b}[31mb"), "a [31mb");
        assert!(words(&"é".repeat(5_000)).len() <= WORDS_MAX_BYTES);
    }

    #[test]
    fn only_this_life_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ENVOY_LOG);
        open(&path).unwrap().write_all(b"earlier\n").unwrap();
        let from = end(&path);
        assert_eq!(last_words(&path, from), "");
        open(&path).unwrap().write_all(b"now\n").unwrap();
        assert_eq!(last_words(&path, from), "now");
        std::fs::write(&path, "cut\n").unwrap();
        assert_eq!(last_words(&path, from), "cut", "after a rotation all of it is new");
        assert_eq!(last_words(&folder.path().join("none"), 0), "");
    }

    #[tokio::test]
    async fn rotation_keeps_the_writer_going() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(ACCESS_LOG);
        let mut writer = open(&path).unwrap();
        writer.write_all(b"12345").unwrap();
        rotate_file(&path, 5).await.unwrap();
        assert!(!folder.path().join("access.log.1").exists(), "at its bound it stays");
        writer.write_all(b"6").unwrap();
        rotate_file(&path, 5).await.unwrap();
        writer.write_all(b"7").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"7");
        assert_eq!(std::fs::read(folder.path().join("access.log.1")).unwrap(), b"123456");
    }
}
