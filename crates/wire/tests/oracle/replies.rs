//! Every reply we write is one redis-protocol reads as what was meant, and so does our own decoder.

use std::collections::HashMap;

use proptest::collection::vec;
use proptest::prelude::*;
use redis_protocol::resp2::types::OwnedFrame as Resp2;
use redis_protocol::resp3::types::{OwnedFrame as Resp3, VerbatimStringFormat};
use slotcast_wire::frame::{Frame, FrameDecoder};
use slotcast_wire::reply::{Proto, Reply};

/// A reply of a command, as a value.
#[derive(Clone, Debug)]
enum Value {
    Ok,
    Simple(String),
    Error(String),
    Integer(i64),
    BulkInteger(i64),
    Bulk(Vec<u8>),
    Null,
    NullArray,
    Double(f64),
    Boolean(bool),
    BigNumber(u128),
    Verbatim(String),
    Array(Vec<Value>),
    ArrayAt(Vec<Value>),
    Map(Vec<(String, Value)>),
    Set(Vec<i64>),
    Push(Vec<Value>),
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Ok),
        "[a-zA-Z ]{0,20}".prop_map(Value::Simple),
        "ERR [a-zA-Z ]{0,20}".prop_map(Value::Error),
        any::<i64>().prop_map(Value::Integer),
        (-200i64..200).prop_map(Value::Integer),
        any::<i64>().prop_map(Value::BulkInteger),
        vec(any::<u8>(), 0..200).prop_map(Value::Bulk),
        Just(Value::Null),
        Just(Value::NullArray),
        any::<f64>().prop_map(Value::Double),
        (-100_000i64..100_000).prop_map(|n| Value::Double(n as f64 / 64.0)),
        any::<bool>().prop_map(Value::Boolean),
        any::<u128>().prop_map(Value::BigNumber),
        ".{0,20}".prop_map(Value::Verbatim),
    ];
    leaf.prop_recursive(4, 40, 8, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..12).prop_map(Value::Array),
            vec(inner.clone(), 0..12).prop_map(Value::ArrayAt),
            proptest::collection::hash_map("[a-z]{1,5}", inner, 0..6)
                .prop_map(|pairs| Value::Map(pairs.into_iter().collect())),
            proptest::collection::hash_set(any::<i64>(), 0..6)
                .prop_map(|elements| Value::Set(elements.into_iter().collect())),
        ]
    })
}

/// A top-level reply or push.
fn reply() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => value(),
        1 => vec(value(), 0..4).prop_map(|rest| {
            Value::Push([Value::Bulk(b"invalidate".to_vec())].into_iter().chain(rest).collect())
        }),
    ]
}

impl Value {
    fn write(&self, reply: &mut Reply<'_>) {
        match self {
            Value::Ok => reply.ok(),
            Value::Simple(text) => reply.simple(text),
            Value::Error(text) => reply.error(text),
            Value::Integer(n) => reply.integer(*n),
            Value::BulkInteger(n) => reply.bulk_integer(*n),
            Value::Bulk(bytes) => reply.bulk(bytes),
            Value::Null => reply.null(),
            Value::NullArray => reply.null_array(),
            Value::Double(value) => reply.double(*value),
            Value::Boolean(value) => reply.boolean(*value),
            Value::BigNumber(n) => reply.big_number(&n.to_string()),
            Value::Verbatim(text) => reply.verbatim("txt", text.as_bytes()),
            Value::Array(elements) => {
                reply.array(elements.len());
                elements.iter().for_each(|element| element.write(reply));
            }
            Value::ArrayAt(elements) => {
                let mark = reply.mark();
                elements.iter().for_each(|element| element.write(reply));
                reply.array_at(mark, elements.len());
            }
            Value::Map(pairs) => {
                reply.map(pairs.len());
                for (key, value) in pairs {
                    reply.simple(key);
                    value.write(reply);
                }
            }
            Value::Set(elements) => {
                reply.set(elements.len());
                elements.iter().for_each(|&element| reply.integer(element));
            }
            Value::Push(elements) => {
                reply.push(elements.len());
                elements.iter().for_each(|element| element.write(reply));
            }
        }
    }

    fn resp2(&self) -> Resp2 {
        let bulk = |text: String| Resp2::BulkString(text.into_bytes());
        match self {
            Value::Ok => Resp2::SimpleString(b"OK".to_vec()),
            Value::Simple(text) => Resp2::SimpleString(text.clone().into_bytes()),
            Value::Error(text) => Resp2::Error(text.clone()),
            Value::Integer(n) => Resp2::Integer(*n),
            Value::BulkInteger(n) => bulk(n.to_string()),
            Value::Bulk(bytes) => Resp2::BulkString(bytes.clone()),
            Value::Null | Value::NullArray => Resp2::Null,
            Value::Double(value) => bulk(shortest(*value)),
            Value::Boolean(value) => Resp2::Integer(i64::from(*value)),
            Value::BigNumber(n) => bulk(n.to_string()),
            Value::Verbatim(text) => bulk(text.clone()),
            Value::Array(elements) | Value::ArrayAt(elements) | Value::Push(elements) => {
                Resp2::Array(elements.iter().map(Value::resp2).collect())
            }
            Value::Map(pairs) => Resp2::Array(
                pairs
                    .iter()
                    .flat_map(|(key, value)| [Value::Simple(key.clone()).resp2(), value.resp2()])
                    .collect(),
            ),
            Value::Set(elements) => Resp2::Array(elements.iter().map(|&n| Resp2::Integer(n)).collect()),
        }
    }

