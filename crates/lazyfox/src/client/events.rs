//! Server-sent events by the standard (<https://html.spec.whatwg.org/multipage/server-sent-events.html>):
//! from bytes as they arrive to events.

use std::mem;

use lazyfox_core::limits::MIB;

/// Largest event. A webhook's body, with an input and an output of at most 20 MiB each, stands in it as a
/// JSON string, which is a little longer; only one that is nearly all quotes can be too long.
pub(super) const EVENT_BYTES: usize = 64 * MIB;

/// Some editors put it in front of a text.
const BYTE_ORDER_MARK: &[u8] = "\u{feff}".as_bytes();

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// `message` where the server does not say.
    pub(super) kind: String,
    pub(super) data: String,
}

/// An event was larger than [`EVENT_BYTES`] and is left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooLarge;

/// What has arrived of an event that is not whole yet.
pub(super) struct Parser {
    limit: usize,
    /// Bytes and not text: a chunk may end in the middle of a character.
    line: Vec<u8>,
    is_first_line: bool,
    /// The last byte was a carriage return: a line feed that follows belongs to it.
    after_return: bool,
    kind: String,
    /// Each line with a line feed.
    data: String,
    /// The id that the event will have.
    id: String,
    /// The id of the last event that is whole.
    last_id: Option<String>,
    is_too_large: bool,
}

impl Parser {
    pub(super) fn new() -> Self {
        Self {
            limit: EVENT_BYTES,
            line: Vec::new(),
            is_first_line: true,
            after_return: false,
            kind: String::new(),
            data: String::new(),
            id: String::new(),
            last_id: None,
            is_too_large: false,
        }
    }

