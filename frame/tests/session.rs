//! Two ends of a tunnel on an in-memory pipe: what sessions promise, whatever lies between.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, protocol::Role as WsRole},
};
use tunnel_frame::{
    Close, CloseCode, Control, Ended, Event, Frame, FrameReader, FrameWriter, OpenError, Pulse, Role, Session, Stream,
    limits, session, websocket_config,
};

/// One end, its driver running.
struct End {
    session: Session,
    streams: mpsc::UnboundedReceiver<Stream>,
    controls: mpsc::UnboundedReceiver<Control>,
    driver: JoinHandle<Ended>,
}

/// A desktop that sends whatever the test says.
async fn raw_desktop(io: DuplexStream) -> WebSocketStream<DuplexStream> {
    WebSocketStream::from_raw_socket(io, WsRole::Client, None).await
}

async fn end(io: DuplexStream, role: Role) -> End {
    let ws_role = if role == Role::Server { WsRole::Server } else { WsRole::Client };
    let ws = WebSocketStream::from_raw_socket(Pulse::new(io), ws_role, Some(websocket_config())).await;
    let (session, driver) = session(ws, role);
    let (stream, streams) = mpsc::unbounded_channel();
    let (control, controls) = mpsc::unbounded_channel();
    let driver = tokio::spawn(driver.run(move |event| match event {
        Event::Stream(new) => _ = stream.send(new),
        Event::Control(new) => _ = control.send(new),
    }));
    End { session, streams, controls, driver }
}

/// Server and desktop, with a pipe of `buffer` bytes between them.
async fn pair(buffer: usize) -> (End, End) {
    let (a, b) = duplex(buffer);
    (end(a, Role::Server).await, end(b, Role::Desktop).await)
}

/// Opens a stream and says hello, because yamux tells the other side only with the first byte.
async fn open(server: &End, desktop: &mut End) -> ((FrameReader, FrameWriter), (FrameReader, FrameWriter)) {
    let (reader, mut writer) = server.session.open().await.unwrap().split();
    writer.send(&Frame::Chunk(Bytes::from_static(b"hello"))).await.unwrap();
    let (mut there, back) = desktop.streams.recv().await.unwrap().split();
    assert_eq!(there.frame().await, Ok(Some(Frame::Chunk(Bytes::from_static(b"hello")))));
    ((reader, writer), (there, back))
}

#[tokio::test]
async fn bytes_arrive_in_order_through_a_tiny_pipe() {
    let (server, mut desktop) = pair(64).await;
    let ((mut reader, mut writer), (mut there, mut back)) = open(&server, &mut desktop).await;
    let sent: Vec<u8> = (0..300_000_u32).map(|n| n.to_le_bytes()[0] ^ n.to_le_bytes()[1]).collect();
    let up = Bytes::from(sent.clone());
    let echo = tokio::spawn(async move {
        while let Some(frame) = there.frame().await.unwrap() {
            back.send(&frame).await.unwrap();
            if frame == Frame::End {
                return;
            }
        }
    });
    let upload = tokio::spawn(async move {
        writer.send_bytes(up).await.unwrap();
        writer.send(&Frame::End).await.unwrap();
        writer // dropping it here would be a half of a reset
    });
    let mut got = Vec::new();
    loop {
        match reader.frame().await.unwrap() {
            Some(Frame::Chunk(bytes)) => got.extend_from_slice(&bytes),
            Some(Frame::End) => break,
            other => panic!("{other:?}"),
        }
    }
    assert!(got == sent);
    upload.await.unwrap();
    echo.await.unwrap();
}

#[tokio::test]
async fn a_dropped_stream_is_a_cut_for_the_other_side_and_never_an_end() {
    let (server, mut desktop) = pair(4096).await;
    let ((reader, mut writer), (mut there, _back)) = open(&server, &mut desktop).await;
    let watcher = there.watcher();
    writer.send(&Frame::Chunk(Bytes::from_static(b"last words"))).await.unwrap();
    drop((reader, writer));
    assert_eq!(there.frame().await, Ok(Some(Frame::Chunk(Bytes::from_static(b"last words")))));
    assert_eq!(there.frame().await, Ok(None));
    assert!(watcher.is_cut());
}

#[tokio::test]
async fn a_watcher_resets_a_stream_that_nobody_polls() {
    let (server, mut desktop) = pair(4096).await;
    let ((mut reader, mut writer), (mut there, mut back)) = open(&server, &mut desktop).await;
    there.watcher().reset();
    assert_eq!(reader.frame().await, Ok(None));
    assert!(writer.send(&Frame::End).await.is_err());
    assert_eq!(there.frame().await, Ok(None));
    assert!(back.send(&Frame::End).await.is_err());
    assert_eq!(server.session.streams(), 1); // until its halves are gone
    drop((reader, writer));
    assert_eq!(server.session.streams(), 0);
}

