//! SMS modems that speak AT commands over a serial line (serial2-tokio): opens the port, runs the dialogue, sends part
//! by part.

mod connection;
mod port;

use super::sms::Edge;

/// Works until the gateway stops.
pub(super) async fn run(edge: Edge) {
    connection::Connection::new(edge, port::Roots::default())
        .run()
        .await;
}
