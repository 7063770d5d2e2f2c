//! How commands print, and how they end.

use clap::ValueEnum;
use serde::Serialize;
use std::{
    io::{self, Write},
    process::ExitCode,
};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Fine = 0,
    /// There are errors to mend in what was looked at.
    Findings = 1,
    Usage = 2,
    /// Something could not be reached, opened or started.
    Unreachable = 3,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a command could not do its work: said on stderr.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) exit: Exit,
    pub(super) message: String,
}

impl Failure {
    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self { exit: Exit::Usage, message: message.into() }
    }

    pub(super) fn unreachable(message: impl Into<String>) -> Self {
        Self { exit: Exit::Unreachable, message: message.into() }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        // `tidegate ... | head` is no failure.
        let exit = if error.kind() == io::ErrorKind::BrokenPipe { Exit::Fine } else { Exit::Unreachable };
        Self { exit, message: error.to_string() }
    }
}

pub(super) fn explain(failure: &Failure) -> ExitCode {
    if failure.exit != Exit::Fine {
        let _ = writeln!(io::stderr(), "tidegate: {}", failure.message);
    }
    failure.exit.into()
}

/// `-o`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

/// Prints a value in a machine's format, or as the table that `table` makes of it.
pub(super) fn print<T: Serialize>(
    format: Format,
    value: &T,
    table: impl FnOnce(&T) -> Vec<Vec<String>>,
) -> Result<(), Failure> {
    let text = match format {
        Format::Table => columns(&table(value)),
        Format::Json => serde_json::to_string_pretty(value).expect("our own types are JSON") + "\n",
        Format::Yaml => {
            crate::yaml::to_string(value).map_err(|error| Failure::unreachable(error.to_string()))?
        }
    };
    line(&text)
}

/// Writes text to stdout as it is.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    Ok(stdout.flush()?)
}

/// Rows, the first of them headings, in columns as wide as their widest cell.
fn columns(rows: &[Vec<String>]) -> String {
    // A row of one cell is a sentence, and takes no part.
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |n: usize| {
        rows.iter()
            .filter(|row| row.len() > 1)
            .filter_map(|row| row.get(n))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<_> = (0..count).map(|n| width(n).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut out = String::new();
        for (n, cell) in row.iter().enumerate() {
            out.push_str(&format!("{cell:<width$}   ", width = widths[n]));
        }
        text.push_str(out.trim_end());
        text.push('\n');
    }
    text
}

/// Cells of strings.
pub(super) fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.map(str::to_owned).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_needed() {
        let rows = [row(["A", "LONG", ""]), row(["longer", "b", ""])];
        assert_eq!(columns(&rows), "A        LONG\nlonger   b\n");
    }
}
