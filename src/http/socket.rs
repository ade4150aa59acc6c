//! One request over a Unix socket: how the commands ask the daemon. No timeout: some answers take as long as what was
//! asked for, and whoever waits can press Ctrl-C.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};

use ureq::config::Config;
use ureq::http::{self, HeaderValue, Method, Uri, header};
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport,
};

use super::{BUFFER, Failure, FailureKind, USER_AGENT};

/// Why there is no whole answer.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The other side went away before it had answered.
    #[error("the connection broke off")]
    BrokenOff,
    /// More than is read, in bytes.
    #[error("it is longer than {0} bytes")]
    TooLong(usize),
    /// What came is not an answer.
    #[error("{0}")]
    Unreadable(String),
}

impl From<ureq::Error> for SocketError {
    fn from(error: ureq::Error) -> Self {
        match Failure::classify(&error).kind {
            FailureKind::Broken => Self::BrokenOff,
            _ => Self::Unreadable(error.to_string()),
        }
    }
}

/// Sends a request over a connection that was made for it, and returns status and body, which is at most `max_body`
/// bytes long. Blocks.
pub fn send_over(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Option<&[u8]>,
    max_body: usize,
) -> Result<(u16, Vec<u8>), SocketError> {
    let config = ureq::Agent::config_builder()
        .user_agent(USER_AGENT)
        .http_status_as_error(false)
        .max_redirects(0)
        .proxy(None)
        .build();
    let agent = ureq::Agent::with_parts(config, Once(Mutex::new(Some(stream))), Nowhere);
    let head = http::Request::builder()
        .method(method)
        .uri(format!("http://pipepost{path}"));
    let answer = match body {
        Some(bytes) => {
            let json = HeaderValue::from_static("application/json");
            let whole = head.header(header::CONTENT_TYPE, json).body(bytes);
            agent.run(whole.map_err(ureq::Error::from)?)
        }
        None => agent.run(head.body(()).map_err(ureq::Error::from)?),
    };
    let (head, mut body) = answer?.into_parts();
    let limit = u64::try_from(max_body).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    // One more than is allowed: what fits exactly is whole.
    body.as_reader()
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(ureq::Error::from)?;
    if bytes.len() > max_body {
        return Err(SocketError::TooLong(max_body));
    }
    Ok((head.status.as_u16(), bytes))
}

/// Gives the connection away, once.
#[derive(Debug)]
struct Once(Mutex<Option<UnixStream>>);

impl Connector for Once {
    type Out = Conversation;

    fn connect(&self, _: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Self::Out>, ureq::Error> {
        let stream = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        let stream = stream.ok_or(ureq::Error::ConnectionFailed)?;
        Ok(Some(Conversation {
            stream,
            buffers: LazyBuffers::new(BUFFER, BUFFER),
        }))
    }
}

/// A socket has no address to look up; ureq wants one all the same.
#[derive(Debug)]
struct Nowhere;

impl Resolver for Nowhere {
    fn resolve(&self, _: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let mut addresses = self.empty();
        addresses.push(([127, 0, 0, 1], 0).into());
        Ok(addresses)
    }
}

#[derive(Debug)]
struct Conversation {
    stream: UnixStream,
    buffers: LazyBuffers,
}

impl Transport for Conversation {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let amount = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// What comes of a request when the other side answers with these bytes and closes; and what it was asked.
    fn asked(answer: &'static str, max_body: usize) -> (Result<(u16, Vec<u8>), SocketError>, String) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let other_side = thread::spawn(move || {
            let mut request = Vec::new();
            let mut part = [0; 512];
            while !request.ends_with(b"{}") {
                let length = theirs.read(&mut part).unwrap();
                assert!(length > 0, "the request broke off: {request:?}");
                request.extend_from_slice(&part[..length]);
            }
            theirs.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        let result = send_over(ours, Method::POST, "/queue?all", Some(b"{}"), max_body);
        (result, other_side.join().unwrap())
    }

    #[test]
    fn an_answer_of_any_status_comes_back_whole() {
        let (result, request) = asked("HTTP/1.1 409 Conflict\r\ncontent-length: 4\r\n\r\nbusy", 4);
        assert_eq!(result, Ok((409, b"busy".to_vec())));
        let request = request.to_ascii_lowercase();
        assert!(request.starts_with("post /queue?all http/1.1\r\n"), "{request}");
        assert!(
            request.contains("content-type: application/json\r\n"),
            "{request}"
        );
    }

    #[test]
    fn an_answer_that_is_too_long_is_an_error_and_not_a_part_of_it() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n12345";
        assert_eq!(asked(answer, 4).0, Err(SocketError::TooLong(4)));
    }

    #[test]
    fn a_daemon_that_ends_before_or_within_its_answer_is_said_to_have_ended() {
        for answer in [
            "",
            "HTTP/1.1 200 OK\r\ncont",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n123",
        ] {
            assert_eq!(asked(answer, 100).0, Err(SocketError::BrokenOff), "{answer:?}");
        }
    }

    #[test]
    fn what_is_not_http_is_said_to_be_unreadable() {
        let (result, _) = asked("220 mail.example ESMTP\r\n\r\n", 100);
        assert!(matches!(result, Err(SocketError::Unreadable(_))), "{result:?}");
    }
}
