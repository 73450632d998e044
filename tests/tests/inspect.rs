//! `ratel inspect` as its users run it: what is on the page, against the trace and the profile of the same run; and the page
//! itself in a browser, where there is one.

use ratel_profile::read;
use ratel_teach::{Component, Node, Recording};
use ratel_tensor::HostTensor;
use ratel_tests::program::{Place, SMALL};
use safetensors::SafeTensors;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run that is looked into: cub, small, on the CPU twins.
const RUN: &[&str] = &["a red house", "--seed", "7"];

/// A model of image space: random weights, 16x16.
const PIXELS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/models/tiny-pixels");

fn inspect(place: &Place, more: &[&str]) {
    place.succeed(&[&["inspect"], RUN, SMALL, &["--no-roof", "-o", "page.html"], more].concat());
}

/// The data of a page.
fn recording(place: &Place, name: &str) -> Recording {
    let page = String::from_utf8(place.bytes(name)).expect("UTF-8");
    let (_, rest) = page.split_once("id=\"data\">").expect("the page holds its data");
    let (data, _) = rest.split_once("</script>").expect("and an end of it");
    serde_json::from_str(data).expect("a recording")
}

fn nodes(recording: &Recording) -> impl Iterator<Item = (&Component, &Node)> {
    recording.components.iter().flat_map(|component| component.nodes.iter().map(move |node| (component, node)))
}

/// The tensors of a trace, as they lie in files: channels first.
fn trace(place: &Place, name: &str) -> BTreeMap<String, HostTensor> {
    let bytes = place.bytes(name);
    let file = SafeTensors::deserialize(&bytes).expect("safetensors");
    let tensor = |view: safetensors::tensor::TensorView| {
        let values: Vec<f32> = view.data().as_chunks().0.iter().map(|four| f32::from_le_bytes(*four)).collect();
        HostTensor::new(view.shape(), values)
    };
    file.tensors().into_iter().map(|(name, view)| (name, tensor(view))).collect()
}

#[test]
fn values_are_those_of_the_trace() {
    let place = Place::new();
    let only = ["--only", "unet.down_blocks.0.resnets.0", "--only", "unet.mid_block", "--only", "vae.decoder.conv_in"];
    for fused in [&["--no-fuse", "all"][..], &[]] {
        inspect(&place, &[&only, fused, &["--at-step", "1"]].concat());
        let traced = [&["trace"], RUN, SMALL, &only, &["--at-steps", "1", "-o", "t.safetensors"], fused].concat();
        place.succeed(&traced);
        let (page, trace) = (recording(&place, "page.html"), trace(&place, "t.safetensors"));
        let mut compared = 0;
        for (_, node) in nodes(&page) {
            let output = node.operands.last().expect("an output");
            let (Some(tensor), Some(histogram)) = (output.tensor, &output.values) else { continue };
            let values = page.tensors[tensor].values();
            for module in &node.is {
                let Some(theirs) = trace.get(&module.name) else { continue };
                let part = &values[module.offset..][..module.shape.iter().product()];
                // timesteps are embedded once for all images, and once for all steps where that is not switched off; a
                // trace shows those of a step, which is the last, once for each image
                let mine = match (&theirs.shape[..], module.name.contains(".time_")) {
                    ([2, c], true) => [&part[part.len() - c..], &part[part.len() - c..]].concat(),
                    _ => part.to_vec(),
                };
                let shape = if mine.len() == part.len() { &module.shape[..] } else { &theirs.shape[..] };
                let ours = HostTensor::new(shape, mine.clone()).channels_first();
                assert_eq!(ours.data.len(), theirs.data.len(), "{}", node.module);
                let error = ours.relative_error(theirs);
                // a trace keeps modules apart that are fused otherwise, so that sums are taken in another order
                let most = if fused.is_empty() { 1e-5 } else { 0.0 };
                assert!(error <= most, "{} differs from the trace by {error}", node.module);
                let (min, max) = theirs.data.iter().fold((f32::MAX, f32::MIN), |(a, b), v| (a.min(*v), b.max(*v)));
                let joined = mine != values;
                let near = (min - histogram.min).abs() <= 1e-4 && (max - histogram.max).abs() <= 1e-4;
                assert!(
                    near || joined && min >= histogram.min - 1e-4 && max <= histogram.max + 1e-4,
                    "{}",
                    node.module
                );
                assert_eq!(histogram.bins.iter().sum::<usize>(), values.len());
                compared += 1;
            }
        }
        assert!(compared >= if fused.is_empty() { 12 } else { trace.len() - 3 }, "{compared} of {}", trace.len());
    }
}

