//! SOCKS5 as far as it is needed: no authentication, `CONNECT` to names and addresses.
//!
//! Invariant: the name is read by its length and then by the one reader of hosts, so that a NUL or a
//! dot in it means the same to the rules and to the resolver.

use crate::gate::{Gate, No};
use crate::host::{Host, Odd};
use crate::http::{Place, name, note};
use crate::tunnel::{self, Wire};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::timeout;

/// Longest time until the request is whole.
const REQUEST: Duration = Duration::from_secs(30);
const VERSION: u8 = 5;
const REFUSED: u8 = 2;
const UNREACHABLE: u8 = 4;
const NO_COMMAND: u8 = 7;
const NO_ADDRESS: u8 = 8;

/// Serves one connection.
pub async fn serve(gate: Arc<Gate>, mut client: Box<dyn Wire>, place: Place) {
    let asked = match timeout(REQUEST, request(&mut client)).await {
        Ok(Ok(asked)) => asked,
        // A client that breaks off has got nothing.
        _ => return,
    };
    let refuse = |host: &str, port, why: String| gate.log.begin("socks", host, port).refuse(&why);
    let host = match asked {
        Asked::Address(address, port) => Ok((Host::from(address), port)),
        Asked::Host(text, port) => {
            let host = std::str::from_utf8(&text).map_err(|_| Odd::Byte).and_then(Host::parse);
            host.map(|host| (host, port)).map_err(|odd| {
                refuse(&String::from_utf8_lossy(&text), port, odd.to_string());
                REFUSED
            })
        }
        Asked::Other(code, why) => {
            refuse("", 0, why.to_owned());
            Err(code)
        }
    };
    // A client that has gone does not hear how it went.
    drop(match host {
        Ok((host, port)) => connect(gate, client, (host, port), place).await,
        Err(code) => answer(&mut client, code).await,
    });
}

async fn connect(gate: Arc<Gate>, mut client: Box<dyn Wire>, (host, port): (Host, u16), place: Place) -> io::Result<()> {
    let record = gate.log.begin("socks", &name(&host), port);
    let opened = tunnel::open(&gate, host, port, &record).await.map_err(|no| note(no, &record));
    match opened {
        Ok(ready) => {
            drop(record);
            answer(&mut client, 0).await?;
            tunnel::carry(gate, client, ready, place).await;
            Ok(())
        }
        Err(No::Refused(_)) => answer(&mut client, REFUSED).await,
        Err(No::Failed(_)) => answer(&mut client, UNREACHABLE).await,
    }
}

/// What the client asks for.
enum Asked {
    Host(Vec<u8>, u16),
    Address(IpAddr, u16),
    Other(u8, &'static str),
}

async fn request(client: &mut Box<dyn Wire>) -> io::Result<Asked> {
    let mut head = [0; 2];
    client.read_exact(&mut head).await?;
    let mut methods = vec![0; head[1].into()];
    client.read_exact(&mut methods).await?;
    if head[0] != VERSION || !methods.contains(&0) {
        client.write_all(&[VERSION, 0xff]).await?;
        return Err(io::Error::other("no common method"));
    }
    client.write_all(&[VERSION, 0]).await?;
    let [version, command, reserved, kind] = client.read_u32().await?.to_be_bytes();
    if version != VERSION || reserved != 0 {
        return Ok(Asked::Other(1, "no request of SOCKS5"));
    }
    let asked = match kind {
        1 => Some(IpAddr::V4(Ipv4Addr::from(client.read_u32().await?))),
        4 => Some(IpAddr::V6(Ipv6Addr::from(client.read_u128().await?))),
        3 => None,
        _ => return Ok(Asked::Other(NO_ADDRESS, "an address of a kind that does not exist")),
    };
    let asked = match asked {
        Some(address) => Asked::Address(address, client.read_u16().await?),
        None => {
            let mut text = vec![0; client.read_u8().await?.into()];
            client.read_exact(&mut text).await?;
            Asked::Host(text, client.read_u16().await?)
        }
    };
    Ok(if command == 1 { asked } else { Asked::Other(NO_COMMAND, "SOCKS5 is served for connections only, not for datagrams") })
}

async fn answer(client: &mut Box<dyn Wire>, code: u8) -> io::Result<()> {
    client.write_all(&[VERSION, code, 0, 1, 0, 0, 0, 0, 0, 0]).await?;
    client.flush().await
}
