//! Behaviour of the Redis store alone.

use promptkeep::entry::Selector;

use super::*;
use crate::common::redis_server::RedisServer;

async fn redis_store() -> (RedisServer, Arc<dyn Store>) {
    let server = RedisServer::start().await;
    let store = store::open("local", &server.store()).unwrap();
    (server, store)
}

fn owned_by(tenant: &str, n: u64, namespace: &str, tags: &[&str]) -> Entry {
    Entry {
        owner: Owner::Tenant(tenant.to_owned()),
        namespace: namespace.to_owned(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        ..entry(n)
    }
}

#[tokio::test]
async fn entries_and_the_sets_that_list_them_expire_in_redis() {
    let (redis, store) = redis_store().await;
    put(&*store, owned_by("acme", 1, "docs", &["a"])).await;
    let hour = 3_600_000;
    for (key, least) in [("*:e:*", 0), ("*:n:*", hour), ("*:t:*", hour)] {
        let keys = redis.keys(key).await;
        assert_eq!(keys.len(), 1, "{key}");
        let left: i64 = redis.command(&format!("PTTL {}", keys[0])).await;
        assert!((least..=least + hour).contains(&left), "{key} {left}");
    }
}

/// A caller's selector names its owners and is answered from sets; a selector without owners scans the directories.
#[tokio::test]
async fn sets_and_directories_select_equal_entries() {
    let (_redis, store) = redis_store().await;
    let tenants = ["acme", "other"];
    for (n, tenant) in (0..40).zip(tenants.into_iter().cycle()) {
        let namespace = if n % 4 < 2 { "docs" } else { "code" };
        let tags: &[&str] = if n % 3 == 0 { &["a", "b"] } else { &["b"] };
        put(&*store, owned_by(tenant, n << 56 | n, namespace, tags)).await;
    }
    let (namespace, tags) = (Some("docs".to_owned()), vec!["a".to_owned()]);
    for selector in [
        Selector { namespace: namespace.clone(), ..Selector::default() },
        Selector { tags: tags.clone(), ..Selector::default() },
        Selector { namespace, tags, ..Selector::default() },
        Selector { model: Some("gpt-4o".to_owned()), ..Selector::default() },
    ] {
        let everyone = store.remove(&selector, true).await.unwrap();
        let mut one_by_one = Vec::new();
        for tenant in tenants {
            let owners = vec![Owner::Tenant(tenant.to_owned())];
            let of_one = store.remove(&Selector { owners, ..selector.clone() }, true).await.unwrap();
            assert!(!of_one.is_empty() && of_one.len() < everyone.len(), "{selector:?}");
            one_by_one.extend(of_one);
        }
        one_by_one.sort_unstable();
        assert_eq!(one_by_one, everyone, "{selector:?}");
        let both = tenants.map(|tenant| Owner::Tenant(tenant.to_owned())).to_vec();
        assert_eq!(store.remove(&Selector { owners: both, ..selector }, true).await.unwrap(), everyone);
    }
}

#[tokio::test]
async fn a_removed_entry_leaves_no_keys_behind() {
    let (redis, store) = redis_store().await;
    put(&*store, owned_by("acme", 1, "docs", &["a"])).await;
    let owners = vec![Owner::Tenant("acme".to_owned())];
    store.remove(&Selector { owners, ..Selector::default() }, false).await.unwrap();
    for kind in ["e", "d", "n", "t"] {
        assert_eq!(redis.keys(&format!("*}}:{kind}*")).await, Vec::<String>::new(), "{kind}");
    }
}

#[tokio::test]
async fn unreadable_entries_are_skipped_and_counted() {
    let (redis, store) = redis_store().await;
    for n in 0..3 {
        put(&*store, entry(n)).await;
    }
    for key in &redis.keys("*:e:*").await[..2] {
        redis.command::<()>(&format!("SETRANGE {key} 0 ~")).await;
    }
    assert_eq!(store.scan(None, 10).await.unwrap().len(), 1);
    assert_eq!(store.unreadable(), 2);
}

#[tokio::test]
async fn key_prefixes_separate_deployments_on_one_redis() {
    let (redis, store) = redis_store().await;
    let other = StoreConfig { key_prefix: "other".to_owned(), ..redis.store() };
    let other = store::open("local", &other).unwrap();
    put(&*store, entry(1)).await;
    assert_eq!(other.get(entry(1).key).await.unwrap(), None);
    assert_eq!(other.remove(&Selector::default(), false).await.unwrap(), []);
    assert!(store.get(entry(1).key).await.unwrap().is_some());
    redis.command::<()>("SET mine untouched").await;
    store.remove(&Selector::default(), false).await.unwrap();
    assert_eq!(redis.command::<String>("GET mine").await, "untouched");
}

/// A snapshot that was damaged, or that an earlier build wrote without a version, could never be replaced.
#[tokio::test]
async fn damaged_snapshots_and_those_of_earlier_builds_are_replaced() {
    let (redis, store) = redis_store().await;
    redis.command::<()>("SET promptkeep:note:learned what-an-earlier-build-has-learned").await;
    assert_eq!(store.snapshot("learned").await.unwrap(), None);
    for damaged in ["short", "longer-than-any-version-of-a-snapshot"] {
        redis.command::<()>(&format!("SET promptkeep:notes:learned {damaged}")).await;
        let previous = store.snapshot("learned").await.unwrap().map(|snapshot| snapshot.version);
        assert!(store.put_snapshot("learned", Snapshot::of(vec![1]), previous).await.unwrap(), "{damaged}");
        assert!(!store.put_snapshot("learned", Snapshot::of(vec![2]), None).await.unwrap(), "{damaged}");
        assert_eq!(store.snapshot("learned").await.unwrap(), Some(Snapshot::of(vec![1])));
    }
}
