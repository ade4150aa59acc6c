//! What the modem hangs on: a pseudo-terminal or a socket.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, ptsname, unlockpt};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, Interest};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Mutex;

/// Where a program finds the modem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cable {
    /// A pseudo-terminal, and a link to it, as udev makes them for modems.
    Pty {
        /// A link that is made while the modem is plugged in and removed when it is not.
        link: Option<PathBuf>,
    },
    /// A socket in Linux's abstract name space, without the zero byte in front of its name. One connection at a time.
    Abstract(String),
}

/// A plugged cable.
#[derive(Debug)]
pub(super) enum Line {
    Pty {
        modem: AsyncFd<OwnedFd>,
        /// Kept open, so that a program can come and go as at a serial port.
        _program: OwnedFd,
        path: PathBuf,
        link: Option<PathBuf>,
    },
    Socket {
        listener: UnixListener,
        connection: Mutex<Option<OwnedReadHalf>>,
        out: Mutex<Option<OwnedWriteHalf>>,
        path: PathBuf,
    },
}

impl Line {
    pub(super) fn plug(cable: &Cable) -> io::Result<Self> {
        match cable {
            Cable::Pty { link } => Self::pty(link.clone()),
            Cable::Abstract(name) => {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                let listener = std::os::unix::net::UnixListener::bind_addr(&address)?;
                listener.set_nonblocking(true)?;
                Ok(Self::Socket {
                    listener: UnixListener::from_std(listener)?,
                    connection: Mutex::new(None),
                    out: Mutex::new(None),
                    path: PathBuf::from(format!("@{name}")),
                })
            }
        }
    }

    fn pty(link: Option<PathBuf>) -> io::Result<Self> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let modem = openpt(flags)?;
        unlockpt(&modem)?;
        let program = ioctl_tiocgptpeer(&modem, flags)?;
        // A serial port that nobody configured yet neither echoes nor changes line ends here; programs set it anyway.
        let mut settings = tcgetattr(&program)?;
        settings.make_raw();
        tcsetattr(&program, OptionalActions::Now, &settings)?;
        let name = ptsname(&modem, Vec::new())?;
        let path = PathBuf::from(std::ffi::OsString::from_vec(name.into_bytes()));
        rustix::io::ioctl_fionbio(&modem, true)?;
        if let Some(link) = &link {
            make_link(&path, link)?;
        }
        #[expect(
            deprecated,
            reason = "its successor is unsafe, for types that close their descriptor behind its back; this one cannot"
        )]
        let modem = AsyncFd::new(modem)?;
        Ok(Self::Pty {
            modem,
            _program: program,
            path,
            link,
        })
    }

    /// The pseudo-terminal, or the socket's name with `@` for its zero byte.
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Pty { path, .. } | Self::Socket { path, .. } => path,
        }
    }

    /// Waits for bytes; may be given up at any time.
    pub(super) async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Pty { modem, .. } => {
                modem
                    .async_io(Interest::READABLE, |fd| {
                        rustix::io::read(fd, &mut *buffer).map_err(io::Error::from)
                    })
                    .await
            }
            Self::Socket {
                listener,
                connection,
                out,
                ..
            } => {
                let mut connection = connection.lock().await;
                loop {
                    let Some(reader) = connection.as_mut() else {
                        let (stream, _) = listener.accept().await?;
                        let (reader, writer) = UnixStream::into_split(stream);
                        *connection = Some(reader);
                        *out.lock().await = Some(writer);
                        continue;
                    };
                    match reader.read(buffer).await {
                        Ok(0) | Err(_) => {
                            *connection = None;
                            *out.lock().await = None;
                        }
                        Ok(count) => return Ok(count),
                    }
                }
            }
        }
    }

    /// Writes some of the bytes; returns how many. What nobody could get is gone.
    pub(super) async fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Pty { modem, .. } => {
                modem
                    .async_io(Interest::WRITABLE, |fd| {
                        rustix::io::write(fd, bytes).map_err(io::Error::from)
                    })
                    .await
            }
            Self::Socket { out, .. } => match out.lock().await.as_mut() {
                Some(writer) => Ok(writer.write(bytes).await.unwrap_or(bytes.len())),
                None => Ok(bytes.len()),
            },
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Self::Pty {
            path,
            link: Some(link),
            ..
        } = self
            && fs::read_link(&*link).is_ok_and(|target| target == *path)
        {
            // Somebody else may have been quicker.
            drop(fs::remove_file(link));
        }
    }
}

/// Makes a link, in place of an older link of this name; a file of this name stays and is an error.
fn make_link(path: &Path, link: &Path) -> io::Result<()> {
    if fs::symlink_metadata(link).is_ok_and(|found| found.is_symlink()) {
        fs::remove_file(link)?;
    }
    std::os::unix::fs::symlink(path, link).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot make the link {}: {error}", link.display()),
        )
    })
}