#[tokio::test]
async fn t46_one_stream_too_many_is_refused_here_and_hurts_nobody() {
    let (server, mut desktop) = pair(1 << 20).await;
    let accept = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Some(stream) = desktop.streams.recv().await {
            let (reader, mut writer) = stream.split();
            writer.send(&Frame::Accept).await.unwrap();
            held.push((reader, writer));
        }
    });
    let mut held = Vec::new();
    for _ in 0..limits::STREAMS_OPEN {
        let (mut reader, mut writer) = server.session.open().await.unwrap().split();
        writer.send(&Frame::End).await.unwrap();
        assert_eq!(reader.frame().await, Ok(Some(Frame::Accept)));
        held.push((reader, writer));
    }
    assert_eq!(server.session.open().await.unwrap_err(), OpenError::TooMany);
    held.pop();
    assert!(server.session.open().await.is_ok());
    assert!(server.session.ended().is_none());
    accept.abort();
}

#[tokio::test]
async fn who_waits_for_the_end_of_all_streams_takes_the_place_of_none() {
    let (server, mut desktop) = pair(4096).await;
    let (ours, _theirs) = open(&server, &mut desktop).await;
    let session = server.session.clone();
    let idle = tokio::spawn(async move { session.idle().await });
    tokio::task::yield_now().await;
    assert_eq!(server.session.streams(), 1);
    assert!(server.session.open().await.is_ok());
    assert!(!idle.is_finished());
    drop(ours);
    timeout(Duration::from_secs(5), idle).await.unwrap().unwrap();
}

#[tokio::test]
async fn t47_streams_opened_and_reset_at_once_end_no_session() {
    let (server, mut desktop) = pair(1 << 16).await;
    let drain = tokio::spawn(async move {
        while let Some(stream) = desktop.streams.recv().await {
            let (mut reader, mut writer) = stream.split();
            tokio::spawn(async move {
                _ = writer.send(&Frame::Accept).await;
                while let Ok(Some(_)) = reader.frame().await {}
            });
        }
    });
    for _ in 0..10_000 {
        let (_, mut writer) = server.session.open().await.unwrap().split();
        writer.send(&Frame::End).await.unwrap();
    }
    assert!(server.session.is_alive(Duration::from_secs(5)).await);
    assert!(server.session.ended().is_none());
    drain.abort();
}

#[tokio::test]
async fn t66_a_stream_opened_by_the_desktop_closes_the_tunnel() {
    let (a, b) = duplex(4096);
    let server = end(a, Role::Server).await;
    let mut desktop = raw_desktop(b).await;
    // A yamux data frame with SYN for stream 2, as a server-side peer would number it.
    desktop.send(Message::binary(vec![0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 0])).await.unwrap();
    let Ended::Here(close) = server.driver.await.unwrap() else { panic!("not closed here") };
    assert_eq!(close.code, CloseCode::Protocol);
    assert_eq!(close_code(&mut desktop).await, 1002);
}

#[tokio::test]
async fn t46_a_broken_rule_of_yamux_closes_the_tunnel_of_a_peer_that_stays() {
    let (a, b) = duplex(1 << 20);
    let server = end(a, Role::Server).await;
    let mut desktop = raw_desktop(b).await;
    // A stream under an id that is the server's to give. yamux says go-away, and nothing more.
    desktop.send(Message::binary(vec![0, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0])).await.unwrap();
    let Ended::Here(close) = server.driver.await.unwrap() else { panic!("not closed here") };
    assert_eq!(close.code, CloseCode::Protocol);
    assert_eq!(close_code(&mut desktop).await, 1002);
}

#[tokio::test]
async fn t45_floods_and_oversize_close_the_tunnel_with_a_reason() {
    let ping = || Message::Ping(Bytes::new());
    let flood: Vec<Message> = std::iter::repeat_with(ping).take(limits::CONTROL_BURST as usize + 1).collect();
    let big_text = Message::text("x".repeat(limits::CONTROL_ACCEPTED + 1));
    let big_binary = Message::binary(vec![0; limits::MESSAGE_ACCEPTED + 1]);
    for (messages, code) in [
        (flood, 1008),
        (vec![big_text], 1009),
        (vec![big_binary], 1009),
        (vec![Message::text("not json")], 1002),
        (vec![Message::binary(&b"not yamux, not at all"[..])], 1002),
    ] {
        let (a, b) = duplex(1 << 20);
        let _server = end(a, Role::Server).await;
        let mut desktop = raw_desktop(b).await;
        for message in messages {
            if desktop.send(message).await.is_err() {
                break;
            }
        }
        assert_eq!(close_code(&mut desktop).await, code);
    }
}

