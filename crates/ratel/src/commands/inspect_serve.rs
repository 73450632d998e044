//! The page of a run over HTTP, to this machine alone.
//!
//! A connection has a thread, a deadline and one request, so that whoever says nothing, or half of something, keeps nobody
//! waiting; the run that a request asks for is made by the thread that also looks whether to stop.

use crate::Failure;
use httparse::{EMPTY_HEADER, Request, Status};
use std::io::{Error, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// The longest head and body of a request that are read.
const LONGEST_HEAD: usize = 8 << 10;
const LONGEST_BODY: usize = 16 << 10;
/// So long a client may take to say what it wants, and to take each piece of an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections at a time; further ones are closed.
const MOST: usize = 32;

/// What the form of the page asks for; what it leaves out is as in the first run.
pub(super) struct Asked {
    pub prompt: String,
    pub seed: Option<u64>,
    pub cfg_scale: Option<f32>,
}

/// A run that is asked for, and where its outcome goes.
type Order = (Asked, Sender<Result<(), String>>);

/// What all connections share.
struct Shared {
    bound: SocketAddr,
    page: RwLock<Arc<String>>,
    orders: Sender<Order>,
    connections: AtomicUsize,
}

/// Takes an address, which is a loopback address, before anything is run for it.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| {
        let way_out = match error.kind() {
            ErrorKind::AddrInUse => "; name another port, or 0 for any that is free",
            _ => "",
        };
        Failure::Check(format!("--serve={address}: {error}{way_out}"))
    })
}

