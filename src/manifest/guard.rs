//! What hyper does not watch over on a connection: a slow head after a quick first byte, an idle connection, a
//! peer that does not read, a head whose length can be read two ways, and a close that would cut off the answer.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep};
use tokio_rustls::server::TlsStream;

/// How long one connection may take for what.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From the first byte of a request to the end of its head; for the first request of a connection from the
    /// end of the TLS handshake.
    pub(super) head: Duration,
    /// Between two requests.
    pub(super) idle: Duration,
    /// Without the peer taking a single byte of an answer.
    pub(super) write: Duration,
}

/// How long a peer may go on sending what nobody wants any more, so that it sees the answer before the reset.
const LINGER: Duration = Duration::from_secs(2);
/// Longest head of a request, in bytes.
pub(super) const MAX_HEAD: usize = 16 * 1024;

const IDLE: u64 = 0;
const HEAD: u64 = 1;
const BUSY: u64 = 2;

/// What a connection is at, as far as it matters for who has to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Answered; only what nobody wants is still coming in.
    Done,
    /// In the TLS handshake or in the head of a request.
    Arriving,
    /// Between two requests.
    Idle,
    /// A request of somebody who has shown no credentials.
    Stranger,
    /// A request with the right credentials.
    Caller,
    /// Asked to make room already.
    Leaving,
}

/// Where a connection is, shared between its bytes, its requests and the listener.
#[derive(Debug)]
pub(super) struct Phase {
    /// Counts up with each change, so that a timer knows when it is out of date; the lowest two bits say where.
    state: AtomicU64,
    born: Instant,
    /// Milliseconds from `born` to the last change of `state`.
    since: AtomicU64,
    ambiguous: AtomicBool,
    linger: AtomicBool,
    trusted: AtomicBool,
    leaving: AtomicBool,
    leave: Notify,
    finish: Notify,
}

impl Phase {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU64::new(HEAD),
            born: Instant::now(),
            since: AtomicU64::new(0),
            ambiguous: AtomicBool::new(false),
            linger: AtomicBool::new(false),
            trusted: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            leave: Notify::new(),
            finish: Notify::new(),
        })
    }

    fn enter(&self, phase: u64) {
        let age = u64::try_from(self.born.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.since.store(age, Relaxed);
        self.state
            .store((self.state.load(Relaxed) | 3) + 1 + phase, Relaxed);
    }

    /// A request has begun: its head is complete.
    pub(super) fn busy(&self) {
        self.trusted.store(false, Relaxed);
        self.enter(BUSY);
    }

    /// The request has shown the right credentials.
    pub(super) fn trust(&self) {
        self.trusted.store(true, Relaxed);
    }

    /// The answer is with hyper: the connection waits for the next request.
    pub(super) fn idle(&self) {
        self.enter(IDLE);
    }

    /// Whether the head could be read two ways: a length and chunks, or two lengths.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.ambiguous.load(Relaxed)
    }

    /// The answer goes out although the request's body has not come yet.
    pub(super) fn linger(&self) {
        self.linger.store(true, Relaxed);
    }

    /// What the connection is at.
    pub(super) fn standing(&self) -> Standing {
        if self.leaving.load(Relaxed) {
            return Standing::Leaving;
        }
        match self.state.load(Relaxed) & 3 {
            IDLE if self.linger.load(Relaxed) => Standing::Done,
            IDLE => Standing::Idle,
            HEAD => Standing::Arriving,
            _ if self.trusted.load(Relaxed) => Standing::Caller,
            _ => Standing::Stranger,
        }
    }

    /// Since when it is at that.
    pub(super) fn since(&self) -> Instant {
        self.born + Duration::from_millis(self.since.load(Relaxed))
    }

    /// Asks the connection to make room.
    pub(super) fn leave(&self) {
        self.leaving.store(true, Relaxed);
        self.leave.notify_one();
    }

    /// Resolves when the connection has been asked to make room.
    pub(super) async fn asked_to_leave(&self) {
        self.leave.notified().await;
    }

    /// Asks the connection to end in good order, if it is between two requests; says whether it is.
    pub(super) fn finish(&self) -> bool {
        let is_idle = self.state.load(Relaxed) & 3 == IDLE && !self.linger.load(Relaxed);
        if is_idle {
            self.finish.notify_one();
        }
        is_idle
    }

    /// Resolves when the connection is to end in good order.
    pub(super) async fn asked_to_finish(&self) {
        self.finish.notified().await;
    }
}

/// A connection's bytes, whatever carries them.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin {
    /// Reads what nobody wants any more, as it comes over the network.
    fn poll_unwanted(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>>;
}

impl Wire for TlsStream<TcpStream> {
    fn poll_unwanted(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (socket, _) = self.get_mut();
        Pin::new(socket).poll_read(cx, buf)
    }
}

#[cfg(feature = "demo")]
impl Wire for tokio::io::DuplexStream {
    fn poll_unwanted(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(self).poll_read(cx, buf)
    }
}

/// The bytes of one connection, with its timers.
pub(super) struct Guard<S> {
    inner: S,
    phase: Arc<Phase>,
    limits: Limits,
    read_timer: Pin<Box<Sleep>>,
    /// Which state of `phase` the read timer was set for.
    timed: u64,
    write_timer: Option<Pin<Box<Sleep>>>,
    head: Vec<u8>,
    lingering: Option<Pin<Box<Sleep>>>,
}