#[test]
fn times_and_operations_are_those_of_the_profile() {
    let place = Place::new();
    inspect(&place, &["--profile-out", "run.jsonl"]);
    let page = recording(&place, "page.html");
    let profile = read(&place.bytes("run.jsonl")[..]).expect("a profile");
    assert_eq!(page.run, profile.run);
    for (component, calls) in page.components.iter().zip([1, 2, 1]) {
        assert_eq!(component.calls, calls, "{}", component.name);
        let prefix = format!("{}.", component.name);
        let ran: Vec<_> = profile.dispatches.iter().filter(|d| d.module.starts_with(&prefix)).collect();
        let (all, once) = (component.nodes.len(), component.once);
        assert_eq!(once > 0, component.name == "unet", "the prompt's keys and values are worked out before the steps");
        assert_eq!(ran.len(), calls * (all - once) + once, "{}", component.name);
        let numbers = (0..once).map(|i| (i, 0));
        let numbers = numbers.chain((0..calls).flat_map(|call| (once..all).map(move |i| (i, call))));
        for (dispatch, (i, call)) in ran.iter().zip(numbers) {
            let node = &component.nodes[i];
            assert_eq!((&node.module, &node.op, &node.shape), (&dispatch.module, &dispatch.op, &dispatch.shape));
            assert_eq!(node.ns[call], dispatch.ns[0], "{}", node.module);
            assert_eq!((node.flops, node.bytes), (dispatch.flops, dispatch.bytes), "{}", node.module);
        }
    }
    // what the overview says is the sum of what the layers say
    let unet = &page.components[1];
    assert_eq!(page.figures.unet_flops, unet.nodes[unet.once..].iter().map(|node| node.flops).sum::<f64>());
    assert_eq!(page.figures.picture_elements, 48 * page.figures.latent_elements, "8 by 8 pixels of 3 to 4 numbers");
    assert!(page.figures.pixel_flops.is_some_and(|flops| flops > 40.0 * page.figures.unet_flops));
}

#[test]
fn every_edge_is_whole() {
    let place = Place::new();
    inspect(&place, &[]);
    let page = recording(&place, "page.html");
    let mut parts = 0;
    for (component, node) in nodes(&page) {
        assert!(page.kernels.contains_key(&node.kernel), "{} has no page", node.kernel);
        for operand in &node.operands {
            if let ratel_teach::Source::Node(writer) = operand.from {
                let written = component.nodes[writer].operands.last().expect("an output");
                let size = |shape: &[usize]| shape.iter().product::<usize>();
                let end = operand.offset + size(&operand.shape);
                assert!(end <= size(&written.shape), "{} reads {} beyond its end", node.module, operand.name);
                // what is read in part was joined of parts
                let whole = size(&operand.shape) == size(&written.shape);
                let joined = component.nodes[writer].is.len() > 1;
                assert!(whole || joined, "{} reads {}", node.module, operand.name);
                parts += usize::from(!whole);
            }
            if let Some(tensor) = operand.tensor {
                let values = page.tensors[tensor].values().len();
                assert_eq!(values, operand.shape.iter().product::<usize>(), "{} {}", node.module, operand.name);
            }
        }
    }
    assert!(parts > 10, "queries, keys and values are parts of joined projections, {parts}");
    // samples: what the twin gives is what the run had, here where the twins ran
    assert!(page.samples.len() > 50, "{} samples", page.samples.len());
    for sample in &page.samples {
        let node = &page.components[sample.component].nodes[sample.node];
        let scale = sample.device.abs().max(1.0);
        assert!((sample.value - sample.device).abs() <= 2e-6 * scale, "{} of {}: {sample:?}", node.op, node.module);
    }
    for component in &page.components {
        for a in &component.tenants {
            let others = component.tenants.iter().filter(|b| b.slot == a.slot && *b != a);
            for b in others {
                assert!(a.last <= b.first || b.last <= a.first, "{a:?} and {b:?} live in one place at one time");
            }
        }
    }
    // shares of attention over all tokens sum to one at each place
    let side = &page.sides[0];
    assert_eq!(side.steps.len(), 2);
    for step in &side.steps {
        assert!(!step.heat.layers.is_empty(), "cross-attention is looked at in every step");
        for layer in &step.heat.layers {
            let maps = layer.maps.values();
            let places = layer.maps.shape[1] * layer.maps.shape[2];
            for place in 0..places {
                let sum: f32 = maps.iter().skip(place).step_by(places).sum();
                assert!((sum - 1.0).abs() < 1e-4, "{}: {sum}", layer.module);
            }
        }
    }
    let words: Vec<&str> = side.words.iter().filter(|word| word.real).map(|word| word.text.as_str()).collect();
    assert_eq!(words, ["a", "red", "house"]);
}