/// Serves `page` until `stop` is set. `again` runs anew and gives the page of that run.
pub(super) fn serve(
    listener: TcpListener,
    page: &str,
    stop: &AtomicBool,
    again: impl Fn(Asked) -> Result<String, Failure>,
) -> Result<(), Failure> {
    let bound = listener.local_addr().map_err(|error| Failure::Check(format!("--serve: {error}")))?;
    let (orders, waiting) = channel();
    let page = RwLock::new(Arc::new(live(page)));
    let shared = Arc::new(Shared { bound, page, orders, connections: AtomicUsize::new(0) });
    println!("http://{bound}/ shows the run; Ctrl-C ends it");
    let accepting = shared.clone();
    // it ends with the program
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let shared = accepting.clone();
            if shared.connections.fetch_add(1, Ordering::Relaxed) >= MOST {
                shared.connections.fetch_sub(1, Ordering::Relaxed);
                continue;
            }
            std::thread::spawn(move || {
                // whoever asked may be gone; there is no one to tell then
                let _gone = converse(&stream, &shared);
                shared.connections.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    while !stop.load(Ordering::Relaxed) {
        match waiting.recv_timeout(Duration::from_millis(100)) {
            Ok((asked, outcome)) => {
                let made = again(asked).map_err(|failure| failure.to_string()).map(|new| {
                    *shared.page.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(live(&new));
                });
                let _gone = outcome.send(made);
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    Ok(())
}

/// The page with a mark that tells it that it may ask for another run.
fn live(page: &str) -> String {
    page.replacen("<html", "<html data-live", 1)
}

/// An answer that is no page: a status and why.
type Refusal = (u16, String);

fn refuse<T>(status: u16, why: impl Into<String>) -> Result<T, Refusal> {
    Err((status, why.into()))
}

/// One request and its answer.
fn converse(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    stream.set_write_timeout(Some(PATIENCE))?;
    let reader = Deadline { stream, until: Instant::now() + PATIENCE };
    match answer(reader, shared)? {
        Ok(Some(page)) => respond(stream, 200, "text/html; charset=utf-8", page.as_bytes()),
        Ok(None) => respond(stream, 200, "text/plain", b"done"),
        Err((status, why)) => respond(stream, status, "text/plain; charset=utf-8", why.as_bytes()),
    }?;
    // a connection closed on what was not read is reset, and the answer with it
    stream.shutdown(Shutdown::Write)?;
    let rest = Deadline { stream, until: Instant::now() + PATIENCE / 5 };
    std::io::copy(&mut rest.take(1 << 20), &mut std::io::sink()).map(|_| ())
}

/// The page; or, of a run that was asked for and made, nothing.
fn answer(mut reader: Deadline, shared: &Shared) -> std::io::Result<Result<Option<Arc<String>>, Refusal>> {
    let mut read = Vec::new();
    let mut piece = [0; 1024];
    let (head, request) = loop {
        let mut headers = [EMPTY_HEADER; 64];
        let mut request = Request::new(&mut headers);
        match request.parse(&read) {
            Ok(Status::Complete(head)) => break (head, Wanted::of(&request, shared.bound)),
            Ok(Status::Partial) if read.len() < LONGEST_HEAD => {}
            Ok(Status::Partial) => return Ok(refuse(431, "that is too long")),
            Err(error) => return Ok(refuse(400, error.to_string())),
        }
        match reader.read(&mut piece)? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            count => read.extend_from_slice(&piece[..count]),
        }
    };
    let length = match request {
        Ok(Wanted::Page) => {
            return Ok(Ok(Some(shared.page.read().unwrap_or_else(PoisonError::into_inner).clone())));
        }
        Ok(Wanted::Run(length)) => length,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let mut body = read.split_off(head);
    if body.len() < length {
        let missing = (length - body.len()) as u64;
        reader.by_ref().take(missing).read_to_end(&mut body)?;
    }
    if body.len() < length {
        return Err(ErrorKind::UnexpectedEof.into());
    }
    let asked = match asked(&body[..length]) {
        Ok(asked) => asked,
        Err(why) => return Ok(refuse(400, why)),
    };
    let (outcome, made) = channel();
    let sent = shared.orders.send((asked, outcome)).is_ok();
    Ok(match if sent { made.recv().ok() } else { None } {
        Some(Ok(())) => Ok(None),
        Some(Err(why)) => refuse(500, why),
        None => refuse(500, "the program ends"),
    })
}

/// What an admissible request is for.
enum Wanted {
    Page,
    /// A run, asked for in a body of so many bytes.
    Run(usize),
}

impl Wanted {
    /// Whether a request may be answered, and what it wants: a page of another site may have a name that leads here (DNS
    /// rebinding), or may send a form here; neither knows our name and our origin.
    fn of(request: &Request, bound: SocketAddr) -> Result<Wanted, Refusal> {
        let fields = |name: &str| -> Vec<String> {
            let own = request.headers.iter().filter(|header| header.name.eq_ignore_ascii_case(name));
            own.map(|header| String::from_utf8_lossy(header.value).trim().to_ascii_lowercase()).collect()
        };
        let mut names = vec![bound.to_string(), format!("localhost:{}", bound.port())];
        if bound.port() == 80 {
            names.extend([bound.ip().to_string(), "localhost".to_owned()]);
        }
        let is = |values: &[String], allowed: &dyn Fn(&str) -> bool| match values {
            [] => None,
            [one] => Some(allowed(one)),
            _ => Some(false),
        };
        if is(&fields("host"), &|host| names.iter().any(|name| name == host)) != Some(true) {
            return refuse(403, "the Host is not this machine");
        }
        let own =
            |origin: &str| origin.strip_prefix("http://").is_some_and(|host| names.iter().any(|name| name == host));
        if is(&fields("origin"), &own) == Some(false) {
            return refuse(403, "the request comes from another page");
        }
        match (request.method, request.path) {
            (Some("GET"), Some("/")) => Ok(Wanted::Page),
            (Some("POST"), Some("/run")) => match &fields("content-length")[..] {
                [length] => match length.parse::<usize>() {
                    Ok(length) if length <= LONGEST_BODY => Ok(Wanted::Run(length)),
                    _ => refuse(413, format!("{LONGEST_BODY} bytes at most")),
                },
                _ => refuse(411, "how long is it? (Content-Length)"),
            },
            (_, Some("/" | "/run")) => refuse(405, "GET / or POST /run"),
            _ => refuse(404, "there is / and nothing else"),
        }
    }
}

/// What the page's form sends: JSON, the seed in digits, since JavaScript's numbers are not exact from 2^53 on.
fn asked(body: &[u8]) -> Result<Asked, String> {
    use serde_json::Value;
    let said: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let prompt = said["prompt"].as_str().ok_or("there is no prompt")?.to_owned();
    let seed = match &said["seed"] {
        Value::Null => None,
        Value::String(digits) if digits.trim().is_empty() => None,
        Value::String(digits) => Some(digits.trim().parse().ok()),
        other => Some(other.as_u64()),
    };
    let seed = seed.map(|seed| seed.ok_or(format!("seed takes a whole number from 0 to {}", u64::MAX))).transpose()?;
    let cfg_scale = match &said["cfg_scale"] {
        Value::Null => None,
        other => {
            let scale = other.as_f64().map(|scale| scale as f32).filter(|scale| scale.is_finite());
            Some(scale.ok_or("guidance takes a number")?)
        }
    };
    Ok(Asked { prompt, seed, cfg_scale })
}

/// Reads from a stream until a point in time.
struct Deadline<'a> {
    stream: &'a TcpStream,
    until: Instant,
}

impl Read for Deadline<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let left = self.until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Error::from(ErrorKind::TimedOut));
        }
        self.stream.set_read_timeout(Some(left))?;
        self.stream.read(buffer)
    }
}

