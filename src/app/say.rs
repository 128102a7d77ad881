//! The one place that writes to the standard streams. A closed pipe is not an error worth a panic.

use std::io::Write as _;

/// A line of the program's own log, on standard error.
pub fn log(line: &str) {
    let mut out = std::io::stderr().lock();
    // Nothing can be done about a standard error that is gone.
    let _ = writeln!(out, "firstbyte: {line}");
}

/// A line for the person or program that ran the command, on standard output.
pub fn line(line: &str) {
    text(line);
    text("\n");
}

/// Text without a line end of its own, out at once.
pub fn text(text: &str) {
    bytes(text.as_bytes());
}

/// Bytes as they are, out at once.
pub fn bytes(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    // As above.
    let _ = out.write_all(bytes);
    let _ = out.flush();
}

/// Rows as lines with aligned columns, the first of them the heading.
pub fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0));
    let mut out = String::new();
    for row in rows {
        let cells: Vec<_> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        out += cells.join("  ").trim_end();
        out.push('\n');
    }
    out
}
