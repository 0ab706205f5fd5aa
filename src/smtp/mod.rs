//! The protocol of mail, both roles (RFC 5321), as values and state machines: no socket, no clock.
//!
//! [`command`] reads what a client says, [`forward`] what a trusted peer says of another, [`data`] and
//! [`chunk`] frame the message, [`server`] is a session seen from the server, [`client`] reads what a server
//! answers, [`proxy`] what a proxy says before all of it. `ingress` and `relay` put them on sockets.
//!
//! Two rules hold throughout. CR LF is the only line end, so what this side takes for the end of a message
//! is what every other side takes for it (SMTP smuggling); and any way to cut the input into pieces gives
//! the same result.

mod body;
mod parameter;
mod path;
mod syntax;

pub mod chunk;
pub mod command;
pub mod data;
pub mod forward;
pub mod proxy;
pub mod xtext;
pub mod client;
pub mod server;
