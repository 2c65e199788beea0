//! What an application does with the crate on a cluster; prints one line a test (TAP).

use std::collections::{HashMap, HashSet};
use std::error::Error;
use std::fmt::Debug;
use std::time::{Duration, Instant};

use redis::caching::CacheConfig;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo, SingleNodeRoutingInfo};
use redis::{
    AsyncCommands, Expiry, FromRedisValue, ProtocolVersion, RedisResult, SetExpiry, SetOptions, Value, cmd,
    pipe,
};

type Outcome = Result<(), Box<dyn Error>>;
const PATIENCE: Duration = Duration::from_secs(5);

fn equal<T: PartialEq + Debug>(found: T, expected: T) -> Outcome {
    if found == expected { Ok(()) } else { Err(format!("found {found:?}, expected {expected:?}").into()) }
}

fn refused<T: Debug>(reply: RedisResult<T>, part: &str) -> Outcome {
    match reply {
        Err(error) if error.to_string().to_lowercase().contains(&part.to_lowercase()) => Ok(()),
        other => Err(format!("expected an error with {part:?}, found {other:?}").into()),
    }
}

/// Sends a command to all masters and gives each one's reply by address.
async fn each_master(
    c: &mut ClusterConnection,
    words: &[&str],
) -> Result<HashMap<String, Value>, Box<dyn Error>> {
    let mut command = cmd(words[0]);
    command.arg(&words[1..]);
    let route = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, None));
    Ok(HashMap::from_redis_value(c.route_command(command, route).await?)?)
}

async fn flush(c: &mut ClusterConnection) -> Outcome {
    let route =
        RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, Some(ResponsePolicy::AllSucceeded)));
    c.route_command(cmd("FLUSHALL"), route).await?;
    Ok(())
}

async fn strings(c: &mut ClusterConnection) -> Outcome {
    c.set::<_, _, ()>("s", "one").await?;
    equal(c.get::<_, String>("s").await?, "one".to_string())?;
    equal(c.get::<_, Option<String>>("s:none").await?, None)?;
    equal(c.append::<_, _, i64>("s", "+two").await?, 7)?;
    equal(c.getrange::<_, String>("s", 0, 2).await?, "one".to_string())?;
    equal(c.setrange::<_, _, i64>("s", 4, "TWO").await?, 7)?;
    equal(c.getset::<_, _, String>("s", "new").await?, "one+TWO".to_string())?;
    equal(c.get_del::<_, String>("s").await?, "new".to_string())?;
    equal(c.exists::<_, bool>("s").await?, false)?;
    equal(c.set_nx::<_, _, bool>("s", "1").await?, true)?;
    equal(c.set_nx::<_, _, bool>("s", "2").await?, false)?;
    let options = SetOptions::default().with_expiration(SetExpiry::EX(100)).get(true);
    equal(c.set_options::<_, _, Option<String>>("s", "2", options).await?, Some("1".to_string()))?;
    let every_byte: Vec<u8> = (0..=255).collect();
    c.set::<_, _, ()>("bin", &every_byte).await?;
    equal(c.get::<_, Vec<u8>>("bin").await?, every_byte)
}

async fn counters(c: &mut ClusterConnection) -> Outcome {
    equal(c.incr::<_, _, i64>("n", 42).await?, 42)?;
    equal(c.decr::<_, _, i64>("n", 1).await?, 41)?;
    equal(c.incr::<_, _, f64>("n", 0.5).await?, 41.5)?;
    refused(c.incr::<_, _, i64>("n", 1).await, "not an integer")
}

