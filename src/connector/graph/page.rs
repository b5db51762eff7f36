//! Several texts as one HTML page, in their order (RFC 2046 §5.1.3): a message, and the footer that a gateway put behind it.
//!
//! It is pure. Of a page nothing is changed but what is put in at the beginning and at the
//! end of its body.

/// Where texts meet.
const BETWEEN: &str = "\r\n";

/// The texts, each with whether it is HTML; `main` is the first that is.
pub(super) fn joined(texts: Vec<(bool, String)>, main: usize) -> String {
    let mut before = String::new();
    let mut page = String::new();
    let mut behind = String::new();
    for (n, (is_html, text)) in texts.into_iter().enumerate() {
        if n == main {
            page = text;
            continue;
        }
        let out = if n < main { &mut before } else { &mut behind };
        if is_html {
            out.push_str(BETWEEN);
            out.push_str(inner(&text));
        } else {
            out.push_str(BETWEEN);
            paragraph(&text, out);
        }
        out.push_str(BETWEEN);
    }
    if !behind.is_empty() {
        let at = last(&page, "</body").or_else(|| last(&page, "</html"));
        page.insert_str(at.unwrap_or(page.len()), &behind);
    }
    if !before.is_empty() {
        page.insert_str(begin(&page), &before);
    }
    page
}

/// Plain text as HTML: what was a line stays one.
fn paragraph(text: &str, out: &mut String) {
    out.push_str("<div style=\"white-space: pre-wrap\">");
    for c in text.trim_end().chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '\r' => {}
            '\n' => out.push_str("<br>\r\n"),
            c => out.push(c),
        }
    }
    out.push_str("</div>");
}

/// What a page has in its body.
fn inner(page: &str) -> &str {
    let end = last(page, "</body").or_else(|| last(page, "</html"));
    let (begin, end) = (begin(page), end.unwrap_or(page.len()));
    page.get(begin..end).unwrap_or(page)
}

/// Where the body begins.
fn begin(page: &str) -> usize {
    let lower = page.to_ascii_lowercase();
    ["<body", "</head>", "<html"]
        .into_iter()
        .find_map(|tag| {
            let at = lower.find(tag)?;
            let end = lower.get(at..)?.find('>')?;
            Some(at + end + 1)
        })
        .unwrap_or_default()
}

fn last(page: &str, tag: &str) -> Option<usize> {
    page.to_ascii_lowercase().rfind(tag)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(texts: &[(bool, &str)], expected: &str) {
        let main = texts.iter().position(|(is_html, _)| *is_html).unwrap();
        let texts = texts
            .iter()
            .map(|(is_html, text)| (*is_html, (*text).to_owned()));
        assert_eq!(joined(texts.collect(), main).replace("\r\n", ""), expected);
    }

    #[test]
    fn texts_stay_in_their_order() {
        const DIV: &str = "<div style=\"white-space: pre-wrap\">";
        check(&[(true, "<p>a")], "<p>a");
        check(
            &[(false, "1 < 2\r\n&\r\n"), (true, "<p>footer</p>")],
            &format!("{DIV}1 &lt; 2<br>&amp;</div><p>footer</p>"),
        );
        check(
            &[
                (true, "<HTML><BODY class='>'>a</BODY></HTML>"),
                (false, "b"),
            ],
            &format!("<HTML><BODY class='>'>a{DIV}b</div></BODY></HTML>"),
        );
        check(
            &[
                (false, "0"),
                (
                    true,
                    "<html><head><title>t</title></head><body>1</body></html>",
                ),
                (true, "<html><body>2</body></html>"),
                (true, "<b>3</b>"),
            ],
            &format!(
                "<html><head><title>t</title></head><body>{DIV}0</div>12<b>3</b></body></html>"
            ),
        );
    }
}
