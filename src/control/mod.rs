//! The Unix-socket API that the commands use while the daemon runs.
