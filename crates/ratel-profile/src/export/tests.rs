//! Every format is read back.

use super::*;
use crate::{ReadError, example};
use serde_json::Value;

fn written(format: Format) -> String {
    let mut out = Vec::new();
    format.write(&example::profile(), &mut out).expect("memory takes everything");
    String::from_utf8(out).expect("UTF-8")
}

/// Nanoseconds of the first run's dispatches.
fn total() -> u64 {
    example::profile().dispatches.iter().map(|dispatch| dispatch.ns[0]).sum()
}

#[test]
fn a_format_is_told_by_its_ending() {
    for (name, format) in [
        ("a.html", Some(Format::Html)),
        ("folder.csv/a.JSON", Some(Format::Trace)),
        ("a.jsonl", Some(Format::JsonLines)),
        ("a.folded", Some(Format::Folded)),
        ("a.csv", Some(Format::Csv)),
        ("a.png", None),
        ("csv", None),
    ] {
        assert_eq!(Format::of_path(Path::new(name)), format, "{name}");
    }
}

#[test]
fn json_lines_are_the_profile() {
    let text = written(Format::JsonLines);
    let profile = example::profile();
    assert_eq!(text.lines().count(), 1 + profile.spans.len() + profile.dispatches.len());
    assert_eq!(read(text.as_bytes()).expect("what was written"), profile);
}

#[test]
fn what_is_no_profile_is_refused_with_its_line() {
    let text = written(Format::JsonLines);
    let (run, rest) = text.split_once('\n').expect("lines");
    let refused = |text: &str| read(text.as_bytes()).expect_err(text).to_string();
    let cases = [
        ("a cat".to_owned(), "line 1"),
        (format!("{run}\n\n{{\"type\": \"dispatch\"}}"), "line 3"),
        (format!("{run}\n{run}\n{rest}"), "a second run"),
        (rest.to_owned(), "line 1"),
        (run.replace("\"version\":1", "\"version\":2"), "version 2"),
        (run.replace("\"copy_bytes\":100000000000.0", "\"copy_bytes\":0"), "more than 0"),
        (text.replacen("[2000000,2200000,2100000]", "[]", 2), "no time"),
        (text.replacen("\"flops\":1000000000.0", "\"flops\":-1", 2), "0 or more"),
        (format!("{run}\n\"{}\"", "x".repeat(2 << 20)), "longer than"),
        (text[..text.len() - 20].to_owned(), "column"),
    ];
    for (damaged, part) in cases {
        assert_ne!(damaged, text, "{part}: the damage is done");
        let error = refused(&damaged);
        assert!(error.contains(part) && !error.contains('\n') && error.len() < 400, "{part}: {error}");
    }
    for empty in ["", "\n\n", run] {
        assert!(matches!(read(empty.as_bytes()), Err(ReadError::Empty)), "{empty}");
    }
    assert!(matches!(read(&b"\xff\xfe\n"[..]), Err(ReadError::Line { number: 1, .. })));
}

#[test]
fn a_trace_has_a_slice_for_everything() {
    let profile = example::profile();
    let trace: Value = serde_json::from_str(&written(Format::Trace)).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("events");
    let of_kind = |kind: &'static str| events.iter().filter(move |event| event["ph"] == kind);
    let tracks: Vec<&Value> = of_kind("M").filter(|e| e["name"] == "thread_name").map(|e| &e["args"]["name"]).collect();
    assert_eq!(tracks, ["host: stages", "device: dispatches", "device: dispatches (2)"]);
    assert_eq!(of_kind("X").filter(|event| event["tid"] == 1).count(), profile.spans.len());

    let mut slices: Vec<&Value> = of_kind("X").filter(|event| event["tid"] != 1).collect();
    assert_eq!(slices.len(), profile.dispatches.len());
    let number = |event: &Value, name: &str| event[name].as_f64().unwrap_or_else(|| panic!("{name} of {event}"));
    let sum: f64 = slices.iter().map(|slice| number(slice, "dur")).sum();
    assert!((sum - total() as f64 / 1e3).abs() < 1e-6, "microseconds");
    for slice in &slices {
        let args = &slice["args"];
        for name in ["stage", "step", "module", "kernel", "variant", "file", "workgroups", "flops", "bytes", "GB/s"] {
            assert!(!args[name].is_null(), "{name} of {slice}");
        }
        assert!(args["share of roof"].as_f64().is_some_and(|share| share > 0.0), "{slice}");
    }
    // slices on one track don't overlap
    slices.sort_by(|a, b| {
        (number(a, "tid"), number(a, "ts")).partial_cmp(&(number(b, "tid"), number(b, "ts"))).expect("numbers")
    });
    for pair in slices.windows(2).filter(|pair| pair[0]["tid"] == pair[1]["tid"]) {
        assert!(number(pair[0], "ts") + number(pair[0], "dur") <= number(pair[1], "ts") + 1e-6, "{pair:?}");
    }
    let counters: Vec<&Value> = of_kind("C").collect();
    assert!(counters.iter().all(|event| event["args"]["held"] == 4000), "{counters:?}");
    assert!(counters.iter().any(|event| event["args"]["in use"] == 3100), "{counters:?}");
}

