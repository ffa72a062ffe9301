//! The text being unmasked, in place on a terminal.

use std::time::{Duration, Instant};

use console::{Term, style};
use esolm::{Context, MASK, Result, Update};

use crate::input::tokenizer;
use crate::output::{Ids, is_obeyed};

/// Shortest time that a frame is shown: a small model would be done before anything was seen.
const FRAME: Duration = Duration::from_millis(60);

/// Draws the texts after each step, over the previous frame.
pub struct Watch {
    term: Term,
    /// Lines of the last frame.
    lines: usize,
    drawn: Instant,
}

impl Watch {
    pub fn new() -> Self {
        Self { term: Term::stdout(), lines: 0, drawn: Instant::now() }
    }

    /// Draws every text, with the tokens of `updates` highlighted.
    pub fn show(&mut self, context: &Context, updates: &[Update]) -> Result<()> {
        let (height, width) = self.term.size();
        let (done, total) = context.progress();
        let mut lines = vec![style(format!("step {done} of {total}")).dim().to_string()];
        for sequence in 0..context.sequences() {
            let fresh: Vec<u32> =
                updates.iter().filter(|u| u.sequence as usize == sequence).map(|u| u.position).collect();
            lines.extend(wrap(&cells(context, sequence, &fresh)?, usize::from(width).max(20)));
        }
        lines.truncate(usize::from(height).saturating_sub(1).max(2));
        std::thread::sleep(FRAME.saturating_sub(self.drawn.elapsed()));
        self.drawn = Instant::now();
        self.clear_lines();
        // If the terminal has gone away, printing the text will fail.
        let _ = self.term.write_line(&lines.join("\n"));
        self.lines = lines.len();
        Ok(())
    }

    /// Removes the last frame.
    pub fn clear(mut self) {
        std::thread::sleep(FRAME);
        self.clear_lines();
    }

    fn clear_lines(&mut self) {
        let _ = self.term.clear_last_lines(std::mem::take(&mut self.lines));
    }
}

/// The characters of a text, each with whether the last step wrote it.
fn cells(context: &Context, sequence: usize, fresh: &[u32]) -> Result<Vec<(char, bool)>> {
    let tokens = context.tokens(sequence)?;
    let tokenizer = tokenizer(context.model())?;
    let mask = context.model().config().mask_token_id;
    let is_fresh = |position: usize| fresh.contains(&(position as u32));
    let kinds: Vec<(bool, bool)> =
        (0..).zip(tokens).map(|(p, &token)| (is_fresh(p), token == mask)).collect();
    let mut cells = Vec::new();
    let mut start = 0;
    for run in kinds.chunk_by(|a, b| a == b) {
        let tokens = &tokens[start..start + run.len()];
        let (fresh, masked) = run[0];
        let text = match tokenizer {
            Some(_) if masked => masks(run.len()),
            Some(tokenizer) => tokenizer.decode(tokens)?,
            None if masked => masks(run.len()) + " ",
            None => Ids(tokens).to_string() + " ",
        };
        cells.extend(text.chars().map(|c| (c, fresh)));
        start += run.len();
    }
    Ok(cells)
}

/// Masks side by side, with their number: as many words would fill the terminal.
fn masks(count: usize) -> String {
    if count > 1 { format!("{MASK}×{count}") } else { MASK.to_owned() }
}

/// Breaks the characters into lines of less than `width` columns and highlights the fresh ones.
fn wrap(cells: &[(char, bool)], width: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in cells.split(|(c, _)| *c == '\n') {
        let mut rest = paragraph;
        loop {
            let mut columns = 0;
            let fits = rest.iter().take_while(|(c, _)| {
                columns += console::measure_text_width(c.encode_utf8(&mut [0; 4]));
                columns < width
            });
            let (line, after) = rest.split_at(fits.count());
            lines.push(paint(line));
            if after.is_empty() {
                break;
            }
            rest = after;
        }
    }
    lines
}

fn paint(line: &[(char, bool)]) -> String {
    let run = |run: &[(char, bool)]| {
        let text: String = run.iter().map(|(c, _)| if is_obeyed(*c) { ' ' } else { *c }).collect();
        if run[0].1 { style(text).green().bold().to_string() } else { text }
    };
    line.chunk_by(|a, b| a.1 == b.1).map(run).collect()
}

#[cfg(test)]
mod tests {
    use super::paint;

    #[test]
    fn what_a_terminal_would_obey_is_shown_as_blanks() {
        let cells = ['a', '\x1b', '\t', '\u{9b}', '\u{202e}', 'b'].map(|c| (c, false));
        assert_eq!(paint(&cells), "a    b");
    }
}
