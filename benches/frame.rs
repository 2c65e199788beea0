//! What bytes cost: parsing requests, hashing keys, writing replies, beside the redis-protocol crate.
//!
//! `cargo bench --bench frame`. Figures mean something only on a quiet machine, and only next to each other.

#![allow(missing_docs)] // of the function criterion_group! makes

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use redis_protocol::resp2::decode::{decode, decode_range};
use redis_protocol::resp2::encode::extend_encode_borrowed;
use redis_protocol::resp2::types::BorrowedFrame;
use slotcast_wire::args::OwnedArgs;
use slotcast_wire::frame::FrameDecoder;
use slotcast_wire::reply::{Proto, Reply};
use slotcast_wire::request::{Limits, Parsed, Request, RequestParser};
use slotcast_wire::slot::slot_of;

/// A key of 16 bytes.
const KEY: &str = "key:000000012345";

/// Requests of a pipeline.
const PIPELINE: usize = 64;

fn encoded(args: &[&str]) -> Vec<u8> {
    args.iter().collect::<OwnedArgs>().encoded().to_vec()
}

/// Parses `buf` into `requests`, as a connection does before it executes; the number of arguments.
fn parse_all(parser: &mut RequestParser, buf: &[u8], limits: &Limits, requests: &mut [Request]) -> usize {
    let mut at = 0;
    let mut count = 0;
    for request in requests {
        let Ok(Parsed::Request(used)) = parser.parse(&buf[at..], limits, request) else { break };
        at += used;
        count += request.args(buf).len();
    }
    count
}

fn parsing(c: &mut Criterion) {
    let value = "x".repeat(64);
    let set = encoded(&["SET", KEY, &value]);
    let get = encoded(&["GET", KEY]);
    let mut mget = vec!["MGET"];
    mget.resize(11, KEY);
    let limits = Limits::DEFAULT;
    let mut group = c.benchmark_group("parse");
    for (name, bytes) in [("set", &set), ("get", &get), ("mget10", &encoded(&mget))] {
        let (mut parser, mut request) = (RequestParser::default(), Request::default());
        group.bench_function(name, |b| b.iter(|| parser.parse(black_box(bytes), &limits, &mut request)));
        group.bench_function(format!("{name}, redis-protocol ranges"), |b| {
            b.iter(|| decode_range(black_box(bytes)))
        });
        group
            .bench_function(format!("{name}, redis-protocol owned"), |b| b.iter(|| decode(black_box(bytes))));
    }
    for (name, bytes) in [("set", &set), ("get", &get)] {
        let pipeline = bytes.repeat(PIPELINE);
        let mut parser = RequestParser::default();
        let mut requests: Vec<Request> = (0..PIPELINE).map(|_| Request::default()).collect();
        group.throughput(Throughput::Elements(PIPELINE as u64));
        group.bench_function(format!("{PIPELINE} {name}"), |b| {
            b.iter(|| parse_all(&mut parser, black_box(&pipeline), &limits, &mut requests))
        });
    }
    group.finish();
}

fn slots(c: &mut Criterion) {
    let mut group = c.benchmark_group("slot_of");
    for len in [16, 32, 64] {
        let key = "k".repeat(len);
        group.bench_function(format!("{len} bytes"), |b| b.iter(|| slot_of(black_box(key.as_bytes()))));
    }
    let tagged = "{user1000}.following";
    group.bench_function("hash tag", |b| b.iter(|| slot_of(black_box(tagged.as_bytes()))));
    group.finish();
}

/// Times `write` on a buffer that is emptied each time.
fn writing(c: &mut Criterion, name: &str, write: impl Fn(&mut Vec<u8>)) {
    let mut out = Vec::with_capacity(4096);
    c.bench_function(&format!("reply/{name}"), |b| {
        b.iter(|| {
            out.clear();
            write(black_box(&mut out));
            out.len()
        })
    });
}

fn replies(c: &mut Criterion) {
    let value = [b'x'; 64];
    let reply =
        |write: fn(&mut Reply<'_>)| move |out: &mut Vec<u8>| write(&mut Reply::new(out, Proto::Resp2));
    writing(c, "ok", reply(|reply| reply.ok()));
    writing(c, "integer", reply(|reply| reply.integer(black_box(1_234_567))));
    writing(c, "null", reply(|reply| reply.null()));
    writing(c, "bulk", |out| Reply::new(out, Proto::Resp2).bulk(black_box(&value)));
    writing(c, "mget10", |out| {
        let mut reply = Reply::new(out, Proto::Resp2);
        reply.array(10);
        (0..10).for_each(|_| reply.bulk(black_box(&value)));
    });
    let mut buf = bytes::BytesMut::with_capacity(4096);
    for (name, frame) in [
        ("ok", BorrowedFrame::SimpleString(b"OK")),
        ("integer", BorrowedFrame::Integer(1_234_567)),
        ("bulk", BorrowedFrame::BulkString(&value)),
    ] {
        c.bench_function(&format!("reply/{name}, redis-protocol"), |b| {
            b.iter(|| {
                buf.clear();
                extend_encode_borrowed(&mut buf, black_box(&frame), false)
            })
        });
    }
}

fn frames(c: &mut Criterion) {
    let value = "x".repeat(64);
    let bulk = format!("$64\r\n{value}\r\n").into_bytes();
    c.bench_function("frame/bulk", |b| b.iter(|| FrameDecoder::default().decode(black_box(&bulk))));
    c.bench_function("frame/bulk, redis-protocol", |b| b.iter(|| decode(black_box(&bulk))));
}

criterion_group!(benches, parsing, slots, replies, frames);
criterion_main!(benches);
