//! Tables as kubectl prints them.

use std::fmt::Write as _;

/// Formats rows in columns with three spaces between them. The first row is the heading. Control characters are escaped, so
/// that they have no effect on a terminal.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| escaped(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:width$}   ").expect("writing to a String succeeds");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn escaped(cell: &str) -> String {
    cell.chars().fold(String::new(), |mut text, char| {
        if char.is_control() {
            text.extend(char.escape_default());
        } else {
            text.push(char);
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_control_characters_are_escaped() {
        let rows = [["NAME", "DAYS", "NAMES"], ["ü", "-1", ""], ["long\u{1b}[2J", "365", "a,b"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(
            table(&rows),
            "NAME            DAYS   NAMES\nü               -1\nlong\\u{1b}[2J   365    a,b\n"
        );
    }
}
