//! Which of two forms a client prefers, by RFC 9110 §12.5.1.

use http::{HeaderMap, header};

use crate::language::thousandths;

/// A form of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Html,
    Json,
}

/// How well a media range fits; a closer one counts before a wider one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    Anything,
    Type,
    Exactly,
}

impl Form {
    /// HTML unless JSON is wanted more: a browser asks for HTML by name, and whoever names nothing is not asked.
    pub(super) fn wanted(headers: &HeaderMap) -> Self {
        let lines = headers.get_all(header::ACCEPT);
        let ranges: Vec<_> = lines
            .iter()
            .filter_map(|line| line.to_str().ok())
            .flat_map(|line| line.split(','))
            .filter_map(range)
            .collect();
        let quality = |form: Self| {
            let fits = ranges
                .iter()
                .filter_map(|(range, q)| Some((form.fit(range)?, *q)));
            fits.max().map_or(0, |(_, q)| q)
        };
        if quality(Self::Json) > quality(Self::Html) {
            Self::Json
        } else {
            Self::Html
        }
    }

    pub(super) const fn content_type(self) -> &'static str {
        match self {
            Self::Html => "text/html; charset=utf-8",
            Self::Json => "application/json",
        }
    }

    fn fit(self, range: &str) -> Option<Fit> {
        let exactly = match self {
            Self::Html => range == "text/html",
            // Whoever reads problem documents reads this, too.
            Self::Json => range == "application/json" || range.ends_with("+json"),
        };
        match (self, range) {
            _ if exactly => Some(Fit::Exactly),
            (Self::Html, "text/*") | (Self::Json, "application/*") => Some(Fit::Type),
            (_, "*/*") => Some(Fit::Anything),
            _ => None,
        }
    }
}

/// A media range in lower case and its weight in thousandths; `None` for what is neither.
fn range(part: &str) -> Option<(String, u16)> {
    let mut params = part.split(';');
    let range = params.next()?.trim().to_ascii_lowercase();
    let weight = params
        .filter_map(|param| param.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    let weight = match weight {
        Some((_, text)) => thousandths(text.trim())?,
        None => 1000,
    };
    Some((range, weight))
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn wanted(lines: &[&str]) -> Form {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT, HeaderValue::from_str(line).unwrap());
        }
        Form::wanted(&headers)
    }

    #[test]
    fn html_unless_json_is_wanted_more() {
        let cases = [
            ("", Form::Html),
            ("*/*", Form::Html),
            (
                "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
                Form::Html,
            ),
            ("application/json", Form::Json),
            ("APPLICATION/JSON; q=0.1", Form::Json),
            ("application/problem+json", Form::Json),
            ("application/*", Form::Json),
            ("text/*, application/json;q=0.9", Form::Html),
            ("application/json, text/html", Form::Html),
            ("application/json, text/html;q=0.999", Form::Json),
            ("text/html;q=0.5, application/json;q=0.6", Form::Json),
            // A closer range says no to what a wider one would take.
            ("text/html;q=0, */*", Form::Json),
            ("application/json;q=0, */*;q=0.1", Form::Html),
            ("*/*;q=0.9, application/json;q=0.2", Form::Html),
            ("application/json;q=0", Form::Html),
            ("application/jsonp, text/json5", Form::Html),
            // No weights: the range is passed over.
            ("application/json;q=2", Form::Html),
            ("application/json;q=1.001", Form::Html),
            ("application/json;q=0.1234", Form::Html),
            ("application/json;q=-1", Form::Html),
            ("application/json;q=", Form::Html),
            (";;;,,,=;q=q", Form::Html),
            ("application/json;profile=\"x\";q=1.0", Form::Json),
        ];
        for (accept, form) in cases {
            assert_eq!(wanted(&[accept]), form, "{accept}");
        }
        assert_eq!(wanted(&[]), Form::Html);
        assert_eq!(wanted(&["text/html;q=0.1", "application/json"]), Form::Json);
    }
}