fn respond(mut stream: &TcpStream, status: u16, kind: &str, body: &[u8]) -> std::io::Result<()> {
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; \
                          connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    let name = match status {
        200 => "OK",
        500 => "Internal Server Error",
        _ => "Refused",
    };
    write!(
        stream,
        "HTTP/1.1 {status} {name}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nContent-Security-Policy: {POLICY}\r\n\
         X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    stream.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_taken_as_it_is_or_refused() {
        let seed =
            |text: &str| asked(format!("{{\"prompt\": \"x\", \"seed\": {text}}}").as_bytes()).map(|asked| asked.seed);
        assert_eq!(seed("\"18446744073709551615\""), Ok(Some(u64::MAX)));
        assert_eq!((seed("3"), seed("\" \""), seed("null")), (Ok(Some(3)), Ok(None), Ok(None)));
        for bad in ["-1", "1.5", "\"x\"", "\"18446744073709551616\"", "[]"] {
            assert!(seed(bad).is_err_and(|why| why.contains("whole number")), "{bad}");
        }
        for bad in ["1e300", "\"7\""] {
            assert!(asked(format!("{{\"prompt\": \"x\", \"cfg_scale\": {bad}}}").as_bytes()).is_err(), "{bad}");
        }
        assert!(asked(b"{}").is_err() && asked(b"").is_err() && asked(b"\xff").is_err());
    }

    #[test]
    fn only_our_own_names_are_admitted() {
        let of = |bound: &str, host: &str, more: &str| {
            let text = format!("GET / HTTP/1.1\r\nHost: {host}\r\n{more}\r\n");
            let mut headers = [EMPTY_HEADER; 8];
            let mut request = Request::new(&mut headers);
            request.parse(text.as_bytes()).expect("a request");
            Wanted::of(&request, bound.parse().expect("an address")).err().map_or(200, |(status, _)| status)
        };
        assert_eq!(of("127.0.0.1:7380", "127.0.0.1:7380", ""), 200);
        assert_eq!(of("127.0.0.1:7380", "LOCALHOST:7380", "Origin: http://localhost:7380\r\n"), 200);
        assert_eq!(of("[::1]:7380", "[::1]:7380", ""), 200);
        assert_eq!(of("127.0.0.1:80", "127.0.0.1", ""), 200, "browsers leave out port 80");
        assert_eq!(of("127.0.0.1:7380", "127.0.0.1", ""), 403);
        assert_eq!(of("127.0.0.1:7380", "evil.example", ""), 403);
        assert_eq!(of("127.0.0.1:7380", "127.0.0.1:7380", "Host: evil.example\r\n"), 403);
        assert_eq!(of("127.0.0.1:7380", "127.0.0.1:7380", "Origin: null\r\n"), 403);
    }
}
