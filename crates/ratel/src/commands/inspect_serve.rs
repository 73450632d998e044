//! The page of a run over HTTP, to this machine alone.

use crate::Failure;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tiny_http::{Header, Method, Request, Response, Server};

/// The longest body of a request that is read.
const LONGEST: usize = 16 << 10;

/// Serves `page` at `address`, which is a loopback address, until `stop` is set. `again` runs anew with a prompt, a seed and
/// guidance, and gives the page of that run.
pub(super) fn serve(
    address: SocketAddr,
    mut page: String,
    stop: &AtomicBool,
    again: impl Fn(String, Option<u64>, Option<f32>) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let failed = |error: String| Failure::Check(format!("--serve={address}: {error}"));
    let server = Server::http(address).map_err(|error| failed(error.to_string()))?;
    let bound = server.server_addr().to_ip().ok_or_else(|| failed("it is no address of the internet".to_owned()))?;
    println!("http://{bound}/ shows the run; Ctrl-C ends it");
    while !stop.load(Ordering::Relaxed) {
        let request = server.recv_timeout(Duration::from_millis(200)).map_err(|error| failed(error.to_string()))?;
        let Some(request) = request else { continue };
        if let Err(why) = admitted(&request, bound) {
            answer(request, 403, "text/plain", why.to_owned());
            continue;
        }
        match (request.method(), request.url()) {
            (Method::Get, "/") => answer(request, 200, "text/html; charset=utf-8", live(&page)),
            (Method::Post, "/run") => match run(request, &again) {
                Some(new) => page = new,
                None => continue,
            },
            (_, "/" | "/run") => answer(request, 405, "text/plain", "GET / or POST /run".to_owned()),
            _ => answer(request, 404, "text/plain", "there is / and nothing else".to_owned()),
        }
    }
    Ok(())
}

/// The page with a mark that tells it that it may ask for another run.
fn live(page: &str) -> String {
    page.replacen("<html", "<html data-live", 1)
}

/// Whether a request may be answered: a page of another site may have a name that leads here (DNS rebinding), or may send
/// a form here; neither knows our name and our origin.
fn admitted(request: &Request, bound: SocketAddr) -> Result<(), &'static str> {
    let header = |name: &'static str| {
        let field = request.headers().iter().find(|header| header.field.equiv(name));
        field.map(|header| header.value.as_str().to_ascii_lowercase())
    };
    let names = [bound.to_string(), format!("localhost:{}", bound.port())];
    if !header("Host").is_some_and(|host| names.contains(&host)) {
        return Err("the Host is not this machine");
    }
    let origins = names.map(|name| format!("http://{name}"));
    if header("Origin").is_some_and(|origin| !origins.contains(&origin)) {
        return Err("the request comes from another page");
    }
    Ok(())
}

/// Runs again as the form asks, and leads back to the page.
fn run(
    mut request: Request,
    again: &impl Fn(String, Option<u64>, Option<f32>) -> Result<String, Failure>,
) -> Option<String> {
    if request.body_length().is_none_or(|length| length > LONGEST) {
        answer(request, 413, "text/plain", "that is too long".to_owned());
        return None;
    }
    let mut body = String::new();
    if std::io::Read::read_to_string(request.as_reader(), &mut body).is_err() {
        answer(request, 400, "text/plain", "that is not UTF-8".to_owned());
        return None;
    }
    let asked: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
    let Some(prompt) = asked["prompt"].as_str() else {
        answer(request, 400, "text/plain", "there is no prompt".to_owned());
        return None;
    };
    let cfg_scale = asked["cfg_scale"].as_f64().map(|scale| scale as f32).filter(|scale| scale.is_finite());
    match again(prompt.to_owned(), asked["seed"].as_u64(), cfg_scale) {
        Ok(page) => {
            answer(request, 200, "text/plain", "done".to_owned());
            Some(page)
        }
        Err(failure) => {
            answer(request, 500, "text/plain", failure.to_string());
            None
        }
    }
}

fn answer(request: Request, status: u16, kind: &str, body: String) {
    let mut response = Response::from_string(body).with_status_code(status);
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                  connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let headers = [
        ("Content-Type", kind),
        ("Content-Security-Policy", policy),
        ("X-Content-Type-Options", "nosniff"),
        ("Cache-Control", "no-store"),
    ];
    for (name, value) in headers {
        if let Ok(header) = Header::from_bytes(name, value) {
            response.add_header(header);
        }
    }
    // whoever asked may be gone; there is no one to tell then
    let _gone = request.respond(response);
}