#[test]
fn two_guidance_scales_are_side_by_side() {
    let place = Place::new();
    inspect(&place, &["--compare-cfg-scale", "1", "--only", "unet.conv_in"]);
    let page = recording(&place, "page.html");
    let [a, b] = &page.sides[..] else { panic!("{} sides", page.sides.len()) };
    assert_eq!((b.cfg_scale, &a.prompt), (1.0, &b.prompt));
    let values = |side: &ratel_teach::Side, step: usize| side.steps[step].latents["x"].values();
    assert_eq!(values(a, 0), values(b, 0), "both begin with the same noise");
    assert_ne!(values(a, 1), values(b, 1));
    assert!(a.steps[0].latents.contains_key("noise.unconditional"));
    assert!(!b.steps[0].latents.contains_key("noise.unconditional"), "without guidance there is one prediction");
    assert_ne!(a.picture, b.picture);
}

#[test]
fn a_model_of_image_space_has_no_decoder_to_show() {
    let place = Place::new();
    let run = ["inspect", "a fox", "-m", PIXELS, "--device", "cpu", "--steps", "2", "--no-roof", "-o", "page.html"];
    place.succeed(&run);
    let page = recording(&place, "page.html");
    let names: Vec<&str> = page.components.iter().map(|component| component.name.as_str()).collect();
    assert_eq!(names, ["text_encoder", "unet"]);
    assert_eq!(page.figures.picture_elements, page.figures.latent_elements);
    assert_eq!(page.figures.pixel_flops, None, "there is nothing that it would be cheaper than");
    assert!(page.sides[0].steps.iter().all(|step| step.pictures.len() == 2), "x and x0 are pictures");
}

#[test]
fn a_limit_is_told_and_kept() {
    let place = Place::new();
    let arguments =
        [&["inspect"], RUN, SMALL, &["--no-roof", "--only", "*", "--limit", "1", "-o", "page.html"]].concat();
    let output = place.run(&arguments);
    let errors = String::from_utf8(output.stderr).expect("UTF-8");
    assert!(output.status.success(), "{errors}");
    let told = errors.lines().find(|line| line.contains("dispatches will take at most")).expect("it is told");
    assert!(told.contains("more would take"), "{told}");
    let page = recording(&place, "page.html");
    let kept: usize = page.tensors.iter().map(|tensor| tensor.data.len()).sum();
    assert!(kept > 100_000 && kept <= 1_010_000, "{kept} bytes are kept");
    assert!(page.settings.kept <= page.settings.limit && page.settings.kept < page.settings.wanted);
}

#[test]
fn what_makes_no_sense_is_refused() {
    let place = Place::new();
    let refuse = |more: &[&str], parts: &[&str]| {
        place.refuse(&[&["inspect"], RUN, SMALL, &["--no-roof"], more].concat(), 2, parts);
    };
    refuse(&["--serve=0.0.0.0:0"], &["--serve=0.0.0.0:0", "this machine alone"]);
    refuse(&["--serve=[::]:0"], &["this machine alone"]);
    refuse(&["--at-step", "2"], &["--at-step 2", "2 steps"]);
    refuse(&["--steps-shown", "0"], &["--steps-shown"]);
    refuse(&["--batch", "2"], &["--batch"]);
    refuse(&["--compare-cfg-scale", "nan"], &["--compare-cfg-scale"]);
}

/// An answer to a request over HTTP: its status and body.
fn ask(port: u16, request: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(120))).expect("a timeout");
    stream.write_all(request.as_bytes()).expect("a request");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an answer");
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, answer)
}

