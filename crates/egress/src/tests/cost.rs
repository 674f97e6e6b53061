//! What a connection costs by each way, beside a direct one; figures with `--nocapture`.

// What time it takes is about the real world.
#![allow(clippy::disallowed_methods, clippy::print_stderr)]

use super::house::*;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ROUNDS: usize = 200;

async fn answer(mut stream: TcpStream, request: &str) {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut all = Vec::new();
    while !all.ends_with(b"hello") {
        assert!(stream.read_buf(&mut all).await.unwrap() > 0);
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_by_the_proxy_beside_a_direct_one() {
    let sink = Sink::at("127.0.0.1").await;
    let at = format!("127.0.0.1:{}", sink.port);
    let house = House::with(vec![entry("127.0.0.1", sink.port)], Everywhere(Vec::new()), None).await;
    let origin = format!("GET / HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let absolute = format!("GET http://{at}/ HTTP/1.1\r\nHost: {at}\r\n\r\n");
    let mut times = [const { Vec::new() }; 4];
    for _ in 0..ROUNDS {
        let begin = Instant::now();
        answer(TcpStream::connect(&at).await.unwrap(), &origin).await;
        times[0].push(begin.elapsed());
        let begin = Instant::now();
        answer(TcpStream::connect(house.proxy).await.unwrap(), &absolute).await;
        times[1].push(begin.elapsed());
        let begin = Instant::now();
        answer(house.connect(&at).await.unwrap(), &origin).await;
        times[2].push(begin.elapsed());
        let begin = Instant::now();
        answer(house.socks(b"127.0.0.1", sink.port).await.unwrap(), &origin).await;
        times[3].push(begin.elapsed());
    }
    let [direct, plain, connect, socks] = times.map(median);
    for (way, time) in [("plain HTTP", plain), ("CONNECT", connect), ("SOCKS5", socks)] {
        let more = time.saturating_sub(direct).as_secs_f64() * 1e6;
        eprintln!("cost: a connection by {way}, beside {:.0} us direct, median of {ROUNDS}: {more:.0} us more", direct.as_secs_f64() * 1e6);
    }
    assert!(plain < direct + Duration::from_millis(100), "it stalls");
}