async fn hashes(c: &mut ClusterConnection) -> Outcome {
    equal(c.hset_multiple::<_, _, _, String>("h", &[("a", "1"), ("b", "2")]).await?, "OK".to_string())?;
    equal(c.hset::<_, _, _, i64>("h", "b", "3").await?, 0)?;
    let whole: HashMap<String, String> = c.hgetall("h").await?;
    equal(whole, HashMap::from([("a".into(), "1".into()), ("b".into(), "3".into())]))?;
    equal(
        c.hmget::<_, _, Vec<Option<String>>>("h", &["a", "none"]).await?,
        vec![Some("1".to_string()), None],
    )?;
    equal(c.hincr::<_, _, _, i64>("h", "a", 9).await?, 10)?;
    equal(c.hexists::<_, _, bool>("h", "a").await?, true)?;
    equal(c.hlen::<_, i64>("h").await?, 2)?;
    let mut fields: Vec<String> = c.hkeys("h").await?;
    fields.sort();
    equal(fields, vec!["a".to_string(), "b".to_string()])?;
    equal(c.hdel::<_, _, i64>("h", &["a", "b"]).await?, 2)?;
    equal(c.exists::<_, bool>("h").await?, false)
}

async fn deadlines(c: &mut ClusterConnection) -> Outcome {
    c.set_ex::<_, _, ()>("ttl", "v", 100).await?;
    let left: i64 = c.ttl("ttl").await?;
    equal((90..=100).contains(&left), true)?;
    equal(c.persist::<_, bool>("ttl").await?, true)?;
    equal(c.ttl::<_, i64>("ttl").await?, -1)?;
    equal(c.expire::<_, bool>("ttl", 50).await?, true)?;
    equal(c.get_ex::<_, String>("ttl", Expiry::PX(60)).await?, "v".to_string())?;
    let end = Instant::now() + PATIENCE;
    while c.exists::<_, bool>("ttl").await? {
        equal(Instant::now() < end, true)?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    equal(c.ttl::<_, i64>("ttl").await?, -2)
}

async fn several_keys(c: &mut ClusterConnection) -> Outcome {
    c.mset::<_, _, ()>(&[("{m}a", "1"), ("{m}b", "2")]).await?;
    equal(
        c.mget::<_, Vec<Option<String>>>(&["{m}a", "{m}none", "{m}b"]).await?,
        vec![Some("1".into()), None, Some("2".into())],
    )?;
    let pairs: Vec<(String, String)> = (0..300).map(|i| (format!("split:{i}"), i.to_string())).collect();
    c.mset::<_, _, ()>(&pairs).await?;
    let keys: Vec<&String> = pairs.iter().map(|(key, _)| key).collect();
    equal(c.mget::<_, Vec<String>>(&keys).await?, pairs.iter().map(|(_, v)| v.clone()).collect::<Vec<_>>())?;
    equal(c.del::<_, i64>(&keys).await?, 300)?;
    equal(c.rename::<_, _, String>("{m}a", "{m}c").await?, "OK".to_string())?;
    refused(c.rename::<_, _, String>("{m}none", "{m}c").await, "no such key")
}

async fn pipeline_in_one_slot(c: &mut ClusterConnection) -> Outcome {
    let mut batch = pipe();
    for i in 0..200 {
        batch.set(format!("{{p}}{i}"), i).ignore().get(format!("{{p}}{i}"));
    }
    equal(batch.query_async::<Vec<i64>>(c).await?, (0..200).collect::<Vec<_>>())
}

async fn transaction(c: &mut ClusterConnection) -> Outcome {
    let replies: (String, i64, i64, String) = pipe()
        .atomic()
        .set("{tx}a", 1)
        .incr("{tx}a", 1)
        .hset("{tx}h", "f", "v")
        .get("{tx}a")
        .query_async(c)
        .await?;
    equal(replies, ("OK".to_string(), 2, 1, "2".to_string()))
}

async fn many_at_once_over_all_slots(c: &mut ClusterConnection) -> Outcome {
    let mut tasks = tokio::task::JoinSet::new();
    for i in 0..2000_i64 {
        let mut c = c.clone();
        tasks.spawn(async move {
            c.set::<_, _, ()>(format!("many:{i}"), i).await?;
            c.get::<_, i64>(format!("many:{i}")).await.map(|found| found == i)
        });
    }
    while let Some(done) = tasks.join_next().await {
        equal(done??, true)?;
    }
    Ok(())
}

async fn scan_over_all_masters(c: &mut ClusterConnection) -> Outcome {
    flush(c).await?;
    let pairs: Vec<(String, i64)> = (0..1000).map(|i| (format!("scan:{i}"), i)).collect();
    c.mset::<_, _, ()>(&pairs).await?;
    let sizes = each_master(c, &["DBSIZE"]).await?;
    equal(sizes.len(), 3)?;
    let mut found = Vec::new();
    for address in sizes.keys() {
        found.extend(scan_node(c, address).await?);
    }
    equal(found.len(), 1000)?;
    equal(
        found.into_iter().collect::<HashSet<_>>(),
        pairs.iter().map(|(k, _)| k.clone()).collect::<HashSet<_>>(),
    )?;
    equal(cmd("DBSIZE").query_async::<i64>(c).await?, 1000)?;
    flush(c).await?;
    equal(cmd("DBSIZE").query_async::<i64>(c).await?, 0)
}

async fn scan_node(c: &mut ClusterConnection, address: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let (host, port) = address.rsplit_once(':').ok_or("an address without a port")?;
    let route = SingleNodeRoutingInfo::ByAddress { host: host.into(), port: port.parse()? };
    let (mut cursor, mut found) = (0_u64, Vec::new());
    loop {
        let mut scan = cmd("SCAN");
        scan.arg(cursor).arg("MATCH").arg("scan:*").arg("COUNT").arg(100);
        let reply = c.route_command(scan, RoutingInfo::SingleNode(route.clone())).await?;
        let (next, keys): (u64, Vec<String>) = redis::from_redis_value(reply)?;
        found.extend(keys);
        cursor = next;
        if cursor == 0 {
            return Ok(found);
        }
    }
}

async fn both_protocols(_: &mut ClusterConnection) -> Outcome {
    for protocol in [ProtocolVersion::RESP2, ProtocolVersion::RESP3] {
        let mut c = crate::connect(crate::builder().use_protocol(protocol)).await?;
        c.hset::<_, _, _, ()>("proto", "f", "v").await?;
        equal(
            c.hgetall::<_, HashMap<String, String>>("proto").await?,
            HashMap::from([("f".into(), "v".into())]),
        )?;
    }
    Ok(())
}

async fn client_side_cache(c: &mut ClusterConnection) -> Outcome {
    let builder = crate::builder().use_protocol(ProtocolVersion::RESP3).cache_config(CacheConfig::new());
    let mut cached = crate::connect(builder).await?;
    for round in 0..20_i64 {
        for key in ["near:a", "near:b", "near:c", "near:d"] {
            c.set::<_, _, ()>(key, round).await?;
            let end = Instant::now() + PATIENCE;
            while cached.get::<_, i64>(key).await? != round {
                equal(Instant::now() < end, true)?;
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            cached.get::<_, i64>(key).await?;
        }
    }
    let seen = cached.get_cache_statistics().ok_or("no cache")?;
    equal(seen.hit >= 80 && seen.invalidate >= 76, true).map_err(|_| format!("{seen:?}").into())
}

/// Runs every test and prints its line; an error if one failed.
pub async fn run() -> Outcome {
    let mut connection = crate::connect(crate::builder()).await?;
    flush(&mut connection).await?;
    let mut failed = 0;
    macro_rules! tests {
        ($($test:ident),* $(,)?) => {$(
            let name = stringify!($test).replace('_', " ");
            match $test(&mut connection).await {
                Ok(()) => println!("ok - {name}"),
                Err(error) => {
                    failed += 1;
                    println!("not ok - {name}: {error}");
                }
            }
        )*};
    }
    tests!(
        strings,
        counters,
        hashes,
        deadlines,
        several_keys,
        pipeline_in_one_slot,
        transaction,
        many_at_once_over_all_slots,
        scan_over_all_masters,
        both_protocols,
        client_side_cache,
    );
    if failed == 0 { Ok(()) } else { Err(format!("{failed} tests failed").into()) }
}
