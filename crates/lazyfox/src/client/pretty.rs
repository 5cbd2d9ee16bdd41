//! Indents a JSON text without reading it into values: key order, long numbers and escapes stay
//! what the handler wrote, which a parse into floats and sorted maps would not keep.

/// The text with one value per line. It must be valid JSON, as everything in a parsed reply is.
pub(super) fn pretty(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0_usize;
    let mut rest = json.trim_start();
    while let Some(first) = rest.chars().next() {
        let token = match first {
            '"' => string_token(rest),
            _ => &rest[..first.len_utf8()],
        };
        rest = &rest[token.len()..];
        match first {
            '{' | '[' => {
                rest = rest.trim_start();
                out.push(first);
                if let Some(close @ ('}' | ']')) = rest.chars().next() {
                    out.push(close);
                    rest = &rest[1..];
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(first);
            }
            ',' => {
                out.push(first);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            ' ' | '\t' | '\r' | '\n' => {}
            _ => out.push_str(token),
        }
    }
    out
}

/// The string at the head of the text, with both quotes.
fn string_token(text: &str) -> &str {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return &text[..=at],
            _ => {}
        }
    }
    text
}

fn break_line(out: &mut String, depth: usize) {
    out.push('\n');
    for _ in 0..depth {
        out.push_str("  ");
    }
}
