//! Connections that send a request whole: ureq writes head and body one after the other, and over TLS each would be a
//! record, a system call and something for the server to wake up for.

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Longest head that waits for its body, in bytes.
const HEAD: usize = 4 * 1024;

/// Wraps every connection.
#[derive(Debug)]
pub(super) struct Whole;

impl Connector<Box<dyn Transport>> for Whole {
    type Out = Sending;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<Box<dyn Transport>>,
    ) -> Result<Option<Self::Out>, ureq::Error> {
        Ok(chained.map(|inner| Sending {
            inner,
            held: Vec::new(),
            last: None,
            answered: false,
        }))
    }
}

#[derive(Debug)]
pub(super) struct Sending {
    inner: Box<dyn Transport>,
    /// What was written and has not left, at most one head.
    held: Vec<u8>,
    /// The limit that it was written under.
    last: Option<NextTimeout>,
    /// Whether bytes came since the last look at whether the connection is open.
    answered: bool,
}

impl Sending {
    fn send(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let held = self.held.len();
        if held > 0 {
            let output = self.inner.buffers().output();
            let whole = held + amount;
            if whole > output.len() {
                let body = output.get(..amount).unwrap_or_default().to_vec();
                self.put_back();
                self.inner.transmit_output(held, timeout)?;
                let output = self.inner.buffers().output();
                if let Some(place) = output.get_mut(..amount) {
                    place.copy_from_slice(&body);
                }
            } else {
                output.copy_within(..amount, held);
                self.put_back();
                return self.inner.transmit_output(whole, timeout);
            }
        }
        self.inner.transmit_output(amount, timeout)
    }

    fn put_back(&mut self) {
        let output = self.inner.buffers().output();
        if let Some(place) = output.get_mut(..self.held.len()) {
            place.copy_from_slice(&self.held);
        }
        self.held.clear();
    }
}

impl Transport for Sending {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        self.answered = false;
        if self.held.is_empty() && amount <= HEAD && amount > 0 && self.last.is_none() {
            let output = self.inner.buffers().output();
            self.held
                .extend_from_slice(output.get(..amount).unwrap_or_default());
            self.last = Some(timeout);
            return Ok(());
        }
        self.send(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        if let Some(last) = self.last.take()
            && !self.held.is_empty()
        {
            self.send(0, last)?;
        }
        self.answered = true;
        self.inner.await_input(timeout)
    }

    /// Asked after an answer and again before the next request: the second time is the one that counts.
    fn is_open(&mut self) -> bool {
        std::mem::take(&mut self.answered) || self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}