/// Lines of fields, quoted as RFC 4180 has it.
fn fields(text: &str) -> Vec<Vec<String>> {
    let (mut lines, mut line, mut field, mut quoted) = (vec![], vec![], String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => field.extend(letters.next()),
            '"' => quoted = !quoted,
            ',' if !quoted => line.push(std::mem::take(&mut field)),
            '\n' if !quoted => {
                line.push(std::mem::take(&mut field));
                lines.push(std::mem::take(&mut line));
            }
            other => field.push(other),
        }
    }
    lines
}

#[test]
fn a_table_has_a_line_for_each_dispatch() {
    let lines = fields(&written(Format::Csv));
    let (head, lines) = lines.split_first().expect("a head");
    let profile = example::profile();
    assert_eq!(lines.len(), profile.dispatches.len());
    let column = |name: &str| head.iter().position(|column| column == name).unwrap_or_else(|| panic!("{name}"));
    for (line, dispatch) in lines.iter().zip(&profile.dispatches) {
        assert_eq!(line.len(), head.len(), "{line:?}");
        assert_eq!(line[column("module")], dispatch.module);
        assert_eq!(line[column("variant")], dispatch.variant, "with its comma");
        assert_eq!(line[column("flops")].parse(), Ok(dispatch.flops));
        assert_eq!(line[column("workgroups_y")], "2");
        assert_eq!(line[column("runs")], "3");
    }
    assert_eq!(lines[0][column("ns")], "2100000", "the median");
    assert_eq!(lines[0][column("bound")], "compute");
}

#[test]
fn stacks_sum_up_to_the_whole() {
    let text = written(Format::Folded);
    let stacks: Vec<(&str, u64)> = text
        .lines()
        .map(|line| line.rsplit_once(' ').map(|(stack, ns)| (stack, ns.parse().expect("a number"))).expect("two parts"))
        .collect();
    assert_eq!(stacks.iter().map(|(_, ns)| ns).sum::<u64>(), total());
    assert!(stacks.contains(&("unet;down_blocks.0;resnets.0;conv1;conv2d_tiled", 4_000_000)), "{stacks:?}");
    assert!(stacks.contains(&("sampler;combine;combine", 400_000)), "{stacks:?}");
}

#[test]
fn a_page_is_whole_and_needs_nothing_else() {
    let page = written(Format::Html);
    for placeholder in ["/*STYLE*/", "/*DATA*/", "/*SCRIPT*/"] {
        assert!(!page.contains(placeholder), "{placeholder} is filled in");
    }
    let addresses = page.matches("http").count() - page.matches("http://www.w3.org/2000/svg").count();
    assert_eq!(addresses, 0, "nothing is loaded");
    assert!(!page.contains("<b>"), "no text of the data is markup");
    let (_, rest) = page.split_once("id=\"data\">").expect("the data");
    let (data, _) = rest.split_once("</script>").expect("its end");
    let data: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!(data["run"]["model"], "a \"model\", <b>bold</b>");
    assert_eq!(data["rows"]["kernel"][0]["name"], "conv2d_tiled");
    assert_eq!(data["summary"]["dispatches"], 6);
    assert_eq!(data["memory"].as_array().map(Vec::len), Some(6));
    assert_eq!(data["memory"][0], serde_json::json!([1_000_000, 4000, 3000]));
}
