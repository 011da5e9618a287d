//! WebSocket (RFC 6455) and yamux as nobody should write them, for either side of a tunnel.

use integration_tests::attack::tunnel::{
    BINARY, CLOSE, Fate, Mask, PING, PONG, TEXT, ws, ws_announced,
    yamux::{self, DATA, GO_AWAY, SYN, WINDOW, data, frame},
};

/// Who sends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Server,
    Desktop,
}

impl Side {
    pub(crate) fn mask(self) -> Mask {
        if self == Self::Desktop { Mask::Zeros } else { Mask::None }
    }

    pub(crate) fn ws(self, first: u8, payload: &[u8]) -> Vec<u8> {
        ws(first, self.mask(), payload)
    }

    /// Frames of yamux in one message.
    pub(crate) fn yamux(self, frames: &[Vec<u8>]) -> Vec<u8> {
        self.ws(BINARY, &frames.concat())
    }

    /// What makes an even id one that this side may use.
    pub(crate) fn odd(self) -> u32 {
        u32::from(self == Self::Server)
    }

    #[allow(clippy::unused_self, reason = "reads as who sends it")]
    pub(crate) fn syn(self, stream: u32) -> Vec<u8> {
        frame(WINDOW, SYN, stream, 0)
    }
}

/// A name, what is sent, and what may become of the tunnel.
pub(crate) type Case = (&'static str, fn(Side) -> Vec<u8>, &'static [Fate]);

const LIVES: &[Fate] = &[Fate::Lives];
const WRONG: &[Fate] = &[Fate::Closed(1002)];
const TOO_BIG: &[Fate] = &[Fate::Closed(1009)];
const FLOOD: &[Fate] = &[Fate::Closed(1008)];
/// Any end of this tunnel.
const ENDS: &[Fate] = &[Fate::Closed(1000), Fate::Closed(1001), Fate::Closed(1002), Fate::Closed(1005), Fate::Gone];

