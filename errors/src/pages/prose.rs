//! Doc comments as HTML: paragraphs, lists, code and links, and everything else as it stands, escaped.

/// What follows a text that is HTML already.
pub(super) fn html(docs: &str) -> String {
    let mut out = String::new();
    let mut open = Block::None;
    let mut lines = docs.lines();
    while let Some(line) = lines.next() {
        let text = line.trim();
        if text.starts_with("```") {
            open.close(&mut out);
            out.push_str("<pre><code>");
            for code in lines
                .by_ref()
                .take_while(|line| !line.trim().starts_with("```"))
            {
                out.push_str(&escape(code));
                out.push('\n');
            }
            out.push_str("</code></pre>\n");
        } else if text.is_empty() {
            open.close(&mut out);
        } else if let Some(heading) = text.trim_start_matches('#').strip_prefix(' ')
            && text.starts_with('#')
        {
            open.close(&mut out);
            out.push_str(&format!("<h3>{}</h3>\n", inline(heading.trim())));
        } else if let Some((list, item)) = item(text) {
            open.item(list, &mut out);
            out.push_str(&inline(item));
        } else {
            open.text(&mut out);
            out.push_str(&inline(text));
        }
    }
    open.close(&mut out);
    out
}

/// What is open at the end of the text so far.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Block {
    None,
    Paragraph,
    Bullets,
    Numbers,
}

impl Block {
    fn close(&mut self, out: &mut String) {
        out.push_str(match self {
            Self::None => "",
            Self::Paragraph => "</p>\n",
            Self::Bullets => "</li></ul>\n",
            Self::Numbers => "</li></ol>\n",
        });
        *self = Self::None;
    }

    fn item(&mut self, list: Self, out: &mut String) {
        if *self == list {
            out.push_str("</li>\n<li>");
            return;
        }
        self.close(out);
        out.push_str(if list == Self::Numbers {
            "<ol><li>"
        } else {
            "<ul><li>"
        });
        *self = list;
    }

    /// A further line of what is open, or a new paragraph.
    fn text(&mut self, out: &mut String) {
        if *self == Self::None {
            out.push_str("<p>");
            *self = Self::Paragraph;
        } else {
            out.push('\n');
        }
    }
}

fn item(line: &str) -> Option<(Block, &str)> {
    let bullet = ["- ", "* ", "+ "]
        .into_iter()
        .find_map(|mark| line.strip_prefix(mark));
    if let Some(item) = bullet {
        return Some((Block::Bullets, item));
    }
    let (number, item) = line.split_once(". ")?;
    let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then_some((Block::Numbers, item))
}

/// Text with `code` and [links](https://example.com) in it. A link to a Rust item leads nowhere here: its text stays.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '[']) {
        let (before, from) = rest.split_at(at);
        out.push_str(&escape(before));
        if let Some((code, after)) = code(from) {
            out.push_str(&format!("<code>{}</code>", escape(code)));
            rest = after;
        } else if let Some((label, target, after)) = link(from) {
            // The label holds no bracket, so this ends.
            let label = inline(label);
            match target.filter(|url| url.starts_with("https://") || url.starts_with("http://")) {
                Some(url) => {
                    let url = escape(url);
                    out.push_str(&format!("<a href=\"{url}\" rel=\"noreferrer\">{label}</a>"));
                }
                None => out.push_str(&label),
            }
            rest = after;
        } else {
            let (mark, after) = from.split_at(1);
            out.push_str(mark);
            rest = after;
        }
    }
    out.push_str(&escape(rest));
    out
}

/// The code at the front of the text, between runs of as many backticks.
fn code(text: &str) -> Option<(&str, &str)> {
    let inside = text.trim_start_matches('`');
    let ticks = text.get(..text.len() - inside.len())?;
    if ticks.is_empty() {
        return None;
    }
    let (code, after) = inside.split_once(ticks)?;
    Some((code, after))
}

/// The label at the front of the text, where it leads, and what comes after.
fn link(text: &str) -> Option<(&str, Option<&str>, &str)> {
    let (label, after) = text.strip_prefix('[')?.split_once(']')?;
    if label.contains('[') {
        return None;
    }
    if let Some((target, after)) = after
        .strip_prefix('(')
        .and_then(|rest| rest.split_once(')'))
    {
        return Some((label, Some(target), after));
    }
    // A link to an item by its name alone is code in brackets; anything else in brackets is just that.
    let is_item = label.starts_with('`') && label.ends_with('`') && label.len() > 2;
    is_item.then_some((label, None, after))
}

pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doc_comments_become_html() {
        insta::assert_snapshot!(html(
            "No order has this `order_id`,\nor it is hidden.\n\n# What to do\n\n- Look it up, see\n  [the guide](https://e.example/a?b=1&c).\n\
             - Ask for ``a ` tick``.\n\n1. First\n2. Then [`Error`] and [here](crate::Error)\n\n```json\n{\"a\": \"<b>\"}\n\n```\nThe end."
        ));
    }

    #[test]
    fn nothing_in_a_doc_comment_becomes_markup_of_its_own() {
        for hostile in [
            "<script>alert(1)</script>",
            "`<script>`",
            "[<script>](https://e.example/\"><script>)",
            "[x](javascript:alert(1))",
            "```\n<script>",
            "- <script>\n# <script>",
            "[[[[`<script>",
            "``` <script>",
            "& < > \" '",
        ] {
            let html = html(hostile);
            assert!(!html.contains("<script"), "{html}");
            assert!(!html.contains("href=\"javascript"), "{html}");
            assert!(!html.contains("\"><"), "{html}");
        }
    }

    #[test]
    fn marks_without_a_partner_are_text() {
        assert_eq!(inline("a ` b [c] [d"), "a ` b [c] [d");
        assert_eq!(inline("``"), "``");
        assert_eq!(html("#7 is odd"), "<p>#7 is odd</p>\n");
        assert_eq!(html(""), "");
    }
}
