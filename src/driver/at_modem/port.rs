//! Finds and opens a modem's port. What goes wrong is said with its remedy.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serial2_tokio::SerialPort;

use crate::config::ModemPort;

/// Where devices are looked for; another place in tests.
#[derive(Clone, Debug)]
pub(super) struct Roots {
    /// `/dev`
    pub(super) dev: PathBuf,
    /// `/sys`
    pub(super) sys: PathBuf,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            dev: "/dev".into(),
            sys: "/sys".into(),
        }
    }
}

/// A port of a USB device.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct UsbPort {
    interface: u8,
    path: PathBuf,
    vendor: u16,
    product: u16,
}

/// The device files that may be the modem's port, most probable first. Looked up anew at each attempt: after a
/// replug the number in the name is another one.
pub(super) fn candidates(port: &ModemPort, roots: &Roots) -> Result<Vec<PathBuf>, String> {
    match port {
        ModemPort::Manager { .. } => Err("ModemManager has this modem".to_owned()),
        ModemPort::Path(path) if path.exists() => Ok(vec![path.clone()]),
        ModemPort::Path(path) => Err(format!(
            "there is no {}: is the modem plugged in and switched on? {}",
            path.display(),
            known_links(roots)
        )),
        ModemPort::Usb {
            vendor,
            product,
            interface,
        } => {
            let all = usb_ports(roots);
            let of_device = |port: &&UsbPort| port.vendor == *vendor && port.product == *product;
            let paths: Vec<PathBuf> = all
                .iter()
                .filter(of_device)
                .filter(|port| interface.is_none_or(|interface| port.interface == interface))
                .map(|port| port.path.clone())
                .collect();
            if !paths.is_empty() {
                return Ok(paths);
            }
            let others: Vec<String> = all
                .iter()
                .filter(of_device)
                .map(|port| port.interface.to_string())
                .collect();
            Err(if others.is_empty() {
                format!(
                    "no serial port of a USB device {vendor:04x}:{product:04x}: is the modem plugged in, and does \
                     lsusb show it by this identity? {}",
                    known_links(roots)
                )
            } else {
                format!(
                    "the USB device {vendor:04x}:{product:04x} has no serial port at that interface, but at: {}",
                    others.join(", ")
                )
            })
        }
    }
}

/// The links that a person can choose from.
fn known_links(roots: &Roots) -> String {
    let folder = roots.dev.join("serial/by-id");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path().display().to_string()))
        .take(12)
        .collect();
    names.sort_unstable();
    if names.is_empty() {
        "no USB serial port is there at the moment".to_owned()
    } else {
        format!("ports that are there: {}", names.join(", "))
    }
}

/// All serial ports of USB devices, from `/sys/class/tty`.
fn usb_ports(roots: &Roots) -> Vec<UsbPort> {
    let mut ports: Vec<UsbPort> = fs::read_dir(roots.sys.join("class/tty"))
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?.path();
            let name = entry.file_name()?.to_owned();
            let device = fs::canonicalize(entry.join("device")).ok()?;
            let number = |folder: &Path, file: &str| {
                u16::from_str_radix(fs::read_to_string(folder.join(file)).ok()?.trim(), 16).ok()
            };
            // ttyACM: the device is the interface. ttyUSB: it lies one below. The device is above the interface.
            let mut interface = None;
            for folder in device.ancestors().take(5) {
                interface = interface.or_else(|| number(folder, "bInterfaceNumber"));
                if let (Some(vendor), Some(product)) =
                    (number(folder, "idVendor"), number(folder, "idProduct"))
                {
                    return Some(UsbPort {
                        interface: u8::try_from(interface?).ok()?,
                        path: roots.dev.join(name),
                        vendor,
                        product,
                    });
                }
            }
            None
        })
        .collect();
    ports.sort_unstable();
    ports
}

/// Opens a port for this program alone.
pub(super) fn open(path: &Path, baud: u32) -> Result<SerialPort, String> {
    let opened = SerialPort::open(path, |mut settings: serial2_tokio::Settings| {
        settings.set_raw();
        settings.set_baud_rate(baud)?;
        Ok(settings)
    });
    let port = opened.map_err(|error| in_words(path, &error))?;
    // Another program that opens it now is told that it is busy. Not every port knows this.
    if let Err(error) = keep_others_out(path) {
        log::debug!(error = error.to_string().as_str(); "The port cannot be made exclusive");
    }
    Ok(port)
}

/// Makes a port that is open exclusive until its last close, through a handle of its own.
fn keep_others_out(path: &Path) -> rustix::io::Result<()> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    rustix::termios::ioctl_tiocexcl(rustix::fs::open(path, flags, Mode::empty())?)
}

