//! Tables for people: columns as wide as they need, two spaces between them.

/// Rows of text under a head.
pub(crate) struct Table {
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new<const N: usize>(head: [&str; N]) -> Self {
        Self {
            rows: vec![head.map(str::to_owned).to_vec()],
        }
    }

    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.rows.push(cells.map(|cell| printable(&cell)).to_vec());
    }

    /// The table, or what to say instead when it has no rows.
    pub(crate) fn or(self, nothing: &str) -> String {
        if self.rows.len() < 2 {
            return nothing.to_owned();
        }
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let columns = self.rows.first().map_or(0, Vec::len);
        let widths: Vec<usize> = (0..columns).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                line.push_str(cell);
                let fill = width.saturating_sub(cell.chars().count());
                line.extend(std::iter::repeat_n(' ', fill + 2));
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Without what would move a terminal's cursor: topics and reasons come from elsewhere.
pub(crate) fn printable(text: &str) -> String {
    let seen = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(seen).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_control_characters_are_gone() {
        let mut table = Table::new(["a", "long head"]);
        table.row(["größer".to_owned(), "x\u{1b}[2J".to_owned()]);
        assert_eq!(
            table.or("none"),
            "a       long head\ngrößer  x\u{fffd}[2J\n"
        );
        assert_eq!(Table::new(["a"]).or("none"), "none");
    }
}
