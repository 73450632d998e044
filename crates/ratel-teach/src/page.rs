//! One page that needs nothing else: the template of `page/` with the data in it.

use crate::Recording;

/// The guide, as it lies in the repository.
const GUIDE: &str = include_str!("../../../docs/guide.md");
const PAGE: &str = include_str!("../page/page.html");
const STYLE: &str = include_str!("../page/page.css");
const SCRIPTS: [&str; 4] = [
    include_str!("../page/values.js"),
    include_str!("../page/explain.js"),
    include_str!("../page/views.js"),
    include_str!("../page/page.js"),
];

/// The page of a recording.
///
/// # Errors
/// None that data of this crate's types can cause; what serde reports.
pub fn page(recording: &Recording) -> Result<String, serde_json::Error> {
    // no text in the data may end the element that holds it
    let data = serde_json::to_string(recording)?.replace('<', "\\u003c");
    let script = SCRIPTS.concat();
    let guide = guide();
    let mut out = String::with_capacity(PAGE.len() + data.len() + script.len() + STYLE.len() + guide.len());
    let mut rest = PAGE;
    for (mark, text) in [("/*STYLE*/", STYLE), ("/*GUIDE*/", &guide), ("/*DATA*/", &data), ("/*SCRIPT*/", &script)] {
        let (before, after) = rest.split_once(mark).unwrap_or((rest, ""));
        out += before;
        out += text;
        rest = after;
    }
    Ok(out + rest)
}

/// The guide as HTML.
fn guide() -> String {
    let mut html = String::new();
    pulldown_cmark::html::push_html(&mut html, pulldown_cmark::Parser::new(GUIDE));
    html
}