    fn resp3(&self) -> Resp3 {
        let attributes = None;
        match self {
            Value::Ok => Resp3::SimpleString { data: b"OK".to_vec(), attributes },
            Value::Simple(text) => Resp3::SimpleString { data: text.clone().into_bytes(), attributes },
            Value::Error(text) => Resp3::SimpleError { data: text.clone(), attributes },
            Value::Integer(n) => Resp3::Number { data: *n, attributes },
            Value::BulkInteger(n) => Resp3::BlobString { data: n.to_string().into_bytes(), attributes },
            Value::Bulk(bytes) => Resp3::BlobString { data: bytes.clone(), attributes },
            Value::Null | Value::NullArray => Resp3::Null,
            Value::Double(value) => Resp3::Double { data: *value, attributes },
            Value::Boolean(value) => Resp3::Boolean { data: *value, attributes },
            Value::BigNumber(n) => Resp3::BigNumber { data: n.to_string().into_bytes(), attributes },
            Value::Verbatim(text) => {
                let format = VerbatimStringFormat::Text;
                Resp3::VerbatimString { data: text.clone().into_bytes(), format, attributes }
            }
            Value::Array(elements) | Value::ArrayAt(elements) => {
                Resp3::Array { data: elements.iter().map(Value::resp3).collect(), attributes }
            }
            Value::Map(pairs) => {
                let pairs =
                    pairs.iter().map(|(key, value)| (Value::Simple(key.clone()).resp3(), value.resp3()));
                Resp3::Map { data: pairs.collect::<HashMap<_, _>>(), attributes }
            }
            Value::Set(elements) => {
                let elements = elements.iter().map(|&data| Resp3::Number { data, attributes: None });
                Resp3::Set { data: elements.collect(), attributes }
            }
            Value::Push(elements) => {
                Resp3::Push { data: elements.iter().map(Value::resp3).collect(), attributes }
            }
        }
    }

    /// What our own decoder reads.
    fn frame(&self, proto: Proto) -> Frame {
        let resp3 = proto == Proto::Resp3;
        let bulk = |text: String| Frame::Bulk(text.into_bytes());
        let all =
            |elements: &[Value]| elements.iter().map(|element| element.frame(proto)).collect::<Vec<_>>();
        match self {
            Value::Ok => Frame::Simple("OK".into()),
            Value::Simple(text) => Frame::Simple(text.clone()),
            Value::Error(text) => Frame::Error(text.clone()),
            Value::Integer(n) => Frame::Integer(*n),
            Value::BulkInteger(n) => bulk(n.to_string()),
            Value::Bulk(bytes) => Frame::Bulk(bytes.clone()),
            Value::Null | Value::NullArray => Frame::Null,
            Value::Double(value) if resp3 => Frame::Double(*value),
            Value::Double(value) => bulk(shortest(*value)),
            Value::Boolean(value) if resp3 => Frame::Boolean(*value),
            Value::Boolean(value) => Frame::Integer(i64::from(*value)),
            Value::BigNumber(n) if resp3 => Frame::BigNumber(n.to_string()),
            Value::BigNumber(n) => bulk(n.to_string()),
            Value::Verbatim(text) if resp3 => Frame::Verbatim(*b"txt", text.clone().into_bytes()),
            Value::Verbatim(text) => bulk(text.clone()),
            Value::Push(elements) if resp3 => Frame::Push(all(elements)),
            Value::Array(elements) | Value::ArrayAt(elements) | Value::Push(elements) => {
                Frame::Array(all(elements))
            }
            Value::Map(pairs) => {
                let pairs = pairs.iter().map(|(key, value)| (Frame::Simple(key.clone()), value.frame(proto)));
                if resp3 {
                    Frame::Map(pairs.collect())
                } else {
                    Frame::Array(pairs.flat_map(|(k, v)| [k, v]).collect())
                }
            }
            Value::Set(elements) => {
                let elements = elements.iter().map(|&n| Frame::Integer(n)).collect();
                if resp3 { Frame::Set(elements) } else { Frame::Array(elements) }
            }
        }
    }
}

fn shortest(value: f64) -> String {
    let mut text = Vec::new();
    slotcast_wire::number::write_double_shortest(&mut text, value);
    String::from_utf8(text).expect("ASCII")
}

fn written(value: &Value, proto: Proto) -> Vec<u8> {
    let mut out = Vec::new();
    value.write(&mut Reply::new(&mut out, proto));
    out
}

proptest! {
    #[test]
    fn redis_protocol_reads_resp2_replies(value in reply()) {
        let bytes = written(&value, Proto::Resp2);
        let read = redis_protocol::resp2::decode::decode(&bytes).expect("valid").expect("whole");
        prop_assert_eq!(read, (value.resp2(), bytes.len()));
    }

    #[test]
    fn redis_protocol_reads_resp3_replies(value in reply()) {
        let bytes = written(&value, Proto::Resp3);
        let read = redis_protocol::resp3::decode::complete::decode(&bytes).expect("valid").expect("whole");
        prop_assert_eq!(read, (value.resp3(), bytes.len()));
    }

    #[test]
    fn our_decoder_reads_replies(value in reply()) {
        for proto in [Proto::Resp2, Proto::Resp3] {
            let bytes = written(&value, proto);
            let read = FrameDecoder::default().decode(&bytes).expect("valid");
            prop_assert_eq!(read, (bytes.len(), Some(value.frame(proto))));
        }
    }
}
