//! The one table, for the terminal.

use std::fmt::Write;

use super::row::{Row, Verdict};

pub fn table(rows: &[Row]) -> String {
    let mut text = String::new();
    let header = [
        "bar",
        "measured",
        "asked",
        "verdict",
        "by hand",
        "best peer",
    ];
    let cells: Vec<[String; 6]> = rows.iter().map(Row::cells).collect();
    let mut widths = header.map(|cell| cell.chars().count());
    for row in &cells {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |row: &[String; 6]| {
        for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
            let gap = width - cell.chars().count();
            let (before, after) = if at == 0 || at == 5 {
                (0, gap)
            } else {
                (gap, 0)
            };
            let _ = write!(text, "{:before$}{cell}{:after$}  ", "", "");
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    };
    line(&header.map(str::to_owned));
    cells.iter().for_each(&mut line);
    let met = rows
        .iter()
        .filter(|row| row.verdict == Verdict::Met)
        .count();
    let _ = writeln!(text, "\n{met} of {} bars met", rows.len());
    text
}
