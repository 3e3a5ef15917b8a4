//! Tables as kubectl prints them.

use std::fmt::Write as _;

/// Lays rows out in columns, three spaces apart; the first row is the heading. A control character, which a terminal
/// would obey, is shown as what it is.
pub fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let rows: Vec<[String; N]> = rows.iter().map(|row| row.each_ref().map(|cell| shown(cell))).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let widths: [usize; N] = std::array::from_fn(width);
    let mut text = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            write!(line, "{cell:width$}   ").expect("text takes whatever is written");
        }
        text += line.trim_end();
        text.push('\n');
    }
    text
}

fn shown(cell: &str) -> String {
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
    fn columns_are_as_wide_as_their_widest_cell_and_nothing_is_obeyed_by_a_terminal() {
        let rows = [["NAME", "DAYS", "NAMES"], ["ü", "-1", ""], ["long\u{1b}[2J", "365", "a,b"]];
        let rows = rows.map(|row| row.map(str::to_owned));
        assert_eq!(
            table(&rows),
            "NAME            DAYS   NAMES\nü               -1\nlong\\u{1b}[2J   365    a,b\n"
        );
    }
}
