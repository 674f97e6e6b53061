//! Wire types, REST over the Unix socket, event stream, client.
