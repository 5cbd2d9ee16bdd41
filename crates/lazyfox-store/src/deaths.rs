//! Deaths of workers as text, a line for each: people read it too.

use lazyfox_core::job::Death;

/// `None` where there are none.
pub(crate) fn text(deaths: &[Death]) -> Option<String> {
    let lines = deaths.iter().map(|Death { worker, how }| {
        let how = how.replace('\\', "\\\\").replace('\n', "\\n");
        format!("{worker} {how}")
    });
    let lines: Vec<String> = lines.collect();
    (!lines.is_empty()).then(|| lines.join("\n"))
}

/// `None` where it is not such a text.
pub(crate) fn parse(text: &str) -> Option<Vec<Death>> {
    if text.is_empty() {
        return Some(Vec::new());
    }
    let deaths = text.split('\n').map(|line| {
        let (worker, how) = line.split_once(' ')?;
        Some(Death {
            worker: worker.parse().ok()?,
            how: unescaped(how)?,
        })
    });
    deaths.collect()
}

fn unescaped(how: &str) -> Option<String> {
    let mut plain = String::with_capacity(how.len());
    let mut chars = how.chars();
    while let Some(c) = chars.next() {
        plain.push(match c {
            '\\' => match chars.next()? {
                'n' => '\n',
                '\\' => '\\',
                _ => return None,
            },
            c => c,
        });
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn death(worker: &str, how: &str) -> Death {
        Death {
            worker: worker.parse().unwrap(),
            how: how.to_owned(),
        }
    }

    #[test]
    fn any_words_of_a_worker_come_back_as_they_were() {
        for deaths in [
            vec![],
            vec![death("w1", "")],
            vec![
                death("w1", "a \\n b\r\n\n c\\"),
                death("w2", " \u{0} é \\\n"),
            ],
        ] {
            let text = text(&deaths);
            let lines = text.as_deref().map_or(0, |text| text.split('\n').count());
            assert_eq!(lines, deaths.len());
            assert_eq!(parse(text.as_deref().unwrap_or_default()), Some(deaths));
        }
    }

    #[test]
    fn what_is_no_such_text_is_refused() {
        for text in [
            "w1",
            " left",
            "w1 \\x",
            "w1 left\\",
            "w1 left\n",
            "w:1 left",
        ] {
            assert_eq!(parse(text), None, "{text:?}");
        }
    }
}
