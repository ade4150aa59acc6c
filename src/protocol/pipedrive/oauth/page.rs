//! The plain page that the browser shows at the end of connecting: no scripts, nothing from elsewhere.

use std::fmt::Write as _;

const STYLE: &str = "body{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:2em auto;padding:0 1em;\
color:#222;background:#fff}h1{font-size:1.4em}h1::before{content:'';display:inline-block;width:.7em;height:.7em;\
border-radius:50%;margin-right:.5em;background:#b3261e}body.good h1::before{background:#1b7f3b}\
li,p{overflow-wrap:anywhere}footer{color:#666;font-size:.85em;margin-top:2em}\
@media(prefers-color-scheme:dark){body{color:#eee;background:#181818}footer{color:#aaa}}";

/// `Content-Security-Policy` of the page: its one style by its digest, and nothing else.
pub const PAGE_POLICY: &str = "default-src 'none'; style-src 'sha256-Y7KRh/P+S7rzAqad/Ra1W3WHh0oGSEJiud/KTELcTOM='; base-uri 'none'; form-action 'none'; \
frame-ancestors 'none'";

/// What a page says. Everything is plain text: it is escaped when it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// HTTP status.
    pub status: u16,
    /// Whether it went well.
    pub good: bool,
    /// What happened, in a few words.
    pub title: String,
    /// What happened, in sentences.
    pub text: Vec<String>,
    /// One point each, e.g. the channels.
    pub list: Vec<String>,
    /// What to do next.
    pub next: Vec<String>,
}

impl Page {
    /// A page about something that did not work.
    #[must_use]
    pub fn trouble(status: u16, title: &str, text: impl Into<String>, next: impl Into<String>) -> Self {
        Self {
            status,
            title: title.to_owned(),
            text: vec![text.into()],
            next: vec![next.into()],
            ..Self::default()
        }
    }

    /// The page as HTML.
    #[must_use]
    pub fn to_html(&self) -> String {
        let mut out = String::with_capacity(2048);
        // Writing into a String cannot fail.
        if self.write(&mut out).is_err() {
            out.clear();
        }
        out
    }

    fn write(&self, out: &mut String) -> std::fmt::Result {
        let class = if self.good { "good" } else { "bad" };
        let title = Escaped(&self.title);
        write!(
            out,
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
             content=\"width=device-width,initial-scale=1\"><meta name=\"robots\" content=\"noindex\">\
             <title>{title} · pipepost</title><style>{STYLE}</style></head>\n<body class=\"{class}\"><h1>{title}</h1>\n"
        )?;
        for sentence in &self.text {
            writeln!(out, "<p>{}</p>", Sentence(sentence))?;
        }
        if !self.list.is_empty() {
            out.write_str("<ul>\n")?;
            for point in &self.list {
                writeln!(out, "<li>{}</li>", Escaped(point))?;
            }
            out.write_str("</ul>\n")?;
        }
        for sentence in &self.next {
            writeln!(out, "<p><strong>{}</strong></p>", Sentence(sentence))?;
        }
        out.write_str("<footer>pipepost gateway</footer></body></html>\n")
    }
}

/// A sentence, with what stands between backticks as a command to type.
struct Sentence<'a>(&'a str);

impl std::fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // An odd number of backticks leaves the last one as it is.
        let mut rest = self.0;
        while let Some((before, (command, after))) = rest
            .split_once('`')
            .and_then(|(before, behind)| Some((before, behind.split_once('`')?)))
        {
            write!(f, "{}<code>{}</code>", Escaped(before), Escaped(command))?;
            rest = after;
        }
        Escaped(rest).fmt(f)
    }
}

/// Text between tags or in a quoted attribute.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c if c.is_control() => f.write_char('\u{fffd}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_policy_allows_the_one_style_and_nothing_else() {
        let digest = ring::digest::digest(&ring::digest::SHA256, STYLE.as_bytes());
        let hash = data_encoding::BASE64.encode(digest.as_ref());
        assert!(PAGE_POLICY.contains(&format!("'sha256-{hash}'")), "{hash}");
        assert!(PAGE_POLICY.starts_with("default-src 'none'"));
    }

    #[test]
    fn a_command_is_shown_as_one() {
        let shown = |text: &str| Sentence(text).to_string();
        assert_eq!(
            shown("Run `pipepost connect <x>` again; a ` alone stays."),
            "Run <code>pipepost connect &lt;x&gt;</code> again; a ` alone stays."
        );
    }

    #[test]
    fn whatever_a_page_shows_stays_text() {
        let nasty = "<script>alert(\"1\")</script>&'\u{7}";
        let page = Page {
            status: 200,
            good: true,
            title: nasty.to_owned(),
            text: vec![nasty.to_owned()],
            list: vec![nasty.to_owned()],
            next: vec![nasty.to_owned()],
        };
        let html = page.to_html();
        assert!(!html.contains("<script"), "{html}");
        assert_eq!(
            html.matches("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;\u{fffd}")
                .count(),
            5
        );
        assert!(html.contains("width=device-width"));
        assert!(html.contains("class=\"good\""));
    }
}