impl<S: Wire> Guard<S> {
    pub(super) fn new(inner: S, phase: Arc<Phase>, limits: Limits) -> Self {
        let timed = phase.state.load(Relaxed);
        Self {
            inner,
            phase,
            limits,
            read_timer: Box::pin(tokio::time::sleep(limits.head)),
            timed,
            write_timer: None,
            head: Vec::new(),
            lingering: None,
        }
    }

    fn set_timer(&mut self, state: u64) {
        if self.timed == state {
            return;
        }
        self.timed = state;
        let limit = match state & 3 {
            IDLE => self.limits.idle,
            HEAD => self.limits.head,
            _ => return,
        };
        self.read_timer.as_mut().reset(Instant::now() + limit);
    }

    fn saw(&mut self, bytes: &[u8]) {
        let mut state = self.phase.state.load(Relaxed);
        if state & 3 == IDLE {
            self.head.clear();
            self.phase.enter(HEAD);
            state = self.phase.state.load(Relaxed);
        }
        if state & 3 == HEAD && self.head.len() < MAX_HEAD {
            self.set_timer(state);
            self.head.extend_from_slice(bytes);
            if is_ambiguous(&self.head) {
                self.phase.ambiguous.store(true, Relaxed);
            }
        }
    }

    /// Resolves to an error when the peer has had its time; wakes the task when it has.
    fn overdue(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let state = self.phase.state.load(Relaxed);
        self.set_timer(state);
        if state & 3 == BUSY {
            return Poll::Pending;
        }
        ready!(self.read_timer.as_mut().poll(cx));
        Poll::Ready(io::ErrorKind::TimedOut.into())
    }

    fn watch_write<T>(&mut self, cx: &mut Context<'_>, done: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if done.is_ready() {
            self.write_timer = None;
            return done;
        }
        let limit = self.limits.write;
        let timer = self
            .write_timer
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(limit)));
        ready!(timer.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

/// Whether a head, or what has come of it, names its body's length more than once (RFC 9112, section 6.3).
fn is_ambiguous(head: &[u8]) -> bool {
    let lines = head.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end);
    let lengths = lines
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter(|line| {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default();
            name.eq_ignore_ascii_case(b"content-length") || name.eq_ignore_ascii_case(b"transfer-encoding")
        })
        .count();
    lengths > 1
}

impl<S: Wire> AsyncRead for Guard<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.filled().len();
        match Pin::new(&mut this.inner).poll_read(cx, buf) {
            Poll::Ready(Ok(())) => {
                if let Some(new @ [_, ..]) = buf.filled().get(before..) {
                    this.saw(new);
                }
                Poll::Ready(Ok(()))
            }
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            Poll::Pending => this.overdue(cx).map(Err),
        }
    }
}

impl<S: Wire> AsyncWrite for Guard<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.inner).poll_write(cx, bytes);
        this.watch_write(cx, done)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.inner).poll_write_vectored(cx, slices);
        this.watch_write(cx, done)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let done = Pin::new(&mut this.inner).poll_flush(cx);
        this.watch_write(cx, done)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.lingering.is_none() {
            let done = Pin::new(&mut this.inner).poll_shutdown(cx);
            ready!(this.watch_write(cx, done))?;
            if !this.phase.linger.load(Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        // Closing a socket that holds unread bytes resets it, and the reset can overtake the answer.
        let limit = this
            .lingering
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER)));
        if limit.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Ok(()));
        }
        let mut scratch = [0; 16 * 1024];
        for _ in 0..16 {
            let mut unwanted = ReadBuf::new(&mut scratch);
            match this.inner.poll_unwanted(cx, &mut unwanted) {
                Poll::Ready(Ok(())) if !unwanted.filled().is_empty() => {}
                Poll::Ready(_) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
        // Others want to run as well.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_with_two_lengths_is_ambiguous() {
        for (head, expected) in [
            ("GET / HTTP/1.1\r\nHost: x\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            (
                "POST / HTTP/1.1\r\ncontent-LENGTH: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                true,
            ),
            (
                "POST / HTTP/1.1\nTransfer-Encoding: chunked\nContent-Length: 5\n\n",
                true,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                true,
            ),
            (
                "POST / HTTP/1.1\r\nTransfer-Encoding: x\r\nTransfer-Encoding: chunked\r\n\r\n",
                true,
            ),
            (
                "POST / HTTP/1.1\r\nContent-Length: 60\r\n\r\nContent-Length: 5\r\nContent-Length: 5\r\n",
                false,
            ),
            ("POST /Content-Length: HTTP/1.1\r\nContent-Length: 5", false),
        ] {
            assert_eq!(is_ambiguous(head.as_bytes()), expected, "{head:?}");
        }
    }

    #[test]
    fn each_change_of_phase_is_a_new_state() {
        let phase = Phase::new();
        let mut seen = vec![phase.state.load(Relaxed)];
        for _ in 0..3 {
            phase.busy();
            seen.push(phase.state.load(Relaxed));
            phase.idle();
            seen.push(phase.state.load(Relaxed));
        }
        assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "{seen:?}");
        assert_eq!(
            seen.iter().map(|state| state & 3).collect::<Vec<_>>(),
            [1, 2, 0, 2, 0, 2, 0]
        );
    }
}
