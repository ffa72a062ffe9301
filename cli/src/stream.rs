//! A text that is printed as it grows.

use esolm::Result;

/// Prints the pieces of a text, but for white space at its end, with a function that says whether there still is a reader.
pub struct Stream<P> {
    print: P,
    /// White space that is printed if more text comes.
    held: String,
    state: Result<bool>,
}

impl<P: FnMut(&str) -> Result<bool>> Stream<P> {
    pub fn new(print: P) -> Self {
        Self { print, held: String::new(), state: Ok(true) }
    }

    /// Prints what follows. After a failure nothing more is printed.
    pub fn push(&mut self, text: &str) {
        self.held.push_str(text);
        let end = self.held.trim_end().len();
        if end > 0 && matches!(self.state, Ok(true)) {
            self.state = (self.print)(&self.held[..end]);
        }
        self.held.drain(..end);
    }

    /// Whether the reader has gone away.
    pub fn is_unread(&self) -> bool {
        matches!(self.state, Ok(false))
    }

    /// Ends the last line. Returns whether all could be printed.
    pub fn finish(mut self) -> Result<()> {
        if matches!(self.state, Ok(true)) {
            self.state = (self.print)("\n");
        }
        self.state.map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::Stream;
    use esolm::Error;

    #[test]
    fn text_is_printed_as_it_comes_but_for_white_space_at_its_end() {
        let mut printed = vec![];
        let mut stream = Stream::new(|text| {
            printed.push(text.to_owned());
            Ok(true)
        });
        for piece in ["Once", "", " upon ", "\n", "a time", ". ", "\n"] {
            stream.push(piece);
        }
        stream.finish().unwrap();
        assert_eq!(printed, ["Once", " upon", " \na time", ".", "\n"]);
    }

    #[test]
    fn nothing_is_printed_when_nobody_reads() {
        for failure in [|| Ok(false), || Err(Error::Cancelled)] {
            let mut calls = 0;
            let mut stream = Stream::new(|_| {
                calls += 1;
                failure()
            });
            stream.push("Once");
            stream.push(" upon");
            let unread = stream.is_unread();
            assert_eq!(unread, stream.finish().is_ok());
            assert_eq!(calls, 1);
        }
    }
}