async fn close_code(ws: &mut WebSocketStream<DuplexStream>) -> u16 {
    loop {
        if let Message::Close(Some(frame)) = ws.next().await.expect("a close frame").expect("a close frame") {
            return frame.code.into();
        }
    }
}

#[tokio::test]
async fn control_messages_cross_and_a_close_says_why() {
    let (server, mut desktop) = pair(4096).await;
    server.session.send(Control::Drain { reason: "a test".into() });
    assert_eq!(desktop.controls.recv().await, Some(Control::Drain { reason: "a test".into() }));
    server.session.close(Close::new(CloseCode::TokenExpired, "too old"));
    assert_eq!(desktop.controls.recv().await, Some(Control::Bye { code: 4002, message: "too old".into() }));
    let close = Close::new(CloseCode::TokenExpired, "too old");
    assert_eq!(desktop.driver.await.unwrap(), Ended::There(close.clone()));
    assert_eq!(server.driver.await.unwrap(), Ended::Here(close));
    assert_eq!(server.session.open().await.unwrap_err(), OpenError::Gone);
}

#[tokio::test(start_paused = true)]
async fn f01_silence_is_noticed_and_streams_are_cut() {
    let (a, middle) = duplex(4096);
    let server = end(a, Role::Server).await;
    let (mut reader, mut writer) = server.session.open().await.unwrap().split();
    writer.send(&Frame::End).await.unwrap();
    let start = Instant::now();
    assert_eq!(reader.frame().await, Ok(None));
    assert_eq!(server.driver.await.unwrap(), Ended::Silent);
    assert_eq!(start.elapsed().as_secs(), limits::SILENCE.as_secs());
    drop(middle);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_cannot_put_off_a_close() {
    let (a, mut b) = duplex(256);
    let server = end(a, Role::Server).await;
    let (_reader, mut writer) = server.session.open().await.unwrap().split();
    let full = tokio::spawn(async move { writer.send_bytes(Bytes::from(vec![0; 1 << 20])).await });
    // It sends, so it lives: an unmasked ping would be a protocol error, a masked one is not.
    for _ in 0..3 {
        tokio::io::AsyncWriteExt::write_all(&mut b, &[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    server.session.close(Close::new(CloseCode::TokenExpired, "too old"));
    assert!(matches!(server.driver.await.unwrap(), Ended::Here(close) if close.code == CloseCode::TokenExpired));
    assert!(full.await.unwrap().is_err());
}

#[tokio::test(start_paused = true)]
async fn f17_an_idle_tunnel_lives_and_never_lets_a_minute_pass_in_silence() {
    let (server, desktop) = pair(4096).await;
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(server.session.ended().is_none() && desktop.session.ended().is_none());
    assert!(server.session.rtt().is_some() && desktop.session.rtt().is_some());
}

#[tokio::test]
async fn a_live_peer_answers_a_probe_and_a_frozen_one_does_not() {
    let (server, desktop) = pair(4096).await;
    assert!(server.session.is_alive(Duration::from_secs(5)).await);
    desktop.driver.abort();
    _ = desktop.driver.await;
    assert!(!server.session.is_alive(Duration::from_millis(50)).await);
}

#[tokio::test(start_paused = true)]
async fn t45_probes_of_a_live_peer_are_no_flood() {
    let (server, desktop) = pair(4096).await;
    for _ in 0..1000 {
        assert!(server.session.is_alive(Duration::from_secs(1)).await);
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    assert!(desktop.session.ended().is_none());
}

#[tokio::test]
async fn t48_a_reader_that_never_reads_holds_one_window_and_stops_the_writer() {
    let (server, mut desktop) = pair(1 << 16).await;
    let ((_reader, mut writer), (_there, _back)) = open(&server, &mut desktop).await;
    let chunk = Bytes::from(vec![0; 4096]);
    let mut taken = 0;
    while timeout(Duration::from_millis(300), writer.send_bytes(chunk.clone())).await.is_ok() {
        taken += chunk.len();
        assert!(taken <= 512 * 1024, "{taken} bytes were taken");
    }
    // Another stream of the same tunnel is not held up.
    let ((_, mut writer), (mut there, _back)) = open(&server, &mut desktop).await;
    writer.send(&Frame::End).await.unwrap();
    assert_eq!(there.frame().await, Ok(Some(Frame::End)));
}