    /// The id of the last event, by which a server knows where to go on. An event without data has one too,
    /// and one without an id has that of the event before.
    pub(super) fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// Takes the next bytes and hands back the events that they complete.
    pub(super) fn feed(&mut self, mut bytes: &[u8]) -> Vec<Result<Event, TooLarge>> {
        let mut events = Vec::new();
        if let (true, Some(first)) = (self.after_return, bytes.first()) {
            self.after_return = false;
            if *first == b'\n' {
                bytes = &bytes[1..];
            }
        }
        while let Some(end) = bytes.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend_line(&bytes[..end]);
            let is_return = bytes[end] == b'\r';
            bytes = &bytes[end + 1..];
            match bytes.first() {
                Some(b'\n') if is_return => bytes = &bytes[1..],
                None => self.after_return = is_return,
                Some(_) => {}
            }
            events.extend(self.end_line());
        }
        self.extend_line(bytes);
        events
    }

    fn extend_line(&mut self, bytes: &[u8]) {
        if self.line.len() + self.data.len() + bytes.len() > self.limit {
            self.is_too_large = true;
        }
        if !self.is_too_large {
            self.line.extend_from_slice(bytes);
        } else if !(self.line.is_empty() && bytes.is_empty()) {
            // All that counts of it is that it is not the empty line, which ends the event.
            self.line = b":".to_vec();
        }
    }

    fn end_line(&mut self) -> Option<Result<Event, TooLarge>> {
        let line = mem::take(&mut self.line);
        let mut line = line.as_slice();
        if mem::take(&mut self.is_first_line) {
            line = line.strip_prefix(BYTE_ORDER_MARK).unwrap_or(line);
        }
        if line.is_empty() {
            return self.end_event();
        }
        let line = String::from_utf8_lossy(line);
        let (field, value) = line.split_once(':').unwrap_or((&line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => value.clone_into(&mut self.kind),
            "data" => {
                self.data.push_str(value);
                self.data.push('\n');
            }
            // The standard leaves out ids with a NUL, and no header can carry one.
            "id" if !value.contains('\0') => value.clone_into(&mut self.id),
            // A comment, which begins with the colon, or what is of no use here.
            _ => {}
        }
        None
    }

    fn end_event(&mut self) -> Option<Result<Event, TooLarge>> {
        if !self.id.is_empty() {
            self.last_id = Some(self.id.clone());
        }
        let kind = mem::take(&mut self.kind);
        let mut data = mem::take(&mut self.data);
        if mem::take(&mut self.is_too_large) {
            return Some(Err(TooLarge));
        }
        // Without the last line feed; without any, nothing is to be told.
        data.pop()?;
        let kind = if kind.is_empty() {
            "message".to_owned()
        } else {
            kind
        };
        Some(Ok(Event { kind, data }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, data: &str) -> Event {
        Event {
            kind: kind.to_owned(),
            data: data.to_owned(),
        }
    }

    fn feed(parser: &mut Parser, bytes: &[u8]) -> Vec<Event> {
        let events = parser.feed(bytes).into_iter();
        events.map(|event| event.unwrap()).collect()
    }

    #[test]
    fn fields_are_read_by_the_standard() {
        for (text, events) in [
            ("data: a\n\n", vec![event("message", "a")]),
            ("event: try\ndata: {}\n\n", vec![event("try", "{}")]),
            (
                "data:a\ndata: b\ndata:  c\n\n",
                vec![event("message", "a\nb\n c")],
            ),
            ("data\n\n", vec![event("message", "")]),
            ("data:\ndata\n\n", vec![event("message", "\n")]),
            (
                ": still here\n\n:\n\ndata: a: b\n\n",
                vec![event("message", "a: b")],
            ),
            (
                "id: 7\nretry: 9\nodd: x\ndata: a\n\n",
                vec![event("message", "a")],
            ),
            ("event: a\nevent: b\ndata: 1\n\n", vec![event("b", "1")]),
            // Without data there is no event, and its kind is not the next one's.
            ("event: try\n\ndata: a\n\n", vec![event("message", "a")]),
            (
                "\u{feff}data: a\n\n\u{feff}data: b\n\n",
                vec![event("message", "a")],
            ),
            ("data: a\n\ndata: cut off", vec![event("message", "a")]),
            ("data: cut off\n", vec![]),
        ] {
            assert_eq!(
                feed(&mut Parser::new(), text.as_bytes()),
                events,
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_id_is_that_of_the_last_whole_event() {
        let mut parser = Parser::new();
        for (text, id) in [
            (": hello\n\ndata: a\n\n", None),
            ("id: 1\n", None),
            (": only a place\n\n", Some("1")),
            ("id: 2\ndata: b\n\nid: 3\ndata: c\n", Some("2")),
            ("\ndata: d\n\n", Some("3")),
            ("id: 4\0\ndata: e\n\n", Some("3")),
        ] {
            parser.feed(text.as_bytes());
            assert_eq!(parser.last_id(), id, "{text:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_do_not_end_it() {
        let events = feed(&mut Parser::new(), b"data: \xff\xf0\x9f\n\n");
        assert_eq!(events, [event("message", "\u{fffd}\u{fffd}")]);
    }

    #[test]
    fn chunks_may_be_cut_anywhere() {
        let lines = [
            "\u{feff}: hello",
            "event: try",
            "data: a",
            "data: \u{1f98a}é",
            "",
            "",
            "data: b",
            "",
            "",
        ];
        for end in ["\n", "\r\n", "\r"] {
            let text = lines.join(end);
            let bytes = text.as_bytes();
            let expected = [event("try", "a\n\u{1f98a}é"), event("message", "b")];
            for cut in 0..=bytes.len() {
                let mut parser = Parser::new();
                let mut events = feed(&mut parser, &bytes[..cut]);
                events.extend(feed(&mut parser, b""));
                events.extend(feed(&mut parser, &bytes[cut..]));
                assert_eq!(events, expected, "{end:?} cut at {cut}");
            }
            let mut parser = Parser::new();
            let single = bytes.iter().flat_map(|byte| feed(&mut parser, &[*byte]));
            assert_eq!(single.collect::<Vec<_>>(), expected, "{end:?}");
        }
    }

    #[test]
    fn an_event_has_a_bound_and_a_stream_has_none() {
        let bounded = || Parser {
            limit: 20,
            ..Parser::new()
        };
        let mut parser = bounded();
        for _ in 0..10 {
            assert_eq!(feed(&mut parser, b"data: 7890\n\n").len(), 1);
        }
        // Over by its lines together, or by one of them; what follows is not harmed.
        for text in [
            "event: try\ndata: 7890\n: 34567890123456\n",
            "event: try\ndata: 789012345678901\ndata: 2\n\u{1f98a}\n",
        ] {
            let text = format!("{text}\ndata: a\n\n");
            let expected = [Err(TooLarge), Ok(event("message", "a"))];
            assert_eq!(bounded().feed(text.as_bytes()), expected, "{text:?}");
            let mut parser = bounded();
            let single = text.bytes().flat_map(|byte| parser.feed(&[byte]));
            assert_eq!(single.collect::<Vec<_>>(), expected, "{text:?}");
        }
        let just_fits = "data: 78901234567890\n\ndata: 7890\n: 3456789012345\n\n";
        assert_eq!(feed(&mut bounded(), just_fits.as_bytes()).len(), 2);

        let mut parser = bounded();
        for _ in 0..100 {
            assert_eq!(parser.feed(b"data: 7890\ndata:"), []);
        }
        assert!(parser.line.capacity() + parser.data.capacity() <= 40);
    }
}