/// Why a port cannot be used, and what to do.
pub(super) fn in_words(path: &Path, error: &io::Error) -> String {
    let path = path.display();
    let remedy = match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::ACCESS | rustix::io::Errno::PERM) => {
            "permission denied: add the service's user to the group that owns it (usermod -aG dialout pipepost) and \
             start the service again"
        }
        Some(rustix::io::Errno::BUSY) => {
            "another program has it open. ModemManager may hold the port: systemctl stop ModemManager, or let it pass \
             over this modem with the udev property ID_MM_DEVICE_IGNORE=1"
        }
        Some(
            rustix::io::Errno::NOENT
            | rustix::io::Errno::NODEV
            | rustix::io::Errno::NXIO
            | rustix::io::Errno::IO,
        ) => "it is gone: is the modem plugged in and supplied with enough power?",
        Some(rustix::io::Errno::NOTTY | rustix::io::Errno::INVAL) => {
            "it is no serial port that takes this speed"
        }
        _ => return format!("cannot use {path}: {error}"),
    };
    format!("cannot use {path}: {remedy}")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// A ttyUSB port of interface `interface`, as the kernel lays it out.
    fn plug(roots: &Roots, tty: &str, interface: &str) {
        let device = roots.sys.join("devices/usb1/1-1");
        let port = device.join(format!("1-1:1.{interface}")).join(tty);
        fs::create_dir_all(&port).unwrap();
        fs::write(device.join("idVendor"), "1e0e\n").unwrap();
        fs::write(device.join("idProduct"), "9001\n").unwrap();
        fs::write(
            port.parent().unwrap().join("bInterfaceNumber"),
            format!("0{interface}\n"),
        )
        .unwrap();
        let class = roots.sys.join("class/tty").join(tty);
        fs::create_dir_all(&class).unwrap();
        symlink(&port, class.join("device")).unwrap();
    }

    fn unplug(roots: &Roots) {
        fs::remove_dir_all(roots.sys.join("devices")).unwrap();
        fs::remove_dir_all(roots.sys.join("class")).unwrap();
    }

    fn roots(folder: &Path) -> Roots {
        Roots {
            dev: folder.join("dev"),
            sys: folder.join("sys"),
        }
    }

    #[test]
    fn a_usb_modem_is_found_again_under_another_number() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        plug(&roots, "ttyUSB1", "3");
        plug(&roots, "ttyUSB2", "2");
        let wanted = |interface| ModemPort::Usb {
            vendor: 0x1e0e,
            product: 0x9001,
            interface,
        };
        assert_eq!(
            candidates(&wanted(Some(2)), &roots),
            Ok(vec![roots.dev.join("ttyUSB2")])
        );
        assert_eq!(
            candidates(&wanted(None), &roots),
            Ok(vec![roots.dev.join("ttyUSB2"), roots.dev.join("ttyUSB1")])
        );
        assert_eq!(
            candidates(&wanted(Some(7)), &roots).unwrap_err(),
            "the USB device 1e0e:9001 has no serial port at that interface, but at: 2, 3"
        );
        unplug(&roots);
        assert!(
            candidates(&wanted(Some(2)), &roots)
                .unwrap_err()
                .contains("is the modem plugged in")
        );
        plug(&roots, "ttyUSB5", "2");
        assert_eq!(
            candidates(&wanted(Some(2)), &roots),
            Ok(vec![roots.dev.join("ttyUSB5")])
        );
    }

    #[test]
    fn a_missing_port_is_said_with_the_ports_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let roots = roots(folder.path());
        fs::create_dir_all(roots.dev.join("serial/by-id")).unwrap();
        let link = roots.dev.join("serial/by-id/usb-Stick-if00");
        fs::write(&link, "").unwrap();
        let missing = ModemPort::Path(roots.dev.join("ttyUSB9"));
        let reason = candidates(&missing, &roots).unwrap_err();
        assert!(
            reason.contains("ttyUSB9") && reason.contains("usb-Stick-if00"),
            "{reason}"
        );
        assert_eq!(candidates(&ModemPort::Path(link.clone()), &roots), Ok(vec![link]));
    }

    #[test]
    fn a_port_that_cannot_be_used_is_said_with_the_remedy() {
        let path = Path::new("/dev/ttyUSB2");
        for (errno, remedy) in [
            (rustix::io::Errno::ACCESS, "dialout"),
            (rustix::io::Errno::BUSY, "ModemManager"),
            (rustix::io::Errno::NODEV, "plugged in"),
        ] {
            let words = in_words(path, &io::Error::from(errno));
            assert!(
                words.contains(remedy) && words.contains("/dev/ttyUSB2"),
                "{words}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(open(&file, 115_200).unwrap_err().contains("no serial port"));
    }
}