#[test]
fn it_is_served_to_this_machine_alone() {
    let place = Place::new();
    let free = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = free.local_addr().expect("its address").port();
    drop(free);
    let address = format!("--serve=127.0.0.1:{port}");
    let arguments = [&["inspect"], RUN, SMALL, &["--no-roof", "--only", "unet.conv_in", &address]].concat();
    let mut server = place.command(&arguments).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    let started = Instant::now();
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(started.elapsed() < Duration::from_secs(120), "nobody listens");
        std::thread::sleep(Duration::from_millis(200));
    }
    let get = |path: &str, host: &str, more: &str| {
        ask(port, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n{more}Connection: close\r\n\r\n"))
    };
    let own = format!("127.0.0.1:{port}");
    let (status, body) = get("/", &own, "");
    assert!(status == 200 && body.contains("data-live") && body.contains("Content-Security-Policy"), "{status}");
    assert_eq!(get("/", &format!("localhost:{port}"), "").0, 200);
    assert_eq!(get("/", "evil.example", "").0, 403, "DNS rebinding");
    assert_eq!(get("/", &format!("evil.example:{port}"), "").0, 403);
    assert_eq!(get("/", &own, "Origin: http://evil.example\r\n").0, 403, "another page's request");
    assert_eq!(get("/etc/passwd", &own, "").0, 404);
    assert_eq!(get("/run", &own, "").0, 405);
    let post = |body: &str, more: &str| {
        let length = body.len();
        let head =
            format!("POST /run HTTP/1.1\r\nHost: {own}\r\nContent-Length: {length}\r\n{more}Connection: close\r\n");
        ask(port, &format!("{head}\r\n{body}"))
    };
    assert_eq!(post("{}", "").0, 400);
    assert_eq!(post("{\"prompt\": \"x\"}", "Origin: http://evil.example\r\n").0, 403);
    assert_eq!(post(&"x".repeat(20_000), "").0, 413);
    assert_eq!(post("{\"prompt\": \"a blue fish\", \"seed\": 3}", "").0, 200);
    assert!(get("/", &own, "").1.contains("a blue fish"));
    assert_eq!(post("{\"prompt\": \"x\", \"seed\": -1}", "").0, 400);
    // neither absurd requests nor slow ones harm the others
    for length in ["9999999999999999999", "100000000000000", "-1", "x"] {
        let head =
            |start: &str, host: &str| format!("{start} HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
        assert_eq!(ask(port, &head("GET /", "evil.example")).0, 403, "{length}");
        assert_eq!(ask(port, &head("POST /run", &own)).0, 413, "{length}");
    }
    assert_eq!(get("/", &own, &format!("X: {}\r\n", "x".repeat(20_000))).0, 431);
    assert_eq!(ask(port, &format!("POST /run HTTP/1.1\r\nHost: {own}\r\n\r\n")).0, 411);
    let connect = || TcpStream::connect(("127.0.0.1", port)).expect("the server listens");
    let silent = [connect(), connect(), connect()];
    let mut half = connect();
    let head = format!("POST /run HTTP/1.1\r\nHost: {own}\r\nContent-Length: 2000\r\n\r\n{{");
    half.write_all(head.as_bytes()).expect("half a request");
    assert_eq!(get("/", &own, "").0, 200);
    // a port that is taken is told before anything is run
    place.refuse(&arguments, 1, &[&address, "name another port"]);
    #[cfg(unix)]
    {
        let interrupted = Command::new("kill").args(["-INT", &server.id().to_string()]).status().expect("kill");
        assert!(interrupted.success());
        let begun = Instant::now();
        while server.try_wait().expect("a process").is_none() {
            assert!(begun.elapsed() < Duration::from_secs(10), "Ctrl-C does not end it");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    drop((silent, half));
    let _ended = server.kill();
    server.wait().expect("it ends");
}

/// In a browser the page computes for the same elements what the program did.
#[test]
#[allow(clippy::print_stderr)] // a skipped test must be seen
fn the_page_computes_what_the_twins_compute() {
    let place = Place::new();
    inspect(&place, &["--compare-prompt", "a blue fish"]);
    let page = recording(&place, "page.html");
    let url = format!("file://{}?check", place.path("page.html").display());
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(|name| {
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-gpu", "--virtual-time-budget=10000", "--dump-dom", &url];
        Command::new(name).args(arguments).stderr(Stdio::null()).output().ok()
    });
    let Some(output) = browser else { return eprintln!("SKIPPED for want of a browser") };
    let dom = String::from_utf8_lossy(&output.stdout);
    let of =
        |name: &str| dom.split_once(&format!("{name}=\"")).and_then(|(_, rest)| rest.split_once('"')).map(|(v, _)| v);
    let compared = of("data-compared").unwrap_or_else(|| panic!("the page's script did not run: {:.300}", dom));
    assert_eq!(compared, page.samples.len().to_string());
    assert_eq!(of("data-wrong"), Some(""), "what the page computes is not what the program did");
    assert!(dom.contains("Why latents are cheaper") && dom.contains("What does one thread of group_norm do?"));
}
