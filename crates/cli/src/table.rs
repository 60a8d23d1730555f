//! Columns for people: aligned with two spaces between them, and no space at the end of a line.

/// Rows under headers.
#[derive(Debug, Clone)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

#[derive(Debug, Clone)]
struct Column {
    header: &'static str,
    width: usize,
    numeric: bool,
}

impl Table {
    /// A table without rows. A header that begins with `>` has its column aligned to the right.
    pub fn new(headers: &[&'static str]) -> Table {
        let column = |&header: &&'static str| match header.strip_prefix('>') {
            Some(header) => Column { header, width: header.len(), numeric: true },
            None => Column { header, width: header.len(), numeric: false },
        };
        Table { columns: headers.iter().map(column).collect(), rows: Vec::new() }
    }

    /// Adds a row, one cell for each header.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells = cells.into_iter().map(|cell| if cell.is_empty() { "-".to_owned() } else { cell });
        let cells = Vec::from_iter(cells);
        for (column, cell) in self.columns.iter_mut().zip(&cells) {
            column.width = column.width.max(cell.chars().count());
        }
        self.rows.push(cells);
    }

    /// The headers and all rows.
    pub fn render(&mut self) -> String {
        let headers = self.line(&self.columns.iter().map(|column| column.header).collect::<Vec<_>>());
        headers + &self.render_rows()
    }

    /// The rows added since the last time, under the widths of all rows so far.
    pub fn render_rows(&mut self) -> String {
        let rows = std::mem::take(&mut self.rows);
        rows.iter().map(|row| self.line(row)).collect()
    }

    fn line(&self, cells: &[impl AsRef<str>]) -> String {
        let mut line = String::new();
        for (column, cell) in self.columns.iter().zip(cells) {
            let (cell, width) = (cell.as_ref(), column.width);
            let cell = if column.numeric { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
            line.push_str(&cell);
            line.push_str("  ");
        }
        line.truncate(line.trim_end().len());
        line + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    #[test]
    fn columns_line_up_and_lines_have_no_tail() {
        let mut table = Table::new(&["NAME", ">SLOT", "PHASE"]);
        table.row(row(&["blue", "1", "Ready"]));
        table.row(row(&["long-name", "12345", "Pending"]));
        table.row(row(&["x", "2", ""]));
        assert_eq!(
            table.render(),
            "NAME        SLOT  PHASE\n\
             blue           1  Ready\n\
             long-name  12345  Pending\n\
             x              2  -\n"
        );
    }

    #[test]
    fn an_empty_table_is_its_headers() {
        assert_eq!(Table::new(&["A", "B"]).render(), "A  B\n");
    }

    #[test]
    fn widths_count_characters() {
        let mut table = Table::new(&["A", "B"]);
        table.row(row(&["é", "1"]));
        assert_eq!(table.render(), "A  B\né  1\n");
    }

    #[test]
    fn later_rows_keep_the_earlier_widths() {
        let mut table = Table::new(&["NAME", "PHASE"]);
        table.row(row(&["a-long-name", "Ready"]));
        table.render();
        table.row(row(&["b", "Ready"]));
        assert_eq!(table.render_rows(), "b            Ready\n");
        assert_eq!(table.render_rows(), "");
    }
}