#[rustfmt::skip]
pub(crate) const WEBSOCKET: &[Case] = &[
    ("T45 reserved bit 1", |s| s.ws(0xc2, b"x"), WRONG),
    ("T45 reserved bit 2", |s| s.ws(0xa2, b"x"), WRONG),
    ("T45 reserved bit 3", |s| s.ws(0x92, b"x"), WRONG),
    ("T45 all reserved bits", |s| s.ws(0xf2, b"x"), WRONG),
    ("T45 opcode 3", |s| s.ws(0x83, b"x"), WRONG),
    ("T45 opcode 7", |s| s.ws(0x87, b"x"), WRONG),
    ("T45 opcode 11", |s| s.ws(0x8b, b"x"), WRONG),
    ("T45 opcode 15", |s| s.ws(0x8f, b"x"), WRONG),
    ("T45 the wrong mask", |s| ws(PING, if s == Side::Desktop { Mask::None } else { Mask::Zeros }, b"x"), WRONG),
    ("T45 a continuation of nothing", |s| s.ws(0x80, b"x"), WRONG),
    ("T45 a message inside a message", |s| [s.ws(0x02, b"x"), s.ws(BINARY, b"x")].concat(), WRONG),
    ("T45 a text inside a message", |s| [s.ws(0x02, b"x"), s.ws(TEXT, b"{}")].concat(), WRONG),
    ("T45 a ping in two frames", |s| s.ws(0x09, b"x"), WRONG),
    ("T45 a close in two frames", |s| s.ws(0x08, &[]), WRONG),
    ("T45 a ping of 126 bytes", |s| s.ws(PING, &[0; 126]), WRONG),
    ("T45 a pong of 1000 bytes", |s| s.ws(PONG, &[0; 1000]), WRONG),
    ("T45 a close of 126 bytes", |s| s.ws(CLOSE, &[0; 126]), WRONG),
    ("T45 a close of 1 byte", |s| s.ws(CLOSE, &[3]), ENDS),
    ("T45 a close with a code of 0", |s| s.ws(CLOSE, &[0, 0]), ENDS),
    ("T45 a close with 1005", |s| s.ws(CLOSE, &1005_u16.to_be_bytes()), ENDS),
    ("T45 a close with 65535", |s| s.ws(CLOSE, &[0xff, 0xff]), ENDS),
    ("T45 a close that is no UTF-8", |s| s.ws(CLOSE, &[3, 0xe8, 0xff, 0xfe]), ENDS),
    ("T45 a close without anything", |s| s.ws(CLOSE, &[]), ENDS),
    ("T45 data behind a close", |s| [s.ws(CLOSE, &[3, 0xe8]), s.ws(BINARY, &[0xff; 100])].concat(), ENDS),
    ("T45 a length of 2^63", |s| ws_announced(BINARY, s.mask(), 1 << 63, &[]), &[Fate::Closed(1009), Fate::Closed(1002)]),
    ("T45 a length of 2^64-1", |s| ws_announced(BINARY, s.mask(), u64::MAX, &[]), &[Fate::Closed(1009), Fate::Closed(1002)]),
    ("T45 a length of 1 GB", |s| ws_announced(BINARY, s.mask(), 1 << 30, &[]), TOO_BIG),
    ("T45 a byte over the limit", |s| ws_announced(BINARY, s.mask(), 256 * 1024 + 1, &[]), TOO_BIG),
    ("T45 a text over the limit", |s| s.ws(TEXT, &[b' '; 5000]), TOO_BIG),
    ("T45 fragments over the limit", |s| [s.ws(0x02, &[0; 200_000]), s.ws(0x00, &[0; 200_000])].concat(), TOO_BIG),
    ("T45 an endless drip of fragments", |s| [s.ws(0x02, &[0]), s.ws(0x00, &[0]).repeat(300_000)].concat(), &[Fate::Closed(1009), Fate::Closed(1008), Fate::Closed(1002)]),
    ("T45 an endless drip of empty fragments", |s| [s.ws(0x02, &[]), s.ws(0x00, &[]).repeat(100_000), s.ws(0x80, &[])].concat(), &[Fate::Lives, Fate::Closed(1008), Fate::Closed(1002)]),
    ("T45 a text that is no UTF-8", |s| s.ws(TEXT, &[0xff, 0xfe]), &[Fate::Closed(1007), Fate::Closed(1002)]),
    ("T45 half a character", |s| [s.ws(0x01, &[0xe2, 0x82]), s.ws(0x80, &[])].concat(), &[Fate::Closed(1007), Fate::Closed(1002)]),
    ("T45 a text that is no JSON", |s| s.ws(TEXT, b"hello"), WRONG),
    ("T45 a text without a type", |s| s.ws(TEXT, b"{}"), WRONG),
    ("T45 a type that is a number", |s| s.ws(TEXT, br#"{"type":7}"#), WRONG),
    ("T45 a list", |s| s.ws(TEXT, br#"["drain"]"#), WRONG),
    ("T45 a text of 2,000 lists", |s| s.ws(TEXT, "[".repeat(2000).as_bytes()), WRONG),
    ("T45 drain without a reason", |s| s.ws(TEXT, br#"{"type":"drain"}"#), WRONG),
    ("T45 bye with a code beyond 16 bits", |s| s.ws(TEXT, br#"{"type":"bye","code":99999,"message":""}"#), WRONG),
    ("T45 welcome without anything", |s| s.ws(TEXT, br#"{"type":"welcome"}"#), WRONG),
    ("an unknown message is ignored", |s| s.ws(TEXT, br#"{"type":"party","hats":[{}]}"#), LIVES),
    ("an unknown field is ignored", |s| s.ws(TEXT, br#"{"type":"bye","code":1000,"message":"x","y":{}}"#), LIVES),
    ("T45 a flood of pings", |s| s.ws(PING, b"x").repeat(5000), FLOOD),
    ("T45 a flood of pongs", |s| s.ws(PONG, b"x").repeat(5000), FLOOD),
    ("T45 a flood of texts", |s| s.ws(TEXT, br#"{"type":"party"}"#).repeat(5000), FLOOD),
    ("T45 a flood of empty messages", |s| s.ws(BINARY, &[]).repeat(5000), FLOOD),
    ("T45 garbage", |_| b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(), &[Fate::Closed(1002), Fate::Closed(1009)]),
];

#[rustfmt::skip]
pub(crate) const YAMUX: &[Case] = &[
    ("T46 version 1", |s| s.yamux(&[vec![1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]]), WRONG),
    ("T46 version 255", |s| s.yamux(&[vec![255; 12]]), WRONG),
    ("T46 type 4", |s| s.yamux(&[frame(4, 0, 0, 0)]), WRONG),
    ("T46 type 255", |s| s.yamux(&[frame(255, 0, 0, 0)]), WRONG),
    ("T46 data on stream 0", |s| s.yamux(&[data(0, 0, b"x")]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 a stream of id 0", |s| s.yamux(&[data(SYN, 0, b"x")]), WRONG),
    ("T46 data for a stream that never was", |s| s.yamux(&[data(0, 99, b"x")]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 window for a stream that never was", |s| s.yamux(&[frame(WINDOW, 0, 99, 1000)]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 FIN for a stream that never was", |s| s.yamux(&[frame(DATA, yamux::FIN, 99, 0)]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 RST for a stream that never was", |s| s.yamux(&[frame(DATA, yamux::RST, 99, 0)]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 ACK for a stream that never was", |s| s.yamux(&[frame(WINDOW, yamux::ACK, 99, 0)]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 a SYN with 4 GB of data", |s| s.yamux(&[frame(DATA, SYN, 99, u32::MAX as usize)]), WRONG),
    ("T46 a SYN with data over its window", |s| [s.yamux(&[frame(DATA, SYN, 98 + s.odd(), 300 * 1024)]), s.ws(BINARY, &[0; 200 * 1024]), s.ws(BINARY, &[0; 100 * 1024])].concat(), WRONG),
    ("T46 4 GB for an unknown stream", |s| s.yamux(&[frame(DATA, 0, 99, u32::MAX as usize)]), WRONG),
    ("T46 a ping with a stream", |s| s.yamux(&[frame(yamux::PING, SYN, 7, 1)]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 a ping without flags", |s| s.yamux(&[frame(yamux::PING, 0, 0, 1)]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 an answer to no ping", |s| s.yamux(&[frame(yamux::PING, yamux::ACK, 0, 12345)]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 go away", |s| s.yamux(&[frame(GO_AWAY, 0, 0, 0)]), ENDS),
    ("T46 go away, for an error", |s| s.yamux(&[frame(GO_AWAY, 0, 0, 1)]), ENDS),
    ("T46 go away, with an unknown code", |s| s.yamux(&[frame(GO_AWAY, 0, 0, 77)]), ENDS),
    ("T46 go away on a stream", |s| s.yamux(&[frame(GO_AWAY, 0, 9, 0)]), ENDS),
    ("T46 all flags at once", |s| s.yamux(&[frame(DATA, 0xffff, 99, 0)]), &[Fate::Closed(1002), Fate::Lives]),
    ("T46 half a header", |s| s.ws(BINARY, &[0, 0, 0]), LIVES),
    ("T46 text in place of yamux", |s| s.ws(BINARY, b"GET / HTTP/1.1\r\n\r\n"), WRONG),
    ("T46 a flood of pings of yamux", |s| [s.yamux(&vec![frame(yamux::PING, SYN, 0, 1); 2000])].concat().repeat(5), &[Fate::Closed(1008), Fate::Closed(1002), Fate::Lives]),
    ("T46 a flood of frames of length 0", |s| s.yamux(&vec![data(0, 99, &[]); 10_000]), &[Fate::Closed(1008), Fate::Closed(1002), Fate::Lives]),
    ("T46 a flood of windows", |s| s.yamux(&vec![frame(WINDOW, 0, 99, 1); 10_000]), &[Fate::Closed(1008), Fate::Closed(1002), Fate::Lives]),
];
