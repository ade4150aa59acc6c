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

use super::{BUFFER, Failure, USER_AGENT};

/// Sends a request over a connection that was made for it, and returns status and body. Blocks.
pub fn send_over(
    stream: UnixStream,
    method: Method,
    path: &str,
    body: Option<&[u8]>,
    max_body: usize,
) -> Result<(u16, Vec<u8>), Failure> {
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
            agent.run(whole.map_err(|_| Failure::bad_address())?)
        }
        None => agent.run(head.body(()).map_err(|_| Failure::bad_address())?),
    };
    let (head, mut body) = answer.map_err(|error| Failure::classify(&error))?.into_parts();
    let limit = u64::try_from(max_body).unwrap_or(u64::MAX);
    let mut bytes = Vec::new();
    body.as_reader()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::classify(&ureq::Error::Io(error)))?;
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
