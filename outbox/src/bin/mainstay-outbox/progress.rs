//! How far a change has come, on a terminal: one number that is written over, and gone before the answer is given.

use std::io::Write;

/// Wipes what it has written when it is dropped, be it that the change failed.
pub(crate) struct Progress<W: Write> {
    terminal: W,
    /// Characters that stand there.
    shown: usize,
}

impl<W: Write> Progress<W> {
    pub(crate) const fn new(terminal: W) -> Self {
        Self { terminal, shown: 0 }
    }

    /// Numbers only grow, so that a later one hides the one before.
    pub(crate) fn show(&mut self, done: u64) {
        let text = done.to_string();
        self.shown = text.len();
        // Whoever closed the terminal does not want to know.
        let _ = write!(self.terminal, "\r{text}");
        let _ = self.terminal.flush();
    }
}

impl<W: Write> Drop for Progress<W> {
    fn drop(&mut self) {
        if self.shown > 0 {
            let _ = write!(self.terminal, "\r{:1$}\r", "", self.shown);
            let _ = self.terminal.flush();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What stands in a line of a terminal after these characters.
    fn seen(written: &[u8]) -> String {
        let mut line: Vec<char> = Vec::new();
        let mut at = 0;
        for c in String::from_utf8_lossy(written).chars() {
            if c == '\r' {
                at = 0;
                continue;
            }
            line.resize(line.len().max(at + 1), ' ');
            line[at] = c;
            at += 1;
        }
        line.into_iter().collect::<String>().trim_end().to_owned()
    }

    #[test]
    fn the_last_number_stands_until_the_end_and_then_nothing() {
        let mut written = Vec::new();
        let mut progress = Progress::new(&mut written);
        progress.show(5);
        progress.show(500);
        assert_eq!(seen(progress.terminal), "500");
        drop(progress);
        written.extend_from_slice(b"500 redriven");
        assert_eq!(seen(&written), "500 redriven");
    }

    #[test]
    fn nothing_done_nothing_written() {
        let mut written = Vec::new();
        drop(Progress::new(&mut written));
        assert!(written.is_empty());
    }
}
